//! One request and its answer, as far as their connection is concerned: whose turn it is, told by wrapping both bodies.

use super::REST;
use super::peers::Peer;
use crate::engine::time::Clock;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Requests of one client that are answered one after the other before it rests: no ordinary client sends so many ahead.
const AHEAD: u32 = 32;

/// A request that is being worked on, until the body of its answer is gone.
pub(super) struct ServedRequest(Arc<Peer>);

impl ServedRequest {
    /// Begins with the head of a request.
    pub(super) fn begin(peer: Arc<Peer>) -> ServedRequest {
        peer.works(true);
        ServedRequest(peer)
    }

    /// Lets others have their turn, if this request was sent before the one before it was answered: a client that sends many
    /// at once has one of them answered where others have one, and rests after [`AHEAD`] of them or where it has to rest anyway.
    pub(super) async fn in_turn(&self, clock: &dyn Clock) {
        let ahead = self.0.asked_ahead();
        if ahead == 0 {
            return;
        }
        let now = clock.now();
        let rest = if ahead.is_multiple_of(AHEAD) { now.plus(REST) } else { self.0.reads_again_at() };
        if rest <= now {
            return tokio::task::yield_now().await;
        }
        // Nothing is worked on meanwhile: it may go for another.
        self.0.works(false);
        clock.sleep_until(rest).await;
        self.0.works(true);
    }

    /// The request's body: while more of it is waited for, it is the client's turn.
    pub(super) fn arriving(&self, body: Incoming) -> Body {
        Body::new(Arriving { body, peer: self.0.clone(), waits: false })
    }

    /// The answer's body: with its end the work ends.
    pub(super) fn leaving(self, body: Body) -> Leaving {
        Leaving { body, _exchange: self }
    }
}

impl Drop for ServedRequest {
    fn drop(&mut self) {
        self.0.works(false);
    }
}

struct Arriving {
    body: Incoming,
    peer: Arc<Peer>,
    waits: bool,
}

impl Arriving {
    fn waits(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.peer.waits_for_body(waits);
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.waits(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.waits(false);
    }
}

/// An answer's body with the exchange it ends.
pub(super) struct Leaving {
    body: Body,
    _exchange: ServedRequest,
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
