//! `/v1/schemas/input`: what messages of input topics have to look like. No secret, but asked for with a key like all else.

use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::connectors::kafka::input::SCHEMA;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/schemas/input", input, local())
}

async fn input() -> Response {
    ([(CONTENT_TYPE, "application/schema+json")], SCHEMA).into_response()
}
