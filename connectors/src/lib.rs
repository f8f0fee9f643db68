//! # What Syncline speaks to the outside
//!
//! One folder per kind of system. Connectors see the engine's words and seams, never its rooms behind them.
//!
//! | folder | what it is |
//! |---|---|
//! | [`expr`] | jq expressions and placeholders, bounded |
//! | [`config_text`] | configuration text in which every value knows its line |
//! | [`egress`] | where requests may go |
//! | [`definition`] | what a definition file says, as plain data |
//! | [`mapping`] | from an item of an answer to a record |
//! | [`http`] | the one way out: client, sign-in, budgets, pagination, conditional requests |
//! | [`rest`] | a source described by a definition file |
//! | [`sign_in`] | tokens that expire: asked for, renewed, given back |
//! | [`actions`] | what is done at a provider when it is called, as a definition describes it |
//! | `functions` | syncs in TypeScript: their host; feature `functions` |
//! | [`webhooks`] | verify, route, dedupe and map what providers post to us |
//! | [`deliveries`] | one signed attempt to deliver to an endpoint |
//! | [`murmur2`] | the hash by which Java's Kafka clients choose a partition, and a cluster its shard |
//! | `kafka` | topics in, topics out, the log on topics; feature `kafka` |

pub mod actions;
pub mod config_text;
pub mod definition;
pub mod deliveries;
pub mod egress;
pub mod expr;
#[cfg(feature = "functions")]
pub mod functions;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod mapping;
pub mod murmur2;
pub mod rest;
pub mod sign_in;
pub mod webhooks;
