//! `/v1/schemas/{hash}`: the JSON Schema of a stream, by the hash that the header `syncline-schema` of its messages names.

use crate::api::Api;
use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::http::error::Refusal;
use crate::sinks::topics::schemas::Schemas;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/schemas/{hash}", show, local())
}

async fn show(State(api): State<Api>, Path(hash): Path<String>) -> Result<Response, Refusal> {
    let schema = Schemas::of(&*api.app.definitions.all()).get(&hash);
    let schema = schema.ok_or_else(|| {
        Refusal::not_found(format!("no stream of the definitions in force has a schema with the hash `{hash}`"))
    })?;
    Ok(([(CONTENT_TYPE, "application/schema+json")], schema.to_string()).into_response())
}
