//! `/v1/schemas/{hash}`: the JSON Schema of a stream, by the hash that the header `syncline-schema` of its messages names.

use super::error::Refusal;
use super::{Api, both};
use crate::sinks::topics::schemas::Schemas;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(super) fn router() -> Router<Api> {
    both(Router::new(), "/v1/schemas/{hash}", get(show))
}

async fn show(State(api): State<Api>, Path(hash): Path<String>) -> Result<Response, Refusal> {
    let schema = Schemas::of(&api.app.definitions).get(&hash);
    let schema = schema.ok_or_else(|| {
        let message = format!("no stream of the definitions in force has a schema with the hash `{hash}`");
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    })?;
    Ok(([(CONTENT_TYPE, "application/schema+json")], schema.to_string()).into_response())
}
