//! The one way out: every request Syncline makes leaves through [`Client`].
//!
//! | file | what it holds |
//! |---|---|
//! | `client` | one request, one answer: time and size bounded, no foreign redirects, no proxy from the environment |
//! | `streamed` | the same with body and answer passed on as they come |
//! | `pools` | connections that are kept open |
//! | `dial` | from a name to the addresses that are dialled, judged before they are |
//! | `forward` | a request handed on to another process of the same installation |
//! | [`body`] | the JSON value of a body, in whatever encoding it came |
//! | `address` | URLs with placeholders, whose host nobody who enters a value chooses |
//! | [`auth`] | lays the credentials of a connection into a request |
//! | `hints` | what an answer says about when to come back |
//! | [`limits`] | the budget of a connection: token buckets, open requests, the provider's own hints |
//! | [`conditional`] | validators kept with a page, so that an unchanged page costs one short answer |
//! | [`paginate`] | how the place of a page is laid into a request, and how links lead on |
//! | [`statements`] | what a page states about the end and the size of its list |
//! | [`proof`] | whether all of it agrees with where reading stopped |
//! | `room` | memory for answers: one bound over all |
//! | `veil` | text of remote parties without our secrets, on one line |
//!
//! What a definition file says of it ([`crate::definition`]) is plain data, read here.

mod address;
pub mod auth;
pub mod body;
mod client;
pub mod conditional;
mod dial;
mod forward;
pub(crate) mod hints;
pub mod limits;
pub mod paginate;
mod pools;
pub mod proof;
mod room;
pub mod statements;
mod streamed;
mod veil;

pub use address::{address, fits_a_host};
pub use client::{Answer, Client, ClientOptions, Outgoing};
pub use dial::{Lookup, SystemLookup};
pub use forward::{Forward, Passed, UNREACHABLE};
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use reqwest::{Method, Url};
pub use room::{ANSWERS, ANSWERS_LEAST, ReservedMemory, Room};
pub use streamed::{ByteStream, PassedBody, StreamedAnswer, StreamedRequest, Unanswered};
pub use veil::{MASK, Veil, looks_secret, on_one_line};
