//! The declarative source: what a definition file says, done.
//!
//! | file | what it holds |
//! |---|---|
//! | `source` | [`RestSource`]: the engine's `Source` over a definition; budgets, one exchange with the provider |
//! | `poll` | the engine's questions |
//! | `credentials` | what a request is signed in with, asked for at the request |
//! | `listing` | one page of a listing: bookmark, proof, way on |
//! | `memory` | what listings that are being read remember |
//! | `incremental` | time windows and their halving |
//! | `partitions` | the lists a stream is split in |
//! | `deletes` | listings of deleted records; what it takes to delete what is missing |
//! | `fetch` | one record by key |
//! | `act` | one request of an action |
//! | `proxy` | requests that code makes in the name of a connection |
//! | [`relay`] | requests of callers in its name, passed on as they come |
//! | `request`, `answer` | placeholders into a request; rules over an answer |
//! | [`notes`] | what a source reads back from the store |

pub(crate) mod act;
mod answer;
mod credentials;
mod deletes;
mod fetch;
mod incremental;
mod listing;
mod memory;
pub mod notes;
mod partitions;
mod poll;
mod proxy;
pub mod relay;
mod request;
mod source;

pub use credentials::{AsBorne, Credentials};
pub use notes::SourceState;
pub use proxy::ProxyRequest;
pub use source::RestSource;
