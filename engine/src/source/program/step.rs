//! A step: what a program wrote between two requests. It crosses the channel as a whole and becomes one commit.
//!
//! Records of all models lie in one buffer, so that nothing is allocated for a record. Whoever runs programs elsewhere reads a
//! frame into a step and hands that over; others let the [`Outlet`](super::Outlet) build it.

use crate::model::{Strategy, Timestamp};
use bytes::Bytes;
use indexmap::IndexMap;
use std::time::Duration;

/// A step is closed when it holds so many bytes …
pub const STEP_BYTES: usize = 8 << 20;
/// … or so many records …
pub const STEP_RECORDS: usize = 10_000;
/// … or when its first record has waited so long.
pub const STEP_AGE: Duration = Duration::from_millis(20);
/// Steps that are closed and not committed; a larger one counts as several, so that at most this times [`STEP_BYTES`] are on
/// their way.
pub const STEPS_ON_THEIR_WAY: usize = 4;
/// Most bytes of a checkpoint: it is stored with each step it ends, and read as a whole.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 10;

/// What becomes visible as one.
#[derive(Debug, Default)]
pub struct Step {
    models: IndexMap<String, StepModel>,
    rows: Vec<StepRow>,
    /// Id and body of each row, one behind the other.
    bytes: Vec<u8>,
    /// Bytes of log lines.
    said: usize,
    /// What to say of the run, in order.
    lines: Vec<LogLine>,
    /// What it stands on.
    pub requests: Requests,
    /// The checkpoint it ends with; `Some(None)` removes the one there is.
    pub checkpoint: Option<Option<Bytes>>,
}

/// What a step says of a model besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepModel {
    /// Begins the window of deletes before the records; nothing if the program has one open.
    pub window_start: bool,
    /// Replaces the dataset's strategy for the records of this step. That the first of a run counts is the outlet's to see to; who
    /// hands over whole steps says it in each.
    pub strategy: Option<Strategy>,
    /// Records that the program's caller refused: they are neither here nor gone, and so put the window in doubt.
    pub refused: u32,
    /// Records of it.
    pub records: usize,
}

/// The requests since the step before was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// How many were sent.
    pub sent: u32,
    /// How many failed in the end, retries included, whether or not the program went on.
    pub failed: u32,
    /// When the earliest was sent: what the records of a step were true at, at the latest. Whoever sends several at a time
    /// counts those in that were still open when the step before was closed.
    pub earliest: Option<Timestamp>,
}

/// A line that a program says of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: LogLevel,
    /// What.
    pub text: String,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For who looks for a fault.
    Debug,
    /// The ordinary course.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}

impl Requests {
    /// Adds those of another count.
    pub fn add(&mut self, other: &Requests) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.earliest = self.earliest.into_iter().chain(other.earliest).min();
    }
}

#[derive(Clone, Copy, Debug)]
struct StepRow {
    model: usize,
    kind: RowBody,
    from: usize,
    id: usize,
    body: usize,
}

#[derive(Clone, Copy, Debug)]
enum RowBody {
    Whole,
    Patch,
    Gone(Option<Timestamp>),
}

/// A record of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRecord<'a> {
    /// Its model, by its place among [`Step::models`].
    pub model: usize,
    /// Its id.
    pub id: &'a str,
    /// What was seen of it.
    pub body: StepBody<'a>,
}

/// What was seen of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepBody<'a> {
    /// All of it: JSON text of an object whose `id` is the record's.
    Whole(&'a [u8]),
    /// Some fields, to be merged deeply: JSON text of an object.
    Patch(&'a [u8]),
    /// It is gone, since then if that is known.
    Gone(Option<Timestamp>),
}

impl Step {
    /// Adds a record.
    pub fn push(&mut self, model: &str, id: &str, body: StepBody<'_>) {
        let (kind, bytes) = match body {
            StepBody::Whole(bytes) => (RowBody::Whole, bytes),
            StepBody::Patch(bytes) => (RowBody::Patch, bytes),
            StepBody::Gone(at) => (RowBody::Gone(at), &[][..]),
        };
        let place = self.place(model);
        self.rows.push(StepRow { model: place, kind, from: self.bytes.len(), id: id.len(), body: bytes.len() });
        self.bytes.extend_from_slice(id.as_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds a line.
    pub fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        let text = text.into();
        self.said += text.len() + size_of::<LogLine>();
        self.lines.push(LogLine { level, text });
    }

    /// What it says of a model, to be filled in.
    pub fn model(&mut self, name: &str) -> &mut StepModel {
        self.models.entry(name.to_owned()).or_default()
    }

    /// The models it speaks of, in the order they came up.
    pub fn models(&self) -> impl Iterator<Item = (&str, &StepModel)> {
        self.models.iter().map(|(name, model)| (name.as_str(), model))
    }

    /// What it says of one model, if anything.
    pub fn of(&self, name: &str) -> Option<&StepModel> {
        self.models.get(name)
    }

    /// Its records, in the order they came.
    pub fn records(&self) -> impl Iterator<Item = StepRecord<'_>> {
        self.rows.iter().filter_map(|row| self.record(row))
    }

    /// What is said of the run.
    pub fn lines(&self) -> &[LogLine] {
        &self.lines
    }

    /// The lines, which are told once the step is committed.
    pub fn take_lines(&mut self) -> Vec<LogLine> {
        self.said = 0;
        std::mem::take(&mut self.lines)
    }

    /// Records in all.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing in it that would have to be stored. That a request was sent need not be.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty() && self.lines.is_empty() && self.checkpoint.is_none() && self.requests.failed == 0
    }

    /// Bytes of records and lines.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.said
    }

    /// Whether it has to be closed.
    pub fn is_full(&self) -> bool {
        self.bytes() >= STEP_BYTES || self.len() >= STEP_RECORDS
    }

    fn record(&self, row: &StepRow) -> Option<StepRecord<'_>> {
        let (id, body) = self.bytes.get(row.from..row.from + row.id + row.body)?.split_at_checked(row.id)?;
        let body = match row.kind {
            RowBody::Whole => StepBody::Whole(body),
            RowBody::Patch => StepBody::Patch(body),
            RowBody::Gone(at) => StepBody::Gone(at),
        };
        Some(StepRecord { model: row.model, id: std::str::from_utf8(id).ok()?, body })
    }

    /// The place of a model; that of the last record first, since records of one model mostly come together.
    fn place(&mut self, name: &str) -> usize {
        let last = self.rows.last().map(|row| row.model);
        let is = |place: &usize| self.models.get_index(*place).is_some_and(|(known, _)| known == name);
        let known = last.filter(is).or_else(|| self.models.get_index_of(name));
        let place = known.unwrap_or_else(|| self.models.insert_full(name.to_owned(), StepModel::default()).0);
        if let Some((_, model)) = self.models.get_index_mut(place) {
            model.records += 1;
        }
        place
    }
}
