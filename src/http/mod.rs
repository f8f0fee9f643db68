//! Requests and answers, as every route reads and writes them. It knows no route, and nothing of the app behind them.
//!
//! Promises: query and body are read strictly (an unknown name is refused, not ignored), and all faults are told at once; what
//! a body and an answer take of memory is counted for who sends or reads them; every refusal has the body described in
//! [`error`], and every answer the id of its request.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | the id of a request |
//! | `timing` | how long a request takes |
//! | [`budget`] | how often a caller may ask |
//! | [`auth`] | who calls, and what he may do |
//! | `space` | nothing new while the disk is too full |
//! | [`query`], [`body`] | what is asked for |
//! | [`passing`] | bodies that are passed on |
//! | [`answers`] | the memory of answers |
//! | [`rows`], [`stamp`] | records and times as JSON, fast |
//! | [`pages`] | a page that is cut from those of several owners |
//! | [`error`] | refusals |

pub(crate) mod answers;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod error;
pub(crate) mod pages;
pub(crate) mod passing;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod rows;
pub(crate) mod space;
pub(crate) mod stamp;
pub(crate) mod timing;

use crate::admission::{Address, Bounds};
use crate::config::ApiKey;
use crate::engine::time::Clock;
use axum::http::Extensions;
use std::sync::Arc;

/// What requests and answers need of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HttpContext {
    /// What outsiders may use up, in the whole process.
    pub bounds: Arc<Bounds>,
    /// The keys that are taken.
    keys: Arc<[ApiKey]>,
    clock: Arc<dyn Clock>,
}

impl HttpContext {
    /// Of these bounds and keys, by this clock.
    pub(crate) fn new(bounds: Arc<Bounds>, keys: &[ApiKey], clock: Arc<dyn Clock>) -> HttpContext {
        HttpContext { bounds, keys: keys.into(), clock }
    }
}

/// The address that sends a request.
pub(crate) fn sender(extensions: &Extensions) -> Address {
    extensions.get().copied().unwrap_or(Address::UNKNOWN)
}
