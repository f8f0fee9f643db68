//! A timely worker: takes epochs from its ring, pushes them through its dataflow, writes its bulk, hands the rest on.

use super::messages::{CommitterMessage, SequencerMessage, WorkerJob, WorkerQuery};
use crate::dataflow::{Derived, Graph, Worker, build};
use crate::fault::hit;
use crate::model::content::KeySeed;
use crate::model::{DatasetId, Timestamp};
use crate::state::{EpochWork, HIDDEN, RecordEntry, SpillReader, Stage, Tables, Touch, WorkerChanges};
use crate::store::read::AskedChanges;
use crate::store::{self, Store};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Epochs and questions a ring holds at most.
pub(super) const RING: usize = 16;
/// Touches of a dataset are folded into one once they outnumber this …
const FOLD_LEAST: usize = 1 << 16;
/// … and its records so many times.
const FOLD_TIMES: usize = 4;

/// A worker looks again how much memory its tables take when it has added this part of what they may take.
const LOOK: usize = 64;

/// What one worker needs; taken once by the thread it is for.
pub(super) struct WorkerContext {
    pub store: Arc<Store>,
    pub tables: Tables,
    pub treat: Vec<EpochWork>,
    pub ring: Receiver<WorkerJob>,
    pub committer: Sender<CommitterMessage>,
    pub seed: KeySeed,
    pub counts: DatasetId,
    pub derived: Option<Derived>,
    /// Bytes that the tables of this worker may take.
    pub table_bytes: usize,
    /// Who is told when they take more, if this worker is to say so.
    pub decides: Option<Sender<SequencerMessage>>,
    /// Set when a worker dies, shared by all: what it would have sent the others does not come any more.
    pub fallen: Arc<AtomicBool>,
}

/// Runs the worker whose seat is at its index until its ring is closed.
pub(super) fn run(worker: &mut Worker, seats: &Mutex<Vec<Option<WorkerContext>>>) {
    let index = worker.index();
    let seat = seats.lock().get_mut(index).and_then(Option::take);
    let Some(seat) = seat else { return };
    let _alarm = Alarm(seat.committer.clone(), seat.fallen.clone());
    let (reader, asked) = (seat.store.clone(), AskedChanges::default());
    let asks = asked.clone();
    let stage = Stage::new(move |dataset, position| {
        reader.older(dataset, position, &asks).unwrap_or_else(|error| {
            asks.failed(error);
            (None, Timestamp::NONE)
        })
    });
    let mut graph = build(worker, seat.tables, stage, seat.seed, seat.counts, seat.derived);
    if let Err(error) = anew(worker, &mut graph, &seat.store) {
        let _ = seat.committer.send(CommitterMessage::Part(0, Err(error)));
        return;
    }
    let shelf = SpillReader::new(seat.store.clone(), (index, worker.peers()), seat.table_bytes);
    let look = (seat.table_bytes / LOOK / size_of::<RecordEntry>()) as u64;
    let (mut treat, mut added) = (seat.treat, look);
    while let Ok(job) = seat.ring.recv() {
        match job {
            WorkerJob::Ask(query) => answer(&graph, query, (index, worker.peers())),
            WorkerJob::Epoch { epoch, next, at, mut work, spill } => {
                if !treat.is_empty() {
                    work.splice(0..0, std::mem::take(&mut treat));
                }
                let Some(mut part) = graph.epoch(worker, (epoch, next), at, work, &seat.fallen) else { break };
                fold(&graph, &mut part);
                added += part.counts.values().map(|counts| counts.added).sum::<u64>();
                if let Some(decides) = seat.decides.as_ref().filter(|_| added >= look) {
                    added = 0;
                    ask_to_spill(&graph, decides, seat.table_bytes);
                }
                let sealed = to_disk(&graph, &mut part, (epoch, next), &spill, &seat.store, &shelf)
                    .and_then(|()| seat.store.seal(epoch, index as u16, at, part, &asked))
                    .and_then(|sealed| Ok(hit("proc.step_half").map(|()| sealed)?));
                if seat.committer.send(CommitterMessage::Part(epoch, sealed)).is_err() {
                    break;
                }
            }
        }
    }
    if seat.fallen.load(Ordering::Acquire) {
        // It would be waited for until the others are done with it, and one of them never will be.
        worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
    }
}

/// Gives the views every record of this worker's that they read.
fn anew(worker: &mut Worker, graph: &mut Graph, store: &Store) -> store::Result<()> {
    let here = (worker.index(), worker.peers());
    for dataset in graph.wanted() {
        store.contents(dataset, here, &mut |key, seen| graph.anew(worker, dataset, key, seen))?;
    }
    Ok(())
}

fn answer(graph: &Graph, query: WorkerQuery, (worker, workers): (usize, usize)) {
    let mut tables = graph.tables.borrow_mut();
    // Who asked may have gone away; then nobody misses the answer.
    match query {
        WorkerQuery::Missing(dataset, to) => {
            let table = tables.table(dataset);
            let missing = if table.window.is_some() { table.missing() } else { Vec::new() };
            let _ = to.send((u64::try_from(table.live).unwrap_or(0), missing));
        }
        WorkerQuery::Locate(dataset, key, to) => {
            // A spilled record would be found by any worker; it is the business of one.
            let mine = key[1] % workers as u64 == worker as u64;
            let entry = if mine { tables.table(dataset).get(&key) } else { None };
            let _ = to.send(entry.filter(|e| !e.is(HIDDEN)).map(|e| e.position));
        }
    }
}

/// Replaces the stored touches of a dataset by one statement of all versions when they have grown long.
fn fold(graph: &Graph, part: &mut WorkerChanges) {
    let mut datasets: Vec<DatasetId> = part.touched.keys().map(|(dataset, _)| *dataset).collect();
    datasets.dedup();
    let mut tables = graph.tables.borrow_mut();
    for dataset in datasets {
        let table = tables.table(dataset);
        if table.touched < FOLD_LEAST.max(FOLD_TIMES * table.len()) {
            continue;
        }
        part.touched.retain(|(other, _), _| *other != dataset);
        for entry in table.iter() {
            let touch: &mut Touch = part.touched.entry((dataset, entry.generation)).or_default();
            touch.moved.push((entry.key[0], entry.modified_at, entry.observed_at));
        }
        table.touched = table.len();
        part.folded.push(dataset);
    }
}

/// Has the largest table spilled if all together take too much memory. Records are spread evenly, so one worker speaks for all.
fn ask_to_spill(graph: &Graph, decides: &Sender<SequencerMessage>, limit: usize) {
    let tables = graph.tables.borrow();
    if tables.bytes().map(|(_, bytes)| bytes).sum::<usize>() <= limit {
        return;
    }
    if let Some((dataset, _)) = tables.bytes().max_by_key(|(_, bytes)| *bytes) {
        let _ = decides.send(SequencerMessage::Spill(dataset));
    }
}

/// Spills what is to be spilled, and gathers what the store has to be told of datasets that are.
fn to_disk(
    graph: &Graph,
    part: &mut WorkerChanges,
    (epoch, next): (u64, u64),
    spill: &[DatasetId],
    store: &Store,
    shelf: &SpillReader,
) -> store::Result<()> {
    let mut tables = graph.tables.borrow_mut();
    part.used = tables.used(next).map_err(store::Error::Disk)?;
    for dataset in spill.iter().filter(|dataset| !part.cleared.contains(dataset)) {
        let table = tables.table(*dataset);
        if table.is_spilled() {
            continue;
        }
        store.spill(*dataset, epoch, table.iter())?;
        tables.spill(*dataset, shelf.clone());
        part.spilled.push(*dataset);
        // Versions stand in the entries from now on.
        part.touched.retain(|(other, _), _| other != dataset);
        part.folded.push(*dataset);
    }
    Ok(())
}

/// Tells the committer when the worker dies, so that nobody waits for it.
struct Alarm(Sender<CommitterMessage>, Arc<AtomicBool>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(true, Ordering::Release);
            let _ =
                self.0.send(CommitterMessage::Part(0, Err(store::Error::Poisoned("a worker has failed".to_owned()))));
        }
    }
}
