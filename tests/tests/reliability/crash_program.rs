//! `syncline serve`, killed while webhooks come in: what was answered 2xx is in the records once, and what is owed to the
//! outside keeps its id.
//!
//! `CRASH_CYCLES=n` sets the number of cycles.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use syncline_tests::crash::side_by_side;
use syncline_tests::crm::DEFINITION;
use syncline_tests::ledger::Trial;
use syncline_tests::process::{Door, Program};

const WAIT: Duration = Duration::from_secs(30);

/// Deliveries received: id → body.
type Ledger = Arc<Mutex<BTreeMap<String, String>>>;

/// Cycles on one folder; then a new one begins.
const CYCLES_PER_FOLDER: u64 = 8;
/// Cycles where nobody asks for more.
const CYCLES: u64 = 32;

#[test]
fn killed_under_webhooks_it_has_each_answered_event_once() {
    let cycles: u64 = std::env::var("CRASH_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    let done = side_by_side((0..cycles).step_by(CYCLES_PER_FOLDER as usize), |first| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(kill_under_webhooks(first..cycles.min(first + CYCLES_PER_FOLDER)));
    });
    assert_eq!(done, Ok(()), "folders in which something was lost or doubled");
}

async fn kill_under_webhooks(cycles: Range<u64>) {
    let mut trial = Trial::of("kills");
    let ledger = Ledger::default();
    let folder = tempfile::tempdir().expect("a folder");
    settings(folder.path(), receiver(ledger.clone()).await);
    let (mut next, mut pending, mut acked) = (0u64, VecDeque::new(), BTreeSet::new());
    for cycle in cycles {
        if cycle % 4 == 3 {
            // Twice in a row, the second time while it recovers.
            Program::killed_after(folder.path(), Duration::from_millis(cycle * 7919 % 90));
            trial.add(1);
        }
        let mut program = Program::start(folder.path(), &[]);
        let until = Instant::now() + Duration::from_millis(100 + cycle * 7919 % 500);
        let door = program.door();
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            program.kill();
        });
        while Instant::now() < until {
            for _ in 0..16 {
                pending.push_back(next);
                next += 1;
            }
            // The provider sends again what was not answered, and now and then what was.
            let again = acked.first().copied().filter(|_| next % 64 == 0);
            let batch: Vec<u64> = pending.drain(..).chain(again).collect();
            let answers = futures_util::future::join_all(batch.iter().map(|n| post(&door, *n))).await;
            for (n, answered) in batch.into_iter().zip(answers) {
                if answered { _ = acked.insert(n) } else { pending.push_back(n) }
            }
        }
        killer.await.expect("killed");
        trial.add(1);
        println!("cycle {cycle}: sent {next}, answered {}", acked.len());
    }
    assert!(acked.len() > 50, "the load was real");
    let mut program = Program::start(folder.path(), &[]);
    let rows = records_once(&program, acked.len()).await;
    let lost: Vec<&u64> = acked.iter().filter(|n| !rows.contains_key(&format!("r{n}"))).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    for n in pending {
        assert!(post(&program, n).await, "a running program answers");
    }
    let rows = records_once(&program, next as usize).await;
    let expected: BTreeMap<String, Value> = (0..next).map(|n| (format!("r{n}"), json!(n))).collect();
    assert_eq!(rows, expected, "every event once, none made up");
    for change in program.changes("crm", "Contact").await.expect("it answers") {
        assert_eq!(
            change["action"].as_str().map(str::to_uppercase).as_deref(),
            Some("ADDED"),
            "nothing came twice: {change}"
        );
    }
    told(&ledger, next).await;
    program.kill();
}

/// All additions are told of in the end, each once however often its delivery came.
async fn told(ledger: &Ledger, count: u64) {
    let began = Instant::now();
    loop {
        let bodies: Vec<String> = ledger.lock().expect("lock").values().cloned().collect();
        let added = |body: &String| {
            let body: Value = serde_json::from_str(body).expect("JSON");
            body["responseResults"]["added"].as_u64().unwrap_or(0)
        };
        let sum: u64 = bodies.iter().map(added).sum();
        assert!(sum <= count, "{sum} additions told of, {count} made");
        if sum == count {
            return;
        }
        assert!(began.elapsed() < WAIT, "{sum} of {count} additions told of: {bodies:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn settings(folder: &Path, port: u16) {
    std::fs::create_dir(folder.join("sources")).expect("folder");
    std::fs::write(folder.join("sources/crm.yaml"), DEFINITION).expect("definition");
    let settings = json!({
        "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
        "encryption": "off", "workers": 2,
        "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]},
        "endpoints": {"backend": {"url": format!("http://127.0.0.1:{port}/in"), "secret": "env:OUT_SECRET"}},
    });
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
}

/// Takes deliveries; one that comes again must be the same.
async fn receiver(ledger: Ledger) -> u16 {
    async fn take(State(ledger): State<Ledger>, headers: HeaderMap, body: String) {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let mut ledger = ledger.lock().expect("lock");
        if let Some(known) = ledger.insert(id.clone(), body.clone()) {
            assert_eq!(known, body, "{id} came again with another body");
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().route("/in", axum::routing::post(take)).with_state(ledger);
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// Whether the event was answered with 2xx.
async fn post(door: &Door, n: u64) -> bool {
    let record = json!({"id": format!("r{n}"), "n": n});
    let event = json!([{"kind": "whole", "portal": 7, "eventId": format!("e{n}"), "record": record}]);
    door.post_body(event.to_string()).await.is_some_and(|(status, _, _)| (200..300).contains(&status))
}

/// The records once there are so many: id → n.
async fn records_once(door: &Door, count: usize) -> BTreeMap<String, Value> {
    let began = Instant::now();
    loop {
        let mut rows = BTreeMap::new();
        for row in door.records("crm", "Contact").await.expect("it answers") {
            let id = row["id"].as_str().expect("an id").to_owned();
            assert!(rows.insert(id, row["n"].clone()).is_none(), "one record twice: {row}");
        }
        if rows.len() >= count || began.elapsed() > WAIT {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
