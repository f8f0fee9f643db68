//! What came out of a function beside what was recorded of it: the first difference of each model.

use super::{Mocks, Replay};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a value that is told.
const SHOWN: usize = 80;

impl Mocks {
    /// What is not as recorded, in sentences; nothing if all is.
    pub fn differences(&self, replay: &Replay) -> Vec<String> {
        let mut found = Vec::new();
        let output = match &replay.ended.result {
            Ok(output) => output.as_deref(),
            Err(fault) => {
                found.push(fault.to_string());
                return found;
            }
        };
        for (member, verb, came) in [
            ("batchSave", "saved", &replay.saved),
            ("batchUpdate", "patched", &replay.patched),
            ("batchDelete", "deleted", &replay.deleted),
        ] {
            found.extend(self.models(member, verb, came));
        }
        if let Some(recorded) = &self.output {
            let came = output.and_then(|output| serde_json::from_str(output).ok()).unwrap_or(Value::Null);
            found.extend(difference(recorded, &came).map(|(path, recorded, came)| {
                format!("the output{path} is {}; recorded is {}", told(came.as_ref()), told(recorded.as_ref()))
            }));
        }
        found
    }

    fn models(&self, member: &str, verb: &str, came: &BTreeMap<String, Vec<Value>>) -> Vec<String> {
        let none = Map::new();
        let recorded = self.nango.get(member).and_then(Value::as_object).unwrap_or(&none);
        let models: BTreeSet<&String> = recorded.keys().chain(came.keys()).collect();
        let of = |model: &String| -> Option<String> {
            let recorded = recorded.get(model).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let came = came.get(model).map(Vec::as_slice).unwrap_or_default();
            let first = recorded.iter().zip(came).enumerate().find_map(|(at, (recorded, came))| {
                let (path, recorded, came_value) = difference(&with_text_id(recorded), came)?;
                let id = came.get("id").and_then(Value::as_str).unwrap_or("?");
                let (now, then) = (told(came_value.as_ref()), told(recorded.as_ref()));
                Some(format!("{model}, {verb} record {} (id {id}): {path} is {now}; recorded is {then}", at + 1))
            });
            first.or_else(|| {
                let (now, then) = (came.len(), recorded.len());
                let more = came.get(then).or(recorded.get(now))?;
                let which = if now > then { "the first that was not recorded" } else { "the first that is missing" };
                Some(format!("{model}: {now} records are {verb}, {then} were recorded; {which}: {}", shown(more)))
            })
        };
        models.into_iter().filter_map(of).collect()
    }
}

/// Ids of records are text, whatever they were in the recording.
fn with_text_id(record: &Value) -> Value {
    let mut record = record.clone();
    if let Some(id) = record.get_mut("id").filter(|id| id.is_number()) {
        *id = Value::String(id.to_string());
    }
    record
}

/// The first place at which two values differ, as a path, and what stands there in each. Objects have no order, and numbers
/// are equal by value.
pub(super) fn difference(recorded: &Value, came: &Value) -> Option<(String, Option<Value>, Option<Value>)> {
    let deeper = |step: String, recorded: Option<&Value>, came: Option<&Value>| match (recorded, came) {
        (Some(recorded), Some(came)) => {
            difference(recorded, came).map(|(path, recorded, came)| (format!("{step}{path}"), recorded, came))
        }
        (None, None) => None,
        (recorded, came) => Some((step, recorded.cloned(), came.cloned())),
    };
    match (recorded, came) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|name| deeper(format!(".{name}"), a.get(name), b.get(name)))
        }
        (Value::Array(a), Value::Array(b)) => {
            (0..a.len().max(b.len())).find_map(|at| deeper(format!("[{at}]"), a.get(at), b.get(at)))
        }
        (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => None,
        (a, b) if a == b => None,
        (a, b) => Some((String::new(), Some(a.clone()), Some(b.clone()))),
    }
}

fn told(value: Option<&Value>) -> String {
    value.map_or("absent".to_owned(), shown)
}

/// A value, cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
