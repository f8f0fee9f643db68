//! The inlet: the receiving end of a program's channel, for whoever drives the program, and what the two ends share.
//!
//! Whoever drives it polls [`Inlet::next`] beside the program, and tells with [`Inlet::fail`] that nothing more is taken.

use super::outlet::{Outlet, RecordPage};
use super::step::{Requests, STEP_AGE, STEP_BYTES, STEPS_ON_THEIR_WAY, Step};
use crate::model::{Failure, Position, Record, Timestamp};
use crate::time::Clock;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Where the answer to a call goes.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// What leaves an outlet, in order.
#[derive(Debug)]
pub enum Handed {
    /// To be committed.
    Step(HandedStep),
    /// To be answered.
    Call(Call),
}

/// A step that was closed.
#[derive(Debug)]
pub struct HandedStep {
    /// What is to be committed.
    pub step: Step,
    /// The room it takes: to be kept until it is committed.
    pub room: StepRoom,
    /// Who waits until the step has its place behind all handed over to the engine before; for a window's start.
    pub placed: Option<oneshot::Sender<()>>,
}

/// The room of a step on its way.
#[derive(Debug)]
pub struct StepRoom {
    _taken: Option<OwnedSemaphorePermit>,
}

/// What needs an answer. Each is a barrier: all handed over before it is committed first.
#[derive(Debug)]
pub enum Call {
    /// Nothing more.
    Barrier {
        /// Answered when it is so.
        answer: Answer<()>,
    },
    /// Ends a window.
    WindowEnd {
        /// Of this model.
        model: String,
        /// Ids of the records that were deleted.
        answer: Answer<Vec<String>>,
    },
    /// Reads records by id.
    Records {
        /// Of this model.
        model: String,
        /// These.
        ids: Vec<String>,
        /// In the order of the ids.
        answer: Answer<Vec<Option<Record>>>,
    },
    /// Reads some records in order.
    List {
        /// Of this model.
        model: String,
        /// Behind this place.
        after: Position,
        /// The next ones.
        answer: Answer<RecordPage>,
    },
}

impl Handed {
    pub(super) fn step(step: Step, room: StepRoom, placed: Option<oneshot::Sender<()>>) -> Handed {
        Handed::Step(HandedStep { step, room, placed })
    }
}

/// The receiving end; see the [module](self).
pub struct Inlet {
    shared: Arc<Shared>,
    from: mpsc::UnboundedReceiver<Handed>,
    clock: Arc<dyn Clock>,
}

/// A channel for a program that may write these models, and has this checkpoint.
pub fn channel(
    clock: Arc<dyn Clock>,
    models: impl IntoIterator<Item = String>,
    checkpoint: Option<Bytes>,
) -> (Outlet, Inlet) {
    let shared = Arc::new(Shared {
        models: models.into_iter().collect(),
        clock: Arc::clone(&clock),
        open: Mutex::default(),
        opened: Notify::new(),
        room: Arc::new(Semaphore::new(STEPS_ON_THEIR_WAY)),
        failure: OnceLock::new(),
    });
    // Without a bound of its own: steps wait for room, and a call waits for its answer.
    let (to, from) = mpsc::unbounded_channel();
    let outlet = Outlet { shared: Arc::clone(&shared), to, checkpoint, strategies: BTreeMap::new() };
    (outlet, Inlet { shared, from, clock })
}

impl Inlet {
    /// What comes next: a step that was closed, a call, or a step that has been open for long enough. `None` when the outlet is
    /// gone and nothing is left. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Handed> {
        loop {
            let since = self.shared.open.lock().since;
            let (shared, clock) = (&self.shared, &self.clock);
            tokio::select! {
                biased;
                handed = self.from.recv() => return handed.or_else(|| rest(&self.shared)),
                () = shared.opened.notified(), if since.is_none() => {}
                room = aged(shared, clock, since), if since.is_some() => {
                    if let Some(handed) = self.take_open(room?) {
                        return Some(handed);
                    }
                }
            }
        }
    }

    /// Nothing more is taken: every further call of the program fails like this.
    pub fn fail(&mut self, why: Failure) {
        let _ = self.shared.failure.set(why);
        self.shared.room.close();
        self.from.close();
    }

    /// The step that is open. Looked at under the lock of the open step: what was closed before it is in the channel by then, and
    /// goes first.
    fn take_open(&mut self, room: StepRoom) -> Option<Handed> {
        let mut open = self.shared.open.lock();
        if let Ok(handed) = self.from.try_recv() {
            return Some(handed);
        }
        open.take().map(|step| Handed::step(step, room, None))
    }
}

/// Waits until a step that was opened then is old enough and has room; `None` once nothing more is taken.
async fn aged(shared: &Shared, clock: &Arc<dyn Clock>, since: Option<Timestamp>) -> Option<StepRoom> {
    clock.sleep_until(since?.plus(STEP_AGE)).await;
    let taken = Arc::clone(&shared.room).acquire_owned().await.ok()?;
    Some(StepRoom { _taken: Some(taken) })
}

/// What was left open when the outlet went. Nobody is left who would wait for room.
fn rest(shared: &Shared) -> Option<Handed> {
    let step = std::mem::take(&mut *shared.open.lock()).step;
    (!step.is_empty() || step.requests.sent > 0).then(|| Handed::step(step, StepRoom { _taken: None }, None))
}

/// What both ends see.
pub(super) struct Shared {
    models: BTreeSet<String>,
    clock: Arc<dyn Clock>,
    open: Mutex<OpenStep>,
    opened: Notify,
    room: Arc<Semaphore>,
    /// Why nothing more is taken.
    failure: OnceLock<Failure>,
}

#[derive(Default)]
struct OpenStep {
    step: Step,
    /// When the first thing was written to it that has to be stored.
    since: Option<Timestamp>,
}

impl OpenStep {
    fn take(&mut self) -> Option<Step> {
        self.since = None;
        (!self.step.is_empty()).then(|| std::mem::take(&mut self.step))
    }
}

impl Shared {
    pub(super) fn read<T>(&self, read: impl FnOnce(&Step) -> T) -> T {
        read(&self.open.lock().step)
    }

    /// Writes what has to be stored.
    pub(super) fn write(&self, write: impl FnOnce(&mut Step)) {
        let mut open = self.open.lock();
        write(&mut open.step);
        if open.since.is_none() {
            open.since = Some(self.clock.now());
            self.opened.notify_one();
        }
    }

    /// Writes what alone is no reason for a commit.
    pub(super) fn note(&self, write: impl FnOnce(&mut Step)) {
        write(&mut self.open.lock().step);
    }

    pub(super) fn take(&self) -> Option<Step> {
        self.open.lock().take()
    }

    /// The requests that were noted since the last step.
    pub(super) fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.open.lock().step.requests)
    }

    /// Waits for room: a large step takes that of several.
    pub(super) async fn room_for(&self, step: &Step) -> Result<StepRoom, Failure> {
        let share = (step.bytes() / STEP_BYTES).clamp(1, STEPS_ON_THEIR_WAY);
        let taken = Arc::clone(&self.room).acquire_many_owned(share as u32).await.map_err(|_| self.why())?;
        Ok(StepRoom { _taken: Some(taken) })
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        self.failure.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    pub(super) fn may_write(&self, model: &str) -> Result<(), Failure> {
        self.check()?;
        if self.models.contains(model) {
            return Ok(());
        }
        let known = self.models.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(Failure::lasting("unknown_model", format!("`{model}` is no model of this sync; it has {known}")))
    }

    /// Why a call fails.
    pub(super) fn why(&self) -> Failure {
        let gone = || Failure::passing("stopped", "the run has ended; nothing more is taken");
        self.failure.get().cloned().unwrap_or_else(gone)
    }
}
