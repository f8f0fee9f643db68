//! Expressions and placeholders: the two small languages inside a definition file.
//!
//! Expressions are jq (crate `jaq`), held to an allow-list of functions and to bounds on input and output, so that no
//! definition can hang or exhaust the process. A plain path compiles to a pointer walk and costs nothing.
//! Placeholders (`{{ name | filter }}`) stand in paths, parameters, headers and bodies.

use serde_json::Value;

mod check;
mod convert;
mod functions;
mod jq;
mod pointer;
mod template;
mod time;

pub use convert::MAX_OUTPUT_BYTES;
pub use jq::{Expr, MAX_OUTPUTS, MAX_TEXT};
pub use template::{Scope, Template};
pub use time::{TimeUnit, read_time};

/// Variables an expression may read.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    /// `$h`: request headers, lower-case names.
    pub h: Value,
    /// `$q`: query parameters.
    pub q: Value,
    /// `$type`: the kind of webhook.
    pub kind: Value,
    /// `$connection`: id, metadata, fields, tags.
    pub connection: Value,
    /// `$partition`: partition values by name.
    pub partition: Value,
    /// `$input`: what an action is given.
    pub input: Value,
    /// `$steps`: answers of its requests, by name.
    pub steps: Value,
    /// `$body` (raw text), `$method`, `$url`, `$secret`: in `verify.expr` only.
    pub verify: Option<Box<VerifyVars>>,
}

/// Variables of `webhooks.verify.expr`.
#[derive(Clone, Debug, Default)]
pub struct VerifyVars {
    /// The body as it came.
    pub body: String,
    /// The method.
    pub method: String,
    /// The public URL.
    pub url: String,
    /// The secret.
    pub secret: String,
}

/// Why a text is not an expression or placeholder of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CompileError {
    /// `bad_expression`, `unbounded_expression`, `bad_placeholder`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Byte offset inside the text.
    pub at: usize,
}

/// Why an evaluation brought no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);
