//! What a client knows of a program that keeps dying, and what must hold in the end: what was answered is there, what was not
//! may be there, nothing comes twice, and nobody is told anything false.

use super::program::{PATIENCE, Program, post};
use super::provider::Outside;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Between two looks at something nobody announces.
const LOOK: Duration = Duration::from_millis(50);

/// Events that were sent, and which of them were answered.
#[derive(Default)]
pub struct Ledger {
    /// Number of the next new event.
    pub next: u64,
    pub answered: BTreeSet<u64>,
    pub unknown: BTreeSet<u64>,
}

impl Ledger {
    /// Some new events, and some that were not answered or answered long ago.
    pub fn batch(&mut self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.unknown.iter().copied().take(20).collect();
        numbers.extend(self.next..self.next + 3);
        numbers.extend(self.answered.first());
        self.next += 3;
        self.unknown.extend(&numbers);
        numbers
    }

    /// They were answered with 2xx.
    pub fn answered(&mut self, numbers: &[u64]) {
        for n in numbers {
            self.unknown.remove(n);
            self.answered.insert(*n);
        }
    }

    /// Everything comes to rest, and is compared.
    pub async fn judge(&mut self, program: &Program, outside: &Outside, what: &str) {
        outside.freeze();
        let began = Instant::now();
        let there = loop {
            let there = self.contacts(program, what).await;
            let lost: Vec<&u64> = self.answered.iter().filter(|n| !there.contains(n)).collect();
            if lost.is_empty() {
                break there;
            }
            // The log is read again first.
            assert!(began.elapsed() < PATIENCE, "{what}: answered and lost: {lost:?}\n{}", program.said());
            tokio::time::sleep(LOOK).await;
        };
        let made_up: Vec<&u64> = there.iter().filter(|n| **n >= self.next).collect();
        assert!(made_up.is_empty(), "{what}: never sent: {made_up:?}");
        for n in self.unknown.clone() {
            assert_eq!(post(program, &[n]).await, Some(200), "{what}: a running program answers");
            self.answered(&[n]);
        }
        let all: BTreeSet<u64> = (0..self.next).collect();
        wait_for(what, "all events are records", async || self.contacts(program, what).await == all).await;
        wait_for(what, "the list is as the provider has it", async || {
            program.trigger("shop", "Thing").await;
            things(program, what).await == outside.items()
        })
        .await;
        // A reader of records may see a commit in the moment before readers of changes are told of it.
        wait_for(what, "every event made one change", async || {
            let made = program.changes("crm", "Contact").await.expect("it answers").len() as u64;
            assert!(made <= self.next, "{what}: {made} changes of {} events", self.next);
            made == self.next
        })
        .await;
        let contacts = program.changes("crm", "Contact").await.expect("it answers");
        assert!(contacts.iter().all(|change| kind(change) == "added"), "{what}: nothing came twice");
        let things = program.changes("shop", "Thing").await.expect("it answers");
        follow(&things, &outside.items(), what);
        for endpoint in ["well", "late"] {
            wait_for(what, &format!("{endpoint} was told of everything"), async || {
                told(outside, endpoint, &[("Contact", &contacts), ("Thing", &things)], what)
            })
            .await;
        }
    }

    async fn contacts(&self, program: &Program, what: &str) -> BTreeSet<u64> {
        let rows = rows(program, ("crm", "Contact"), what).await;
        let count = rows.len();
        let there: BTreeSet<u64> = rows.iter().map(|row| row["n"].as_u64().expect("a number")).collect();
        assert_eq!(there.len(), count, "{what}: one record twice");
        there
    }
}

/// The rows of a model, as soon as they can be had: a partition may be between two owners.
async fn rows(program: &Program, (source, model): (&str, &str), what: &str) -> Vec<Value> {
    let began = Instant::now();
    loop {
        if let Some(rows) = program.records(source, model).await {
            return rows;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: no answer\n{}", program.said());
        tokio::time::sleep(LOOK).await;
    }
}

async fn things(program: &Program, what: &str) -> BTreeMap<String, u64> {
    let rows = rows(program, ("shop", "Thing"), what).await;
    let live = rows.iter().filter(|row| row["_nango_metadata"]["last_action"] != "DELETED");
    live.map(|row| (row["id"].as_str().expect("an id").to_owned(), row["version"].as_u64().expect("a version")))
        .collect()
}

async fn wait_for(what: &str, that: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}: it never came to this: {that}");
        tokio::time::sleep(LOOK).await;
    }
}

fn kind(change: &Value) -> String {
    change["action"].as_str().expect("an action").to_lowercase()
}

/// The changes of each record follow one another, and lead to what there is.
fn follow(changes: &[Value], items: &BTreeMap<String, u64>, what: &str) {
    let mut state: BTreeMap<String, Value> = BTreeMap::new();
    for change in changes {
        let id = change["key"].as_str().unwrap_or_else(|| panic!("{what}: {change}")).to_owned();
        let (before, after) = (state.remove(&id), change["after"].clone());
        match kind(change).as_str() {
            "added" => assert!(before.is_none(), "{what}: added twice: {change}"),
            "updated" => assert!(before.as_ref().is_some_and(|b| *b != after), "{what}: no update: {change}"),
            _ => assert!(before.is_some(), "{what}: deleted, and was not there: {change}"),
        }
        if kind(change) != "deleted" {
            state.insert(id, after);
        }
    }
    let expected: BTreeMap<String, Value> =
        items.iter().map(|(id, version)| (id.clone(), json!({"id": id, "version": version}))).collect();
    assert_eq!(state, expected, "{what}: the changes lead to what the provider has");
}

/// Whether an endpoint was told of as many changes of each kind as there are, and never of more.
fn told(outside: &Outside, endpoint: &str, streams: &[(&str, &[Value])], what: &str) -> bool {
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    let received = outside.received();
    for ((_, _), body) in received.bodies.iter().filter(|((to, _), _)| to == endpoint) {
        let body: Value = serde_json::from_str(body).expect("JSON");
        for kind in ["added", "updated", "deleted"] {
            let model = body["model"].as_str().unwrap_or_default().to_owned();
            *sums.entry((model, kind.to_owned())).or_default() += body["responseResults"][kind].as_u64().unwrap_or(0);
        }
    }
    streams.iter().all(|(model, changes)| {
        ["added", "updated", "deleted"].into_iter().all(|word| {
            let made = changes.iter().filter(|change| kind(change) == word).count() as u64;
            let sum = sums.get(&((*model).to_owned(), word.to_owned())).copied().unwrap_or(0);
            assert!(sum <= made, "{what}: {endpoint} was told of {sum} {word} of {model}, {made} were made");
            sum == made
        })
    })
}
