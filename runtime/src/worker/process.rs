//! The worker process: one thread, and a sandbox for each invocation it was given.
//!
//! It does one thing after the other: reads a frame, lets the code it concerns run, says what came of it. While nothing is to
//! be read it makes heaps ready, so that an invocation need not wait for its own. Its memory holds what the invocations hold:
//! it reads the next frame only when the last one is done.

use super::confine::confine;
use super::frame::{FRAME_BYTES, FromWorker, ToWorker, add, read, unpack};
use super::{INVOCATIONS, SETS};
use crate::compile::Modules;
use crate::sandbox::{Said, Sandbox, Warm, declared};
use crate::wire::{Ended, Fault, Invocation, Writes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stdin;
use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Heaps that are kept ready.
const READY: usize = 2;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a buffer that is kept for the next frame.
const KEPT_BYTES: usize = 1 << 20;

/// What a process that [`Worker::spawn`](super::Worker::spawn) began has to call before anything else: before it opens a
/// file, begins a thread or reads its arguments. Its standard input is the socket to the parent. It comes back when the
/// parent has closed that.
pub fn main() -> ExitCode {
    let done = confine()
        .map_err(|error| io::Error::new(error.kind(), format!("it could not be confined: {error}")))
        .and_then(|()| Process::new().serve());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker for functions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket to the parent.
struct Socket;

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustix::io::read(stdin(), buffer).map_err(io::Error::from)
    }
}

struct Process {
    input: BufReader<Socket>,
    /// Frames that are written together.
    output: Vec<u8>,
    sets: HashMap<String, Arc<Modules>>,
    /// The set that is coming in.
    coming: Modules,
    sandboxes: HashMap<u64, Sandbox>,
    ready: Vec<Warm>,
}

impl Process {
    fn new() -> Process {
        Process {
            input: BufReader::with_capacity(READ_BYTES, Socket),
            output: Vec::new(),
            sets: HashMap::new(),
            coming: Modules::default(),
            sandboxes: HashMap::new(),
            ready: Vec::new(),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.say(&FromWorker::Ready, 0)?;
        self.write()?;
        let mut frame = Vec::new();
        loop {
            self.make_ready()?;
            if !read(&mut self.input, &mut frame)? {
                return Ok(());
            }
            let message = unpack(&frame)?;
            if frame.capacity() > KEPT_BYTES {
                frame = Vec::new();
            }
            self.take(message)?;
        }
    }

    /// Makes heaps while there is nothing to read.
    fn make_ready(&mut self) -> io::Result<()> {
        while self.ready.len() < READY && self.input.buffer().is_empty() && !can_read()? {
            match Warm::new() {
                Ok(warm) => self.ready.push(warm),
                // Invocations that end give memory back.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, message: ToWorker<'_>) -> io::Result<()> {
        match message {
            ToWorker::Modules { hash, part, last } => {
                let part = part.into_iter().map(|(name, module)| (name.into_owned(), module.into_owned()));
                self.coming.modules.extend(part);
                if last {
                    let set = Modules { hash: hash.clone().into_owned(), ..std::mem::take(&mut self.coming) };
                    self.sets.insert(hash.into_owned(), Arc::new(set));
                }
                match self.sets.len() <= SETS {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("more than {SETS} sets of modules"))),
                }
            }
            ToWorker::Forget { hash } => {
                self.sets.remove(&hash);
                Ok(())
            }
            ToWorker::Describe { invocation, hash, file } => self.describe(invocation, &hash, &file),
            ToWorker::Begin { invocation, hash, of } => self.begin(invocation, &hash, of.into_owned()),
            ToWorker::Answer { invocation, call, answer } => {
                // It may have ended meanwhile.
                let Some(mut sandbox) = self.sandboxes.remove(&invocation) else { return Ok(()) };
                self.enter(invocation)?;
                let said = sandbox.answer(call, answer);
                self.leave(invocation, sandbox, said)
            }
            ToWorker::Stop { invocation, code, message } => {
                let Some(mut sandbox) = self.sandboxes.remove(&invocation) else { return Ok(()) };
                let said = sandbox.stop(&code, &message);
                self.leave(invocation, sandbox, said)
            }
        }
    }

    fn begin(&mut self, invocation: u64, hash: &str, of: Invocation) -> io::Result<()> {
        if self.sandboxes.len() >= INVOCATIONS {
            return Err(io::Error::other(format!("more than {INVOCATIONS} invocations at one time")));
        }
        let modules = self.set(hash)?;
        self.enter(invocation)?;
        match self.warm() {
            Ok(warm) => {
                let (sandbox, said) = warm.begin(modules, of);
                self.leave(invocation, sandbox, said)
            }
            Err(fault) => self.refuse(invocation, Err(fault)),
        }
    }

    fn describe(&mut self, invocation: u64, hash: &str, file: &str) -> io::Result<()> {
        let modules = self.set(hash)?;
        self.enter(invocation)?;
        let declared = self.warm().and_then(|warm| declared(warm, &modules, file));
        self.refuse(invocation, declared.map(Some))
    }

    fn set(&self, hash: &str) -> io::Result<Arc<Modules>> {
        self.sets.get(hash).cloned().ok_or_else(|| io::Error::other(format!("no modules {hash} were sent")))
    }

    fn warm(&mut self) -> Result<Warm, Fault> {
        self.ready.pop().map_or_else(Warm::new, Ok)
    }

    /// From here on the parent measures how long code runs without coming back.
    fn enter(&mut self, invocation: u64) -> io::Result<()> {
        self.say(&FromWorker::Running(Some(invocation)), 0)?;
        self.write()
    }

    /// Tells what came of it; keeps the sandbox if it goes on.
    fn leave(&mut self, invocation: u64, mut sandbox: Sandbox, said: Vec<Said>) -> io::Result<()> {
        for said in said {
            match said {
                Said::Ended(ended) => self.ended(invocation, ended)?,
                Said::Call(call) => {
                    let bytes = bytes_of(&call.writes);
                    if self.say(&FromWorker::Call { invocation, call }, bytes).is_err() {
                        let message = format!(
                            "one step holds more than {} MiB: save fewer records at a time, or shorter ones",
                            FRAME_BYTES >> 20
                        );
                        for said in sandbox.stop("step_too_large", &message) {
                            if let Said::Ended(ended) = said {
                                self.ended(invocation, Ended { writes: Writes::default(), ..ended })?;
                            }
                        }
                        break;
                    }
                }
            }
        }
        self.say(&FromWorker::Running(None), 0)?;
        self.write()?;
        if !sandbox.has_ended() {
            self.sandboxes.insert(invocation, sandbox);
        }
        Ok(())
    }

    /// Of what has no sandbox.
    fn refuse(&mut self, invocation: u64, result: Result<Option<String>, Fault>) -> io::Result<()> {
        self.ended(invocation, Ended { writes: Writes::default(), result, cpu: Duration::ZERO })?;
        self.say(&FromWorker::Running(None), 0)?;
        self.write()
    }

    fn ended(&mut self, invocation: u64, ended: Ended) -> io::Result<()> {
        let (bytes, cpu) = (bytes_of(&ended.writes), ended.cpu);
        if self.say(&FromWorker::Ended { invocation, ended }, bytes).is_ok() {
            return Ok(());
        }
        let message =
            format!("what it wrote last is larger than {} MiB: save fewer records at a time", FRAME_BYTES >> 20);
        let result = Err(Fault { code: "step_too_large".into(), message, ..Fault::default() });
        self.say(&FromWorker::Ended { invocation, ended: Ended { writes: Writes::default(), result, cpu } }, 0)
    }

    fn say(&mut self, message: &FromWorker, bytes: usize) -> io::Result<()> {
        add(&mut self.output, message, bytes)
    }

    fn write(&mut self) -> io::Result<()> {
        let mut rest = self.output.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(stdin(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

fn bytes_of(writes: &Writes) -> usize {
    let pages: usize = writes.pages.iter().map(|page| page.bytes.len() + 4 * page.rows.len()).sum();
    let lines: usize = writes.lines.iter().map(|line| line.text.len()).sum();
    pages + lines
}

fn can_read() -> io::Result<bool> {
    let socket = stdin();
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
