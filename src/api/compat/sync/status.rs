//! `GET /sync/status`: how syncs stand.

use super::{NAMES_MAX, resolve};
use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::ingest::poll::{LastOutcome, LastRun, RunKind, SyncName, SyncStatus};
use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How syncs stand.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SyncList {
    syncs: Vec<SyncReport>,
}

/// One of them, in the words of the compatible surface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SyncReport {
    id: String,
    connection_id: String,
    name: String,
    variant: String,
    #[serde(rename = "type")]
    kind: String,
    status: String,
    frequency: String,
    #[serde(rename = "latestResult")]
    latest_result: BTreeMap<String, ChangeCounts>,
    #[serde(rename = "latestExecutionStatus")]
    latest_execution_status: Option<String>,
    #[serde(rename = "finishedAt")]
    finished_at: Option<String>,
    #[serde(rename = "nextScheduledSyncAt")]
    next_scheduled_sync_at: Option<String>,
    #[serde(rename = "recordCount")]
    record_count: BTreeMap<String, u64>,
    checkpoint: Option<Value>,
}

/// Changes that the last run made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct ChangeCounts {
    added: u64,
    updated: u64,
    deleted: u64,
}

impl MergedAnswer for SyncList {
    fn merge(mut self, other: SyncList) -> SyncList {
        self.syncs.extend(other.syncs);
        self
    }
}

/// Of one connection, or of all of a source.
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<SyncList>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["syncs", "provider_config_key", "connection_id"]);
    let list = query.one("syncs").unwrap_or_default();
    if list.is_empty() || list.split(',').count() > NAMES_MAX {
        query.fault("invalid_string", &["syncs"], format!("* or a comma list of 1 to {NAMES_MAX} syncs is wanted"));
    }
    let source = query.one("provider_config_key").filter(|s| !s.is_empty());
    let connection = query.one("connection_id").filter(|c| !c.is_empty());
    query.done()?;
    let source = source.ok_or_else(Refusal::missing_source)?;
    let names: Vec<SyncName> =
        if list == "*" { Vec::new() } else { list.split(',').map(|n| SyncName::parse(n.trim())).collect() };
    let keys = resolve(&api, &caller, &source, connection.as_deref(), &names)?;
    Ok(Json(SyncList { syncs: api.app.syncs.status(&keys).into_iter().map(describe).collect() }))
}

fn describe(sync: SyncStatus) -> SyncReport {
    let stream = sync.key.stream;
    let last = sync.last.as_ref();
    let counts = |run: &LastRun| {
        let c = run.counts;
        (stream.clone(), ChangeCounts { added: c.added, updated: c.updated, deleted: c.deleted })
    };
    SyncReport {
        id: sync.id,
        connection_id: sync.key.connection,
        name: sync.sync,
        variant: sync.key.variant,
        kind: kind(sync.kind).to_owned(),
        status: sync.status.as_str().to_owned(),
        frequency: sync.frequency,
        latest_result: last.map(counts).into_iter().collect(),
        latest_execution_status: last.map(|run| outcome(run.outcome).to_owned()),
        finished_at: last.map(|run| run.finished_at.with_offset()),
        next_scheduled_sync_at: sync.next_at.map(|at| at.with_offset()),
        record_count: BTreeMap::from([(stream.clone(), sync.live)]),
        checkpoint: sync.checkpoint,
    }
}

/// The compatible surface knows two kinds: the first listing and everything after it.
fn kind(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Initial => "INITIAL",
        RunKind::Incremental | RunKind::Full => "INCREMENTAL",
    }
}

fn outcome(outcome: LastOutcome) -> &'static str {
    match outcome {
        LastOutcome::Complete | LastOutcome::Incomplete | LastOutcome::Held => "SUCCESS",
        LastOutcome::Failed => "ERROR",
        LastOutcome::Cancelled => "STOPPED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_of_several_owners_are_one_list() {
        let sync = |id: &str, checkpoint: Value| {
            json!({"id": id, "connection_id": "acme", "name": "contacts", "variant": "base", "type": "INITIAL",
                   "status": "SUCCESS", "frequency": "every 1h", "latestResult": {"Contact": {"added": 2, "updated": 0, "deleted": 0}},
                   "latestExecutionStatus": "SUCCESS", "finishedAt": null, "nextScheduledSyncAt": null,
                   "recordCount": {"Contact": 2}, "checkpoint": checkpoint})
        };
        let list = |syncs: Value| serde_json::from_value::<SyncList>(json!({"syncs": syncs})).expect("a list");
        let (one, two, three) = (sync("1", Value::Null), sync("2", json!({"page": 1.50})), sync("3", Value::Null));
        let all = list(json!([one])).merge(list(json!([two, three])));
        assert_eq!(serde_json::to_value(all).expect("JSON"), json!({"syncs": [one, two, three]}));
    }
}
