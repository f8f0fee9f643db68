//! Plain paths (`.a.b[0]`, `$h["x-y"]`, `.a // .b`) walked without jq.
//!
//! Means exactly what jq means by the same text: missing fields are null, a field of text or a number is an error.

use super::{EvalError, Vars};
use serde_json::Value;

/// One step down.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PathStep {
    /// A field of an object.
    Key(String),
    /// A place in an array; negative counts from the end.
    At(i64),
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Input,
    Headers,
    Query,
    Type,
    Connection,
    Partition,
}

/// A plain path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pointer {
    root: Root,
    steps: Vec<PathStep>,
}

impl Root {
    /// The variable it is, as it is written.
    pub(super) fn variable(self) -> Option<&'static str> {
        ROOTS.iter().find(|(_, root)| *root == self).map(|(name, _)| *name)
    }
}

const ROOTS: [(&str, Root); 5] = [
    ("$h", Root::Headers),
    ("$q", Root::Query),
    ("$type", Root::Type),
    ("$connection", Root::Connection),
    ("$partition", Root::Partition),
];
static NULL: Value = Value::Null;

/// Reads `a // b // c` where each part is a plain path; `None` if the text is anything else.
pub(super) fn read(text: &str) -> Option<Vec<Pointer>> {
    if text.len() > 400 {
        return None;
    }
    text.split("//").map(|part| Pointer::read(part.trim())).collect()
}

/// The value of the first alternative that is neither null nor false, otherwise of the last.
pub(super) fn walk<'a>(paths: &[Pointer], input: &'a Value, vars: &'a Vars) -> Result<&'a Value, EvalError> {
    let Some((last, first)) = paths.split_last() else { return Ok(&NULL) };
    for path in first {
        // As in jq, an error on the left of `//` counts as no value.
        if let Ok(value) = path.walk(input, vars)
            && !matches!(value, Value::Null | Value::Bool(false))
        {
            return Ok(value);
        }
    }
    last.walk(input, vars)
}

impl Pointer {
    fn read(text: &str) -> Option<Pointer> {
        let (root, rest) = match text.strip_prefix('$') {
            None => (Root::Input, text),
            Some(_) => {
                let end = text.find(['.', '[']).unwrap_or(text.len());
                let (name, rest) = text.split_at_checked(end)?;
                (ROOTS.iter().find(|(n, _)| *n == name)?.1, rest)
            }
        };
        if root == Root::Input && !rest.starts_with('.') {
            return None;
        }
        let mut steps = Vec::new();
        let mut rest = if rest == "." && root == Root::Input { "" } else { rest };
        if root == Root::Input && rest.starts_with(".[") {
            rest = rest.get(1..)?;
        }
        while !rest.is_empty() {
            let (step, after) = PathStep::read(rest)?;
            steps.push(step);
            rest = after;
        }
        Some(Pointer { root, steps })
    }

    /// The variable it begins at, with the field read of it.
    pub(super) fn variable(&self) -> Option<(&'static str, Option<&str>)> {
        let field = if let Some(PathStep::Key(key)) = self.steps.first() { Some(key.as_str()) } else { None };
        self.root.variable().map(|name| (name, field))
    }

    /// The keys, if this is a path of keys from the input.
    pub(super) fn keys(&self) -> Option<Vec<String>> {
        if self.root != Root::Input {
            return None;
        }
        self.steps
            .iter()
            .map(|step| match step {
                PathStep::Key(key) => Some(key.clone()),
                PathStep::At(_) => None,
            })
            .collect()
    }

    fn walk<'a>(&self, input: &'a Value, vars: &'a Vars) -> Result<&'a Value, EvalError> {
        let mut at = match self.root {
            Root::Input => input,
            Root::Headers => &vars.h,
            Root::Query => &vars.q,
            Root::Type => &vars.kind,
            Root::Connection => &vars.connection,
            Root::Partition => &vars.partition,
        };
        for step in &self.steps {
            at = step.take(at)?;
        }
        Ok(at)
    }
}

impl PathStep {
    /// Reads `.name`, `."text"`, `["text"]`, `[3]`; gives the rest.
    fn read(text: &str) -> Option<(PathStep, &str)> {
        if let Some(inner) = text.strip_prefix('[') {
            if inner.starts_with('"') {
                let (key, rest) = quoted(inner)?;
                return Some((PathStep::Key(key), rest.strip_prefix(']')?));
            }
            let (number, rest) = inner.split_once(']')?;
            let plain = number.strip_prefix('-').unwrap_or(number);
            if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            return Some((PathStep::At(number.parse().ok()?), rest));
        }
        let rest = text.strip_prefix('.')?;
        if rest.starts_with('"') {
            let (key, rest) = quoted(rest)?;
            return Some((PathStep::Key(key), rest));
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, rest) = rest.split_at_checked(end)?;
        let word = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        word.then(|| (PathStep::Key(name.to_owned()), rest))
    }

    fn take<'a>(&self, value: &'a Value) -> Result<&'a Value, EvalError> {
        match (self, value) {
            (_, Value::Null) => Ok(&NULL),
            (PathStep::Key(key), Value::Object(map)) => Ok(map.get(key).unwrap_or(&NULL)),
            (PathStep::At(at), Value::Array(list)) => {
                let from_end = || list.len().checked_sub(usize::try_from(at.unsigned_abs()).ok()?);
                let index = usize::try_from(*at).ok().or_else(from_end);
                Ok(index.and_then(|i| list.get(i)).unwrap_or(&NULL))
            }
            (PathStep::Key(key), other) => Err(EvalError(format!("cannot read field \"{key}\" of {}", kind(other)))),
            (PathStep::At(at), other) => Err(EvalError(format!("cannot read place {at} of {}", kind(other)))),
        }
    }
}

/// Text in quotes without escapes or interpolation.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (inner, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!inner.contains('\\')).then(|| (inner.to_owned(), rest))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
