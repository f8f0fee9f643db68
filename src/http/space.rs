//! A disk that is too full: what would write something new is refused before it begins. Reads go on, and so does what removes.

use super::error::Refusal;
use crate::engine::Engine;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets requests pass that bring nothing new, or for which there is room.
pub(crate) async fn demand(State(engine): State<Engine>, request: Request, next: Next) -> Response {
    let brings = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    match brings.then(|| engine.refusing()).flatten() {
        Some(why) => Refusal::busy("disk_full", why).into_response(),
        None => next.run(request).await,
    }
}
