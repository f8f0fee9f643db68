//! What the file of a function declares: its schedule, its models as JSON Schema, what it subscribes to.

use super::{Said, Warm, modules};
use crate::compile::{Complaint, FunctionKind, Modules, Place};
use crate::wire::{Fault, Invocation, Limits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// What may be used to find out what a file declares.
pub(crate) const DESCRIBE: Limits =
    Limits { cpu_step: Duration::from_secs(5), cpu: Duration::from_secs(5), output: 4 << 20, ..Limits::ACTION };

/// What a function declares of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// What its `create…` made it.
    #[serde(rename = "type")]
    pub declared: Declared,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub version: Option<String>,
    /// How often `exec` runs: `every 30 minutes`.
    pub frequency: Option<String>,
    /// `false`: it is made paused.
    pub auto_start: Option<bool>,
    /// `full` or `incremental`, where it is said.
    pub sync_type: Option<String>,
    /// What a complete run did not name is gone.
    pub track_deletes: Option<bool>,
    /// Types of webhook events, or `*`.
    pub webhook_subscriptions: Option<Vec<String>>,
    /// Of an event: which one.
    pub event: Option<String>,
    /// Scopes it needs.
    pub scopes: Option<Vec<String>>,
    /// JSON Schema by the name of the model.
    pub models: Map<String, Value>,
    /// JSON Schema of the checkpoint.
    pub checkpoint: Option<Value>,
    /// JSON Schema of the connection's metadata.
    pub metadata: Option<Value>,
    /// JSON Schema of an action's input.
    pub input: Option<Value>,
    /// JSON Schema of an action's output.
    pub output: Option<Value>,
    /// Whether it has `exec`.
    pub exec: bool,
    /// Whether it has `onWebhook`.
    pub on_webhook: bool,
}

/// Which `create…` declared a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Declared {
    /// `createSync`.
    Sync,
    /// `createAction`.
    Action,
    /// `createOnEvent`.
    OnEvent,
}

impl Declared {
    fn of(kind: FunctionKind) -> Declared {
        match kind {
            FunctionKind::Sync => Declared::Sync,
            FunctionKind::Action => Declared::Action,
            FunctionKind::OnEvent => Declared::OnEvent,
        }
    }

    /// What kind of function that is.
    pub fn kind(self) -> FunctionKind {
        match self {
            Declared::Sync => FunctionKind::Sync,
            Declared::Action => FunctionKind::Action,
            Declared::OnEvent => FunctionKind::OnEvent,
        }
    }

    pub(crate) fn creator(self) -> &'static str {
        match self {
            Declared::Sync => "createSync",
            Declared::Action => "createAction",
            Declared::OnEvent => "createOnEvent",
        }
    }
}

/// Reads what a function declares, by running its file (and nothing that is in its functions).
pub fn describe(modules: &Arc<Modules>, place: &Place) -> Result<Definition, Complaint> {
    read(place, Warm::new().and_then(|warm| declared(warm, modules, &place.file)))
}

/// What a file declared, checked.
pub(crate) fn read(place: &Place, declared: Result<String, Fault>) -> Result<Definition, Complaint> {
    let json = declared.map_err(|fault| complaint(place, &fault))?;
    if let Ok(problem) = serde_json::from_str::<Problem>(&json) {
        return Err(problem.complaint(place));
    }
    let definition: Definition = serde_json::from_str(&json).map_err(|error| {
        Complaint::of_file(&place.file, "invalid_definition", format!("the definition is not as expected: {error}"))
    })?;
    check(place, definition)
}

fn check(place: &Place, definition: Definition) -> Result<Definition, Complaint> {
    let complain = |code, message: String| Err(Complaint::of_file(&place.file, code, message));
    if !definition.exec && !definition.on_webhook {
        return complain("no_exec", "the function has no `exec`".to_owned());
    }
    if let Some(name) = definition.models.keys().find(|name| !name.starts_with(|first: char| first.is_uppercase())) {
        return complain("invalid_model", format!("the model `{name}` must begin with a capital letter"));
    }
    if definition.declared == Declared::Sync && definition.models.is_empty() {
        return complain("no_models", "a sync declares its `models`: {Name: z.object({id: z.string(), …})}".to_owned());
    }
    Ok(definition)
}

/// Why there is no definition.
#[derive(Deserialize)]
struct Problem {
    problem: String,
}

impl Problem {
    fn complaint(&self, place: &Place) -> Complaint {
        match self.problem.as_str() {
            "old_format" => {
                let message = "the default export is a plain function, as files beside a `nango.yaml` have it: convert them with Nango's own command first";
                Complaint::of_file(&place.file, "old_format", message)
            }
            _ => {
                let creator = Declared::of(place.kind).creator();
                Complaint::of_file(&place.file, "no_definition", format!("expected `export default {creator}({{…}})`"))
            }
        }
    }
}

fn complaint(place: &Place, fault: &Fault) -> Complaint {
    let (file, line, column) =
        fault.frames.first().map_or((place.file.clone(), 0, 0), |frame| (frame.file.clone(), frame.line, frame.column));
    Complaint { file, line, column, code: "load_failed", message: fault.message.clone() }
}

/// Loads a file and gives what it declares as JSON.
pub(crate) fn declared(warm: Warm, code: &Arc<Modules>, file: &str) -> Result<String, Fault> {
    let invocation = Invocation {
        file: file.to_owned(),
        about: String::new(),
        models: Vec::new(),
        limits: DESCRIBE,
        now: Some(0),
        seed: 0,
    };
    let mut sandbox = warm.sandbox(code.clone(), &invocation);
    sandbox.call(|ctx| modules::evaluate(ctx, "syncline:describe")?.get("describe"), &[file]);
    for said in sandbox.go_on() {
        if let Said::Ended(ended) = said {
            return ended.result.map(Option::unwrap_or_default);
        }
    }
    let message = "the file waits for something while it is loaded; only its functions may";
    Err(Fault { code: "load_failed".into(), message: message.into(), ..Fault::default() })
}
