//! The execution: what comes from the program and what comes back from the engine, one after the other.

use super::commit::ObservedTimes;
use super::state::{Doubt, ProgramState};
use super::{ProgramOrder, Told, reads};
use crate::model::{Cause, DatasetId, Failure, Timestamp};
use crate::pipeline::run::drive::{RunStop, add_doubt, failure, within};
use crate::pipeline::run::{Halt, Outcome, Progress, RunEndReport};
use crate::pipeline::{Batch, CommitWindow, Engine, Error, Receipt, WindowBounds};
use crate::source::program::{
    Call, Handed, Inlet, LogLevel, LogLine, Program, ProgramAsk, STEP_BYTES, STEPS_ON_THEIR_WAY, StepRoom, channel,
};
use crate::time::Clock;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What is to be known of a step once it is committed.
pub(super) struct OnItsWay {
    /// Held until then.
    pub(super) _room: StepRoom,
    pub(super) lines: Vec<LogLine>,
}

/// One execution of a program.
pub(super) struct ProgramDriver<'a> {
    pub(super) engine: &'a Engine,
    pub(super) order: ProgramOrder,
    pub(super) state: ProgramState,
    pub(super) progress: Progress,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) halt: watch::Receiver<Halt>,
    pub(super) tell: &'a (dyn Fn(Told<'_>) + Send + Sync),
    pub(super) deadline: Timestamp,
    pub(super) on_their_way: CommitWindow<OnItsWay>,
    pub(super) observed: ObservedTimes,
    /// A step was taken from the program and has not got its place: nothing behind it may have one.
    pub(super) torn: bool,
    /// Windows that earlier executions have ended since the checkpoint.
    pub(super) swept_before: BTreeSet<String>,
    pub(super) resumed: bool,
    /// Steps committed by this execution.
    pub(super) steps: u64,
    /// A run that was interrupted and that this one does not go on with.
    pub(super) superseded: Option<ProgramState>,
}

/// What happens next.
enum Event {
    Committed(OnItsWay, Result<Receipt, Error>),
    Handed(Handed),
    /// The program has ended, and nothing of it is left.
    Drained,
    Ended(Result<(), Failure>),
}

impl<'a> ProgramDriver<'a> {
    /// Takes up an interrupted run, or begins one.
    pub(super) async fn begin(
        engine: &'a Engine,
        order: ProgramOrder,
        halt: watch::Receiver<Halt>,
        tell: &'a (dyn Fn(Told<'_>) + Send + Sync),
    ) -> Result<Self, Error> {
        // An execution that was dropped may have handed over what is not committed yet.
        engine.commit(Batch::default()).await?;
        let clock = engine.clock();
        let now = clock.now();
        let progress = Progress::load(engine, &order.sync)?;
        let mut stored = ProgramState::load(engine, &order.sync)?;
        if let Some(state) = stored.as_mut().filter(|state| state.is_running()) {
            for (model, dataset) in &order.datasets {
                state.catch_up(model, engine.noted(dataset, state.number)?);
            }
        }
        let (earlier, dropped) = if order.fresh { (None, stored) } else { (stored, None) };
        let superseded = dropped.filter(ProgramState::is_running);
        let resumed = earlier.as_ref().is_some_and(ProgramState::is_running);
        let swept_before = earlier.as_ref().map(|state| state.swept.clone()).unwrap_or_default();
        let mut state = match earlier {
            Some(state) if resumed => state,
            earlier => ProgramState::next(earlier, engine.next_run()?, &order, &progress, now),
        };
        // A window may have gone with its dataset's records.
        let open = |model: &String| order.datasets.get(model).is_some_and(|dataset| engine.window_open(dataset));
        state.windows.retain(|model, doubt| *doubt == Doubt::Ended || open(model));
        let bounds = WindowBounds { commits: STEPS_ON_THEIR_WAY, bytes: STEPS_ON_THEIR_WAY * STEP_BYTES };
        Ok(ProgramDriver {
            engine,
            observed: ObservedTimes::from(state.record.started_at),
            deadline: now.plus(order.timeout),
            on_their_way: CommitWindow::new(bounds),
            order,
            state,
            progress,
            clock,
            halt,
            tell,
            torn: false,
            swept_before,
            resumed,
            steps: 0,
            superseded,
        })
    }

    /// Executes the program and stores how the run ended.
    pub(super) async fn finish(mut self, program: &dyn Program) -> Result<RunEndReport, Error> {
        if let Some(state) = self.superseded.take() {
            self.end_superseded(state).await?;
        }
        let ended = match self.track().await {
            Ok(()) => self.execute(program).await,
            Err(stop) => Err(stop),
        };
        self.conclude(ended).await
    }

    async fn execute(&mut self, program: &dyn Program) -> Result<(), RunStop> {
        let models = self.order.datasets.keys().cloned();
        let (mut outlet, mut inlet) = channel(Arc::clone(&self.clock), models, self.state.checkpoint());
        let ended = {
            let ask = self.ask();
            // The outlet goes with it: then nothing more will come.
            let work = async move { program.run(&ask, &mut outlet).await };
            self.attend(work, &mut inlet).await
        };
        match ended {
            Err(RunStop::Engine(error)) => Err(RunStop::Engine(error)),
            ended => {
                self.drain(&mut inlet).await?;
                ended
            }
        }
    }

    /// Lets the program go on until it ends, and takes what it hands over meanwhile.
    async fn attend(
        &mut self,
        work: impl Future<Output = Result<(), Failure>>,
        inlet: &mut Inlet,
    ) -> Result<(), RunStop> {
        let mut work = pin!(work);
        loop {
            let on_their_way = &mut self.on_their_way;
            let next = async {
                tokio::select! {
                    biased;
                    Some((step, outcome)) = on_their_way.oldest() => Event::Committed(step, outcome),
                    handed = inlet.next() => handed.map_or(Event::Drained, Event::Handed),
                    ended = &mut work => Event::Ended(ended),
                }
            };
            let limit = (self.deadline, self.order.timeout);
            match within(&mut self.halt, &*self.clock, limit, next).await? {
                Event::Committed(step, outcome) => self.take_in(step, outcome)?,
                Event::Handed(handed) => {
                    let (mut halt, clock) = (self.halt.clone(), Arc::clone(&self.clock));
                    within(&mut halt, &*clock, limit, self.act(handed)).await??;
                }
                Event::Drained => return Ok(()),
                Event::Ended(ended) => return ended.map_err(RunStop::Failed),
            }
        }
    }

    /// Commits what the program left behind, however it ended, and waits for all that is on its way. Calls are answered to nobody.
    /// Behind a step that was not committed there may be a checkpoint: then nothing more is.
    async fn drain(&mut self, inlet: &mut Inlet) -> Result<(), RunStop> {
        // A disk that is full is not waited for at the end.
        while !self.torn
            && self.engine.refusing().is_none()
            && let Some(handed) = inlet.next().await
        {
            if let Handed::Step(step) = handed {
                self.commit(step).await?;
            }
        }
        self.settled().await
    }

    /// Commits a step or answers a call.
    async fn act(&mut self, handed: Handed) -> Result<(), RunStop> {
        let call = match handed {
            Handed::Step(step) => return self.commit(step).await,
            Handed::Call(call) => call,
        };
        self.settled().await?;
        let datasets = &self.order.datasets;
        // Who asked may be gone; the answer is not needed then.
        match call {
            Call::Barrier { answer } => drop(answer.send(Ok(()))),
            Call::WindowEnd { model, answer } => drop(answer.send(self.window_end(&model).await?)),
            Call::Records { model, ids, answer } => {
                drop(answer.send(Ok(reads::records(self.engine, datasets, &model, &ids).await?)))
            }
            Call::List { model, after, answer } => {
                drop(answer.send(Ok(reads::list(self.engine, datasets, &model, after).await?)))
            }
        }
        Ok(())
    }

    /// Waits until everything that was handed over is committed.
    async fn settled(&mut self) -> Result<(), RunStop> {
        while let Some((step, outcome)) = self.on_their_way.oldest().await {
            self.take_in(step, outcome)?;
        }
        Ok(())
    }

    /// What the engine says of a step.
    pub(super) fn take_in(&mut self, step: OnItsWay, outcome: Result<Receipt, Error>) -> Result<(), RunStop> {
        let receipt = outcome.map_err(refused)?;
        self.steps += 1;
        self.count(&receipt);
        step.lines.iter().for_each(|line| (self.tell)(Told::Line(line)));
        (self.tell)(Told::Record(&self.state.record));
        Ok(())
    }

    pub(super) fn count(&mut self, receipt: &Receipt) {
        for (id, counts) in &receipt.counts {
            if let Some(model) = self.model_of(*id) {
                self.state.count(&model, counts);
            }
        }
        if let Some((_, why)) = receipt.rejected.first() {
            add_doubt(&mut self.state.record, &format!("rejected: {why}"));
        }
    }

    fn model_of(&self, id: DatasetId) -> Option<String> {
        self.order.datasets.iter().find(|(_, dataset)| dataset.id == id).map(|(model, _)| model.clone())
    }

    fn ask(&self) -> ProgramAsk {
        ProgramAsk {
            sync: self.order.sync.model.to_string(),
            models: self.order.datasets.keys().cloned().collect(),
            connection: Arc::clone(&self.order.connection),
            variant: self.order.sync.variant.to_string(),
            kind: self.state.kind(),
            run: self.state.number,
            started_at: self.state.record.started_at,
            last_success: self.progress.last_completed_at,
            checkpoint: self.state.checkpoint(),
        }
    }

    /// An empty batch of this run.
    pub(super) fn batch(&self) -> Batch {
        Batch { cause: Some(Cause::run(self.state.number)), ..Batch::default() }
    }

    /// Says something of the run that the program does not say itself.
    pub(super) fn warn(&mut self, text: String) {
        let line = LogLine { level: LogLevel::Warn, text };
        self.state.remember(&line);
        (self.tell)(Told::Line(&line));
    }

    pub(super) fn report(self) -> RunEndReport {
        RunEndReport {
            run: self.state.number,
            record: self.state.record,
            resumed: self.resumed,
            progress: self.progress,
        }
    }

    /// How a run that came to its end went.
    pub(super) fn outcome(&self) -> Outcome {
        let record = &self.state.record;
        match (record.held, record.doubts.is_empty()) {
            (Some(_), _) => Outcome::Held,
            (None, true) => Outcome::Complete,
            (None, false) => Outcome::Incomplete,
        }
    }
}

/// A batch that the engine refuses as such is the program's fault.
pub(super) fn refused(error: Error) -> RunStop {
    match error {
        Error::BadBatch(why) => RunStop::Failed(failure("step_too_large", why)),
        error => RunStop::Engine(error),
    }
}
