//! How a worker process begins: with a socket as its standard input, and with nothing else of its parent's.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use tokio::process::Child;
use tokio::sync::oneshot;

/// Begins the process; gives it, and the parent's end of the socket.
pub(super) async fn spawn(mut command: Command) -> io::Result<(Child, tokio::net::UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    command.env_clear();
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let (tell, told) = oneshot::channel();
    let here = tokio::runtime::Handle::current();
    let begin = Box::new(move || {
        let _here = here.enter();
        // Nobody may wait for it any more: then it is dropped, and ended.
        let _ = tell.send(command.spawn());
    });
    let gone = |_| io::Error::other("the thread that begins workers is gone");
    beginner()?.send(begin).map_err(|_| gone(()))?;
    let child = told.await.map_err(|_| gone(()))??;
    Ok((child, tokio::net::UnixStream::from_std(ours)?))
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that begins workers. A worker ends with the thread that began it, and those of an async runtime come and go.
fn beginner() -> io::Result<&'static Sender<Job>> {
    static BEGINNER: OnceLock<io::Result<Sender<Job>>> = OnceLock::new();
    let begun = BEGINNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        let thread = std::thread::Builder::new().name("functions-begin".into());
        thread.spawn(move || jobs.into_iter().for_each(|job| job()))?;
        Ok(sender)
    });
    begun.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}
