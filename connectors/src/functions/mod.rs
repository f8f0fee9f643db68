//! Functions in TypeScript: the host of their code.
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
//! | `action` | one call of an action |
//! | `runner` | what functions of a source share, and how any of them begins |
//! | `host` | one execution, from its begin to its end |
//! | `steps` | from what the code wrote to a step |
//! | `requests` | its requests, tried again as it asks |
//! | `members` | the rest of the `nango` object |
//! | `by_hand` | what a person sets who runs one by hand, and what is written down of it |
//! | `locks` | the locks that functions take |
//! | `secrets` | credentials as handles, and back |
//! | `validate` | records against the schemas of their models |
//! | `execution` | where the code runs: worker processes, or threads of this one |

mod action;
mod by_hand;
mod execution;
mod host;
mod locks;
mod members;
mod program;
mod requests;
mod runner;
mod secrets;
mod steps;
mod validate;

pub use action::{ActionAsk, FunctionAction};
pub use by_hand::{ByHand, Recording};
pub use execution::Executor;
pub use locks::Locks;
pub use members::{Accounts, InnerCall, NamedSyncs, described};
pub use program::{FunctionProgram, LOST};
pub use runner::{Code, Runner};
pub use syncline_runtime as runtime;
pub use validate::ModelSchemas;
