//! What is stored of a run: its record, for readers, and its journey, to go on from.

use crate::model::{Cause, Counts, DatasetName, Timestamp};
use crate::source::{Bookmark, Confirm, Part};
use crate::store::journal::JournalLine;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Version of the stored journey.
pub(super) const FORMAT: u32 = 1;

/// How a run stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Still going, or interrupted by a stop of the process: then it goes on with the same number.
    Running,
    /// Everything asked for was read.
    Complete,
    /// It came to an end, but something was left out or not proven; nothing was deleted for being absent.
    Incomplete,
    /// It gave up. What it had read stays, and the next run goes on there.
    Failed,
    /// Its deletes wait for approval.
    Held,
    /// Somebody cancelled it.
    Cancelled,
}

/// The record of a run as it is stored under `Keyspace::RUN` (environment, source, model, run id), as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// `run_…`.
    pub id: String,
    /// The connection.
    pub connection: String,
    /// `base` or another configuration.
    pub variant: String,
    /// Name of the sync.
    pub sync: String,
    /// `INITIAL`, `INCREMENTAL`, `FULL`.
    pub kind: String,
    /// How it stands.
    pub status: Outcome,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What became of the records.
    pub counts: Counts,
    /// Pages read.
    pub pages: u64,
    /// Requests made.
    pub requests: u64,
    /// Answers that said «not modified».
    pub not_modified: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Items kept aside.
    pub quarantined: u64,
    /// Records stored in spite of a complaint.
    pub warnings: u64,
    /// The first complaints.
    pub samples: Vec<String>,
    /// Why it is not proven complete.
    pub doubts: Vec<String>,
    /// Code and text of the failure.
    pub error: Option<(String, String)>,
    /// Deletes that wait for approval: live records, missing ones.
    pub held: Option<(u64, u64)>,
    /// Whether a later run can go on where this one stopped.
    pub bookmark: bool,
    /// Hash of the definition.
    pub definition: String,
    /// What became of the records, model by model, where a run writes several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Counts>,
}

impl Outcome {
    /// Its name outside.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Running => "running",
            Outcome::Complete => "complete",
            Outcome::Incomplete => "incomplete",
            Outcome::Failed => "failed",
            Outcome::Held => "held",
            Outcome::Cancelled => "cancelled",
        }
    }
}

impl RunRecord {
    /// The record of a run that begins now.
    pub(super) fn begun(
        number: u64,
        name: &DatasetName,
        sync: &str,
        kind: &str,
        definition: String,
        now: Timestamp,
    ) -> RunRecord {
        RunRecord {
            id: Cause::run(number).to_string(),
            connection: name.connection.to_string(),
            variant: name.variant.to_string(),
            sync: sync.to_owned(),
            kind: kind.to_owned(),
            status: Outcome::Running,
            started_at: now,
            ended_at: None,
            counts: Counts::default(),
            pages: 0,
            requests: 0,
            not_modified: 0,
            retries: 0,
            quarantined: 0,
            warnings: 0,
            samples: Vec::new(),
            doubts: Vec::new(),
            error: None,
            held: None,
            bookmark: false,
            definition,
            models: BTreeMap::new(),
        }
    }

    /// What the journal says of its end.
    pub(super) fn line(&self, dataset: &DatasetName) -> JournalLine {
        let took = self.ended_at.map(|ended_at| ended_at.since(self.started_at).as_millis() as u64);
        let mut details = json!({
            "sync": self.sync,
            "variant": self.variant,
            "kind": self.kind,
            "ms": took,
            "pages": self.pages,
            "requests": self.requests,
            "not_modified": self.not_modified,
            "retries": self.retries,
            "quarantined": self.quarantined,
            "warnings": self.warnings,
            "counts": self.counts,
        });
        if !self.models.is_empty() {
            details["models"] = json!(self.models);
        }
        if !self.doubts.is_empty() {
            details["doubts"] = json!(self.doubts);
        }
        if let Some((code, text)) = &self.error {
            details["error"] = json!({"code": code, "text": text});
        }
        if let Some((live, missing)) = self.held {
            details["held"] = json!({"live": live, "missing": missing});
        }
        JournalLine::run(&*self.id, self.status.name()).dataset(dataset).details(details)
    }

    /// The number behind the id.
    pub fn number(&self) -> Option<u64> {
        Cause::parse(&self.id).map(|cause| cause.number)
    }
}

/// What part of the way a run is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunStage {
    /// The listing asked for.
    Listing,
    /// The same listing a second time, to be sure of what is missing.
    Again,
    /// Listings of deleted records; the first of `deletes` is being read.
    Deletes,
    /// Everything is read.
    Settle,
}

/// Where a run is on its way: stored with each page, so that it can go on after anything.
#[derive(Clone, Debug)]
pub struct RunState {
    pub(super) number: u64,
    pub(super) record: RunRecord,
    /// Start of the first run on this journey (our clock): by it listings know themselves.
    pub(super) began: Timestamp,
    /// Items kept aside in the listing being read.
    pub(super) set_aside: u64,
    pub(super) part: Part,
    pub(super) stage: RunStage,
    pub(super) bookmark: Option<Bookmark>,
    pub(super) deletes: Vec<usize>,
    pub(super) deletes_done: Vec<usize>,
    pub(super) confirm: Confirm,
    /// The listing came to its end and nothing speaks against its completeness.
    pub(super) proven: bool,
    /// The listing came to its end.
    pub(super) read: bool,
    /// Start by the provider's clock.
    pub(super) provider_start: Option<Timestamp>,
    pub(super) greatest_modified: Option<Timestamp>,
    /// Validators turned out not to fit what is stored.
    pub(super) forget_notes: bool,
}

/// The stored form of a journey.
#[derive(Serialize, Deserialize)]
struct StoredRun {
    format: u32,
    number: u64,
    record: RunRecord,
    began: Timestamp,
    set_aside: u64,
    /// `None`: full.
    window: Option<(Timestamp, Timestamp)>,
    stage: RunStage,
    bookmark: Option<String>,
    deletes: Vec<usize>,
    deletes_done: Vec<usize>,
    confirm: u8,
    proven: bool,
    read: bool,
    provider_start: Option<Timestamp>,
    greatest_modified: Option<Timestamp>,
    forget_notes: bool,
}

/// In the order of their stored numbers.
const CONFIRMS: [Confirm; 4] = [Confirm::None, Confirm::Fetch, Confirm::Twice, Confirm::Never];

impl RunState {
    pub(super) fn encode(&self) -> Vec<u8> {
        let stored = StoredRun {
            format: FORMAT,
            number: self.number,
            record: self.record.clone(),
            began: self.began,
            set_aside: self.set_aside,
            window: if let Part::Incremental { since, until } = self.part { Some((since, until)) } else { None },
            stage: self.stage,
            bookmark: self.bookmark.as_ref().map(|bookmark| STANDARD.encode(&bookmark.0)),
            deletes: self.deletes.clone(),
            deletes_done: self.deletes_done.clone(),
            confirm: CONFIRMS.iter().position(|c| *c == self.confirm).and_then(|n| u8::try_from(n).ok()).unwrap_or(3),
            proven: self.proven,
            read: self.read,
            provider_start: self.provider_start,
            greatest_modified: self.greatest_modified,
            forget_notes: self.forget_notes,
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads a stored journey; `None` if it is of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<RunState> {
        let stored = serde_json::from_slice::<StoredRun>(bytes).ok().filter(|stored| stored.format == FORMAT)?;
        let bookmark = stored.bookmark.map(|text| STANDARD.decode(text)).transpose().ok()?;
        Some(RunState {
            number: stored.number,
            record: stored.record,
            began: stored.began,
            set_aside: stored.set_aside,
            part: stored.window.map_or(Part::Full, |(since, until)| Part::Incremental { since, until }),
            stage: stored.stage,
            bookmark: bookmark.map(|bytes| Bookmark(bytes.into())),
            deletes: stored.deletes,
            deletes_done: stored.deletes_done,
            confirm: CONFIRMS.get(usize::from(stored.confirm)).copied().unwrap_or(Confirm::Never),
            proven: stored.proven,
            read: stored.read,
            provider_start: stored.provider_start,
            greatest_modified: stored.greatest_modified,
            forget_notes: stored.forget_notes,
        })
    }
}

/// Key of a run's record.
pub(super) fn run_key<'a>(dataset: &'a DatasetName, id: &'a str) -> [&'a str; 4] {
    [&dataset.environment, &dataset.source, &dataset.model, id]
}
