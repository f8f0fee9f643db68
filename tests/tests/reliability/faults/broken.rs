//! Writes and syncs of the database that fail, come in pieces or take long, and answers that break off: made by a library laid
//! over the system's calls of the real program (`disk.c`), since the database is not ours to put failpoints into.

use super::ledger::Ledger;
use super::program::{PATIENCE, Program, post, settle_in};
use super::provider::Outside;
use super::{DISK, SIGKILL};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use syncline_tests::ledger::Trial;

/// What becomes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The rule kills it.
    Killed,
    /// It ends by itself with the code of a disk.
    Ends,
    /// It goes on.
    Lives,
    /// The database mends it by itself before a write of ours fails, or it does not: either is well.
    Either,
}
use Fate::{Either, Ends, Killed, Lives};

/// Rules, armed under load, at the first hits each.
const RULES: &[(&str, Fate)] = &[
    // A torn write, a kill before the sync and after it, on the log that all share.
    ("wal.write=partial", Killed),
    ("wal.write=kill", Killed),
    ("wal.sync=kill", Killed),
    ("wal.sync=after", Killed),
    ("wal.sync=eio", Ends),
    ("wal.write=eio", Ends),
    ("wal.write=enospc", Ends),
    ("wal.write=eagain", Ends),
    ("wal.write=short", Lives),
    ("wal.sync=300", Lives),
    // The high-water mark, which is written after each sync and before the answer.
    ("highwater.write=enospc", Ends),
    ("highwater.write=eio", Ends),
    ("highwater.write=kill", Killed),
    ("highwater.write=after", Killed),
    ("answer.write=kill", Killed),
    ("answer.write=partial", Killed),
    ("answer.write=after", Killed),
    ("delivery.write=partial", Killed),
    ("delivery.write=after", Killed),
];

/// Rules for files that are written when memory is written out, which large bodies bring about.
const FLUSHED: &[(&str, Fate)] = &[
    ("sst.write=enospc", Either),
    ("sst.sync=eio", Ends),
    ("sst.write=kill", Killed),
    ("sst.sync=kill", Killed),
    ("manifest.write=enospc", Either),
    ("manifest.sync=eio", Ends),
    ("manifest.write=kill", Killed),
];

/// Each rule acts at the first, the second and the third write or sync that it fits.
const HITS: u64 = 3;

#[test]
fn a_write_that_fails_or_breaks_off_loses_nothing_that_was_answered() {
    let small = RULES.iter().map(|(rule, fate)| (*rule, *fate, 0));
    let large = FLUSHED.iter().map(|(rule, fate)| (*rule, *fate, 900 << 10));
    let rules: Vec<_> = small.chain(large).collect();
    let mut trial = Trial::of("disk");
    let lives = rules.len() as u64 * HITS;
    super::some_at_once(rules, walk);
    trial.add(lives);
}

async fn walk((rule, fate, padding): (&'static str, Fate, usize)) {
    let began = Instant::now();
    let (folder, outside, mut ledger) = (tempfile::tempdir().expect("a folder"), Outside::default(), Ledger::default());
    settle_in(folder.path(), outside.start().await, json!({}));
    for at in 1..=HITS {
        live(folder.path(), &format!("{rule}@{at}"), fate, padding, &mut ledger).await;
    }
    let program = Program::start(folder.path(), &[]);
    ledger.judge(&program, &outside, rule).await;
    assert!(!ledger.answered.is_empty(), "{rule}: the load was real");
    println!("{rule}: {} events, {:?}", ledger.next, began.elapsed());
}

/// One life: some load, the rule, and load until it has shown what it does.
async fn live(folder: &Path, rule: &str, fate: Fate, padding: usize, ledger: &mut Ledger) {
    let armed = folder.join("rule");
    let _ = std::fs::remove_file(&armed);
    let library = library().display().to_string();
    let env = [("LD_PRELOAD", library.as_str()), ("SYNCLINE_DISK", armed.to_str().expect("a path"))];
    let mut program = Program::start(folder, &env);
    let said = program.said().len();
    for _ in 0..4 {
        super::load(&program, 1, 0, ledger).await;
    }
    std::fs::write(&armed, rule).expect("armed");
    let began = Instant::now();
    for turn in 0u32.. {
        assert!(began.elapsed() < PATIENCE, "{rule} shows nothing\n{}", program.said());
        if program.ended().is_some() {
            break;
        }
        super::load(&program, turn, padding, ledger).await;
        if matches!(fate, Lives | Either)
            && turn > 16
            && program.said()[said..].contains("disk ")
            && program.well().await
        {
            return;
        }
        if matches!(fate, Ends | Either) && matches!(program.get("/readyz", "crm").await, Some((503, _))) {
            let batch = ledger.batch();
            assert_ne!(post(&program, &batch).await, Some(200), "{rule}: nothing is answered well after it");
            program.terminate();
            break;
        }
    }
    let status = program.end(rule).await;
    match fate {
        Killed => assert_eq!(status.signal(), Some(SIGKILL), "{rule}: {status}\n{}", program.said()),
        _ => assert_eq!(status.code(), Some(DISK), "{rule}: {status}\n{}", program.said()),
    }
}

/// A disk so slow that answers come too late: they are refused, and none of them is lost or comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_makes_larger_groups_and_refuses_what_is_too_late() {
    let (folder, outside, mut ledger) = (tempfile::tempdir().expect("a folder"), Outside::default(), Ledger::default());
    settle_in(folder.path(), outside.start().await, json!({}));
    let rule = folder.path().join("rule");
    std::fs::write(&rule, "wal.sync=800@1+").expect("armed");
    let library = library().display().to_string();
    let env = [("LD_PRELOAD", library.as_str()), ("SYNCLINE_DISK", rule.to_str().expect("a path"))];
    let program = Program::start(folder.path(), &env);
    let batches: Vec<Vec<u64>> = (0..60).map(|_| ledger.batch()).collect();
    let answers = futures_util::future::join_all(batches.iter().map(|batch| post(&program, batch))).await;
    for (batch, answer) in batches.iter().zip(&answers) {
        match answer {
            Some(200) => ledger.answered(batch),
            other => assert_eq!(*other, Some(503)),
        }
    }
    assert!(answers.contains(&Some(200)), "{answers:?}");
    std::fs::remove_file(&rule).expect("disarmed");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.judge(&program, &outside, "a slow disk").await;
}

/// The library, compiled once.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reliability/faults/disk.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disk.so");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output();
        assert!(
            compiled.as_ref().is_ok_and(|cc| cc.status.success()),
            "this test needs a C compiler (cc): {compiled:?}"
        );
        library
    })
}
