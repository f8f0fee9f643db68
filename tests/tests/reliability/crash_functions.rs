//! `syncline serve` with a function in a worker process, killed while it reads: no checkpoint is ahead of its records, and what is
//! there in the end is what an undisturbed run would have left.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use syncline_tests::ledger::Trial;
use syncline_tests::process::{Door, Program, settle};
use syncline_tests::salesforce::{Salesforce, lay_out};

const SOURCE: &str = "salesforce";
const CONTACTS: usize = 8_000;
const CYCLES: u64 = 10;
const WAIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_function_reads_it_goes_on_at_its_checkpoint() {
    let mut trial = Trial::of("kills");
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(200, Duration::from_millis(15)).await;
    fake.fill(CONTACTS);
    lay_out(folder.path(), SOURCE, &url, "contacts", include_str!("../../../runtime/tests/fixtures/contacts.ts"));
    settle(folder.path(), json!({}));
    let mut checkpoints = 0;
    for cycle in 0..CYCLES {
        let mut program = Program::start(folder.path(), &[]);
        checkpoints += usize::from(no_checkpoint_is_ahead(&program, &fake).await);
        some_pages(&program, &fake, 1 + cycle as usize % 3).await;
        tokio::time::sleep(Duration::from_millis(cycle * 7919 % 20)).await;
        program.kill();
        trial.add(1);
    }
    assert!(checkpoints > 2, "kills met runs on their way");
    let program = Program::start(folder.path(), &[]);
    settled(&program).await;
    let rows = records(&program).await;
    let expected: BTreeMap<String, Value> = fake
        .since(0)
        .into_iter()
        .map(|c| (c["Id"].as_str().expect("an id").to_owned(), c["LastName"].clone()))
        .collect();
    assert_eq!(rows.len(), expected.len());
    assert_eq!(rows, expected, "final records equal the provider's");
    let changes = program.changes(SOURCE, "Contact").await.expect("it answers");
    assert!(changes.iter().all(|change| change["action"] == "ADDED"), "nothing came twice");
    assert_eq!(changes.len(), CONTACTS, "nothing came twice");
}

/// Waits until it has asked for so many more.
async fn some_pages(program: &Program, fake: &Salesforce, count: usize) {
    let (began, before) = (Instant::now(), fake.seen.lock().0);
    while fake.seen.lock().0 < before + count {
        assert!(began.elapsed() < WAIT, "it reads nothing\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn status(door: &Door) -> Value {
    let path = format!("/sync/status?syncs=contacts&provider_config_key={SOURCE}&connection_id=acme");
    let (_, answer) = door.get(&path, SOURCE).await.expect("it answers");
    answer["syncs"][0].clone()
}

/// Whether there is a checkpoint; all records up to it are there.
async fn no_checkpoint_is_ahead(door: &Door, fake: &Salesforce) -> bool {
    let status = status(door).await;
    let Some(at) = status["checkpoint"]["lastModifiedISO"].as_str() else { return false };
    let rows = records(door).await;
    let before =
        fake.since(0).into_iter().filter(|contact| contact["LastModifiedDate"].as_str().is_some_and(|m| m <= at));
    for contact in before {
        assert!(rows.contains_key(contact["Id"].as_str().unwrap_or_default()), "{at} is ahead of {contact}");
    }
    true
}

async fn settled(program: &Program) {
    let began = Instant::now();
    loop {
        let status = status(program).await;
        if status["status"] == "SUCCESS" {
            return;
        }
        assert!(began.elapsed() < WAIT, "{status}\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn records(door: &Door) -> BTreeMap<String, Value> {
    let rows = door.records(SOURCE, "Contact").await.expect("it answers");
    rows.iter().map(|row| (row["id"].as_str().expect("an id").to_owned(), row["last_name"].clone())).collect()
}
