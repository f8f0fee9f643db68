//! Changes → messages. Pure: the same change always gives the same bytes; no clock, no chance, no memory.
//!
//! Promises: payloads are passed on as they are stored, byte for byte. They are read only to name the record's key (where it
//! does not stand first) and, for an update, the top-level fields that changed.
//!
//! What `op` says: `r` for a record first seen by the first listing of its sync, `c`, `u`, `d`. `source.snapshot` is `true`
//! for every change that listing made and `false` for others. `first` and `last`, which Debezium knows too, are not said:
//! which change is the last of a listing is not known when it is written.

use super::outlet::{OutputTopic, TopicBinding};
use super::{ChangeFormat, HeaderForm, Shape, json};
use bytes::Bytes;
use std::sync::Arc;
use syncline_engine::model::{Action, Change, Position};

/// Version in Debezium's `source` block.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One message, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, where it is not the key's.
    pub partition: Option<i32>,
    /// The key.
    pub key: Bytes,
    /// The value; `None` is Kafka's delete.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(&'static str, Bytes)>,
    /// Commit time, epoch milliseconds.
    pub timestamp: i64,
}

impl OutgoingMessage {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// Where a change stands, as far as it does not know itself.
#[derive(Clone, Copy, Debug)]
pub struct ChangePosition<'a> {
    /// Name of the producer: with the sequence it names a message for ever.
    pub producer: &'a str,
    /// The change's own place, as `/v1/changes` of the whole environment takes it.
    pub cursor: &'a str,
    /// Its number among all changes of its engine time, from 1.
    pub order: u64,
    /// Its number among those of its dataset and engine time, from 1.
    pub order_in_dataset: u64,
    /// Whether the first listing of the sync made it.
    pub first_listing: bool,
}

impl ChangePosition<'_> {
    /// Rises with every change of a producer, and is the same whenever the change is written.
    pub fn sequence(&self, change: &Change) -> u64 {
        Position::first_of(change.meta.position.epoch()).0.saturating_add(self.order)
    }
}

/// The letter of what happened.
pub(super) fn op(change: &Change, spot: &ChangePosition<'_>) -> &'static str {
    match change.meta.action {
        Action::Added if spot.first_listing => "r",
        Action::Added => "c",
        Action::Updated => "u",
        Action::Deleted => "d",
    }
}

/// What is told of a change, at most three messages: the change, a null behind a delete where that topic is compacted, and
/// the record's latest content.
pub fn messages(
    shape: &Shape,
    outlet: &TopicBinding,
    change: &Change,
    spot: &ChangePosition<'_>,
    each: &mut dyn FnMut(OutgoingMessage, &OutputTopic),
) {
    let key = Bytes::from(outlet.key(&change.id()));
    let gone = change.meta.action == Action::Deleted;
    let null = outlet.changes.as_ref().filter(|target| gone && target.compacted);
    // Most streams have one message per change: then the headers are made once and given away.
    let mut left =
        usize::from(outlet.changes.is_some()) + usize::from(null.is_some()) + usize::from(outlet.state.is_some());
    let mut headers = headers(shape, outlet, change, spot, &key);
    let mut make = |target: &OutputTopic, value: Option<Vec<u8>>| {
        left -= 1;
        let headers = if left == 0 { std::mem::take(&mut headers) } else { headers.clone() };
        let (key, timestamp) = (key.clone(), change.meta.last_modified_at.millis());
        OutgoingMessage {
            topic: target.name.clone(),
            partition: outlet.partition(target),
            key,
            value,
            headers,
            timestamp,
        }
    };
    if let Some(target) = &outlet.changes {
        let value = match shape.format {
            ChangeFormat::Debezium => debezium(outlet, change, spot),
            ChangeFormat::CloudEvents => cloud_event(outlet, change, spot, &key),
            ChangeFormat::Flat => flat(change, spot),
        };
        each(make(target, Some(value)), target);
    }
    if let Some(target) = null {
        each(make(target, None), target);
    }
    if let Some(target) = &outlet.state {
        let content = change.after.as_deref().filter(|_| !gone).map(<[u8]>::to_vec);
        let mut message = make(target, content);
        for (name, value) in &mut message.headers {
            if *name == "content-type" {
                *value = Bytes::from_static(b"application/json");
            }
        }
        each(message, target);
    }
}

/// Headers: CloudEvents in binary mode, then our own.
fn headers(
    shape: &Shape,
    outlet: &TopicBinding,
    change: &Change,
    spot: &ChangePosition<'_>,
    key: &Bytes,
) -> Vec<(&'static str, Bytes)> {
    let content: &[u8] = match shape.format {
        ChangeFormat::CloudEvents => b"application/cloudevents+json",
        ChangeFormat::Debezium | ChangeFormat::Flat => b"application/json",
    };
    let known = |text: &'static str| Bytes::from_static(text.as_bytes());
    let own = [
        ("syncline-op", known(op(change, spot))),
        ("syncline-producer", Bytes::copy_from_slice(spot.producer.as_bytes())),
        ("syncline-seq", Bytes::from(spot.sequence(change).to_string())),
    ];
    if shape.headers == HeaderForm::Few {
        return std::iter::once(("content-type", Bytes::from_static(content))).chain(own).collect();
    }
    let [op, producer, sequence] = own;
    let mut headers = vec![
        ("ce_specversion", known("1.0")),
        ("ce_type", known(event_type(change))),
        ("ce_source", outlet.source_header.clone()),
        ("ce_id", Bytes::from(event_id(outlet, change))),
        ("ce_time", Bytes::from(change.meta.last_modified_at.to_string())),
        ("ce_subject", key.clone()),
        ("content-type", Bytes::from_static(content)),
        op,
        ("syncline-cursor", Bytes::copy_from_slice(spot.cursor.as_bytes())),
        ("syncline-cause", Bytes::from(change.meta.cause.to_string())),
        producer,
        sequence,
    ];
    if let Some(schema) = &outlet.schema {
        headers.push(("syncline-schema", Bytes::copy_from_slice(schema.as_bytes())));
    }
    headers
}

fn event_type(change: &Change) -> &'static str {
    match change.meta.action {
        Action::Added => "syncline.record.added.v1",
        Action::Updated => "syncline.record.updated.v1",
        Action::Deleted => "syncline.record.deleted.v1",
    }
}

/// Unique together with the event's source: positions are unique within a dataset.
fn event_id(outlet: &TopicBinding, change: &Change) -> String {
    format!("{}-{}", outlet.log, change.meta.position.0)
}

/// What was there before and after, as formats with both say it: a delete has no after.
fn images(change: &Change) -> (Option<&[u8]>, Option<&[u8]>) {
    let gone = change.meta.action == Action::Deleted;
    (change.before.as_deref(), change.after.as_deref().filter(|_| !gone))
}

fn sized(change: &Change) -> Vec<u8> {
    let size = [&change.before, &change.after].iter().map(|p| p.as_ref().map_or(4, |p| p.len())).sum::<usize>();
    Vec::with_capacity(size + 640)
}

fn debezium(outlet: &TopicBinding, change: &Change, spot: &ChangePosition<'_>) -> Vec<u8> {
    let (meta, name) = (&change.meta, &outlet.name);
    let (before, after) = images(change);
    let epoch = meta.position.epoch();
    let mut out = sized(change);
    out.extend_from_slice(b"{\"before\":");
    json::payload(&mut out, before);
    out.extend_from_slice(b",\"after\":");
    json::payload(&mut out, after);
    let head = format!(",\"op\":\"{}\",\"ts_ms\":{}", op(change, spot), meta.last_modified_at.millis());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b",\"source\":{\"version\":\"");
    out.extend_from_slice(VERSION.as_bytes());
    out.extend_from_slice(b"\",\"connector\":");
    json::quote(&mut out, &name.source);
    out.extend_from_slice(b",\"name\":\"syncline\",\"ts_ms\":");
    json::millis(&mut out, meta.modified_at);
    out.extend_from_slice(format!(",\"snapshot\":\"{}\",\"db\":", spot.first_listing).as_bytes());
    json::quote(&mut out, &name.connection);
    out.extend_from_slice(b",\"table\":");
    json::quote(&mut out, &outlet.stream);
    let tail = format!(
        ",\"sequence\":\"[\\\"{epoch}\\\",\\\"{}\\\"]\",\"via\":\"{}\",\"cause\":\"{}\",\"changed\":",
        spot.order,
        meta.cause.via.as_str(),
        meta.cause
    );
    out.extend_from_slice(tail.as_bytes());
    json::list(&mut out, &change.changed_fields());
    let transaction = format!(
        "}},\"transaction\":{{\"id\":\"{epoch}\",\"total_order\":{},\"data_collection_order\":{}}}}}",
        spot.order, spot.order_in_dataset
    );
    out.extend_from_slice(transaction.as_bytes());
    out
}

fn cloud_event(outlet: &TopicBinding, change: &Change, spot: &ChangePosition<'_>, key: &[u8]) -> Vec<u8> {
    let meta = &change.meta;
    let (before, after) = images(change);
    let mut out = sized(change);
    let head =
        format!("{{\"specversion\":\"1.0\",\"type\":\"{}\",\"source\":\"{}\"", event_type(change), outlet.source);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(format!(",\"id\":\"{}\",\"time\":", event_id(outlet, change)).as_bytes());
    json::time(&mut out, meta.last_modified_at);
    out.extend_from_slice(b",\"subject\":");
    json::quote(&mut out, &String::from_utf8_lossy(key));
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":{\"before\":");
    json::payload(&mut out, before);
    out.extend_from_slice(b",\"after\":");
    json::payload(&mut out, after);
    out.extend_from_slice(format!(",\"op\":\"{}\",\"changed\":", op(change, spot)).as_bytes());
    json::list(&mut out, &change.changed_fields());
    out.extend_from_slice(b",\"modified_at\":");
    json::time(&mut out, meta.modified_at);
    let tail = format!(
        ",\"time\":{},\"order\":{},\"via\":\"{}\",\"cause\":\"{}\",\"first_listing\":{}}}}}",
        meta.position.epoch(),
        spot.order,
        meta.cause.via.as_str(),
        meta.cause,
        spot.first_listing
    );
    out.extend_from_slice(tail.as_bytes());
    out
}

/// The content itself, for a delete the last one, with three fields more.
fn flat(change: &Change, spot: &ChangePosition<'_>) -> Vec<u8> {
    let mut out = sized(change);
    let (body, more) = json::open_object(change.after.as_deref().or(change.before.as_deref()).unwrap_or(b"{}"));
    out.extend_from_slice(body);
    if more {
        out.push(b',');
    }
    let tail = format!(
        "\"__op\":\"{}\",\"__deleted\":\"{}\",\"__ts_ms\":{}}}",
        op(change, spot),
        change.meta.action == Action::Deleted,
        change.meta.last_modified_at.millis()
    );
    out.extend_from_slice(tail.as_bytes());
    out
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
