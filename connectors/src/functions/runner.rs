//! What the functions of one source share, and the beginning of an execution of any of them.

use super::by_hand::ByHand;
use super::execution::Executor;
use super::host::{Host, Stop, Writing};
use super::locks::Locks;
use super::members::{Accounts, Members};
use super::requests::Sender;
use super::secrets::Handles;
use crate::actions::{Chain, known};
use crate::http::limits::RequestPriority;
use crate::rest::RestSource;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::{Chance, Clock};
use syncline_runtime::Modules;
use syncline_runtime::wire::{Fault, Invocation, Limits};

/// The code in force. An execution that has begun keeps the one it began with.
pub struct Code(RwLock<Arc<Modules>>);

impl Code {
    /// This code.
    pub fn new(modules: Arc<Modules>) -> Code {
        Code(RwLock::new(modules))
    }

    /// What the next execution has.
    pub fn current(&self) -> Arc<Modules> {
        self.0.read().clone()
    }

    /// Gives other code to the next executions.
    pub fn replace(&self, modules: Arc<Modules>) {
        *self.0.write() = modules;
    }
}

/// Runs the functions of a source. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    /// The code they may import.
    pub code: Arc<Code>,
    /// What sends their requests.
    pub source: Arc<RestSource>,
    /// Who keeps their connections.
    pub accounts: Arc<dyn Accounts>,
    /// Where the code runs.
    pub executor: Executor,
    /// The locks they take.
    pub locks: Arc<Locks>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is set by hand.
    pub by_hand: ByHand,
}

/// One execution that is to begin.
pub(super) struct Execute<'a> {
    /// The module of the function.
    pub file: &'a str,
    /// What runs of it: `exec`, `webhook`, `action` or `event`.
    pub kind: &'static str,
    /// For whom.
    pub connection: &'a Arc<Connection>,
    /// The models it may write.
    pub models: &'a [String],
    /// What its `nango` object tells beside what is known of the connection.
    pub about: Map<String, Value>,
    /// What it may use up, unless the source says otherwise.
    pub limits: Limits,
    /// How its requests rank.
    pub priority: RequestPriority,
    /// Where its chance begins.
    pub seed: u64,
    /// What it is part of.
    pub chain: Chain,
}

impl Runner {
    /// Runs a function to its end. What it writes goes to `writing`; gives its output as JSON, if it has one.
    pub(super) async fn execute<W: Writing>(
        &self,
        order: Execute<'_>,
        writing: &mut W,
    ) -> Result<Option<String>, Stop> {
        let mut chance = Chance::from_seed(self.by_hand.seed.unwrap_or(order.seed));
        let rules = &self.source.definition().functions;
        let handles = Arc::new(Handles::new(rules, order.connection, &mut chance));
        let connection = order.connection.clone();
        let (source, clock, priority) = (self.source.clone(), self.clock.clone(), order.priority);
        let chain = order.chain.clone();
        let sender = Sender { source: source.clone(), clock, handles: handles.clone(), priority, chain: chain.clone() };
        let metadata = Mutex::new(connection.metadata.clone());
        let accounts = self.accounts.clone();
        let locks = self.locks.holder(&connection.environment, self.clock.clone());
        let members = Members { source, accounts, connection: connection.clone(), handles, metadata, chain, locks };
        let invocation = self.invocation(order, chance.number());
        let recording = self.by_hand.recording.as_deref();
        let recording = recording.filter(|recording| recording.begin(&invocation, &self.source, &connection));
        let execution = self.executor.begin(&connection.environment, &self.code.current(), invocation).await;
        let ended = match execution {
            Ok(execution) => {
                let host = Host::new(self, connection, execution, sender, members, chance, recording);
                host.finish(writing).await
            }
            Err(gone) => Err(Stop::Lost(gone)),
        };
        match (recording, &ended) {
            (Some(recording), Ok(output)) => recording.ended(output.as_deref()),
            (Some(recording), Err(Stop::Lost(_))) => recording.forget(),
            _ => {}
        }
        ended
    }

    fn invocation(&self, order: Execute<'_>, seed: u64) -> Invocation {
        let definition = self.source.definition();
        let rules = &definition.functions;
        let known = json!({
            "kind": order.kind,
            "connectionId": order.connection.id,
            "providerConfigKey": definition.source,
            "provider": definition.preset.as_deref().unwrap_or(&definition.source),
            "environmentName": order.connection.environment,
            "paginate": rules.paginate,
        });
        let mut about = order.about;
        if let Value::Object(known) = known {
            about.extend(known);
        }
        let limits = Limits {
            memory: rules.limits.memory.unwrap_or(order.limits.memory),
            cpu: rules.limits.cpu.unwrap_or(order.limits.cpu),
            ..order.limits
        };
        let about = Value::Object(about).to_string();
        let models = order.models.to_vec();
        let now = self.by_hand.now.map(|now| now.0 / 1_000);
        let seed = self.by_hand.seed.unwrap_or(seed);
        Invocation { file: order.file.to_owned(), about, models, limits, now, seed }
    }

    /// A fault of the code, in the words of runs, without secrets.
    pub(super) fn failed(&self, connection: &Connection, fault: &Fault) -> Failure {
        let code = known(&fault.code);
        let mut message = fault.to_string();
        if let Some(answer) = &fault.answer {
            let (status, body) = (&answer.0, answer.1.chars().take(300).collect::<String>());
            message.push_str(&format!("\n    the provider answered {status}: {body}"));
        }
        let status = fault.answer.as_ref().map(|answer| answer.0);
        let message = self.source.veiled(connection, &message);
        Failure { status, ..Failure::lasting(code, message) }
    }
}
