//! Configuration text as a tree in which every value knows its file, line and column.
//!
//! Read by source definitions and by the server's settings. Promises: strict YAML 1.2 core schema (JSON is a part of it);
//! duplicate keys, tags, merge keys, several documents, oversized and exploding input are refused with a [`Complaint`]; numbers
//! keep their digits; nothing here panics on any input.
//!
//! The usual way: [`parse`] → [`resolve`] (references to environment and files) → a [`Fields`] for each map, which reports
//! unknown, missing and ill-typed keys on its own.

mod fields;
mod reference;
mod scalar;
mod yaml;

pub(crate) use fields::bad_type;
pub use fields::{Fields, nearest};
pub use reference::{Reference, resolve, resolve_from};
pub use scalar::{duration, read_duration, read_size};
pub use yaml::parse;

use std::fmt;
use std::sync::Arc;

/// Most bytes of one file.
pub const MAX_BYTES: usize = 1 << 20;
/// Most nodes that aliases may expand to.
pub const MAX_ALIAS_NODES: usize = 10_000;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// Most complaints of one file; what comes after is not reported.
pub const MAX_COMPLAINTS: usize = 200;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpan {
    /// The file's name as shown to people.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub col: usize,
}

impl SourceSpan {
    /// The beginning of a file.
    pub fn start(file: &str) -> SourceSpan {
        SourceSpan { file: file.into(), line: 1, col: 1 }
    }

    /// A complaint about this place.
    pub fn complain(&self, code: &'static str, message: impl Into<String>) -> Complaint {
        Complaint {
            file: self.file.to_string(),
            line: self.line,
            col: self.col,
            code,
            message: message.into(),
            hint: None,
            warning: false,
            about: None,
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub content: Content,
    /// Where it stands.
    pub spot: SourceSpan,
    /// It was written as `env:NAME` or `file:PATH` and has been resolved.
    pub referenced: bool,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// `null`, `~`, or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// Any JSON number, with its digits.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in order; keys are unique.
    Map(Vec<Entry>),
}

/// A key, its place, its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub spot: SourceSpan,
    /// The value.
    pub value: Node,
}

impl Node {
    /// An empty map standing at `spot`.
    pub fn empty_map(spot: SourceSpan) -> Node {
        Node { content: Content::Map(Vec::new()), spot, referenced: false }
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing (null)",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text as written: of a text, a number or a truth value.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.content {
            Content::Bool(value) => Some(value.to_string()),
            Content::Number(number) => Some(number.to_string()),
            Content::Text(text) => Some(text.clone()),
            Content::Null | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        self.content == Content::Null
    }

    /// The value without its places.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(b) => Value::Bool(*b),
            Content::Number(n) => Value::Number(n.clone()),
            Content::Text(t) => Value::String(t.clone()),
            Content::List(list) => Value::Array(list.iter().map(Node::to_json).collect()),
            Content::Map(map) => Value::Object(map.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()),
        }
    }

    /// Lays `over` on this: maps merge key by key, everything else is replaced.
    pub fn overlay(self, over: Node) -> Node {
        let Node { content: Content::Map(mut base), spot, referenced } = self else { return over };
        let Node { content: Content::Map(entries), spot: over_spot, .. } = over else {
            return Node { content: over.content, spot: over.spot, referenced: over.referenced };
        };
        for entry in entries {
            match base.iter().position(|b| b.key == entry.key) {
                Some(at) => {
                    let old = std::mem::replace(&mut base[at].value, Node::empty_map(spot.clone()));
                    base[at].value = old.overlay(entry.value);
                    base[at].spot = entry.spot;
                }
                None => base.push(entry),
            }
        }
        Node { content: Content::Map(base), spot: over_spot, referenced }
    }

    /// How many nodes this is.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.content {
            Content::List(list) => list.iter().map(Node::size).sum(),
            Content::Map(map) => map.iter().map(|e| e.value.size()).sum(),
            _ => 0usize,
        }
    }
}

/// What is wrong with a file, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// File as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub col: usize,
    /// Stable word.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The file is usable all the same.
    pub warning: bool,
    /// The URL it is about, where what surrounds the file decides whether it is wrong.
    pub about: Option<Box<url::Url>>,
}

impl Complaint {
    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Complaint {
        self.hint = Some(hint.into());
        self
    }

    /// All of it on one line, for a log.
    pub fn line(&self) -> String {
        self.to_string().replace("\n  hint:", "; hint:")
    }

    /// With the URL it is about.
    pub fn about(mut self, url: &url::Url) -> Complaint {
        self.about = Some(Box::new(url.clone()));
        self
    }

    /// As a warning.
    pub fn warn(mut self) -> Complaint {
        self.warning = true;
        self
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.warning { "warning " } else { "" };
        write!(f, "{}:{}:{} {warning}{} {}", self.file, self.line, self.col, self.code, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Complaint {}

/// Puts complaints in the order of the file and drops repetitions.
pub fn in_order(mut complaints: Vec<Complaint>) -> Vec<Complaint> {
    complaints.sort_by(|a, b| {
        (&a.file, a.line, a.col, a.code, &a.message).cmp(&(&b.file, b.line, b.col, b.code, &b.message))
    });
    complaints.dedup();
    complaints.truncate(MAX_COMPLAINTS);
    complaints
}
