//! The id of a request: the caller's, echoed, or one of ours.

use super::Api;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::atomic::Ordering;

/// Header of the id, both ways.
const HEADER: &str = "x-request-id";

/// Longest id of a caller that is echoed.
const MAX_CHARS: usize = 128;

/// The id of the request at hand.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub String);

/// Takes or makes the id, puts it into the request for others and on the answer.
pub(super) async fn number(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let theirs = request.headers().get(HEADER).and_then(|v| v.to_str().ok()).filter(|v| echoed(v));
    let id = theirs.map(str::to_owned).unwrap_or_else(|| fresh(&api));
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

fn echoed(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_CHARS && id.bytes().all(|b| b.is_ascii_graphic())
}

/// Ordered by time; the count keeps apart what one microsecond brings.
fn fresh(api: &Api) -> String {
    let count = api.requests.fetch_add(1, Ordering::Relaxed) & 0xff_ffff;
    format!("req_{:014x}{count:06x}", api.app.engine.clock().now().0.max(0))
}
