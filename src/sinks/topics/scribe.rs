//! One round of the follower: changes up to a position → transactions. Blocks.
//!
//! Bounds: a page of changes is read at a time and sent before the next; a transaction ends at the first border of an engine
//! time behind [`TRANSACTION_MESSAGES`] or [`TRANSACTION_BYTES`], and with the round.

use super::emptied::Emptied;
use super::outlets::{DatasetTopics, Snapshot};
use super::{ExportOrder, FailureAction};
use crate::connectors::kafka::output::envelope::{self, ChangePosition, OutgoingMessage};
use crate::connectors::kafka::output::large;
use crate::connectors::kafka::output::outlet::OutputTopic;
use crate::connectors::kafka::output::places::{self, Patience, ProducerPlace};
use crate::connectors::kafka::output::writer::{TopicWriter, WriterTrouble};
use crate::engine::model::{Cause, Change, Cursor, CursorKey, DatasetId, Position, Via};
use crate::engine::pipeline::{self, Dataset, Keyspace};
use crate::engine::source::Failure;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Most changes read before they are sent.
const PAGE_CHANGES: usize = 4_000;
/// Most bytes read before they are sent; one change at least.
const PAGE_BYTES: usize = 8 << 20;
/// A transaction with as many messages ends at the next border of an engine time.
const TRANSACTION_MESSAGES: usize = 20_000;
/// A transaction with as many bytes ends at the next border of an engine time.
const TRANSACTION_BYTES: usize = 32 << 20;
/// Most runs remembered as first listings or not.
const RUNS_KNOWN: usize = 10_000;

/// A page of changes, and whether there is nothing behind it.
type ExportPage = (Vec<(Dataset, Change)>, bool);

/// Writes changes.
pub(super) struct TransactionalWriter {
    order: ExportOrder,
    me: Me,
    writer: TopicWriter,
    batch: usize,
    /// Everything before it is in the topics.
    place: Position,
    cursors: CursorKey,
    first_listings: HashMap<(DatasetId, Cause), bool>,
    emptied: Emptied,
}

/// By what a follower knows itself.
#[derive(Clone)]
pub(super) struct Me {
    /// The log it follows.
    pub log: String,
    /// One for each running follower.
    pub token: String,
    /// Who wrote under its name last, as far as it knows: itself, once it has begun.
    pub last: Option<String>,
}

/// Numbers of changes within their engine time.
#[derive(Default)]
struct ChangeNumbers {
    epoch: u64,
    all: u64,
    by_dataset: HashMap<DatasetId, u64>,
}

impl ChangeNumbers {
    /// The numbers of the next change.
    fn next(&mut self, dataset: DatasetId, epoch: u64) -> (u64, u64) {
        if self.epoch != epoch {
            *self = ChangeNumbers { epoch, ..ChangeNumbers::default() };
        }
        self.all += 1;
        let of_dataset = self.by_dataset.entry(dataset).or_default();
        *of_dataset += 1;
        (self.all, *of_dataset)
    }
}

impl TransactionalWriter {
    /// Takes over the producer's name, unless the topics are not this log's: then nobody is disturbed. Says first of all
    /// that it has, so that an older one knows.
    pub fn open(order: &ExportOrder, me: &mut Me, batch: usize, halt: Arc<AtomicBool>) -> Result<Self, FailureAction> {
        let (before, _) =
            places::read(&order.cluster, &order.name, Patience::Now, &halt).map_err(FailureAction::from)?;
        check(before.as_ref(), me, order)?;
        let (writer, place) = TopicWriter::open(&order.cluster, &order.name, batch, halt)?;
        check(place.as_ref(), me, order)?;
        me.last = place.as_ref().map(|place| place.writer.clone());
        let place = place.map_or(Position::START, |place| place.position);
        tracing::debug!(name = order.name, place = place.0, "topics are written from here");
        let mut scribe = TransactionalWriter {
            order: order.clone(),
            me: me.clone(),
            writer,
            batch,
            place,
            cursors: order.engine.cursor_key(),
            first_listings: HashMap::new(),
            emptied: Emptied::new(place),
        };
        scribe.commit(place)?;
        me.last = Some(me.token.clone());
        Ok(scribe)
    }

    /// The size of batches it was opened for.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How long the next round had better wait.
    pub fn rest(&self) -> Duration {
        self.writer.rest()
    }

    /// Writes everything before `end`; the new place.
    pub fn write_up_to(&mut self, end: Position, known: &Snapshot) -> Result<Position, FailureAction> {
        if end <= self.place {
            return Ok(self.place);
        }
        self.emptied.look(&self.order.engine, &known.datasets, end).map_err(store)?;
        let mut numbers = ChangeNumbers::default();
        let mut after = Cursor { position: Position(self.place.0.saturating_sub(1)), dataset: DatasetId(u32::MAX) };
        loop {
            let (page, complete) = self.page(&known.datasets, after, end).map_err(store)?;
            for (dataset, change) in &page {
                let epoch = change.meta.position.epoch();
                if epoch != numbers.epoch && self.is_large() {
                    self.commit(Position::first_of(epoch))?;
                }
                let numbers = numbers.next(dataset.id, epoch);
                after = Cursor { position: change.meta.position, dataset: dataset.id };
                self.writer.look_at_halt()?;
                if let Some(way) = known.ways.get(&dataset.id) {
                    self.write(way, dataset.id, change, numbers)?;
                }
            }
            if complete {
                break;
            }
        }
        if self.writer.pending().0 > 0 {
            self.commit(end)?;
        }
        self.place = end;
        Ok(end)
    }

    fn is_large(&self) -> bool {
        let (messages, bytes) = self.writer.pending();
        messages >= TRANSACTION_MESSAGES || bytes >= TRANSACTION_BYTES
    }

    fn commit(&mut self, place: Position) -> Result<(), WriterTrouble> {
        let (messages, _) = self.writer.pending();
        self.writer.commit(&ProducerPlace::new(place, &self.me.log, &self.me.token)).inspect_err(|trouble| {
            if matches!(trouble, WriterTrouble::Again(_)) {
                metrics::counter!("syncline_kafka_output_aborts_total").increment(1);
            }
        })?;
        self.place = place;
        metrics::counter!("syncline_kafka_output_transactions_total").increment(1);
        metrics::counter!("syncline_kafka_output_messages_total").increment(messages as u64);
        Ok(())
    }

    /// Changes after a place and before `end`, some of them.
    fn page(&self, datasets: &[Dataset], after: Cursor, end: Position) -> Result<ExportPage, pipeline::Error> {
        let (mut page, mut bytes, mut complete) = (Vec::new(), 0, true);
        self.order.engine.changes(datasets, after, &mut |dataset, change| {
            if change.meta.position >= end {
                return false;
            }
            let size = |payload: &Option<bytes::Bytes>| payload.as_ref().map_or(0, |p| p.len());
            bytes += size(&change.before) + size(&change.after);
            page.push((dataset.clone(), change));
            complete = page.len() < PAGE_CHANGES && bytes < PAGE_BYTES;
            complete
        })?;
        Ok((page, complete))
    }

    fn write(
        &mut self,
        way: &DatasetTopics,
        dataset: DatasetId,
        change: &Change,
        numbers: (u64, u64),
    ) -> Result<(), FailureAction> {
        let first_listing = self.first_listing(way, dataset, change.meta.cause).map_err(store)?;
        let cursor = self.cursors.encode(&way.scope, Cursor { position: change.meta.position, dataset });
        let spot = ChangePosition {
            producer: &self.order.name,
            cursor: &cursor,
            order: numbers.0,
            order_in_dataset: numbers.1,
            first_listing,
        };
        let (mut sent, shape, writer) = (Ok(()), &self.order.shape, &mut self.writer);
        envelope::messages(shape, &way.outlet, change, &spot, &mut |message, target| {
            if sent.is_ok() {
                sent = if large::fits(&message, target) {
                    writer.send(&message)
                } else {
                    let before =
                        Cursor { position: change.meta.position, dataset: DatasetId(dataset.0.saturating_sub(1)) };
                    let before = self.cursors.encode(&way.scope, before);
                    writer.send(&instead(message, target, way, &before, shape.claim_check))
                };
            }
        });
        sent.map_err(FailureAction::from)
    }

    /// Whether the run behind a change was the first listing of its sync.
    fn first_listing(
        &mut self,
        way: &DatasetTopics,
        dataset: DatasetId,
        cause: Cause,
    ) -> Result<bool, pipeline::Error> {
        if cause.via != Via::Poll {
            return Ok(false);
        }
        if let Some(known) = self.first_listings.get(&(dataset, cause)) {
            return Ok(*known);
        }
        let name = &way.outlet.name;
        let key = [&*name.environment, &*name.source, &*name.model, &cause.to_string()];
        let run = self.order.engine.mark(Keyspace::RUN, &key)?;
        let run = run.and_then(|text| serde_json::from_slice::<Map<String, Value>>(&text).ok());
        let first = run.is_some_and(|run| run.get("kind").and_then(Value::as_str) == Some("INITIAL"));
        if self.first_listings.len() >= RUNS_KNOWN {
            self.first_listings.clear();
        }
        self.first_listings.insert((dataset, cause), first);
        Ok(first)
    }
}

/// What goes out for a message that is too large. The reference reads exactly this change.
fn instead(
    message: OutgoingMessage,
    target: &OutputTopic,
    way: &DatasetTopics,
    before: &str,
    claim_check: bool,
) -> OutgoingMessage {
    metrics::counter!("syncline_kafka_output_too_large_total").increment(1);
    tracing::warn!(topic = &*target.name, bytes = message.bytes(), claim_check, "a message is too large for its topic");
    let reference = format!("/v1/changes?cursor={before}&limit=1");
    large::instead(message, target, &way.outlet.dead, &reference, claim_check)
}

/// Whether nobody else has written under this name since this follower looked or wrote last. Blocks.
pub(super) fn nobody_else(order: &ExportOrder, me: &Me, halt: &AtomicBool) -> Result<bool, Failure> {
    let (place, _) = places::read(&order.cluster, &order.name, Patience::Settled, halt)?;
    Ok(!place.is_some_and(|place| is_another(&place, me)))
}

/// Whether a place was written by somebody this follower has not met.
fn is_another(place: &ProducerPlace, me: &Me) -> bool {
    place.writer != me.token && me.last.as_ref().is_some_and(|last| place.writer != *last)
}

/// Topics that are not this log's, or are ahead of it, are not written to; nor those that somebody else has taken over.
fn check(place: Option<&ProducerPlace>, me: &Me, order: &ExportOrder) -> Result<(), FailureAction> {
    let Some(place) = place else { return Ok(()) };
    if is_another(place, me) {
        return Err(FailureAction::Superseded(superseded(order)));
    }
    let (prefix, name) = (&order.cluster.prefix, &order.name);
    // Looked at now: another follower of this engine may have been further than when this one began.
    let end = *order.engine.watermark().borrow();
    let (code, what) = if place.log != me.log {
        ("topic_foreign", "were written from another data folder".to_owned())
    } else if place.position > end {
        let why = match order.granted {
            true => "the shard has another owner by now, or its changelog was replaced by an older one",
            false => "it was restored from an older backup",
        };
        let what = format!("are at epoch {} while this data folder is at {}: {why}", place.epoch, end.epoch());
        ("topic_ahead", what)
    } else {
        return Ok(());
    };
    let message = format!(
        "the topics of `{prefix}` {what} (key `{name}` of {}); to go on from here their readers must begin anew: use another `kafka.prefix`, or delete the topics that begin with `{prefix}.`, those of {} included",
        places::topic(&order.cluster),
        places::topic(&order.cluster),
    );
    // Who has lost a partition is stopped soon.
    let retry = order.granted && code == "topic_ahead";
    let failure = Failure { code, message, status: None, retry, retry_after: None };
    Err(if retry { FailureAction::Reopen(failure) } else { FailureAction::Ended(failure) })
}

/// Somebody else writes under this name now.
pub(super) fn superseded(order: &ExportOrder) -> Failure {
    let name = &order.name;
    let message = if order.granted {
        format!("a former owner of shard {name} has written to its topics; it is about to stop")
    } else {
        format!(
            "another instance writes to topics as `{name}` now, so this one stops; give every installation a `kafka.prefix` of its own"
        )
    };
    Failure { code: "output_fenced", message, status: None, retry: order.granted, retry_after: None }
}

/// The store failed: nothing can be read any more.
fn store(error: pipeline::Error) -> FailureAction {
    let message = format!("changes cannot be read: {error}");
    FailureAction::Ended(Failure::lasting("store", message))
}
