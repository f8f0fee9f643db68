//! An action in TypeScript: one call of it, from its input to its output or to the reason why there is none. A function on an event
//! is called in the same way, and has neither.
//!
//! Promises: an action is begun once; only if its worker was lost through no fault of its own, and it has asked for nothing that
//! cannot be taken back, it is begun again. Each request that changes something at the provider is logged with its action.

use super::host::{RecordsAsk, Stop, Writing, Written};
use super::runner::{Execute, Runner};
use crate::actions::{ActionFailure, Chain, Effects};
use crate::http::limits::RequestPriority;
use async_trait::async_trait;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::Chance;
use syncline_runtime::compile::FunctionKind;
use syncline_runtime::wire::{Answer, Fault, Limits, Line};

/// How often an action is begun again whose worker was lost before it did anything.
const LOST_MAX: u32 = 2;
/// Of an answer of the provider, in a message.
const ANSWER_CHARS: usize = 300;

/// An action, or what is done on an event, whose code is a function.
pub struct FunctionAction {
    /// Its name.
    pub name: String,
    /// Which of the two.
    pub kind: FunctionKind,
    /// Its module.
    pub file: String,
    /// What runs it.
    pub runner: Runner,
}

/// One call of an action.
pub struct ActionAsk {
    /// For whom.
    pub connection: Arc<Connection>,
    /// What it is given; nothing is `undefined`.
    pub input: Option<Value>,
    /// What it is part of: nothing, or the execution that calls it.
    pub chain: Chain,
    /// How long it may take.
    pub wall: Duration,
}

/// As another function is told that called an action.
pub(super) fn told(why: ActionFailure) -> Answer {
    let payload = why.payload.filter(|_| why.code == ActionFailure::THROWN).map(|payload| payload.to_string());
    Answer::Failed { code: why.code.to_owned(), message: why.message, payload }
}

impl FunctionAction {
    /// Runs it; gives its output as JSON.
    pub async fn call(&self, ask: ActionAsk) -> Result<String, ActionFailure> {
        let mut chain = ask.chain.within(&self.name);
        let effects = chain.effects.get_or_insert_default().clone();
        let mut lost = 0;
        let until = self.runner.clock.now().plus(ask.wall);
        loop {
            let ended = tokio::select! {
                ended = self.execute(&ask, &chain) => ended,
                () = self.runner.clock.sleep_until(until) => return Err(self.timed_out(ask.wall, &effects)),
            };
            match ended {
                Ok(output) => return self.shown(&ask.connection, output),
                Err(Stop::Fault(fault)) => return Err(self.fault(&ask.connection, &fault)),
                Err(Stop::Failed(why)) => return Err(why.into()),
                Err(Stop::Lost(_)) if !effects.any() && lost < LOST_MAX => lost += 1,
                Err(Stop::Lost(why)) => return Err(cut_off(&effects, "killed", &why.to_string())),
            }
        }
    }

    async fn execute(&self, ask: &ActionAsk, chain: &Chain) -> Result<Option<String>, Stop> {
        let mut about = Map::new();
        about.extend(ask.input.clone().map(|input| ("input".to_owned(), input)));
        let order = Execute {
            file: &self.file,
            kind: if self.kind == FunctionKind::OnEvent { "event" } else { "action" },
            connection: &ask.connection,
            models: &[],
            about,
            limits: Limits::ACTION,
            priority: RequestPriority::Fetch,
            seed: Chance::from_system().number(),
            chain: chain.clone(),
        };
        self.runner.execute(order, &mut LineWriting { action: self, connection: &ask.connection }).await
    }

    fn timed_out(&self, wall: Duration, effects: &Effects) -> ActionFailure {
        let message = format!("the function was ended after {} s", wall.as_secs());
        let message = match effects.any() {
            true => format!("{message}; what it has asked of its provider by then may have happened"),
            false => message,
        };
        ActionFailure::new(ActionFailure::TIMEOUT, message)
    }

    fn fault(&self, connection: &Connection, fault: &Fault) -> ActionFailure {
        let source = &self.runner.source;
        if let Some((_, payload)) = fault.payload.as_deref() {
            let payload = serde_json::from_str(&source.masked(connection, payload)).unwrap_or_default();
            let message = source.veiled(connection, &fault.to_string());
            return ActionFailure { code: ActionFailure::THROWN, message, payload: Some(payload) };
        }
        let message = |said: &str| source.veiled(connection, said);
        match (fault.code.as_str(), fault.answer.as_deref()) {
            ("invalid_input", _) => ActionFailure::new(ActionFailure::INPUT, message(&fault.message)),
            ("invalid_output", _) => {
                let said = format!("{}; the action has run, and what it did has happened", fault.message);
                ActionFailure::new(ActionFailure::OUTPUT, message(&said))
            }
            (_, Some((status, body))) => {
                let begin: String = body.chars().take(ANSWER_CHARS).collect();
                let said = format!("{fault}\n    the provider answered {status}: {begin}");
                let payload = serde_json::from_str(&source.masked(connection, body)).ok();
                ActionFailure { code: ActionFailure::ANSWERED, message: message(&said), payload }
            }
            _ => self.runner.failed(connection, fault).into(),
        }
    }

    /// An output without secrets, unless the source shows them to its functions.
    fn shown(&self, connection: &Connection, output: Option<String>) -> Result<String, ActionFailure> {
        let output = output.unwrap_or_else(|| "null".to_owned());
        if self.runner.source.definition().functions.visible {
            return Ok(output);
        }
        let masked = self.runner.source.masked(connection, &output);
        // A secret that stands there as a number leaves a hole.
        match serde_json::from_str::<IgnoredAny>(&masked) {
            Ok(_) => Ok(masked),
            Err(_) => {
                let message =
                    "the output holds a secret of the connection as a number; leave it out: the action has run";
                Err(ActionFailure::new(ActionFailure::OUTPUT, message))
            }
        }
    }
}

/// What is told of an execution that was cut off.
fn cut_off(effects: &Effects, code: &'static str, why: &str) -> ActionFailure {
    match effects.any() {
        true => {
            let message = format!("{why}; the function had asked for changes at its provider, which may have happened");
            ActionFailure::new(ActionFailure::UNKNOWN_OUTCOME, message)
        }
        false => ActionFailure::new(code, why),
    }
}

/// What an action writes is lines of the log.
struct LineWriting<'a> {
    action: &'a FunctionAction,
    connection: &'a Connection,
}

#[async_trait]
impl Writing for LineWriting<'_> {
    async fn take(&mut self, written: Written) -> Result<(), Failure> {
        written.writes.lines.iter().for_each(|line| self.log(line));
        Ok(())
    }

    async fn records(&mut self, _: RecordsAsk) -> Result<Answer, Failure> {
        Ok(Answer::failed("unsupported", "unsupported: records are those of syncs; this function has none"))
    }
}

impl LineWriting<'_> {
    fn log(&self, line: &Line) {
        let runner = &self.action.runner;
        let text = runner.source.veiled(self.connection, &line.text);
        let (source, action) = (&runner.source.definition().source, &self.action.name);
        let connection = &self.connection.id;
        match line.level.as_str() {
            "debug" => tracing::debug!(source, connection, action, "{text}"),
            "warn" => tracing::warn!(source, connection, action, "{text}"),
            "error" => tracing::error!(source, connection, action, "{text}"),
            _ => tracing::info!(source, connection, action, "{text}"),
        }
    }
}
