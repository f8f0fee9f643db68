//! What a test asked for, read once from the environment of the process.
//!
//! Promises: a failpoint counts its hits over all threads and acts at the one it was asked for, once. A plan that cannot be
//! read ends the process at its first failpoint, since a test that faults nothing would prove nothing; so does a name that no
//! failpoint has.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Injected;

/// The exit code of a process whose plan cannot be read (`EX_USAGE`).
const UNREADABLE: i32 = 64;

static FAULTS: LazyLock<Vec<PlannedFault>> = LazyLock::new(|| {
    let text = std::env::var("SYNCLINE_FAULTS").unwrap_or_default();
    let faults: Result<_, _> = text.split(',').filter(|part| !part.is_empty()).map(parse).collect();
    faults.unwrap_or_else(|part: String| {
        eprintln!("SYNCLINE_FAULTS: `{part}` is not NAME=kill@N, NAME=error@N or NAME=delay:MILLISECONDS@N");
        std::process::exit(UNREADABLE)
    })
});

static PLANT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SYNCLINE_PLANT").ok());

struct PlannedFault {
    /// As it was asked for, which is told when it comes.
    text: String,
    name: String,
    what: What,
    at: u64,
    hits: AtomicU64,
}

#[derive(Clone, Copy)]
enum What {
    Kill,
    Error,
    Delay(Duration),
}

/// Passes the failpoint `name`: the process is killed here, held up, or told that the step failed, if a test asked for it.
///
/// # Errors
///
/// [`Injected`] when the plan says `error` at this hit.
pub fn hit(name: &'static str) -> Result<(), Injected> {
    if !super::points::known(name) {
        eprintln!("the failpoint {name} has no row in the table of failpoints");
        std::process::exit(UNREADABLE)
    }
    for fault in FAULTS.iter().filter(|fault| fault.name == name) {
        if fault.hits.fetch_add(1, Ordering::SeqCst) + 1 != fault.at {
            continue;
        }
        eprintln!("failpoint {}", fault.text);
        match fault.what {
            What::Kill => kill(),
            What::Error => return Err(Injected(name)),
            What::Delay(time) => std::thread::sleep(time),
        }
    }
    Ok(())
}

/// Whether the bug `name` is planted in this process.
pub fn planted(name: &'static str) -> bool {
    PLANT.as_deref() == Some(name)
}

/// As `kill -9` does it: nothing is flushed, no destructor runs.
fn kill() -> ! {
    let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    std::process::abort()
}

fn parse(part: &str) -> Result<PlannedFault, String> {
    read(part).ok_or_else(|| part.to_owned())
}

fn read(part: &str) -> Option<PlannedFault> {
    let (name, rest) = part.trim().split_once('=')?;
    let (what, at) = rest.split_once('@')?;
    let what = match what.split_once(':') {
        None if what == "kill" => What::Kill,
        None if what == "error" => What::Error,
        Some(("delay", time)) => What::Delay(Duration::from_millis(time.parse().ok()?)),
        _ => return None,
    };
    let at = at.parse().ok().filter(|at| *at > 0)?;
    if !super::points::known(name) {
        return None;
    }
    Some(PlannedFault { text: part.trim().to_owned(), name: name.to_owned(), what, at, hits: AtomicU64::new(0) })
}
