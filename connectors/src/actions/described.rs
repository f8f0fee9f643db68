//! An action that a definition describes: one call of it, from its input to its output or to the reason why there is none.
//!
//! Promises: nothing is sent before the input fits its schema; a request that may have had an effect is sent a second time only if
//! the action says how the provider knows it again, or its method changes nothing twice; what the last answer says of a record is
//! handed out with it, also where the output is none.

use super::chain::Chain;
use super::failure::ActionFailure;
use crate::definition::{Action, ActionStep};
use crate::expr::Vars;
use crate::http::MASK;
use crate::mapping::{Mapped, compile, fault};
use crate::rest::RestSource;
use crate::rest::act::{ActionAnswer, ActionRefusal, ActionValues};
use jsonschema::Validator;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::{Connection, Failure, Observation};
use syncline_engine::time::{Backoff, Chance, Clock};

/// Most bytes of an output.
const OUTPUT_MAX: usize = 2 << 20;
/// Most records of one answer.
const RECORDS_MAX: usize = 1_000;

/// An action of a definition. Cheap to clone.
#[derive(Clone)]
pub struct DescribedAction {
    action: Arc<Action>,
    source: Arc<RestSource>,
    clock: Arc<dyn Clock>,
    input: Option<Arc<Validator>>,
    output: Option<Arc<Validator>>,
}

/// One call of it.
pub struct DescribedAsk {
    /// For whom.
    pub connection: Arc<Connection>,
    /// What it is given.
    pub input: Option<Value>,
    /// What it is part of: nothing, or the execution that calls it.
    pub chain: Chain,
    /// How long it may take.
    pub wall: Duration,
    /// The name of the call: the same for each attempt at it.
    pub id: String,
}

/// How it ended, once all of its requests were answered.
pub struct DescribedEnd {
    /// JSON, or why there is none.
    pub output: Result<String, ActionFailure>,
    /// What the last answer says of records of a stream.
    pub records: Option<(String, Vec<Observation>)>,
}

impl DescribedAction {
    /// Of a source's definition. A schema that cannot be used is a failure.
    pub fn new(action: &Action, source: Arc<RestSource>, clock: Arc<dyn Clock>) -> Result<DescribedAction, Failure> {
        let compiled = |schema: &Option<Value>| {
            let compiled = schema.as_ref().map(compile).transpose();
            let bad = |why| Failure::lasting("bad_schema", format!("a schema of the action {}: {why}", action.name));
            compiled.map(|schema| schema.map(Arc::new)).map_err(bad)
        };
        let (input, output) = (compiled(&action.input)?, compiled(&action.output_schema)?);
        Ok(DescribedAction { action: Arc::new(action.clone()), source, clock, input, output })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.action.name
    }

    /// Whether a call that was cut off may be begun again.
    pub fn repeats(&self) -> bool {
        self.action.repeats()
    }

    /// Runs it.
    pub async fn call(&self, mut ask: DescribedAsk) -> Result<DescribedEnd, ActionFailure> {
        ask.chain = ask.chain.within(&self.action.name);
        ask.chain.effects.get_or_insert_default();
        let input = ask.input.clone().unwrap_or_default();
        if let Some(why) = self.input.as_ref().and_then(|schema| fault(schema, &input)) {
            let message = format!("the input of {} does not fit its schema: {why}", self.action.name);
            return Err(ActionFailure::new(ActionFailure::INPUT, message));
        }
        let until = self.clock.now().plus(ask.wall);
        let last = tokio::select! {
            last = self.steps(&ask, input, until) => last?,
            () = self.clock.sleep_until(until) => return Err(timed_out(&ask)),
        };
        Ok(DescribedEnd { output: self.output(&ask.connection, &last), records: self.records(&last) })
    }

    /// All requests in order; the last answer.
    async fn steps(&self, ask: &DescribedAsk, input: Value, until: Timestamp) -> Result<ActionAnswer, ActionFailure> {
        let mut values = ActionValues { input, steps: Value::Object(Map::new()), id: ask.id.clone() };
        let mut last = None;
        for step in &self.action.steps {
            let answer = self.step(ask, step, &values, until).await?;
            if let (Some(name), Some(steps)) = (&step.name, values.steps.as_object_mut()) {
                steps.insert(name.clone(), answer.body.clone());
            }
            last = Some(answer);
        }
        last.ok_or_else(|| ActionFailure::new(ActionFailure::REQUEST, "the action has no request"))
    }

    async fn step(
        &self,
        ask: &DescribedAsk,
        step: &ActionStep,
        values: &ActionValues,
        until: Timestamp,
    ) -> Result<ActionAnswer, ActionFailure> {
        let retry = self.source.definition().limits.retry;
        let mut backoff = Backoff::new(retry.from, retry.to, retry.jitter, Chance::from_system());
        let (changes, free) = (step.request.method != "GET", step.request.method == "GET" || self.repeats());
        if changes {
            ask.chain.begins_effect().await.map_err(ActionFailure::from)?;
        }
        loop {
            let known_by = self.action.idempotency.as_ref();
            let answer = self.source.act(&ask.connection, &step.request, values, known_by).await;
            if changes {
                self.log(&ask.connection, step, &answer);
            }
            let refusal = match answer {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let wait = backoff.next_wait().max(refusal.why.retry_after.unwrap_or_default());
            let late = self.clock.now().plus(wait) >= until;
            if !(free && refusal.why.retry) || backoff.tries() > retry.max || late {
                return Err(self.refused(&ask.connection, refusal, free));
            }
            self.clock.sleep(wait).await;
        }
    }

    /// A request that changes something at the provider, so that a change that is met later can be traced to it.
    fn log(&self, connection: &Connection, step: &ActionStep, answer: &Result<ActionAnswer, ActionRefusal>) {
        let (source, action) = (&self.source.definition().source, &self.action.name);
        let (environment, connection) = (&connection.environment, &connection.id);
        let (method, name) = (&step.request.method, step.name.as_deref().unwrap_or_default());
        match answer {
            Ok(ActionAnswer { status, .. }) => {
                tracing::info!(source, environment, connection, action, method, step = name, status, "an action wrote");
            }
            Err(ActionRefusal { why, .. }) => {
                let error = why.code;
                tracing::warn!(
                    source,
                    environment,
                    connection,
                    action,
                    method,
                    step = name,
                    error,
                    "an action's write failed"
                );
            }
        }
    }

    /// As the caller is told: what the provider said, that nothing was sent, or that nobody knows.
    fn refused(&self, connection: &Connection, refusal: ActionRefusal, free: bool) -> ActionFailure {
        let ActionRefusal { why, said, made } = refusal;
        let message = format!("{}: {}", why.code, why.message);
        if why.status.is_some() {
            let said = said.map(|said| self.source.masked(connection, &said.to_string()));
            let payload = said.and_then(|said| serde_json::from_str(&said).ok());
            return ActionFailure { payload, ..ActionFailure::new(ActionFailure::PROVIDER, message) };
        }
        let unknown = made && !free && matches!(why.code, "network" | "timeout" | "response_too_large");
        let code = if unknown { ActionFailure::UNKNOWN_OUTCOME } else { ActionFailure::REQUEST };
        let behind = if unknown { "; what it had asked of its provider may have happened" } else { "" };
        ActionFailure::new(code, format!("{message}{behind}"))
    }

    fn output(&self, connection: &Connection, last: &ActionAnswer) -> Result<String, ActionFailure> {
        let wrong = |why: &str| {
            let message =
                format!("the output of {} {why}; the action has run, and what it did has happened", self.action.name);
            ActionFailure::new(ActionFailure::OUTPUT, message)
        };
        let output = match &self.action.output {
            Some(output) => {
                output.first(&last.body, &last.vars).map_err(|why| wrong(&format!("cannot be made: {why}")))?
            }
            None => last.body.clone(),
        };
        if let Some(why) = self.output.as_ref().and_then(|schema| fault(schema, &output)) {
            return Err(wrong(&format!("does not fit its schema: {why}")));
        }
        let text = self.source.masked(connection, &output.to_string());
        if text.len() > OUTPUT_MAX {
            let message = format!("the output has {} bytes; {OUTPUT_MAX} are allowed: the action has run", text.len());
            return Err(ActionFailure::new(ActionFailure::TOO_LARGE, message));
        }
        // A secret that stands there as a number leaves a hole.
        match text.contains(MASK) && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
            true => Err(wrong("holds a secret of the connection as a number")),
            false => Ok(text),
        }
    }

    /// What an answer says of records. What it says of none is told of: the next poll has the record itself.
    fn records(&self, last: &ActionAnswer) -> Option<(String, Vec<Observation>)> {
        let then = self.action.then.as_ref()?;
        let mapper = self.source.mapper(&then.stream)?;
        let (source, action, stream) = (&self.source.definition().source, &self.action.name, &then.stream);
        let items = then.record.all(&last.body, &last.vars).unwrap_or_else(|why| {
            tracing::warn!(source, action, stream, "the answer of an action has no record: {why}");
            Vec::new()
        });
        // `$partition` has no value here, nor have the variables of actions where the stream reads its items.
        let vars = Vars { input: Value::Null, steps: Value::Null, ..last.vars.clone() };
        let mut seen = Vec::new();
        for item in items.iter().filter(|item| !item.is_null()).take(RECORDS_MAX) {
            match mapper.read(item, last.seen, &vars) {
                Mapped::Taken(observation, _) => seen.push(observation),
                Mapped::Refused(why) => {
                    let code = why.code;
                    tracing::warn!(
                        source,
                        action,
                        stream,
                        code,
                        "the answer of an action is no record: {}",
                        why.message
                    );
                }
            }
        }
        Some((then.stream.clone(), seen)).filter(|(_, seen)| !seen.is_empty())
    }
}

fn timed_out(ask: &DescribedAsk) -> ActionFailure {
    let message = format!("the action was ended after {} s", ask.wall.as_secs());
    let behind = match ask.chain.effects.as_ref().is_some_and(|effects| effects.any()) {
        true => "; what it has asked of its provider by then may have happened",
        false => "",
    };
    ActionFailure::new(ActionFailure::TIMEOUT, format!("{message}{behind}"))
}
