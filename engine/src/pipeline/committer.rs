//! Makes epochs visible: one synced batch per group of complete epochs, then the watermark, the answers, the notices.
//!
//! What an ended run or a second of webhooks changed becomes owed deliveries in the very batch that makes it visible.

use super::batch::Receipt;
use super::messages::{BatchReply, CommitterMessage, EpochPlan, SequencerMessage};
use super::replicate::ReplicatedLog;
use super::{Dataset, Error};
use crate::fault::hit;
use crate::model::{Cause, Counts, DatasetId, DatasetName, Position, Timestamp, Via};
use crate::sink::{Announce, Delivery, Notice, RunEnd};
use crate::state::OF_VIEWS;
use crate::store::catalog::{LANE, LAST_AT, RUNS, Unannounced, WEBHOOKS, WINDOW};
use crate::store::outbox::delivery_id;
use crate::store::write::Sealed;
use crate::store::{self, Store};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Epochs one synced write may cover.
const GROUP: usize = 16;

/// Live records by dataset, as the counting view last said.
pub(super) type Live = Arc<Mutex<HashMap<DatasetId, i64>>>;
/// Position of the last change by dataset: at least what is visible.
pub(super) type Last = Arc<Mutex<HashMap<DatasetId, u64>>>;
/// Names by dataset.
pub(super) type Names = Arc<RwLock<HashMap<DatasetId, Arc<DatasetName>>>>;

pub(super) struct Committer {
    pub store: Arc<Store>,
    /// Where batches of runs wait for their turn in the log.
    pub replicated: Option<Arc<ReplicatedLog>>,
    pub workers: usize,
    pub sequencer: Sender<SequencerMessage>,
    pub watermark: watch::Sender<Position>,
    pub outbox: watch::Sender<u64>,
    pub live: Live,
    pub last: Last,
    pub names: Names,
    pub announce: Option<Arc<dyn Announce>>,
    pub secret: [u8; 32],
    /// Not yet announced: by dataset and, for runs, run number.
    pub runs: HashMap<(DatasetId, u64), Unannounced>,
    /// The same of webhooks, pushes and views.
    pub others: BTreeMap<DatasetId, Unannounced>,
    pub lanes: HashMap<String, u64>,
}

#[derive(Default)]
struct GatheredEpoch {
    plan: Option<EpochPlan>,
    parts: Vec<Sealed>,
}

impl Committer {
    pub(super) fn run(mut self, inbox: &Receiver<CommitterMessage>) {
        let mut gathering: BTreeMap<u64, GatheredEpoch> = BTreeMap::new();
        let mut poison: Option<Error> = None;
        while let Ok(input) = inbox.recv() {
            take(&mut gathering, input, &mut poison);
            while let Ok(input) = inbox.try_recv() {
                take(&mut gathering, input, &mut poison);
            }
            if let Some(error) = &poison {
                let error = self.give_up(error);
                self.refuse(std::mem::take(&mut gathering), &error);
                continue;
            }
            let mut group = Vec::new();
            while group.len() < GROUP
                && let Some(first) = gathering.first_entry()
                && first.get().plan.is_some()
                && first.get().parts.len() == self.workers
            {
                group.push(first.remove());
            }
            if !group.is_empty()
                && let Err(error) = self.commit(group)
            {
                poison = Some(error);
            }
        }
    }

    /// Closes the store for good. Whoever waits for the engine learns of a worker's failure as of the disk's, and of what
    /// followed from the first failure as of that one.
    fn give_up(&self, why: &Error) -> Error {
        let why = match why {
            Error::Poisoned(why) => why.clone(),
            other => other.to_string(),
        };
        self.store.poisoned(why.clone());
        // Nothing is new; but who waits for what will never be visible looks again.
        self.watermark.send_modify(|_| {});
        let error = Error::Poisoned(self.store.poisoning().unwrap_or(why));
        if let Some(replicated) = &self.replicated {
            replicated.give_up(&error);
        }
        error
    }

    /// After a failure nobody is left waiting.
    fn refuse(&self, gathering: BTreeMap<u64, GatheredEpoch>, error: &Error) {
        let plans: Vec<EpochPlan> = gathering.into_values().filter_map(|g| g.plan).collect();
        let _ = self.sequencer.send(SequencerMessage::Done(plans.len()));
        for batch in plans.into_iter().flat_map(|plan| plan.batches) {
            batch.answer.send(Err(error.clone()));
        }
    }

    fn commit(&mut self, group: Vec<GatheredEpoch>) -> Result<(), Error> {
        let epochs = group.len();
        let mut batch = self.store.batch();
        let (mut answers, mut live, mut last) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut end, mut at, mut owed) = (0, Timestamp(0), 0);
        let mut gathered = hit("proc.frontier").map_err(store::Error::from);
        for GatheredEpoch { plan, parts } in group {
            let Some(plan) = plan else { continue };
            (end, at) = (plan.next, plan.at);
            match self.add(&mut batch, plan, parts, &mut answers, &mut live, &mut last) {
                Ok(more) => owed += more,
                Err(error) => gathered = Err(error),
            }
        }
        self.store.put_system(&mut batch, b"committed", &end.to_be_bytes());
        self.store.put_system(&mut batch, LAST_AT, &at.0.to_be_bytes());
        // Before the write: a reader whose snapshot holds it must not pass by a dataset that it changes.
        self.last.lock().extend(last);
        if let Err(error) = gathered.and_then(|()| self.store.commit(batch, end)) {
            let error = self.give_up(&Error::from(error));
            let _ = self.sequencer.send(SequencerMessage::Done(epochs));
            answers.into_iter().for_each(|(answer, _, _)| answer.send(Err(error.clone())));
            return Err(error);
        }
        self.live.lock().extend(live);
        self.watermark.send_replace(Position::first_of(end));
        let _ = self.sequencer.send(SequencerMessage::Done(epochs));
        for (answer, receipt, _room) in answers {
            answer.send(Ok(receipt));
        }
        if owed > 0 {
            self.outbox.send_modify(|n| *n += owed);
        }
        Ok(())
    }

    /// Adds one epoch to the batch. Returns how many deliveries became owed.
    fn add(
        &mut self,
        batch: &mut store::StoreBatch,
        plan: EpochPlan,
        mut parts: Vec<Sealed>,
        answers: &mut Vec<(BatchReply, Receipt, Option<OwnedSemaphorePermit>)>,
        live: &mut Vec<(DatasetId, i64)>,
        last: &mut BTreeMap<DatasetId, u64>,
    ) -> store::Result<u64> {
        let mut counts: BTreeMap<(u32, DatasetId), Counts> = BTreeMap::new();
        let (mut rejected, mut pruned) = (Vec::new(), BTreeMap::<u32, u64>::new());
        // What goes as a whole goes first: one worker's range must not take what another puts there in this very epoch.
        let (ranges, rest): (Vec<_>, Vec<_>) = parts
            .iter_mut()
            .flat_map(|part| std::mem::take(&mut part.changes))
            .partition(store::write::PendingWrite::is_range);
        ranges.into_iter().chain(rest).try_for_each(|change| self.store.add(batch, change))?;
        // Here and not by the workers: several may take something out of one block.
        let forgotten: Vec<_> = parts.iter_mut().flat_map(|part| std::mem::take(&mut part.forgotten)).collect();
        self.store.forget(batch, &forgotten)?;
        if let Some(part) = parts.first() {
            part.spilled.iter().for_each(|dataset| self.tell_spilled(*dataset));
        }
        for part in parts {
            part.counts.iter().for_each(|(at, c)| counts.entry(*at).or_default().add(c));
            part.last.iter().for_each(|(id, at)| {
                let last: &mut u64 = last.entry(*id).or_default();
                *last = (*last).max(*at);
            });
            rejected.extend(part.rejected);
            live.extend(part.live);
            part.pruned.iter().for_each(|(slot, n)| *pruned.entry(*slot).or_default() += n);
        }
        for ((_, dataset), counts) in counts.range((OF_VIEWS, DatasetId(0))..).filter(|(_, c)| c.changes() > 0) {
            let to = last.get(dataset).copied().unwrap_or_default();
            let cause = Cause { via: Via::View, number: u64::from(dataset.0) };
            self.note(batch, plan.epoch, cause, *dataset, counts, to);
        }
        let mut owed = 0u32;
        for (slot, planned) in plan.batches.into_iter().enumerate() {
            let slot = slot as u32;
            for mark in &planned.marks {
                self.store.set_mark(batch, mark.keyspace.number(), &mark.key, mark.value.as_deref());
            }
            for (dataset, window) in &planned.windows {
                self.store.put_named(batch, WINDOW, u64::from(dataset.0), window);
            }
            let mine: Vec<(DatasetId, Counts)> = counts
                .range((slot, DatasetId(0))..=(slot, DatasetId(u32::MAX)))
                .map(|((_, id), c)| (*id, *c))
                .collect();
            // What a run could not take is not told of, but whoever goes on with it must know.
            let by_run = planned.cause.via == Via::Poll;
            let noted = |c: &Counts| c.changes() > 0 || (by_run && c.rejected > 0);
            for (dataset, counts) in mine.iter().filter(|(_, c)| noted(c)) {
                let to = last.get(dataset).copied().unwrap_or_default();
                self.note(batch, plan.epoch, planned.cause, *dataset, counts, to);
            }
            let mut notices = Vec::new();
            let ends = !planned.end_run.is_empty();
            for (dataset, end) in planned.end_run {
                notices.push(self.ended(batch, dataset, planned.cause, end, plan.at, plan.epoch));
            }
            if ends {
                // What a run changes in views is told with its end.
                notices.extend(self.other_notices(batch, plan.at, |via| via == Via::View));
            }
            if planned.announce {
                notices.extend(self.other_notices(batch, plan.at, |_| true));
            }
            for notice in notices {
                owed = self.owe(batch, plan.epoch, owed, &notice);
            }
            let receipt = Receipt {
                epoch: plan.epoch,
                at: plan.at,
                counts: mine,
                pruned: pruned.get(&slot).copied().unwrap_or(0),
                rejected: rejected
                    .iter()
                    .filter(|(s, _, _)| *s == slot)
                    .map(|(_, id, why)| (*id, why.clone()))
                    .collect(),
                end: Position::first_of(plan.next),
            };
            answers.push((planned.answer, receipt, planned._room));
        }
        Ok(u64::from(owed))
    }

    fn tell_spilled(&self, dataset: DatasetId) {
        let names = self.names.read();
        if let Some(name) = names.get(&dataset) {
            tracing::info!(
                source = &*name.source,
                connection = &*name.connection,
                model = &*name.model,
                "too many records for memory: what is known of these is read from the data folder from now on"
            );
        }
    }

    /// Remembers what a cause has changed until it is announced.
    fn note(
        &mut self,
        batch: &mut store::StoreBatch,
        epoch: u64,
        cause: Cause,
        dataset: DatasetId,
        counts: &Counts,
        to: u64,
    ) {
        let nothing = Position::first_of(epoch).0 - 1;
        let fresh = Unannounced { from: nothing, to: nothing, ..Unannounced::default() };
        let noted = match cause.via {
            Via::Poll => self.runs.entry((dataset, cause.number)).or_insert(fresh),
            Via::Webhook | Via::Push | Via::View => self.others.entry(dataset).or_insert(fresh),
        };
        noted.counts.add(counts);
        (noted.to, noted.cause, noted.via) = (noted.to.max(to), cause.number, Some(cause.via));
        match cause.via {
            Via::Poll => self.store.put_named(batch, &run_prefix(dataset), cause.number, noted),
            _ => self.store.put_named(batch, WEBHOOKS, u64::from(dataset.0), noted),
        }
    }

    fn ended(
        &mut self,
        batch: &mut store::StoreBatch,
        dataset: Dataset,
        cause: Cause,
        end: RunEnd,
        at: Timestamp,
        epoch: u64,
    ) -> Notice {
        let nothing = Position::first_of(epoch).0 - 1;
        let noted = match self.runs.remove(&(dataset.id, cause.number)) {
            Some(noted) => {
                self.store.delete_named(batch, &run_prefix(dataset.id), cause.number);
                noted
            }
            None => Unannounced { from: nothing, to: nothing, ..Unannounced::default() },
        };
        Notice {
            dataset: (*dataset.name).clone(),
            cause,
            ended: Some(end),
            counts: noted.counts,
            from: Position(noted.from),
            to: Position(noted.to),
            at,
        }
    }

    /// Notices of what no run has changed itself.
    fn other_notices(&mut self, batch: &mut store::StoreBatch, at: Timestamp, wanted: fn(Via) -> bool) -> Vec<Notice> {
        let names = self.names.read();
        let mut notices = Vec::new();
        let all = std::mem::take(&mut self.others).into_iter();
        let (told, kept): (Vec<_>, Vec<_>) = all.partition(|(_, noted)| wanted(noted.via.unwrap_or(Via::Webhook)));
        self.others.extend(kept);
        for (dataset, noted) in told {
            self.store.delete_named(batch, WEBHOOKS, u64::from(dataset.0));
            if let Some(name) = names.get(&dataset) {
                notices.push(Notice {
                    dataset: (**name).clone(),
                    cause: Cause { via: noted.via.unwrap_or(Via::Webhook), number: noted.cause },
                    ended: None,
                    counts: noted.counts,
                    from: Position(noted.from),
                    to: Position(noted.to),
                    at,
                });
            }
        }
        notices
    }

    /// Puts what is owed for a notice into the outbox; `number` counts within the epoch.
    fn owe(&mut self, batch: &mut store::StoreBatch, epoch: u64, mut number: u32, notice: &Notice) -> u32 {
        let Some(announce) = self.announce.clone() else { return number };
        let (lanes, store) = (&mut self.lanes, &self.store);
        let mut used = Vec::new();
        let owed = announce.announce(notice, &mut |lane: &str| {
            let next = lanes.entry(lane.to_owned()).or_insert_with(|| stored_lane(store, lane));
            *next += 1;
            used.push((lane.to_owned(), *next));
            *next
        });
        for (lane, sequence) in used {
            self.store.put_system(batch, &lane_key(&lane), &sequence.to_be_bytes());
        }
        for owed in owed {
            let delivery = Delivery {
                id: delivery_id(&self.secret, &owed.endpoint, epoch, number),
                endpoint: owed.endpoint,
                lane: owed.lane,
                created_at: notice.at,
                body: String::from_utf8_lossy(&owed.body).into_owned(),
                tries: 0,
                next_at: notice.at,
                last_error: None,
            };
            self.store.owe(batch, epoch, number, &delivery);
            number += 1;
        }
        number
    }
}

/// The name of a dataset's unannounced runs.
pub(super) fn run_prefix(dataset: DatasetId) -> String {
    format!("{RUNS}/{}", dataset.0)
}

fn lane_key(lane: &str) -> Vec<u8> {
    format!("{LANE}/{lane}").into_bytes()
}

fn stored_lane(store: &Store, lane: &str) -> u64 {
    let bytes = store.system(&lane_key(lane)).ok().flatten();
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn take(gathering: &mut BTreeMap<u64, GatheredEpoch>, input: CommitterMessage, poison: &mut Option<Error>) {
    match input {
        CommitterMessage::Plan(plan) => {
            let epoch = plan.epoch;
            gathering.entry(epoch).or_default().plan = Some(plan);
        }
        CommitterMessage::Part(epoch, Ok(sealed)) => gathering.entry(epoch).or_default().parts.push(sealed),
        CommitterMessage::Part(_, Err(error)) => *poison = Some(error.into()),
    }
}
