//! `/v1/journal`: what happened, newest first: ended runs, webhook requests, attempts to deliver.
//!
//! Promises: in a cluster a page holds what one process would show, as far back as every owner has looked; a line that several
//! owners wrote at the same time is on exactly one page.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::all_owners;
use crate::api::routes::Routes;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::Error;
use crate::engine::store::journal::{JournalKind, JournalLine, JournalPage, JournalSelection};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::{QueryFields, limit_of};
use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most lines of one answer.
const LIMIT_MAX: u64 = 1_000;

/// Lines of one answer if nothing is said.
const LIMIT: u64 = 100;

/// What a query may name.
const NAMES: [&str; 9] = ["kind", "source", "connection", "stream", "endpoint", "id", "outcome", "limit", "cursor"];

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/journal", list, all_owners::<JournalList>())
}

/// Lines, the newest first.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct JournalList {
    lines: Vec<JournalReport>,
    /// The time before which the next page begins; null at the end of the journal.
    cursor: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct JournalReport {
    at: String,
    kind: String,
    id: Option<String>,
    outcome: String,
    source: Option<String>,
    connection: Option<String>,
    stream: Option<String>,
    endpoint: Option<String>,
    details: Value,
}

impl From<JournalLine> for JournalReport {
    fn from(line: JournalLine) -> JournalReport {
        JournalReport {
            at: line.at.to_string(),
            kind: line.kind.name().to_owned(),
            id: Some(line.id).filter(|id| !id.is_empty()),
            outcome: line.outcome,
            source: line.source,
            connection: line.connection,
            stream: line.stream,
            endpoint: line.endpoint,
            details: line.details,
        }
    }
}

impl MergedAnswer for JournalList {
    /// What lies further back than one of the owners has looked is left to the next page.
    fn merge(mut self, other: JournalList) -> JournalList {
        self.lines.extend(other.lines);
        self.cursor = self.cursor.max(other.cursor);
        if let Some(cursor) = &self.cursor {
            self.lines.retain(|line| line.at >= *cursor);
        }
        self
    }

    fn finish(mut self, query: &str) -> JournalList {
        let limit = limit_of(query, LIMIT, LIMIT_MAX);
        self.lines.sort_by(|a, b| b.at.cmp(&a.at));
        if let Some(last) = limit.checked_sub(1).and_then(|last| self.lines.get(last)).map(|line| line.at.clone()) {
            let more = self.lines.last().is_some_and(|oldest| oldest.at < last);
            self.lines.retain(|line| line.at >= last);
            self.cursor = if more { Some(last) } else { self.cursor };
        }
        self
    }
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<JournalList>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &NAMES);
    let kind = query.one("kind");
    let kinds: Vec<JournalKind> = kind.as_deref().and_then(JournalKind::named).into_iter().collect();
    if kind.is_some() && kinds.is_empty() {
        let known = JournalKind::ALL.map(JournalKind::name).join(", ");
        query.fault("invalid_value", &["kind"], format!("one of {known} is wanted"));
    }
    let before = query.cursor(Timestamp::parse);
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let [source, connection, stream, endpoint, id, outcome] =
        ["source", "connection", "stream", "endpoint", "id", "outcome"].map(|name| query.one(name));
    query.done()?;
    let environment = Some(caller.environment.to_string());
    let wanted = JournalSelection { environment, kinds, source, connection, stream, endpoint, id, outcome, before };
    let journal = api.app.engine.journal();
    let JournalPage { lines, next } = api.read(move || journal.read(&wanted, limit).map_err(Error::from)).await?;
    let lines = lines.into_iter().map(JournalReport::from).collect();
    Ok(Json(JournalList { lines, cursor: next.map(|next| next.to_string()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seconds: &[u8], cursor: Option<u8>) -> JournalList {
        let at = |second: u8| format!("2026-04-14T18:46:{second:02}.000000Z");
        let line = |second: &u8| JournalReport {
            at: at(*second),
            kind: "run".to_owned(),
            id: None,
            outcome: "complete".to_owned(),
            source: None,
            connection: None,
            stream: None,
            endpoint: None,
            details: Value::Null,
        };
        JournalList { lines: seconds.iter().map(line).collect(), cursor: cursor.map(at) }
    }

    #[test]
    fn a_page_is_cut_where_one_owner_has_not_looked() {
        let merged = page(&[9, 3], Some(3)).merge(page(&[8, 7, 1], None));
        assert_eq!(merged.finish("limit=5"), page(&[9, 8, 7, 3], Some(3)), "of before 3 the first owner may have more");
    }

    #[test]
    fn a_page_is_cut_at_its_limit_and_lines_of_one_time_stay_together() {
        let merged = page(&[9, 4], None).merge(page(&[8, 4, 1], None));
        assert_eq!(merged.finish("limit=3"), page(&[9, 8, 4, 4], Some(4)));
        assert_eq!(page(&[2], None).merge(page(&[1], None)).finish("limit=2"), page(&[2, 1], None));
    }
}
