//! What people enter for a connection beside its credentials: names, help, and what a value may look like.
//!
//! Promises: a value that is taken matches the whole of its pattern; a pattern that stands in the host of a URL takes no more than a
//! part of one, so that nobody who enters a value chooses where credentials go.

use super::Auth;
use super::read::{self, Out};
use crate::config_text::{Content, Entry, Fields, Node, SourceSpan, bad_type};
use regex::Regex;
use serde_json::{Map, Value};

/// What is taken where nothing else is said: one label of a host name.
const LABEL: &str = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
/// Most bytes of a value.
const VALUE_MAX: usize = 1_024;
/// Of a secret, which may be a key.
const SECRET_MAX: usize = 16 << 10;
/// Most fields.
const FIELDS_MAX: usize = 32;
/// Longest pattern.
const PATTERN_MAX: usize = 1_024;
/// Memory that a compiled pattern may take.
const COMPILED_MAX: usize = 256 << 10;
/// Names that credentials have.
const TAKEN: [&str; 8] = [
    "access_token",
    "refresh_token",
    "expires_at",
    "client_id",
    "client_secret",
    "private_key",
    "webhook_secret",
    "raw",
];
/// No part of a host: whatever takes one of them could end it, or be another.
const OUTSIDE: [&str; 9] = ["a/b", "a:1", "a@b", "a?b", "a#b", "a\\b", "https://a.b", "a%2fb", "a b"];

/// Something that people enter for a connection.
#[derive(Clone, Debug)]
pub struct AccountField {
    /// Its name: `{{ connection.fields.NAME }}`, or `{{ connection.credentials.NAME }}` of a secret.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For people.
    pub example: Option<String>,
    /// It is kept and shown as credentials are.
    pub secret: bool,
    /// What the whole of a value has to look like, as it was written.
    pub pattern: Option<String>,
    compiled: Option<Regex>,
}

impl AccountField {
    /// Whether `value` may stand in it.
    pub fn takes(&self, value: &str) -> bool {
        let most = if self.secret { SECRET_MAX } else { VALUE_MAX };
        (1..=most).contains(&value.len()) && self.compiled.as_ref().is_none_or(|pattern| pattern.is_match(value))
    }

    /// Whether a value could be more than a part of a host.
    pub(super) fn leaves_a_host(&self) -> bool {
        OUTSIDE.iter().any(|outside| self.takes(outside))
    }
}

impl Auth {
    /// What people enter for a connection.
    pub fn fields(&self) -> &[AccountField] {
        self.tokens().map_or(&[], |tokens| &tokens.fields)
    }

    /// Entered values by where they are kept: fields of the connection, and its credentials. Every complaint otherwise.
    pub(super) fn entered(&self, given: Vec<Entry>, spot: &SourceSpan, out: &mut Out) -> Entered {
        let mut entered = Entered::default();
        let known: Vec<&str> = self.fields().iter().map(|field| field.name.as_str()).collect();
        let missing: Vec<&str> =
            known.iter().copied().filter(|name| !given.iter().any(|entry| entry.key == *name)).collect();
        for entry in given {
            let Some(field) = self.fields().iter().find(|field| field.name == entry.key) else {
                let complaint = entry.spot.complain("unknown_key", format!("`auth` has no field `{}`", entry.key));
                out.push(complaint.hint(format!("`fields` of `auth` has {}", or_none(&known))));
                continue;
            };
            let Some(value) = value(field, &entry.value, out) else { continue };
            let place = if field.secret { &mut entered.credentials } else { &mut entered.fields };
            place.insert(field.name.clone(), Value::String(value));
        }
        if !missing.is_empty() {
            let complaint = spot.complain("missing_key", format!("the connection lacks {}", missing.join(", ")));
            out.push(complaint.hint(format!("write it under `fields`: {}", or_none(&known))));
        }
        entered
    }
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What was entered.
#[derive(Default)]
pub(super) struct Entered {
    pub(super) fields: Map<String, Value>,
    pub(super) credentials: Map<String, Value>,
}

fn value(field: &AccountField, node: &Node, out: &mut Out) -> Option<String> {
    let what = format!("field `{}`", field.name);
    let value = if field.secret { read::secret(node, &what, out)? } else { read::scalar(node, &what, out)? };
    if field.takes(&value) {
        return Some(value);
    }
    let shown = if field.secret { String::new() } else { format!(" `{value}`") };
    let complaint = node.spot.complain("bad_value", format!("{what} does not take{shown}"));
    let like = match (&field.example, &field.pattern) {
        (Some(example), _) => format!("write it like `{example}`"),
        (None, Some(pattern)) => format!("the whole of it has to match `{pattern}`"),
        (None, None) => "letters, digits and `-`, at most 63".to_owned(),
    };
    out.push(complaint.hint(like));
    None
}

/// Reads `fields` of `auth`.
pub(super) fn fields(fields: &mut Fields, out: &mut Out) -> Vec<AccountField> {
    let Some(node) = fields.take("fields") else { return Vec::new() };
    if !matches!(node.content, Content::Map(_)) {
        out.push(bad_type(&node, "`fields` of `auth`", "a map from names to fields"));
        return Vec::new();
    }
    let spot = node.spot.clone();
    let Some(mut map) = Fields::open(node, "`fields` of `auth`", out) else { return Vec::new() };
    let all: Vec<AccountField> = map.rest().into_iter().filter_map(|entry| field(entry, out)).collect();
    if all.len() > FIELDS_MAX {
        out.push(spot.complain("out_of_range", format!("`fields` has {}; {FIELDS_MAX} are allowed", all.len())));
    }
    all
}

fn field(entry: Entry, out: &mut Out) -> Option<AccountField> {
    let name = entry.key;
    read::name(&name, "a field", &entry.spot, out);
    if TAKEN.contains(&name.as_str()) {
        let complaint = entry.spot.complain("conflict", format!("`{name}` is the name of a credential"));
        out.push(complaint.hint("name the field otherwise"));
    }
    let mut fields = Fields::open(entry.value, format!("field `{name}`"), out)?;
    let title = fields.text("title", out).map(|(text, _)| text);
    let example = fields.text("example", out).map(|(text, _)| text);
    let secret = fields.bool("secret", out).unwrap_or(false);
    let pattern = fields.text("pattern", out);
    let label = (!secret).then_some(LABEL);
    let compiled = pattern.as_ref().map(|(text, _)| text.as_str()).or(label).and_then(|text| {
        let compiled = compile(text);
        if let (Err(why), Some((_, spot))) = (&compiled, &pattern) {
            out.push(spot.complain("bad_pattern", format!("`{text}` is no pattern: {why}")));
        }
        compiled.ok()
    });
    fields.finish(out);
    let field = AccountField { name, title, example, secret, pattern: pattern.map(|(text, _)| text), compiled };
    if let Some(example) = field.example.as_ref().filter(|example| !field.takes(example)) {
        let message = format!("`{example}` is the example of field `{}`, which does not take it", field.name);
        out.push(entry.spot.complain("bad_value", message).hint("change `example` or `pattern`"));
    }
    Some(field)
}

/// The whole of a value has to match.
fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_MAX {
        return Err(format!("it is longer than {PATTERN_MAX} bytes"));
    }
    let built = |text: &str| regex::RegexBuilder::new(text).size_limit(COMPILED_MAX).build();
    // Alone first: brackets that do not match would be closed by ours.
    let whole = built(pattern).and_then(|_| built(&format!("\\A(?:{pattern})\\z")));
    whole.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}
