//! Tokens that expire: where people are sent for them, and how they are asked for, renewed and given back.
//!
//! | file | what it holds |
//! |---|---|
//! | `app` | [`AppCredentials`]: who the app is at the provider, from wherever that is known |
//! | `authorize` | the address people are sent to, and the key that proves their way back (RFC 7636) |
//! | `endpoint` | [`TokenEndpoint`]: a code, a refresh token, what was entered or an assertion for tokens; tokens given back |
//! | `request` | a request for tokens as it goes out |
//! | `answer` | [`TokenSet`] from whatever a provider calls an answer; [`TokenError`] from the rest |
//! | `assertion` | statements signed here (RFC 7519) |
//!
//! One attempt each: waiting, repeating and storing are for whoever holds the connection. Everything leaves through [`crate::http`], so
//! that what holds of addresses holds of these as well. Promises: an answer has at most [`ANSWER_MAX`] bytes and comes within
//! [`ANSWER_TIME`]; no failure quotes a secret; nothing that is kept prints one.

mod answer;
mod app;
mod assertion;
mod authorize;
mod endpoint;
mod request;

pub use answer::{TokenError, TokenRefusal, TokenSet};
pub use app::{AppCredentials, Apps, OfDefinition};
pub use authorize::{Departure, ProofKey, authorize_url};
pub use endpoint::TokenEndpoint;

use std::time::Duration;

/// Most bytes of an answer.
pub const ANSWER_MAX: u64 = 64 << 10;
/// Longest wait for one.
pub const ANSWER_TIME: Duration = Duration::from_secs(30);
