//! What is done for a worker process as long as it lives: its frames are read and written, its time is watched, and its end is
//! told to those it concerns.

use super::frame::{FromWorker, receive, unpack};
use super::parent::{Frame, Gone, Inside, Shared};
use crate::wire::Fault;
use std::fs;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// How often a worker is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a worker that closed its socket may take to end by itself, so that it is known how it did.
const DYING: Duration = Duration::from_secs(1);
/// Code that is not seen on the processor gets so many times its limit by the clock: it may wait for a processor.
const PATIENCE: u32 = 4;
/// Bytes that are kept of what a worker wrote last to standard error.
const LAST_WORDS: usize = 2 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a buffer that is kept for the next frame.
const KEPT_BYTES: usize = 1 << 20;

/// Where the process and its owners are reached.
pub(super) struct Ends {
    pub(super) socket: UnixStream,
    pub(super) frames: mpsc::UnboundedReceiver<Frame>,
    /// Told once the process takes invocations.
    pub(super) ready: oneshot::Sender<()>,
    /// Closed by the last owner.
    pub(super) unowned: oneshot::Receiver<()>,
}

/// Why a worker ends.
enum Why {
    /// It closed the socket, by dying.
    Closed,
    /// It sent what cannot be.
    Wrong(io::Error),
    /// Code that ran in it did not come back.
    Stuck,
    /// Nobody needs it.
    Unneeded,
}

/// Attends to a worker until its end.
pub(super) async fn attend(mut child: Child, ends: Ends, shared: Arc<Shared>) {
    let words = child.stderr.take().map(|stderr| tokio::spawn(last_words(stderr)));
    let pid = child.id().unwrap_or_default();
    let (from, to) = ends.socket.into_split();
    // It is dropped only behind `close`: who waits for it then finds why there is no worker.
    let mut ready = Some(ends.ready);
    let why = tokio::select! {
        why = listen(from, &shared, &mut ready) => why,
        () = speak(to, ends.frames) => Why::Closed,
        why = watch(pid, &shared) => why,
        _ = ends.unowned => Why::Unneeded,
    };
    let status = end(&mut child, &why).await;
    let words = match words {
        Some(words) => timeout(DYING, words).await.ok().and_then(Result::ok).unwrap_or_default(),
        None => String::new(),
    };
    let told = why.told(status, &words);
    let blamed = |step: Duration| Fault { code: "killed".into(), message: why.blame(step, &told), ..Fault::default() };
    shared.close(Gone::because(told.clone()), blamed);
    drop(ready);
}

impl Why {
    fn told(&self, status: Option<ExitStatus>, words: &str) -> String {
        let mut told = match (self, status) {
            (Why::Closed, Some(status)) => format!("ended by itself ({status})"),
            (Why::Closed, None) => "closed its socket, and was ended".to_owned(),
            (Why::Wrong(error), _) => format!("was ended: {error}"),
            (Why::Stuck, _) => "was ended: code in it did not come back".to_owned(),
            (Why::Unneeded, _) => "was ended: nothing ran in it".to_owned(),
        };
        if !words.is_empty() {
            told.push_str("; it wrote last: ");
            told.push_str(words);
        }
        told
    }

    /// Said to the invocation whose code ran.
    fn blame(&self, step: Duration, told: &str) -> String {
        match self {
            Why::Stuck => format!(
                "the function computed for more than {} s without asking for anything, and could only be ended with its process",
                step.as_secs_f32()
            ),
            _ => format!("while the function ran, its worker {told}"),
        }
    }
}

/// Ends the process if it did not end; gives how it did by itself.
async fn end(child: &mut Child, why: &Why) -> Option<ExitStatus> {
    if matches!(why, Why::Closed)
        && let Ok(Ok(status)) = timeout(DYING, child.wait()).await
    {
        return Some(status);
    }
    // An error says that it has ended already.
    let _ = child.kill().await;
    None
}

/// Reads what the worker says, and hands it on at once: whose owner is slow holds up nobody.
async fn listen(from: OwnedReadHalf, shared: &Shared, ready: &mut Option<oneshot::Sender<()>>) -> Why {
    let mut from = BufReader::with_capacity(READ_BYTES, from);
    let mut frame = Vec::new();
    loop {
        match receive(&mut from, &mut frame).await {
            Ok(true) => {}
            Ok(false) => return Why::Closed,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Why::Closed,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Why::Closed,
            Err(error) => return Why::Wrong(error),
        }
        if let Err(error) = unpack(&frame).and_then(|message| take(message, shared, ready)) {
            return Why::Wrong(error);
        }
        if frame.capacity() > KEPT_BYTES {
            frame = Vec::new();
        }
    }
}

fn take(message: FromWorker, shared: &Shared, ready: &mut Option<oneshot::Sender<()>>) -> io::Result<()> {
    let mut state = shared.state.lock();
    match message {
        FromWorker::Ready => {
            // Nobody waits if it took too long.
            let _ = ready.take().map(|ready| ready.send(()));
            Ok(())
        }
        FromWorker::Call { invocation, call } => state.call(invocation, call),
        FromWorker::Ended { invocation, ended } => state.ended(invocation, ended),
        FromWorker::Running(invocation) => state.running(invocation),
    }
}

/// Writes what is said to the worker. Does not come back: an error is met by the reader too, which knows more.
async fn speak(mut to: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame.bytes).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Comes back when code does not, or when nothing has run for long.
async fn watch(pid: u32, shared: &Shared) -> Why {
    loop {
        sleep(LOOK).await;
        let mut state = shared.state.lock();
        if let Some(inside) = &mut state.inside {
            if is_stuck(inside, processor_time(pid), shared.options.grace) {
                return Why::Stuck;
            }
        } else if state.guests.is_empty() && state.idle_since.elapsed() >= shared.options.idle {
            // From here on it takes none.
            state.gone = Some(Gone::because("was ended: nothing ran in it"));
            return Why::Unneeded;
        }
    }
}

/// Limits are of time on the processor: a busy machine is not the function's fault.
fn is_stuck(inside: &mut Inside, cpu: Option<Duration>, grace: Duration) -> bool {
    let most = inside.step + grace;
    let passed = inside.since.elapsed();
    match cpu {
        None => passed > most,
        Some(now) => {
            let used = now.saturating_sub(*inside.cpu.get_or_insert(now));
            used > most || passed > most * PATIENCE
        }
    }
}

/// Time of the first thread of a process on the processor, where the system tells it.
fn processor_time(pid: u32) -> Option<Duration> {
    let told = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    told.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// What a process wrote last to standard error.
async fn last_words(mut stderr: ChildStderr) -> String {
    let (mut kept, mut read) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = stderr.read(&mut read).await {
        kept.extend_from_slice(read.get(..length).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
