//! `/v1/views`: what is derived from the records, and how it is doing; what views left behind that are defined no more. The
//! rows are read as those of any model.

use super::auth::Caller;
use super::error::Refusal;
use super::{Api, both};
use crate::config::Role;
use crate::engine::pipeline::{RemovedView, ViewStatus};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/views", get(list));
    both(router, "/v1/views/{name}", get(show).delete(retract))
}

async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({"views": all(&api, &caller)}))
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let found = all(&api, &caller).into_iter().find(|view| view["name"] == name.as_str());
    found.map(Json).ok_or_else(|| unknown(&name))
}

/// Deletes the records of a view that is not defined any more. Asked again it deletes what is left, which may be nothing.
async fn retract(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let engine = &api.app.engine;
    if !engine.removed_views(&caller.environment).iter().any(|view| view.name == name) {
        if engine.views().iter().any(|view| view.name == name) {
            return Err(defined(&name));
        }
        if !engine.was_view(&caller.environment, &name) {
            return Err(unknown(&name));
        }
    }
    let deleted = engine.retract_view(&caller.environment, &name).await?;
    Ok(Json(json!({"view": name, "deleted": deleted})))
}

/// No such view is defined, nor has one left records.
pub(super) fn unknown(name: &str) -> Refusal {
    let message =
        format!("no view `{name}` is published here, nor left any records; GET /v1/views tells which there are");
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// What is kept up is not deleted.
pub(super) fn defined(name: &str) -> Refusal {
    let message = format!("`{name}` is defined and kept up; take it out of the program first");
    Refusal::new(StatusCode::CONFLICT, "conflict", message)
}

fn all(api: &Api, caller: &Caller) -> Vec<Value> {
    let defined = api.app.engine.views();
    let removed = api.app.engine.removed_views(&caller.environment);
    defined.iter().map(|view| describe(view, caller)).chain(removed.iter().map(left_behind)).collect()
}

/// Of rows that were left out there are counts alone, and of skewed keys those of the caller's environment: keys may be those
/// of another. They stand in the log.
fn describe(view: &ViewStatus, caller: &Caller) -> Value {
    let mine = view.health.skews.iter().filter(|skew| *skew.environment == *caller.environment);
    let skewed = mine.map(|skew| json!({"step": skew.step, "connection": skew.connection, "key": skew.key}));
    json!({
        "name": view.name,
        "source": view.source,
        "across_connections": view.across_connections,
        "misfits": view.health.misfits,
        "failures": view.health.failures,
        "stopped": view.health.stopped.is_some(),
        "rows": view.health.rows,
        "bytes": view.health.bytes,
        "skewed": skewed.collect::<Vec<_>>(),
        "removed": false,
    })
}

fn left_behind(view: &RemovedView) -> Value {
    json!({"name": view.name, "source": view.source, "removed": true, "records": view.records})
}
