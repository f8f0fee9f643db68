//! What functions ask of connections that belong to other shards: how it is said, and how the owner of a shard answers it.
//!
//! Promises: a function reaches every connection of its environment, whichever process owns it; what was not begun is said to be
//! so, and may be asked again; secrets stay with their owner.

use super::App;
use super::functions::{SyncWish, change_syncs, unknown_connection};
use crate::connectors::actions::{ActionFailure, Chain};
use crate::connectors::functions::{InnerCall, NamedSyncs, described};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub use super::actions::{FailedAction, Outcome};

/// The other shards of an installation, as functions of one shard reach them.
#[async_trait]
pub trait FunctionShards: Send + Sync {
    /// The shard of a connection, if it is not the function's own.
    fn other(&self, environment: &str, source: &str, connection: &str) -> Option<i32>;

    /// All but the function's own.
    fn others(&self) -> Vec<i32>;

    /// What the owner of a shard answers.
    async fn ask(&self, shard: i32, ask: ShardAsk) -> Outcome;
}

/// What a function asks of another shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardAsk {
    pub(super) environment: String,
    pub(super) source: String,
    /// All connections of the source if nobody is named.
    pub(super) connection: Option<String>,
    pub(super) wanted: Wanted,
}

/// What it wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    /// What is known of the connection.
    Description,
    /// The output of an action, which is called within so many others.
    Action { name: String, input: Option<Value>, depth: u32, within: Option<String> },
    /// That something is done with syncs: names, each with its variant if one is named.
    Syncs { syncs: Vec<(String, Option<String>)>, wish: SyncWish },
}

/// What an owner says to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardAnswer {
    /// The shard is not here any more, or not yet. Nothing was begun.
    NotHere,
    /// JSON.
    Output(String),
    /// Why there is none.
    Failed(FailedAction),
}

impl ShardAsk {
    pub(super) fn description(environment: &str, source: &str, id: &str) -> ShardAsk {
        let (environment, source) = (environment.to_owned(), source.to_owned());
        ShardAsk { environment, source, connection: Some(id.to_owned()), wanted: Wanted::Description }
    }

    pub(super) fn action(environment: &str, call: InnerCall) -> ShardAsk {
        let InnerCall { source, connection, action, input, chain } = call;
        let within = chain.action.map(|name| name.to_string());
        let wanted = Wanted::Action { name: action, input, depth: chain.depth, within };
        ShardAsk { environment: environment.to_owned(), source, connection: Some(connection), wanted }
    }

    pub(super) fn syncs(environment: &str, named: NamedSyncs, wish: SyncWish) -> ShardAsk {
        let NamedSyncs { source, connection, syncs } = named;
        ShardAsk { environment: environment.to_owned(), source, connection, wanted: Wanted::Syncs { syncs, wish } }
    }

    /// Whether it may be asked again that was asked without an answer: what a sync or a description is, it is twice.
    pub fn repeats(&self) -> bool {
        !matches!(self.wanted, Wanted::Action { .. })
    }
}

impl App {
    /// Answers what a function of another shard asks of this one.
    pub async fn answer_shard(self: &Arc<App>, ask: ShardAsk) -> ShardAnswer {
        let ShardAsk { environment, source, connection, wanted } = ask;
        let outcome = match wanted {
            Wanted::Description => {
                let id = connection.unwrap_or_default();
                let known = self.connections.get(&environment, &source, &id);
                let known = known.map(|account| described(&source, &account.connection).to_string());
                known.ok_or_else(|| unknown_connection(&source, &id).into())
            }
            Wanted::Action { name, input, depth, within } => {
                let chain = Chain { depth, action: within.map(Into::into), effects: None };
                let connection = connection.unwrap_or_default();
                let call = InnerCall { source, connection, action: name, input, chain };
                match self.actions.call_for_other(&environment, call).await {
                    Some(outcome) => outcome,
                    None => return ShardAnswer::NotHere,
                }
            }
            Wanted::Syncs { syncs, wish } => {
                let named = NamedSyncs { source, connection, syncs };
                let done = change_syncs(self, &environment, named, wish).await;
                done.map(|()| "null".to_owned()).map_err(ActionFailure::from)
            }
        };
        match outcome {
            Ok(output) => ShardAnswer::Output(output),
            Err(why) => ShardAnswer::Failed(why.into()),
        }
    }
}
