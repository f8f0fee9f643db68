//! Items that come as JSON text and mostly stay it: records of a stream without `map` are taken without building a tree.
//!
//! Promises: the same outcome as [`Mapper::read`] gives for the parsed item (compared by test); text that needs a closer look
//! goes that way. The text must be valid JSON, and an object.

use super::{FUTURE_MAX, Mapped, Mapper, RESERVED, SeenAt, refuse};
use crate::expr::{Vars, read_time};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;
use syncline_engine::model::{Timestamp, record_id};
use syncline_engine::source::{Body, Quarantined};

/// Nesting the quick way walks through; deeper text goes the other way, which refuses what is too deep.
const DEPTH: usize = 100;

/// Ids of so many bytes are never too long.
const PLAIN_BYTES: usize = 255;

/// What whoever handed the item over says of it; it wins over what the stream reads.
#[derive(Clone, Debug, Default)]
pub struct Given<'a> {
    /// The id.
    pub id: Option<Cow<'a, str>>,
    /// The modified time.
    pub modified_at: Option<Timestamp>,
}

/// A record as it goes into a page.
#[derive(Clone, Debug, PartialEq)]
pub struct MappedRow<'a> {
    /// Its id.
    pub id: Cow<'a, str>,
    /// Its modified time, if it was given or the stream reads one.
    pub modified_at: Option<Timestamp>,
    /// What is said of it: the record's text, or that it is gone.
    pub body: RowBody<'a>,
    /// Taken in spite of this.
    pub warning: Option<Quarantined>,
}

/// See [`MappedRow::body`].
#[derive(Clone, Debug, PartialEq)]
pub enum RowBody<'a> {
    /// The record.
    Whole(Cow<'a, str>),
    /// The stream's flag says it is gone.
    Gone(Option<Timestamp>),
}

impl Mapper {
    /// Reads an item from its text. `vars` is asked only where an expression may need it.
    pub fn read_text<'a>(
        &self,
        text: &'a str,
        given: Given<'a>,
        seen: SeenAt,
        vars: &mut dyn FnMut() -> Vars,
    ) -> Result<MappedRow<'a>, Quarantined> {
        if let Some(row) = self.quick(text, &given, seen) {
            return Ok(row);
        }
        let item: Value = serde_json::from_str(text).map_err(|error| {
            let item: String = text.chars().take(super::ITEM_BYTES_MAX / 4).collect();
            Quarantined { code: "bad_record", message: format!("the record cannot be read: {error}"), id: None, item }
        })?;
        self.read_value(&item, given, seen, &vars())
    }

    /// Reads an item of which the id or the modified time may be given.
    pub fn read_value<'a>(
        &self,
        item: &Value,
        given: Given<'a>,
        seen: SeenAt,
        vars: &Vars,
    ) -> Result<MappedRow<'a>, Quarantined> {
        let modified_at = given.modified_at.map(|at| not_future(at, seen));
        let id = given.id.map(Cow::into_owned);
        match self.read_given(item, id, modified_at, seen, vars) {
            Mapped::Taken(observation, warning) => Ok(MappedRow {
                id: Cow::Owned(observation.id),
                modified_at: modified_at.or(observation.modified_at),
                body: match observation.body {
                    Body::Whole(text) | Body::Patch(text) => RowBody::Whole(Cow::Owned(text)),
                    Body::Gone { deleted_at } => RowBody::Gone(deleted_at),
                },
                warning,
            }),
            Mapped::Refused(quarantined) => Err(quarantined),
        }
    }

    /// The way without a tree; `None` where it does not lead to the end.
    fn quick<'a>(&self, text: &'a str, given: &Given<'a>, seen: SeenAt) -> Option<MappedRow<'a>> {
        let plan = self.plain()?;
        // Line ends inside of a record would break readers that go by lines.
        let text = text.trim();
        // Folded, not searched: this way the compiler compares many bytes at once.
        if text.bytes().fold(false, |found, byte| found | (byte == b'\n') | (byte == b'\r')) {
            return None;
        }
        let found = scan(text, plan.key, plan.modified_at)?;
        let id = match &given.id {
            Some(id) => id.clone(),
            None => scalar_id(text.get(found.key?)?).ok()?,
        };
        let modified_at = match (given.modified_at, plan.modified_at) {
            (Some(at), _) => Some(at),
            (None, None) => None,
            (None, Some(_)) => match found.modified_at {
                Some(place) => read_time(&serde_json::from_str(text.get(place)?).ok()?, plan.unit).ok()?,
                None => None,
            },
        };
        let modified_at = modified_at.map(|at| not_future(at, seen));
        Some(MappedRow {
            body: RowBody::Whole(with_id(text, &id, found.id, found.empty)?),
            id,
            modified_at,
            warning: None,
        })
    }
}

/// The id that a string or number stands for. JSON text.
pub fn scalar_id(json: &str) -> Result<Cow<'_, str>, String> {
    // Most keys are short plain strings or whole numbers: their text is the id.
    let plain = match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if (1..=PLAIN_BYTES).contains(&inner.len()) && !inner.contains('\\') => Some(inner),
        None if json.len() < 18 && !json.starts_with('0') && json.bytes().all(|b| b.is_ascii_digit()) => Some(json),
        _ => None,
    };
    if let Some(plain) = plain {
        return Ok(Cow::Borrowed(plain));
    }
    let value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    record_id(&value).map(Cow::Owned).map_err(|e| e.to_string())
}

pub(super) fn not_future(at: Timestamp, seen: SeenAt) -> Timestamp {
    if at > seen.answered_at.plus(FUTURE_MAX) { seen.answered_at } else { at }
}

/// The record with its id as text.
fn with_id<'a>(text: &'a str, id: &str, place: Option<Range<usize>>, empty: bool) -> Option<Cow<'a, str>> {
    if let Some(written) = place.as_ref().and_then(|place| text.get(place.clone()))
        && written.len() == id.len() + 2
        && written.get(1..written.len() - 1) == Some(id)
        && written.starts_with('"')
        && !id.contains('\\')
    {
        return Some(Cow::Borrowed(text));
    }
    let quoted = serde_json::to_string(id).ok()?;
    let whole = match place {
        Some(place) => [text.get(..place.start)?, &quoted, text.get(place.end..)?].concat(),
        None => {
            let open = text.strip_suffix('}')?;
            [open, if empty { "\"id\":" } else { ",\"id\":" }, &quoted, "}"].concat()
        }
    };
    Some(Cow::Owned(whole))
}

#[derive(Default)]
struct FoundFields {
    id: Option<Range<usize>>,
    key: Option<Range<usize>>,
    modified_at: Option<Range<usize>>,
    empty: bool,
}

/// Where the top-level fields of interest lie. `None` for whatever is unusual: escaped names, a field written twice, the
/// reserved one, great depth.
fn scan(text: &str, key: &str, modified_at: Option<&str>) -> Option<FoundFields> {
    let bytes = text.as_bytes();
    let mut at = after_space(bytes, 1)?;
    let mut found = FoundFields { empty: bytes.get(at) == Some(&b'}'), ..FoundFields::default() };
    if found.empty {
        return Some(found);
    }
    loop {
        let name_end = string_end(bytes, at)?;
        let name = text.get(at + 1..name_end - 1)?;
        let from = after_space(bytes, after_space(bytes, name_end)? + 1)?;
        let to = value_end(bytes, from)?;
        if name.contains('\\') || name == RESERVED {
            return None;
        }
        for (wanted, slot) in
            [(Some("id"), &mut found.id), (Some(key), &mut found.key), (modified_at, &mut found.modified_at)]
        {
            if wanted == Some(name) && slot.replace(from..to).is_some() {
                return None;
            }
        }
        at = after_space(bytes, to)?;
        match bytes.get(at) {
            Some(b',') => at = after_space(bytes, at + 1)?,
            Some(b'}') => return Some(found),
            _ => return None,
        }
    }
}

fn after_space(bytes: &[u8], mut at: usize) -> Option<usize> {
    while matches!(bytes.get(at)?, b' ' | b'\t') {
        at += 1;
    }
    Some(at)
}

/// Behind the closing quote of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn value_end(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut at, mut depth) = (from, 0usize);
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                if depth > DEPTH {
                    return None;
                }
                continue;
            }
            // The end of what surrounds a number or word.
            b'}' | b']' | b',' | b' ' | b'\t' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// A complaint about a field that is not in the item's text.
pub fn refuse_text(code: &'static str, message: String, id: Option<String>, text: &str) -> Quarantined {
    let cut: String = text.chars().take(super::ITEM_BYTES_MAX / 4).collect();
    Quarantined { item: cut, ..refuse(code, message, id, &Value::Null) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;
    use proptest::prelude::*;

    fn mapper(stream: &str) -> Mapper {
        let text = format!("source: s\nbase_url: https://a.example\nstreams:\n  - {stream}\n");
        let (definition, _) = parse("s.yaml", &text, &|_| Err("none".to_owned())).expect("good");
        Mapper::new(&definition.streams[0]).expect("a mapper")
    }

    fn seen() -> SeenAt {
        SeenAt {
            observed_at: Timestamp::from_seconds(2_000_000_000),
            answered_at: Timestamp::from_seconds(2_000_000_000),
        }
    }

    fn both(
        mapper: &Mapper,
        text: &str,
        given: &Given<'static>,
    ) -> (Option<MappedRow<'static>>, Result<MappedRow<'static>, Quarantined>) {
        let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
        let item: Value = serde_json::from_str(text).expect("JSON");
        let slow = mapper.read_value(&item, given.clone(), seen(), &Vars::default());
        (mapper.quick(text, given, seen()), slow)
    }

    fn value(row: &MappedRow<'_>) -> (String, Option<Timestamp>, Value) {
        let RowBody::Whole(text) = &row.body else { panic!("{row:?}") };
        (row.id.to_string(), row.modified_at, serde_json::from_str(text).expect("JSON"))
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{},:\\[\\]é ]{0,6}".prop_map(Value::from),
            Just(Value::Null),
            Just(Value::from("2026-11-21T09:00:00Z")),
            Just(Value::from(1_795_251_600)),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c\"]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_quick_way_leads_where_the_other_does(
            fields in proptest::collection::btree_map("(id|k|at|x|_nango_metadata|a\\\\|é)", json(), 0..6),
            spaced in any::<bool>(),
        ) {
            let text = Value::Object(fields.into_iter().collect()).to_string();
            let text = if spaced { text.replace("\":", "\" : ").replace("}", " }") } else { text };
            prop_assume!(serde_json::from_str::<Value>(&text).is_ok());
            for stream in [
                "{name: Thing, key: .id, list: {get: /a}}",
                "{name: Thing, key: .k, modified_at: .at, list: {get: /a}}",
            ] {
                let mapper = mapper(stream);
                let givens = [
                    Given::default(),
                    Given { id: Some("g\"é".into()), modified_at: Some(Timestamp::from_seconds(7)) },
                ];
                for given in givens {
                    let (quick, slow) = both(&mapper, &text, &given);
                    if let Some(quick) = quick {
                        let slow = slow.map_err(|q| TestCaseError::fail(format!("{text}: {q:?}")))?;
                        prop_assert_eq!(value(&quick), value(&slow), "{}", text);
                    }
                }
            }
        }
    }

    #[test]
    fn ordinary_records_take_the_quick_way() {
        let mapper = mapper("{name: Thing, key: .id, modified_at: .at, list: {get: /a}}");
        for (text, wanted) in [
            (r#"{"id":"a","at":"2026-11-21T09:00:00Z","n":{"x":[1,{"y":2}]}}"#, None),
            (r#"{"n":1,"id":5,"at":5}"#, Some(r#"{"n":1,"id":"5","at":5}"#)),
        ] {
            let row = mapper.quick(text, &Given::default(), seen()).expect(text);
            let RowBody::Whole(body) = &row.body else { panic!("{row:?}") };
            assert_eq!(body, wanted.unwrap_or(text));
        }
        let given = Given { id: Some("g".into()), modified_at: None };
        let row = mapper.quick("{}", &given, seen()).expect("given");
        assert_eq!(row.body, RowBody::Whole(r#"{"id":"g"}"#.into()));
        assert!(mapper.quick("{\"id\":\"a\",\n\"x\":1}", &Given::default(), seen()).is_none());
    }
}
