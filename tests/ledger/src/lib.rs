//! The ledger of the reliability tests: how much of what was tried at which commit, and what failed, written by the tests.
//!
//! A test holds a [`Trial`] while it runs and counts what it tries; the line is written when the trial goes, also where the
//! test has failed. Lines go to a file in the target folder, so that a test run leaves the checkout as it was; `make ledger`
//! adds them to `tests/ledger.jsonl` and makes `docs/reliability.md` of it.
//!
//! ```no_run
//! let mut trial = syncline_ledger::Trial::of("kills");
//! for seed in 1..=3 {
//!     trial.seed(seed);
//!     // … try, assert …
//!     trial.add(1);
//! }
//! ```
//!
//! Of no crate of the project, so that the tests of every one can use it.

mod book;
mod page;
#[cfg(test)]
mod tests;

pub use book::{Line, add, kept, merged};
pub use page::{PAGE, page};

use std::path::{Path, PathBuf};
use std::time::Instant;

/// Names another file for the lines of this process; `/dev/null` for none.
pub const FILE: &str = "SYNCLINE_LEDGER";

/// What is tried: a short name, and what one of its count is.
pub const GOALS: &[(&str, &str)] = &[
    ("kills", "kills (`kill -9`) under load, each followed by a start and a comparison with the oracle"),
    ("failpoints", "kills, errors and delays at a named edge, each followed by a start and a comparison"),
    ("corruptions", "data folders with a file flipped, cut, removed, swapped or emptied, then opened"),
    ("disk", "writes to a full disk or with a failing sync"),
    ("restores", "backups taken under load, checked and restored"),
    ("histories", "random histories of batches, restarts and prunes, compared with the oracle"),
    ("views", "random histories of derived models, compared with the same computed anew"),
    ("listings", "listings that lie about their end or size: no record of a truthful listing may be deleted"),
    ("egress", "spellings of forbidden addresses, at each stage: none may be connected to"),
    ("attacks", "attacks without a key or a signature, beside another tenant's work"),
    (
        "storms",
        "processes over one Kafka log killed, frozen, sent away or joined by others, or their broker killed, under load",
    ),
    ("plants", "planted bugs that the ordinary tests must notice"),
];

/// One test at work for a goal: counts what it tries, and writes that down when it goes.
#[derive(Debug)]
pub struct Trial {
    file: PathBuf,
    goal: &'static str,
    began: Instant,
    count: u64,
    failures: u64,
    seeds: Vec<String>,
}

impl Trial {
    /// A trial of one of the [`GOALS`].
    ///
    /// # Panics
    ///
    /// Where the goal is none of them.
    pub fn of(goal: &'static str) -> Trial {
        Trial::into(file(), goal)
    }

    /// The same, written to this file.
    ///
    /// # Panics
    ///
    /// Where the goal is none of the [`GOALS`].
    pub fn into(file: PathBuf, goal: &'static str) -> Trial {
        assert!(GOALS.iter().any(|(name, _)| *name == goal), "{goal} is no goal of the ledger; add it to GOALS");
        Trial { file, goal, began: Instant::now(), count: 0, failures: 0, seeds: Vec::new() }
    }

    /// So much more was tried.
    pub fn add(&mut self, count: u64) {
        self.count += count;
    }

    /// So many of what was tried failed, in a test that goes on. One that panics need not say so.
    pub fn failed(&mut self, count: u64) {
        self.failures += count;
    }

    /// A seed, or a range of seeds, by which this can be tried again.
    pub fn seed(&mut self, seed: impl std::fmt::Display) {
        self.seeds.push(seed.to_string());
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let fell = std::thread::panicking() && self.failures == 0;
        let line = Line {
            at: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            commit: commit(),
            goal: self.goal.to_owned(),
            // What failed was tried.
            count: self.count + u64::from(fell),
            failures: self.failures + u64::from(fell),
            seeds: self.seeds.join(", "),
            seconds: self.began.elapsed().as_secs_f64().ceil() as u64,
        };
        if let Err(why) = book::append(&self.file, &[line]) {
            eprintln!("ledger: {}: {why}", self.file.display());
        }
    }
}

/// Writes down what was tried at once, by a test that has counted itself.
///
/// # Panics
///
/// Where the goal is none of the [`GOALS`].
pub fn record(goal: &'static str, count: u64, failures: u64, seeds: &str) {
    let mut trial = Trial::of(goal);
    trial.add(count);
    trial.failed(failures);
    if !seeds.is_empty() {
        trial.seed(seeds);
    }
}

/// Where the lines of a test run go: beside what was built for it.
pub fn file() -> PathBuf {
    if let Some(file) = std::env::var_os(FILE) {
        return file.into();
    }
    let program = std::env::current_exe().unwrap_or_default();
    // Cargo marks its target folder with this file.
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf).join("ledger.jsonl")
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The commit of the checkout, with `-dirty` where files differ from it.
fn commit() -> String {
    let git = std::process::Command::new("git")
        .arg("-C")
        .arg(root())
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output();
    let name = git.ok().filter(|git| git.status.success()).map(|git| String::from_utf8_lossy(&git.stdout).into_owned());
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
