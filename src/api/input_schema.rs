//! `/v1/schemas/input`: what messages of input topics have to look like. No secret, but asked for with a key like all else.

use super::{Api, both};
use crate::connectors::kafka::input::SCHEMA;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(super) fn router() -> Router<Api> {
    both(Router::new(), "/v1/schemas/input", get(input))
}

async fn input() -> Response {
    ([(CONTENT_TYPE, "application/schema+json")], SCHEMA).into_response()
}
