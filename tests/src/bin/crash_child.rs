//! The program the crash tests kill: goes on with a seeded history from where the data folder stands, several commits
//! and log appends in flight, and says on its standard output what was acknowledged.
//!
//! Usage: `crash_child FOLDER SEED WORKERS`. Lines: `open N`, `acked N` (step), `logged N` (position), `settling JSON`
//! (before) and `settled ID` (after) for deliveries.

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::io::Write;
use std::path::Path;
use syncline_engine::Engine;
use syncline_engine::pipeline::Dataset;
use syncline_tests::crash::{batch_of, history, log_entry, open, place};
use syncline_tests::history::History;

/// Commits in flight.
const COMMITS: usize = 6;
/// Log appends in flight.
const APPENDS: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, seed, workers] = &arguments[..] else { panic!("usage: crash_child FOLDER SEED WORKERS") };
    let seed: u64 = seed.parse().expect("a seed");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (engine, sets) = open(Path::new(folder), workers.parse().expect("a number")).expect("opens");
        let next = place(&engine).expect("the place").map_or(0, |n| n + 1);
        say(&format!("open {next}"));
        tokio::join!(commits(&engine, &sets, history(seed), next), appends(&engine, seed), deliveries(&engine),);
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then there is nobody to tell and nothing to do.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

async fn commits(engine: &Engine, sets: &[Dataset], history: History, mut next: u64) {
    let mut flying = FuturesOrdered::new();
    loop {
        while flying.len() < COMMITS {
            let (n, batch) = (next, batch_of(engine, sets, &history, next));
            flying.push_back(async move { engine.commit(batch).await.map(|_| n) });
            next += 1;
        }
        match flying.next().await {
            Some(Ok(n)) => say(&format!("acked {n}")),
            Some(Err(wrong)) => panic!("commit: {wrong}"),
            None => {}
        }
    }
}

async fn appends(engine: &Engine, seed: u64) {
    let log = engine.log();
    let mut next = *log.end().borrow() + 1;
    let mut flying = FuturesOrdered::new();
    loop {
        while flying.len() < APPENDS {
            let entries: Vec<Vec<u8>> = (next..=next + next % 3).map(|n| log_entry(seed, n)).collect();
            next += entries.len() as u64;
            let log = log.clone();
            flying.push_back(async move { log.append(entries).await });
        }
        match flying.next().await {
            Some(Ok(position)) => say(&format!("logged {position}")),
            Some(Err(wrong)) => panic!("append: {wrong}"),
            None => {}
        }
    }
}

/// Delivers the oldest entry now and then, so that some are kept over many crashes.
async fn deliveries(engine: &Engine) {
    let mut changed = engine.outbox_changed();
    for turn in 0u64.. {
        if changed.changed().await.is_err() {
            return;
        }
        if turn % 2 == 0 {
            engine.announce_webhooks().await.expect("announces");
        }
        let owed = engine.outbox(64).expect("the outbox");
        if let Some(delivery) = owed.first().filter(|_| owed.len() > 3) {
            say(&format!("settling {}", serde_json::to_string(delivery).expect("JSON")));
            engine.settle(&delivery.id, None).await.expect("settles");
            say(&format!("settled {}", delivery.id));
        }
    }
}
