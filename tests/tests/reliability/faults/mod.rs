//! Every failpoint of the program, met by the real program under a small load: killed there, or failing there, started again,
//! and compared with what its clients were told.
//!
//! `FAULTS=name,name` walks these alone. What is said of a point in its row of the table is what is held to here: nothing
//! acknowledged is lost, nothing comes twice, and an error that closes the store ends the program with code 71. What lies below
//! our code is in `broken`, `commands` and `full`: a disk that fails, and one that is full.

mod broken;
mod commands;
mod copies;
mod full;
mod ledger;
mod program;
mod provider;
mod small;
mod trim;

use ledger::Ledger;
use program::{PATIENCE, Program, settle_in};
use provider::Outside;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use syncline_engine::fault::points::{KAFKA, OUTPUTS, OnError, POINTS, Point};
use syncline_tests::broker;
use syncline_tests::ledger::Trial;
use syncline_tests::topic;

/// Points walked at the same time: a program waits for the disk and for its clients more than it works.
const AT_ONCE: usize = 3;
/// Turns of load in the life without a fault.
const LAST_TURNS: u32 = 8;
/// Exit code of a program whose store has failed.
const DISK: i32 = 71;
const SIGKILL: i32 = 9;

#[test]
fn at_every_failpoint_nothing_answered_is_lost_and_nothing_comes_twice() {
    let only = std::env::var("FAULTS").unwrap_or_default();
    let asked: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let points: Vec<&Point> = POINTS.iter().filter(|p| asked.is_empty() || asked.contains(&p.name)).collect();
    assert!(!points.is_empty(), "no failpoint has the name {only}");
    let mut trial = Trial::of("failpoints");
    let faults = lives(&points);
    some_at_once(points, async |point| drop(walk(point, json!({})).await));
    trial.add(faults);
}

#[test]
fn at_every_edge_to_kafka_nothing_answered_is_lost_and_nothing_comes_twice() {
    let mut trial = Trial::of("failpoints");
    let points: Vec<&Point> = KAFKA.iter().collect();
    let faults = lives(&points);
    some_at_once(points, async |point: &Point| {
        let cluster = broker::cluster("faults");
        let kafka = json!({"brokers": cluster.brokers, "prefix": cluster.prefix, "topics": {"replication": 1}});
        let log = json!({"kind": "kafka", "partitions": 1, "session": "2s"});
        drop(walk(point, json!({"kafka": kafka, "log": log})).await);
    });
    trial.add(faults);
}

#[test]
fn at_every_edge_to_output_topics_each_change_appears_once() {
    let mut trial = Trial::of("failpoints");
    let points: Vec<&Point> = OUTPUTS.iter().collect();
    let faults = lives(&points);
    some_at_once(points, async |point: &Point| {
        let cluster = broker::cluster("faults");
        let kafka =
            json!({"brokers": cluster.brokers, "prefix": cluster.prefix, "topics": {"replication": 1}, "output": "on"});
        let (program, _folder) = walk(point, json!({"kafka": kafka})).await;
        // Each record was added once, so each has one change, and its key one message.
        let changes = program.changes("crm", "Contact").await.expect("it answers").len();
        let (topic, began) = (format!("{}.crm.Contact.changes", cluster.prefix), Instant::now());
        loop {
            let (cluster, topic) = (cluster.clone(), topic.clone());
            let read = tokio::task::spawn_blocking(move || topic::read(&cluster, &topic)).await.expect("it is read");
            let keys: BTreeSet<&str> = read.iter().map(|told| told.key.as_str()).collect();
            assert_eq!(keys.len(), read.len(), "{}: a change came twice", point.name);
            if read.len() == changes {
                return;
            }
            assert!(read.len() < changes && began.elapsed() < PATIENCE, "{}: {} of {changes}", point.name, read.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    trial.add(faults);
}

/// How often they are met: at each hit once to be killed, and once to fail where something can.
fn lives(points: &[&Point]) -> u64 {
    let each = |point: &&Point| point.at.len() * if point.on_error == OnError::Never { 1 } else { 2 };
    points.iter().map(each).sum::<usize>() as u64
}

/// Walks all of them, some at the same time.
fn some_at_once<T: Send>(all: Vec<T>, walk: impl AsyncFn(T) + Sync) {
    let left = Mutex::new(all.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                let runtime = runtime.expect("a runtime");
                let next = || left.lock().expect("no walk panics while it takes one").next();
                while let Some(one) = next() {
                    runtime.block_on(walk(one));
                }
            });
        }
    });
}

/// The lives of a program with a fault at this point, one after the other on one folder, and one without at the end, which goes
/// on with its folder.
async fn walk(point: &Point, settings: Value) -> (Program, tempfile::TempDir) {
    let began = Instant::now();
    let (folder, outside, mut ledger) = (tempfile::tempdir().expect("a folder"), Outside::default(), Ledger::default());
    settle_in(folder.path(), outside.start().await, settings);
    for at in point.at {
        live(folder.path(), point, "kill", *at, &mut ledger).await;
        if point.on_error != OnError::Never {
            live(folder.path(), point, "error", *at, &mut ledger).await;
        }
    }
    // The last life has load too: a program killed while it opens answered nobody.
    let program = Program::start(folder.path(), &[]);
    for turn in 0..LAST_TURNS {
        load(&program, turn, 0, &mut ledger).await;
    }
    ledger.judge(&program, &outside, point.name).await;
    println!("{}: {} events, {:?}", point.name, ledger.next, began.elapsed());
    (program, folder)
}

/// One life under load, until the fault has come and shown its effect.
async fn live(folder: &Path, point: &Point, what: &str, at: u64, ledger: &mut Ledger) {
    let (plan, ends) = (format!("{}={what}@{at}", point.name), what == "kill" || point.on_error == OnError::Ends);
    let mut program = Program::start(folder, &[("SYNCLINE_FAULTS", &plan)]);
    let began = Instant::now();
    for turn in 0u32.. {
        assert!(began.elapsed() < PATIENCE, "{plan} is never met\n{}", program.said());
        if program.ended().is_some() {
            break;
        }
        load(&program, turn, 0, ledger).await;
        // Of what is made again nothing shows but that the program said so.
        if !ends && turn % 8 == 7 && program.said().contains(&plan) {
            return;
        }
        if what == "error" && ends && matches!(program.get("/readyz", "crm").await, Some((503, _))) {
            break;
        }
        if point.name == "flush.begin" && turn == 16 {
            program.terminate();
        }
    }
    // A program that has failed goes on answering probes for a while: who has heard it need not wait.
    if what == "error" {
        program.terminate();
    }
    let status = program.end(&plan).await;
    match what {
        "kill" => assert_eq!(status.signal(), Some(SIGKILL), "{plan}: {status}\n{}", program.said()),
        _ => assert_eq!(status.code(), Some(DISK), "{plan}: {status}\n{}", program.said()),
    }
}

/// What clients do in one turn; requests are `padding` bytes larger than their events.
async fn load(program: &Program, turn: u32, padding: usize, ledger: &mut Ledger) {
    let batch = ledger.batch();
    let body = format!("{}{}", program::events(&batch), " ".repeat(padding));
    if program.post_body(body).await.is_some_and(|(status, _, _)| status == 200) {
        ledger.answered(&batch);
    }
    match turn % 8 {
        0 => _ = program.enable("gone").await,
        1 => _ = program.trigger("shop", "Thing").await,
        4 => _ = program.stream().await,
        6 => _ = program.changes("shop", "Thing").await,
        _ => tokio::time::sleep(Duration::from_millis(10)).await,
    }
}
