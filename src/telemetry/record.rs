//! What the parts of the program tell, one function a fact: names and labels of metrics stand here and nowhere else.

use super::PER_CONNECTION;
use crate::engine::Engine;
use crate::engine::model::{Counts, DatasetName};
use crate::engine::pipeline::Receipt;
use crate::engine::pipeline::run::{Outcome, RunRecord};
use metrics::{Label, counter, histogram};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Whose figures they are.
#[derive(Clone, Debug)]
pub struct MetricLabels {
    labels: Vec<Label>,
}

impl MetricLabels {
    /// A stream of a source in an environment, and the connection where the settings tell connections apart.
    pub fn new(environment: &str, source: &str, stream: &str, connection: &str) -> MetricLabels {
        let named = [("environment", environment), ("source", source), ("stream", stream)];
        let mut labels: Vec<Label> = named.map(|(name, value)| Label::new(name, value.to_owned())).into();
        if PER_CONNECTION.load(Ordering::Relaxed) {
            labels.push(Label::new("connection", connection.to_owned()));
        }
        MetricLabels { labels }
    }

    /// Of a dataset.
    pub fn of(name: &DatasetName) -> MetricLabels {
        MetricLabels::new(&name.environment, &name.source, &name.model, &name.connection)
    }

    fn count(&self, name: &'static str, n: u64) {
        if n > 0 {
            counter!(name, self.labels.clone()).increment(n);
        }
    }

    fn count_with(&self, name: &'static str, label: &'static str, value: &'static str, n: u64) {
        if n > 0 {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts(label, value));
            counter!(name, labels).increment(n);
        }
    }

    /// What became of records.
    pub fn records(&self, counts: &Counts) {
        let Counts { added, updated, deleted, unchanged, skipped, ignored, rejected } = *counts;
        let seen = added + updated + deleted + unchanged + skipped + ignored + rejected;
        self.count("syncline_records_seen_total", seen);
        self.count("syncline_records_unchanged_total", unchanged);
        self.count("syncline_merge_conflicts_total", skipped);
        self.count("syncline_records_quarantined_total", rejected);
        for (op, n) in [("added", added), ("updated", updated), ("deleted", deleted)] {
            self.count_with("syncline_changes_total", "op", op, n);
        }
    }
}

/// What became of the records of a commit that is not a run's: of webhooks and of topics.
pub fn committed(engine: &Engine, receipt: &Receipt) {
    for (dataset, counts) in &receipt.counts {
        if let Some(name) = engine.name_of(*dataset) {
            MetricLabels::of(&name).records(counts);
        }
    }
}

/// A run, told page by page: its record sums up, and each time only what is new is counted.
pub struct RunMeter {
    owner: MetricLabels,
    /// What was counted so far.
    told: Mutex<Sums>,
    /// What the run had done before this process took it up again: counted by that one.
    earlier: Option<RunRecord>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    counts: Counts,
    /// Requests, retries, not modified, pages, kept aside.
    others: [u64; 5],
}

impl Sums {
    fn of(record: &RunRecord) -> Sums {
        let others = [record.requests, record.retries, record.not_modified, record.pages, record.quarantined];
        Sums { counts: record.counts, others }
    }
}

impl RunMeter {
    /// Of a run about to begin, or to go on where the `earlier` one was interrupted.
    pub fn new(owner: MetricLabels, earlier: Option<RunRecord>) -> RunMeter {
        RunMeter { owner, told: Mutex::default(), earlier }
    }

    /// The run as it stands.
    pub fn upto(&self, record: &RunRecord) {
        const NAMES: [&str; 5] = [
            "syncline_poll_requests_total",
            "syncline_poll_retries_total",
            "syncline_poll_not_modified_total",
            "syncline_poll_pages_total",
            "syncline_records_quarantined_total",
        ];
        let now = Sums::of(record);
        let mut told = self.told.lock();
        let before = match self.earlier.as_ref().filter(|earlier| earlier.id == record.id).map(Sums::of) {
            Some(earlier) if told.others == [0; 5] => earlier,
            _ => *told,
        };
        self.owner.records(&less(&now.counts, &before.counts));
        for (name, (now, before)) in NAMES.into_iter().zip(now.others.into_iter().zip(before.others)) {
            self.owner.count(name, now.saturating_sub(before));
        }
        *told = now;
    }

    /// The run at its end.
    pub fn ended(&self, record: &RunRecord) {
        self.upto(record);
        let outcome = match record.status {
            Outcome::Complete => "complete",
            Outcome::Incomplete => "incomplete",
            Outcome::Failed => "failed",
            Outcome::Held => "held",
            Outcome::Cancelled => "cancelled",
            // Interrupted: it goes on at the next start.
            Outcome::Running => return,
        };
        self.owner.count_with("syncline_poll_runs_total", "outcome", outcome, 1);
        if let Some(ended) = record.ended_at {
            let labels = self.owner.labels.clone();
            histogram!("syncline_poll_run_duration_seconds", labels).record(ended.since(record.started_at));
        }
        if let (Outcome::Failed, Some((code, _))) = (record.status, &record.error) {
            let environment = self.owner.labels.first().map(|label| label.value().to_owned()).unwrap_or_default();
            let labels = [("environment", environment), ("component", "poll".into()), ("code", code.clone())];
            counter!("syncline_errors_total", &labels).increment(1);
        }
    }
}

fn less(now: &Counts, before: &Counts) -> Counts {
    Counts {
        added: now.added.saturating_sub(before.added),
        updated: now.updated.saturating_sub(before.updated),
        deleted: now.deleted.saturating_sub(before.deleted),
        unchanged: now.unchanged.saturating_sub(before.unchanged),
        skipped: now.skipped.saturating_sub(before.skipped),
        ignored: now.ignored.saturating_sub(before.ignored),
        rejected: now.rejected.saturating_sub(before.rejected),
    }
}

/// A webhook request: `accepted`, `bad_signature` or `not_stored`, and how long it took to say so.
pub fn webhook(environment: &str, source: &str, outcome: &'static str, took: Duration) {
    let place = [("environment", environment.to_owned()), ("source", source.to_owned())];
    let [named, of] = place.clone();
    counter!("syncline_webhooks_received_total", &[named, of, ("outcome", outcome.to_owned())]).increment(1);
    histogram!("syncline_webhook_ack_duration_seconds", &place).record(took);
}

/// A webhook request to an address that is none: anybody can send those, so nothing of them becomes a label.
pub fn webhook_astray() {
    counter!("syncline_webhooks_received_total", "source" => "", "outcome" => "unknown_path").increment(1);
}

/// A webhook request whose body was not read: `too_many`, `too_large`, `too_slow`, `no_memory` or `malformed`.
pub fn webhook_refused(environment: &str, source: &str, outcome: &'static str) {
    let labels = [("environment", environment), ("source", source), ("outcome", outcome)];
    counter!("syncline_webhooks_received_total", &labels.map(|(name, value)| (name, value.to_owned()))).increment(1);
}

/// A request beyond a budget was answered 429.
pub fn over_budget(budget: &'static str) {
    counter!("syncline_requests_over_budget_total", "budget" => budget).increment(1);
}

/// A connection was closed from our side: `address_full`, `oldest_idle` or `stalled`.
pub fn connection_cut(reason: &'static str) {
    counter!("syncline_connections_cut_total", "reason" => reason).increment(1);
}

/// An answer was not given because there was no memory for it.
pub fn answer_refused() {
    counter!("syncline_answers_refused_total").increment(1);
}

/// An event out of a stored webhook: `applied`, `duplicate`, `unrouted`, `unmapped` or `rejected`.
pub fn event(environment: &str, source: &str, outcome: &'static str) {
    let (environment, source) = (environment.to_owned(), source.to_owned());
    counter!("syncline_webhook_events_total", "environment" => environment, "source" => source, "outcome" => outcome)
        .increment(1);
}

/// An event is kept aside; `stream` where it got so far.
pub fn kept_aside(environment: &str, source: &str, stream: &str) {
    let labels = [("environment", environment), ("source", source), ("stream", stream)];
    counter!("syncline_records_quarantined_total", &labels.map(|(name, value)| (name, value.to_owned()))).increment(1);
}

/// Entries that the quarantine did not keep, or not any longer: `full` or `too_old`.
pub fn quarantine_dropped(why: &'static str, n: u64) {
    counter!("syncline_quarantine_dropped_total", "reason" => why).increment(n);
}

/// Dead letters that were not kept any longer.
pub fn dead_letters_dropped(n: u64) {
    counter!("syncline_dead_letters_dropped_total").increment(n);
}

/// An attempt to deliver a webhook: `delivered` or `failed`; and `dead` for one that is given up.
pub fn delivery(environment: &str, endpoint: &str, outcome: &'static str) {
    let (environment, endpoint) = (environment.to_owned(), endpoint.to_owned());
    counter!("syncline_deliveries_total", "environment" => environment, "endpoint" => endpoint, "outcome" => outcome)
        .increment(1);
}

/// A request of the API that was answered. `route` is the pattern, never the path.
pub fn request(method: &'static str, route: String, status: u16, took: Duration) {
    histogram!(
        "http_server_request_duration_seconds",
        "http_request_method" => method, "http_route" => route, "http_response_status_code" => status.to_string()
    )
    .record(took);
}
