//! Topics in: from messages to commits, each message once.
//!
//! | file | what |
//! |---|---|
//! | `spec` | which topics are read, and for what |
//! | `place` | where each partition stands: committed with what its messages did |
//! | `task` | one topic from its opening to its end |
//! | `accounts` | whose connections it is about: this shard's, and those of other shards |
//! | `group` | a stretch of messages as one batch |
//! | `apply` | one message: whose it is, whether it is new, what it says |
//! | `fields` | a message of somebody else's topic |
//! | `target` | connection and stream of a message |
//! | `repeats` | highest sequence per producer |
//! | `listing` | full lists: what they have seen, and what becomes of what they have not |
//! | `outcome` | what became of a message |
//!
//! Promises: the place is part of the commit of what it stands behind, so a message has its effects once, crash or not; a
//! message that cannot be taken is in the dead letters before the place passes it; an input that cannot go on without
//! skipping stops with a name ([`Inputs::states`]), and the others go on.

mod accounts;
mod apply;
mod fields;
mod group;
mod listing;
mod outcome;
mod place;
mod repeats;
mod spec;
mod target;
mod task;

use crate::connectors::definition::Definition;
use crate::connectors::kafka::Cluster;
use crate::connectors::kafka::input::StartOffset;
use crate::connectors::kafka::input::reader::FINAL;
use crate::engine::Engine;
use crate::engine::pipeline::Error;
use crate::ingest::webhooks::OtherShards;
use crate::registry::connections::Connections;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What inputs need of the program.
pub struct InputsParts {
    /// The engine.
    pub engine: Engine,
    /// Where topics are.
    pub cluster: Cluster,
    /// Whether `{prefix}.in.{source}` is read beside the topics of streams.
    pub input: bool,
    /// Definitions by source name.
    pub definitions: BTreeMap<String, Arc<Definition>>,
    /// Accounts.
    pub connections: Arc<Connections>,
    /// What is known of the other shards of the installation, if there are any: they read the same topics.
    pub other_shards: Option<OtherShards>,
}

/// All topics that are read. Cheap to clone.
#[derive(Clone)]
pub struct Inputs {
    inner: Arc<InputsInner>,
}

struct InputsInner {
    parts: InputsParts,
    numbers: place::SlotNumbers,
    states: Mutex<BTreeMap<String, InputState>>,
    /// Where stopped inputs shall begin anew, by name and topic.
    restarts: watch::Sender<BTreeMap<(String, String), StartOffset>>,
}

/// How one input stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputState {
    /// The topic.
    pub topic: String,
    /// What it is read for: `SOURCE` or `SOURCE/STREAM`.
    pub name: String,
    /// Whose dead letters it writes to, and who may see it.
    pub environment: String,
    /// Whether it is being read.
    pub reading: bool,
    /// Why not: code and text.
    pub stopped: Option<(String, String)>,
}

impl Inputs {
    /// Looks up what is to be read. Nothing runs yet; see [`run`](Inputs::run).
    pub fn open(parts: InputsParts) -> Result<Inputs, Error> {
        let numbers = place::SlotNumbers::load(&parts.engine)?;
        Ok(Inputs {
            inner: Arc::new(InputsInner {
                parts,
                numbers,
                states: Mutex::default(),
                restarts: watch::Sender::default(),
            }),
        })
    }

    /// Reads all topics until `stop` is cancelled or the store fails.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let specs = spec::all(&self.inner.parts);
        let tasks = specs.into_iter().map(|spec| task::run(self.inner.clone(), spec, stop.clone()));
        futures_util::future::try_join_all(tasks.map(|task| async {
            // Each on a thread of the runtime's own choice: they are busy independently.
            tokio::spawn(task).await.unwrap_or(Err(Error::Stopped))
        }))
        .await
        .map(drop)
    }

    /// Lets inputs of this topic that have stopped for good begin anew, without the places they had: from the oldest message
    /// there is, or from what is written from now on. How many there are.
    pub fn restart(&self, environment: &str, topic: &str, start: StartOffset) -> usize {
        let states = self.states().into_iter();
        let mut count = 0;
        for state in states.filter(|s| s.environment == environment && s.topic == topic && s.is_final()) {
            tracing::warn!(topic, input = state.name, ?start, "an input begins anew");
            count += 1;
            self.inner.restarts.send_modify(|all| _ = all.insert((state.name, state.topic), start));
        }
        count
    }

    /// How the inputs stand, by name.
    pub fn states(&self) -> Vec<InputState> {
        self.inner.states.lock().values().cloned().collect()
    }
}

impl InputState {
    /// Whether only a person can say how it goes on.
    pub fn is_final(&self) -> bool {
        self.stopped.as_ref().is_some_and(|(code, _)| FINAL.contains(&code.as_str()))
    }
}

impl InputsInner {
    fn tell(&self, state: InputState) {
        let code = state.stopped.as_ref().map_or("", |(code, _)| code);
        let stopped = if state.stopped.is_some() { 1.0 } else { 0.0 };
        metrics::gauge!("syncline_kafka_input_stopped", "topic" => state.topic.clone()).set(stopped);
        if !code.is_empty() {
            let labels = [("topic", state.topic.clone()), ("code", code.to_owned())];
            metrics::counter!("syncline_kafka_input_stops_total", &labels).increment(1);
        }
        let mut states = self.states.lock();
        states.insert(format!("{}@{}", state.name, state.topic), state);
    }
}
