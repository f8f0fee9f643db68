//! Cuts epochs: gathers batches while the committer is busy and closes an epoch as soon as it is idle.
//!
//! So an epoch is as short as the disk allows and as long as it must be. At most [`IN_FLIGHT`] epochs are under way;
//! beyond, callers wait for room. Pruning rewrites what earlier epochs have written, so its epoch is under way alone. An epoch
//! that would not find room on the disk is not begun until there is some: a write that fails closes the store.

use super::batch::{Batch, WindowOp};
use super::messages::{
    CommitterMessage, EpochPlan, PlannedBatch, SequencerMessage, Submission, WorkerJob, WorkerQuery,
};
use super::{Dataset, Error};
use crate::log::Space;
use crate::model::{Cause, DatasetId, Position, Timestamp, Via};
use crate::state::{EpochWork, ObservationRows, Window};
use crate::store::catalog::WindowState;
use crate::time::Clock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Epochs on their way at most.
pub const IN_FLIGHT: usize = 3;
/// An epoch is closed early once it holds so many bytes …
const EPOCH_BYTES: usize = 4 << 20;
/// … or so many batches.
const EPOCH_BATCHES: usize = 1_000;
/// Between two looks at a disk that has no room for the next epoch.
const LOOK: Duration = Duration::from_millis(100);
/// Epochs skipped after one that sweeps, so that any number of deletes has places.
const SWEEP_EPOCHS: u64 = 1 << 8;

/// What waits for its turn.
pub(super) enum Waiting {
    Batch(Submission),
    Ask(WorkerQuery),
}

/// Windows of all datasets, shared with who asks whether one is open.
pub(super) type Windows = Arc<Mutex<HashMap<DatasetId, WindowState>>>;

pub(super) struct Sequencer {
    pub clock: Arc<dyn Clock>,
    pub windows: Windows,
    pub rings: Vec<Sender<WorkerJob>>,
    pub committer: Sender<CommitterMessage>,
    pub next: u64,
    /// Engine times an epoch takes up: the first one, and all others.
    pub spans: (u64, u64),
    pub last_at: Timestamp,
    pub in_flight: usize,
    /// Whether the epoch under way prunes.
    pub alone: bool,
    pub waiting: VecDeque<Waiting>,
    /// Datasets to be spilled with the next epoch.
    pub spill: Vec<DatasetId>,
    pub space: Arc<Space>,
    /// The next epoch waits for room on the disk.
    pub held: bool,
}

impl Sequencer {
    pub(super) fn run(mut self, inbox: &Receiver<SequencerMessage>) {
        // An empty first epoch lets the counting view publish what was there before the start.
        self.close();
        let mut stopping = false;
        while !(stopping && self.waiting.is_empty() && self.in_flight == 0) {
            match if self.held { inbox.recv_timeout(LOOK) } else { inbox.recv().map_err(RecvTimeoutError::from) } {
                Ok(input) => stopping |= self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(input) = inbox.try_recv() {
                stopping |= self.take(input);
                if self.waiting.len() >= EPOCH_BATCHES {
                    break;
                }
            }
            self.advance();
            if self.held {
                self.hold(stopping);
            }
        }
    }

    /// Closes epochs as far as may be, and asks what is to be asked in between.
    fn advance(&mut self) {
        loop {
            match self.waiting.front() {
                Some(Waiting::Batch(next)) if self.may_close(next) => {
                    // Once to the log, once to a file.
                    let bytes = 2 * self.bytes().min(EPOCH_BYTES + bytes_of(next));
                    if let Err(why) = self.space.make_room(bytes) {
                        if !std::mem::replace(&mut self.held, true) {
                            tracing::warn!(%why, "pending batches wait for space on the disk");
                        }
                        return;
                    }
                    self.held = false;
                    self.close();
                }
                Some(Waiting::Batch(_)) => return,
                None => {
                    self.held = false;
                    return;
                }
                Some(Waiting::Ask(_)) => {
                    if let Some(Waiting::Ask(query)) = self.waiting.pop_front() {
                        self.ask(&query);
                    }
                }
            }
        }
    }

    fn ask(&self, query: &WorkerQuery) {
        self.rings.iter().for_each(|ring| drop(ring.send(WorkerJob::Ask(query.clone()))));
    }

    /// While nothing can be committed, readers do not wait for what nobody was told is there. Who stops does not wait at all.
    fn hold(&mut self, stopping: bool) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Ask(query) => self.ask(&query),
                Waiting::Batch(batch) if stopping => {
                    let why = self.space.look().map_or_else(|| "disk_full".to_owned(), |full| full.to_string());
                    batch.answer.send(Err(Error::Full(why)));
                }
                batch => self.waiting.push_back(batch),
            }
        }
    }

    fn may_close(&self, next: &Submission) -> bool {
        if self.in_flight == 0 {
            return true;
        }
        // Questions see what was submitted before them, and do not wait for it to be durable.
        let asked = || self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Ask(_)));
        !self.alone && !next.prunes() && (asked() || (self.in_flight < IN_FLIGHT && self.full()))
    }

    fn take(&mut self, input: SequencerMessage) -> bool {
        match input {
            SequencerMessage::Submit(submission) => self.waiting.push_back(Waiting::Batch(submission)),
            SequencerMessage::Spill(dataset) => self.spill.push(dataset),
            SequencerMessage::Done(epochs) => self.in_flight = self.in_flight.saturating_sub(epochs),
            SequencerMessage::Ask(query) => self.waiting.push_back(Waiting::Ask(query)),
            SequencerMessage::Stop => return true,
        }
        false
    }

    fn full(&self) -> bool {
        self.bytes() >= EPOCH_BYTES || self.waiting.len() >= EPOCH_BATCHES
    }

    /// Bytes of all batches that wait.
    fn bytes(&self) -> usize {
        let bytes = |waiting: &Waiting| match waiting {
            Waiting::Batch(submission) => bytes_of(submission),
            Waiting::Ask(_) => 0,
        };
        self.waiting.iter().map(bytes).sum()
    }

    /// Closes an epoch with what waits, as far as the bounds allow.
    fn close(&mut self) {
        let epoch = self.next;
        let at = Timestamp(self.clock.now().0.max(self.last_at.0 + 1));
        self.last_at = at;
        let mut cut = Cut { at, work: Vec::new(), batches: Vec::new(), places: 0, bytes: 0, swept: false };
        self.alone = false;
        while let Some(Waiting::Batch(submission)) = self.waiting.pop_front_if(|w| matches!(w, Waiting::Batch(_))) {
            let rows = submission.batch.pages.iter().map(|page| page.len() as u64).sum::<u64>();
            let prunes = submission.prunes();
            if cut.places + rows > 1 << Position::PLACE_BITS || (prunes && !cut.batches.is_empty()) {
                self.waiting.push_front(Waiting::Batch(submission));
                break;
            }
            self.alone = prunes;
            let mut windows = self.windows.lock();
            cut.add(submission, &mut windows);
            if prunes || cut.swept || cut.bytes >= EPOCH_BYTES || cut.batches.len() >= EPOCH_BATCHES {
                break;
            }
        }
        let span = std::mem::replace(&mut self.spans.0, self.spans.1);
        self.next = epoch + span + if cut.swept { SWEEP_EPOCHS } else { 0 };
        self.in_flight += 1;
        let spill = std::mem::take(&mut self.spill);
        for ring in &self.rings {
            // A worker that is gone has told the committer; the answers come from there.
            let _ = ring.send(WorkerJob::Epoch {
                epoch,
                next: self.next,
                at,
                work: cut.work.clone(),
                spill: spill.clone(),
            });
        }
        let plan = EpochPlan { epoch, next: self.next, at, batches: cut.batches };
        let _ = self.committer.send(CommitterMessage::Plan(plan));
    }
}

fn bytes_of(submission: &Submission) -> usize {
    submission.batch.pages.iter().map(|page| page.bytes()).sum()
}

/// An epoch in the making.
struct Cut {
    at: Timestamp,
    work: Vec<EpochWork>,
    batches: Vec<PlannedBatch>,
    places: u64,
    bytes: usize,
    swept: bool,
}

impl Cut {
    fn add(&mut self, submission: Submission, windows: &mut HashMap<DatasetId, WindowState>) {
        let Submission { batch, extra, announce, answer, room } = submission;
        if let Err(refused) = check_windows(&batch, windows) {
            answer.send(Err(refused));
            return;
        }
        let slot = self.batches.len() as u32;
        let cause = batch.cause.unwrap_or(Cause { via: Via::Push, number: 0 });
        let mut moved = Vec::new();
        self.work.extend(extra.into_iter().map(|work| with_slot(work, slot)));
        for op in &batch.open {
            self.window(op, windows, cause, slot, &mut moved);
        }
        for page in batch.pages {
            let rows: Arc<ObservationRows> = Arc::new(page.rows);
            let base = self.places;
            self.places += u64::from(rows.len);
            self.bytes += rows.bytes.len();
            if rows.len > 0 {
                self.work.push(EpochWork::Rows { rows, cause, at: self.at, base, slot });
            }
        }
        for op in &batch.close {
            self.window(op, windows, cause, slot, &mut moved);
        }
        self.batches.push(PlannedBatch {
            cause,
            marks: batch.marks,
            windows: moved,
            end_run: batch.end_run,
            announce,
            answer,
            _room: room,
        });
    }

    fn window(
        &mut self,
        op: &WindowOp,
        windows: &mut HashMap<DatasetId, WindowState>,
        cause: Cause,
        slot: u32,
        moved: &mut Vec<(DatasetId, WindowState)>,
    ) {
        let dataset = dataset_of(op).id;
        let state = windows.entry(dataset).or_default();
        let window = match op {
            WindowOp::Start(_) if state.open_since.is_some() => return,
            WindowOp::Start(_) | WindowOp::Restart(_) => {
                state.generation += 1;
                state.open_since = Some(self.at);
                Window::Open { generation: state.generation, at: self.at }
            }
            WindowOp::Sweep(_) | WindowOp::SweepOf(..) => {
                self.swept = true;
                state.open_since = None;
                Window::Sweep
            }
            WindowOp::Abort(_) | WindowOp::AbortOf(..) => {
                state.open_since = None;
                Window::Abort
            }
        };
        moved.push((dataset, *state));
        self.work.push(EpochWork::Window { dataset, window, cause, at: self.at, base: self.places, slot });
    }
}

fn dataset_of(op: &WindowOp) -> &Dataset {
    match op {
        WindowOp::Start(d) | WindowOp::Restart(d) | WindowOp::Sweep(d) | WindowOp::Abort(d) => d,
        WindowOp::SweepOf(d, _) | WindowOp::AbortOf(d, _) => d,
    }
}

/// A sweep needs an open window, or one that this very batch opens; who names a window needs that one.
fn check_windows(batch: &Batch, windows: &HashMap<DatasetId, WindowState>) -> Result<(), Error> {
    for op in &batch.close {
        let dataset = dataset_of(op);
        let opens = |op: &WindowOp| matches!(op, WindowOp::Start(d) | WindowOp::Restart(d) if d.id == dataset.id);
        let open = windows.get(&dataset.id).and_then(|window| window.open_since);
        let may = match op {
            WindowOp::Sweep(_) => open.is_some() || batch.open.iter().any(opens),
            WindowOp::SweepOf(_, opened) | WindowOp::AbortOf(_, opened) => open == Some(*opened),
            _ => true,
        };
        if !may {
            return Err(Error::NoWindow(dataset.name.model.to_string()));
        }
    }
    Ok(())
}

fn with_slot(work: EpochWork, slot: u32) -> EpochWork {
    match work {
        EpochWork::Prune { dataset, records, .. } => EpochWork::Prune { dataset, records, slot },
        other => other,
    }
}
