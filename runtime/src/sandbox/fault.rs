//! From what a function threw to what people read: lines of the TypeScript instead of lines of what it was compiled to.

use super::out_of_memory;
use crate::compile::Modules;
use crate::wire::{Fault, Frame};
use rquickjs::{Function, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Most frames that are told.
const FRAMES: usize = 20;

/// What `explain` of the module `invoke` says of an error.
#[derive(Deserialize)]
struct Told {
    name: String,
    message: String,
    stack: Option<String>,
    code: Option<String>,
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: Option<String>,
    payload: Option<Box<RawValue>>,
    answer: Option<Box<RawValue>>,
}

/// What was thrown, as a fault; `explain` is that of the module `invoke`.
pub(super) fn fault_of<'js>(modules: &Modules, explain: &Function<'js>, thrown: Value<'js>) -> Fault {
    // The engine throws `null` when not even an error fits into the heap any more.
    if thrown.is_null() {
        return out_of_memory();
    }
    let json = explain.call::<_, String>((thrown,));
    let Some(told) = json.ok().and_then(|json| serde_json::from_str::<Told>(&json).ok()) else {
        return out_of_memory();
    };
    let message = match told.message.is_empty() {
        true => told.name.clone(),
        false => format!("{}: {}", told.name, told.message),
    };
    if told.name == "InternalError" && told.message.contains("out of memory") {
        return Fault { frames: frames(modules, told.stack.as_deref()), ..out_of_memory() };
    }
    Fault {
        code: told
            .code
            .unwrap_or_else(|| if told.status.is_some() { "request_failed" } else { "script_error" }.to_owned()),
        message,
        frames: frames(modules, told.stack.as_deref()),
        payload: told.kind.map(|kind| Box::new((kind, text_of(told.payload, "{}")))),
        answer: told.status.map(|status| Box::new((status, text_of(told.answer, "null")))),
    }
}

fn text_of(json: Option<Box<RawValue>>, otherwise: &str) -> String {
    json.map_or_else(|| otherwise.to_owned(), |json| json.get().to_owned())
}

/// The frames of a stack that are in files of the folder.
pub(super) fn frames(modules: &Modules, stack: Option<&str>) -> Vec<Frame> {
    stack.unwrap_or_default().lines().filter_map(|line| frame(modules, line)).take(FRAMES).collect()
}

/// `    at name (file:line:column)` or `    at file:line:column`.
fn frame(modules: &Modules, line: &str) -> Option<Frame> {
    let line = line.trim().strip_prefix("at ")?;
    let (function, place) = match line.strip_suffix(')').and_then(|line| line.rsplit_once(" (")) {
        Some((function, place)) => (function, place),
        None => ("", line),
    };
    let (rest, column) = place.rsplit_once(':')?;
    let (file, row) = rest.rsplit_once(':')?;
    let module = modules.modules.get(file)?;
    let (line, column) = module.lines.original(row.parse().ok()?, column.parse().ok()?);
    Some(Frame { file: file.to_owned(), line, column, function: function.to_owned() })
}
