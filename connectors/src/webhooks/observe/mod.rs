//! From a stored request to what it says: split, order, route, identify, map.

use super::dedupe::{EventId, Ids};
use super::route::{EventRoute, SourceConnections, route};
use super::{StoredWebhook, content, mapping};
use crate::definition::{Definition, Hydrate, Webhooks};
use crate::expr::{EvalError, Vars};
use crate::http::body::Faults;
use crate::mapping::{Mapper, connection_value};
use bytes::Bytes;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure, Observation, Quarantined};

/// What became of one event of a request.
#[derive(Clone, Debug)]
pub struct EventOutcome {
    /// Place of the event in the request, counted from 0 in order of arrival.
    pub index: usize,
    /// Which delivery it is; `None` where the request as a whole was rejected.
    pub event_id: Option<EventId>,
    /// What it says.
    pub verdict: Verdict,
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It cannot be taken.
    Rejected(Quarantined),
    /// No connection owns it.
    Unrouted {
        /// The field connections were compared by.
        field: String,
        /// The value nobody has.
        value: String,
    },
    /// What it says for each connection that owns it.
    Routed(Vec<Routed>),
}

/// What an event says for one connection.
#[derive(Clone, Debug)]
pub struct Routed {
    /// Whose event it is.
    pub connection: Arc<Connection>,
    /// What follows from it, in order.
    pub effects: Vec<Effect>,
    /// What could not be taken, or was taken with a warning.
    pub complaints: Vec<EventRejection>,
    /// The kind of an event that no entry of `map` and no function fits: nothing follows from it.
    pub unmapped: Option<String>,
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A record was seen, changed or deleted.
    Seen {
        /// Which stream.
        stream: String,
        /// What was seen.
        observation: Observation,
    },
    /// A record is to be read again.
    Fetch {
        /// Which stream.
        stream: String,
        /// Its key.
        key: String,
        /// Partition values the request needs.
        partition: Vec<(String, String)>,
        /// How soon.
        when: Hydrate,
    },
    /// A stream is to be asked for what has changed.
    Run {
        /// Which stream.
        stream: String,
    },
    /// A function is to take it.
    Handle {
        /// The sync that subscribes to its type.
        sync: String,
        /// The event, as JSON.
        event: Bytes,
    },
}

/// Something of an event that could not be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRejection {
    /// Which stream; empty for the event as a whole.
    pub stream: String,
    /// What and why.
    pub quarantined: Quarantined,
}

/// A definition made ready to read webhooks: its schemas compiled once.
#[derive(Clone)]
pub struct Observer {
    definition: Arc<Definition>,
    mappers: BTreeMap<String, Mapper>,
}

impl Observer {
    /// For a definition; a schema that cannot be compiled is refused.
    pub fn new(definition: Arc<Definition>) -> Result<Self, Failure> {
        let mappers = definition.streams.iter().map(|stream| Ok((stream.name.clone(), Mapper::new(stream)?)));
        let mappers = mappers.collect::<Result<_, Failure>>()?;
        Ok(Observer { definition, mappers })
    }

    /// The definition.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    pub(super) fn mapper(&self, stream: &str) -> Option<&Mapper> {
        self.mappers.get(stream)
    }

    /// What `stored` says. Repeatable; never fails.
    pub fn observe(&self, stored: &StoredWebhook, accounts: &dyn SourceConnections) -> Vec<EventOutcome> {
        match &self.definition.webhooks {
            Some(webhooks) => observe(self, webhooks, stored, accounts),
            None => vec![rejected("no_webhooks", "the definition takes no webhooks".into(), stored)],
        }
    }
}

fn observe(
    observer: &Observer,
    webhooks: &Webhooks,
    stored: &StoredWebhook,
    accounts: &dyn SourceConnections,
) -> Vec<EventOutcome> {
    let mut vars = vars(stored);
    let (events, faults) = match content::read(kind_of(stored), &stored.body)
        .and_then(|(body, faults)| split(webhooks, body, faults, &vars))
    {
        Ok(events) => events,
        Err(why) => return vec![rejected("bad_body", why, stored)],
    };
    let mut ids = Ids::new(stored, &webhooks.dedupe);
    let mut events: Vec<(usize, Value, EventId)> = events
        .into_iter()
        .enumerate()
        .map(|(index, event)| {
            vars.kind = kind(webhooks, &event, &vars);
            let id = ids.next(&event, &vars);
            (index, event, id)
        })
        .collect();
    order(webhooks, &mut events, &vars);
    events
        .into_iter()
        .map(|(index, event, id)| EventOutcome {
            index,
            event_id: Some(id),
            verdict: match faults.within(&event) {
                Some(why) => Verdict::Rejected(mapping::bad("unreadable", &EvalError(why.to_owned()), &event)),
                None => verdict(observer, webhooks, stored, &event, &mut vars, accounts),
            },
        })
        .collect()
}

fn verdict(
    observer: &Observer,
    webhooks: &Webhooks,
    stored: &StoredWebhook,
    event: &Value,
    vars: &mut Vars,
    accounts: &dyn SourceConnections,
) -> Verdict {
    vars.connection = Value::Null;
    vars.partition = Value::Null;
    vars.kind = kind(webhooks, event, vars);
    match route(webhooks, stored.head.connection.as_deref(), event, vars, accounts) {
        EventRoute::Contradicts(why) => Verdict::Rejected(mapping::bad("wrong_connection", &EvalError(why), event)),
        EventRoute::Nobody { field, value } => Verdict::Unrouted { field, value },
        EventRoute::To(owners) => Verdict::Routed(
            owners
                .iter()
                .map(|connection| {
                    vars.connection = connection_value(connection);
                    mapping::apply(observer, connection, event, vars, stored.received_at())
                })
                .collect(),
        ),
    }
}

fn rejected(code: &'static str, why: String, stored: &StoredWebhook) -> EventOutcome {
    let body = Value::String(String::from_utf8_lossy(&stored.body).into_owned());
    EventOutcome { index: 0, event_id: None, verdict: Verdict::Rejected(mapping::bad(code, &EvalError(why), &body)) }
}

fn kind(webhooks: &Webhooks, event: &Value, vars: &Vars) -> Value {
    webhooks.kind.as_ref().and_then(|rule| rule.first(event, vars).ok()).unwrap_or(Value::Null)
}

/// The type of the body, if the request says so.
fn kind_of(stored: &StoredWebhook) -> Option<&str> {
    stored.head.headers.get("content-type").map(String::as_str)
}

/// The events of a body. What could not be read of it must lie inside of them: elsewhere it may be anything.
fn split(webhooks: &Webhooks, body: Value, faults: Faults, vars: &Vars) -> Result<(Vec<Value>, Faults), String> {
    let events = match &webhooks.events {
        None => vec![body],
        Some(rule) => rule.all(&body, vars).map_err(|e| format!("webhooks.events: {e}"))?,
    };
    match faults.outside(&events) {
        Some(why) => Err(format!("outside of its events: {why}")),
        None => Ok((events, faults)),
    }
}

fn order(webhooks: &Webhooks, events: &mut [(usize, Value, EventId)], vars: &Vars) {
    let Some(rule) = &webhooks.order_by else { return };
    // Stable: events without a value, or with equal ones, keep their order of arrival.
    events.sort_by_cached_key(|(_, event, _)| Sortable(rule.first(event, vars).unwrap_or(Value::Null)));
}

/// Orders null, numbers, then everything else by its text.
struct Sortable(Value);

impl Sortable {
    fn rank(&self) -> u8 {
        match &self.0 {
            Value::Null => 0,
            Value::Number(_) => 1,
            _ => 2,
        }
    }
}

impl Ord for Sortable {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            // Beyond what a float tells apart the digits decide, so that the order is total.
            (Value::Number(a), Value::Number(b)) => {
                let float = |n: &serde_json::Number| n.as_f64().unwrap_or(0.0);
                float(a).total_cmp(&float(b)).then_with(|| a.to_string().cmp(&b.to_string()))
            }
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => self.rank().cmp(&other.rank()).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl PartialOrd for Sortable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sortable {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sortable {}

fn vars(stored: &StoredWebhook) -> Vars {
    let headers = stored.head.headers.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
    let query = content::pairs(stored.head.query.iter().map(|(k, v)| (k.into(), v.into())));
    Vars { h: Value::Object(headers), q: Value::Object(query), ..Vars::default() }
}

#[cfg(test)]
mod tests;
