//! The running program: [`App`] joins engine, registry, ingest and sinks, starts them and stops them.
//!
//! | file | what |
//! |---|---|
//! | `actions` | actions: called, and their results kept; functions on events of connections; `no_actions` without the feature `functions` |
//! | [`connect`] | how people connect their accounts |
//! | [`connections`] | connections created, changed and deleted while the program runs |
//! | [`quarantine`] | quarantined entries: listed, retried, dropped |
//! | `integrations` | integrations created, changed and deleted while the program runs |
//! | [`fields`] | fields that providers report about their connections |
//! | `shards` | what functions ask of other shards; feature `functions` |
//! | `measure` | what metrics read of an app |
//! | `topics` | Kafka topics in and out; `no_topics` in a program without the feature `kafka` |
//!
//! Promises: nothing below knows `App`; surfaces hold an `Arc<App>`; a stop lets runs end at their bookmarks and closes the store
//! last.

#[cfg(feature = "functions")]
pub mod actions;
#[cfg(not(feature = "functions"))]
#[path = "no_actions.rs"]
pub mod actions;
pub mod connect;
pub mod connections;
pub mod fields;
#[cfg(feature = "functions")]
pub(crate) mod functions;
mod integrations;
mod measure;
pub mod quarantine;
#[cfg(feature = "functions")]
pub mod shards;
#[cfg(feature = "kafka")]
mod topics;
#[cfg(not(feature = "kafka"))]
#[path = "no_topics.rs"]
mod topics;

use crate::admission::Bounds;
use crate::config::Settings;
use crate::connectors::http::Client;
use crate::connectors::rest::{Credentials, RestSource};
use crate::engine::pipeline::{self, Options};
use crate::engine::source::Failure;
use crate::engine::time::Clock;
use crate::engine::{self, Engine};
use crate::ingest::poll::{self, SyncError, SyncKey, Syncs, scheduler};
use crate::ingest::webhooks::{self, Hooks, OtherShards};
use crate::registry::connections::Connections;
use crate::registry::definitions::{self, Definitions};
#[cfg(not(feature = "functions"))]
use crate::registry::functions::Programs;
#[cfg(feature = "functions")]
use crate::registry::functions::Runnable;
use crate::registry::integrations::Integrations;
use crate::registry::sources::Sources;
use crate::sinks::custom;
use crate::sinks::deliveries::{Announcer, Outbox};
use crate::telemetry;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use topics::Topics;

/// The running program: one engine, the definitions, the connections and what is scheduled for them.
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Settings in force.
    pub settings: Settings,
    /// Definitions by source name.
    pub definitions: Definitions,
    /// What makes requests, by source name; shared by runs, webhook fetches and checks, so that all keep to one budget.
    pub sources: Sources,
    /// What the app is known by at providers.
    pub integrations: Integrations,
    /// Accounts.
    pub connections: Arc<Connections>,
    /// Syncs: one stream of one connection on a schedule.
    pub syncs: Syncs,
    /// Webhooks on their way in.
    pub hooks: Hooks,
    /// Webhooks on their way out.
    pub outbox: Outbox,
    /// Which part of the installation it is.
    pub part: ShardContext,
    /// What outsiders may use up.
    pub bounds: Arc<Bounds>,
    /// Kafka topics.
    pub topics: Topics,
    /// Functions that are called.
    pub actions: actions::Actions,
    /// People who connect their accounts.
    pub connect: connect::Connect,
}

/// The part of an installation that an app stands for.
#[derive(Clone)]
pub struct ShardContext {
    /// Its name among the parts.
    pub name: String,
    /// What is known of the other parts; `None` if there is only one.
    pub other_shards: Option<OtherShards>,
    /// The way of its functions to the other parts.
    #[cfg(feature = "functions")]
    pub function_shards: Option<Arc<dyn shards::FunctionShards>>,
}

impl Default for ShardContext {
    fn default() -> Self {
        ShardContext {
            name: MAIN.to_owned(),
            other_shards: None,
            #[cfg(feature = "functions")]
            function_shards: None,
        }
    }
}

/// The name of the only part of an installation.
pub const MAIN: &str = "main";

/// How long runs may take to end at their bookmarks when the program stops.
const RUNS_END: Duration = Duration::from_secs(10);

/// Why the program could not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Definition files that cannot be used: every complaint, one a line.
    #[error(transparent)]
    Definitions(#[from] definitions::DefinitionComplaints),
    /// What the program's own code brings.
    #[error("{0}")]
    Program(String),
    /// A source that cannot be made of its definition, or no way out at all.
    #[error(transparent)]
    Source(#[from] Failure),
    /// The data folder.
    #[error(transparent)]
    Engine(#[from] pipeline::Error),
    /// A sync.
    #[error(transparent)]
    Syncs(#[from] SyncError),
}

/// The tasks of a started [`App`].
pub struct Running {
    app: Arc<App>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Opens the data folder of the settings with the definitions they name. Nothing runs yet.
    pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<App>, OpenError> {
        let definitions = definitions::load(&settings)?;
        let announcer = Arc::new(Announcer::new(&settings.endpoints, &definitions));
        let options = Options {
            data_dir: Some(settings.data_dir.clone()),
            workers: settings.workers.max(1),
            clock,
            announce: Some(announcer.clone()),
            views: settings.extensions.views.clone(),
            table_bytes: settings.table_bytes,
            min_free: settings.min_free,
            ..Options::default()
        };
        // Recovery reads the whole index of the store: too long for a thread that serves others.
        let engine = tokio::task::spawn_blocking(move || Engine::open(options))
            .await
            .map_err(|e| pipeline::Error::Storage(format!("the engine could not be opened: {e}")))??;
        let cursors = engine.cursor_key();
        let app = Self::with(engine, settings, definitions).await?;
        announcer.attach(cursors, app.connections.clone());
        Ok(app)
    }

    /// Joins an engine that is open with definitions that are checked: for the demo and for tests.
    pub async fn with(engine: Engine, settings: Settings, definitions: Definitions) -> Result<Arc<App>, OpenError> {
        Self::of_part(engine, settings, definitions, ShardContext::default()).await
    }

    /// As [`with`](App::with), for one part of an installation that has several.
    pub async fn of_part(
        engine: Engine,
        settings: Settings,
        definitions: Definitions,
        part: ShardContext,
    ) -> Result<Arc<App>, OpenError> {
        telemetry::begin(settings.metrics.per_connection);
        // First: sources that stand in no file are defined by them.
        let integrations = Integrations::open(&engine, &settings, &definitions)?;
        let connections = Arc::new(Connections::open(engine.clone(), &definitions).await?);
        let credentials: Arc<dyn Credentials> = connections.clone();
        let sources = Sources::open(&settings, &definitions, &engine, credentials)?;
        #[cfg(feature = "functions")]
        let (Runnable { programs, actions, on_events }, accounts) = functions::programs(
            &definitions,
            &sources,
            &connections,
            &settings,
            engine.clock(),
            part.function_shards.clone(),
        )?;
        #[cfg(not(feature = "functions"))]
        let programs = Programs::new();
        let syncs = Syncs::open(engine.clone(), &definitions, &sources, programs.clone(), connections.clone()).await?;
        let bounds = Arc::new(Bounds::new(settings.ingress.clone()));
        let hooks = Hooks::open(webhooks::HooksParts {
            bounds: bounds.clone(),
            engine: engine.clone(),
            definitions: definitions.clone(),
            programs,
            sources: sources.clone(),
            connections: connections.clone(),
            public_url: settings.public_url.clone(),
            environments: settings.environments().map(str::to_owned).collect(),
            other_shards: part.other_shards.clone(),
        })?;
        let shard = part.other_shards.as_ref().map_or(0, |others| others.shard);
        #[cfg(feature = "functions")]
        let actions = {
            let known = actions::KnownActions { actions, on_events, definitions: definitions.clone() };
            actions::Actions::open(engine.clone(), connections.clone(), known, shard)?
        };
        #[cfg(not(feature = "functions"))]
        let actions = actions::Actions;
        let client = Client::new(settings.client(), engine.clock())?;
        let connect = connect::Connect::open(&engine, client.clone(), shard)?;
        let endpoints = settings.endpoints.clone();
        let outbox = Outbox::open(engine.clone(), endpoints, connections.clone(), Arc::new(client), hooks.commits())?;
        let topics = Topics::open(&engine, &settings, &definitions, &connections, &part)?;
        let app = Arc::new(App {
            engine,
            settings,
            definitions,
            sources,
            integrations,
            connections,
            syncs,
            hooks,
            outbox,
            part,
            bounds,
            topics,
            actions,
            connect,
        });
        #[cfg(feature = "functions")]
        accounts.attach(&app);
        Ok(app)
    }

    /// What makes requests by HTTP in the name of a source's connections.
    pub fn rest(&self, source: &str) -> Option<Arc<RestSource>> {
        self.sources.rest(source)
    }

    /// Starts the scheduler and the tasks for webhooks in and out.
    pub fn start(self: &Arc<Self>) -> Running {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        telemetry::include(Arc::downgrade(self) as Weak<dyn telemetry::Measured>);
        tasks.spawn(telemetry::sum_up(self.engine.clock(), stop.clone()));
        tasks.spawn(run_schedules(self.clone(), stop.clone()));
        let (hooks, outbox) = (self.hooks.clone(), self.outbox.clone());
        let (halt_hooks, halt_outbox) = (stop.clone(), stop.clone());
        tasks.spawn(async move { ended("webhooks in", hooks.run(halt_hooks).await) });
        tasks.spawn(async move { ended("webhooks out", outbox.run(halt_outbox).await) });
        tasks.spawn(run_wanted(self.clone(), stop.clone()));
        #[cfg(feature = "functions")]
        {
            let (app, halt) = (self.clone(), stop.clone());
            tasks.spawn(async move { ended("actions", run_actions(&app, halt).await) });
            if let Some(reload) = self.definitions.functions.reload.clone() {
                tasks.spawn(reload.watch(self.engine.clock(), stop.clone()));
            }
        }
        self.topics.start(self, &tasks, &stop);
        custom::start(&self.engine, &self.settings.extensions.sinks, &tasks, &stop);
        tasks.close();
        Running { app: self.clone(), stop, tasks }
    }

    /// Interrupts runs, commits what was accepted and closes the store. For an app that was not started, or as the last step
    /// of one that was.
    pub async fn stop(&self) -> Result<(), engine::pipeline::Error> {
        #[cfg(feature = "functions")]
        self.actions.stop().await;
        self.syncs.stop().await;
        self.engine.stop().await
    }
}

/// Has streams asked for what has changed where a webhook said that something has.
async fn run_wanted(app: Arc<App>, stop: CancellationToken) {
    loop {
        let wanted = tokio::select! {
            wanted = app.hooks.wanted_runs() => wanted,
            () = stop.cancelled() => return,
        };
        for [environment, source, connection, stream] in wanted {
            app.syncs.has_news(&SyncKey { environment, source, connection, stream, variant: poll::BASE.to_owned() });
        }
    }
}

/// Runs begin once the log says that this engine's batches count; at once where the log is the engine's own. Before them
/// providers are asked what requests may name.
async fn run_schedules(app: Arc<App>, stop: CancellationToken) {
    let acquired = tokio::select! {
        acquired = app.engine.acquire_term(&app.part.name) => acquired,
        () = stop.cancelled() => return,
    };
    match acquired {
        Ok(_) => {
            let (asked, clock) = (Notify::new(), app.engine.clock());
            let runs = async {
                tokio::select! {
                    () = asked.notified() => {}
                    () = clock.sleep(fields::FIRST_ROUND) => {}
                    () = stop.cancelled() => return,
                }
                scheduler::schedule(app.syncs.clone(), clock.clone(), stop.clone()).await;
            };
            tokio::join!(fields::ask_all(&app, &asked, &stop), runs);
        }
        Err(why) => tracing::warn!(part = app.part.name, %why, "no runs start here"),
    }
}

/// Calls that nobody waits for begin, as runs do, once this engine's batches count.
#[cfg(feature = "functions")]
async fn run_actions(app: &App, stop: CancellationToken) -> Result<(), pipeline::Error> {
    tokio::select! {
        acquired = app.engine.acquire_term(&app.part.name) => acquired.map(drop)?,
        () = stop.cancelled() => return Ok(()),
    }
    app.actions.run(stop).await
}

/// A task of the store's can only end early when the store does; whoever asks next gets the same error.
fn ended(task: &str, result: Result<(), pipeline::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, task, "a task has ended");
    }
}

impl Running {
    /// The app whose tasks these are.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Cancelled when the stop begins; surfaces end their long answers with it.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ends the tasks, interrupts runs (they go on at the next start), closes the store.
    pub async fn stop(self) -> Result<(), pipeline::Error> {
        let clock = self.app.engine.clock();
        #[cfg(feature = "functions")]
        self.app.actions.stop().await;
        // Runs first: where their batches go through a log, the tasks have to enter what is on its way.
        tokio::select! {
            () = self.app.syncs.stop() => {}
            () = clock.sleep(RUNS_END) => {
                // A log that cannot be read gives no answers; without the engine the runs end by themselves.
                tracing::warn!(part = self.app.part.name, "runs do not end in time, the engine is stopped");
                self.app.engine.stop().await?;
                self.app.syncs.stop().await;
            }
        }
        self.stop.cancel();
        self.tasks.wait().await;
        self.app.engine.stop().await
    }
}
