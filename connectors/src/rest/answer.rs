//! Answers: the definition's rules over status and body, and the items inside.

use super::request::refused;
use crate::definition::{Definition, Request, ResponseAction};
use crate::expr::Vars;
use crate::http::body::{self, Faults};
use crate::http::limits::Budget;
use crate::http::{Answer, HeaderMap};
use crate::mapping;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;
use syncline_engine::source::{Connection, Failure};

/// What an answer is good for.
#[derive(Debug)]
pub(super) enum AnswerVerdict {
    /// A page: its body.
    Page(Value),
    /// An answer whose status says that it is not a whole one; what body there is.
    Part(Option<Value>),
    /// The page seen last time.
    NotModified,
    /// Counts as an empty page.
    Ignored,
    /// Left out: the run is incomplete.
    Skipped,
}

/// Variables of every expression about `answer`: what is known without it, and its headers.
pub(super) fn vars(connection: &Connection, partition: &Value, answer: &Answer) -> Vars {
    Vars { h: headers(&answer.headers), ..mapping::vars(connection, partition) }
}

/// Headers as expressions see them: names in lower case, values of a repeated name joined as HTTP joins them.
fn headers(headers: &HeaderMap) -> Value {
    let mut seen = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        seen.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    Value::Object(seen)
}

/// Judges an answer, and says what of its body could not be read. If the request has to be made again, whatever made it so,
/// `budget` learns when.
pub(super) fn judge(
    definition: &Definition,
    request: &Request,
    answer: &Answer,
    budget: &Budget,
    vars: &Vars,
) -> Result<(AnswerVerdict, Faults), Failure> {
    let (body, faults) = match body::read(answer.header("content-type"), &answer.body) {
        Ok((body, faults)) => (Ok(body), faults),
        Err(error) => (Err(error), Faults::default()),
    };
    let readable = body.as_ref().unwrap_or(&Value::Null);
    let again = |retry: bool| retry.then(|| budget.learn(&definition.limits.headers, answer, true)).flatten();
    let action = action(request, answer, readable, vars)?;
    match action {
        Some(ResponseAction::Retry) => return Err(unwelcome(answer, true, again(true))),
        Some(ResponseAction::Fail) => return Err(unwelcome(answer, false, None)),
        Some(ResponseAction::Skip) => return Ok((AnswerVerdict::Skipped, faults)),
        Some(ResponseAction::Ignore) => return Ok((AnswerVerdict::Ignored, faults)),
        Some(ResponseAction::Take) | None => {}
    }
    let taken = action == Some(ResponseAction::Take);
    let verdict = match (answer.status, body) {
        (304, _) if !taken => AnswerVerdict::NotModified,
        // 201 answers a search that is posted; 203 came through a proxy that changed it.
        (200 | 201 | 203, Ok(body)) => AnswerVerdict::Page(body),
        (_, Ok(body)) if taken => AnswerVerdict::Page(body),
        (202 | 204..=299, _) if !taken && answer.body.trim_ascii().is_empty() => AnswerVerdict::Part(None),
        (200..=299, Ok(body)) => AnswerVerdict::Part(Some(body)),
        (status, Err(error)) if taken || (200..=299).contains(&status) => {
            let retry = definition.limits.retry_status.network;
            let failure = not_json(answer, format!("something that is no JSON ({error}){}", shown(answer)), retry);
            return Err(Failure { retry_after: again(retry), ..failure });
        }
        (status, _) => {
            let retry = definition.limits.retry_status.has(status);
            return Err(unwelcome(answer, retry, again(retry)));
        }
    };
    Ok((verdict, faults))
}

fn not_json(answer: &Answer, what: String, retry: bool) -> Failure {
    let message = format!("{} answered with {what}", place(answer));
    Failure { code: "not_json", message, status: Some(answer.status), retry, retry_after: None }
}

/// Refuses an answer of which something outside of its items could not be read: that may be anything, such as the way on.
pub(super) fn readable(
    definition: &Definition,
    answer: &Answer,
    faults: &Faults,
    items: &[Value],
) -> Result<(), Failure> {
    let Some(why) = faults.outside(items) else { return Ok(()) };
    let what = format!("JSON of which a part outside of its items cannot be read ({why})");
    Err(not_json(answer, what, definition.limits.retry_status.network))
}

/// The rules of the source are laid into the request's, after its own.
fn action(request: &Request, answer: &Answer, body: &Value, vars: &Vars) -> Result<Option<ResponseAction>, Failure> {
    for rule in &request.responses {
        if rule.status.as_ref().is_some_and(|statuses| !statuses.has(answer.status)) {
            continue;
        }
        let holds = rule.when.as_ref().map(|when| when.truthy(body, vars)).transpose();
        if holds.map_err(|e| refused("bad_expression", format!("responses[].when: {e}")))?.unwrap_or(true) {
            return Ok(Some(rule.action));
        }
    }
    Ok(None)
}

fn unwelcome(answer: &Answer, retry: bool, retry_after: Option<Duration>) -> Failure {
    let status = answer.status;
    let message = format!("{} answered {status}: «{}»", place(answer), answer.quote());
    Failure { code: "http_status", message, status: Some(status), retry, retry_after }
}

/// What an answer that is no JSON begins with. One that begins as JSON does holds records, which no message shows.
fn shown(answer: &Answer) -> String {
    let begins = answer.body.trim_ascii_start().first();
    match begins {
        Some(b'{' | b'[' | b'"' | 0xef | 0xfe | 0xff) => format!(", {} bytes", answer.body.len()),
        _ => format!(": «{}»", answer.quote()),
    }
}

fn place(answer: &Answer) -> String {
    format!("{}{}", answer.url.origin().ascii_serialization(), answer.url.path())
}

/// The items of a page.
pub(super) fn items<'a>(request: &Request, body: &'a Value, vars: &Vars) -> Result<Cow<'a, [Value]>, Failure> {
    let wrong = |what: &str, found: &Value| {
        let kind = kind(found);
        refused("items_not_array", format!("{what} gives {kind} where the items of a page are wanted; check items"))
    };
    let Some(expression) = &request.items else {
        return body.as_array().map(|items| Cow::from(items.as_slice())).ok_or_else(|| wrong("the answer", body));
    };
    if let Some(path) = expression.path() {
        let found = path.iter().try_fold(body, |value, part| value.get(part)).unwrap_or(&Value::Null);
        return found
            .as_array()
            .map(|items| Cow::from(items.as_slice()))
            .ok_or_else(|| wrong(expression.text(), found));
    }
    let outputs = expression.all(body, vars);
    let mut outputs = outputs.map_err(|e| refused("bad_expression", format!("items {}: {e}", expression.text())))?;
    match outputs.as_mut_slice() {
        [Value::Array(items)] => Ok(std::mem::take(items).into()),
        // One output of a fanning expression is one item; a null or scalar can only be a wrong path.
        [one] if !one.is_object() => Err(wrong(expression.text(), one)),
        _ => Ok(outputs.into()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
