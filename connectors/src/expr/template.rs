//! Placeholders in text: `{{ name | filter }}`.

use super::{CompileError, EvalError};
use serde_json::Value;

/// Values placeholders may name, as one JSON object: `since`, `partition`, `key`, `connection`…; `event` for `.path`.
#[derive(Clone, Debug, Default)]
pub struct Scope(pub serde_json::Map<String, Value>);

/// Text with placeholders, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    _todo: (),
}

#[allow(clippy::todo, unused_variables)]
impl Template {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Template, CompileError> {
        todo!()
    }

    /// Text without placeholders, taken as it is.
    pub fn literal(text: &str) -> Template {
        todo!()
    }

    /// The value: a text that is one placeholder keeps its JSON type, everything else is text.
    /// A null inside is an error (`missing_value`).
    pub fn value(&self, scope: &Scope) -> Result<Value, EvalError> {
        todo!()
    }

    /// As text.
    pub fn text(&self, scope: &Scope) -> Result<String, EvalError> {
        todo!()
    }

    /// As a URL path: each placeholder's value percent-encoded; the filter `path` keeps `/` and refuses `.` and `..` parts.
    pub fn url_path(&self, scope: &Scope) -> Result<String, EvalError> {
        todo!()
    }

    /// Names of all placeholders, e.g. `partition.repo`, `since`.
    pub fn names(&self) -> Vec<&str> {
        todo!()
    }
}
