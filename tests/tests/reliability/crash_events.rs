//! `syncline serve` with a function that takes webhooks, killed while events come in and while it is in the middle of one: each
//! event that was answered has its effect once, and those of a connection have it in the order of the log.
//!
//! `CRASH_CYCLES=n` sets the number of cycles, `CRASH_SEED` the seed of their moments.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use syncline_tests::ledger::Trial;
use syncline_tests::process::{Door, Program, settle};
use tokio_util::sync::CancellationToken;

const CYCLES: u64 = 8;
const SOURCE: &str = "hooks";
/// Connections by the account that their events name.
const CONNECTIONS: [(u64, &str); 2] = [(7, "acme"), (8, "other")];
/// Events of one request.
const TOGETHER: u64 = 3;
/// Between two requests of a provider: its events come about as fast as they are taken.
const PAUSE: Duration = Duration::from_millis(60);
/// How long the provider keeps the function waiting, so that a kill meets the middle of an event.
const MIDDLE: Duration = Duration::from_millis(8);
const WAIT: Duration = Duration::from_secs(120);

/// Each event is a record of its own, and one more in a record that counts; its place comes from the checkpoint.
const FUNCTION: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

const Note = z.object({ id: z.string(), n: z.number(), place: z.number() });
const Total = z.object({ id: z.string(), count: z.number(), last: z.number() });

export default createSync({
    frequency: 'every hour',
    autoStart: false,
    models: { Note, Total },
    checkpoint: z.object({ count: z.number() }),
    webhookSubscriptions: ['note'],
    exec: async () => {},
    onWebhook: async (nango, event: { id: string; n: number }) => {
        const before = await nango.getCheckpoint();
        const count = (before?.count ?? 0) + 1;
        await nango.batchSave([{ id: event.id, n: event.n, place: count }], 'Note');
        await nango.get({ endpoint: '/middle' });
        await nango.batchSave([{ id: 'all', count, last: event.n }], 'Total');
        await nango.saveCheckpoint({ count });
    },
});
"#;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_events_each_has_its_effect_once_and_in_order() {
    let (cycles, seed) = (number("CRASH_CYCLES", CYCLES), number("CRASH_SEED", 1));
    println!("CRASH_SEED={seed}");
    let mut trial = Trial::of("kills");
    trial.seed(format!("events {seed}"));
    let mut chance = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Arc::new(AtomicU64::new(0));
    lay_out(folder.path(), &provider(begun.clone()).await);
    let mut sent = CONNECTIONS.map(|_| 0);
    for cycle in 0..cycles {
        if cycle % 4 == 3 {
            // Twice in a row, the first time while it recovers.
            Program::killed_after(folder.path(), Duration::from_millis(chance.random_range(0..400)));
            trial.add(1);
        }
        let mut program = Program::start(folder.path(), &[]);
        let door = program.door();
        let life = Duration::from_millis(chance.random_range(200..1_500));
        let over = CancellationToken::new();
        let kill = async {
            tokio::time::sleep(life).await;
            program.kill();
            over.cancel();
        };
        let [one, other] = &mut sent;
        tokio::join!(kill, send(&door, CONNECTIONS[0].0, one, &over), send(&door, CONNECTIONS[1].0, other, &over),);
        trial.add(1);
        println!("cycle {cycle}: killed after {life:?}, sent {sent:?}, begun {}", begun.load(Ordering::SeqCst));
    }
    assert!(sent.iter().all(|sent| *sent > 30), "the load was real: {sent:?}");
    let program = Program::start(folder.path(), &[]);
    for ((account, connection), sent) in CONNECTIONS.iter().zip(sent) {
        // The last request before the kill may be there or not; the provider repeats it until it is answered.
        post(&program, *account, sent).await.expect("a running program answers");
        judge(&program, &program.of(connection), sent + TOGETHER).await;
    }
    let all = sent.iter().map(|sent| sent + TOGETHER).sum();
    let begun = begun.load(Ordering::SeqCst);
    assert!(begun > all, "{begun} of {all} events begun: no kill met the middle of one");
    let (_, parked) = program.get("/v1/quarantine", SOURCE).await.expect("it answers");
    assert_eq!(parked["entries"], json!([]), "{parked}");
}

/// Where the function waits in the middle of each event.
async fn provider(begun: Arc<AtomicU64>) -> String {
    async fn middle(State(begun): State<Arc<AtomicU64>>) -> axum::Json<Value> {
        begun.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(MIDDLE).await;
        axum::Json(json!({}))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/middle", get(middle)).with_state(begun);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn lay_out(folder: &Path, url: &str) {
    let syncs = folder.join("functions").join(SOURCE).join("syncs");
    std::fs::create_dir_all(&syncs).expect("a folder");
    std::fs::create_dir_all(folder.join("sources")).expect("a folder");
    std::fs::write(syncs.join("notes.ts"), FUNCTION).expect("a function");
    let connections = CONNECTIONS.map(|(account, name)| (name.to_owned(), json!({"metadata": {"account": account}})));
    let definition = json!({
        "source": SOURCE, "base_url": url, "auth": {"type": "none"},
        "webhooks": {
            "verify": {"scheme": "shared_secret", "header": "X-Token", "secret": "env:SECRET"},
            "events": ".[]", "route": ".account", "type": ".kind", "dedupe": ".delivery",
        },
        "connections": connections.into_iter().collect::<serde_json::Map<_, _>>(),
    });
    std::fs::write(folder.join("sources/hooks.yaml"), definition.to_string()).expect("a definition");
    settle(folder, json!({}));
}

/// Sends events one request after the other until the program is killed. One that was not answered is not counted: it is sent
/// again before any other, so that the order of the numbers is that of the log.
async fn send(door: &Door, account: u64, sent: &mut u64, over: &CancellationToken) {
    while !over.is_cancelled() {
        if post(door, account, *sent).await.is_some() {
            *sent += TOGETHER;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The request with the events from this one on; `None` if it was not answered.
async fn post(door: &Door, account: u64, first: u64) -> Option<()> {
    let event = |n| json!({"kind": "note", "account": account, "delivery": format!("{account}-{n}"), "id": format!("r{n}"), "n": n});
    let events: Vec<Value> = (first..first + TOGETHER).map(event).collect();
    let (status, _, _) = door.post_body(Value::from(events).to_string()).await?;
    (200..300).contains(&status).then_some(())
}

/// Every event is in its place, and made one change of each of its records.
async fn judge(program: &Program, door: &Door, sent: u64) {
    let began = Instant::now();
    loop {
        let rows = door.records(SOURCE, "Total").await.expect("it answers");
        let count = rows.first().map_or(0, |row| row["count"].as_u64().expect("a count"));
        assert!(count <= sent, "{count} of {sent} events: some were counted twice");
        if count == sent {
            break;
        }
        assert!(began.elapsed() < WAIT, "{count} of {sent} events\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let notes: Vec<Value> = (0..sent).map(|n| json!({"id": format!("r{n}"), "n": n, "place": n + 1})).collect();
    let totals: Vec<Value> = (0..sent).map(|n| json!({"id": "all", "count": n + 1, "last": n})).collect();
    for (model, wanted) in [("Note", &notes), ("Total", &totals)] {
        let changes = changes_once(door, model, wanted.len()).await;
        let made: Vec<Value> = changes.iter().map(|change| change["after"].clone()).collect();
        assert_eq!(made, *wanted, "changes of {model}: each event one, in the order of the log");
        let added = changes.iter().filter(|change| change["action"] == "ADDED").count();
        assert_eq!(added, if model == "Note" { notes.len() } else { 1 }, "{model}");
    }
    let mut rows = door.records(SOURCE, "Note").await.expect("it answers");
    rows.iter_mut().for_each(|row| _ = row.as_object_mut().expect("a row").remove("_nango_metadata"));
    rows.sort_by_key(|row| row["n"].as_u64());
    assert_eq!(rows, notes, "records of the events");
}

/// The changes of a model, once there are so many: a reader of records may see a commit in the moment before readers of changes
/// are told of it.
async fn changes_once(door: &Door, model: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let changes = door.changes(SOURCE, model).await.expect("it answers");
        if changes.len() >= count || began.elapsed() > WAIT {
            return changes;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
