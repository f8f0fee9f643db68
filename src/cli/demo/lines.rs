//! What the demo shows: a line a change, a few words at the beginning and the end.
//!
//! With `--json` a change is a JSON object a line and nothing else is printed.

use super::stage::DemoStage;
use crate::engine::Engine;
use crate::engine::model::{Action, Change, Counts, Cursor, DatasetId, Position, Timestamp, Via};
use crate::engine::pipeline::Dataset;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Characters of one field's value on the screen.
const VALUE_CHARS: usize = 28;
/// Fields shown of a new or deleted contact.
const SHOWN: [&str; 3] = ["name", "stage", "amount"];

/// Where lines go.
pub(super) struct Lines {
    json: bool,
    colour: bool,
    closed: CancellationToken,
    added: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
    by_webhook: AtomicU64,
}

impl Lines {
    /// To stdout.
    pub fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Lines {
            json,
            colour: !json && !plain && std::io::stdout().is_terminal(),
            closed: CancellationToken::new(),
            added: AtomicU64::new(0),
            updated: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            by_webhook: AtomicU64::new(0),
        }
    }

    /// Returns when nobody reads any more, as with `| head`.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// First lines.
    pub fn head(&self, provider: &str, hook: &str) {
        self.say(&format!("A fake CRM at {provider} is polled and posts webhooks to {hook}."));
        self.say("Some webhooks come late, twice or never, some requests fail. Ctrl-C ends it.\n");
    }

    /// A line about the scene.
    pub fn scene(&self, account: &str, contact: u64, text: &str) {
        let now = crate::engine::time::Clock::now(&crate::engine::time::SystemClock);
        self.say(&self.paint("33", &format!("{} {:<7} {account} Contact {contact}: {text}", time(now), "·")));
    }

    /// Last lines.
    pub fn tail(&self, stage: &DemoStage, polls: &Counts, runs: u64, equal: bool) {
        let figures = stage.fake.figures();
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (added, updated, deleted) = (read(&self.added), read(&self.updated), read(&self.deleted));
        let webhook = read(&self.by_webhook);
        let runs = runs + stage.app.syncs.keys().len() as u64;
        self.say(&format!("\n{added} added, {updated} updated, {deleted} deleted ({webhook} of these by webhook)"));
        self.say(&format!(
            "polls    {runs} runs, {} requests ({} failed on purpose): {} records unchanged, {} skipped as stale",
            figures.requests, figures.failed, polls.unchanged, polls.skipped
        ));
        let hooks = stage.app.hooks.tally();
        self.say(&format!(
            "webhooks {} received, {} of them duplicates, {} refused; {} came late, {} were never sent",
            read(&hooks.accepted),
            read(&hooks.duplicates),
            figures.refused,
            figures.late,
            figures.never
        ));
        let verdict =
            if equal { self.paint("32", "yes") } else { self.paint("31", "NO, please report this with the seed") };
        self.say(&format!("records equal the provider's own listing: {verdict}"));
        self.say("\nnext: `syncline init` writes a first definition, `syncline serve` runs it; docs/demo.md explains the lines above");
    }

    /// One change.
    fn change(&self, dataset: &Dataset, change: &Change) {
        let counter = match change.meta.action {
            Action::Added => &self.added,
            Action::Updated => &self.updated,
            Action::Deleted => &self.deleted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.by_webhook.fetch_add(u64::from(change.meta.cause.via == Via::Webhook), Ordering::Relaxed);
        let (before, after) = (object(&change.before), object(&change.after));
        match self.json {
            true => self.print(&as_json(dataset, change, before, after).to_string()),
            false => self.print(&self.as_text(dataset, change, before.as_ref(), after.as_ref())),
        }
    }

    fn as_text(
        &self,
        dataset: &Dataset,
        change: &Change,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
    ) -> String {
        let (word, colour) = match change.meta.action {
            Action::Added => ("ADDED", "32"),
            Action::Updated => ("UPDATED", "36"),
            Action::Deleted => ("DELETED", "31"),
        };
        let record = after.or(before);
        let id = record.and_then(|r| r.get("id")).and_then(Value::as_str).unwrap_or("?");
        let what = match (change.meta.action, before, after) {
            (Action::Updated, Some(before), Some(after)) => differences(before, after),
            _ => record.map(summary).unwrap_or_default(),
        };
        let who = format!("{} {} {id}", dataset.name.connection, dataset.name.model);
        let word = self.paint(colour, &format!("{word:<7}"));
        format!("{} {word} {who:<18} {:<8} {what}", time(change.meta.last_modified_at), change.meta.cause.via.as_str())
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn say(&self, text: &str) {
        if !self.json {
            self.print(text);
        }
    }

    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            self.closed.cancel();
        }
    }
}

/// Shows every change as it becomes visible; after `shown` is cancelled, what is left, and then returns.
pub(super) async fn follow(engine: Engine, lines: std::sync::Arc<Lines>, shown: CancellationToken) {
    let mut watermark = engine.watermark();
    let mut place = Cursor { position: Position::START, dataset: DatasetId(0) };
    loop {
        let last = shown.is_cancelled();
        watermark.borrow_and_update();
        let datasets = engine.datasets("default");
        let read = engine.changes(&datasets, place, &mut |dataset, change| {
            place = Cursor { position: change.meta.position, dataset: dataset.id };
            lines.change(dataset, &change);
            true
        });
        if let Err(error) = read {
            tracing::error!(%error, "the change log cannot be read");
            return;
        }
        if last {
            return;
        }
        tokio::select! {
            changed = watermark.changed() => if changed.is_err() { return },
            () = shown.cancelled() => {}
        }
    }
}

fn as_json(
    dataset: &Dataset,
    change: &Change,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
) -> Value {
    let changed = match (&before, &after, change.meta.action) {
        (Some(before), Some(after), Action::Updated) => changed(before, after),
        _ => Vec::new(),
    };
    let id = after.as_ref().or(before.as_ref()).and_then(|r| r.get("id")).cloned();
    json!({
        "action": change.meta.action.as_str(),
        "source": &*dataset.name.source,
        "connection": &*dataset.name.connection,
        "stream": &*dataset.name.model,
        "key": id,
        "before": before,
        "after": after,
        "changed": changed,
        "committed_at": change.meta.last_modified_at.to_string(),
        "via": change.meta.cause.via.as_str(),
        "cause": change.meta.cause.to_string(),
    })
}

fn object(bytes: &Option<bytes::Bytes>) -> Option<Map<String, Value>> {
    bytes.as_ref().and_then(|b| serde_json::from_slice(b).ok())
}

fn changed(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<String> =
        after.iter().filter(|(k, v)| before.get(*k) != Some(v)).map(|(k, _)| k.clone()).collect();
    names.extend(before.keys().filter(|k| !after.contains_key(*k)).cloned());
    names
}

fn differences(before: &Map<String, Value>, after: &Map<String, Value>) -> String {
    let names = changed(before, after);
    // The time of the change is no news beside what changed.
    let shown = names.iter().filter(|name| *name != "updated_at");
    let part = |name: &String| format!("{name}: {} → {}", brief(before.get(name)), brief(after.get(name)));
    shown.map(part).collect::<Vec<_>>().join(", ")
}

fn summary(record: &Map<String, Value>) -> String {
    SHOWN
        .iter()
        .filter_map(|name| Some(format!("{name}={}", brief(Some(record.get(*name)?)))))
        .collect::<Vec<_>>()
        .join(" ")
}

fn brief(value: Option<&Value>) -> String {
    let text = match value {
        None => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    match text.chars().count() > VALUE_CHARS {
        true => text.chars().take(VALUE_CHARS - 1).chain(std::iter::once('…')).collect(),
        false => text,
    }
}

/// The time of day where the reader sits.
fn time(at: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn differences_name_each_changed_field_with_both_values() {
        let before = map(r#"{"id":"1","stage":"new","amount":1.5,"updated_at":"a"}"#);
        let after = map(r#"{"id":"1","stage":"won","amount":1.5,"updated_at":"b","phone":"7"}"#);
        assert_eq!(differences(&before, &after), "stage: new → won, phone: – → 7");
        assert_eq!(summary(&after), "stage=won amount=1.5");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(brief(Some(&Value::from("x".repeat(40)))).chars().count(), VALUE_CHARS);
    }
}
