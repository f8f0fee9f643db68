//! A socket whose client has to keep up.
//!
//! Promises: a client that takes nothing of what we send for [`patience`](Paced::new), or takes it slower than
//! [`BYTES_A_SECOND`] in the long run, gets an error in place of its connection, and what the kernel still holds for it is
//! thrown away; one that has to rest is not read from until then.

use super::peers::Peer;
use crate::engine::model::Timestamp;
use crate::engine::time::Clock;
use crate::telemetry::record;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A client that takes less than this is cut in the end, however steadily it does.
const BYTES_A_SECOND: u64 = 1_024;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The socket.
pub(super) struct Paced {
    stream: TcpStream,
    peer: Arc<Peer>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// What is left of it.
    left: Duration,
    /// Since when the client takes nothing, and when that is too long.
    stuck: Option<(Timestamp, Timer)>,
    resting: Option<Timer>,
}

impl Paced {
    /// Of a client that may take nothing for `patience`.
    pub(super) fn new(stream: TcpStream, peer: Arc<Peer>, clock: Arc<dyn Clock>, patience: Duration) -> Paced {
        Paced { stream, peer, clock, patience, left: patience, stuck: None, resting: None }
    }

    /// What became of an attempt to write.
    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.waits(cx),
            Poll::Ready(taken) => {
                if let Some((since, _)) = self.stuck.take() {
                    let earned =
                        Duration::from_millis(taken.as_ref().map_or(0, |n| *n as u64) * 1_000 / BYTES_A_SECOND);
                    let waited = self.clock.now().since(since);
                    self.left = (self.left.saturating_sub(waited) + earned).min(self.patience);
                    self.peer.is_stuck(false);
                }
                result
            }
        }
    }

    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (_, timer) = self.stuck.get_or_insert_with(|| {
            self.peer.is_stuck(true);
            (self.clock.now(), later(&self.clock, self.left))
        });
        ready!(timer.as_mut().poll(cx));
        record::connection_cut("stalled");
        // Else the kernel would keep what nobody reads for minutes.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of the answer")))
    }
}

/// A timer of its own: it does not borrow the clock.
fn later(clock: &Arc<dyn Clock>, span: Duration) -> Timer {
    let clock = clock.clone();
    Box::pin(async move { clock.sleep(span).await })
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.resting.is_none() {
            let rest = this.peer.reads_again_at().since(this.clock.now());
            if rest > Duration::ZERO {
                this.resting = Some(later(&this.clock, rest));
            }
        }
        if let Some(timer) = &mut this.resting {
            ready!(timer.as_mut().poll(cx));
            this.resting = None;
        }
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_pending() {
            this.peer.has_read_all();
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
