//! # What Syncline speaks to the outside
//!
//! One folder per kind of system. Connectors see the engine's words and seams, never its rooms behind them.
//!
//! | folder | what it is |
//! |---|---|
//! | [`expr`] | jq expressions and placeholders, bounded |
//! | [`located`] | configuration text in which every value knows its line |
//! | [`egress`] | where requests may go |
//! | [`http`] | the one way out: client, sign-in, budgets, pagination, conditional requests |
//! | [`rest`] | a source described by a definition file |
//! | [`webhook_in`] | verify, route, dedupe and map what providers post to us |
//! | [`webhook_out`] | one signed attempt to tell a user's endpoint |
//! | `kafka` | topics in, topics out, the log on topics; feature `kafka` |
//! | `fake` | a seeded fake provider: demo, test bed, benchmark source; feature `fake` |

pub mod egress;
pub mod expr;
#[cfg(feature = "fake")]
pub mod fake;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod located;
pub mod rest;
pub mod webhook_in;
pub mod webhook_out;
