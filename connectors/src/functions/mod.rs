//! Syncs in TypeScript: the host of their code.
//!
//! ```text
//! sandbox ── calls ──► Host ── what is written ──► FunctionProgram ── steps ──► the engine's outlet
//!    ▲                  └── requests ──► the source: sign-in, budget, the one way out
//!    └──── answers ─────┘
//! ```
//!
//! A [`FunctionProgram`] is a [`Program`](syncline_engine::source::program::Program) of the engine: what the code wrote between two
//! requests is one step. Promises: no request leaves before what was written before it has its place; what a window and
//! `observed_at` stand on is the earliest request that was open; a secret of the connection is handed to the code only where the
//! definition says so.
//!
//! | file | what |
//! |---|---|
//! | `program` | a sync as a program of the engine |
//! | `runner` | what functions of a source share, and how any of them begins |
//! | `host` | one execution, from its begin to its end |
//! | `steps` | from what the code wrote to a step |
//! | `requests` | its requests, tried again as it asks |
//! | `members` | the rest of the `nango` object |
//! | `secrets` | credentials as handles, and back |
//! | `execution` | where the code runs: worker processes, or threads of this one |

mod execution;
mod host;
mod members;
mod program;
mod requests;
mod runner;
mod secrets;
mod steps;

pub use execution::Executor;
pub use members::Accounts;
pub use program::{FunctionProgram, LOST};
pub use runner::Runner;
pub use syncline_runtime as runtime;
