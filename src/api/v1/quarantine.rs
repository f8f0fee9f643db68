//! `/v1/quarantine`: what could not be taken, and what becomes of it.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::all_owners;
use crate::api::entries::{self, Dropped, EntryList};
use crate::api::routes::Routes;
use crate::app::App;
use crate::app::quarantine::{ENTRIES_MAX, QuarantineFilter};
use crate::engine::pipeline::{DroppedEntries, Error, QuarantineRow, QuarantineWriter, quarantine_entry};
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use crate::http::pages::{MergedPage, PageOrder, part_of_order};
use crate::http::query::{QueryFields, limit_of};
use axum::extract::{RawQuery, Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Most entries of one answer.
const LIMIT_MAX: u64 = ENTRIES_MAX as u64;

/// Entries of one answer if nothing is said.
const LIMIT: u64 = 100;

/// First characters of an entry's id.
const PREFIX: &str = "qrn_";

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/quarantine", list, all_owners::<QuarantinePage>())
        .post("/v1/quarantine/retry", retry, all_owners::<RetriedAnswer>())
        .post("/v1/quarantine/drop", drop_entries, all_owners::<Dropped>())
}

/// Entries, and counts of what was dropped, in order of source, connection and stream.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct QuarantinePage {
    entries: Vec<EntryReport>,
    dropped: Vec<DroppedReport>,
    cursor: Option<String>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EntryReport {
    id: String,
    source: String,
    connection: String,
    stream: String,
    writer: String,
    code: String,
    message: String,
    key: Option<String>,
    cause: String,
    at: String,
    item: String,
}

/// What found no room, or was too old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DroppedReport {
    id: String,
    source: String,
    connection: String,
    stream: String,
    writer: String,
    count: u64,
    at: String,
}

/// What became of entries that were tried again.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RetriedAnswer {
    taken: u64,
    kept: u64,
    listed: Vec<ListedStream>,
    impossible: Vec<ImpossibleEntry>,
    more: bool,
}

/// A stream that is listed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ListedStream {
    source: String,
    connection: String,
    stream: String,
}

/// An entry that cannot be tried again, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ImpossibleEntry {
    id: String,
    message: String,
}

impl MergedAnswer for QuarantinePage {
    fn merge(mut self, other: QuarantinePage) -> QuarantinePage {
        self.entries.extend(other.entries);
        self.dropped.extend(other.dropped);
        self.cursor = self.cursor.or(other.cursor);
        self
    }

    fn finish(mut self, query: &str) -> QuarantinePage {
        let order =
            |id: &str| -> PageOrder { place_of(id).iter().flat_map(|row| row.parts()).map(part_of_order).collect() };
        let entries = self.entries.iter().map(|entry| entry.id.as_str());
        let ids = entries.chain(self.dropped.iter().map(|dropped| dropped.id.as_str()));
        let page = MergedPage::of(ids, order, limit_of(query, LIMIT, LIMIT_MAX), self.cursor.is_some());
        page.cut(&mut self.entries, |entry| &entry.id);
        page.cut(&mut self.dropped, |dropped| &dropped.id);
        QuarantinePage { cursor: page.cursor, ..self }
    }
}

impl MergedAnswer for RetriedAnswer {
    fn merge(mut self, other: RetriedAnswer) -> RetriedAnswer {
        self.listed.extend(other.listed);
        self.impossible.extend(other.impossible);
        RetriedAnswer {
            taken: self.taken.saturating_add(other.taken),
            kept: self.kept.saturating_add(other.kept),
            more: self.more || other.more,
            ..self
        }
    }
}

/// Entries in order of source, connection and stream.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<QuarantinePage>, Refusal> {
    const KNOWN: [&str; 7] = ["source", "connection", "stream", "code", "writer", "limit", "cursor"];
    let mut query = QueryFields::read(query.as_deref(), &KNOWN);
    let (filter, wrong) = filter(|name| query.one(name));
    if wrong {
        query.fault("invalid_value", &["writer"], WRITER_WANTED);
    }
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let after = query.cursor(place_of);
    query.done()?;
    let app = api.app.clone();
    let read = move || app.quarantined(&caller.environment, &filter, after.as_ref(), limit);
    let (rows, more) = api.read(read).await?;
    let cursor = rows.last().filter(|_| more).map(id_of);
    let (mut entries, mut dropped) = (Vec::new(), Vec::new());
    for row in rows {
        let id = id_of(&row);
        let (writer, [source, connection, stream]) = (row.writer.as_str().to_owned(), row.place);
        match row.kept {
            Ok(entry) => entries.push(EntryReport {
                id,
                source,
                connection,
                stream,
                writer,
                code: entry.code,
                message: entry.message,
                key: entry.id,
                cause: entry.cause,
                at: entry.at.to_string(),
                item: entry.item,
            }),
            Err(DroppedEntries { count, at }) => {
                dropped.push(DroppedReport { id, source, connection, stream, writer, count, at: at.to_string() });
            }
        }
    }
    Ok(Json(QuarantinePage { entries, dropped, cursor }))
}

/// Tries entries again: the named ones, or those of a selection.
async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<RetriedAnswer>, Refusal> {
    entries::change::<QuarantineReport, _, _>(&api, &caller, request, async |rows, more| {
        let done = api.app.retry_quarantined(&caller.environment, rows).await?;
        let listed = |[source, connection, stream]: [String; 3]| ListedStream { source, connection, stream };
        let impossible =
            |(row, why): (QuarantineRow, &str)| ImpossibleEntry { id: id_of(&row), message: why.to_owned() };
        Ok(RetriedAnswer {
            taken: done.taken,
            kept: done.kept,
            listed: done.listed.into_iter().map(listed).collect(),
            impossible: done.impossible.into_iter().map(impossible).collect(),
            more,
        })
    })
    .await
}

/// Drops entries: the named ones, or those of a selection.
async fn drop_entries(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Dropped>, Refusal> {
    entries::change::<QuarantineReport, _, _>(&api, &caller, request, async |rows, more| {
        let dropped = api.app.drop_quarantined(&caller.environment, rows).await?;
        Ok(Dropped { dropped, more })
    })
    .await
}

/// What lies in quarantine, as a list that people change.
struct QuarantineReport;

impl EntryList for QuarantineReport {
    type Entry = QuarantineRow;
    type Id = QuarantineRow;
    type Selection = QuarantineFilter;
    const NAMES: &'static [&'static str] = &["ids", "source", "connection", "stream", "code", "writer"];
    const MOST: usize = ENTRIES_MAX;
    const WANTED: &'static str = "either `ids` or a selection by `source` is wanted";

    fn id(text: &str) -> Option<QuarantineRow> {
        place_of(text)
    }

    fn selection(body: &mut BodyFields) -> Option<QuarantineFilter> {
        let (filter, wrong) = filter(|name| body.text(name));
        if wrong {
            body.fault("invalid_value", &["writer"], WRITER_WANTED);
        }
        filter.source.is_some().then_some(filter)
    }

    fn named(app: &App, environment: &str, ids: &[QuarantineRow]) -> Result<Vec<QuarantineRow>, Error> {
        let mut rows = Vec::new();
        for named in ids {
            rows.extend(quarantine_entry(&app.engine, environment, named)?);
        }
        Ok(rows)
    }

    fn selected(app: &App, environment: &str, of: &QuarantineFilter) -> Result<(Vec<QuarantineRow>, bool), Error> {
        app.quarantined(environment, of, None, ENTRIES_MAX)
    }
}

const WRITER_WANTED: &str = "run, webhook, topic or function is wanted";

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
fn place_of(id: &str) -> Option<QuarantineRow> {
    let parts = URL_SAFE_NO_PAD.decode(id.strip_prefix(PREFIX)?).ok()?;
    let [source, connection, stream, key]: [String; 4] = serde_json::from_slice(&parts).ok()?;
    Some(QuarantineRow::named([source, connection, stream], key))
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

    #[test]
    fn counts_are_added() {
        let listed = |stream: &str| ListedStream {
            source: "crm".to_owned(),
            connection: "acme".to_owned(),
            stream: stream.to_owned(),
        };
        let answer = |taken: u64, more: bool, streams: &[&str]| RetriedAnswer {
            taken,
            kept: 0,
            listed: streams.iter().map(|stream| listed(stream)).collect(),
            impossible: Vec::new(),
            more,
        };
        assert_eq!(answer(2, false, &["1"]).merge(answer(3, true, &["2"])), answer(5, true, &["1", "2"]));
    }

    #[test]
    fn entries_and_counts_share_a_page() {
        let id =
            |connection: &str| id_of(&QuarantineRow::named(["crm", connection, "Deal"].map(str::to_owned), "k".into()));
        let report = |connection: &str| DroppedReport {
            id: id(connection),
            source: "crm".to_owned(),
            connection: connection.to_owned(),
            stream: "Deal".to_owned(),
            writer: "run".to_owned(),
            count: 1,
            at: String::new(),
        };
        let page = |connections: &[&str]| QuarantinePage {
            entries: Vec::new(),
            dropped: connections.iter().map(|connection| report(connection)).collect(),
            cursor: None,
        };
        let first = page(&["b", "aa"]).merge(page(&["c"])).finish("limit=2");
        assert_eq!(first, QuarantinePage { cursor: Some(id("c")), ..page(&["b", "c"]) }, "shorter names come first");
    }
}
