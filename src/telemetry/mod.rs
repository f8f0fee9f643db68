//! What the program counts and times, as Prometheus reads it.
//!
//! Parts of the program say what happened through the functions of [`record`] (connectors through the `metrics` crate itself);
//! here it is collected, once per process. Promises: labels are names out of definitions and fixed words, so that their
//! number is bounded; the name of a connection is one only where the settings ask for it; between two scrapes memory does
//! not grow. Every metric stands in `docs/metrics.md`.

pub mod record;
mod share;

use crate::engine::time::Clock;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
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
/// What is read when metrics are asked for.
static MEASURED: Mutex<Vec<Weak<dyn Measured>>> = Mutex::new(Vec::new());
/// Records there are, by environment, source and stream, as they were told last.
type LiveCounts = BTreeMap<[String; 3], u64>;
static LIVE: Mutex<LiveCounts> = Mutex::new(BTreeMap::new());
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
            tracing::debug!(%error, "another program collects the metrics");
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

/// Figures of one engine and what is around it, cheaper to read when they are asked for than to keep up to date.
#[derive(Debug, Default)]
pub struct Figures {
    /// Position of the newest entry of the log of webhooks.
    pub log_end: u64,
    /// Position up to which that log was processed.
    pub processed: u64,
    /// Bytes of bodies on their way in, and of answers on their way out.
    pub memory: [usize; 2],
    /// Runs whose deletes wait for approval, by environment.
    pub held: Vec<(String, usize)>,
    /// Records there are, by environment, source and stream.
    pub live: Vec<([String; 3], u64)>,
    /// Name, rows and bytes of each view.
    pub views: Vec<(String, u64, u64)>,
    /// Least free bytes wanted on the disk, and free bytes.
    pub disk: Option<(u64, u64)>,
    /// Nothing new is taken since the disk is too full.
    pub refusing: bool,
}

/// What has figures to be read.
pub trait Measured: Send + Sync {
    /// Reads them.
    fn figures(&self) -> Figures;
}

/// Everything collected so far, with what is read only now; `None` where somebody else collects. With an environment, only
/// its figures.
pub fn scrape(environment: Option<&str>) -> Option<String> {
    let handle = COLLECTED.get()?.as_ref()?;
    read();
    let all = handle.render();
    Some(match environment {
        Some(environment) => share::of(&all, environment),
        None => all,
    })
}

/// Includes what was started in what is read, for as long as it is there: a process has several engines where it owns several
/// shards.
pub(crate) fn include(measured: Weak<dyn Measured>) {
    let mut all = lock(&MEASURED);
    all.retain(|known| known.strong_count() > 0);
    all.push(measured);
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock()
}

/// Sums up what was timed until `stop` is cancelled.
pub(crate) async fn sum_up(clock: Arc<dyn Clock>, stop: CancellationToken) {
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

/// Sets gauges to the sums over all that is measured.
fn read() {
    let all: Vec<Arc<dyn Measured>> = lock(&MEASURED).iter().filter_map(Weak::upgrade).collect();
    let figures: Vec<Figures> = all.iter().map(|measured| measured.figures()).collect();
    if let Some((least, free)) = figures.iter().filter_map(|figures| figures.disk).min_by_key(|(_, free)| *free) {
        gauge!("syncline_disk_free_bytes").set(free as f64);
        gauge!("syncline_disk_min_free_bytes").set(least as f64);
    }
    gauge!("syncline_disk_refusing").set(f64::from(u8::from(figures.iter().any(|figures| figures.refusing))));
    let total = |of: fn(&Figures) -> u64| figures.iter().map(of).sum::<u64>() as f64;
    gauge!("syncline_log_position").set(total(|figures| figures.log_end));
    gauge!("syncline_webhooks_processed_position").set(total(|figures| figures.processed));
    gauge!("syncline_bodies_memory_bytes").set(total(|figures| figures.memory[0] as u64));
    gauge!("syncline_answers_memory_bytes").set(total(|figures| figures.memory[1] as u64));
    // Streams that are reported as none where they have gone to another process.
    let mut live = std::mem::take(&mut *lock(&LIVE));
    live.values_mut().for_each(|records| *records = 0);
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    let mut views: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for figures in figures {
        figures.live.into_iter().for_each(|(stream, records)| *live.entry(stream).or_default() += records);
        figures.held.into_iter().for_each(|(environment, runs)| *held.entry(environment).or_default() += runs);
        for (name, rows, bytes) in figures.views {
            let view = views.entry(name).or_default();
            *view = (view.0 + rows, view.1 + bytes);
        }
    }
    for (environment, held) in held {
        gauge!("syncline_deletes_held", "environment" => environment).set(held as f64);
    }
    for ([environment, source, stream], records) in &live {
        let labels = [("environment", environment), ("source", source), ("stream", stream)];
        gauge!("syncline_records_live", &labels.map(|(name, value)| (name, value.clone()))).set(*records as f64);
    }
    *lock(&LIVE) = live;
    for (view, (rows, bytes)) in views {
        gauge!("syncline_view_rows", "view" => view.clone()).set(rows as f64);
        gauge!("syncline_view_bytes", "view" => view).set(bytes as f64);
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
    describe_counter!("syncline_records_quarantined_total", "items that are no records, quarantined");
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
