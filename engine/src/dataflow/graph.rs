//! One worker's dataflow, and how an epoch is pushed through it.

use super::updates::{LiveUpdate, RecordUpdate};
use super::upsert::{Shared, upsert};
use super::view::{PublishContext, Published, count_row, live_counts, publish};
use super::views::{self, Definition, Registry};
use crate::model::content::{Key, KeySeed};
use crate::model::{DatasetId, Timestamp};
use crate::state::{EpochWork, SeenRecord, Stage, Tables, WorkerChanges};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Concat, Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
pub use timely::worker::Worker;

/// Longest a worker sleeps while others still work on the epoch; progress wakes it earlier.
const PARK: Duration = Duration::from_millis(1);
/// Records that come anew are given to the dataflow so many at a time.
const ANEW: usize = 1 << 12;

/// What users derive.
#[derive(Clone)]
pub struct Derived {
    /// How it is built.
    pub definition: Definition,
    /// What it reads and writes.
    pub registry: Arc<Registry>,
    /// The epoch in which all rows come anew.
    pub first: u64,
}

/// A worker's dataflow between epochs.
pub struct Graph {
    input: InputHandle<u64, CapacityContainerBuilder<Vec<EpochWork>>>,
    seeds: Option<InputHandle<u64, CapacityContainerBuilder<Vec<LiveUpdate>>>>,
    /// Records there were before the start, for the views; until the first epoch.
    anew: Option<InputHandle<u64, CapacityContainerBuilder<Vec<RecordUpdate>>>>,
    /// How many of them were given.
    given: usize,
    derived: Option<Derived>,
    watched: Shared<BTreeSet<DatasetId>>,
    /// The registry's version that `watched` is of.
    version: u64,
    probe: ProbeHandle<u64>,
    /// The tables: asked between epochs.
    pub tables: Shared<Tables>,
    stage: Shared<Stage>,
    clock: Shared<Timestamp>,
}

/// Builds the dataflow on this worker. `counts` is the dataset of the counting view.
pub fn build(
    worker: &mut Worker,
    tables: Tables,
    stage: Stage,
    seed: KeySeed,
    counts: DatasetId,
    derived: Option<Derived>,
) -> Graph {
    let tables = Rc::new(RefCell::new(tables));
    let stage = Rc::new(RefCell::new(stage));
    let clock = Rc::new(RefCell::new(Timestamp(0)));
    let watched = Rc::new(RefCell::new(BTreeSet::new()));
    let (mut input, mut seeds, mut anew) = (InputHandle::new(), InputHandle::new(), InputHandle::new());
    let probe = ProbeHandle::new();
    worker.dataflow::<u64, _, _>(|scope| {
        let work = scope.input_from(&mut input);
        let seeded = scope.input_from(&mut seeds);
        let before = scope.input_from(&mut anew);
        let (mut live, records) = upsert(work, tables.clone(), stage.clone(), watched.clone());
        let desk = PublishContext { tables: tables.clone(), stage: stage.clone(), seed, clock: clock.clone() };
        if let Some(Derived { definition, registry, first }) = &derived {
            let lines = definition.lines(records.concat(before), registry.clone());
            live = live.concat(views::publish(lines, registry.clone(), *first, desk.clone()).probe_with(&probe));
        } else {
            records.probe_with(&probe);
        }
        let rows = live_counts(live.concat(seeded)).map(count_row);
        publish(Published { dataset: counts, rows }, desk).probe_with(&probe);
    });
    let anew = derived.as_ref().map(|derived| {
        anew.advance_to(derived.first);
        anew
    });
    Graph { input, seeds: Some(seeds), anew, given: 0, derived, watched, version: 0, probe, tables, stage, clock }
}

impl Graph {
    /// Pushes one epoch through. Times after it begin at `next`. Returns what it changed on this worker.
    ///
    /// Every worker must be given the same epochs; this returns once all of them are through. `None` if one of them never will
    /// be: it has `fallen`.
    pub fn epoch(
        &mut self,
        worker: &mut Worker,
        (epoch, next): (u64, u64),
        at: Timestamp,
        work: Vec<EpochWork>,
        fallen: &AtomicBool,
    ) -> Option<WorkerChanges> {
        *self.clock.borrow_mut() = at;
        self.watch();
        self.input.advance_to(epoch);
        if let Some(mut seeds) = self.seeds.take() {
            // The counting view learns what was there before the start, once.
            seeds.advance_to(epoch);
            for (dataset, table) in self.tables.borrow().all.iter().filter(|(_, table)| table.live != 0) {
                seeds.send((*dataset, epoch, table.live as isize));
            }
        }
        // What there was before the start has been given by now.
        self.anew = None;
        work.into_iter().for_each(|work| self.input.send(work));
        self.input.advance_to(next);
        while self.probe.less_than(&next) {
            if fallen.load(Ordering::Acquire) {
                return None;
            }
            worker.step_or_park(Some(PARK));
        }
        Some(std::mem::take(&mut self.stage.borrow_mut().part))
    }

    /// Datasets that views have come to read since the last epoch.
    fn watch(&mut self) {
        let Some(derived) = &self.derived else { return };
        let version = derived.registry.version();
        if version != self.version {
            (self.version, *self.watched.borrow_mut()) = (version, derived.registry.watched());
        }
    }

    /// The datasets whose records views want to have anew, before the first epoch.
    pub fn wanted(&self) -> BTreeSet<DatasetId> {
        self.derived.iter().flat_map(|derived| derived.registry.watched()).collect()
    }

    /// Gives the views a record there was before the start: before the first epoch, each worker the records of its tables.
    pub fn anew(&mut self, worker: &mut Worker, dataset: DatasetId, key: Key, seen: SeenRecord) {
        let Some(anew) = &mut self.anew else { return };
        anew.send((((dataset, key), seen), *anew.time(), 1));
        self.given += 1;
        if self.given.is_multiple_of(ANEW) {
            worker.step();
        }
    }
}

/// Runs `body` on `workers` timely workers of this process and waits for them.
pub fn execute(workers: usize, body: impl Fn(&mut Worker) + Send + Sync + 'static) -> Result<(), String> {
    let guards = timely::execute(timely::Config::process(workers), body)?;
    // A panic of one worker is told to the committer by its alarm; here it is only waited for.
    drop(guards.join());
    Ok(())
}
