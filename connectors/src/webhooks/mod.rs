//! What providers post to us, as pure functions: prove it, keep it, tell what it says.
//!
//! [`verify_head`] refuses what no body could prove. [`verify()`] works on the raw request before anything is parsed or stored. [`Observer`] works on a [`StoredWebhook`] read
//! back from the log and can be repeated: the same entry, definition and connections give the same outcomes. Nothing here
//! fails: a body that does not parse or an event nobody owns is an outcome that says so.

mod content;
mod dedupe;
mod mapping;
mod observe;
mod route;
mod stored;
mod verify;

pub use content::reply;
pub use dedupe::{EventId, GIVEN_FOR, HASH_FOR};
pub use observe::{Effect, EventOutcome, EventRejection, Observer, Routed, Verdict};
pub use route::{SourceConnections, owns};
pub use stored::{BadEntry, Head, StoredWebhook, kept_headers, kept_query};
pub use verify::{RawRequest, Verified, VerifyRefusal, verify, verify_head};
