//! A disk that is full: refused in good time, used again when there is space, and never a lie about what is on it.

use super::DISK;
use super::ledger::Ledger;
use super::program::{PATIENCE, Program, post, settle_in};
use super::provider::Outside;
use super::small::Small;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of the disk; a tenth of it is to be kept free.
const MIB: u32 = 160;
/// Longest time until a full disk is refused or an empty one used.
const SOON: Duration = Duration::from_secs(2);

async fn settled(small: &Small, more: serde_json::Value) -> (tempfile::TempDir, Outside) {
    let (folder, outside) = (tempfile::tempdir().expect("a folder"), Outside::default());
    let mut settings = json!({"data_dir": small.path().join("data")});
    more.as_object().into_iter().flatten().for_each(|(key, value)| settings[key] = value.clone());
    settle_in(folder.path(), outside.start().await, settings);
    (folder, outside)
}

/// Posts until the answer has this status.
async fn until(status: u16, program: &Program, ledger: &mut Ledger) -> Duration {
    let began = Instant::now();
    loop {
        let batch = ledger.batch();
        let answer = post(program, &batch).await;
        if answer == Some(200) {
            ledger.answered(&batch);
        }
        if answer == Some(status) {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "never {status}, last {answer:?}\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_nearly_full_is_refused_in_good_time_and_used_again_without_a_restart() {
    let name = "faults::full::a_disk_nearly_full_is_refused_in_good_time_and_used_again_without_a_restart";
    let Some(small) = Small::new(MIB, name) else { return };
    let (folder, outside) = settled(&small, json!({})).await;
    let (mut program, mut ledger) = (Program::start(folder.path(), &[]), Ledger::default());
    until(200, &program, &mut ledger).await;
    assert!(small.path().join("data/RESERVE").exists(), "a reserve is kept");

    small.fill(10 << 10);
    assert!(until(503, &program, &mut ledger).await < SOON);
    let (status, retry, body) = program.post_body("[]".to_owned()).await.expect("an answer");
    assert_eq!((status, retry.as_deref(), body.as_str()), (503, Some("5"), "unavailable: disk full"));
    let (status, ready) = program.get("/readyz", "crm").await.expect("an answer");
    assert_eq!((status, &ready["status"], &ready["refusing"]["code"]), (200, &json!("ready"), &json!("disk_full")));
    let answered = ledger.answered.len();
    assert_eq!(program.records("crm", "Contact").await.expect("reads go on").len(), answered);
    let (status, refused) =
        program.get("/v1/changes?source=crm&connection=acme&stream=Contact", "crm").await.expect("an answer");
    assert_eq!(status, 200, "{refused}");
    assert_eq!(program.trigger("shop", "Thing").await, Some(503), "nothing new by the API");
    let metrics = program.text("/metrics").await;
    assert!(metrics.contains("syncline_disk_refusing 1"), "{metrics}");

    small.empty();
    assert!(until(200, &program, &mut ledger).await < SOON);
    assert!(program.ended().is_none());
    assert!(program.text("/metrics").await.contains("syncline_disk_refusing 0"));
    for said in ["nothing new is taken", "disk_full", "there is space on the disk again"] {
        assert!(program.said().contains(said), "{said}:\n{}", program.said());
    }
    ledger.judge(&program, &outside, "nearly full").await;
}

/// The first run comes with the start of the program, on a disk that has no room for its pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_space_and_goes_on_when_there_is_some() {
    let Some(small) = Small::new(MIB, "faults::full::a_run_waits_for_space_and_goes_on_when_there_is_some") else {
        return;
    };
    let (folder, outside) = settled(&small, json!({})).await;
    let shop = folder.path().join("sources/shop.yaml");
    let text = std::fs::read_to_string(&shop).expect("a definition").replace(", start: paused", "");
    std::fs::write(&shop, text).expect("written");
    small.fill(11 << 10);
    let program = Program::start(folder.path(), &[]);
    let began = Instant::now();
    while !program.said().contains("the run waits") {
        assert!(began.elapsed() < PATIENCE, "{}", program.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(program.records("shop", "Thing").await.expect("reads go on").len(), 0);
    small.empty();
    while program.records("shop", "Thing").await.expect("an answer").is_empty() {
        assert!(began.elapsed() < PATIENCE, "{}", program.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ledger::default().judge(&program, &outside, "a run that waited").await;
}

/// Nobody looks ahead here: the disk is found to be full by a write that fails. The test is the supervisor.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_ends_the_program_with_its_code_and_a_restart_goes_on() {
    let name = "faults::full::a_write_that_fails_ends_the_program_with_its_code_and_a_restart_goes_on";
    let Some(small) = Small::new(MIB, name) else { return };
    let (folder, outside) = settled(&small, json!({"min_free_mb": 0})).await;
    let mut ledger = Ledger::default();
    let mut program = Program::start(folder.path(), &[]);
    until(200, &program, &mut ledger).await;
    small.fill(0);
    let unready = fill_up(&mut program, &mut ledger).await;
    assert!(unready.contains("store_failed") && unready.contains("No space left on device"), "{unready}");
    assert_eq!(program.end("a full disk").await.code(), Some(DISK), "{}", program.said());
    assert!(program.said().contains("the store has failed"), "{}", program.said());

    // A supervisor starts it again, and for as long as the disk is full it says so or serves what there is.
    for _ in 0..2 {
        restarted(folder.path(), &mut ledger).await;
    }
    small.empty();
    let program = Program::start(folder.path(), &[]);
    until(200, &program, &mut ledger).await;
    ledger.judge(&program, &outside, "a full disk").await;
}

/// Posts what is large until nothing more is taken; what `/readyz` says then.
async fn fill_up(program: &mut Program, ledger: &mut Ledger) -> String {
    let began = Instant::now();
    loop {
        let n = ledger.next;
        ledger.next += 1;
        ledger.unknown.insert(n);
        // Padded outside of the event: the record is as small as the others.
        let body = super::program::events(&[n]);
        if program
            .post_body(format!("{body}{}", " ".repeat(900 << 10)))
            .await
            .is_some_and(|(status, _, _)| status == 200)
        {
            ledger.answered(&[n]);
        }
        if let Some((503, why)) = program.get("/readyz", "crm").await {
            return why.to_string();
        }
        assert!(began.elapsed() < PATIENCE && program.ended().is_none(), "no word of why\n{}", program.said());
    }
}

async fn restarted(folder: &Path, ledger: &mut Ledger) {
    let mut program = Program::start(folder, &[]);
    let batch = ledger.batch();
    if post(&program, &batch).await == Some(200) {
        ledger.answered(&batch);
    }
    if let Some(status) = program.ended() {
        assert_eq!(status.code(), Some(DISK), "{status}\n{}", program.said());
    }
}
