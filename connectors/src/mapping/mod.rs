//! Mapping: from the provider's item to the observation.
//!
//! Promises: numbers stay exact; an item that cannot be taken is handed back with its reason, never dropped and never an
//! error of the page. The same way is gone by polled items, fetched ones and those a webhook carries.

pub mod text;

use self::text::not_future;
use super::definition::{Map, OnInvalid, Stream, TimeUnit};
use crate::expr::{EvalError, Expr, Vars};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::{Timestamp, record_id};
use syncline_engine::source::{Body, Connection, Failure, Observation, Quarantined};

/// Longest part of an item that is kept in quarantine, bytes.
pub const ITEM_BYTES_MAX: usize = 64 * 1024;

/// A modified time further ahead of the answer than this is cut back to it.
pub(super) const FUTURE_MAX: Duration = Duration::from_secs(60);

/// Field no record may have: readers find our own metadata under it.
pub(super) const RESERVED: &str = "_nango_metadata";

/// Turns items of one stream into observations.
#[derive(Clone)]
pub struct Mapper {
    stream: Arc<Stream>,
    schema: Option<Arc<jsonschema::Validator>>,
}

/// When an item was seen.
#[derive(Clone, Copy, Debug)]
pub struct SeenAt {
    /// When it was true at the latest: the instant the request was sent, or the webhook's own time.
    pub observed_at: Timestamp,
    /// When it was said, by the clock of who said it if that is known.
    pub answered_at: Timestamp,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// An observation, perhaps with a complaint.
    Taken(Observation, Option<Quarantined>),
    /// Kept aside.
    Refused(Quarantined),
}

/// Names of the fields that identify and date a record.
pub(super) struct Plain<'a> {
    pub(super) key: &'a str,
    pub(super) modified_at: Option<&'a str>,
    pub(super) unit: Option<TimeUnit>,
}

impl Mapper {
    /// A mapper for `stream`; its schema is compiled once.
    pub fn new(stream: &Stream) -> Result<Mapper, Failure> {
        let wanted = stream.schema.as_ref().filter(|_| stream.on_invalid != OnInvalid::Off);
        let schema = wanted.map(compile).transpose().map_err(|reason| Failure {
            code: "bad_schema",
            message: format!("the schema of stream {}: {reason}", stream.name),
            status: None,
            retry: false,
            retry_after: None,
        })?;
        Ok(Mapper { stream: Arc::new(stream.clone()), schema: schema.map(Arc::new) })
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The id of an item.
    pub fn key(&self, item: &Value, vars: &Vars) -> Result<String, String> {
        key_of(&self.stream.key, self.stream.composite, item, vars)
    }

    /// An item of which something could not be read, with its id where that could.
    pub fn unreadable(&self, item: &Value, why: &str, vars: &Vars) -> Quarantined {
        let id = self.key(item, vars).ok().filter(|id| !id.contains(why));
        refuse("unreadable", why.to_owned(), id, item)
    }

    /// Reads one item.
    pub fn read(&self, item: &Value, seen: SeenAt, vars: &Vars) -> Mapped {
        self.read_given(item, None, None, seen, vars)
    }

    /// The same where the id or the modified time is known already: what is given is not read.
    pub(super) fn read_given(
        &self,
        item: &Value,
        id: Option<String>,
        modified_at: Option<Timestamp>,
        seen: SeenAt,
        vars: &Vars,
    ) -> Mapped {
        match self.observe(item, (id, modified_at), seen, vars) {
            Ok((observation, warning)) => Mapped::Taken(observation, warning),
            Err(quarantined) => Mapped::Refused(quarantined),
        }
    }

    /// What records may be taken by without a tree: neither mapped nor judged, key and time plain fields of the top level.
    pub(super) fn plain(&self) -> Option<Plain<'_>> {
        let stream = &*self.stream;
        let top = |expression: &'_ Expr| expression.path().is_some_and(|path| path.len() == 1);
        let same = matches!(stream.map, Map::Same) && self.schema.is_none() && stream.deletes.flag.is_none();
        let [key] = stream.key.as_slice() else { return None };
        let time = stream.modified_at.as_ref();
        if !same || stream.composite || !top(key) || time.is_some_and(|time| !top(&time.value)) {
            return None;
        }
        let key = stream.key.first().and_then(|key| key.path()).and_then(|path| path.first())?;
        let modified_at = time.and_then(|time| time.value.path()).and_then(|path| path.first()).map(String::as_str);
        Some(Plain { key, modified_at, unit: time.and_then(|time| time.unit) })
    }

    fn observe(
        &self,
        item: &Value,
        (id, given_at): (Option<String>, Option<Timestamp>),
        seen: SeenAt,
        vars: &Vars,
    ) -> Result<(Observation, Option<Quarantined>), Quarantined> {
        let id = match id {
            Some(id) => id,
            None => self.key(item, vars).map_err(|reason| refuse("bad_key", reason, None, item))?,
        };
        let complain = |code, reason: String| refuse(code, reason, Some(id.clone()), item);
        let modified_at = match given_at {
            Some(at) => Some(at),
            None => {
                self.modified_at(item, seen, vars).map_err(|e| complain("bad_time", format!("modified_at: {e}")))?
            }
        };
        if let Some((flag, at)) = &self.stream.deletes.flag {
            let gone = flag.truthy(item, vars).map_err(|e| complain("bad_expression", format!("deletes.flag: {e}")))?;
            if gone {
                let at = at.as_ref().map(|at| at.read(item, vars)).transpose();
                let deleted_at = at.map_err(|e| complain("bad_time", format!("deletes.at: {e}")))?.flatten();
                return Ok((self.gone(id, modified_at, deleted_at, seen), None));
            }
        }
        let record = self.record(item, &id, vars).map_err(|(code, reason)| complain(code, reason))?;
        let fault =
            self.schema.as_ref().and_then(|schema| fault(schema, &record)).map(|why| complain("bad_value", why));
        if let (Some(fault), OnInvalid::Quarantine) = (&fault, self.stream.on_invalid) {
            return Err(fault.clone());
        }
        let body = Body::Whole(record.to_string());
        Ok((Observation { id, modified_at, observed_at: seen.observed_at, body }, fault))
    }

    /// The observation that a record is gone. Where the stream has a merge clock, the delete carries one as well: without
    /// it, it would lose against every version of the record.
    pub fn gone(
        &self,
        id: String,
        modified_at: Option<Timestamp>,
        deleted_at: Option<Timestamp>,
        seen: SeenAt,
    ) -> Observation {
        let clock = modified_at.max(deleted_at.map(|at| not_future(at, seen))).or(Some(seen.answered_at));
        let modified_at = clock.filter(|_| self.stream.modified_at.is_some());
        Observation { id, modified_at, observed_at: seen.observed_at, body: Body::Gone { deleted_at } }
    }

    fn modified_at(&self, item: &Value, seen: SeenAt, vars: &Vars) -> Result<Option<Timestamp>, EvalError> {
        let Some(time) = &self.stream.modified_at else { return Ok(None) };
        Ok(time.read(item, vars)?.map(|at| not_future(at, seen)))
    }

    fn record(&self, item: &Value, id: &str, vars: &Vars) -> Result<Value, (&'static str, String)> {
        let bad = |place: &str, error: EvalError| ("bad_expression", format!("{place}: {error}"));
        let mapped = match &self.stream.map {
            Map::Same => item.clone(),
            Map::Whole(whole) => whole.first(item, vars).map_err(|e| bad("map", e))?,
            Map::Fields(fields) => {
                let read = |(name, expression): &(String, Expr)| {
                    let value = expression.first(item, vars).map_err(|e| bad(&format!("map.{name}"), e))?;
                    Ok((name.clone(), value))
                };
                Value::Object(fields.iter().map(read).collect::<Result<_, _>>()?)
            }
        };
        let Value::Object(mut record) = mapped else {
            return Err(("not_an_object", "the record is no object".to_string()));
        };
        if record.contains_key(RESERVED) {
            return Err(("reserved_field", format!("«{RESERVED}» is reserved; leave it out in map")));
        }
        record.insert("id".to_string(), Value::String(id.to_string()));
        Ok(Value::Object(record))
    }
}

/// The id that `key` reads from an item; of a composite key the JSON array of its parts.
pub fn key_of(key: &[Expr], composite: bool, item: &Value, vars: &Vars) -> Result<String, String> {
    let part = |expression: &Expr| {
        let value = expression.first(item, vars).map_err(|error| format!("{}: {error}", expression.text()))?;
        let text = record_id(&value).map_err(|error| format!("{}: {error}", expression.text()))?;
        Ok::<_, String>((value, text))
    };
    if !composite {
        return key.first().ok_or_else(|| "no key is declared".to_string()).and_then(part).map(|(_, text)| text);
    }
    let mut parts = Vec::with_capacity(key.len());
    for expression in key {
        let (value, text) = part(expression)?;
        // Numbers in the one form an id knows, so that 5 and 5.0 are the same part.
        parts.push(if value.is_number() { text } else { Value::String(text).to_string() });
    }
    record_id(&Value::String(format!("[{}]", parts.join(",")))).map_err(|error| error.to_string())
}

/// Variables for expressions over items of `connection` in `partition`.
pub fn vars(connection: &Connection, partition: &Value) -> Vars {
    Vars { connection: connection_value(connection), partition: partition.clone(), ..Vars::default() }
}

/// A connection as expressions and placeholders see it: without its credentials.
pub fn connection_value(connection: &Connection) -> Value {
    serde_json::json!({
        "id": connection.id,
        "metadata": connection.metadata,
        "fields": connection.fields,
        "tags": connection.tags,
    })
}

pub(crate) fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(false)
        .offline()
        .build(schema)
        .map_err(|error| error.to_string())
}

pub(crate) fn fault(schema: &jsonschema::Validator, record: &Value) -> Option<String> {
    let error = schema.iter_errors(record).next()?;
    Some(format!("{}: {}", error.instance_path(), error))
}

/// An item that could not be taken.
pub fn refuse(code: &'static str, message: String, id: Option<String>, item: &Value) -> Quarantined {
    let mut text = item.to_string();
    if text.len() > ITEM_BYTES_MAX {
        let end = (0..=ITEM_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    Quarantined { code, message, id, item: text }
}
