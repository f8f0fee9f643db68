//! Paths of the compatible surface this release does not serve: 501 with a plain word, so that nobody takes them for typos.

use super::error::Refusal;
use super::{Api, both};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::any;

/// Whole families of paths.
const FAMILIES: [&str; 9] = [
    "/proxy",
    "/action",
    "/connect",
    "/functions",
    "/mcp",
    "/integrations",
    "/providers",
    "/environment-variables",
    "/scripts",
];

/// Single paths beside others that are served.
const PATHS: [&str; 2] = ["/sync/deploy", "/sync/deploy/{*rest}"];

pub(super) fn router() -> Router<Api> {
    let router = FAMILIES.iter().fold(Router::new(), |router, family| {
        both(router, family, any(refuse)).route(&format!("{family}/{{*rest}}"), any(refuse))
    });
    PATHS.iter().fold(router, |router, path| router.route(path, any(refuse)))
}

/// 501 `not_supported`.
pub(super) async fn refuse(request: Request) -> Refusal {
    let message = format!("{} {} is not served by this release", request.method(), request.uri().path());
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_supported", message)
}
