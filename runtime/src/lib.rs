//! Functions in TypeScript: syncs, webhook handlers, actions and events that people write for their APIs.
//!
//! | where | what |
//! |---|---|
//! | [`compile`] | from a folder of `.ts` files to modules of JavaScript that know their lines; every complaint at once |
//! | [`sandbox`] | one invocation of one function: what it asks comes out as frames, what it is answered goes in |
//! | [`functions`] | all functions of a folder, with what each declares |
//! | [`mocks`] | a host made of recorded answers, for tests |
//! | [`worker`] | processes that hold sandboxes, so that what code does to its process is done to no other |
//! | [`wire`] | those frames: what is said between a function and its host |
//!
//! Promises: code has no way out but the frames; it reads no clock and no chance but the host's, so the same invocation with
//! the same answers gives the same frames; an endless loop, a memory bomb or a deep recursion ends its invocation with an
//! error that has a code, and nothing else. Errors name the file, line and column of the TypeScript.
//! Does not: make requests, store records, or know of connections. That is the host's.

pub mod compile;
pub mod functions;
pub mod mocks;
pub mod sandbox;
pub mod wire;
#[cfg(unix)]
pub mod worker;

pub use compile::{Complaint, Modules};
pub use functions::{Function, Functions};

/// What functions import from `nango`, for editors.
pub const NANGO_DECLARATIONS: &str = include_str!("../modules/nango.d.ts");
/// What functions find without an import, for editors.
pub const GLOBAL_DECLARATIONS: &str = include_str!("../modules/globals.d.ts");
