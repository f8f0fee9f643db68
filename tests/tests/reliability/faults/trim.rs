//! The log's trimming, which the program meets after days only: here by a process that does nothing else. It is this test once
//! more, told by its environment where to work.

use super::{DISK, SIGKILL};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use syncline_engine::Engine;
use syncline_engine::fault::points::TRIM;
use syncline_engine::pipeline::Options;

const FOLDER: &str = "FAULTS_TRIM_FOLDER";
const NAME: &str = "faults::trim::a_trimmed_log_is_trimmed_or_not_and_never_in_between";
/// Entries appended in each life; all but the last of them are trimmed, one call for each half.
const ENTRIES: u64 = 10;

#[test]
fn a_trimmed_log_is_trimmed_or_not_and_never_in_between() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        std::process::exit(append_and_trim(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = 0;
    for at in TRIM.at {
        for (what, killed) in [("kill", true), ("error", false)] {
            let status = child(folder.path(), &format!("{}={what}@{at}", TRIM.name));
            match killed {
                true => assert_eq!(status.signal(), Some(SIGKILL), "{status}"),
                false => assert_eq!(status.code(), Some(DISK), "{status}"),
            }
            acknowledged += ENTRIES;
            compare(folder.path(), acknowledged);
        }
    }
}

fn child(folder: &Path, plan: &str) -> ExitStatus {
    let myself = std::env::current_exe().expect("this test");
    let mut child = Command::new(myself);
    child.args(["--exact", NAME]).env(FOLDER, folder).env("SYNCLINE_FAULTS", plan);
    child.status().expect("it runs")
}

/// What the process does: the exit code says whether its store has failed.
fn append_and_trim(folder: &Path) -> i32 {
    let engine = Engine::open(Options::in_folder(folder)).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let log = engine.log();
    let begins = *log.end().borrow();
    let entries = (1..=ENTRIES).map(|n| (begins + n).to_be_bytes().to_vec()).collect();
    let last = runtime.block_on(log.append(entries)).expect("appended");
    for through in [last - ENTRIES / 2, last - 1] {
        if log.trim(through).is_err() {
            assert!(engine.failed().is_some(), "the store is closed with its log");
            assert!(runtime.block_on(log.append(vec![vec![1]])).is_err(), "and nothing more is answered");
            return DISK;
        }
    }
    panic!("the failpoint was not met");
}

/// What is left is whole, in order, and ends where it ended.
fn compare(folder: &Path, acknowledged: u64) {
    let engine = Engine::open(Options::in_folder(folder)).expect("opens");
    let log = engine.log();
    assert_eq!(*log.end().borrow(), acknowledged);
    let left = log.read(0, usize::MAX).expect("read");
    let positions: Vec<u64> = left.iter().map(|(position, _)| *position).collect();
    let first = *positions.first().expect("the last entry is never trimmed");
    assert_eq!(positions, (first..=acknowledged).collect::<Vec<_>>());
    for (position, entry) in left {
        assert_eq!(&entry[..], position.to_be_bytes(), "entry {position}");
    }
}
