//! `/v1/views`: what is derived from the records, and how it is doing. The rows are read as those of any model.

use super::error::Refusal;
use super::{Api, both};
use crate::engine::pipeline::ViewStatus;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/views", get(list));
    both(router, "/v1/views/{name}", get(show))
}

async fn list(State(api): State<Api>) -> Json<Value> {
    Json(json!({"views": api.app.engine.views().iter().map(describe).collect::<Vec<_>>()}))
}

async fn show(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    let views = api.app.engine.views();
    let view = views.iter().find(|view| view.name == name).ok_or_else(|| {
        let message = format!("this program publishes no view `{name}`; GET /v1/views tells which there are");
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    })?;
    Ok(Json(describe(view)))
}

/// Counts alone: the keys that things went wrong with may be those of another environment. They stand in the log.
fn describe(view: &ViewStatus) -> Value {
    json!({
        "name": view.name,
        "source": view.source,
        "across_connections": view.across_connections,
        "misfits": view.health.misfits,
        "failures": view.health.failures,
        "stopped": view.health.stopped.is_some(),
    })
}
