//! `/v1/quarantine`: what could not be taken, and what becomes of it.

use super::auth::Caller;
use super::body::Fields;
use super::error::Refusal;
use super::query::Query;
use super::{Api, both};
use crate::app::quarantine::{ENTRIES_MAX, QuarantineFilter};
use crate::config::Role;
use crate::engine::pipeline::{DroppedEntries, QuarantineEntry, QuarantineRow, QuarantineWriter, quarantine_entry};
use axum::extract::{RawQuery, Request, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Most entries of one answer.
pub(super) const LIMIT_MAX: u64 = ENTRIES_MAX as u64;

/// Entries of one answer if nothing is said.
pub(super) const LIMIT: u64 = 100;

/// First characters of an entry's id.
const PREFIX: &str = "qrn_";

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/quarantine", get(list));
    let router = both(router, "/v1/quarantine/retry", post(retry));
    both(router, "/v1/quarantine/drop", post(drop_entries))
}

/// Entries in order of source, connection and stream.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    const KNOWN: [&str; 7] = ["source", "connection", "stream", "code", "writer", "limit", "cursor"];
    let mut query = Query::read(query.as_deref(), &KNOWN);
    let (filter, wrong) = filter(|name| query.one(name));
    if wrong {
        query.fault("invalid_value", &["writer"], WRITER_WANTED);
    }
    let limit = usize::try_from(query.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    let after = match query.one("cursor") {
        None => None,
        Some(text) => place_of(&text).or_else(|| {
            query.fault("invalid_cursor", &["cursor"], "a cursor of an earlier answer is wanted");
            None
        }),
    };
    query.done()?;
    let app = api.app.clone();
    let read = move || app.quarantined(&caller.environment, &filter, after.as_ref(), limit);
    let (rows, more) = api.read(read).await?;
    let cursor = rows.last().filter(|_| more).map(id_of);
    let entries: Vec<Value> =
        rows.iter().filter_map(|row| row.kept.as_ref().ok().map(|entry| describe(row, entry))).collect();
    let dropped: Vec<Value> =
        rows.iter().filter_map(|row| row.kept.as_ref().err().map(|dropped| count(row, dropped))).collect();
    Ok(Json(json!({"entries": entries, "dropped": dropped, "cursor": cursor})))
}

/// Tries entries again: the named ones, or those of a selection.
async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let (rows, more) = meant(&api, &caller, request).await?;
    let done = api.app.retry_quarantined(&caller.environment, rows).await?;
    let listed: Vec<Value> = done
        .listed
        .iter()
        .map(|[source, connection, stream]| json!({"source": source, "connection": connection, "stream": stream}))
        .collect();
    let impossible: Vec<Value> =
        done.impossible.iter().map(|(row, why)| json!({"id": id_of(row), "message": why})).collect();
    Ok(Json(json!({
        "taken": done.taken, "kept": done.kept, "listed": listed, "impossible": impossible, "more": more,
    })))
}

/// Drops entries: the named ones, or those of a selection.
async fn drop_entries(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let (rows, more) = meant(&api, &caller, request).await?;
    let dropped = api.app.drop_quarantined(&caller.environment, rows).await?;
    Ok(Json(json!({"dropped": dropped, "more": more})))
}

/// The entries that a body names, at most [`ENTRIES_MAX`]; whether a selection has more.
async fn meant(api: &Api, caller: &Caller, request: Request) -> Result<(Vec<QuarantineRow>, bool), Refusal> {
    const KNOWN: [&str; 6] = ["ids", "source", "connection", "stream", "code", "writer"];
    let mut body = Fields::read(api, request, &KNOWN).await?;
    let ids = body.has("ids").then(|| ids(&mut body));
    let (filter, wrong) = filter(|name| body.text(name));
    if wrong {
        body.fault("invalid_value", &["writer"], WRITER_WANTED);
    }
    match (&ids, &filter.source) {
        (Some(_), Some(_)) => body.fault("invalid_type", &["ids"], "may not stand beside a selection"),
        (None, None) => body.fault("invalid_type", &["ids"], "is missing: name entries, or select them by `source`"),
        _ => {}
    }
    body.done()?;
    let (app, environment) = (api.app.clone(), caller.environment.clone());
    let read = move || match ids {
        None => app.quarantined(&environment, &filter, None, ENTRIES_MAX),
        Some(ids) => {
            let mut rows = Vec::new();
            for named in &ids {
                rows.extend(quarantine_entry(&app.engine, &environment, named)?);
            }
            Ok((rows, false))
        }
    };
    api.read(read).await
}

fn ids(body: &mut Fields) -> Vec<QuarantineRow> {
    let Some(Value::Array(list)) = body.take("ids") else {
        body.fault("invalid_type", &["ids"], "a list of ids is wanted");
        return Vec::new();
    };
    if list.len() > ENTRIES_MAX {
        body.fault("too_big", &["ids"], format!("at most {ENTRIES_MAX} ids are allowed"));
        return Vec::new();
    }
    let read: Option<Vec<QuarantineRow>> = list.iter().map(|id| place_of(id.as_str()?)).collect();
    read.unwrap_or_else(|| {
        body.fault("invalid_string", &["ids"], "ids of `GET /v1/quarantine` are wanted");
        Vec::new()
    })
}

const WRITER_WANTED: &str = "run, webhook or topic is wanted";

/// The selection that named texts make, and whether its writer is none.
fn filter(mut text: impl FnMut(&str) -> Option<String>) -> (QuarantineFilter, bool) {
    let word = text("writer");
    let writer = QuarantineWriter::ALL.into_iter().find(|writer| word.as_deref() == Some(writer.as_str()));
    let [source, connection, stream, code] = ["source", "connection", "stream", "code"].map(text);
    (QuarantineFilter { source, connection, stream, code, writer }, word.is_some() && writer.is_none())
}

/// The id of an entry, which is a cursor as well.
fn id_of(row: &QuarantineRow) -> String {
    let parts = serde_json::to_vec(&row.parts()).unwrap_or_default();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(parts))
}

/// The place that an id names.
pub(super) fn place_of(id: &str) -> Option<QuarantineRow> {
    let parts = URL_SAFE_NO_PAD.decode(id.strip_prefix(PREFIX)?).ok()?;
    let [source, connection, stream, key]: [String; 4] = serde_json::from_slice(&parts).ok()?;
    Some(QuarantineRow::named([source, connection, stream], key))
}

fn describe(row: &QuarantineRow, entry: &QuarantineEntry) -> Value {
    let [source, connection, stream] = &row.place;
    json!({
        "id": id_of(row), "source": source, "connection": connection, "stream": stream,
        "writer": row.writer.as_str(), "code": entry.code, "message": entry.message, "key": entry.id,
        "cause": entry.cause, "at": entry.at.to_string(), "item": entry.item,
    })
}

fn count(row: &QuarantineRow, dropped: &DroppedEntries) -> Value {
    let [source, connection, stream] = &row.place;
    json!({
        "id": id_of(row), "source": source, "connection": connection, "stream": stream, "writer": row.writer.as_str(),
        "count": dropped.count, "at": dropped.at.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_entry() {
        let place = ["crm", "acme/ü", "Contact"].map(str::to_owned);
        let row = QuarantineRow::named(place, "run/a\"b".to_owned());
        assert_eq!(place_of(&id_of(&row)), Some(row));
        for wrong in ["", "qrn_", "qrn_!", "run_1", "qrn_W10"] {
            assert_eq!(place_of(wrong), None, "{wrong}");
        }
    }
}
