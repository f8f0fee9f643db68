//! The outlet: what a program writes to. It joins small calls to steps, and closes a step where it has to end.

use super::inlet::{Call, Handed, Shared};
use super::step::{CHECKPOINT_BYTES_MAX, LogLevel, Step, StepBody};
use crate::model::{Failure, Position, Record, Strategy, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The sending end of a program's channel; see [`Program`](super::Program). Made by [`channel`](super::channel).
pub struct Outlet {
    pub(super) shared: Arc<Shared>,
    pub(super) to: mpsc::UnboundedSender<Handed>,
    pub(super) checkpoint: Option<Bytes>,
    /// By model; the first of a run counts.
    pub(super) strategies: BTreeMap<String, Strategy>,
}

/// Some records of a model, in order of their last change.
#[derive(Clone, Debug, Default)]
pub struct RecordPage {
    /// The records, deleted ones included: [`Meta::action`](crate::model::Meta::action) says it.
    pub records: Vec<Record>,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
}

impl Outlet {
    /// A whole record: `json` is the text of an object whose `id` is `id`.
    pub async fn save(&mut self, model: &str, id: &str, json: &[u8]) -> Result<(), Failure> {
        self.push(model, id, StepBody::Whole(json)).await
    }

    /// Some fields of a record that is there, merged deeply: `json` is the text of an object.
    pub async fn patch(&mut self, model: &str, id: &str, json: &[u8]) -> Result<(), Failure> {
        self.push(model, id, StepBody::Patch(json)).await
    }

    /// The record is gone, since then if that is known.
    pub async fn gone(&mut self, model: &str, id: &str, deleted_at: Option<Timestamp>) -> Result<(), Failure> {
        self.push(model, id, StepBody::Gone(deleted_at)).await
    }

    /// Says that records of a model were refused before they came here: a window that is open on it is in doubt.
    pub fn refused(&mut self, model: &str, records: u32) -> Result<(), Failure> {
        self.shared.may_write(model)?;
        self.shared.write(|step| step.model(model).refused += records);
        Ok(())
    }

    /// Who wins, for the records of a model that come from now on; the dataset's own strategy is not changed. The first of a run
    /// counts: false if there was another before.
    pub async fn strategy(&mut self, model: &str, strategy: Strategy) -> Result<bool, Failure> {
        self.shared.may_write(model)?;
        if let Some(first) = self.strategies.get(model) {
            return Ok(*first == strategy);
        }
        if self.shared.read(|step| step.of(model).is_some_and(|model| model.records > 0)) {
            self.close().await?;
        }
        self.strategies.insert(model.to_owned(), strategy);
        Ok(true)
    }

    /// What was saved last, own writes included.
    pub fn checkpoint(&self) -> Option<&Bytes> {
        self.checkpoint.as_ref()
    }

    /// Ends the step with a checkpoint; `None` removes the one there is. It is durable no earlier than all that was written before.
    pub async fn save_checkpoint(&mut self, checkpoint: Option<Bytes>) -> Result<(), Failure> {
        let bytes = checkpoint.as_ref().map_or(0, Bytes::len);
        if bytes > CHECKPOINT_BYTES_MAX {
            let why = format!("a checkpoint has {bytes} bytes; {CHECKPOINT_BYTES_MAX} are allowed, so keep less in it");
            return Err(Failure::lasting("checkpoint_too_large", why));
        }
        self.shared.check()?;
        self.checkpoint = checkpoint.clone();
        self.shared.write(|step| step.checkpoint = Some(checkpoint));
        self.close().await
    }

    /// Begins the window of deletes of a model; nothing if one is open. Its place is before the next request.
    pub async fn window_start(&mut self, model: &str) -> Result<(), Failure> {
        self.shared.may_write(model)?;
        // What came before it in this step does not belong to it.
        let before = |step: &Step| step.of(model).is_some() || step.requests.failed > 0;
        if self.shared.read(before) {
            self.close().await?;
        }
        self.shared.write(|step| step.model(model).window_start = true);
        Ok(())
    }

    /// Ends the window: live records of the model not seen since its start are deleted in one commit. Gives their ids; none if
    /// the deletes wait for approval, of which a line tells. Fails with `no_window` where none was begun.
    pub async fn window_end(&mut self, model: &str) -> Result<Vec<String>, Failure> {
        self.shared.may_write(model)?;
        let model = model.to_owned();
        self.ask(|answer| Call::WindowEnd { model, answer }).await
    }

    /// A request is about to be sent: what was written before it is handed over. Call it before the request leaves.
    pub async fn request(&mut self, sent_at: Timestamp) -> Result<(), Failure> {
        self.close().await?;
        self.shared.note(|step| {
            step.requests.sent += 1;
            step.requests.earliest = Some(step.requests.earliest.map_or(sent_at, |first| first.min(sent_at)));
        });
        Ok(())
    }

    /// A request failed in the end: windows that are open are in doubt, whether or not the program goes on.
    pub fn request_failed(&mut self) {
        self.shared.note(|step| step.requests.failed += 1);
    }

    /// A line of the run, joined to the step.
    pub async fn log(&mut self, level: LogLevel, line: impl Into<String>) -> Result<(), Failure> {
        self.shared.check()?;
        self.shared.write(|step| step.log(level, line));
        self.close_if_full().await
    }

    /// Records by id, `None` for one that never was; all that was written before is in them.
    pub async fn records_by_ids(&mut self, model: &str, ids: Vec<String>) -> Result<Vec<Option<Record>>, Failure> {
        self.shared.may_write(model)?;
        let model = model.to_owned();
        self.ask(|answer| Call::Records { model, ids, answer }).await
    }

    /// Some records of a model behind a place ([`Position::START`] at first); all that was written before is in them.
    pub async fn list(&mut self, model: &str, after: Position) -> Result<RecordPage, Failure> {
        self.shared.may_write(model)?;
        let model = model.to_owned();
        self.ask(|answer| Call::List { model, after, answer }).await
    }

    /// Waits until all that was written is durable and visible.
    pub async fn barrier(&mut self) -> Result<(), Failure> {
        self.ask(|answer| Call::Barrier { answer }).await
    }

    /// Whether the run is told to end; calls fail from then on. For work on other threads: the program itself is dropped.
    pub fn halted(&self) -> bool {
        self.shared.check().is_err()
    }

    /// Hands over a step that was built elsewhere, behind all that was written here. Whoever hands over steps closes them where
    /// the outlet would: with a checkpoint, before the next request, read or window's end, and at the bounds of a step. Requests
    /// that were told here since the step before count to it.
    pub async fn hand_over(&mut self, mut step: Step) -> Result<(), Failure> {
        self.close().await?;
        step.requests.add(&self.shared.take_requests());
        step.models().try_for_each(|(model, _)| self.shared.may_write(model))?;
        if let Some(checkpoint) = &step.checkpoint {
            self.checkpoint = checkpoint.clone();
        }
        self.send(step).await
    }

    async fn push(&mut self, model: &str, id: &str, body: StepBody<'_>) -> Result<(), Failure> {
        self.shared.may_write(model)?;
        let strategy = self.strategies.get(model).copied();
        self.shared.write(|step| {
            if strategy.is_some() && step.of(model).is_none_or(|model| model.strategy.is_none()) {
                step.model(model).strategy = strategy;
            }
            step.push(model, id, body);
        });
        self.close_if_full().await
    }

    async fn close_if_full(&mut self) -> Result<(), Failure> {
        if self.shared.read(Step::is_full) { self.close().await } else { Ok(()) }
    }

    /// Hands over what was written, if there is anything.
    async fn close(&mut self) -> Result<(), Failure> {
        self.shared.check()?;
        match self.shared.take() {
            Some(step) => self.send(step).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, step: Step) -> Result<(), Failure> {
        let room = self.shared.room_for(&step).await?;
        // Nothing may be asked for before the window has its place among all that is committed.
        let waits = step.models().any(|(_, model)| model.window_start);
        let (placed, is_placed) = oneshot::channel();
        let placed = waits.then_some(placed);
        self.to.send(Handed::step(step, room, placed)).map_err(|_| self.shared.why())?;
        if waits { is_placed.await.map_err(|_| self.shared.why()) } else { Ok(()) }
    }

    /// Hands over what was written, and a question behind it.
    async fn ask<T>(&mut self, call: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Call) -> Result<T, Failure> {
        self.close().await?;
        let (answer, answered) = oneshot::channel();
        self.to.send(Handed::Call(call(answer))).map_err(|_| self.shared.why())?;
        answered.await.unwrap_or_else(|_| Err(self.shared.why()))
    }
}
