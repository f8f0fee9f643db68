//! One execution of a function: what it asks is answered, what it writes becomes steps.

use super::execution::{Execution, Executor};
use super::members::{Accounts, Members};
use super::requests::{Sender, is_failure};
use super::secrets::Handles;
use super::steps::Steps;
use crate::definition::FunctionSync;
use crate::http::limits::RequestPriority;
use crate::rest::RestSource;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::{Position, Record, Timestamp};
use syncline_engine::source::program::{LogLevel, Outlet, Program, ProgramAsk, Requests, RunKind};
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::{Chance, Clock};
use syncline_runtime::Modules;
use syncline_runtime::wire::{Answer, Ask, Call, Fault, Invocation, Limits, Request, Writes};
use syncline_runtime::worker::{Gone, Heard};
use tokio::task::JoinSet;

/// How often an execution is begun again whose worker was lost through no fault of its own.
const LOST_MAX: u32 = 5;
/// Before it is begun again.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// Faults of code that have a word of their own; every other is a `script_error`.
const FAULTS: [&str; 12] = [
    "cpu_time",
    "output_too_large",
    "host_not_allowed",
    "invalid_metadata",
    "killed",
    "no_thread",
    "no_window",
    "out_of_memory",
    "request_failed",
    "stuck",
    "too_many_requests",
    "unsupported",
];

/// A sync whose code is a function.
pub struct FunctionProgram {
    /// What it is.
    pub sync: FunctionSync,
    /// The code it may import.
    pub modules: Arc<Modules>,
    /// What sends its requests.
    pub source: Arc<RestSource>,
    /// Who keeps its connections.
    pub accounts: Arc<dyn Accounts>,
    /// Where the code runs.
    pub executor: Executor,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why an execution ended without an end of the code.
enum Stop {
    /// The run failed.
    Failed(Failure),
    /// Its worker was lost: another execution goes on from the checkpoint.
    Lost(Gone),
}

impl From<Failure> for Stop {
    fn from(why: Failure) -> Stop {
        Stop::Failed(why)
    }
}

#[async_trait]
impl Program for FunctionProgram {
    async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        let mut lost = 0;
        loop {
            let checkpoint = out.checkpoint().cloned();
            match self.execute(&ProgramAsk { checkpoint, ..ask.clone() }, out).await {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(why)) => return Err(why),
                Err(Stop::Lost(why)) if lost < LOST_MAX => {
                    lost += 1;
                    let line = format!("{why}; the function goes on from its checkpoint in another one");
                    out.log(LogLevel::Warn, line).await?;
                    self.clock.sleep(LOST_PAUSE).await;
                }
                Err(Stop::Lost(why)) => return Err(Failure::lasting("killed", why.to_string())),
            }
        }
    }
}

impl FunctionProgram {
    /// One execution, from the checkpoint.
    async fn execute(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Stop> {
        if self.deletes_what_earlier_executions_saved() {
            for model in &ask.models {
                out.window_start(model).await?;
            }
        }
        let mut chance = Chance::from_seed(ask.run ^ self.clock.now().0.unsigned_abs());
        let handles = Arc::new(Handles::new(&self.source.definition().functions, &ask.connection, &mut chance));
        let invocation = self.invocation(ask, chance.number());
        let execution = self.executor.begin(&ask.connection.environment, &self.modules, invocation).await;
        let execution = execution.map_err(Stop::Lost)?;
        let lane = if ask.checkpoint.is_some() { RequestPriority::Poll } else { RequestPriority::Backfill };
        let sender = Sender { source: self.source.clone(), clock: self.clock.clone(), handles: handles.clone(), lane };
        let members = Members {
            source: self.source.clone(),
            accounts: self.accounts.clone(),
            connection: ask.connection.clone(),
            handles,
            metadata: Mutex::new(ask.connection.metadata.clone()),
        };
        let host = Host {
            program: self,
            connection: ask.connection.clone(),
            execution,
            sender,
            members: Arc::new(members),
            steps: Steps::default(),
            working: JoinSet::new(),
            open: BTreeMap::new(),
            requests: Requests::default(),
            chance,
        };
        host.finish(out).await
    }

    /// What a file that mentions it deletes at its call is what this run has not saved, from its beginning.
    fn deletes_what_earlier_executions_saved(&self) -> bool {
        let module = self.modules.modules.get(&self.sync.file);
        module.is_some_and(|module| module.code.contains("deleteRecordsFromPreviousExecutions"))
    }

    fn invocation(&self, ask: &ProgramAsk, seed: u64) -> Invocation {
        let definition = self.source.definition();
        let rules = &definition.functions;
        let millis = |at: Timestamp| at.0 / 1_000;
        let checkpoint = ask.checkpoint.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let about = json!({
            "kind": "exec",
            "connectionId": ask.connection.id,
            "providerConfigKey": definition.source,
            "provider": definition.preset.as_deref().unwrap_or(&definition.source),
            "environmentName": ask.connection.environment,
            "variant": ask.variant,
            "syncName": ask.sync,
            "lastSyncDate": ask.last_success.filter(|_| ask.kind != RunKind::Initial).map(millis),
            "checkpoint": checkpoint.unwrap_or(serde_json::Value::Null),
            "paginate": rules.paginate,
        });
        let usual = Limits::EXEC;
        let limits = Limits {
            memory: rules.limits.memory.unwrap_or(usual.memory),
            cpu: rules.limits.cpu.unwrap_or(usual.cpu),
            ..usual
        };
        let models = ask.models.clone();
        Invocation { file: self.sync.file.clone(), about: about.to_string(), models, limits, now: None, seed }
    }
}

/// What an execution is doing.
struct Host<'a> {
    program: &'a FunctionProgram,
    connection: Arc<Connection>,
    execution: Execution,
    sender: Sender,
    members: Arc<Members>,
    steps: Steps,
    /// Calls that are being answered.
    working: JoinSet<(u32, Answer)>,
    /// When each request that is open was sent.
    open: BTreeMap<u32, Timestamp>,
    /// Of requests since the last step.
    requests: Requests,
    chance: Chance,
}

impl Host<'_> {
    async fn finish(mut self, out: &mut Outlet) -> Result<(), Stop> {
        loop {
            tokio::select! {
                said = self.execution.next() => match said {
                    Some(Heard::Call(call)) => self.called(call, out).await?,
                    Some(Heard::Lost(why)) => return Err(Stop::Lost(why)),
                    Some(Heard::Ended(ended)) => {
                        self.hand_over(ended.writes, None, out).await?;
                        return ended.result.map(drop).map_err(|fault| self.failed(&fault).into());
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

    async fn called(&mut self, call: Call, out: &mut Outlet) -> Result<(), Failure> {
        let Call { id, writes, ask } = call;
        let checkpoint = if let Ask::Checkpoint(json) = &ask { Some(json.clone().map(Bytes::from)) } else { None };
        self.hand_over(writes, checkpoint, out).await?;
        match ask {
            Ask::Flush | Ask::Checkpoint(_) => self.execution.answer(id, Answer::Done).await,
            Ask::Request(request) => {
                let connection = match self.bearer(&request) {
                    Ok(connection) => connection,
                    Err(refused) => {
                        self.execution.answer(id, refused).await;
                        return Ok(());
                    }
                };
                let now = self.program.clock.now();
                self.open.insert(id, now);
                self.requests.sent += 1;
                self.requests.earliest = Some(self.requests.earliest.map_or(now, |first| first.min(now)));
                let (sender, seed) = (self.sender.clone(), self.chance.number());
                self.working.spawn(async move { (id, sender.send(connection, request, seed).await) });
            }
            Ask::CloseWindow { model } => {
                let answer = out.window_end(&model).await.map(|ids| Answer::json(&ids.into()));
                self.settle(id, answer).await?;
            }
            Ask::Records { model, ids } => {
                let records = out.records_by_ids(&model, ids).await;
                let live = |record: Option<Record>| record.and_then(|record| shown(&record));
                let answer = records.map(|records| list(records.into_iter().filter_map(live)));
                self.settle(id, answer).await?;
            }
            Ask::List { model, after } => {
                let place = after.and_then(|text| text.parse().ok()).map_or(Position::START, Position);
                let answer = out.list(&model, place).await.map(|page| {
                    let records = list(page.records.iter().filter_map(shown));
                    let next = page.next.map_or("null".to_owned(), |place| format!("\"{}\"", place.0));
                    let Answer::Json(records) = records else { return records };
                    Answer::Json([b"{\"records\":", records.as_slice(), b",\"next\":", next.as_bytes(), b"}"].concat())
                });
                self.settle(id, answer).await?;
            }
            Ask::Sleep { millis } => {
                let clock = self.program.clock.clone();
                self.working.spawn(async move {
                    clock.sleep(Duration::from_millis(millis)).await;
                    (id, Answer::Done)
                });
            }
            Ask::Member { name, arguments } => {
                let members = self.members.clone();
                self.working.spawn(async move { (id, members.answer(&name, &arguments).await) });
            }
        }
        Ok(())
    }

    /// Whose request it is: the function's own connection, or another of its source.
    fn bearer(&self, request: &Request) -> Result<Arc<Connection>, Answer> {
        let own = &self.program.source.definition().source;
        if let Some(source) = request.source.as_ref().filter(|source| *source != own) {
            let message =
                format!("a request in the name of another source (`{source}`) is not supported by this release");
            return Err(Answer::failed("unsupported", message));
        }
        let Some(id) = request.connection.as_ref().filter(|id| **id != self.connection.id) else {
            return Ok(self.connection.clone());
        };
        self.program.accounts.connection(&self.connection.environment, own, id).ok_or_else(|| {
            let message = format!("there is no connection `{id}` of `{own}` in this environment");
            Answer::failed("unknown_connection", message)
        })
    }

    /// What the engine answers to a call. What the function did wrong it may catch; a failure of the engine ends the run.
    async fn settle(&mut self, call: u32, answer: Result<Answer, Failure>) -> Result<(), Failure> {
        match answer {
            Ok(answer) => self.execution.answer(call, answer).await,
            Err(why) if why.code == "no_window" => {
                self.execution.answer(call, Answer::failed(why.code, why.message)).await;
            }
            Err(why) => return Err(why),
        }
        Ok(())
    }

    async fn answered(&mut self, call: u32, answer: Answer) {
        if self.open.remove(&call).is_some() && is_failure(&answer) {
            self.requests.failed += 1;
        }
        self.execution.answer(call, answer).await;
    }

    async fn hand_over(
        &mut self,
        writes: Writes,
        checkpoint: Option<Option<Bytes>>,
        out: &mut Outlet,
    ) -> Result<(), Failure> {
        if writes.is_empty() && checkpoint.is_none() && self.requests.failed == 0 {
            return Ok(());
        }
        let refused = writes.refused;
        let (source, connection) = (&self.program.source, &self.connection);
        let requests = std::mem::take(&mut self.requests);
        let mut step = self.steps.of(writes, requests, |text| source.veiled(connection, text));
        if refused {
            self.program.sync.models.iter().for_each(|model| step.model(model).refused += 1);
        }
        step.checkpoint = checkpoint;
        // Those that are still open count to the next step as well: their answers were true no later than they were sent.
        self.requests.earliest = self.open.values().min().copied();
        out.hand_over(step).await
    }

    fn failed(&self, fault: &Fault) -> Failure {
        let code = FAULTS.iter().find(|known| **known == fault.code).copied().unwrap_or("script_error");
        let mut message = fault.to_string();
        if let Some(answer) = &fault.answer {
            let (status, body) = (&answer.0, answer.1.chars().take(300).collect::<String>());
            message.push_str(&format!("\n    the provider answered {status}: {body}"));
        }
        let status = fault.answer.as_ref().map(|answer| answer.0);
        let message = self.program.source.veiled(&self.connection, &message);
        Failure { status, ..Failure::lasting(code, message) }
    }
}

/// A record as code sees it; `None` if it is deleted or its payload was dropped.
fn shown(record: &Record) -> Option<Vec<u8>> {
    let there = record.meta.deleted_at.is_none() && record.meta.pruned_at.is_none();
    there.then(|| record.payload.to_vec())
}

fn list(records: impl Iterator<Item = Vec<u8>>) -> Answer {
    let mut json = vec![b'['];
    for (at, record) in records.enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&record);
    }
    json.push(b']');
    Answer::Json(json)
}
