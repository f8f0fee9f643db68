//! A sync in TypeScript as a program of the engine: what its code writes becomes steps.

use super::host::{RecordsAsk, Stop, Writing, Written};
use super::runner::{Execute, Runner};
use super::steps::Steps;
use super::validate::ModelSchemas;
use crate::actions::Chain;
use crate::definition::FunctionSync;
use crate::http::limits::RequestPriority;
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::{Position, Record};
use syncline_engine::source::program::{EventAsk, LogLevel, Outlet, Program, ProgramAsk, RunKind};
use syncline_engine::source::{Connection, Failure};
use syncline_runtime::wire::{Answer, Limits};

/// How often an execution is begun again whose worker was lost through no fault of its own.
const LOST_MAX: u32 = 5;
/// Before it is begun again.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// Code of the failure of an event whose worker was lost: it is to be executed again, and has not failed.
pub const LOST: &str = "worker_lost";
/// Failures of the outlet that the code may catch.
const CAUGHT: [&str; 1] = ["no_window"];

/// A sync whose code is a function.
pub struct FunctionProgram {
    /// What it is.
    pub sync: FunctionSync,
    /// What runs it.
    pub runner: Runner,
    /// What records are checked by, or why they cannot be.
    pub schemas: Result<ModelSchemas, Failure>,
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
                Err(Stop::Fault(fault)) => return Err(self.runner.failed(&ask.connection, &fault)),
                Err(Stop::Lost(why)) if lost < LOST_MAX => {
                    lost += 1;
                    let line = format!("{why}; the function goes on from its checkpoint in another one");
                    out.log(LogLevel::Warn, line).await?;
                    self.runner.clock.sleep(LOST_PAUSE).await;
                }
                Err(Stop::Lost(why)) => return Err(Failure::lasting("killed", why.to_string())),
            }
        }
    }

    fn version(&self) -> String {
        self.runner.code.current().hash.clone()
    }

    async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        let input: Value = serde_json::from_slice(&ask.event)
            .map_err(|why| Failure::lasting("bad_event", format!("the event is not kept as JSON: {why}")))?;
        let mut about = about(&ask.sync, &ask.variant, ask.checkpoint.as_deref());
        about.insert("input".to_owned(), input);
        let order = Execute {
            kind: "webhook",
            about,
            limits: Limits::WEBHOOK,
            priority: RequestPriority::Fetch,
            ..self.order(&ask.connection, &ask.models, ask.number)
        };
        match self.write(order, out).await {
            Ok(()) => Ok(()),
            Err(Stop::Failed(why)) => Err(why),
            Err(Stop::Fault(fault)) => Err(self.runner.failed(&ask.connection, &fault)),
            // Nothing of it was committed, and it was not to blame.
            Err(Stop::Lost(why)) => Err(Failure::passing(LOST, why.to_string())),
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
        let priority = if ask.checkpoint.is_some() { RequestPriority::Poll } else { RequestPriority::Backfill };
        let mut about = about(&ask.sync, &ask.variant, ask.checkpoint.as_deref());
        if let Some(last) = ask.last_success.filter(|_| ask.kind != RunKind::Initial) {
            about.insert("lastSyncDate".to_owned(), json!(last.0 / 1_000));
        }
        self.write(Execute { about, priority, ..self.order(&ask.connection, &ask.models, ask.run) }, out).await
    }

    /// A run with nothing to tell the code. `number` is that of the run or the request, so that chance differs between them.
    fn order<'a>(&'a self, connection: &'a Arc<Connection>, models: &'a [String], number: u64) -> Execute<'a> {
        Execute {
            file: &self.sync.file,
            kind: "exec",
            connection,
            models,
            about: Map::new(),
            limits: Limits::EXEC,
            priority: RequestPriority::Poll,
            seed: number ^ self.runner.clock.now().0.unsigned_abs(),
            chain: Chain::default(),
        }
    }

    /// Executes the code; what it writes goes to `out`.
    async fn write(&self, order: Execute<'_>, out: &mut Outlet) -> Result<(), Stop> {
        let connection = order.connection;
        let schemas = self.schemas.as_ref().map_err(|why| Stop::Failed(why.clone()))?;
        let mut writing = StepWriting { program: self, schemas, connection, out, steps: Steps::default() };
        self.runner.execute(order, &mut writing).await.map(drop)
    }

    /// What a file that mentions it deletes at its call is what this run has not saved, from its beginning.
    fn deletes_what_earlier_executions_saved(&self) -> bool {
        let code = self.runner.code.current();
        code.modules
            .get(&self.sync.file)
            .is_some_and(|module| module.code.contains("deleteRecordsFromPreviousExecutions"))
    }
}

/// What the code is told of its sync.
fn about(sync: &str, variant: &str, checkpoint: Option<&[u8]>) -> Map<String, Value> {
    let checkpoint: Option<Value> = checkpoint.and_then(|bytes| serde_json::from_slice(bytes).ok());
    let known =
        [("variant", json!(variant)), ("syncName", json!(sync)), ("checkpoint", checkpoint.unwrap_or_default())];
    known.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the code writes becomes steps of the engine.
struct StepWriting<'a> {
    program: &'a FunctionProgram,
    schemas: &'a ModelSchemas,
    connection: &'a Connection,
    out: &'a mut Outlet,
    steps: Steps,
}

#[async_trait]
impl Writing for StepWriting<'_> {
    async fn take(&mut self, written: Written) -> Result<(), Failure> {
        let Written { writes, requests, checkpoint } = written;
        let refused = writes.refused;
        let misfits = self.schemas.check(&writes)?;
        let (source, connection) = (&self.program.runner.source, self.connection);
        let mut step = self.steps.of(writes, requests, |text| source.veiled(connection, text));
        if refused {
            self.program.sync.models.iter().for_each(|model| step.model(model).refused += 1);
        }
        misfits.into_iter().for_each(|why| step.log(LogLevel::Warn, source.veiled(connection, &why)));
        step.checkpoint = checkpoint;
        self.out.hand_over(step).await
    }

    async fn records(&mut self, ask: RecordsAsk) -> Result<Answer, Failure> {
        let answer = match ask {
            RecordsAsk::CloseWindow(model) => self.out.window_end(&model).await.map(|ids| Answer::json(&ids.into())),
            RecordsAsk::ById(model, ids) => {
                let live = |record: Option<Record>| record.and_then(|record| shown(&record));
                let records = self.out.records_by_ids(&model, ids).await;
                records.map(|records| Answer::Json(list(records.into_iter().filter_map(live))))
            }
            RecordsAsk::After(model, after) => {
                let place = after.and_then(|text| text.parse().ok()).map_or(Position::START, Position);
                self.out.list(&model, place).await.map(|page| {
                    let records = list(page.records.iter().filter_map(shown));
                    let next = page.next.map_or("null".to_owned(), |place| format!("\"{}\"", place.0));
                    Answer::Json([b"{\"records\":", records.as_slice(), b",\"next\":", next.as_bytes(), b"}"].concat())
                })
            }
        };
        // What the function did wrong it may catch; a failure of the engine ends the run.
        match answer {
            Err(why) if CAUGHT.contains(&why.code) => Ok(Answer::failed(why.code, why.message)),
            answer => answer,
        }
    }
}

/// A record as code sees it; `None` if it is deleted or its payload was dropped.
fn shown(record: &Record) -> Option<Vec<u8>> {
    let there = record.meta.deleted_at.is_none() && record.meta.pruned_at.is_none();
    there.then(|| record.payload.to_vec())
}

fn list(records: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut json = vec![b'['];
    for (at, record) in records.enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&record);
    }
    json.push(b']');
    json
}
