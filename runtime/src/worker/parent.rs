//! The parent's side of one worker process: who is in it, what each one says and is answered.

use super::attend::{Ends, attend};
use super::frame::{FRAME_BYTES, ToWorker, of_modules, pack};
use super::spawn::spawn;
use super::{INVOCATIONS, Options, SETS};
use crate::compile::{Complaint, Modules, Place};
use crate::sandbox::{DESCRIBE, Definition, read};
use crate::wire::{Answer, Call, Ended, Fault, Invocation, Writes};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// How long a process may take to say that it is there.
const START: Duration = Duration::from_secs(10);
/// Bytes of answers that wait to be written to a worker; more wait at [`Running::answer`].
const OUT_BYTES: u32 = 32 << 20;

/// There is no worker (any more), and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the worker for functions {0}")]
pub struct Gone(pub(super) Arc<str>);

impl Gone {
    pub(super) fn because(why: impl Into<Arc<str>>) -> Gone {
        Gone(why.into())
    }
}

/// What is heard of an invocation.
#[derive(Debug)]
pub enum Heard {
    /// It asks, and goes on when it is answered.
    Call(Call),
    /// It ended.
    Ended(Ended),
    /// Its worker ended through no fault of its own: it is to be begun again from its checkpoint.
    Lost(Gone),
}

/// A worker process. It ends when this and all its invocations are dropped.
#[derive(Clone)]
pub struct Worker {
    handle: Arc<Handle>,
}

pub(super) struct Handle {
    shared: Arc<Shared>,
    pid: u32,
    /// Dropped with the last owner, which ends the process.
    _owned: oneshot::Sender<()>,
}

/// What the owners of a worker and the task that attends to it share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) options: Options,
    out: mpsc::UnboundedSender<Frame>,
    room: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Bytes on their way to a worker; an answer holds room while it waits.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

pub(super) struct State {
    /// Who is in it.
    pub(super) guests: HashMap<u64, Guest>,
    /// Whose code runs.
    pub(super) inside: Option<Inside>,
    /// Since when there is no invocation.
    pub(super) idle_since: Instant,
    /// Why there is none any more.
    pub(super) gone: Option<Gone>,
    /// Hashes of the sets of modules it has, the last used one last.
    sets: VecDeque<String>,
    last: u64,
}

/// An invocation, as its worker's parent knows it.
pub(super) struct Guest {
    to: mpsc::UnboundedSender<Heard>,
    /// Calls without an answer.
    open: HashSet<u32>,
    most_open: usize,
    pub(super) step: Duration,
    _place: OwnedSemaphorePermit,
}

/// Whose code runs since when.
pub(super) struct Inside {
    pub(super) invocation: u64,
    pub(super) step: Duration,
    pub(super) since: Instant,
    /// Time of the process on the processor, when it was first looked at.
    pub(super) cpu: Option<Duration>,
}

impl Worker {
    /// Begins a process by a command that calls [`main`](super::main), and waits until it is ready. It gets none of this
    /// process's environment, descriptors, or standard streams but for what it writes to standard error, which is kept for
    /// errors.
    pub async fn spawn(command: Command, options: Options) -> Result<Worker, Gone> {
        let not_begun = |error: io::Error| Gone::because(format!("could not be begun: {error}"));
        let (child, socket) = spawn(command).await.map_err(not_begun)?;
        let pid = child.id().unwrap_or_default();
        let (out, frames) = mpsc::unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let (owned, unowned) = oneshot::channel();
        let shared = Arc::new(Shared::new(options, out));
        let ends = Ends { socket, frames, ready, unowned };
        tokio::spawn(attend(child, ends, shared.clone()));
        let worker = Worker { handle: Arc::new(Handle { shared, pid, _owned: owned }) };
        match timeout(START, is_ready).await {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(_)) => Err(worker.gone().unwrap_or_else(|| Gone::because("ended before it was ready"))),
            Err(_) => Err(Gone::because(format!("was not ready after {} s", START.as_secs()))),
        }
    }

    /// Begins an invocation; waits while there are [`INVOCATIONS`] others.
    pub async fn begin(&self, modules: &Modules, invocation: Invocation) -> Result<Running, Gone> {
        let place = self.place().await?;
        let limits = invocation.limits;
        self.admit(place, limits.cpu_step, limits.open, modules, |id, hash| {
            let bytes = invocation.about.len();
            pack(&ToWorker::Begin { invocation: id, hash, of: Cow::Borrowed(&invocation) }, bytes)
        })
    }

    /// Reads what a function declares, by running its file.
    pub async fn describe(&self, modules: &Modules, place: &Place) -> Result<Result<Definition, Complaint>, Gone> {
        let seat = self.place().await?;
        let mut running = self.admit(seat, DESCRIBE.cpu_step, 0, modules, |invocation, hash| {
            pack(&ToWorker::Describe { invocation, hash, file: Cow::Borrowed(&place.file) }, 0)
        })?;
        match running.next().await {
            Some(Heard::Ended(ended)) => Ok(read(place, ended.result.map(Option::unwrap_or_default))),
            Some(Heard::Lost(gone)) => Err(gone),
            Some(Heard::Call(_)) | None => Err(Gone::because("did not tell what a file declares")),
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.handle.pid
    }

    /// Why it is not there any more, if it is not.
    pub fn gone(&self) -> Option<Gone> {
        self.handle.shared.state.lock().gone.clone()
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Gone> {
        let places = self.handle.shared.places.clone();
        places.acquire_owned().await.map_err(|_| self.gone().unwrap_or_else(|| Gone::because("ended")))
    }

    fn admit(
        &self,
        place: OwnedSemaphorePermit,
        step: Duration,
        most_open: usize,
        modules: &Modules,
        frame: impl FnOnce(u64, Cow<'_, str>) -> io::Result<Vec<u8>>,
    ) -> Result<Running, Gone> {
        let shared = &self.handle.shared;
        let mut state = shared.state.lock();
        if let Some(gone) = &state.gone {
            return Err(gone.clone());
        }
        let id = state.last + 1;
        let refused = |error: io::Error| Gone::because(format!("cannot take the function: {error}"));
        let frame = frame(id, Cow::Borrowed(&modules.hash)).map_err(refused)?;
        for before in state.frames_of(modules).map_err(refused)? {
            shared.send(before, None);
        }
        shared.send(frame, None);
        state.last = id;
        let (to, heard) = mpsc::unbounded_channel();
        state.guests.insert(id, Guest { to, open: HashSet::new(), most_open, step, _place: place });
        Ok(Running { handle: self.handle.clone(), id, heard, over: false })
    }
}

/// An invocation in a worker. Dropped, it is stopped.
pub struct Running {
    handle: Arc<Handle>,
    id: u64,
    heard: mpsc::UnboundedReceiver<Heard>,
    over: bool,
}

impl Running {
    /// What it says next; nothing after its end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Heard> {
        let heard = self.heard.recv().await;
        self.over |= !matches!(heard, Some(Heard::Call(_)));
        heard
    }

    /// Answers a call. Waits while much is on its way to the worker; what is too large for it makes the call fail. An answer
    /// to no call, or to an invocation that ended, is ignored.
    pub async fn answer(&self, call: u32, answer: Answer) {
        let (shared, invocation) = (&self.handle.shared, self.id);
        let bytes = bytes_of(&answer);
        let frame = pack(&ToWorker::Answer { invocation, call, answer }, bytes).or_else(|_| {
            let message = format!("the answer has {bytes} bytes; at most {} MiB are allowed", FRAME_BYTES >> 20);
            pack(&ToWorker::Answer { invocation, call, answer: Answer::failed("answer_too_large", message) }, 0)
        });
        let Ok(frame) = frame else { return };
        let weight = u32::try_from(frame.len()).unwrap_or(OUT_BYTES).min(OUT_BYTES);
        let room = shared.room.clone().acquire_many_owned(weight).await.ok();
        let mut state = shared.state.lock();
        if state.guests.get_mut(&invocation).is_some_and(|guest| guest.open.remove(&call)) {
            shared.send(frame, room);
        }
    }

    /// Ends it with an error that has this code. Its end is heard by [`next`](Running::next).
    pub fn stop(&self, code: &str, message: &str) {
        let stop = ToWorker::Stop { invocation: self.id, code: code.into(), message: message.into() };
        if let Ok(frame) = pack(&stop, message.len()) {
            self.handle.shared.send(frame, None);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.stop("stopped", "nobody waits for the function any more");
        }
    }
}

fn bytes_of(answer: &Answer) -> usize {
    match answer {
        Answer::Done => 0,
        Answer::Json(json) => json.len(),
        Answer::Response { headers, body, .. } => {
            body.len() + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
        }
        Answer::Failed { message, payload, .. } => message.len() + payload.as_ref().map_or(0, String::len),
    }
}

impl Shared {
    fn new(options: Options, out: mpsc::UnboundedSender<Frame>) -> Shared {
        let state = State {
            guests: HashMap::new(),
            inside: None,
            idle_since: Instant::now(),
            gone: None,
            sets: VecDeque::new(),
            last: 0,
        };
        Shared {
            state: Mutex::new(state),
            options,
            out,
            room: Arc::new(Semaphore::new(OUT_BYTES as usize)),
            places: Arc::new(Semaphore::new(INVOCATIONS)),
        }
    }

    /// Once the process is gone nobody reads it.
    fn send(&self, bytes: Vec<u8>, room: Option<OwnedSemaphorePermit>) {
        let _ = self.out.send(Frame { bytes, _room: room });
    }

    /// Tells all that are in it how it ended: whose code ran when it did has failed, the others are lost.
    pub(super) fn close(&self, gone: Gone, blamed: impl FnOnce(Duration) -> Fault) {
        let mut state = self.state.lock();
        state.gone = Some(gone.clone());
        let inside = state.inside.take();
        if let Some(inside) = inside
            && let Some(guest) = state.guests.remove(&inside.invocation)
        {
            let cpu = inside.since.elapsed();
            guest.tell(Heard::Ended(Ended { writes: Writes::default(), result: Err(blamed(inside.step)), cpu }));
        }
        for (_, guest) in state.guests.drain() {
            guest.tell(Heard::Lost(gone.clone()));
        }
        self.places.close();
        self.room.close();
    }
}

impl State {
    /// What has to be sent before an invocation of these modules.
    fn frames_of(&mut self, modules: &Modules) -> io::Result<Vec<Vec<u8>>> {
        if let Some(at) = self.sets.iter().position(|hash| *hash == modules.hash) {
            let used = self.sets.remove(at);
            self.sets.extend(used);
            return Ok(Vec::new());
        }
        let mut frames = of_modules(modules)?;
        if self.sets.len() >= SETS
            && let Some(hash) = self.sets.pop_front()
        {
            frames.insert(0, pack(&ToWorker::Forget { hash }, 0)?);
        }
        self.sets.push_back(modules.hash.clone());
        Ok(frames)
    }

    /// An invocation asks. More than it may ask at one time is no message of a worker of ours.
    pub(super) fn call(&mut self, invocation: u64, call: Call) -> io::Result<()> {
        let guest = self.guests.get_mut(&invocation).ok_or_else(|| stranger(invocation))?;
        if !guest.open.insert(call.id) || guest.open.len() > guest.most_open {
            return Err(io::Error::other(format!("invocation {invocation} has more open calls than it may have")));
        }
        guest.tell(Heard::Call(call));
        Ok(())
    }

    /// An invocation ended.
    pub(super) fn ended(&mut self, invocation: u64, ended: Ended) -> io::Result<()> {
        let guest = self.guests.remove(&invocation).ok_or_else(|| stranger(invocation))?;
        guest.tell(Heard::Ended(ended));
        self.idle_since = Instant::now();
        Ok(())
    }

    /// The code of an invocation runs from here on, or none.
    pub(super) fn running(&mut self, invocation: Option<u64>) -> io::Result<()> {
        self.inside = match invocation {
            None => None,
            Some(invocation) => {
                let step = self.guests.get(&invocation).ok_or_else(|| stranger(invocation))?.step;
                Some(Inside { invocation, step, since: Instant::now(), cpu: None })
            }
        };
        Ok(())
    }
}

impl Guest {
    /// Its owner may have dropped it.
    fn tell(&self, heard: Heard) {
        let _ = self.to.send(heard);
    }
}

fn stranger(invocation: u64) -> io::Error {
    io::Error::other(format!("there is no invocation {invocation}"))
}
