//! The keyed core: a frontier-driven operator that turns work into staged changes and differential collections.
//!
//! Promise: an epoch is handled only when the frontier has passed it, in order of epoch, its work in the order it was
//! given. Two collections leave it: net live records per dataset (always), and the records of watched datasets as
//! `((dataset, key), content)` with old rows retracted.

use super::merge::{Merge, MergeOutcome, PayloadPlace};
use super::updates::{LiveUpdate, RecordUpdate};
use crate::model::content::Key;
use crate::model::{Action, Cause, Counts, DatasetId, Position, Strategy, Timestamp};
use crate::state::{
    AHEAD, DEAD, EpochWork, HIDDEN, KeptFields, ObservationRows, PATCHED, PRUNED, SeenRecord, Stage, Tables, Window,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// State that outlives the operator's activations; the worker shares it between epochs.
pub type Shared<T> = Rc<RefCell<T>>;

/// Complaints about rows that are kept per batch; more are only counted.
const REJECTED_KEPT: usize = 16;

/// Builds the operator. `watched` says which datasets' records leave it.
pub fn upsert<'s>(
    work: Stream<'s, u64, Vec<EpochWork>>,
    tables: Shared<Tables>,
    stage: Shared<Stage>,
    watched: Shared<BTreeSet<DatasetId>>,
) -> (Stream<'s, u64, Vec<LiveUpdate>>, Stream<'s, u64, Vec<RecordUpdate>>) {
    let scope = work.scope();
    let (worker, peers) = (scope.index() as u64, scope.peers() as u64);
    let mut builder = OperatorBuilder::new("Upsert".to_owned(), scope);
    let mut input = builder.new_input(work, Pipeline);
    let (live, live_stream) = builder.new_output();
    let (records, record_stream) = builder.new_output();
    let mut live = OutputBuilder::<u64, CapacityContainerBuilder<Vec<LiveUpdate>>>::from(live);
    let mut records = OutputBuilder::<u64, CapacityContainerBuilder<Vec<RecordUpdate>>>::from(records);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut waiting: BTreeMap<u64, (Capability<u64>, Capability<u64>, Vec<EpochWork>)> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|capability, data| {
                let epoch = *capability.time();
                let slot =
                    waiting.entry(epoch).or_insert_with(|| (capability.retain(0), capability.retain(1), Vec::new()));
                slot.2.append(data);
            });
            let frontier = frontiers.first().and_then(|f| f.frontier().first().copied()).unwrap_or(u64::MAX);
            let (mut live, mut records) = (live.activate(), records.activate());
            while let Some(next) = waiting.first_entry() {
                if *next.key() >= frontier {
                    break;
                }
                let (epoch, (live_capability, record_capability, work)) = next.remove_entry();
                let first = Position::first_of(epoch).0;
                stage.borrow_mut().first = first;
                let mut step = UpsertStep {
                    first,
                    worker,
                    peers,
                    tables: &mut tables.borrow_mut(),
                    stage: &mut stage.borrow_mut(),
                    watched: &watched.borrow(),
                    live: BTreeMap::new(),
                    records: Vec::new(),
                };
                work.into_iter().for_each(|work| step.act(work));
                let (net, rows) = (step.live, step.records);
                let mut session = live.session(&live_capability);
                for (dataset, net) in net.into_iter().filter(|(_, net)| *net != 0) {
                    session.give((dataset, epoch, net as isize));
                }
                drop(session);
                let mut session = records.session(&record_capability);
                for (dataset, key, seen, diff) in rows {
                    session.give((((dataset, key), seen), epoch, diff));
                }
            }
        }
    });
    (live_stream, record_stream)
}

/// One epoch on one worker.
struct UpsertStep<'a> {
    first: u64,
    worker: u64,
    peers: u64,
    tables: &'a mut Tables,
    stage: &'a mut Stage,
    watched: &'a BTreeSet<DatasetId>,
    live: BTreeMap<DatasetId, i64>,
    records: Vec<(DatasetId, Key, SeenRecord, isize)>,
}

impl UpsertStep<'_> {
    fn act(&mut self, work: EpochWork) {
        match work {
            EpochWork::Rows { rows, cause, at, base, slot } => self.rows(&rows, cause, at, base, slot),
            EpochWork::Window { dataset, window, cause, at, base, slot } => {
                self.window(dataset, window, cause, at, base, slot)
            }
            EpochWork::Treat { dataset, strategy, ignore } => {
                let spec = &mut self.tables.table(dataset).spec;
                (spec.strategy, spec.ignore) = (strategy, ignore);
            }
            EpochWork::Resume { dataset, generation, open_since } => {
                let table = self.tables.table(dataset);
                (table.generation, table.window) = (generation, open_since);
            }
            EpochWork::Prune { dataset, records, slot } => self.prune(dataset, &records, slot),
            EpochWork::Clear { dataset } => self.clear(dataset),
        }
    }

    fn rows(&mut self, rows: &Arc<ObservationRows>, cause: Cause, at: Timestamp, base: u64, slot: u32) {
        let Some(part) = rows.parts.get(self.worker as usize).filter(|part| !part.is_empty()) else { return };
        let dataset = rows.dataset;
        let watched = self.watched.contains(&dataset);
        let page = self.stage.part.page(rows);
        let table = self.tables.table(dataset);
        let before = table.live;
        let mut counts = Counts::default();
        let mut rejected = Vec::new();
        let mut merge = Merge::new(dataset, table, self.stage, cause, at).by(rows.strategy);
        for (n, row) in part.iter().enumerate() {
            if n % AHEAD == 0 {
                merge.fetch(part.get(n..).unwrap_or_default().iter().take(AHEAD).map(|row| &row.key));
            }
            let position = self.first + base + u64::from(row.place);
            // A pruned record has left the views; what they are told of it depends on that.
            let pruned = watched && merge.is_pruned(&row.key);
            match merge.apply(PayloadPlace { rows, page, position }, row) {
                MergeOutcome::Unchanged => {
                    counts.unchanged += 1;
                    if pruned && let Some(seen) = merge.restored(&row.key) {
                        self.records.push((dataset, row.key, seen, 1));
                    }
                }
                MergeOutcome::Skipped => counts.skipped += 1,
                MergeOutcome::Ignored => counts.ignored += 1,
                MergeOutcome::Rejected(why) => {
                    counts.rejected += 1;
                    if rejected.len() < REJECTED_KEPT {
                        rejected.push((slot, dataset, why));
                    }
                }
                MergeOutcome::Changed(action, old) => {
                    count(&mut counts, action);
                    if watched {
                        let old = old.filter(|_| !pruned);
                        retract_and_assert(&merge, &mut self.records, (dataset, row.key), action, old, position);
                    }
                }
            }
        }
        merge.finish();
        let net = self.tables.table(dataset).live - before;
        self.stage.part.rejected.append(&mut rejected);
        self.note(slot, dataset, counts, net);
    }

    fn window(&mut self, dataset: DatasetId, window: Window, cause: Cause, at: Timestamp, base: u64, slot: u32) {
        let table = self.tables.table(dataset);
        match window {
            Window::Open { generation, at } => (table.generation, table.window) = (generation, Some(at)),
            Window::Abort => table.window = None,
            Window::Sweep => {
                let first = self.first + base + self.worker;
                let mut merge = Merge::new(dataset, table, self.stage, cause, at);
                let deleted = merge.sweep(first, self.peers);
                if self.watched.contains(&dataset) {
                    for (position, key) in &deleted {
                        if !merge.is_pruned(key)
                            && let Some(seen) = merge.seen(*position)
                        {
                            self.records.push((dataset, *key, seen, -1));
                        }
                    }
                }
                merge.finish();
                self.tables.table(dataset).window = None;
                let n = deleted.len() as u64;
                self.note(slot, dataset, Counts { deleted: n, ..Counts::default() }, -(n as i64));
            }
        }
    }

    fn prune(&mut self, dataset: DatasetId, records: &[(Key, u64)], slot: u32) {
        let (worker, peers) = (self.worker, self.peers);
        let watched = self.watched.contains(&dataset);
        let table = self.tables.table(dataset);
        let strategy = table.spec.strategy;
        for (key, position) in records.iter().filter(|(key, _)| key[1] % peers == worker) {
            if let Some(entry) = table.get(key).filter(|e| e.position == *position && !e.is(PRUNED)) {
                // What is deleted has left the views before.
                if watched
                    && !entry.is(DEAD)
                    && let Some(seen) = self.stage.seen(dataset, *position)
                {
                    self.records.push((dataset, *key, seen, -1));
                }
                let clocks = table.fields.remove(key);
                let Some(entry) = table.get(key) else { continue };
                entry.set_flags(entry.flags() & !PATCHED | PRUNED);
                self.stage.part.pruned.push((dataset, *position, slot));
                if let Some(clocks) = clocks {
                    // What is older than a patch that was laid over the content stays older than the content.
                    let newest = match strategy {
                        Strategy::Latest => clocks.newest().max((entry.modified_at, entry.observed_at)),
                        _ => (clocks.newest().0.max(entry.modified_at), entry.observed_at),
                    };
                    (entry.modified_at, entry.observed_at) = newest;
                    let moved = (key[0], newest.0, newest.1);
                    self.stage.part.kept.push(KeptFields { dataset, key: *key, fields: None });
                    self.stage.part.touched.entry((dataset, entry.generation)).or_default().moved.push(moved);
                    table.touched += 1;
                }
            }
        }
    }

    fn clear(&mut self, dataset: DatasetId) {
        if self.watched.contains(&dataset) {
            self.tables.table(dataset).each(&mut |entry| {
                if !entry.is(DEAD | HIDDEN | PRUNED)
                    && let Some(seen) = self.stage.seen(dataset, entry.position)
                {
                    self.records.push((dataset, entry.key, seen, -1));
                }
            });
        }
        let live = self.tables.table(dataset).live;
        self.tables.clear(dataset);
        self.stage.part.forget(dataset);
        *self.live.entry(dataset).or_default() -= live;
    }

    fn note(&mut self, slot: u32, dataset: DatasetId, counts: Counts, net: i64) {
        self.stage.part.counts.entry((slot, dataset)).or_default().add(&counts);
        *self.live.entry(dataset).or_default() += net;
    }
}

pub(super) fn count(counts: &mut Counts, action: Action) {
    match action {
        Action::Added => counts.added += 1,
        Action::Updated => counts.updated += 1,
        Action::Deleted => counts.deleted += 1,
    }
}

/// The old row out, the new row in, for the views.
fn retract_and_assert(
    merge: &Merge<'_>,
    records: &mut Vec<(DatasetId, Key, SeenRecord, isize)>,
    (dataset, key): (DatasetId, Key),
    action: Action,
    old: Option<u64>,
    new: u64,
) {
    let before = if action == Action::Added { None } else { old };
    let after = if action == Action::Deleted { None } else { Some(new) };
    for (position, diff) in [(before, -1), (after, 1)] {
        if let Some(seen) = position.and_then(|p| merge.seen(p)) {
            records.push((dataset, key, seen, diff));
        }
    }
}
