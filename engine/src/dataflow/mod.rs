//! The dataflow: timely workers that merge, sweep, classify and maintain views. No IO, no clock, no tokio.
//!
//! ```text
//!             one input per worker                               differential
//!  pipeline ──► Work (rows, windows) ──► UPSERT ──(dataset, ±n)──► COUNT ──► publish
//!                                          │ └────((dataset, key), row, ±1)──► views ──► publish
//!                                          ▼
//!                                        Stage: what this epoch changes, kept by the pipeline
//! ```
//!
//! Time is the epoch, a `u64`. The operators act on an epoch only once the frontier has passed it, in order, so the same
//! work gives the same changes on any number of workers. Rows are routed by key before they get here; only views exchange.

mod epochs;
mod graph;
mod merge;
mod updates;
mod upsert;
mod view;
pub mod views;

pub use graph::{Derived, Graph, Worker, build, execute};
