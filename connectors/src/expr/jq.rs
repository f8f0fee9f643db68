//! jq expressions, compiled and bounded.

use super::{CompileError, EvalError, Vars};
use serde_json::Value;

/// A compiled expression. Cheap to clone; evaluates on any thread.
#[derive(Clone, Debug)]
pub struct Expr {
    _todo: (),
}

#[allow(clippy::todo, unused_variables)]
impl Expr {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Expr, CompileError> {
        todo!()
    }

    /// The first output; null if there is none.
    pub fn first(&self, input: &Value, vars: &Vars) -> Result<Value, EvalError> {
        todo!()
    }

    /// All outputs (bounded).
    pub fn all(&self, input: &Value, vars: &Vars) -> Result<Vec<Value>, EvalError> {
        todo!()
    }

    /// Whether the first output is neither null nor false.
    pub fn truthy(&self, input: &Value, vars: &Vars) -> Result<bool, EvalError> {
        todo!()
    }

    /// The object path this expression is, if it is nothing but one (`.a.b` → `["a", "b"]`).
    pub fn path(&self) -> Option<&[String]> {
        todo!()
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        todo!()
    }
}
