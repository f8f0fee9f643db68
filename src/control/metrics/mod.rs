//! What the program counts and times, as Prometheus reads it.
//!
//! Parts of the program say what happened through the functions of [`told`] (connectors through the `metrics` crate itself);
//! here it is collected, once per process. Promises: labels are names out of definitions and fixed words, so that their
//! number is bounded; the name of a connection is one only where the settings ask for it; between two scrapes memory does
//! not grow. Every metric stands in `docs/metrics.md`.

mod share;
pub mod told;

use super::App;
use super::config::OF_ALL;
use crate::engine::pipeline::Table;
use crate::engine::time::Clock;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Borders of everything timed: from a synced write to a long run.
const SECONDS: [f64; 18] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];
/// Borders of everything counted in one go.
const AMOUNTS: [f64; 8] = [1.0, 10.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 100_000.0];
/// How often what was timed is summed up: until then each single value is kept.
const SUM_UP: Duration = Duration::from_secs(5);

static COLLECTED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
/// Apps of this process that were started.
static APPS: Mutex<Vec<Weak<App>>> = Mutex::new(Vec::new());
/// Records there are, by environment, source and stream, as they were told last.
type Live = BTreeMap<[String; 3], u64>;
static LIVE: Mutex<Live> = Mutex::new(BTreeMap::new());
/// One for the process, as what is collected is.
static PER_CONNECTION: AtomicBool = AtomicBool::new(false);

/// Begins to collect. Further calls only change whether connections are told apart.
pub fn begin(per_connection: bool) {
    PER_CONNECTION.store(per_connection, Ordering::Relaxed);
    COLLECTED.get_or_init(|| match install() {
        Ok(handle) => {
            describe();
            gauge!("syncline_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            Some(handle)
        }
        // A program that uses this library has a collector of its own: it gets all of it.
        Err(error) => {
            tracing::debug!(%error, "metrics are collected by somebody else");
            None
        }
    });
}

fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".into()), &AMOUNTS)?
        .install_recorder()
}

/// Everything collected so far, with what is looked up only now; `None` where somebody else collects. Who asks for one
/// environment sees its figures, unless it is the only one there is.
pub fn scrape(app: &App, environment: Option<&str>) -> Option<String> {
    let handle = COLLECTED.get()?.as_ref()?;
    look_up();
    let all = handle.render();
    match environment {
        Some(environment) if environment != OF_ALL && !is_alone(app, environment) => Some(share::of(&all, environment)),
        _ => Some(all),
    }
}

/// Whether everything of the installation belongs to one environment.
fn is_alone(app: &App, environment: &str) -> bool {
    let fixed = app.definitions.values().flat_map(|definition| &definition.connections);
    let connections = fixed.map(|connection| connection.environment.as_str()).filter(|name| !name.is_empty());
    let endpoints = app.settings.endpoints.values().map(|endpoint| endpoint.environment.as_str());
    app.settings.environments().chain(connections).chain(endpoints).all(|other| other == environment)
}

/// Includes an app that was started in what is looked up, for as long as it is there: a process has several where it owns
/// several partitions.
pub(super) fn include(app: &Arc<App>) {
    let mut apps = lock(&APPS);
    apps.retain(|app| app.strong_count() > 0);
    apps.push(Arc::downgrade(app));
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sums up what was timed until `stop` is cancelled.
pub(super) async fn sum_up(clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = clock.sleep(SUM_UP) => {}
            () = stop.cancelled() => return,
        }
        if let Some(Some(handle)) = COLLECTED.get() {
            handle.run_upkeep();
        }
    }
}

/// What is cheaper to look up when asked than to keep up to date.
fn look_up() {
    let apps: Vec<Arc<App>> = lock(&APPS).iter().filter_map(Weak::upgrade).collect();
    let (mut end, mut processed) = (0, 0);
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let (mut bodies, mut answers) = (0, 0);
    // Streams that are told as none where they have gone to another process.
    let mut live = std::mem::take(&mut *lock(&LIVE));
    live.values_mut().for_each(|records| *records = 0);
    let mut held_by_views: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for app in &apps {
        for view in app.engine.views() {
            let held = held_by_views.entry(view.name).or_default();
            *held = (held.0 + view.health.rows, held.1 + view.health.bytes);
        }
        end += *app.engine.log().end().borrow();
        processed += app.hooks.processed();
        bodies += app.bounds.bodies.used();
        answers += app.bounds.answers.used();
        for environment in environments(app) {
            let waiting = app.engine.marks(Table::Held, &[&environment]).map_or(0, |held| held.len());
            *held.entry(environment).or_default() += waiting;
        }
        count_live(app, &mut live);
    }
    let disks = apps.iter().filter_map(|app| app.engine.disk());
    if let Some((least, free)) = disks.min_by_key(|(_, free)| *free) {
        gauge!("syncline_disk_free_bytes").set(free as f64);
        gauge!("syncline_disk_min_free_bytes").set(least as f64);
    }
    let refusing = apps.iter().any(|app| app.engine.refusing().is_some());
    gauge!("syncline_disk_refusing").set(f64::from(u8::from(refusing)));
    gauge!("syncline_log_position").set(end as f64);
    gauge!("syncline_webhooks_processed_position").set(processed as f64);
    gauge!("syncline_bodies_memory_bytes").set(bodies as f64);
    gauge!("syncline_answers_memory_bytes").set(answers as f64);
    for (environment, held) in held {
        gauge!("syncline_deletes_held", "environment" => environment).set(held as f64);
    }
    for ([environment, source, stream], records) in &live {
        let labels = [("environment", environment), ("source", source), ("stream", stream)];
        gauge!("syncline_records_live", &labels.map(|(name, value)| (name, value.clone()))).set(*records as f64);
    }
    *lock(&LIVE) = live;
    for (view, (rows, bytes)) in held_by_views {
        gauge!("syncline_view_rows", "view" => view.clone()).set(rows as f64);
        gauge!("syncline_view_bytes", "view" => view).set(bytes as f64);
    }
}

/// Environments that may have something to be counted.
fn environments(app: &App) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = app.settings.environments().map(str::to_owned).collect();
    all.extend(app.connections.all().iter().map(|account| account.key.environment.clone()));
    all.insert("default".to_owned());
    all
}

fn count_live(app: &App, live: &mut Live) {
    for dataset in environments(app).iter().flat_map(|environment| app.engine.datasets(environment)) {
        let name = &dataset.name;
        let of = [&name.environment, &name.source, &name.model].map(|part| part.to_string());
        *live.entry(of).or_default() += app.engine.live(&dataset);
    }
}

fn describe() {
    describe_gauge!("syncline_build_info", "1, with the version of the program");
    describe_counter!("syncline_errors_total", "failures by code, of runs and of deliveries given up");
    describe_counter!("syncline_poll_runs_total", "runs that ended, by outcome");
    describe_histogram!("syncline_poll_run_duration_seconds", Unit::Seconds, "from a run's begin to its end");
    describe_counter!("syncline_poll_requests_total", "requests of runs to providers");
    describe_counter!("syncline_poll_retries_total", "attempts of runs that failed and were repeated");
    describe_counter!("syncline_poll_not_modified_total", "answers that said nothing has changed");
    describe_counter!("syncline_poll_pages_total", "pages read");
    describe_counter!("syncline_webhooks_received_total", "webhook requests, by outcome");
    describe_histogram!("syncline_webhook_ack_duration_seconds", Unit::Seconds, "from a whole request to its answer");
    describe_counter!("syncline_webhook_events_total", "events out of stored webhooks, by outcome");
    describe_counter!("syncline_records_seen_total", "records that came, whatever became of them");
    describe_counter!("syncline_records_unchanged_total", "records that came with the content they had");
    describe_counter!("syncline_records_quarantined_total", "items kept aside because they are no records");
    describe_counter!("syncline_merge_conflicts_total", "records that lost against a newer version");
    describe_counter!("syncline_changes_total", "changes, by kind");
    describe_counter!("syncline_quarantine_dropped_total", "entries the quarantine did not keep, by reason");
    describe_counter!("syncline_dead_letters_dropped_total", "dead letters that were not kept any longer");
    describe_counter!("syncline_deliveries_total", "attempts to deliver a webhook, by outcome");
    describe_gauge!("syncline_disk_free_bytes", Unit::Bytes, "free on the disk of the data folder");
    describe_gauge!("syncline_disk_min_free_bytes", Unit::Bytes, "with less than this nothing new is taken");
    describe_gauge!("syncline_disk_refusing", "1 while nothing new is taken because the disk is too full");
    describe_gauge!("syncline_log_position", "position of the newest entry of the log of webhooks");
    describe_gauge!("syncline_webhooks_processed_position", "position up to which that log was processed");
    describe_gauge!("syncline_deletes_held", "runs whose deletes wait for approval");
    describe_gauge!("syncline_records_live", "records there are");
    describe_gauge!("syncline_view_rows", "rows a view holds in memory");
    describe_gauge!("syncline_view_bytes", Unit::Bytes, "about how many bytes these rows are");
    describe_counter!("syncline_requests_over_budget_total", "requests answered 429, by budget");
    describe_counter!("syncline_connections_cut_total", "connections closed from this side, by reason");
    describe_counter!("syncline_answers_refused_total", "answers for which there was no memory");
    describe_gauge!("syncline_bodies_memory_bytes", Unit::Bytes, "memory of bodies on their way in");
    describe_gauge!("syncline_answers_memory_bytes", Unit::Bytes, "memory of answers on their way out");
    describe_histogram!("http_server_request_duration_seconds", Unit::Seconds, "from a request's head to its answer's");
}
