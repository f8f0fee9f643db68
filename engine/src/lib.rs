//! # The engine of Syncline
//!
//! Observations go in, changes come out, and between the two stands one durable commit. The engine knows no outside
//! system and opens no socket; connectors feed it and sinks read from its store.
//!
//! ```text
//! source ──► log ──► dataflow ──► store ──► sink
//! ```
//!
//! | room | what it does |
//! |---|---|
//! | [`model`] | the words: ids, records, changes, canonical content |
//! | [`time`] | the only room that reads clocks or randomness |
//! | [`source`] | what a source must offer |
//! | [`log`] | keeps what cannot be read again, durable before anyone is answered |
//! | `state` | plain data the dataflow decides over and the store keeps |
//! | `dataflow` | timely workers: merge, sweep, classify; [`views`] |
//! | [`store`] | RocksDB: records, change history, marks, one commit per epoch; [`store::journal`]: what happened |
//! | [`sink`] | what is owed to the outside |
//! | [`pipeline`] | the way through: [`Engine`] |
//! | [`harness`] | a test kit for views |
//! | `fault` | failpoints and planted bugs, for tests alone |

pub(crate) mod dataflow;
#[doc(hidden)]
pub mod fault;
pub mod harness;
pub mod log;
pub mod model;
pub mod pipeline;
pub mod sink;
pub mod source;
pub(crate) mod state;
pub mod store;
pub mod time;

pub use dataflow::views;
pub use pipeline::Engine;
