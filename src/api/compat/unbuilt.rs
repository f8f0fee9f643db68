//! Paths of the compatible surface this release does not serve: 501 with a plain word, so that nobody takes them for typos.

use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::http::error::Refusal;
use axum::extract::Request;
use axum::http::StatusCode;

/// Paths with everything below them.
const FAMILIES: &[&str] = &[
    #[cfg(not(feature = "functions"))]
    "/action",
    "/functions",
    "/mcp",
    "/sync/deploy",
];

pub(super) fn routes() -> Routes {
    FAMILIES.iter().fold(Routes::new(), |routes, family| {
        routes.any(family, refuse, local()).any(&format!("{family}/{{*rest}}"), refuse, local())
    })
}

/// 501 `not_supported`.
async fn refuse(request: Request) -> Refusal {
    let message = format!("{} {} is not served by this release", request.method(), request.uri().path());
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_supported", message)
}
