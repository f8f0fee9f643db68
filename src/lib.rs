//! # Syncline
//!
//! Polled APIs and webhooks become one exact change stream, in one binary.
//!
//! This crate is the facade of the library and the program around it: `control` decides what should run, `api` and
//! `cli` are its surfaces. The engine and the connectors are crates of their own, re-exported here.

pub use syncline_connectors as connectors;
pub use syncline_engine as engine;
pub use syncline_engine::views;

#[cfg(feature = "program")]
pub mod api;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod control;

/// What a program with views of its own needs.
pub mod prelude {
    pub use crate::views::{Definition, Groups, Row, Table, Views, average, count, sum, tumbling};
    pub use std::cmp::Reverse;
}
