//! What functions reach of the program: connections and their metadata, where webhooks arrive, actions and syncs.

use super::shards::{FunctionShards, ShardAsk};
use crate::app::App;
use crate::config::Settings;
use crate::connectors::actions::ActionFailure;
use crate::connectors::functions::runtime::worker::{Options, Workers};
use crate::connectors::functions::{Accounts, Executor, InnerCall, NamedSyncs, described};
use crate::engine::source::{Connection, Failure};
use crate::engine::time::Clock;
use crate::ingest::poll::{SyncKey, SyncName, TriggerOptions, Unresolved};
use crate::ingest::webhooks::HookUrl;
use crate::registry::connections::{Connections, is_draft};
use crate::registry::definitions::Definitions;
use crate::registry::functions::{self, Runnable};
use crate::registry::sources::Sources;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock, Weak};

/// The connections of an app, and the app itself once it is open.
pub(super) struct KnownAccounts {
    connections: Arc<Connections>,
    /// The other shards of the installation; `None` if there is one alone.
    others: Option<Arc<dyn FunctionShards>>,
    app: OnceLock<Weak<App>>,
}

impl KnownAccounts {
    /// The app, once it is open.
    pub(super) fn attach(&self, app: &Arc<App>) {
        // Once only: there is one app. Weak: it holds what holds this.
        let _ = self.app.set(Arc::downgrade(app));
    }

    fn app(&self) -> Option<Arc<App>> {
        self.app.get()?.upgrade()
    }

    fn open_app(&self) -> Result<Arc<App>, Failure> {
        self.app().ok_or_else(|| Failure::passing("not_ready", "the program is not open, or stops"))
    }

    /// The shard of a connection that is not of this one.
    fn elsewhere(&self, environment: &str, source: &str, id: &str) -> Option<(&Arc<dyn FunctionShards>, i32)> {
        let others = self.others.as_ref()?;
        others.other(environment, source, id).map(|shard| (others, shard))
    }

    /// Does something with syncs: here, at another shard, or everywhere.
    async fn syncs(&self, environment: &str, named: NamedSyncs, wish: SyncWish) -> Result<(), Failure> {
        let elsewhere = named.connection.as_deref().and_then(|id| self.elsewhere(environment, &named.source, id));
        if elsewhere.is_none() {
            let app = self.open_app()?;
            change_syncs(&app, environment, named.clone(), wish).await?;
        }
        let (others, shards) = match (elsewhere, &self.others) {
            (Some((others, shard)), _) => (others, vec![shard]),
            (None, Some(others)) if named.connection.is_none() => (others, others.others()),
            _ => return Ok(()),
        };
        let ask = ShardAsk::syncs(environment, named, wish);
        for shard in shards {
            let done = others.ask(shard, ask.clone()).await;
            done.map_err(|why| Failure::lasting(why.code, why.message))?;
        }
        Ok(())
    }
}

/// What is done with syncs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SyncWish {
    /// They run now; the full ones list everything again.
    Run { full: bool },
    /// Paused ones are on their schedules again.
    Start,
}

/// Does it with the syncs of this app.
pub(super) async fn change_syncs(
    app: &App,
    environment: &str,
    named: NamedSyncs,
    wish: SyncWish,
) -> Result<(), Failure> {
    for key in resolve(app, environment, named)? {
        let done = match wish {
            SyncWish::Run { full } => {
                app.syncs.trigger(&key, TriggerOptions { reset: full, ..TriggerOptions::default() })
            }
            SyncWish::Start => app.syncs.start(&key).await,
        };
        done.map_err(|why| Failure::lasting(ActionFailure::NO_SYNC, why.to_string()))?;
    }
    Ok(())
}

/// Nobody has this name.
pub(super) fn unknown_connection(source: &str, id: &str) -> Failure {
    let message = format!("there is no connection `{id}` of `{source}` in this environment");
    Failure::lasting(ActionFailure::NO_CONNECTION, message)
}

/// What runs the functions of an app, and what they reach.
pub(super) fn programs(
    definitions: &Definitions,
    sources: &Sources,
    connections: &Arc<Connections>,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    others: Option<Arc<dyn FunctionShards>>,
) -> Result<(Runnable, Arc<KnownAccounts>), Failure> {
    let accounts = Arc::new(KnownAccounts { connections: connections.clone(), others, app: OnceLock::new() });
    let reached: Arc<dyn Accounts> = accounts.clone();
    Ok((functions::programs(definitions, sources, &reached, &executor(settings), &clock)?, accounts))
}

/// The argument by which this program is told to be a worker.
pub(crate) const WORKER: &str = "functions-worker";

/// Where functions run: in processes of this same program, unless the settings say otherwise.
fn executor(settings: &Settings) -> Executor {
    if settings.functions.as_ref().is_some_and(|functions| functions.in_process) {
        return Executor::Threads;
    }
    let command = || {
        // The program that runs, even if another one has taken its place on the disk.
        let own = Path::new("/proc/self/exe");
        let elsewhere = || std::env::current_exe().unwrap_or_else(|_| "syncline".into());
        let mut command = Command::new(if own.exists() { own.to_path_buf() } else { elsewhere() });
        command.arg(WORKER);
        command
    };
    Executor::Workers(Arc::new(Workers::new(command, Options::default())))
}

#[async_trait]
impl Accounts for KnownAccounts {
    fn connection(&self, environment: &str, source: &str, id: &str) -> Result<Arc<Connection>, Failure> {
        if self.elsewhere(environment, source, id).is_some() {
            let message = format!(
                "`{id}` is not of the same shard, so no request can be made here in its name: let an action of `{source}` make \
                 it, and call that with nango.triggerAction('{source}', '{id}', …)"
            );
            return Err(Failure::lasting("other_shard", message));
        }
        let known = self.connections.get(environment, source, id);
        known.map(|account| account.connection.clone()).ok_or_else(|| unknown_connection(source, id))
    }

    async fn describe(&self, environment: &str, source: &str, id: &str) -> Result<Value, Failure> {
        let Some((others, shard)) = self.elsewhere(environment, source, id) else {
            return self.connection(environment, source, id).map(|connection| described(source, &connection));
        };
        let ask = ShardAsk::description(environment, source, id);
        let known = others.ask(shard, ask).await.map_err(|why| Failure::lasting(why.code, why.message))?;
        serde_json::from_str(&known).map_err(|why| {
            Failure::lasting(ActionFailure::NO_OWNER, format!("the owner of `{id}` says what is not understood: {why}"))
        })
    }

    async fn set_metadata(&self, source: &str, connection: &Connection, metadata: Value) -> Result<(), Failure> {
        let Value::Object(metadata) = metadata else {
            return Err(Failure::lasting("invalid_metadata", "metadata is an object"));
        };
        if is_draft(connection) {
            let message = "nothing can be stored with a connection before it is validated";
            return Err(Failure::lasting("invalid_metadata", message));
        }
        let (environment, ids) = (&connection.environment, [connection.id.clone()]);
        let done = self.connections.set_metadata(environment, source, &ids, &metadata).await;
        done.map_err(|why| Failure::lasting("invalid_metadata", format!("the metadata could not be stored: {why}")))?;
        if let Some(app) = self.app() {
            app.hooks.connection_changed(environment, source);
        }
        Ok(())
    }

    fn webhook_url(&self, source: &str, connection: &Connection) -> Option<String> {
        let urls = self.app()?.hooks.hook_urls(Some(source));
        let is_its = |hook: &HookUrl| {
            let entrance = &hook.entrance;
            let of_all = entrance.connection.as_ref().is_none_or(|id| *id == connection.id);
            of_all && entrance.environment == connection.environment
        };
        urls.into_iter().find(is_its).map(|hook| hook.url)
    }

    async fn trigger_action(&self, environment: &str, call: InnerCall) -> Result<String, ActionFailure> {
        let Some((others, shard)) = self.elsewhere(environment, &call.source, &call.connection) else {
            return self.open_app()?.actions.call_within(environment, call).await;
        };
        // What it does there is not known here.
        call.chain.begins_effect().await?;
        others.ask(shard, ShardAsk::action(environment, call)).await
    }

    async fn trigger_syncs(&self, environment: &str, named: NamedSyncs, full: bool) -> Result<(), Failure> {
        self.syncs(environment, named, SyncWish::Run { full }).await
    }

    async fn start_syncs(&self, environment: &str, named: NamedSyncs) -> Result<(), Failure> {
        self.syncs(environment, named, SyncWish::Start).await
    }
}

/// The syncs that a function names.
fn resolve(app: &App, environment: &str, named: NamedSyncs) -> Result<Vec<SyncKey>, Failure> {
    let name = |(name, variant): (String, Option<String>)| match variant {
        None => SyncName::parse(&name),
        variant => SyncName { name, variant },
    };
    let names: Vec<SyncName> = named.syncs.into_iter().map(name).collect();
    let found = app.syncs.resolve(environment, &named.source, named.connection.as_deref(), &names);
    found.map_err(|why| match why {
        Unresolved::Connection(id) => unknown_connection(&named.source, &id),
        why => Failure::lasting(ActionFailure::NO_SYNC, why.to_string()),
    })
}
