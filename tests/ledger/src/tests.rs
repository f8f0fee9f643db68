//! The ledger says what was tried, also when that failed, and the page says what the ledger says.

use crate::{Line, PAGE, Trial, kept, merged, page, root};
use std::path::Path;

fn lines(file: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(file).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

fn line(commit: &str, goal: &str, count: u64, failures: u64, seeds: &str) -> Line {
    let at = "2026-04-14T18:46:03Z".to_owned();
    Line { at, commit: commit.into(), goal: goal.into(), count, failures, seeds: seeds.into(), seconds: 2 }
}

#[test]
fn the_page_is_what_the_ledger_gives() {
    let lines = kept().expect("a ledger");
    let found = std::fs::read_to_string(root().join(PAGE)).expect("the page");
    assert_eq!(found, page(&lines), "`make ledger` makes {PAGE} anew");
}

#[test]
fn what_falls_is_written_down_as_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ledger.jsonl");
    let mut trial = Trial::into(file.clone(), "kills");
    trial.add(3);
    trial.seed("1..=2");
    drop(trial);
    let fallen = std::panic::catch_unwind(|| {
        let mut trial = Trial::into(file.clone(), "kills");
        trial.seed(7);
        trial.add(1);
        panic!("as a failing test does");
    });
    assert!(fallen.is_err());
    let written = lines(&file);
    let told = |n: usize| (written[n].count, written[n].failures, &*written[n].seeds);
    assert_eq!((told(0), told(1), written.len()), ((3, 0, "1..=2"), (2, 1, "7"), 2));
    assert!(!written[0].commit.is_empty());
}

#[test]
fn one_line_for_each_goal_at_each_commit() {
    let all = vec![line("a", "kills", 3, 0, "1"), line("a", "views", 1, 0, ""), line("a", "kills", 4, 1, "2")];
    let all = merged([all, vec![line("b", "kills", 5, 0, "1")]].concat());
    let mut kills = line("a", "kills", 7, 1, "1, 2");
    kills.seconds = 4;
    assert_eq!(all, [kills, line("b", "kills", 5, 0, "1"), line("a", "views", 1, 0, "")]);
    let page = page(&all);
    assert!(page.contains("| 12 | 1 | 5 in 2 s at `b`, 2026-04-14 |"), "{page}");
    assert!(page.contains("| kills | 1 | 7 | `a`, 2026-04-14 | 1, 2 |"), "{page}");
}

#[test]
#[should_panic(expected = "is no goal")]
fn a_goal_has_a_name_and_says_what_is_counted() {
    Trial::of("whatever");
}
