//! The id of a request: the caller's, echoed, or one of ours. Handed on to another process it keeps the one it has.

use crate::engine::time::Clock;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Header of the id, both ways.
pub(crate) const HEADER: &str = "x-request-id";

/// Longest id of a caller that is echoed.
const MAX_CHARS: usize = 128;

/// The id of the request at hand.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub String);

/// Makes ids: ordered by time; the count keeps apart what one microsecond brings.
#[derive(Clone)]
pub(crate) struct Numbers {
    clock: Arc<dyn Clock>,
    given: Arc<AtomicU64>,
}

impl Numbers {
    /// Begins to count.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Numbers { clock, given: Arc::default() }
    }

    fn fresh(&self) -> String {
        let count = self.given.fetch_add(1, Ordering::Relaxed) & 0xff_ffff;
        format!("req_{:014x}{count:06x}", self.clock.now().0.max(0))
    }
}

/// Takes or makes the id, puts it into the request for others and on the answer, unless that has one already.
pub(crate) async fn number(State(numbers): State<Numbers>, mut request: Request, next: Next) -> Response {
    let theirs = request.headers().get(HEADER).and_then(|v| v.to_str().ok()).filter(|v| echoed(v));
    let id = theirs.map(str::to_owned).unwrap_or_else(|| numbers.fresh());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().entry(HEADER).or_insert(value);
    }
    response
}

fn echoed(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_CHARS && id.bytes().all(|b| b.is_ascii_graphic())
}
