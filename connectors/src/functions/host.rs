//! One execution of a function, from its begin to its end: what it asks is answered, and what it writes is handed on.

use super::by_hand::Recording;
use super::execution::Execution;
use super::members::Members;
use super::requests::{Sender, is_failure};
use super::runner::Runner;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::program::Requests;
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::Chance;
use syncline_runtime::wire::{Answer, Ask, Call, Fault, Request, Writes};
use syncline_runtime::worker::{Gone, Heard};
use tokio::task::JoinSet;

/// Why an execution did not end well.
pub(super) enum Stop {
    /// The code failed.
    Fault(Box<Fault>),
    /// What is around it failed.
    Failed(Failure),
    /// Its worker was lost through no fault of its own.
    Lost(Gone),
}

impl From<Failure> for Stop {
    fn from(why: Failure) -> Stop {
        Stop::Failed(why)
    }
}

/// What was written between two requests.
pub(super) struct Written {
    /// What the code wrote.
    pub writes: Writes,
    /// Of its requests since the one before.
    pub requests: Requests,
    /// The checkpoint that ends it; the inner `None` removes the one there is.
    pub checkpoint: Option<Option<Bytes>>,
}

/// Where what the code writes goes, and where the records are that it reads.
#[async_trait]
pub(super) trait Writing: Send {
    /// Takes what was written, behind all before it.
    async fn take(&mut self, written: Written) -> Result<(), Failure>;

    /// Answers what is asked of records. What the function did wrong is an answer that throws; an error ends the execution.
    async fn records(&mut self, ask: RecordsAsk) -> Result<Answer, Failure>;
}

/// What is asked of records.
pub(super) enum RecordsAsk {
    /// The window of this model ends.
    CloseWindow(String),
    /// Records of a model by their ids.
    ById(String, Vec<String>),
    /// Records of a model behind a place.
    After(String, Option<String>),
}

/// What an execution is doing.
pub(super) struct Host<'a> {
    runner: &'a Runner,
    connection: Arc<Connection>,
    execution: Execution,
    sender: Sender,
    members: Arc<Members>,
    /// Calls that are being answered.
    working: JoinSet<(u32, Answer)>,
    /// When each request that is open was sent.
    open: BTreeMap<u32, Timestamp>,
    /// Of requests since the last step.
    requests: Requests,
    chance: Chance,
    recording: Option<&'a Recording>,
    /// Under which numbers calls that are open are written down.
    recorded: BTreeMap<u32, Recorded>,
}

/// A call that is written down when it is answered.
enum Recorded {
    Request(usize),
    Member(String),
}

impl<'a> Host<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        connection: Arc<Connection>,
        execution: Execution,
        sender: Sender,
        members: Members,
        chance: Chance,
        recording: Option<&'a Recording>,
    ) -> Host<'a> {
        Host {
            runner,
            connection,
            execution,
            sender,
            members: Arc::new(members),
            working: JoinSet::new(),
            open: BTreeMap::new(),
            requests: Requests::default(),
            chance,
            recording,
            recorded: BTreeMap::new(),
        }
    }

    /// Answers until the code ends; its output, if it has one.
    pub(super) async fn finish<W: Writing>(mut self, writing: &mut W) -> Result<Option<String>, Stop> {
        loop {
            tokio::select! {
                said = self.execution.next() => match said {
                    Some(Heard::Call(call)) => self.called(call, writing).await?,
                    Some(Heard::Lost(why)) => return Err(Stop::Lost(why)),
                    Some(Heard::Ended(ended)) => {
                        self.hand_on(ended.writes, None, writing).await?;
                        return ended.result.map_err(|fault| Stop::Fault(Box::new(fault)));
                    }
                    None => return Err(Failure::lasting("killed", "the function ended without a word").into()),
                },
                Some(done) = self.working.join_next() => match done {
                    Ok((call, answer)) => self.answered(call, answer).await,
                    Err(error) => {
                        let message = format!("a call of the function died: {error}");
                        return Err(Failure::lasting("killed", message).into());
                    }
                },
            }
        }
    }

    async fn called<W: Writing>(&mut self, call: Call, writing: &mut W) -> Result<(), Failure> {
        let Call { id, writes, ask } = call;
        let checkpoint = if let Ask::Checkpoint(json) = &ask { Some(json.clone().map(Bytes::from)) } else { None };
        self.hand_on(writes, checkpoint, writing).await?;
        let asked = match ask {
            Ask::Flush | Ask::Checkpoint(_) => {
                self.execution.answer(id, Answer::Done).await;
                return Ok(());
            }
            Ask::Request(request) => {
                self.request(id, request).await;
                return Ok(());
            }
            Ask::Sleep { millis } => {
                let clock = self.runner.clock.clone();
                self.working.spawn(async move {
                    clock.sleep(Duration::from_millis(millis)).await;
                    (id, Answer::Done)
                });
                return Ok(());
            }
            Ask::Member { name, arguments } => {
                if self.recording.is_some() {
                    self.recorded.insert(id, Recorded::Member(name.clone()));
                }
                let members = self.members.clone();
                self.working.spawn(async move { (id, members.answer(&name, &arguments).await) });
                return Ok(());
            }
            Ask::CloseWindow { model } => RecordsAsk::CloseWindow(model),
            Ask::Records { model, ids } => RecordsAsk::ById(model, ids),
            Ask::List { model, after } => RecordsAsk::After(model, after),
        };
        let answer = writing.records(asked).await?;
        self.execution.answer(id, answer).await;
        Ok(())
    }

    async fn request(&mut self, call: u32, request: Request) {
        let connection = match self.bearer(&request) {
            Ok(connection) => connection,
            Err(refused) => return self.execution.answer(call, refused).await,
        };
        if let Some(recording) = self.recording {
            let number = recording.asked(&request, &self.runner.source, &connection);
            self.recorded.insert(call, Recorded::Request(number));
        }
        let now = self.runner.clock.now();
        self.open.insert(call, now);
        self.requests.sent += 1;
        self.requests.earliest = Some(self.requests.earliest.map_or(now, |first| first.min(now)));
        let (sender, seed) = (self.sender.clone(), self.chance.number());
        self.working.spawn(async move { (call, sender.send(connection, request, seed).await) });
    }

    /// Whose request it is: the function's own connection, or another of its source.
    fn bearer(&self, request: &Request) -> Result<Arc<Connection>, Answer> {
        let own = &self.runner.source.definition().source;
        if let Some(source) = request.source.as_ref().filter(|source| *source != own) {
            let message =
                format!("a request in the name of another source (`{source}`) is not supported by this release");
            return Err(Answer::failed("unsupported", message));
        }
        let Some(id) = request.connection.as_ref().filter(|id| **id != self.connection.id) else {
            return Ok(self.connection.clone());
        };
        let other = self.runner.accounts.connection(&self.connection.environment, own, id);
        other.map_err(|why| Answer::failed(why.code, why.message))
    }

    async fn answered(&mut self, call: u32, answer: Answer) {
        if self.open.remove(&call).is_some() && is_failure(&answer) {
            self.requests.failed += 1;
        }
        if let Some((recording, recorded)) = self.recording.zip(self.recorded.remove(&call)) {
            match recorded {
                Recorded::Request(number) => recording.answered(number, &answer),
                Recorded::Member(name) => recording.member(&name, &answer),
            }
        }
        self.execution.answer(call, answer).await;
    }

    async fn hand_on<W: Writing>(
        &mut self,
        writes: Writes,
        checkpoint: Option<Option<Bytes>>,
        writing: &mut W,
    ) -> Result<(), Failure> {
        if writes.is_empty() && checkpoint.is_none() && self.requests.failed == 0 {
            return Ok(());
        }
        if let Some(recording) = self.recording {
            recording.wrote(&writes);
        }
        let requests = std::mem::take(&mut self.requests);
        // Those that are still open count to the next step as well: their answers were true no later than they were sent.
        self.requests.earliest = self.open.values().min().copied();
        writing.take(Written { writes, requests, checkpoint }).await
    }
}
