//! `/v1/runs` and `/v1/deletes`: what runs did, and what becomes of deletes they hold.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::{all_owners, owner_of, owner_of_run};
use crate::api::routes::Routes;
use crate::api::selection::SELECTED;
use crate::config::Role;
use crate::engine::Engine;
use crate::engine::model::Cause;
use crate::engine::pipeline::run::{Outcome, RunRecord};
use crate::engine::pipeline::{Error, Keyspace};
use crate::http::auth::Caller;
use crate::http::error::{CodedMessage, Refusal};
use crate::http::query::{QueryFields, limit_of};
use crate::ingest::poll::{HeldDeletes, HeldError};
use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

/// Most runs of one answer.
const LIMIT_MAX: u64 = 1_000;

/// Runs of one answer if nothing is said.
const LIMIT: u64 = 100;

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/runs", list, owner_of(SELECTED).or(all_owners::<RunList>()))
        .get("/v1/runs/{id}", show, owner_of_run("id"))
        .get("/v1/deletes", held, all_owners::<PendingDeletes>())
        .post("/v1/deletes/{run}/approve", approve, owner_of_run("run"))
        .post("/v1/deletes/{run}/reject", reject, owner_of_run("run"))
}

/// The latest runs, newest first.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RunList {
    runs: Vec<RunReport>,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RunReport {
    id: String,
    source: String,
    connection: String,
    stream: String,
    variant: String,
    sync: String,
    kind: String,
    outcome: Outcome,
    started_at: String,
    ended_at: Option<String>,
    counts: RunCounts,
    pages: u64,
    requests: u64,
    not_modified: u64,
    retries: u64,
    quarantined: u64,
    warnings: u64,
    samples: Vec<String>,
    doubts: Vec<String>,
    error: Option<CodedMessage>,
    held: Option<HeldCounts>,
    resumable: bool,
    definition: String,
}

/// What became of the records of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct RunCounts {
    added: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
    skipped: u64,
    ignored: u64,
}

/// Deletes that a run holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct HeldCounts {
    live: u64,
    missing: u64,
}

/// Deletes that wait for approval.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PendingDeletes {
    deletes: Vec<PendingDelete>,
}

/// Those of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PendingDelete {
    run: String,
    source: String,
    connection: String,
    stream: String,
    variant: String,
    live: u64,
    missing: u64,
    at: String,
}

/// What was decided about the deletes of a run.
#[derive(Serialize)]
struct DecidedDeletes {
    run: String,
    deleted: u64,
}

impl MergedAnswer for RunList {
    /// Each owner counts its runs by itself: over several, the time says which is newer.
    fn merge(mut self, other: RunList) -> RunList {
        self.runs.extend(other.runs);
        self.runs.sort_by(|a, b| b.started_at.cmp(&a.started_at));
        self
    }

    fn finish(mut self, query: &str) -> RunList {
        self.runs.truncate(limit_of(query, LIMIT, LIMIT_MAX));
        self
    }
}

impl MergedAnswer for PendingDeletes {
    fn merge(mut self, other: PendingDeletes) -> PendingDeletes {
        self.deletes.extend(other.deletes);
        self
    }
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
) -> Result<Json<RunList>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["source", "stream", "connection", "limit"]);
    let (source, stream, connection) = (query.one("source"), query.one("stream"), query.one("connection"));
    let limit = query.limit(LIMIT, LIMIT_MAX);
    query.done()?;
    let engine = api.app.engine.clone();
    let mut runs = api.read(move || all(&engine, &caller.environment, source.as_deref())).await?;
    runs.retain(|run| {
        stream.as_ref().is_none_or(|s| run.stream == *s)
            && connection.as_ref().is_none_or(|c| run.record.connection == *c)
    });
    runs.sort_by_key(|run| std::cmp::Reverse(run.record.number()));
    runs.truncate(limit);
    Ok(Json(RunList { runs: runs.into_iter().map(describe).collect() }))
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<RunReport>, Refusal> {
    let engine = api.app.engine.clone();
    let runs = api.read(move || all(&engine, &caller.environment, None)).await?;
    // Compared as numbers: leading zeros do not matter.
    let wanted = Cause::parse(&id);
    let found = runs.into_iter().find(|run| wanted.is_some() && Cause::parse(&run.record.id) == wanted);
    found.map(|run| Json(describe(run))).ok_or_else(|| unknown(&id))
}

/// Deletes that wait for approval.
async fn held(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Json<PendingDeletes>, Refusal> {
    let app = api.app.clone();
    let held = api.read(move || app.syncs.held(&caller.environment)).await?;
    Ok(Json(PendingDeletes { deletes: held.into_iter().map(waiting).collect() }))
}

async fn approve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> Result<Json<DecidedDeletes>, Refusal> {
    caller.must_be(Role::Writer)?;
    let deleted = api.app.syncs.approve(&caller.environment, &run).await?;
    Ok(Json(DecidedDeletes { run, deleted }))
}

async fn reject(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
) -> Result<Json<DecidedDeletes>, Refusal> {
    caller.must_be(Role::Writer)?;
    api.app.syncs.reject(&caller.environment, &run).await?;
    Ok(Json(DecidedDeletes { run, deleted: 0 }))
}

fn all(engine: &Engine, environment: &str, source: Option<&str>) -> Result<Vec<Found>, Error> {
    let prefix: Vec<&str> = std::iter::once(environment).chain(source).collect();
    let marks = engine.marks(Keyspace::RUN, &prefix)?;
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

fn describe(run: Found) -> RunReport {
    let r = run.record;
    let c = r.counts;
    RunReport {
        id: r.id,
        source: run.source,
        connection: r.connection,
        stream: run.stream,
        variant: r.variant,
        sync: r.sync,
        kind: r.kind,
        outcome: r.status,
        started_at: r.started_at.to_string(),
        ended_at: r.ended_at.map(|at| at.to_string()),
        counts: RunCounts {
            added: c.added,
            updated: c.updated,
            deleted: c.deleted,
            unchanged: c.unchanged,
            skipped: c.skipped,
            ignored: c.ignored,
        },
        pages: r.pages,
        requests: r.requests,
        not_modified: r.not_modified,
        retries: r.retries,
        quarantined: r.quarantined,
        warnings: r.warnings,
        samples: r.samples,
        doubts: r.doubts,
        error: r.error.map(|(code, message)| CodedMessage { code, message }),
        held: r.held.map(|(live, missing)| HeldCounts { live, missing }),
        resumable: r.bookmark,
        definition: r.definition,
    }
}

fn waiting(held: HeldDeletes) -> PendingDelete {
    let (key, hold) = (held.key, held.hold);
    PendingDelete {
        run: hold.run,
        source: key.source,
        connection: key.connection,
        stream: key.stream,
        variant: key.variant,
        live: hold.live,
        missing: hold.missing,
        at: hold.at.to_string(),
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::not_found(format!("no run `{id}`; GET /v1/runs lists the latest"))
}

impl From<HeldError> for Refusal {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::Unknown(_) => Refusal::not_found(format!("{error}; GET /v1/deletes lists those that do")),
            HeldError::Engine(error) => error.into(),
        }
    }
}
