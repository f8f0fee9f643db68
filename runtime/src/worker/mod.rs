//! Worker processes: functions run beside the program, so that what their code does to its process is done to no other.
//!
//! ```text
//!   Workers ── by environment ──► Worker ══ frames over a socket ══► process: one thread, a sandbox per invocation
//!                                   └── Running: what one invocation says, what it is answered
//! ```
//!
//! | where | what |
//! |---|---|
//! | `frame` | what the two say |
//! | `process`, `confine` | the worker's side: serves invocations, having given up what it does not need |
//! | `parent`, `attend` | the parent's side: invocations; reading, writing, watching, and what is told at the process's end |
//! | `spawn` | how the process begins |
//! | `workers` | one worker for each environment, begun when it is needed and ended when it is not |
//!
//! Promises: an invocation ends with its end or is told to be lost, whatever becomes of the process; code that comes back
//! neither to its host nor to its meter is ended with its process, a few seconds after its limit. What waits on both sides is
//! bounded by what each invocation may ask at one time.
//! Does not: begin lost invocations again, nor know what an environment is. That is the owner's.

mod attend;
mod confine;
mod frame;
mod parent;
mod process;
mod spawn;
mod workers;

pub use frame::FRAME_BYTES;
pub use parent::{Gone, Heard, Running, Worker};
pub use process::main;
pub use workers::Workers;

use std::time::Duration;

/// Most invocations in a worker at one time. Others wait until one ends.
pub const INVOCATIONS: usize = 64;
/// Most sets of modules that a worker keeps: what was reloaded is wanted by running invocations alone.
const SETS: usize = 4;

/// How workers are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A worker without invocations ends after so long.
    pub idle: Duration,
    /// How long code may run over the limit of its step before its worker is ended.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { idle: Duration::from_secs(60), grace: Duration::from_secs(5) }
    }
}
