//! What is stored of a program's sync: its checkpoint, its windows, and the run that is on its way or was the last.
//!
//! Stored under `Keyspace::BOOKMARK` with every step, in the step's commit, and kept when the run ends.

use super::ProgramOrder;
use crate::model::{Counts, DatasetName, Timestamp};
use crate::pipeline::run::drive::{SAMPLES_MAX, add_doubt, run_mark};
use crate::pipeline::run::progress::{Progress, scope};
use crate::pipeline::run::record::{Outcome, RunRecord};
use crate::pipeline::{Engine, Error, Keyspace, Mark};
use crate::source::program::{LogLevel, LogLine, RunKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the stored form.
const FORMAT: u32 = 1;

/// Where a program's sync stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProgramState {
    /// Named unlike that of a listing's journey, which lies in the same keyspace.
    program_format: u32,
    pub(super) number: u64,
    pub(super) record: RunRecord,
    checkpoint: Option<String>,
    /// Windows that the program has begun and not ended.
    pub(super) windows: BTreeMap<String, Doubt>,
    /// Windows that were ended since the checkpoint: an execution from there brings the rest of a listing only.
    pub(super) swept: BTreeSet<String>,
    /// The run began without a checkpoint, with windows on all its models.
    pub(super) tracks: bool,
}

/// What speaks against a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Doubt {
    /// Nothing.
    #[default]
    Nothing,
    /// A request failed, or a save was refused by the program's caller.
    Caught,
    /// The engine rejected a record: it is neither here nor gone.
    Rejected,
    /// It is the repetition of one that was ended: nobody listed all of it.
    Ended,
}

impl ProgramState {
    /// What is stored; `None` if there is nothing, or it is of another version.
    pub(super) fn load(engine: &Engine, sync: &DatasetName) -> Result<Option<ProgramState>, Error> {
        let stored = engine.mark(Keyspace::BOOKMARK, &scope(sync))?;
        let state = stored.and_then(|bytes| serde_json::from_slice::<ProgramState>(&bytes).ok());
        Ok(state.filter(|state| state.program_format == FORMAT))
    }

    /// The state of a new run, behind what an earlier one left.
    pub(super) fn next(
        earlier: Option<ProgramState>,
        number: u64,
        order: &ProgramOrder,
        progress: &Progress,
        now: Timestamp,
    ) -> ProgramState {
        let goes_on = earlier.as_ref().is_some_and(|state| state.checkpoint.is_some());
        let kind = match progress.last_completed_at {
            None => RunKind::Initial,
            Some(_) if goes_on => RunKind::Incremental,
            Some(_) => RunKind::Full,
        };
        let (name, definition) = (&order.sync, order.definition.clone());
        let mut record = RunRecord::begun(number, name, &name.model, kind.as_str(), definition, now);
        record.bookmark = goes_on;
        match earlier {
            Some(earlier) => ProgramState { number, record, tracks: false, ..earlier },
            None => ProgramState {
                program_format: FORMAT,
                number,
                record,
                checkpoint: None,
                windows: BTreeMap::new(),
                swept: BTreeSet::new(),
                tracks: false,
            },
        }
    }

    pub(super) fn checkpoint(&self) -> Option<Bytes> {
        STANDARD.decode(self.checkpoint.as_ref()?).ok().map(Bytes::from)
    }

    pub(super) fn set_checkpoint(&mut self, checkpoint: Option<&Bytes>) {
        self.checkpoint = checkpoint.map(|bytes| STANDARD.encode(bytes));
        self.record.bookmark = self.checkpoint.is_some();
        self.swept.clear();
    }

    pub(super) fn kind(&self) -> RunKind {
        self.record.kind.parse().unwrap_or(RunKind::Full)
    }

    /// Remembers what speaks against the window of a model, if one is open; the gravest counts.
    pub(super) fn doubt(&mut self, model: &str, doubt: Doubt) {
        self.windows.get_mut(model).into_iter().for_each(|known| *known = doubt.max(*known));
    }

    /// Remembers what speaks against all windows.
    pub(super) fn doubt_all(&mut self, doubt: Doubt) {
        self.windows.values_mut().for_each(|known| *known = doubt.max(*known));
    }

    /// Adds what a commit did to the records of a model.
    pub(super) fn count(&mut self, model: &str, counts: &Counts) {
        self.record.models.entry(model.to_owned()).or_default().add(counts);
        self.record.counts.add(counts);
        if counts.rejected > 0 {
            self.doubt(model, Doubt::Rejected);
        }
    }

    /// What a step did is known only after its commit: a run that was interrupted learns here what its last steps did.
    pub(super) fn catch_up(&mut self, model: &str, noted: Counts) {
        let known = self.record.models.get(model).copied().unwrap_or_default();
        let missed = |noted: u64, known: u64| noted.saturating_sub(known);
        let unknown = Counts {
            added: missed(noted.added, known.added),
            updated: missed(noted.updated, known.updated),
            deleted: missed(noted.deleted, known.deleted),
            rejected: missed(noted.rejected, known.rejected),
            ..Counts::default()
        };
        if unknown.rejected > 0 {
            let text = format!("rejected: {} records of {model} before an interruption", unknown.rejected);
            add_doubt(&mut self.record, &text);
        }
        if unknown != Counts::default() {
            self.count(model, &unknown);
        }
    }

    /// Whether the run is on its way.
    pub(super) fn is_running(&self) -> bool {
        self.record.status == Outcome::Running
    }

    /// Remembers a line that somebody should look at.
    pub(super) fn remember(&mut self, line: &LogLine) {
        if line.level >= LogLevel::Warn {
            self.record.warnings += 1;
            if self.record.samples.len() < SAMPLES_MAX {
                self.record.samples.push(line.text.clone());
            }
        }
    }

    /// Where the run stands, and its record.
    pub(super) fn marks(&self, sync: &DatasetName) -> Vec<Mark> {
        let state = Mark::put(Keyspace::BOOKMARK, &scope(sync), serde_json::to_vec(self).unwrap_or_default());
        vec![state, run_mark(sync, &self.record)]
    }
}
