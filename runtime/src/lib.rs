//! Functions in TypeScript: syncs, webhook handlers, actions and events that people write for their APIs.
//!
//! | where | what |
//! |---|---|
//! | [`compile`] | from a folder of `.ts` files to modules of JavaScript that know their lines; every complaint at once |
//! | [`sandbox`] | one invocation of one function: what it asks comes out as frames, what it is answered goes in |
//! | [`wire`] | those frames: what is said between a function and its host |
//!
//! Promises: code has no way out but the frames; it reads no clock and no chance but the host's, so the same invocation with
//! the same answers gives the same frames; an endless loop, a memory bomb or a deep recursion ends its invocation with an
//! error that has a code, and nothing else. Errors name the file, line and column of the TypeScript.
//! Does not: make requests, store records, or know of connections. That is the host's.

pub mod compile;
pub mod sandbox;
pub mod wire;

pub use compile::{Complaint, Modules};
