//! `docs/reliability.md`, made of the ledger alone: sums for each goal, the last run, and whatever failed.

use crate::{GOALS, Line};
use std::fmt::Write;

/// The page, from the root of the checkout.
pub const PAGE: &str = "docs/reliability.md";

const OPENING: &str = "\
# Reliability

What the tests of this project have gone through so far. The tests write this down themselves, also where they fail:
`tests/ledger.jsonl` has one line for each goal and run, with the seeds by which it can be repeated. This page is made of that
file by `make ledger`, and a test compares the two. [CONTRIBUTING.md](../CONTRIBUTING.md) says how to run more of it.
";

/// The page of these lines.
pub fn page(lines: &[Line]) -> String {
    let mut page = format!("{OPENING}\n| what was tried | so far | failed | the last time |\n|---|---|---|---|\n");
    for (goal, what) in GOALS {
        let of_goal = || lines.iter().filter(|line| line.goal == *goal);
        let Some(last) = of_goal().next_back() else { continue };
        let (count, failures) = of_goal().fold((0, 0), |(n, f), line| (n + line.count, f + line.failures));
        let day = last.at.split('T').next().unwrap_or_default();
        // Writing to a text cannot fail.
        let _ = writeln!(
            page,
            "| {what} | {} | {} | {} in {} s at `{}`, {day} |",
            grouped(count),
            grouped(failures),
            grouped(last.count),
            grouped(last.seconds),
            last.commit
        );
    }
    page.push_str(&failed(lines));
    page
}

/// What failed, the newest first.
fn failed(lines: &[Line]) -> String {
    let mut text = "\n## What failed\n\n".to_owned();
    let failed: Vec<&Line> = lines.iter().rev().filter(|line| line.failures > 0).collect();
    if failed.is_empty() {
        return text + "Nothing in these runs.\n";
    }
    text.push_str("A fault that was found is mended, and becomes a small test with a name of its own.\n\n");
    text.push_str("| goal | failed | of | at | seeds |\n|---|---|---|---|---|\n");
    for Line { goal, failures, count, commit, at, seeds, .. } in failed {
        let day = at.split('T').next().unwrap_or_default();
        let _ =
            writeln!(text, "| {goal} | {} | {} | `{commit}`, {day} | {seeds} |", grouped(*failures), grouped(*count));
    }
    text
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
