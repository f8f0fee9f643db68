//! What functions reach of the program: connections and their metadata, and where webhooks arrive.

use crate::config::Settings;
use crate::connectors::functions::runtime::worker::{Options, Workers};
use crate::connectors::functions::{Accounts, Executor};
use crate::engine::source::{Connection, Failure};
use crate::engine::time::Clock;
use crate::ingest::webhooks::{HookUrl, Hooks, WeakHooks};
use crate::registry::connections::Connections;
use crate::registry::definitions::{Definitions, Sources};
use crate::registry::functions::{self, Programs};
use async_trait::async_trait;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The connections of an app. Webhooks are opened after them.
pub(super) struct KnownAccounts {
    connections: Arc<Connections>,
    hooks: OnceLock<WeakHooks>,
}

impl KnownAccounts {
    fn hooks(&self) -> Option<Hooks> {
        self.hooks.get().and_then(WeakHooks::upgrade)
    }

    /// The webhooks, once they are open. They run functions, which reach this: so it does not keep them open.
    pub(super) fn attach(&self, hooks: WeakHooks) {
        // Once only: an app has one.
        let _ = self.hooks.set(hooks);
    }
}

/// What runs the functions of an app, and what they reach.
pub(super) fn programs(
    definitions: &Definitions,
    sources: &Sources,
    connections: &Arc<Connections>,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> (Programs, Arc<KnownAccounts>) {
    let accounts = Arc::new(KnownAccounts { connections: connections.clone(), hooks: OnceLock::new() });
    let reached: Arc<dyn Accounts> = accounts.clone();
    (functions::programs(definitions, sources, &reached, &executor(settings), &clock), accounts)
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
    fn connection(&self, environment: &str, source: &str, id: &str) -> Option<Arc<Connection>> {
        self.connections.get(environment, source, id).map(|account| account.connection.clone())
    }

    async fn set_metadata(&self, source: &str, connection: &Connection, metadata: Value) -> Result<(), Failure> {
        let Value::Object(metadata) = metadata else {
            return Err(Failure::lasting("invalid_metadata", "metadata is an object"));
        };
        let (environment, ids) = (&connection.environment, [connection.id.clone()]);
        let done = self.connections.set_metadata(environment, source, &ids, &metadata).await;
        done.map_err(|why| Failure::lasting("invalid_metadata", format!("the metadata could not be stored: {why}")))?;
        if let Some(hooks) = self.hooks() {
            hooks.connection_changed(environment, source);
        }
        Ok(())
    }

    fn webhook_url(&self, source: &str, connection: &Connection) -> Option<String> {
        let urls = self.hooks()?.hook_urls(Some(source));
        let is_its = |hook: &HookUrl| {
            let entrance = &hook.entrance;
            let of_all = entrance.connection.as_ref().is_none_or(|id| *id == connection.id);
            of_all && entrance.environment == connection.environment
        };
        urls.into_iter().find(is_its).map(|hook| hook.url)
    }
}
