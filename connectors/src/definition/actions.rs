//! `actions`: what is done at the provider when it is called: its input, its requests, its output, and what the answer says of a record.

use super::read::{self, KnownNames, Out, Variables};
use super::request::{self, Level};
use super::webhooks::unknown_stream;
use super::{Request, Stream};
use crate::config_text::{Content, Fields, Node, bad_type};
use crate::expr::{Expr, Template};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most requests of an action.
const STEPS_MAX: usize = 20;
/// Methods that may be sent again without anything happening twice.
const REPEATABLE: [&str; 3] = ["GET", "PUT", "DELETE"];
/// Variables of expressions about the last answer.
const ANSWERED: &[&str] = &["$h", "$connection", "$input", "$steps"];

/// Something that is done at the provider when it is called.
#[derive(Clone, Debug)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// JSON Schema of what it is given.
    pub input: Option<Value>,
    /// Its requests, in order.
    pub steps: Vec<ActionStep>,
    /// What it gives, of the last answer; the answer itself if absent.
    pub output: Option<Expr>,
    /// JSON Schema of that.
    pub output_schema: Option<Value>,
    /// What the last answer says of a record.
    pub then: Option<ActionRecord>,
    /// A header by which the provider knows a request again.
    pub idempotency: Option<(String, Template)>,
}

/// A request of an action.
#[derive(Clone, Debug)]
pub struct ActionStep {
    /// Under which later ones name its answer.
    pub name: Option<String>,
    /// What is asked.
    pub request: Request,
}

/// A record in the answer of an action.
#[derive(Clone, Debug)]
pub struct ActionRecord {
    /// Of which stream.
    pub stream: String,
    /// Its item, as a poll would bring it.
    pub record: Expr,
}

impl Action {
    /// Whether all of it may be done again without anything happening twice.
    pub fn repeats(&self) -> bool {
        let harmless = |step: &ActionStep| REPEATABLE.contains(&step.request.method.as_str());
        self.idempotency.is_some() || self.steps.iter().all(harmless)
    }
}

/// Reads `actions`.
pub(super) fn actions(
    fields: &mut Fields,
    level: &Level,
    names: &KnownNames,
    streams: &[Stream],
    out: &mut Out,
) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    for node in fields.list("actions", out).unwrap_or_default() {
        let spot = node.get("name").map_or(node.spot.clone(), |name| name.spot.clone());
        let Some(action) = action(node, level, names, streams, out) else { continue };
        if actions.iter().any(|known| known.name == action.name) {
            out.push(spot.complain("duplicate_action", format!("there are two actions `{}`", action.name)));
        }
        actions.push(action);
    }
    actions
}

fn action(node: Node, level: &Level, names: &KnownNames, streams: &[Stream], out: &mut Out) -> Option<Action> {
    let mut fields = Fields::open(node, "an entry of `actions`", out)?;
    let name = fields.require_text("name", out);
    let (name, spot) = name?;
    read::name(&name, "an action", &spot, out);
    fields.what = format!("action `{name}`");
    fields.text("description", out);
    let input = schema(&mut fields, "input", out);
    let mut names = KnownNames { action: true, ..names.clone() };
    let idempotency = fields.take("idempotency").and_then(|node| idempotency(node, &names, out));
    let steps = steps(&mut fields, level, &mut names, out);
    let variables = names.variables(ANSWERED);
    let output = read::expr_at(&mut fields, "output", variables, out);
    let output_schema = schema(&mut fields, "output_schema", out);
    let then = fields.take("then").and_then(|node| then(node, variables, streams, out));
    fields.finish(out);
    Some(Action { name, input, steps: steps?, output, output_schema, then, idempotency })
}

/// One `request`, or several `steps`.
fn steps(fields: &mut Fields, level: &Level, names: &mut KnownNames, out: &mut Out) -> Option<Vec<ActionStep>> {
    let one = fields.take_entry("request");
    if let Some(entry) = &one
        && fields.take("steps").is_some()
    {
        out.push(entry.spot.complain("conflict", "an action has `request` or `steps`").hint("leave one of them out"));
    }
    if let Some(entry) = one {
        fields.known(&["steps"]);
        return request_of(entry.value, level, names, out).map(|request| vec![ActionStep { name: None, request }]);
    }
    if !fields.has("steps") {
        fields.known(&["request", "steps"]);
        let complaint = fields.spot.complain("missing_key", format!("{} needs the key `request`", fields.what));
        out.push(complaint.hint("write `request: {post: /path}`, or several under `steps`"));
        return None;
    }
    let spot = fields.peek("steps").map(|node| node.spot.clone());
    let all = fields.list("steps", out)?;
    if all.is_empty() || all.len() > STEPS_MAX {
        out.extend(spot.map(|spot| spot.complain("out_of_range", format!("`steps` has 1 to {STEPS_MAX} entries"))));
    }
    let mut steps = Vec::new();
    for node in all {
        steps.extend(step(node, level, names, out));
    }
    Some(steps).filter(|steps| !steps.is_empty())
}

fn step(node: Node, level: &Level, names: &mut KnownNames, out: &mut Out) -> Option<ActionStep> {
    let mut fields = Fields::open(node, "an entry of `steps`", out)?;
    let name = fields.text("name", out).map(|(name, spot)| {
        if read::name(&name, "a step", &spot, out) && names.steps.contains(&name) {
            out.push(spot.complain("duplicate_key", format!("there are two steps `{name}`")));
        }
        name
    });
    let request = fields.require("request", out).and_then(|node| request_of(node, level, names, out));
    fields.finish(out);
    names.steps.extend(name.clone());
    Some(ActionStep { name, request: request? })
}

fn request_of(node: Node, level: &Level, names: &KnownNames, out: &mut Out) -> Option<Request> {
    let mut fields = Fields::open(node, "`request`", out)?;
    let request = request::request(&mut fields, level, names, out);
    fields.finish(out);
    request
}

fn idempotency(node: Node, names: &KnownNames, out: &mut Out) -> Option<(String, Template)> {
    let mut fields = Fields::open(node, "`idempotency`", out)?;
    let header = fields.require_text("header", out).filter(|(name, spot)| read::header_name(name, spot, out));
    let value = fields
        .require("value", out)
        .and_then(|node| read::template(&node, "`value` of `idempotency`", names, false, out));
    fields.finish(out);
    Some((header?.0, value?))
}

fn then(node: Node, variables: Variables<'_>, streams: &[Stream], out: &mut Out) -> Option<ActionRecord> {
    let mut fields = Fields::open(node, "`then`", out)?;
    let stream = fields.require_text("stream", out);
    if let Some((name, spot)) = &stream
        && !streams.iter().any(|stream| stream.name == *name)
    {
        out.push(unknown_stream(name, spot, streams.iter().map(|stream| stream.name.as_str())));
    }
    let record = read::expr_at(&mut fields, "record", variables, out);
    fields.finish(out);
    // The whole answer, as an item of a list would be.
    let record = record.or_else(|| Expr::compile(".").ok());
    Some(ActionRecord { stream: stream?.0, record: record? })
}

/// A JSON Schema as it stands.
fn schema(fields: &mut Fields, key: &'static str, out: &mut Out) -> Option<Value> {
    let node = fields.take(key)?;
    if !matches!(node.content, Content::Map(_) | Content::Bool(_)) {
        out.push(bad_type(&node, &format!("`{key}` of {}", fields.what), "a JSON Schema"));
        return None;
    }
    let json = node.to_json();
    if let Err(error) = jsonschema::draft202012::new(&json) {
        let text: String = error.to_string().chars().take(300).collect();
        out.push(
            node.spot.complain("bad_schema", text).hint("JSON Schema 2020-12; `$ref` may point inside the schema only"),
        );
        return None;
    }
    Some(json)
}

/// Names of steps that have been read.
pub(super) type StepNames = BTreeSet<String>;
