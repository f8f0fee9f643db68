//! One worker's dataflow, and how an epoch is pushed through it.

use super::upsert::{Shared, upsert};
use super::view::{LiveUpdate, Published, count_row, live_counts, publish};
use crate::model::content::KeySeed;
use crate::model::{DatasetId, Timestamp};
use crate::state::{Part, Stage, Tables, Work};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Concat, Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
pub use timely::worker::Worker;

/// Longest a worker sleeps while others still work on the epoch; progress wakes it earlier.
const PARK: Duration = Duration::from_millis(1);

/// A worker's dataflow between epochs.
pub struct Graph {
    input: InputHandle<u64, CapacityContainerBuilder<Vec<Work>>>,
    seeds: Option<InputHandle<u64, CapacityContainerBuilder<Vec<LiveUpdate>>>>,
    probe: ProbeHandle<u64>,
    /// The tables: asked between epochs.
    pub tables: Shared<Tables>,
    stage: Shared<Stage>,
    clock: Shared<Timestamp>,
}

/// Builds the dataflow on this worker. `counts` is the dataset of the counting view.
pub fn build(worker: &mut Worker, tables: Tables, stage: Stage, seed: KeySeed, counts: DatasetId) -> Graph {
    let tables = Rc::new(RefCell::new(tables));
    let stage = Rc::new(RefCell::new(stage));
    let clock = Rc::new(RefCell::new(Timestamp(0)));
    let watched = Rc::new(RefCell::new(BTreeSet::new()));
    let mut input = InputHandle::new();
    let mut seeds = InputHandle::new();
    let probe = ProbeHandle::new();
    worker.dataflow::<u64, _, _>(|scope| {
        let work = scope.input_from(&mut input);
        let seeded = scope.input_from(&mut seeds);
        let (live, records) = upsert(work, tables.clone(), stage.clone(), watched);
        records.probe_with(&probe);
        let rows = live_counts(live.concat(seeded)).map(count_row);
        let published = Published { dataset: counts, rows };
        publish(published, tables.clone(), stage.clone(), seed, clock.clone()).probe_with(&probe);
    });
    Graph { input, seeds: Some(seeds), probe, tables, stage, clock }
}

impl Graph {
    /// Pushes one epoch through. Times after it begin at `next`. Returns what it changed on this worker.
    ///
    /// Every worker must be given the same epochs; this returns once all of them are through.
    pub fn epoch(&mut self, worker: &mut Worker, epoch: u64, next: u64, at: Timestamp, work: Vec<Work>) -> Part {
        *self.clock.borrow_mut() = at;
        self.input.advance_to(epoch);
        if let Some(mut seeds) = self.seeds.take() {
            // The counting view learns what was there before the start, once.
            seeds.advance_to(epoch);
            for (dataset, table) in self.tables.borrow().0.iter().filter(|(_, table)| table.live != 0) {
                seeds.send((*dataset, epoch, table.live as isize));
            }
        }
        work.into_iter().for_each(|work| self.input.send(work));
        self.input.advance_to(next);
        while self.probe.less_than(&next) {
            worker.step_or_park(Some(PARK));
        }
        std::mem::take(&mut self.stage.borrow_mut().part)
    }
}

/// Runs `body` on `workers` timely workers of this process and waits for them.
pub fn execute(workers: usize, body: impl Fn(&mut Worker) + Send + Sync + 'static) -> Result<(), String> {
    let guards = timely::execute(timely::Config::process(workers), body)?;
    // A panic of one worker is told to the committer by its alarm; here it is only waited for.
    drop(guards.join());
    Ok(())
}
