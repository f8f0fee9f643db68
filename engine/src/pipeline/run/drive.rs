//! The drive: page after page, with retries, each in one commit with the place after it.

use super::held::{clear_held, hold};
use super::progress::{LOOKBACK_DELETES, forget_notes, scope};
use super::record::{Outcome, RunRecord, RunStage, RunState, run_key};
use super::{Halt, Order, Progress, RunEndReport};
use crate::fault::{self, Injected, hit, pass};
use crate::model::{Cause, Counts, DatasetName, Timestamp};
use crate::pipeline::{
    Batch, Engine, Error, Keyspace, Mark, PageBuilder, Quarantine, QuarantineEntry, QuarantineWriter, Receipt, WindowOp,
};
use crate::sink::RunEnd;
use crate::source::{Ask, Body, Bookmark, Confirm, End, Failure, Observation, Page, Part, Quarantined, Source};
use crate::time::{Backoff, Chance, Clock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longest wait between two attempts, whatever the provider wishes.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Shorter waits between two attempts are no news.
const LONG_WAIT: Duration = Duration::from_secs(3);

/// Complaints shown in a run's record.
pub(super) const SAMPLES_MAX: usize = 10;

/// Doubts shown in a run's record.
const DOUBTS_MAX: usize = 20;

/// Doubts of listings from which something was left out: they are no base for the next window, which would not bring it.
const HOLES: [&str; 6] =
    ["page_skipped", "partial_answer", "empty_page", "repeated_page", "filtered_page", "end_mismatch"];

/// Why a run does not go on.
pub(super) enum RunStop {
    Failed(Failure),
    Cancelled,
    /// The process stops.
    Halted,
    Engine(Error),
}

impl From<Error> for RunStop {
    fn from(error: Error) -> Self {
        RunStop::Engine(error)
    }
}

impl From<Injected> for RunStop {
    fn from(injected: Injected) -> Self {
        RunStop::Failed(Failure { retry: true, ..failure("injected", injected.to_string()) })
    }
}

/// What is asked of the source.
#[derive(Clone, Copy)]
pub(super) enum SourceCall<'a> {
    Poll(&'a Ask, Option<&'a Bookmark>),
    Fetch(&'a Ask, &'a [String]),
}

/// One run on its way.
pub(super) struct RunDriver<'a> {
    pub(super) engine: &'a Engine,
    pub(super) order: Order,
    pub(super) journey: RunState,
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    halt: watch::Receiver<Halt>,
    tell: &'a (dyn Fn(&RunRecord, Option<u64>) + Send + Sync),
    progress: Progress,
    quarantine: Quarantine,
    deadline: Timestamp,
    resumed: bool,
    /// A run that was interrupted and that this one does not go on with.
    superseded: Option<RunState>,
    /// Pages committed by this execution.
    pages: u64,
    /// The run has said that records come more than once in an answer.
    repeats_told: bool,
    /// The window has to be begun before the next request.
    open: bool,
}

impl<'a> RunDriver<'a> {
    /// Takes up the journey of an earlier run, or begins one.
    pub(super) fn begin(
        engine: &'a Engine,
        source: Arc<dyn Source>,
        order: Order,
        halt: watch::Receiver<Halt>,
        tell: &'a (dyn Fn(&RunRecord, Option<u64>) + Send + Sync),
    ) -> Result<Self, Error> {
        let clock = engine.clock();
        let now = clock.now();
        let progress = Progress::load(engine, &order.dataset.name)?;
        let [environment, of, connection, model, _] = scope(&order.dataset.name);
        let quarantine = Quarantine::load(engine, [environment, of, connection, model], QuarantineWriter::Run)?;
        let stored = engine.mark(Keyspace::BOOKMARK, &scope(&order.dataset.name))?;
        let mut stored = stored.and_then(|bytes| RunState::decode(&bytes));
        if let Some(journey) = stored.as_mut().filter(|journey| journey.record.status == Outcome::Running) {
            journey.catch_up(engine.noted(&order.dataset, journey.number)?);
        }
        // Without its window a listing that began earlier cannot find what is missing: it has to begin again. And who wants
        // everything is not served by the rest of a window.
        let fits = |journey: &RunState| match journey.part {
            Part::Full => engine.window_open(&order.dataset),
            _ => order.part != Part::Full,
        };
        let (earlier, dropped) = match stored {
            Some(journey) if !order.fresh && fits(&journey) => (Some(journey), None),
            dropped => (None, dropped),
        };
        let superseded = dropped.filter(|journey| journey.record.status == Outcome::Running);
        let resumed = earlier.is_some();
        let journey = match earlier {
            Some(journey) if journey.record.status == Outcome::Running => journey,
            Some(journey) => journey.taken_up_by(engine.next_run()?, &order, now),
            None => RunState::new(engine.next_run()?, &order, progress.last_completed_at.is_none(), now),
        };
        let open = !resumed && journey.part == Part::Full;
        let deadline = now.plus(order.timeout);
        let drive = RunDriver {
            engine,
            order,
            journey,
            source,
            clock,
            halt,
            tell,
            progress,
            quarantine,
            deadline,
            resumed,
            superseded,
            pages: 0,
            repeats_told: false,
            open,
        };
        Ok(drive)
    }

    /// Goes the whole way and stores how it ended.
    pub(super) async fn finish(mut self) -> Result<RunEndReport, Error> {
        if let Some(journey) = self.superseded.take() {
            self.end_superseded(journey).await?;
        }
        let ended = self.way().await;
        self.conclude(ended).await
    }

    /// Ends a run that nobody goes on with: what it changed is announced, and its record says that it is over.
    async fn end_superseded(&mut self, journey: RunState) -> Result<(), Error> {
        let RunState { number, mut record, .. } = journey;
        (record.status, record.ended_at) = (Outcome::Failed, Some(self.clock.now()));
        let why = "it was interrupted, and the next run began from the beginning";
        record.error = Some(("superseded".to_owned(), why.to_owned()));
        let end = run_end(&record);
        let name = Arc::clone(&self.order.dataset.name);
        let mut marks = vec![Mark::delete(Keyspace::BOOKMARK, &scope(&name)), run_mark(&name, &record)];
        marks.extend(self.progress.keep_run(&name, number));
        marks.push(self.progress.mark(&name));
        let end_run = vec![(self.order.dataset.clone(), end)];
        let batch = Batch { cause: Some(Cause::run(number)), marks, end_run, ..Batch::default() };
        self.engine.commit(batch).await?;
        self.engine.journal().write(record.line(&name));
        Ok(())
    }

    async fn way(&mut self) -> Result<Vec<WindowOp>, RunStop> {
        loop {
            match self.journey.stage {
                RunStage::Listing | RunStage::Again => self.listing().await?,
                RunStage::Deletes => {
                    if self.needs_second_look().await? {
                        self.look_again();
                    } else {
                        self.deletes().await?;
                    }
                }
                RunStage::Settle => {
                    if let Some(close) = self.settle().await? {
                        return Ok(close);
                    }
                }
            }
        }
    }

    /// Begins the window before the first request: what another writer brings while the first page is on its way must
    /// count as seen, and what an earlier listing found missing is no longer the question.
    async fn begin_window(&mut self) -> Result<(), RunStop> {
        let dataset = self.order.dataset.clone();
        let marks = clear_held(self.engine, &dataset.name)?;
        let cause = Some(Cause::run(self.journey.number));
        self.engine.commit(Batch { cause, open: vec![WindowOp::Restart(dataset)], marks, ..Batch::default() }).await?;
        self.open = false;
        Ok(())
    }

    /// One page of the listing.
    async fn listing(&mut self) -> Result<(), RunStop> {
        if self.open && !fault::planted("window_begun_behind_the_first_page") {
            self.begin_window().await?;
        }
        self.wait_for_space().await?;
        let ask = self.ask(self.journey.part);
        let bookmark = self.journey.bookmark.clone();
        let page = match self.attempt(SourceCall::Poll(&ask, bookmark.as_ref())).await {
            Err(RunStop::Failed(failure)) if failure.code == Failure::BAD_BOOKMARK && bookmark.is_some() => {
                return self.begin_again();
            }
            other => other?,
        };
        if self.open {
            self.begin_window().await?;
        }
        let before = self.journey.clone();
        self.journey.set_aside += page.quarantined.len() as u64;
        self.journey.provider_start = self.journey.provider_start.or(page.provider_time);
        self.journey.bookmark = page.next.clone();
        match page.end.clone() {
            Some(end) => self.listing_ended(end),
            None if page.next.is_none() => return Err(RunStop::Failed(nowhere())),
            None => {}
        }
        self.go_on_behind(page, before).await
    }

    /// Commits a page of a listing. One that cannot be taken has not been read: the next run asks for it again.
    async fn go_on_behind(&mut self, page: Page, before: RunState) -> Result<(), RunStop> {
        let committed = self.commit_page(page).await;
        if let Err(RunStop::Failed(_)) = &committed {
            let refused = std::mem::replace(&mut self.journey, before);
            // What was tried is told all the same.
            self.journey.record = refused.record;
        }
        committed.map(drop)
    }

    /// The bookmark leads nowhere: the listing is read from its beginning, under the same number.
    fn begin_again(&mut self) -> Result<(), RunStop> {
        self.journey.bookmark = None;
        self.journey.stage = RunStage::Listing;
        self.journey.set_aside = 0;
        self.open = self.journey.part == Part::Full;
        Ok(())
    }

    fn listing_ended(&mut self, end: End) {
        let journey = &mut self.journey;
        journey.proven = end.doubts.is_empty() && journey.set_aside == 0;
        let hole = |doubt: &String| HOLES.iter().any(|hole| doubt.starts_with(hole));
        journey.read = !end.doubts.iter().any(hole);
        end.doubts.iter().for_each(|doubt| add_doubt(&mut journey.record, doubt));
        // The second look, if this was it, has been taken.
        journey.confirm =
            if journey.stage == RunStage::Again && end.confirm != Confirm::Never { Confirm::None } else { end.confirm };
        if journey.part != Part::Full {
            journey.confirm = Confirm::Never;
        }
        journey.stage = RunStage::Deletes;
    }

    /// Whether the listing has to be read a second time: records are missing, and that is how they are confirmed.
    async fn needs_second_look(&mut self) -> Result<bool, RunStop> {
        let journey = &self.journey;
        if !(journey.proven && journey.confirm == Confirm::Twice && journey.bookmark.is_none()) {
            return Ok(false);
        }
        let some_missing = !self.engine.missing(&self.order.dataset).await?.positions.is_empty();
        if !some_missing {
            self.journey.confirm = Confirm::None;
        }
        Ok(some_missing)
    }

    /// Has the listing read once more in the same window: what either of them saw stays.
    pub(super) fn look_again(&mut self) {
        self.journey.stage = RunStage::Again;
        self.journey.bookmark = None;
        self.journey.set_aside = 0;
    }

    /// One page of the listings of deleted records; the next stage when there are no more.
    async fn deletes(&mut self) -> Result<(), RunStop> {
        let Some(index) = self.journey.deletes.first().copied() else {
            self.journey.stage = RunStage::Settle;
            return Ok(());
        };
        let since = self.progress.deletes_read_at(index).map_or(Timestamp(0), |at| at.minus(LOOKBACK_DELETES));
        let until = self.journey.began;
        let ask = self.ask(Part::Deletes { index, since, until });
        let bookmark = self.journey.bookmark.clone();
        let page = match self.attempt(SourceCall::Poll(&ask, bookmark.as_ref())).await {
            Err(RunStop::Failed(failure)) if failure.code == Failure::BAD_BOOKMARK && bookmark.is_some() => {
                self.journey.bookmark = None;
                return Ok(());
            }
            other => other?,
        };
        let before = self.journey.clone();
        self.journey.provider_start = self.journey.provider_start.or(page.provider_time);
        self.journey.bookmark = page.next.clone();
        if page.next.is_none() {
            let doubts = page.end.as_ref().map(|end| end.doubts.clone()).unwrap_or_default();
            doubts.iter().for_each(|doubt| add_doubt(&mut self.journey.record, doubt));
            if doubts.is_empty() {
                self.journey.deletes_done.push(index);
            }
            self.journey.deletes.remove(0);
        }
        self.go_on_behind(page, before).await
    }

    pub(super) fn ask(&self, part: Part) -> Ask {
        Ask {
            stream: self.order.dataset.name.model.to_string(),
            connection: Arc::clone(&self.order.connection),
            variant: self.order.dataset.name.variant.to_string(),
            part,
            started_at: self.journey.began,
        }
    }

    /// Asks the source until it answers, within its own rule for retries and this run's time.
    pub(super) async fn attempt(&mut self, call: SourceCall<'_>) -> Result<Page, RunStop> {
        let retry = self.source.retry();
        let seed = self.order.seed ^ self.journey.number ^ self.journey.record.requests;
        let mut backoff = Backoff::new(retry.from, retry.to, retry.jitter, Chance::from_seed(seed));
        loop {
            let source = Arc::clone(&self.source);
            let answer = self.within(async {
                match call {
                    SourceCall::Poll(ask, after) => source.poll(ask, after).await,
                    SourceCall::Fetch(ask, keys) => source.fetch(ask, keys).await,
                }
            });
            let failure = match answer.await? {
                Ok(page) => {
                    hit("poll.page_parsed")?;
                    return Ok(page);
                }
                Err(failure) => failure,
            };
            self.journey.record.requests += 1;
            if !failure.retry || backoff.tries() >= retry.max {
                return Err(RunStop::Failed(failure));
            }
            self.journey.record.retries += 1;
            let wait = backoff.next_wait().max(failure.retry_after.unwrap_or_default()).min(WAIT_MAX);
            self.tell_retry(&failure, wait);
            let clock = Arc::clone(&self.clock);
            self.within(async { clock.sleep(wait).await }).await?;
        }
    }

    /// Whoever watches learns why nothing happens for a while.
    fn tell_retry(&self, why: &Failure, wait: Duration) {
        let name = &self.order.dataset.name;
        let (source, stream, connection) = (&*name.source, &*name.model, &*name.connection);
        let (run_id, code) = (self.journey.record.id.as_str(), why.code);
        if wait < LONG_WAIT {
            return tracing::debug!(source, stream, connection, run_id, code, ?wait, %why, "an attempt failed and is repeated");
        }
        tracing::warn!(source, stream, connection, run_id, code, ?wait, %why, "an attempt failed and is repeated");
    }

    /// No page is asked for that the disk has no room for: the run goes on once there is some.
    async fn wait_for_space(&mut self) -> Result<(), RunStop> {
        let Some(why) = self.engine.refusing() else { return Ok(()) };
        let name = &self.order.dataset.name;
        let (source, stream, connection) = (&*name.source, &*name.model, &*name.connection);
        tracing::warn!(source, stream, connection, run_id = self.journey.record.id, %why, "the run waits");
        let engine = self.engine;
        match self.within(engine.until_taken()).await {
            Err(RunStop::Failed(_)) => Err(RunStop::Failed(Failure { retry: true, ..failure("disk_full", why) })),
            waited => Ok(waited??),
        }
    }

    /// Awaits `work` unless the run is told to end or its time is over.
    async fn within<T>(&mut self, work: impl Future<Output = T>) -> Result<T, RunStop> {
        let clock = Arc::clone(&self.clock);
        within(&mut self.halt, &*clock, (self.deadline, self.order.timeout), work).await
    }

    /// Commits a page: records, quarantine, notes, the place after it and the run's record, all as one.
    pub(super) async fn commit_page(&mut self, mut page: Page) -> Result<Receipt, RunStop> {
        let repeats = page.keep_one_each().filter(|_| !self.repeats_told);
        self.repeats_told |= repeats.is_some();
        page.warnings.extend(repeats);
        self.count(&page);
        let mut batch = Batch { cause: Some(Cause::run(self.journey.number)), ..Batch::default() };
        batch.pages.push(self.records(&page.observations));
        batch.marks = self.side_marks(&page)?;
        batch.marks.push(Mark::put(Keyspace::BOOKMARK, &scope(&self.order.dataset.name), self.journey.encode()));
        batch.marks.push(self.record_mark());
        if fault::planted("bookmark_before_its_page") {
            self.engine.put_marks(batch.marks.clone()).await?;
        }
        hit("poll.append_before")?;
        let receipt = match self.engine.commit(batch).await {
            // The page is to blame, not the engine: asked for in smaller pages it goes in.
            Err(Error::BadBatch(why)) => return Err(RunStop::Failed(failure("page_too_large", why))),
            other => other?,
        };
        pass("poll.append_after");
        self.pages += 1;
        let counts = receipt.counts_of(&self.order.dataset);
        self.journey.record.counts.add(&counts);
        self.take_in(&receipt, &counts, &page);
        (self.tell)(&self.journey.record, page.expected);
        Ok(receipt)
    }

    /// What the engine says of the page.
    fn take_in(&mut self, receipt: &Receipt, counts: &Counts, page: &Page) {
        let rejected: Vec<&String> = receipt.rejected.iter().map(|(_, why)| why).collect();
        if let Some(why) = rejected.first() {
            self.journey.proven = false;
            self.journey.set_aside += rejected.len() as u64;
            add_doubt(&mut self.journey.record, &format!("rejected: {why}"));
        }
        if page.not_modified > 0 && counts.ignored > 0 {
            // An unchanged page names records that are not here: what was kept of it does not fit the store any more.
            self.journey.forget_notes = true;
            if self.journey.part == Part::Full {
                self.journey.proven = false;
                add_doubt(
                    &mut self.journey.record,
                    "stale_validators: an unchanged page names records that are not stored",
                );
            }
        }
    }

    fn count(&mut self, page: &Page) {
        let record = &mut self.journey.record;
        record.pages += 1;
        record.requests += u64::from(page.requests);
        record.not_modified += u64::from(page.not_modified);
        record.quarantined += page.quarantined.len() as u64;
        record.warnings += page.warnings.len() as u64;
        for fault in page.quarantined.iter().chain(&page.warnings) {
            if record.samples.len() < SAMPLES_MAX {
                record.samples.push(sample(fault));
            }
        }
        if let Some(wait) = page.poll_hint {
            self.progress.not_before = Some(self.clock.now().plus(wait));
        }
        let whole = page.observations.iter().filter(|seen| matches!(seen.body, Body::Whole(_)));
        let greatest = whole.filter_map(|seen| seen.modified_at).max();
        self.journey.greatest_modified = self.journey.greatest_modified.max(greatest);
    }

    fn records(&self, observations: &[Observation]) -> PageBuilder {
        let mut page = self.engine.page(&self.order.dataset);
        for seen in observations {
            let (id, modified_at, observed_at) = (seen.id.as_str(), seen.modified_at, seen.observed_at);
            match &seen.body {
                Body::Whole(text) => page.save(id, modified_at, observed_at, text.as_bytes()),
                Body::Patch(text) => page.patch(id, modified_at, observed_at, text.as_bytes()),
                Body::Gone { deleted_at } => page.delete(id, modified_at, observed_at, *deleted_at),
            }
        }
        page
    }

    fn side_marks(&mut self, page: &Page) -> Result<Vec<Mark>, Error> {
        let scope = scope(&self.order.dataset.name);
        let note = |(key, value): &(String, Vec<u8>)| {
            let parts: Vec<&str> = scope.iter().copied().chain([key.as_str()]).collect();
            match value.is_empty() {
                true => Mark::delete(Keyspace::NOTE, &parts),
                false => Mark::put(Keyspace::NOTE, &parts, value.clone()),
            }
        };
        let mut marks: Vec<Mark> = page.notes.iter().map(note).collect();
        marks.extend(page.observations.iter().filter_map(|seen| self.quarantine.release(&seen.id)));
        for what in &page.quarantined {
            let entry = QuarantineEntry::new(what, &*self.journey.record.id, self.clock.now());
            let (mark, _) = self.quarantine.keep(self.engine, &entry.key_of_item(), &entry)?;
            marks.push(mark);
        }
        Ok(marks)
    }

    fn record_mark(&mut self) -> Mark {
        self.journey.record.bookmark = self.journey.bookmark.is_some();
        run_mark(&self.order.dataset.name, &self.journey.record)
    }

    /// Stores how the run ended, in the commit of its deletes, and announces it.
    async fn conclude(mut self, ended: Result<Vec<WindowOp>, RunStop>) -> Result<RunEndReport, Error> {
        let now = self.clock.now();
        let (close, outcome, error) = match ended {
            Ok(close) => (close, self.outcome(), None),
            Err(RunStop::Engine(error)) => return Err(error),
            Err(RunStop::Halted) => return self.halted_on_the_way().await,
            Err(RunStop::Cancelled) => (Vec::new(), Outcome::Cancelled, Some(cancelled())),
            Err(RunStop::Failed(failure)) if fault::planted("deletes_after_a_failed_page") => {
                (vec![WindowOp::Sweep(self.order.dataset.clone())], Outcome::Failed, Some(failure))
            }
            Err(RunStop::Failed(failure)) => (Vec::new(), Outcome::Failed, Some(failure)),
        };
        let finished = error.is_none();
        // A place that brought nothing but a refusal is no place to go on from.
        let goes_on =
            error.as_ref().is_some_and(|failure| self.pages > 0 || failure.retry || failure.code == CANCELLED);
        let record = &mut self.journey.record;
        (record.status, record.ended_at) = (outcome, Some(now));
        record.error = error.map(|failure| (failure.code.to_string(), failure.message));
        if finished && self.journey.read {
            self.progress.complete(&self.journey);
        }
        self.progress.failures = if outcome == Outcome::Failed { self.progress.failures.saturating_add(1) } else { 0 };
        self.progress.last_ended_at = Some(now);
        self.progress.last_outcome = Some(outcome);
        pass("poll.run_end");
        if close.iter().any(|op| matches!(op, WindowOp::Sweep(_) | WindowOp::SweepOf(..))) {
            pass("poll.delete_pass");
        }
        let batch = self.last_batch(close, finished, goes_on)?;
        let receipt = self.engine.commit(batch).await?;
        let counts = receipt.counts_of(&self.order.dataset);
        self.journey.record.counts.add(&counts);
        if counts.changes() > 0 {
            // The deletes of this very commit are known only now.
            let mark = self.record_mark();
            self.engine.commit(Batch { marks: vec![mark], ..Batch::default() }).await?;
        }
        self.engine.journal().write(self.journey.record.line(&self.order.dataset.name));
        (self.tell)(&self.journey.record, None);
        Ok(self.report())
    }

    /// The place is stored with the last page, but what that page did was known only after it.
    async fn halted_on_the_way(mut self) -> Result<RunEndReport, Error> {
        if self.pages > 0 {
            let scope = scope(&self.order.dataset.name);
            let marks = vec![Mark::put(Keyspace::BOOKMARK, &scope, self.journey.encode()), self.record_mark()];
            self.engine.commit(Batch { marks, ..Batch::default() }).await?;
        }
        Ok(self.report())
    }

    fn last_batch(&mut self, close: Vec<WindowOp>, finished: bool, goes_on: bool) -> Result<Batch, Error> {
        let name = Arc::clone(&self.order.dataset.name);
        let mut marks = Vec::new();
        if goes_on && (self.resumed || self.pages > 0) {
            marks.push(Mark::put(Keyspace::BOOKMARK, &scope(&name), self.journey.encode()));
        } else {
            self.journey.bookmark = None;
            marks.push(Mark::delete(Keyspace::BOOKMARK, &scope(&name)));
        }
        if finished && self.journey.part == Part::Full && !self.resumed {
            marks.extend(self.quarantine.release_unmet());
        }
        if self.journey.forget_notes {
            marks.extend(forget_notes(self.engine, &name)?);
        }
        if let Some((live, missing)) = self.journey.record.held {
            let window = self.engine.window_opened(&self.order.dataset);
            marks.push(hold(&name, None, &self.journey.record, (live, missing), window));
        }
        marks.extend(self.progress.keep_run(&name, self.journey.number));
        marks.push(self.progress.mark(&name));
        marks.push(self.record_mark());
        let end = run_end(&self.journey.record);
        Ok(Batch {
            cause: Some(Cause::run(self.journey.number)),
            close,
            marks,
            end_run: vec![(self.order.dataset.clone(), end)],
            ..Batch::default()
        })
    }

    fn outcome(&self) -> Outcome {
        let record = &self.journey.record;
        if record.held.is_some() {
            Outcome::Held
        } else if record.doubts.is_empty() && record.quarantined == 0 && self.journey.set_aside == 0 {
            Outcome::Complete
        } else {
            Outcome::Incomplete
        }
    }

    fn report(self) -> RunEndReport {
        RunEndReport {
            run: self.journey.number,
            record: self.journey.record,
            resumed: self.resumed,
            progress: self.progress,
        }
    }
}

impl RunState {
    fn new(number: u64, order: &Order, first: bool, now: Timestamp) -> RunState {
        let kind = match order.part {
            _ if first => "INITIAL",
            Part::Full => "FULL",
            _ => "INCREMENTAL",
        };
        let definition = order.definition.clone();
        let record = RunRecord::begun(number, &order.dataset.name, &order.sync, kind, definition, now);
        RunState {
            number,
            record,
            began: now,
            set_aside: 0,
            part: order.part,
            stage: RunStage::Listing,
            bookmark: None,
            deletes: order.deletes.clone(),
            deletes_done: Vec::new(),
            confirm: Confirm::Never,
            proven: false,
            read: false,
            provider_start: None,
            greatest_modified: None,
            forget_notes: false,
        }
    }

    /// The place behind a page is stored with it, what came of it is known only then: a run that was killed in between learns
    /// here what its last page did.
    fn catch_up(&mut self, noted: Counts) {
        let counts = &mut self.record.counts;
        let unknown = noted.rejected.saturating_sub(counts.rejected);
        (counts.added, counts.updated, counts.deleted) = (noted.added, noted.updated, noted.deleted);
        counts.rejected += unknown;
        if unknown > 0 {
            self.proven = false;
            self.set_aside += unknown;
            add_doubt(&mut self.record, &format!("rejected: {unknown} records of the page before an interruption"));
        }
    }

    /// The journey of a run that has ended, taken up by a new run. What was found wrong on the way concerns the same
    /// listing, so it stays.
    fn taken_up_by(mut self, number: u64, order: &Order, now: Timestamp) -> RunState {
        let fresh = RunState::new(number, order, false, now).record;
        let old = std::mem::replace(&mut self.record, fresh);
        (self.record.kind, self.record.doubts, self.record.samples) = (old.kind, old.doubts, old.samples);
        self.number = number;
        self
    }
}

/// Awaits `work` unless the run is told to end or its time, so long and over then, is up.
pub(super) async fn within<T>(
    halt: &mut watch::Receiver<Halt>,
    clock: &dyn Clock,
    (deadline, timeout): (Timestamp, Duration),
    work: impl Future<Output = T>,
) -> Result<T, RunStop> {
    tokio::select! {
        biased;
        stop = halted(halt) => Err(stop),
        () = clock.sleep_until(deadline) => Err(RunStop::Failed(too_long(timeout))),
        done = work => Ok(done),
    }
}

async fn halted(halt: &mut watch::Receiver<Halt>) -> RunStop {
    let told = halt.wait_for(|halt| *halt != Halt::No).await.map(|told| *told);
    match told {
        Ok(Halt::Cancel) => RunStop::Cancelled,
        Ok(_) => RunStop::Halted,
        // Nobody is left who could tell: the run goes its way.
        Err(_) => std::future::pending().await,
    }
}

pub(super) fn run_mark(name: &DatasetName, record: &RunRecord) -> Mark {
    Mark::put(Keyspace::RUN, &run_key(name, &record.id), serde_json::to_vec(record).unwrap_or_default())
}

pub(super) fn run_end(record: &RunRecord) -> RunEnd {
    let started_at = Some(record.started_at);
    RunEnd { sync: record.sync.clone(), kind: record.kind.clone(), started_at, error: record.error.clone() }
}

pub(super) fn add_doubt(record: &mut RunRecord, doubt: &str) {
    if record.doubts.len() < DOUBTS_MAX && !record.doubts.iter().any(|known| known == doubt) {
        record.doubts.push(doubt.to_string());
    }
}

fn sample(fault: &Quarantined) -> String {
    let id = fault.id.as_deref().unwrap_or("without id");
    format!("{id}: {}: {}", fault.code, fault.message)
}

const CANCELLED: &str = "cancelled";

pub(super) fn cancelled() -> Failure {
    failure(CANCELLED, "the run was cancelled; the next one goes on where it stopped".to_string())
}

fn too_long(timeout: Duration) -> Failure {
    let seconds = timeout.as_secs();
    let advice = "the next one goes on where it stopped; raise schedule.timeout if this is its usual length";
    Failure { retry: true, ..failure("timeout", format!("the run took longer than {seconds} s; {advice}")) }
}

fn nowhere() -> Failure {
    failure("bad_page", "the source gave a page that is neither the last nor followed by one".to_string())
}

pub(super) fn failure(code: &'static str, message: String) -> Failure {
    Failure::lasting(code, message)
}
