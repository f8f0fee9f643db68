//! Bodies of webhooks as values: JSON in whatever encoding it comes, forms, nothing.
//!
//! Whatever is signed is signed over the bytes; this comes after the proof, or beside it.

use crate::expr::{Scope, Template};
use crate::http::body::{self, Faults};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Deepest nesting of a body.
const DEPTH: usize = 64;
/// Longest answer to a request; a longer one is none.
const REPLY_BYTES: usize = 16 << 10;
/// The type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// A body as a value, and what of it could not be read; `kind` is its `Content-Type`. An empty one is null.
pub(super) fn read(kind: Option<&str>, bytes: &[u8]) -> Result<(Value, Faults), String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok((Value::Null, Faults::default()));
    }
    if kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with(FORM)) {
        return form(bytes);
    }
    json(kind, bytes).map_err(|why| format!("the body {why}"))
}

/// What a request is answered with, once it is stored: `template` over the value of its body. Most requests of a provider that
/// has its challenge repeated are none: where a placeholder has no value the answer is empty.
pub fn reply(template: &Template, kind: Option<&str>, bytes: &[u8]) -> String {
    if let Some(text) = template.as_literal() {
        return text.to_owned();
    }
    let body = read(kind, bytes).map_or(Value::Null, |(body, _)| body);
    let text = template.text(&Scope(Map::from_iter([("event".to_owned(), body)])));
    text.ok().filter(|text| text.len() <= REPLY_BYTES).unwrap_or_default()
}

/// A form is an object of its fields. One of the single field `payload` that holds an object or a list is that value: so some
/// send in a form what others send as the body.
fn form(bytes: &[u8]) -> Result<(Value, Faults), String> {
    let fields = pairs(url::form_urlencoded::parse(bytes));
    match fields.get("payload") {
        Some(Value::String(text))
            if fields.len() == 1 && text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']) =>
        {
            json(None, text.as_bytes()).map_err(|why| format!("the field payload of the form {why}"))
        }
        _ => Ok((Value::Object(fields), Faults::default())),
    }
}

/// JSON no deeper than we bear.
fn json(kind: Option<&str>, bytes: &[u8]) -> Result<(Value, Faults), String> {
    let (value, faults) = body::read(kind, bytes).map_err(|why| format!("is not JSON: {why}"))?;
    match depth(&value) > DEPTH {
        true => Err(format!("is nested deeper than {DEPTH} levels")),
        false => Ok((value, faults)),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// An object of pairs; a repeated name becomes a list.
pub(super) fn pairs<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, text) in pairs {
        let text = Value::String(text.into_owned());
        match object.get_mut(name.as_ref()) {
            None => {
                object.insert(name.into_owned(), text);
            }
            Some(Value::Array(list)) => list.push(text),
            Some(first) => *first = Value::Array(vec![first.take(), text]),
        }
    }
    object
}
