//! The lines of the ledger and the files they are in: one JSON object a line, the oldest first.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;

/// The ledger of the project, from the root of the checkout.
const LEDGER: &str = "tests/ledger.jsonl";

/// What was tried for one goal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it ended.
    pub at: String,
    /// The commit it was tried at.
    pub commit: String,
    /// One of the [`GOALS`](crate::GOALS).
    pub goal: String,
    /// How many were tried.
    pub count: u64,
    /// How many of them failed.
    pub failures: u64,
    /// By which it can be tried again.
    pub seeds: String,
    /// How long it took.
    pub seconds: u64,
}

/// Writes lines behind those of a file, each in one write, so that those of other processes stay whole.
pub(crate) fn append(file: &Path, lines: &[Line]) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    for line in lines {
        file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())?;
    }
    Ok(())
}

/// The lines of a file; none where there is no file.
fn read(file: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read_to_string(file) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let read = |(n, line): (usize, &str)| {
        let wrong = |why| Error::other(format!("{}, line {}: {why}", file.display(), n + 1));
        serde_json::from_str(line).map_err(wrong)
    };
    text.lines().enumerate().map(read).collect()
}

/// The lines of the project's ledger.
///
/// # Errors
///
/// Where the file cannot be read, or a line of it is none.
pub fn kept() -> Result<Vec<Line>> {
    read(&crate::root().join(LEDGER))
}

/// Moves the lines of a finished run to the project's ledger, and makes the page of it; how many lines it became.
///
/// # Errors
///
/// Where a file cannot be read or written, or a line is none. The lines of the run stay where they are then.
pub fn add(run: &Path) -> Result<usize> {
    let new = merged(read(run)?);
    append(&crate::root().join(LEDGER), &new)?;
    std::fs::write(crate::root().join(crate::PAGE), crate::page(&kept()?))?;
    if run.exists() {
        std::fs::remove_file(run)?;
    }
    Ok(new.len())
}

/// One line for each goal at each commit.
pub fn merged(lines: Vec<Line>) -> Vec<Line> {
    let mut all: BTreeMap<(String, String), Line> = BTreeMap::new();
    for line in lines {
        let sum = match all.get_mut(&(line.commit.clone(), line.goal.clone())) {
            None => {
                all.insert((line.commit.clone(), line.goal.clone()), line);
                continue;
            }
            Some(sum) => sum,
        };
        sum.count += line.count;
        sum.failures += line.failures;
        sum.seconds += line.seconds;
        sum.at = line.at.max(std::mem::take(&mut sum.at));
        if !line.seeds.is_empty() && !sum.seeds.split(", ").any(|seeds| seeds == line.seeds) {
            let comma = if sum.seeds.is_empty() { "" } else { ", " };
            sum.seeds = format!("{}{comma}{}", sum.seeds, line.seeds);
        }
    }
    let mut lines: Vec<Line> = all.into_values().collect();
    lines.sort_by(|a, b| (&a.at, &a.goal).cmp(&(&b.at, &b.goal)));
    lines
}
