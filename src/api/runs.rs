//! `/v1/runs` and `/v1/deletes`: what runs did, and what becomes of deletes they hold.

use super::auth::Caller;
use super::error::Refusal;
use super::query::Query;
use super::{Api, both};
use crate::config::Role;
use crate::engine::Engine;
use crate::engine::model::Cause;
use crate::engine::pipeline::run::RunRecord;
use crate::engine::pipeline::{Error, Table};
use crate::ingest::poll::{HeldDeletes, HeldError};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

/// Most runs of one answer.
const LIMIT_MAX: u64 = 1_000;

/// Runs of one answer if nothing is said.
const LIMIT: u64 = 100;

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/runs", get(list));
    let router = both(router, "/v1/runs/{id}", get(show));
    let router = both(router, "/v1/deletes", get(held));
    let router = both(router, "/v1/deletes/{run}/approve", post(approve));
    both(router, "/v1/deletes/{run}/reject", post(reject))
}

/// A run with the parts of its key that its record does not repeat.
struct Found {
    source: String,
    stream: String,
    record: RunRecord,
}

/// The latest runs, newest first.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let mut query = Query::read(query.as_deref(), &["source", "stream", "connection", "limit"]);
    let (source, stream, connection) = (query.one("source"), query.one("stream"), query.one("connection"));
    let limit = query.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT);
    query.done()?;
    let engine = api.app.engine.clone();
    let mut runs = api.read(move || all(&engine, &caller.environment, source.as_deref())).await?;
    runs.retain(|run| {
        stream.as_ref().is_none_or(|s| run.stream == *s)
            && connection.as_ref().is_none_or(|c| run.record.connection == *c)
    });
    runs.sort_by_key(|run| std::cmp::Reverse(run.record.number()));
    runs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(json!({"runs": runs.iter().map(describe).collect::<Vec<_>>()})))
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let engine = api.app.engine.clone();
    let runs = api.read(move || all(&engine, &caller.environment, None)).await?;
    // Compared as numbers: leading zeros do not matter.
    let wanted = Cause::parse(&id);
    let found = runs.iter().find(|run| wanted.is_some() && Cause::parse(&run.record.id) == wanted);
    found.map(|run| Json(describe(run))).ok_or_else(|| unknown(&id))
}

/// Deletes that wait for approval.
async fn held(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Json<Value>, Refusal> {
    let app = api.app.clone();
    let held = api.read(move || app.syncs.held(&caller.environment)).await?;
    Ok(Json(json!({"deletes": held.iter().map(waiting).collect::<Vec<_>>()})))
}

async fn approve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let deleted = api.app.syncs.approve(&caller.environment, &run).await?;
    Ok(Json(json!({"run": run, "deleted": deleted})))
}

async fn reject(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    api.app.syncs.reject(&caller.environment, &run).await?;
    Ok(Json(json!({"run": run, "deleted": 0})))
}

fn all(engine: &Engine, environment: &str, source: Option<&str>) -> Result<Vec<Found>, Error> {
    let prefix: Vec<&str> = std::iter::once(environment).chain(source).collect();
    let marks = engine.marks(Table::Run, &prefix)?;
    let found = marks.into_iter().filter_map(|(rest, value)| {
        let record: RunRecord = serde_json::from_slice(&value).ok()?;
        let (source, stream) = match (source, rest.as_slice()) {
            (Some(source), [stream, _]) => (source.to_owned(), stream.clone()),
            (None, [source, stream, _]) => (source.clone(), stream.clone()),
            _ => return None,
        };
        Some(Found { source, stream, record })
    });
    Ok(found.collect())
}

fn describe(run: &Found) -> Value {
    let r = &run.record;
    let error = r.error.as_ref().map(|(code, message)| json!({"code": code, "message": message}));
    json!({
        "id": r.id, "source": run.source, "connection": r.connection, "stream": run.stream, "variant": r.variant,
        "sync": r.sync, "kind": r.kind, "outcome": r.status,
        "started_at": r.started_at.to_string(), "ended_at": r.ended_at.map(|at| at.to_string()),
        "counts": {"added": r.counts.added, "updated": r.counts.updated, "deleted": r.counts.deleted,
                   "unchanged": r.counts.unchanged, "skipped": r.counts.skipped, "ignored": r.counts.ignored},
        "pages": r.pages, "requests": r.requests, "not_modified": r.not_modified, "retries": r.retries,
        "quarantined": r.quarantined, "warnings": r.warnings, "samples": r.samples, "doubts": r.doubts,
        "error": error, "held": r.held.map(|(live, missing)| json!({"live": live, "missing": missing})),
        "resumable": r.bookmark, "definition": r.definition,
    })
}

fn waiting(held: &HeldDeletes) -> Value {
    let (key, hold) = (&held.key, &held.hold);
    json!({
        "run": hold.run, "source": key.source, "connection": key.connection, "stream": key.stream,
        "variant": key.variant, "live": hold.live, "missing": hold.missing, "at": hold.at.to_string(),
    })
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("no run `{id}`; GET /v1/runs lists the latest"))
}

impl From<HeldError> for Refusal {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::Unknown(_) => {
                let message = format!("{error}; GET /v1/deletes lists those that do");
                Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
            }
            HeldError::Engine(error) => error.into(),
        }
    }
}
