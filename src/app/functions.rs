//! What functions reach of the program: connections and their metadata, where webhooks arrive, actions and syncs.

use crate::app::App;
use crate::config::Settings;
use crate::connectors::functions::runtime::worker::{Options, Workers};
use crate::connectors::functions::{Accounts, ActionFailure, Executor, InnerCall, NamedSyncs};
use crate::engine::source::{Connection, Failure};
use crate::engine::time::Clock;
use crate::ingest::poll::{SyncKey, SyncName, TriggerOptions};
use crate::ingest::webhooks::HookUrl;
use crate::registry::connections::{Connections, is_draft};
use crate::registry::definitions::{Definitions, Sources};
use crate::registry::functions::{self, Runnable};
use async_trait::async_trait;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock, Weak};

/// The connections of an app, and the app itself once it is open.
pub(super) struct KnownAccounts {
    connections: Arc<Connections>,
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
}

/// What runs the functions of an app, and what they reach.
pub(super) fn programs(
    definitions: &Definitions,
    sources: &Sources,
    connections: &Arc<Connections>,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> (Runnable, Arc<KnownAccounts>) {
    let accounts = Arc::new(KnownAccounts { connections: connections.clone(), app: OnceLock::new() });
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
        self.open_app()?.actions.call_within(environment, call).await
    }

    async fn trigger_syncs(&self, environment: &str, named: NamedSyncs, full: bool) -> Result<(), Failure> {
        let app = self.open_app()?;
        for key in resolve(&app, environment, named)? {
            let options = TriggerOptions { reset: full, ..TriggerOptions::default() };
            app.syncs.trigger(&key, options).map_err(|why| Failure::lasting("unknown_sync", why.to_string()))?;
        }
        Ok(())
    }

    async fn start_syncs(&self, environment: &str, named: NamedSyncs) -> Result<(), Failure> {
        let app = self.open_app()?;
        for key in resolve(&app, environment, named)? {
            app.syncs.start(&key).await.map_err(|why| Failure::lasting("unknown_sync", why.to_string()))?;
        }
        Ok(())
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
    found.map_err(|why| Failure::lasting("unknown_sync", why.to_string()))
}
