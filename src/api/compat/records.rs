//! `/records`: the records of one model of one connection, in the order of their last change, and pruning of their payloads.

use crate::admission::Share;
use crate::api::Api;
use crate::api::cluster::target::{ConnectionNames, NamedIn, owner_of};
use crate::api::routes::Routes;
use crate::config::Role;
use crate::engine::Engine;
use crate::engine::model::{Cursor, CursorError, DatasetName, Meta, Position, Record, Timestamp, is_model};
use crate::engine::pipeline::{Dataset, Error, Filter};
use crate::engine::views::ALL_CONNECTIONS;
use crate::http::answers::{Starved, json};
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use crate::http::query::{QueryFields, account_headers, is_name};
use crate::http::rows::RowPage;
use crate::registry::scope::records_scope;
use axum::body::Bytes;
use axum::extract::{RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use serde_json::json;
use std::time::Duration;

/// Most rows of a page, and of one call to prune.
const LIMIT_MAX: u64 = 10_000;

/// Rows of a page if nothing is said.
const LIMIT: u64 = 100;

/// Rows pruned by one call if nothing is said.
const PRUNE_LIMIT: u64 = 1_000;

/// Longest cursor that is looked at.
const CURSOR_MAX: usize = 1_000;

/// Most ids of one question.
const IDS_MAX: usize = 100;

/// How far back `modified_after` may lie.
const MODIFIED_WITHIN: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Both headers are demanded.
const NAMED: ConnectionNames = ConnectionNames {
    source: &[NamedIn::Header("provider-config-key")],
    connection: &[NamedIn::Header("connection-id")],
};

pub(super) fn routes() -> Routes {
    Routes::new().get("/records", list, owner_of(NAMED)).patch("/records/prune", prune, owner_of(NAMED))
}

/// A checked query.
struct RecordsQuery {
    model: String,
    variant: String,
    cursor: Option<String>,
    limit: usize,
    filter: Filter,
    ids: Vec<String>,
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let ask = ask(&api, query.as_deref())?;
    let (source, connection) = account_headers(&headers)?;
    let name = dataset_name(&api, &caller, &source, &connection, &ask.model, &ask.variant)?;
    let scope = records_scope(&name);
    let start = place(&api, &scope, ask.cursor.as_deref())?;
    let Some(dataset) = api.app.engine.find(&name) else {
        return Ok(Json(json!({"records": [], "next_cursor": null})).into_response());
    };
    if let Start::After(place) = start
        && api.app.engine.emptied_since(&dataset, place)?
    {
        return Err(Refusal::must_refetch("emptied"));
    }
    let memory = api.http.memory(caller.holders()).await?;
    let rows = RowPage::new(memory, api.app.engine.cursor_key(), scope, dataset.id, ask.limit);
    let page = if ask.ids.is_empty() {
        let engine = api.app.engine.clone();
        api.read(move || listed(&engine, &dataset, start, ask.filter, rows)).await?
    } else {
        let memory = api.http.bounds.answers.share(caller.holders());
        named(&api, &dataset, start, &ask, rows, memory).await?
    };
    Ok(json(page?))
}

/// Where reading begins.
#[derive(Clone, Copy)]
enum Start {
    /// After this position.
    After(Position),
    /// At the first commit not before this time.
    At(Timestamp),
}

/// A page in order of change. Blocks.
fn listed(
    engine: &Engine,
    dataset: &Dataset,
    start: Start,
    filter: Filter,
    mut rows: RowPage,
) -> Result<Result<Bytes, Starved>, Error> {
    let after = position(engine, dataset, start)?;
    engine.records(dataset, after, filter, &mut |meta, payload| rows.push(meta, payload))?;
    Ok(rows.finish())
}

/// The position a start stands for. Blocks.
fn position(engine: &Engine, dataset: &Dataset, start: Start) -> Result<Position, Error> {
    let at = match start {
        Start::After(position) => return Ok(position),
        Start::At(at) => at,
    };
    let filter = Filter { modified_after: Some(whole_millis(at)), ..Filter::ALL };
    let mut first = None;
    engine.records(dataset, Position::START, filter, &mut |meta, _| {
        first = Some(meta.position);
        false
    })?;
    // Nothing so late: everything there is was read; what comes will come behind the end.
    let behind = |p: Position| Position(p.0.saturating_sub(1));
    Ok(behind(first.unwrap_or(*engine.watermark().borrow())))
}

/// The records with these ids, in order of change. All of them are in memory before the first is written.
async fn named(
    api: &Api,
    dataset: &Dataset,
    start: Start,
    ask: &RecordsQuery,
    mut rows: RowPage,
    mut memory: Share,
) -> Result<Result<Bytes, Starved>, Refusal> {
    let engine = &api.app.engine;
    let for_start = (engine.clone(), dataset.clone());
    let after = api.read(move || position(&for_start.0, &for_start.1, start)).await?;
    // The ids are read one after the other. What changes meanwhile is shown, but with a cursor from before it, so that no
    // cursor of this page lies behind a change it does not show: whoever goes on from there meets it again.
    let end = Position(engine.watermark().borrow().0.saturating_sub(1));
    let mut found: Vec<Record> = Vec::with_capacity(ask.ids.len());
    for id in &ask.ids {
        if let Some(record) = engine.record(dataset, id).await?
            && record.meta.position > after
            && passes(&ask.filter, &record.meta)
        {
            if !memory.grow_to(memory.amount() + record.payload.len()) {
                return Err(Starved.into());
            }
            found.push(record);
        }
    }
    found.sort_by_key(|record| record.meta.position);
    for record in &found {
        if !rows.push_at(record.meta.position.min(end), &record.meta, &record.payload) {
            break;
        }
    }
    Ok(rows.finish())
}

fn passes(filter: &Filter, meta: &Meta) -> bool {
    use crate::engine::model::Action::{Added, Deleted, Updated};
    let action = match meta.action {
        Added => filter.added,
        Updated => filter.updated,
        Deleted => filter.deleted,
    };
    action && filter.modified_after.is_none_or(|from| whole_millis(meta.last_modified_at) >= from)
}

fn whole_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.millis())
}

fn ask(api: &Api, raw: Option<&str>) -> Result<RecordsQuery, Refusal> {
    const KNOWN: [&str; 8] = ["model", "variant", "cursor", "limit", "filter", "modified_after", "delta", "ids"];
    let mut query = QueryFields::read(raw, &KNOWN);
    let model = query.one("model").unwrap_or_default();
    if !is_model(&model) {
        query.fault("invalid_string", &["model"], MODEL_WANTED);
    }
    let variant = variant(&mut query);
    let cursor = query.one("cursor");
    if let Some(text) = &cursor
        && let Err(message) = look_at_cursor(api, text)
    {
        query.fault("invalid_cursor", &["cursor"], message);
    }
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let mut filter = actions(&mut query);
    filter.modified_after = modified_after(&mut query, api.app.engine.clock().now());
    let ids = ids(&mut query);
    query.done()?;
    Ok(RecordsQuery { model, variant, cursor, limit, filter, ids })
}

const MODEL_WANTED: &str = "a model is wanted: a capital letter, then letters, digits, _ and -, 2 to 255 in all";

fn variant(query: &mut QueryFields) -> String {
    let variant = query.one("variant").unwrap_or_else(|| "base".into());
    if !is_name(&variant) {
        query.fault("invalid_string", &["variant"], "1 to 255 letters, digits, _ and - are wanted");
    }
    variant
}

fn actions(query: &mut QueryFields) -> Filter {
    let Some(text) = query.one("filter") else { return Filter::ALL };
    let mut filter = Filter { added: false, updated: false, deleted: false, modified_after: None };
    for word in text.split(',') {
        match word {
            "added" | "ADDED" => filter.added = true,
            "updated" | "UPDATED" => filter.updated = true,
            "deleted" | "DELETED" => filter.deleted = true,
            _ => {
                let message = "a comma list of added, updated, deleted is wanted, each all lower or all upper case";
                query.fault("invalid_string", &["filter"], message);
                break;
            }
        }
    }
    filter
}

/// `modified_after`, or `delta`, which wins; cut to the milliseconds records are compared with.
fn modified_after(query: &mut QueryFields, now: Timestamp) -> Option<Timestamp> {
    let (after, delta) = (query.one("modified_after"), query.one("delta"));
    let (name, text) = match (delta, after) {
        (Some(text), _) => ("delta", text),
        (None, Some(text)) => ("modified_after", text),
        (None, None) => return None,
    };
    let whole = text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T');
    let Some(at) = Timestamp::parse(&text).filter(|_| whole) else {
        query.fault("invalid_date", &[name], "a time such as 2026-04-14T18:46:03Z is wanted");
        return None;
    };
    if at < now.minus(MODIFIED_WITHIN) {
        query.fault("too_small", &[name], "may lie at most 365 days back; leave it out to read everything");
    }
    Some(whole_millis(at))
}

fn ids(query: &mut QueryFields) -> Vec<String> {
    let mut ids = query.all("ids");
    if ids.len() > IDS_MAX {
        query.fault("too_big", &["ids"], format!("at most {IDS_MAX} ids are allowed"));
    }
    if ids.iter().any(|id| !(1..=256).contains(&id.chars().count())) {
        query.fault("invalid_string", &["ids"], "each id has 1 to 256 characters");
    }
    ids.sort();
    ids.dedup();
    ids
}

/// What can be said of a cursor before its dataset is known.
fn look_at_cursor(api: &Api, text: &str) -> Result<(), String> {
    if !(1..=CURSOR_MAX).contains(&text.len()) {
        return Err(format!("1 to {CURSOR_MAX} characters are wanted"));
    }
    match api.app.engine.cursor_key().decode(b"", text) {
        Err(CursorError::Damaged) if nango_time(text).is_none() => Err(CursorError::Damaged.to_string()),
        _ => Ok(()),
    }
}

fn place(api: &Api, scope: &[u8], cursor: Option<&str>) -> Result<Start, Refusal> {
    let Some(text) = cursor else { return Ok(Start::After(Position::START)) };
    match (api.app.engine.cursor_key().decode(scope, text), nango_time(text)) {
        (Ok(Cursor { position, .. }), _) => Ok(Start::After(position)),
        (Err(CursorError::Damaged), Some(at)) => Ok(Start::At(at)),
        (Err(error), _) => Err(Refusal::cursor("query", "cursor", error.to_string())),
    }
}

/// The time inside a cursor of the form base64(`time||uuid`), as another server handed it out.
fn nango_time(text: &str) -> Option<Timestamp> {
    let raw = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let plain = String::from_utf8(raw).ok()?;
    let (time, _id) = plain.split_once("||")?;
    let time = time.replacen(' ', "T", 1);
    // PostgreSQL writes whole hours of an offset alone.
    Timestamp::parse(&time).or_else(|| Timestamp::parse(&format!("{time}:00")))
}

/// The dataset a caller means, if its connection is known to the caller's environment.
fn dataset_name(
    api: &Api,
    caller: &Caller,
    source: &str,
    connection: &str,
    model: &str,
    variant: &str,
) -> Result<DatasetName, Refusal> {
    let name = DatasetName::base(&caller.environment, source, connection, model);
    // Views over all connections are those of none that could be asked for.
    let of_all = connection == ALL_CONNECTIONS && api.app.engine.find(&name).is_some();
    if !of_all && api.app.connections.get(&caller.environment, source, connection).is_none() {
        return Err(Refusal::unknown_connection(connection));
    }
    Ok(DatasetName { variant: variant.into(), ..name })
}

async fn prune(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    QueryFields::read(query.as_deref(), &[]).done()?;
    let (source, connection) = account_headers(&headers)?;
    let mut body = BodyFields::read(&api.http, request, &["model", "variant", "until_cursor", "limit"]).await?;
    let model = body.demand("model");
    if !model.is_empty() && !is_model(&model) {
        body.fault("invalid_string", &["model"], MODEL_WANTED);
    }
    let variant = body.text("variant").unwrap_or_else(|| "base".into());
    if !is_name(&variant) {
        body.fault("invalid_string", &["variant"], "1 to 255 letters, digits, _ and - are wanted");
    }
    let until = body.demand("until_cursor");
    let limit = body.number("limit", 1, LIMIT_MAX).unwrap_or(PRUNE_LIMIT);
    body.done()?;
    let name = dataset_name(&api, &caller, &source, &connection, &model, &variant)?;
    let key = api.app.engine.cursor_key();
    let until = key.decode(&records_scope(&name), &until);
    let until = until.map_err(|error| Refusal::cursor("body", "until_cursor", error.to_string()))?;
    let Some(dataset) = api.app.engine.find(&name) else {
        return Ok(Json(json!({"count": 0, "has_more": false})).into_response());
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (count, last) = api.app.engine.prune(&dataset, until.position, limit).await?;
    let has_more = count > 0 && last != Some(until.position);
    Ok(Json(json!({"count": count, "has_more": has_more})).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_of_the_other_form_hold_a_time() {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let at = Timestamp::parse("2024-02-26T12:34:56.123456Z");
        let id = "0a1b2c3d-0000-4000-8000-000000000000";
        assert_eq!(nango_time(&encode(&format!("2024-02-26T12:34:56.123456+00:00||{id}"))), at);
        assert_eq!(nango_time(&encode(&format!("2024-02-26 12:34:56.123456+00||{id}"))), at);
        assert_eq!(nango_time(&encode("2024-02-26||x")), None);
        assert_eq!(nango_time(&encode("no time")), None);
        assert_eq!(nango_time("%%%"), None);
    }

    #[test]
    fn filters_are_unions() {
        let read = |raw: &str| {
            let mut query = QueryFields::read(Some(raw), &["filter"]);
            let filter = actions(&mut query);
            query.done().map(|()| (filter.added, filter.updated, filter.deleted))
        };
        assert_eq!(read("filter=added,DELETED").ok(), Some((true, false, true)));
        assert_eq!(read("").ok(), Some((true, true, true)));
        assert!(read("filter=Added").is_err());
        assert!(read("filter=").is_err());
    }

    #[test]
    fn modified_after_is_bounded_and_cut() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").expect("time");
        let read = |raw: &str| {
            let mut query = QueryFields::read(Some(raw), &["modified_after", "delta"]);
            let at = modified_after(&mut query, now);
            query.done().map(|()| at)
        };
        let at = Timestamp::parse("2025-06-01T00:00:00.123Z");
        assert_eq!(read("modified_after=2025-06-01T00:00:00.123999Z").ok(), Some(at));
        let delta = "delta=2025-06-01T00:00:00.123Z&modified_after=2025-09-01T00:00:00Z";
        assert_eq!(read(delta).ok(), Some(at));
        assert!(read("modified_after=2024-12-31T00:00:00Z").is_err());
        assert!(read("modified_after=2025-06-01T00:00:00%2B02:00").is_err());
        assert!(read("modified_after=2025-06-01").is_err());
    }
}
