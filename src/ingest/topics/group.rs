//! A stretch of messages of one partition as one batch: one commit, one engine time, one cause. Each message is in it whole.

use super::repeats::{self, Numbered};
use super::spec::InputSpec;
use super::target::RecordTarget;
use crate::connectors::kafka::input::{Bad, Message};
use crate::engine::Engine;
use crate::engine::model::{Cause, DatasetId, Timestamp};
use crate::engine::pipeline::{Batch, Dataset, Error, Mark, PageBuilder, QuarantineEntry, WindowOp};
use crate::engine::source::Quarantined;
use crate::ingest::dedup::ReservedIds;
use std::collections::{BTreeMap, BTreeSet};

/// A group with so many bytes takes no more messages.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// A batch in the making.
pub(super) struct TopicBatch<'c> {
    pub partition: i32,
    pub first: i64,
    pub cause: Cause,
    pub bytes: usize,
    pub messages: Vec<Message<'c>>,
    pub open: Vec<WindowOp>,
    pages: Vec<(Dataset, PageBuilder)>,
    pub marks: Vec<Mark>,
    pub reserved: ReservedIds,
    numbers: BTreeMap<Numbered, i64>,
    /// Lists some pages of which are in it.
    pub listings: BTreeSet<DatasetId>,
    /// Lists that end with it.
    pub ended: Vec<DatasetId>,
    pub dead: Vec<(Message<'c>, Bad)>,
    pub tally: TopicTally,
    /// Entries of the message last taken.
    pub entries: u64,
}

/// What became of messages and records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopicTally {
    pub applied: u64,
    pub duplicate: u64,
    pub ignored: u64,
    pub dead: u64,
    pub records: u64,
    pub quarantined: u64,
}

impl<'c> TopicBatch<'c> {
    pub fn new(partition: i32, first: i64, cause: Cause, reserved: ReservedIds) -> TopicBatch<'c> {
        TopicBatch {
            partition,
            first,
            cause,
            bytes: 0,
            messages: Vec::new(),
            open: Vec::new(),
            pages: Vec::new(),
            marks: Vec::new(),
            reserved,
            numbers: BTreeMap::new(),
            listings: BTreeSet::new(),
            ended: Vec::new(),
            dead: Vec::new(),
            tally: TopicTally::default(),
            entries: 1,
        }
    }

    /// Nothing has had an effect in it.
    pub fn is_blank(&self) -> bool {
        self.pages.is_empty() && self.open.is_empty() && self.marks.is_empty()
    }

    /// The page of a dataset.
    pub fn page(&mut self, engine: &Engine, dataset: &Dataset) -> &mut PageBuilder {
        let at = self.pages.iter().position(|(known, _)| known.id == dataset.id).unwrap_or_else(|| {
            self.pages.push((dataset.clone(), engine.page(dataset)));
            self.pages.len() - 1
        });
        &mut self.pages[at].1
    }

    pub fn number(&mut self, by: Numbered, number: i64) {
        self.numbers.insert(by, number);
    }

    /// Keeps a record that could not be taken. False if too many of its dataset are kept already.
    pub fn keep(
        &mut self,
        engine: &Engine,
        target: &mut RecordTarget,
        what: &Quarantined,
        n: usize,
        offset: i64,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let key = what.id.clone().unwrap_or_else(|| format!("?{}.{}.{n}", self.partition, offset));
        let entry = QuarantineEntry::new(what, self.cause.to_string(), at);
        let (mark, kept) = target.quarantine.keep(engine, &key, &entry)?;
        // What finds no room is not dropped: the message goes to the dead letters.
        self.marks.extend(kept.then_some(mark));
        self.tally.quarantined += u64::from(kept);
        Ok(kept)
    }

    /// A record of this id was taken: what was kept of it goes.
    pub fn release(&mut self, target: &mut RecordTarget, id: &str) {
        self.marks.extend(target.quarantine.release(id));
    }

    /// The batch, and the ids it used up.
    pub fn finish(mut self, spec: &InputSpec, marks: Vec<Mark>, now: Timestamp) -> (Batch, ReservedIds) {
        self.marks.extend(marks);
        let entry = format!("kafka.{}", self.cause);
        self.marks.extend(self.reserved.marks(&entry, now));
        self.marks.extend(self.numbers.iter().map(|(by, number)| repeats::mark(spec, by, *number)));
        let pages: Vec<PageBuilder> = self.pages.into_iter().map(|(_, page)| page).collect();
        let caused = !pages.is_empty() || !self.open.is_empty();
        let batch = Batch {
            cause: caused.then_some(self.cause),
            open: self.open,
            pages,
            marks: self.marks,
            ..Batch::default()
        };
        (batch, self.reserved)
    }
}
