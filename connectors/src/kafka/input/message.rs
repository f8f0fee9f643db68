//! The message of an input topic: JSON text → a parsed, checked value, or why not.
//!
//! Promises: accepts exactly what the served JSON Schema accepts (compared by test); reads the text once, keeping records as
//! the text they came as; never recurses, so that no nesting is too deep for it. What a record *is* (its key, its fields)
//! is not looked at here: a record that is bad does not make its message bad.

use super::raw::{Few, is_number, is_object, present, text, whole};
use crate::mapping::text::scalar_id;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use syncline_engine::model::{Timestamp, record_id};

/// Most records of one message.
pub const RECORDS_MAX: usize = 10_000;
/// Longest name of a connection, stream or variant, characters.
const NAME_CHARS: usize = 255;
/// Longest id of a message or listing, characters.
const ID_CHARS: usize = 256;
/// Parts of the message key that names one record.
const KEY_PARTS: usize = 3;

/// Why a message cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Bad {
    /// Stable word: `not_utf8`, `not_json`, `bad_version`, `bad_message`, `bad_key`…
    pub code: &'static str,
    /// For people: what is wrong, where, what would be right.
    pub message: String,
}

impl Bad {
    /// From its parts.
    pub fn new(code: &'static str, message: impl Into<String>) -> Bad {
        Bad { code, message: message.into() }
    }
}

/// A message as its writer meant it.
#[derive(Clone, Debug)]
pub struct ParsedMessage<'a> {
    /// Whose records.
    pub connection: Cow<'a, str>,
    /// Which stream.
    pub stream: Cow<'a, str>,
    /// Another configuration of the stream.
    pub variant: Option<Cow<'a, str>>,
    /// By it a repeat is known.
    pub id: Option<Cow<'a, str>>,
    /// What it says, in order.
    pub entries: Vec<MessageRecord<'a>>,
    /// The full list it is a page of.
    pub listing: Option<ListPage<'a>>,
}

/// One record's part of a message.
#[derive(Clone, Debug)]
pub struct MessageRecord<'a> {
    /// What is said.
    pub op: Op<'a>,
    /// The key, where the message names it.
    pub key: Option<MessageKey<'a>>,
    /// The modified time, where the message names it.
    pub modified_at: Option<Timestamp>,
}

/// What is said of a record: JSON text of an object, or that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// An item: goes through the stream's `key`, `modified_at`, `map`, `schema`.
    Upsert(&'a str),
    /// Fields of the record as it is stored.
    Patch(&'a str),
    /// It is gone.
    Delete,
}

/// A key as written: a string, a number, or a list of them. JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKey<'a>(&'a str);

/// A page of a full list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<'a> {
    /// Which list.
    pub id: Cow<'a, str>,
    /// Names a part of the data; such a list finds no deletes.
    pub partition: Option<Cow<'a, str>>,
    /// With the last page: how many keys the list has.
    pub end: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    v: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    connection: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    variant: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    op: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    record: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    patch: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    modified_at: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "some_items")]
    records: Option<Few<WireFields<'a>, RECORDS_MAX>>,
    #[serde(borrow, default, deserialize_with = "present")]
    listing: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WireFields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    op: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    record: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    patch: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    modified_at: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct WirePage<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    partition: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    end: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    total: Option<&'a RawValue>,
}

fn some_items<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Few<WireFields<'a>, RECORDS_MAX>>, D::Error> {
    Few::deserialize(from).map(Some)
}

/// Reads the value of a message.
pub fn parse(value: &[u8]) -> Result<ParsedMessage<'_>, Bad> {
    let json = std::str::from_utf8(value)
        .map_err(|e| Bad::new("not_utf8", format!("the value is not UTF-8 text after byte {}", e.valid_up_to())))?;
    if !json.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok() {
        return Err(Bad::new("bad_message", "the value is no JSON object"));
    }
    let envelope: Envelope<'_> = serde_json::from_str(json).map_err(|e| match e.is_data() {
        true => Bad::new("bad_message", e.to_string()),
        false => Bad::new("not_json", format!("the value is not JSON: {e}")),
    })?;
    envelope.check()
}

/// Reads the key of a message without value: its record is gone.
pub fn parse_gone(key: Option<&[u8]>) -> Result<ParsedMessage<'_>, Bad> {
    let wrong = || {
        let wanted = "a message without value needs the key [\"connection\",\"stream\",key] to be a delete";
        Bad::new("bad_key", wanted)
    };
    let parts: Few<&RawValue, KEY_PARTS> = key.and_then(|key| serde_json::from_slice(key).ok()).ok_or_else(wrong)?;
    match (parts.values.as_slice(), parts.over) {
        ([connection, stream, key], false) => Ok(ParsedMessage {
            connection: name(connection, "the key's connection")?,
            stream: name(stream, "the key's stream")?,
            variant: None,
            id: None,
            entries: vec![MessageRecord { op: Op::Delete, key: Some(MessageKey::read(key)?), modified_at: None }],
            listing: None,
        }),
        _ => Err(wrong()),
    }
}

impl<'a> Envelope<'a> {
    fn check(self) -> Result<ParsedMessage<'a>, Bad> {
        let version = self.v.ok_or_else(|| missing("v"))?;
        if version.get().parse::<f64>().ok() != Some(1.0) {
            let shown: String = version.get().chars().take(40).collect();
            return Err(Bad::new("bad_version", format!("`v` is {shown}; this release reads version 1")));
        }
        let connection = name(self.connection.ok_or_else(|| missing("connection"))?, "`connection`")?;
        let stream = name(self.stream.ok_or_else(|| missing("stream"))?, "`stream`")?;
        let variant = self.variant.map(|raw| name(raw, "`variant`")).transpose()?;
        let id = self.id.map(|raw| sized(raw, "`id`", 1, ID_CHARS)).transpose()?;
        let listing = self.listing.map(listing).transpose()?;
        let single = WireFields {
            op: self.op,
            key: self.key,
            record: self.record,
            patch: self.patch,
            modified_at: self.modified_at,
        };
        let entries = match self.records {
            None => vec![single.check("")?],
            Some(few) => batch(few, &single)?,
        };
        Ok(ParsedMessage { connection, stream, variant, id, entries, listing })
    }
}

fn batch<'a>(few: Few<WireFields<'a>, RECORDS_MAX>, outside: &WireFields<'_>) -> Result<Vec<MessageRecord<'a>>, Bad> {
    let strays = [
        ("op", outside.op),
        ("key", outside.key),
        ("record", outside.record),
        ("patch", outside.patch),
        ("modified_at", outside.modified_at),
    ];
    if let Some((stray, _)) = strays.iter().find(|(_, raw)| raw.is_some()) {
        return Err(Bad::new("bad_message", format!("`{stray}` beside `records`: write it inside of each record")));
    }
    if few.over {
        let message = format!("more than {RECORDS_MAX} records in one message; write several");
        return Err(Bad::new("too_many_records", message));
    }
    let check = |(n, fields): (usize, WireFields<'a>)| fields.check(&format!("records[{n}]."));
    few.values.into_iter().enumerate().map(check).collect()
}

impl<'a> WireFields<'a> {
    fn check(self, place: &str) -> Result<MessageRecord<'a>, Bad> {
        let bad = |field: &str, why: &str| Bad::new("bad_message", format!("`{place}{field}` {why}"));
        let op = self.op.ok_or_else(|| bad("op", "is missing: upsert, patch or delete, or `records` for a batch"))?;
        let op = text(op).ok_or_else(|| bad("op", "is no text"))?;
        for (field, raw) in [("record", self.record), ("patch", self.patch)] {
            if raw.is_some_and(|raw| !is_object(raw)) {
                return Err(bad(field, "is no object"));
            }
        }
        let key = self.key.map(MessageKey::read).transpose().map_err(|why| bad("key", &why.message))?;
        let modified_at = self.modified_at.map(|raw| {
            time(raw).ok_or_else(|| {
                bad("modified_at", "is no time: write RFC 3339 (2026-11-21T09:00:00Z) or whole milliseconds since 1970")
            })
        });
        let modified_at = modified_at.transpose()?;
        let op = match (&*op, self.record, self.patch, key) {
            ("upsert", Some(record), None, _) => Op::Upsert(record.get()),
            ("upsert", None, _, _) => return Err(bad("record", "is missing")),
            ("upsert", ..) => return Err(bad("patch", "is not for an upsert")),
            ("patch", None, Some(patch), Some(_)) => Op::Patch(patch.get()),
            ("patch", Some(_), ..) => return Err(bad("record", "is not for a patch")),
            ("patch", _, None, _) => return Err(bad("patch", "is missing")),
            ("delete", _, Some(_), _) => return Err(bad("patch", "is not for a delete")),
            ("delete", _, None, Some(_)) => Op::Delete,
            ("patch" | "delete", .., None) => return Err(bad("key", "is missing")),
            _ => return Err(bad("op", "is not upsert, patch or delete")),
        };
        Ok(MessageRecord { op, key, modified_at })
    }
}

impl<'a> MessageKey<'a> {
    fn read(raw: &'a RawValue) -> Result<MessageKey<'a>, Bad> {
        let scalar = |raw: &RawValue| is_number(raw) || raw.get().starts_with('"');
        let fits = scalar(raw)
            || serde_json::from_str::<Vec<&RawValue>>(raw.get())
                .is_ok_and(|parts| !parts.is_empty() && parts.iter().all(|part| scalar(part)));
        match fits {
            true => Ok(MessageKey(raw.get())),
            false => Err(Bad::new("bad_key", "is no string, number, or list of them")),
        }
    }

    /// Reads a key from bytes: JSON (a string, a number, a list of them), or plain text.
    pub fn of_bytes(bytes: &'a [u8]) -> Option<MessageKey<'a>> {
        serde_json::from_slice::<&RawValue>(bytes).ok().and_then(|raw| MessageKey::read(raw).ok())
    }

    /// The id it stands for, in a stream whose key is one value or a list (`composite`).
    pub fn id(&self, composite: bool) -> Result<Cow<'a, str>, String> {
        if !composite {
            if self.0.starts_with('[') {
                return Err("the key is a list, but the stream's `key` is one value".to_owned());
            }
            return scalar_id(self.0);
        }
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(self.0) else {
            return Err("the stream's `key` is a list, but this key is one value".to_owned());
        };
        let mut texts = Vec::with_capacity(parts.len());
        for part in parts {
            let text = scalar_id(part.get())?;
            texts.push(if is_number(part) {
                text.into_owned()
            } else {
                serde_json::Value::String(text.into()).to_string()
            });
        }
        let whole = serde_json::Value::String(format!("[{}]", texts.join(",")));
        record_id(&whole).map(Cow::Owned).map_err(|e| e.to_string())
    }
}

fn listing(raw: &RawValue) -> Result<ListPage<'_>, Bad> {
    let bad = |field: &str, why: &str| Bad::new("bad_message", format!("`listing.{field}` {why}"));
    if !is_object(raw) {
        return Err(Bad::new("bad_message", "`listing` is no object"));
    }
    let page: WirePage<'_> =
        serde_json::from_str(raw.get()).map_err(|e| Bad::new("bad_message", format!("`listing`: {e}")))?;
    let id = sized(page.id.ok_or_else(|| missing("listing.id"))?, "`listing.id`", 0, ID_CHARS)?;
    let partition = page.partition.map(|raw| text(raw).ok_or_else(|| bad("partition", "is no text"))).transpose()?;
    let end = match page.end.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("end", "is neither true nor false")),
    };
    let total =
        page.total.map(|raw| whole(raw).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| bad("total", "is no count")));
    match (end, total.transpose()?) {
        (true, None) => Err(bad("total", "is missing: the last page says how many keys the list has")),
        (true, total) => Ok(ListPage { id, partition, end: total }),
        (false, _) => Ok(ListPage { id, partition, end: None }),
    }
}

fn missing(field: &str) -> Bad {
    Bad::new("bad_message", format!("`{field}` is missing"))
}

fn name<'a>(raw: &'a RawValue, what: &str) -> Result<Cow<'a, str>, Bad> {
    sized(raw, what, 1, NAME_CHARS)
}

fn sized<'a>(raw: &'a RawValue, what: &str, least: usize, most: usize) -> Result<Cow<'a, str>, Bad> {
    let text = text(raw).ok_or_else(|| Bad::new("bad_message", format!("{what} is no text")))?;
    let fits = text.len() >= least && (text.len() <= most || text.chars().count() <= most);
    match fits {
        true => Ok(text),
        false => Err(Bad::new("bad_message", format!("{what} has to have {least} to {most} characters"))),
    }
}

/// RFC 3339 text or whole milliseconds since 1970.
fn time(raw: &RawValue) -> Option<Timestamp> {
    if is_number(raw) {
        return whole(raw).map(Timestamp::from_millis);
    }
    let text = text(raw)?;
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-')
        && matches!(bytes.get(10), Some(b'T' | b't'))
        && bytes.get(13) == Some(&b':')
        && bytes.get(16) == Some(&b':');
    Timestamp::parse(&text).filter(|_| shaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ParsedMessage<'_> {
        parse(json.as_bytes()).unwrap_or_else(|why| panic!("{json}: {why}"))
    }

    #[test]
    fn one_record_and_a_batch() {
        let one = read(
            r#"{"v":1,"connection":"c","stream":"Order","op":"upsert","key":"A-17",
                "modified_at":"2026-11-21T09:00:00.123456Z","record":{"id":"A-17","total":12},"id":"evt-1"}"#,
        );
        let entry = &one.entries[0];
        assert_eq!((one.connection.as_ref(), one.id.as_deref()), ("c", Some("evt-1")));
        assert_eq!(entry.op, Op::Upsert(r#"{"id":"A-17","total":12}"#));
        assert_eq!(entry.modified_at, Timestamp::parse("2026-11-21T09:00:00.123456Z"));
        let batch = read(
            r#"{"v":1.0,"connection":"c","stream":"O","records":[{"op":"patch","key":7,"patch":{"a":1},"modified_at":5},
                {"op":"delete","key":["a",1]}],"listing":{"id":"l","end":true,"total":2}}"#,
        );
        assert_eq!(batch.entries[0].key.map(|k| k.id(false)), Some(Ok("7".into())));
        assert_eq!(batch.entries[0].modified_at, Some(Timestamp(5_000)));
        assert_eq!(batch.entries[1].key.map(|k| k.id(true)), Some(Ok(r#"["a",1]"#.into())));
        assert_eq!(batch.listing.and_then(|l| l.end), Some(2));
    }

    #[test]
    fn a_null_with_three_parts_is_a_delete() {
        let gone = parse_gone(Some(br#"["c","Order","A-17"]"#)).expect("a delete");
        assert_eq!((gone.stream.as_ref(), gone.entries[0].op), ("Order", Op::Delete));
        for key in
            [None, Some(&b"x"[..]), Some(br#"["c"]"#), Some(br#"["c","s","k","more"]"#), Some(br#"["c","s",null]"#)]
        {
            assert_eq!(parse_gone(key).expect_err("no delete").code, "bad_key", "{key:?}");
        }
    }

    #[test]
    fn reasons_are_clear() {
        let head = r#""v":1,"connection":"c","stream":"S""#;
        for (json, reason) in [
            ("", "not_json"),
            ("[]", "bad_message: the value is no JSON object"),
            ("{\"v\":1", "not_json"),
            (r#"{"v":2,"connection":"c","stream":"S","op":"delete","key":"k"}"#, "bad_version: `v` is 2"),
            (r#"{"connection":"c"}"#, "`v` is missing"),
            (&format!("{{{head},\"op\":\"upsert\"}}"), "`record` is missing"),
            (&format!("{{{head},\"op\":\"delete\"}}"), "`key` is missing"),
            (&format!("{{{head},\"op\":\"drop\",\"key\":1}}"), "`op` is not upsert, patch or delete"),
            (&format!("{{{head},\"records\":[{{\"op\":\"patch\",\"key\":1}}]}}"), "`records[0].patch` is missing"),
            (&format!("{{{head},\"records\":[],\"key\":1}}"), "`key` beside `records`"),
            (&format!("{{{head},\"recrods\":[]}}"), "unknown field `recrods`"),
            (
                &format!("{{{head},\"records\":[],\"listing\":{{\"id\":\"x\",\"end\":true}}}}"),
                "`listing.total` is missing",
            ),
        ] {
            let why = parse(json.as_bytes()).expect_err(json).to_string();
            assert!(why.contains(reason), "{json}: {why}");
        }
        assert_eq!(parse(b"{\"v\":\"\xff\"}").expect_err("bytes").code, "not_utf8");
        let many = format!("{{{head},\"records\":[{}{{}}]}}", r#"{"op":"delete","key":1},"#.repeat(RECORDS_MAX));
        assert_eq!(parse(many.as_bytes()).expect_err("many").code, "too_many_records");
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = "[".repeat(5_000_000);
        let json = format!(r#"{{"v":1,"connection":"c","stream":"S","op":"upsert","record":{{"a":{deep}"#);
        assert_eq!(parse(json.as_bytes()).expect_err("cut off").code, "not_json");
        let closed = format!("{json}{}}}}}", "]".repeat(5_000_000));
        assert!(parse(closed.as_bytes()).is_ok());
        assert!(parse(deep.as_bytes()).is_err());
    }
}
