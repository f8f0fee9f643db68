//! `/v1/records`: live records of any selection; page by page, or (`consistent=true`) all of them as of one engine time in one
//! answer, with the cursor at which `/v1/changes` goes on.
//!
//! Promises: nothing of a later engine time is in a consistent answer and nothing of that time or before is missing, whatever
//! is committed while it is sent; an answer that could not be finished breaks off, so that nobody takes it for whole. Memory
//! is that of all answers together, and for one bounded by a page, or by a few chunks.

use crate::admission::SNAPSHOTS;
use crate::api::Api;
use crate::api::cluster::target::{owner_of, refused};
use crate::api::feed::{Feed, write_names};
use crate::api::routes::Routes;
use crate::api::selection::{FOLLOW_ONE, NAMES, SELECTED, selection};
use crate::engine::model::{Action, Cursor, Meta, Position};
use crate::engine::pipeline::{Dataset, Error, Filter};
use crate::http::answers::{JSON, PageBuffer, Starved, counted, json};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::http::stamp::{write_stamp, write_time};
use crate::registry::scope::current_scope;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Most rows of a page, and rows if nothing is said.
const LIMIT_MAX: u64 = 10_000;
const LIMIT: u64 = 100;

/// Bytes that are sent in one piece, and pieces that may wait for a slow reader.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 4;

/// A reader who takes nothing for so long is left: it holds a snapshot of the store.
const STALLED: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/records", list, owner_of(SELECTED).or(refused(FOLLOW_ONE)))
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let known: Vec<&str> = NAMES.into_iter().chain(["key", "cursor", "limit", "consistent"]).collect();
    let mut query = QueryFields::read(query.as_deref(), &known);
    let selection = selection(&api, &caller, &mut query);
    let (key, cursor) = (query.one("key"), query.one("cursor"));
    let limit = query.number("limit", 1, LIMIT_MAX);
    let consistent = query.flag("consistent");
    for (name, given) in [("key", key.is_some()), ("cursor", cursor.is_some()), ("limit", limit.is_some())] {
        if consistent && given {
            query.fault("not_together", &[name], "a consistent answer has all records: leave this out");
        }
    }
    query.done()?;
    let (engine, environment) = (api.app.engine.clone(), caller.environment.clone());
    let limit = limit.unwrap_or(LIMIT) as usize;
    let feed = Feed { engine, environment, selection, actions: Vec::new(), limit };
    if consistent {
        return snapshot(&api, &caller, feed);
    }
    let scope = current_scope(&feed.environment, &feed.selection);
    let after = match &cursor {
        None => Cursor::START,
        Some(text) => {
            let place = feed.engine.cursor_key().decode(&scope, text);
            place.map_err(|error| Refusal::cursor("query", "cursor", error.to_string()))?
        }
    };
    let out = PageBuffer::new(api.http.memory(caller.holders()).await?);
    let page = match key {
        Some(key) => named(&feed, &key, out).await?,
        None => api.read(move || page(&feed, &scope, after, out)).await?,
    };
    Ok(json(page?))
}

/// Datasets one after the other, each in order of change.
fn page(feed: &Feed, scope: &[u8], after: Cursor, mut page: PageBuffer) -> Result<Result<Bytes, Starved>, Error> {
    let mut datasets = feed.datasets();
    datasets.sort_by_key(|dataset| dataset.id);
    let (mut rows, mut more) = (0, false);
    let mut place = after;
    for dataset in datasets.iter().filter(|dataset| dataset.id >= after.dataset) {
        let from = if dataset.id == after.dataset { after.position } else { Position::START };
        let live = Filter { deleted: false, ..Filter::ALL };
        feed.engine.records(dataset, from, live, &mut |meta, payload| {
            more = rows == feed.limit || !page.has_room(payload.len(), rows == 0);
            if !more {
                write_row(&mut page.out, rows > 0, dataset, meta, payload);
                place = Cursor { position: meta.position, dataset: dataset.id };
                rows += 1;
            }
            !more
        })?;
        if more {
            break;
        }
    }
    let next = more.then(|| feed.engine.cursor_key().encode(scope, place));
    Ok(page.finish(next.as_deref()))
}

/// The records with one key: all of them, as there is no cursor to go on from.
async fn named(feed: &Feed, key: &str, mut page: PageBuffer) -> Result<Result<Bytes, Starved>, Refusal> {
    let mut rows = 0;
    for dataset in feed.datasets() {
        if let Some(record) = feed.engine.record(&dataset, key).await?
            && record.meta.action != Action::Deleted
        {
            // As if each was the first: it is all or nothing.
            if !page.has_room(record.payload.len(), true) {
                return Ok(Err(Starved));
            }
            write_row(&mut page.out, rows > 0, &dataset, &record.meta, &record.payload);
            rows += 1;
        }
    }
    Ok(page.finish(None))
}

/// Everything, as of one engine time.
fn snapshot(api: &Api, caller: &Caller, feed: Feed) -> Result<Response, Refusal> {
    let Some(turn) = api.http.bounds.snapshots.take(caller.holders(), 1) else {
        let message = format!(
            "{SNAPSHOTS} consistent answers are made at a time, at most half of them for one key or environment; ask again \
             when one has ended"
        );
        return Err(Refusal::busy("overloaded", message));
    };
    let (to, chunks) = mpsc::channel(CHUNKS);
    let whole = Arc::new(AtomicBool::new(false));
    let (done, stopping) = (whole.clone(), api.stopping.clone());
    let (answers, holders) = (api.http.bounds.answers.clone(), caller.holders());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let clock = feed.engine.clock();
        let send = |chunk: Vec<u8>| {
            runtime.block_on(async {
                let Some(memory) = answers.wait(holders, chunk.capacity(), STALLED, &*clock).await else {
                    return false;
                };
                tokio::select! {
                    sent = to.send(counted(chunk, memory)) => sent.is_ok(),
                    () = clock.sleep(STALLED) => false,
                    () = stopping.cancelled() => false,
                }
            })
        };
        match write_snapshot(&feed, &send) {
            Ok(all) => done.store(all, Ordering::Release),
            Err(error) => tracing::error!(%error, "a consistent answer broke off"),
        }
    });
    // The status is sent already: an early end is all a reader can be told.
    let parts = stream::unfold(Some((chunks, whole)), |state| async move {
        let (mut chunks, whole) = state?;
        match chunks.recv().await {
            Some(chunk) => Some((Ok(chunk), Some((chunks, whole)))),
            None if whole.load(Ordering::Acquire) => None,
            None => Some((Err(std::io::Error::other("the answer ended early")), None)),
        }
    });
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// Writes it chunk by chunk; whether all of it was taken.
fn write_snapshot(feed: &Feed, send: &dyn Fn(Vec<u8>) -> bool) -> Result<bool, Error> {
    let out = std::cell::RefCell::new(Vec::new());
    let (mut rows, mut taken) = (0u64, true);
    feed.engine.snapshot(
        &feed.datasets(),
        &mut |end| {
            let place = feed.before(end);
            let text =
                format!("{{\"time\":{},\"cursor\":\"{}\",\"records\":[", place.position.epoch(), feed.text(place));
            out.borrow_mut().extend_from_slice(text.as_bytes());
        },
        &mut |dataset, meta, payload| {
            let mut out = out.borrow_mut();
            write_row(&mut out, rows > 0, dataset, meta, payload);
            rows += 1;
            if out.len() >= CHUNK {
                taken = send(std::mem::take(&mut out));
            }
            taken
        },
    )?;
    let mut last = out.into_inner();
    last.extend_from_slice(b"]}");
    Ok(taken && send(last))
}

fn write_row(out: &mut Vec<u8>, further: bool, dataset: &Dataset, meta: &Meta, payload: &[u8]) {
    let id = crate::engine::model::id_of(payload).unwrap_or_default();
    out.extend_from_slice(if further { b",{" } else { b"{" });
    write_names(out, &dataset.name, &id);
    out.extend_from_slice(b",\"record\":");
    out.extend_from_slice(payload);
    out.extend_from_slice(b",\"modified_at\":");
    write_stamp(out, meta.modified_at);
    out.extend_from_slice(b",\"first_seen_at\":\"");
    write_time(out, meta.first_seen_at, "Z");
    out.extend_from_slice(b"\",\"committed_at\":\"");
    write_time(out, meta.last_modified_at, "Z");
    let (via, time) = (meta.cause.via.as_str(), meta.position.epoch());
    out.extend_from_slice(format!("\",\"time\":{time},\"via\":\"{via}\",\"cause\":\"{}\"}}", meta.cause).as_bytes());
}
