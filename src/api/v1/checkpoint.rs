//! `/v1/checkpoint`: what `syncline backup` begins with while a server holds the data folder.
//!
//! The request names no place: the checkpoint lies in the data folder, and only who can read that has a use for it.

use crate::api::Api;
use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::config::{LogKind, Role};
use crate::engine::store::CHECKPOINT;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

pub(super) fn routes() -> Routes {
    // With several processes the log is in Kafka, and each refuses it.
    Routes::new().post("/v1/checkpoint", make, local())
}

async fn make(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    QueryFields::read(query.as_deref(), &[]).done()?;
    caller.must_be(Role::Admin)?;
    if api.app.settings.log == LogKind::Kafka {
        let message = "the log is kept in Kafka, and what is here is a copy of it; keep the topics instead";
        return Err(Refusal::new(StatusCode::CONFLICT, "log_in_kafka", message));
    }
    api.app.engine.checkpoint().await?;
    Ok(Json(json!({ "checkpoint": CHECKPOINT })))
}
