//! What a source must offer: one attempt at one page, and the record behind one key.
//!
//! A source makes one attempt and answers. It does not sleep, retry, store or log: `pipeline::run` does that, once for all
//! sources. (Pacing by the provider's budget is the exception: it needs to see each request, and lives with the client.)

pub mod program;
mod repeats;

use crate::model::Timestamp;
pub use crate::model::{Failure, Retry};
use async_trait::async_trait;
use bytes::Bytes;
pub use repeats::REPEATED_KEY;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// One attempt at a page of a stream.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The page after `after`, or the first one. The page carries its own bookmark; both are committed together.
    async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure>;

    /// The records behind these keys, read one by one or in batches: an observation, of the record or of its
    /// being gone, for each key the provider gave an answer for. Used for webhooks that only hint, and to confirm deletes. A source that cannot read single records
    /// leaves it out: it gives no answer.
    async fn fetch(&self, _ask: &Ask, _keys: &[String]) -> Result<Page, Failure> {
        Ok(Page::default())
    }

    /// Tries the sign-in of an account, and gives what the outside system tells of it, by field; `None` if there is nothing to
    /// try. Asked when a connection is made.
    async fn check(&self, _connection: &Arc<Connection>) -> Result<Option<Map<String, Value>>, Failure> {
        Ok(None)
    }

    /// Refuses an account that must not be asked for, before anything is asked.
    fn permits(&self, _connection: &Connection) -> Result<(), Failure> {
        Ok(())
    }

    /// Until when requests in the name of an account wait, because the outside system wants it so: for people who watch.
    fn waits_until(&self, _connection: &Connection) -> Option<Timestamp> {
        None
    }

    /// How failed attempts of this source are retried.
    fn retry(&self) -> Retry {
        Retry::default()
    }
}

/// A source that is shared is a source.
#[async_trait]
impl<S: Source + ?Sized> Source for Arc<S> {
    async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        (**self).poll(ask, after).await
    }

    async fn fetch(&self, ask: &Ask, keys: &[String]) -> Result<Page, Failure> {
        (**self).fetch(ask, keys).await
    }

    async fn check(&self, connection: &Arc<Connection>) -> Result<Option<Map<String, Value>>, Failure> {
        (**self).check(connection).await
    }

    fn permits(&self, connection: &Connection) -> Result<(), Failure> {
        (**self).permits(connection)
    }

    fn waits_until(&self, connection: &Connection) -> Option<Timestamp> {
        (**self).waits_until(connection)
    }

    fn retry(&self) -> Retry {
        (**self).retry()
    }
}

/// What is asked of a source: which stream, for which account, how much of it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The stream (model) by name.
    pub stream: String,
    /// The account the request is made for.
    pub connection: Arc<Connection>,
    /// `base` or another configuration of the same sync.
    pub variant: String,
    /// A complete listing, what changed, or what was deleted.
    pub part: Part,
    /// The run's start by our clock.
    pub started_at: Timestamp,
}

impl Ask {
    /// A whole record as it is seen now: `record` is an object whose `id` is `id`. A source that knows when the record was
    /// modified adds [`modified`](Observation::modified).
    pub fn seen(&self, id: impl Into<String>, record: Value) -> Observation {
        let body = Body::Whole(record.to_string());
        Observation { id: id.into(), modified_at: None, observed_at: self.started_at, body }
    }
}

/// Which listing of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The complete listing; proven complete it finds deletes.
    Full,
    /// What changed since `since` (the look-back is already taken off).
    Incremental {
        /// Lower end of the window, inclusive.
        since: Timestamp,
        /// Upper end: the start of this run.
        until: Timestamp,
    },
    /// The n-th `deletes[].list` of the stream: its items name deleted records.
    Deletes {
        /// Index into `deletes`.
        index: usize,
        /// Lower end of the window for listings that take one.
        since: Timestamp,
        /// Upper end of the window.
        until: Timestamp,
    },
}

/// One account at an outside system, as a source needs it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Isolation scope.
    pub environment: String,
    /// Its id.
    pub id: String,
    /// Secrets of the auth type, by field name (`token`, `username`, …).
    pub credentials: serde_json::Map<String, serde_json::Value>,
    /// Which credentials these are: it stays while tokens are refreshed, and is another when a person replaces them, since they
    /// may be another account's. Empty where the values themselves say it.
    pub credentials_id: String,
    /// Free JSON of the user.
    pub metadata: serde_json::Value,
    /// Values the provider told about the account (`connection_fields`), also used to route webhooks.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// Labels.
    pub tags: serde_json::Map<String, serde_json::Value>,
    /// Fixed partition values of this connection, by partition name.
    pub partitions: std::collections::BTreeMap<String, Vec<String>>,
    /// Replaces the source's `base_url`.
    pub base_url: Option<String>,
}

/// Where a source stands: opaque to the engine, stored in the commit of the page before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark(pub Bytes);

/// What one attempt brought.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Records as this stream's `map` made them, in the provider's order.
    pub observations: Vec<Observation>,
    /// Items that could not be taken, with the reason; they make the run incomplete.
    pub quarantined: Vec<Quarantined>,
    /// Records stored in spite of a complaint (`on_invalid: warn`).
    pub warnings: Vec<Quarantined>,
    /// Small values to be stored with the page: validators for conditional requests, keys of a page. Key → value; an empty
    /// value removes the key.
    pub notes: Vec<(String, Vec<u8>)>,
    /// Where to go on; `None` at the end of the listing.
    pub next: Option<Bookmark>,
    /// Set on the last page.
    pub end: Option<End>,
    /// Start of the run by the provider's clock (`Date` of the first answer), once known.
    pub provider_time: Option<Timestamp>,
    /// Requests made for this page.
    pub requests: u32,
    /// Answers that said «not modified».
    pub not_modified: u32,
    /// The provider asks not to come back earlier than this.
    pub poll_hint: Option<Duration>,
    /// Items the listing will have in all, when the provider says so: for progress bars only.
    pub expected: Option<u64>,
}

impl Page {
    /// The last page of a listing that is complete: what is not in it, or was not on a page before it, is gone.
    pub fn last(observations: Vec<Observation>) -> Page {
        Page { observations, end: Some(End { doubts: Vec::new(), confirm: Confirm::None }), ..Page::default() }
    }
}

/// One record as a source saw it once.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Text id, 1 to 255 characters.
    pub id: String,
    /// The source's modified time, if the model declares one.
    pub modified_at: Option<Timestamp>,
    /// When this was true at the latest (instant the request was sent, or the webhook's own time).
    pub observed_at: Timestamp,
    /// What was seen.
    pub body: Body,
}

impl Observation {
    /// The same, with the source's modified time.
    pub fn modified(self, at: Timestamp) -> Observation {
        Observation { modified_at: Some(at), ..self }
    }
}

/// What was seen of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The whole record: JSON text of an object whose `id` equals the observation's.
    Whole(String),
    /// Some fields: JSON text of an object to be merged deeply.
    Patch(String),
    /// It is gone.
    Gone {
        /// When it was deleted, if the source says so.
        deleted_at: Option<Timestamp>,
    },
}

/// Something that could not be taken as a record, or was taken with a warning.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// Stable word for the reason: `bad_key`, `bad_time`, `bad_value`, `bad_expression`, `not_an_object`…
    pub code: &'static str,
    /// For people: what is wrong and where.
    pub message: String,
    /// The id, when it could be read.
    pub id: Option<String>,
    /// The item as it came (cut at 64 KiB).
    pub item: String,
}

/// How a listing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why it is not proven complete; empty means proven.
    pub doubts: Vec<String>,
    /// How missing records may be confirmed as deleted.
    pub confirm: Confirm,
}

/// What it takes before a record missing from a proven listing is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Nothing more.
    None,
    /// `fetch` must answer that it is gone.
    Fetch,
    /// It must be missing from a second listing as well.
    Twice,
    /// This stream does not take deletes from listings.
    Never,
}
