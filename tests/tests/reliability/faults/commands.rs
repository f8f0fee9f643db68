//! `backup`, `restore` and `repair` on a disk that is full or fails: at each write, each sync and each rename in turn, until none
//! is left at which it could.
//!
//! What must hold: the command fails and names the file, what it was to replace is still whole, and given again it goes through.

use super::broken::library;
use super::ledger::Ledger;
use super::program::{Program, command, settle_in};
use super::provider::Outside;
use serde_json::json;
use std::path::Path;
use std::process::Output;
use syncline_tests::ledger::Trial;
use tempfile::TempDir;

/// What fails, and how the system says so.
const FAILS: [(&str, &str); 4] = [
    ("file.write=enospc", "No space left on device"),
    ("file.write=eio", "Input/output error"),
    ("file.sync=eio", "Input/output error"),
    ("file.rename=eio", "Input/output error"),
];
/// What is written to: an error names it.
const NAMES: [&str; 3] = ["backups", "/data", "the data folder"];
/// More of one kind than any of these commands makes.
const MOST: u64 = 500;

/// A program that ran, was killed and left something to back up.
async fn left_behind() -> (TempDir, Ledger, Outside) {
    let (folder, outside, mut ledger) = (tempfile::tempdir().expect("a folder"), Outside::default(), Ledger::default());
    settle_in(folder.path(), outside.start().await, json!({}));
    let mut program = Program::start(folder.path(), &[]);
    for turn in 0..8 {
        super::load(&program, turn, 0, &mut ledger).await;
    }
    assert!(!ledger.answered.is_empty(), "{}", program.said());
    program.kill();
    (folder, ledger, outside)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command goes through.
fn done(folder: &Path, arguments: &[&str]) {
    let output = command(folder, arguments, &[]).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

/// Lets the command meet each fault at the first, the second, … place it has, `after` having a look each time. How often it
/// failed.
fn at_each_place(folder: &Path, arguments: &[&str], before: impl Fn(), after: impl Fn()) -> u64 {
    let (rule, library) = (folder.join("rule"), library().display().to_string());
    let env = [("LD_PRELOAD", library.as_str()), ("SYNCLINE_DISK", rule.to_str().expect("a path"))];
    let mut failed = 0;
    for (fault, why) in FAILS {
        for at in 1..MOST {
            before();
            std::fs::write(&rule, format!("{fault}@{at}")).expect("armed");
            let output = command(folder, arguments, &env).output().expect("it runs");
            let said = text(&output);
            if !said.contains("disk file.") {
                assert!(output.status.success(), "{arguments:?} without a fault: {said}");
                break;
            }
            assert_ne!(output.status.code(), None, "{arguments:?}, {fault}@{at}: {said}");
            assert!(!said.contains("panicked"), "{arguments:?}, {fault}@{at}: {said}");
            // The database mends some of it itself.
            if !output.status.success() {
                let named = NAMES.iter().any(|name| said.contains(name));
                assert!(named && (said.contains(why) || said.contains("IO error")), "{fault}@{at}: {said}");
                failed += 1;
            }
            after();
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_written_leaves_the_one_before() {
    let (folder, mut ledger, outside) = left_behind().await;
    let folder = folder.path();
    let mut trial = Trial::of("disk");
    done(folder, &["backup", "backups"]);
    let first = std::fs::read_dir(folder.join("backups")).expect("read").next().expect("one").expect("one").path();
    let whole = first.join("BACKUP.json");
    let failed = at_each_place(
        folder,
        &["backup", "backups", "--keep", "1"],
        || (),
        || {
            let left = std::fs::read_dir(folder.join("backups")).expect("read").filter(|entry| {
                let path = entry.as_ref().expect("one").path();
                path.extension().is_none_or(|is| is != "part") && path.join("BACKUP.json").exists()
            });
            assert!(left.count() >= 1, "a complete backup is there all the time");
        },
    );
    assert!(failed > 20, "{failed}");
    assert!(!whole.exists(), "the ones that went through took the place of the first");
    trial.add(failed);
    done(folder, &["restore", "backups", "--replace"]);
    let program = Program::start(folder, &[]);
    ledger.judge(&program, &outside, "backups on a disk that fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_breaks_off_is_given_again() {
    let (folder, mut ledger, outside) = left_behind().await;
    let folder = folder.path();
    let mut trial = Trial::of("disk");
    done(folder, &["backup", "backups"]);
    let restore = ["restore", "backups", "--replace"];
    let failed = at_each_place(folder, &restore, || (), || done(folder, &restore));
    assert!(failed > 20, "{failed}");
    trial.add(failed);
    let program = Program::start(folder, &[]);
    ledger.judge(&program, &outside, "restores on a disk that fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_breaks_off_is_given_again() {
    let (folder, mut ledger, outside) = left_behind().await;
    let folder = folder.path();
    let mut trial = Trial::of("disk");
    let damage = || drop(std::fs::remove_file(folder.join("data/HIGHWATER")));
    let failed = at_each_place(folder, &["repair"], damage, || done(folder, &["repair"]));
    assert!(failed > 5, "{failed}");
    trial.add(failed);
    let program = Program::start(folder, &[]);
    ledger.judge(&program, &outside, "repairs on a disk that fails").await;
}

/// What is logged goes to a disk that is full: nobody is stopped by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let (folder, outside, mut ledger) = (tempfile::tempdir().expect("a folder"), Outside::default(), Ledger::default());
    settle_in(folder.path(), outside.start().await, json!({}));
    let program = Program::start_saying(folder.path(), "/dev/full".into(), &[]);
    for turn in 0..16 {
        super::load(&program, turn, 0, &mut ledger).await;
    }
    assert_eq!(ledger.answered.len() as u64, ledger.next, "each is answered");
    ledger.judge(&program, &outside, "logs on a full disk").await;
    drop(program);
    let output = command(folder.path(), &["no-such-verb"], &[])
        .stderr(std::fs::File::options().write(true).open("/dev/full").expect("opened"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let output = command(folder.path(), &["restore", "nowhere"], &[])
        .stderr(std::fs::File::options().write(true).open("/dev/full").expect("opened"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "the code says it where the words cannot");
}
