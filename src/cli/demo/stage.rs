//! The stage: provider, definition files and program, set up in a temporary folder and struck without a trace.

use crate::api;
use crate::app::{App, Running};
use crate::cli::exit::{Fail, code};
use crate::config::{self, Origin};
use crate::connectors::egress::Egress;
use crate::connectors::http::{Client, ClientOptions};
use crate::engine::model::{Action, Counts, Position};
use crate::engine::pipeline::Filter;
use crate::engine::time::Clock;
use crate::ingest::poll::{RunError, RunOptions, SyncKey, TriggerOptions};
use crate::server;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline_provider::{ClientCourier, DefinitionOptions, Fake, FakeOptions, WebhookOptions, definition};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Accounts of the provider.
const ACCOUNTS: usize = 2;
/// Contacts of each at the start.
const CONTACTS: u64 = 12;
/// Mean time between changes in one account.
const CHANGE_EVERY: Duration = Duration::from_millis(800);
/// Longer than two polls and the second `Date` headers round by, so that each version is seen: that is what makes the
/// changes of a record depend on the seed alone.
const COOLDOWN: Duration = Duration::from_millis(5_500);

/// Everything the demo needs.
pub(super) struct DemoStage {
    /// The provider.
    pub fake: Fake,
    /// The program.
    pub app: Arc<App>,
    /// Where webhooks go.
    pub hook: String,
    running: Mutex<Option<Running>>,
    folder: TempDir,
}

impl DemoStage {
    /// Sets everything up; changes happen for `span`.
    pub async fn set(seed: u64, span: Duration, clock: Arc<dyn Clock>) -> Result<DemoStage, Fail> {
        let folder =
            tempfile::Builder::new().prefix("syncline-demo-").tempdir().map_err(|e| broken("a temporary folder", e))?;
        let listener = server::bind("127.0.0.1:0").await?;
        let address = listener.local_addr().map_err(|e| broken("a local port", e))?;
        let hook = format!("http://{address}/hooks/fake");
        let secret = format!("demo-secret-{seed:016x}-of-no-value");
        let options = ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() };
        let client = Client::new(options, clock.clone()).map_err(|e| Fail::new(code::INTERNAL, e.to_string()))?;
        let fake = Fake::start(provider(seed, span, &hook, &secret, clock.clone()), Arc::new(ClientCourier(client)))
            .await
            .map_err(|e| broken("the fake provider", e))?;
        write_files(folder.path(), &fake, &secret).map_err(|e| broken("the demo's files", e))?;
        let mut settings =
            config::load(&origin(folder.path())).map_err(|e| Fail::new(code::INTERNAL, e.to_string()))?.settings;
        settings.functions = None;
        let app = App::open(settings, clock).await?;
        let running = app.start();
        tokio::spawn(server::serve(listener, api::router_until(app.clone(), running.stopping()), running.stopping()));
        Ok(DemoStage { fake, app, hook, running: Mutex::new(Some(running)), folder })
    }

    /// One run, to its end.
    pub async fn poll(&self, key: &SyncKey, full: bool) -> Result<Counts, RunError> {
        let options = RunOptions { trigger: TriggerOptions { full, ..TriggerOptions::default() }, since: None };
        self.app.syncs.run(key, options, CancellationToken::new(), &|_, _| {}).await.map(|report| report.record.counts)
    }

    /// A complete listing of every account: what was still on its way is found, as it would be in real life.
    pub async fn poll_whole(&self) -> Result<Counts, Fail> {
        let mut sums = Counts::default();
        for key in self.app.syncs.keys() {
            sums.add(&self.poll(&key, true).await?);
        }
        Ok(sums)
    }

    /// Whether the live records are those the provider lists.
    pub async fn equals_truth(&self) -> Result<bool, Fail> {
        for (number, (account, _)) in self.fake.accounts().iter().enumerate() {
            let key = self.app.syncs.keys().into_iter().find(|k| k.connection == *account);
            let Some(dataset) = key.and_then(|key| self.app.syncs.datasets(&key)?.pop()) else { return Ok(false) };
            let mut records = BTreeMap::new();
            self.app.engine.records(&dataset, Position::START, Filter::ALL, &mut |meta, payload| {
                if meta.action != Action::Deleted
                    && let Ok(record) = serde_json::from_slice::<Value>(payload)
                {
                    records.insert(record.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(), record);
                }
                true
            })?;
            let truth = self.fake.truth(number).into_iter();
            let truth: BTreeMap<_, _> =
                truth.filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?))).collect();
            if records != truth {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stops everything and removes the folder.
    pub async fn strike(&self) -> Result<(), Fail> {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.stop().await?;
        }
        // Removed here as well, not only when the folder is dropped: a task that is still ending may hold the stage.
        std::fs::remove_dir_all(self.folder.path()).map_err(|e| broken("removing the temporary folder", e))
    }
}

fn provider(seed: u64, span: Duration, hook: &str, secret: &str, clock: Arc<dyn Clock>) -> FakeOptions {
    FakeOptions {
        records: CONTACTS,
        connections: ACCOUNTS,
        change_every: Some(CHANGE_EVERY),
        change_for: Some(span),
        cooldown: COOLDOWN,
        failing: 0.02,
        webhooks: Some(WebhookOptions { late: 0.15, twice: 0.1, never: 0.15, ..WebhookOptions::prompt(hook, secret) }),
        ..FakeOptions::new(seed, clock)
    }
}

fn write_files(folder: &Path, fake: &Fake, secret: &str) -> std::io::Result<()> {
    let sources = folder.join("sources");
    std::fs::create_dir(&sources)?;
    let mut options = DefinitionOptions::new(&fake.url());
    options.every = "1h".to_owned();
    // The demo asks for each poll itself.
    options.paused = true;
    options.webhook_secret = Some("file:hook.secret".to_owned());
    std::fs::write(sources.join("hook.secret"), secret)?;
    for (account, token) in fake.accounts() {
        std::fs::write(sources.join(format!("{account}.token")), token)?;
        options.connections.push((account.clone(), format!("file:{account}.token")));
    }
    std::fs::write(sources.join("fake.yaml"), definition(&options))
}

fn origin(folder: &Path) -> Origin {
    let path = |name: &str| folder.join(name).display().to_string();
    let flags = [
        ("data_dir", path("data")),
        ("sources", path("sources")),
        ("egress.allow_http", "true".to_owned()),
        ("egress.allow", r#"["127.0.0.0/8"]"#.to_owned()),
        ("workers", "1".to_owned()),
    ];
    Origin { flags: flags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(), ..Origin::default() }
}

fn broken(what: &str, error: std::io::Error) -> Fail {
    Fail::new(code::UNAVAILABLE, format!("{what} could not be had: {error}"))
}
