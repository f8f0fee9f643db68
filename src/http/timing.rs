//! How long requests take, as metrics tell it.

use crate::engine::time::Clock;
use crate::telemetry::record;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Times every request of a route there is, from its head to the head of its answer.
pub(crate) async fn time(State(clock): State<Arc<dyn Clock>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = method(request.method());
    let came = clock.now();
    let response = next.run(request).await;
    if let Some(route) = route {
        record::request(method, route, response.status().as_u16(), clock.now().since(came));
    }
    response
}

/// Anybody can send any word as a method: those nobody serves share one.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "_OTHER",
    }
}
