//! What providers post to us, as pure functions: prove it, keep it, tell what it says.
//!
//! [`verify_head`] refuses what no body could prove. [`verify()`] works on the raw request before anything is parsed or stored. [`Observer`] works on a [`StoredWebhook`] read
//! back from the log and can be repeated: the same entry, definition and connections give the same outcomes. Nothing here
//! fails: a body that does not parse or an event nobody owns is an outcome that says so.

mod dedupe;
mod mapping;
mod observe;
mod route;
mod stored;
mod verify;

pub use dedupe::{EventId, GIVEN_FOR, HASH_FOR};
pub use observe::{Complaint, Effect, Observer, Outcome, Routed, Verdict};
pub use route::{Accounts, owns};
pub use stored::{BadEntry, Head, StoredWebhook, kept_headers};
pub use verify::{Parts, Refusal, Verified, verify, verify_head};

use crate::expr::depth;
use serde_json::Value;

/// Deepest nesting of a body.
const DEPTH: usize = 64;

/// Parses JSON no deeper than we bear.
pub(crate) fn parse_json(body: &[u8]) -> Result<Value, String> {
    if depth(body) > DEPTH {
        return Err(format!("the body is nested deeper than {DEPTH} levels"));
    }
    serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))
}
