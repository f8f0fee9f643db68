//! The functions of the settings' folder: compiled, and laid into the definitions of their sources.
//!
//! Each model of a sync becomes a stream of its source that the function alone writes; the sync itself is one of the source's
//! function syncs. What is wrong comes with all other complaints about definitions.

use crate::config::Settings;
use crate::connectors::actions::DescribedAction;
use crate::connectors::definition::{
    Definition, FunctionSync, OnInvalid, Schedule, SourceFunctions, Stream, Validation, schedule,
};
use crate::connectors::functions::runtime::compile::FunctionKind;
use crate::connectors::functions::runtime::{Complaint, Function, Functions};
use crate::connectors::functions::{
    Accounts, ByHand, Executor, FunctionAction, FunctionProgram, Locks, ModelSchemas, Runner,
};
use crate::engine::source::Failure;
use crate::engine::source::program::Program;
use crate::engine::time::Clock;
use crate::registry::definitions::Definitions;
use crate::registry::reload::{FolderFiles, Reload};
use crate::registry::sources::Sources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Programs by source and name of the sync.
pub type Programs = BTreeMap<(String, String), Arc<dyn Program>>;

/// Actions by source and name.
pub type Actions = BTreeMap<(String, String), KnownAction>;

/// What runs when an action is called.
#[derive(Clone)]
pub enum KnownAction {
    /// A function.
    Function(Arc<FunctionAction>),
    /// Requests of the source's definition.
    Described(DescribedAction),
}

/// Functions on events of connections, by source and event; those of an event in order of their names.
pub type OnEvents = BTreeMap<(String, ConnectionEvent), Vec<Arc<FunctionAction>>>;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionEvent {
    /// It was created.
    Creation,
    /// It is to be deleted.
    Deletion,
    /// It is to be created, or to have other credentials.
    Validation,
}

impl ConnectionEvent {
    const ALL: [ConnectionEvent; 3] =
        [ConnectionEvent::Creation, ConnectionEvent::Deletion, ConnectionEvent::Validation];

    /// As `event` of a function says it.
    pub fn name(self) -> &'static str {
        match self {
            ConnectionEvent::Creation => "post-connection-creation",
            ConnectionEvent::Deletion => "pre-connection-deletion",
            ConnectionEvent::Validation => "validate-connection",
        }
    }

    /// The event of a function that is one on events, and names one.
    fn of(function: &Function) -> Option<ConnectionEvent> {
        let event = function.definition.event.as_deref().filter(|_| function.place.kind == FunctionKind::OnEvent)?;
        Self::ALL.into_iter().find(|one| one.name() == event)
    }
}

/// What runs the functions of an app.
#[derive(Default)]
pub struct Runnable {
    /// Those that are syncs.
    pub programs: Programs,
    /// Those that are actions.
    pub actions: Actions,
    /// Those on events of connections.
    pub on_events: OnEvents,
}

/// The functions of a folder; none if there is no folder.
#[derive(Clone, Debug, Default)]
pub struct LoadedFunctions {
    folder: PathBuf,
    /// The settings name the folder.
    named: bool,
    functions: Option<Arc<Functions>>,
    /// Their code, as it is in force; `None` if there is no folder.
    pub reload: Option<Arc<Reload>>,
    /// What a person sets who runs one of them by hand.
    pub by_hand: ByHand,
}

impl LoadedFunctions {
    /// Compiles the folder that the settings name. What is wrong is the second part.
    pub(super) fn load(settings: &Settings) -> (LoadedFunctions, Vec<String>) {
        let Some(set) = settings.functions.as_ref().filter(|set| set.path.is_dir()) else { return Default::default() };
        // Before they are read: what changes meanwhile is read again.
        let files = FolderFiles::new(&set.path);
        match load(&set.path) {
            Ok(functions) => {
                functions.warnings.iter().for_each(|warning| tracing::warn!("{}", line(&set.path, warning)));
                let functions = Arc::new(functions);
                let reload = Arc::new(Reload::new(&set.path, functions.clone(), files));
                let loaded = LoadedFunctions {
                    folder: set.path.clone(),
                    named: set.named,
                    functions: Some(functions),
                    reload: Some(reload),
                    by_hand: ByHand::default(),
                };
                (loaded, Vec::new())
            }
            Err(complaints) => {
                let said = complaints.iter().map(|complaint| line(&set.path, complaint)).collect();
                (LoadedFunctions::default(), said)
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Function] {
        self.functions.as_ref().map_or(&[], |functions| &functions.all)
    }

    /// The text of one of their files, as it is now.
    pub fn text(&self, file: &str) -> Option<String> {
        let known = self.all().iter().any(|function| function.place.file == file);
        known.then(|| std::fs::read_to_string(self.folder.join(file)).ok()).flatten()
    }

    /// Whether there are functions at all.
    pub(super) fn any(&self) -> bool {
        self.functions.is_some()
    }

    /// Whether there are functions of a source that are no syncs.
    pub(super) fn act(&self, source: &str) -> bool {
        let is_its = |function: &Function| function.place.kind != FunctionKind::Sync && function.place.source == source;
        self.functions.as_ref().is_some_and(|functions| functions.all.iter().any(is_its))
    }

    /// What the functions of a source bring to it.
    pub(super) fn of_source(&self, source: &str) -> SourceFunctions {
        let Some(functions) = &self.functions else { return SourceFunctions::default() };
        let own = || syncs(functions).filter(|function| function.place.source == source);
        let models = own().flat_map(|function| &function.definition.models);
        SourceFunctions {
            models: models.map(|(model, schema)| Stream::of_function(model, schema.clone())).collect(),
            syncs: own().map(|function| function.place.name.clone()).collect(),
            any: functions.all.iter().any(|function| function.place.source == source),
            subscribe: own().any(|function| !subscriptions(function).is_empty()),
        }
    }

    /// Adds to a definition what the functions of its source bring.
    pub(super) fn attach(&self, definition: &mut Definition) -> Result<(), Vec<String>> {
        let Some(functions) = &self.functions else { return Ok(()) };
        let mut complaints = Vec::new();
        for function in syncs(functions).filter(|function| function.place.source == definition.source) {
            for (model, schema) in &function.definition.models {
                if definition.stream(model).is_some() {
                    let message = format!(
                        "the definition of `{}` has a stream `{model}` already; name one of the two otherwise",
                        definition.source
                    );
                    let file = &function.place.file;
                    let complaint = functions.modules.complain(file, "models", "duplicate_model", message);
                    complaints.push(line(&self.folder, &complaint));
                    continue;
                }
                let on_invalid = match definition.functions.validate {
                    Validation::Off => OnInvalid::Off,
                    Validation::Warn => OnInvalid::Warn,
                    Validation::Reject => OnInvalid::Quarantine,
                };
                definition.streams.push(Stream { on_invalid, ..Stream::of_function(model, schema.clone()) });
            }
            if let Some(stream) = definition.streams.iter().find(|stream| stream.sync == function.place.name) {
                let message = format!(
                    "the stream `{}` of the definition of `{}` has a sync of this name already; rename one of the two",
                    stream.name, definition.source
                );
                let complaint = Complaint::of_file(&function.place.file, "duplicate_sync", message);
                complaints.push(line(&self.folder, &complaint));
            }
            if let Some(why) = unreached(definition, function) {
                let (file, code) = (&function.place.file, "no_effect");
                let complaint = functions.modules.complain(file, "webhookSubscriptions", code, why);
                tracing::warn!("{}", line(&self.folder, &complaint));
            }
            definition.function_syncs.push(sync(function));
        }
        let created = |one: &&Function| {
            one.place.source == definition.source && ConnectionEvent::of(one) == Some(ConnectionEvent::Creation)
        };
        definition.on_creation = functions.all.iter().filter(created).map(|one| one.place.name.clone()).collect();
        if complaints.is_empty() { Ok(()) } else { Err(complaints) }
    }

    /// Complaints about functions of sources that have no definition. A folder that the settings do not name may be there for
    /// another purpose: then they are warnings.
    pub(super) fn undescribed(&self, is_defined: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(functions) = &self.functions else { return Vec::new() };
        let missing = functions.sources().into_iter().filter(|source| !is_defined(source));
        let said = |source: &str| {
            format!(
                "{folder}:1:1 undescribed_source there are functions of `{source}`, but no definition has this name\n  \
                 hint: add sources/{source}.yaml: {{source: {source}, base_url: https://…, auth: {{type: bearer}}}}",
                folder = shown(&self.folder, source)
            )
        };
        let complaints = missing.map(said);
        if self.named {
            return complaints.collect();
        }
        complaints.for_each(|complaint| tracing::warn!("{complaint}"));
        Vec::new()
    }
}

/// All functions of a folder, with schedules that can be kept and events that there are; else every complaint.
pub fn load(folder: &Path) -> Result<Functions, Vec<Complaint>> {
    let functions = Functions::load(folder)?;
    let complaints: Vec<_> = functions.all.iter().filter_map(|one| unusable(&functions, one)).collect();
    if complaints.is_empty() { Ok(functions) } else { Err(complaints) }
}

/// `file:line:col code message`, with the file as seen from here. What is wrong with a whole file is at its beginning, so that
/// editors can jump to it.
pub fn line(folder: &Path, complaint: &Complaint) -> String {
    let (line, column) = (complaint.line.max(1), complaint.column.max(1));
    format!("{}:{line}:{column} {} {}", shown(folder, &complaint.file), complaint.code, complaint.message)
}

/// A file of the folder as seen from here.
pub fn shown(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    path.strip_prefix(".").unwrap_or(&path).components().collect::<PathBuf>().display().to_string()
}

/// The actions that definitions describe.
fn described(definitions: &Definitions, sources: &Sources, clock: &Arc<dyn Clock>) -> Result<Actions, Failure> {
    let mut all = Actions::new();
    for (name, definition) in definitions.all().iter() {
        let Some(source) = sources.rest(name) else { continue };
        for action in &definition.actions {
            let described = DescribedAction::new(action, source.clone(), clock.clone())?;
            all.insert((name.clone(), action.name.clone()), KnownAction::Described(described));
        }
    }
    Ok(all)
}

/// What runs the functions of the definitions, and the actions they describe.
pub fn programs(
    definitions: &Definitions,
    sources: &Sources,
    accounts: &Arc<dyn Accounts>,
    executor: &Executor,
    clock: &Arc<dyn Clock>,
) -> Result<Runnable, Failure> {
    let mut all = Runnable { actions: described(definitions, sources, clock)?, ..Runnable::default() };
    let loaded = &definitions.functions;
    let Some((functions, reload)) = loaded.functions.as_ref().zip(loaded.reload.as_ref()) else {
        return Ok(all);
    };
    let locks = Arc::<Locks>::default();
    for (name, definition) in definitions.all().iter() {
        let Some(source) = sources.rest(name) else { continue };
        let runner = Runner {
            code: reload.code().clone(),
            source,
            accounts: accounts.clone(),
            executor: executor.clone(),
            locks: locks.clone(),
            clock: clock.clone(),
            by_hand: definitions.functions.by_hand.clone(),
        };
        for sync in &definition.function_syncs {
            let schemas = ModelSchemas::of(definition, sync);
            let program = FunctionProgram { sync: sync.clone(), runner: runner.clone(), schemas };
            all.programs.insert((name.clone(), sync.name.clone()), Arc::new(program));
        }
        for function in functions.all.iter().filter(|function| function.place.source == *name) {
            all.called(function, &runner);
        }
    }
    Ok(all)
}

impl Runnable {
    /// Adds a function if it is one that is called.
    fn called(&mut self, function: &Function, runner: &Runner) {
        let place = &function.place;
        let (name, file) = (place.name.clone(), place.file.clone());
        let called = Arc::new(FunctionAction { name, kind: place.kind, file, runner: runner.clone() });
        match (place.kind, ConnectionEvent::of(function)) {
            (FunctionKind::Action, _) => {
                let known =
                    self.actions.insert((place.source.clone(), place.name.clone()), KnownAction::Function(called));
                if known.is_some() {
                    let (source, action) = (&place.source, &place.name);
                    tracing::warn!(source, action, "a function takes the place of the action in the definition");
                }
            }
            (FunctionKind::OnEvent, Some(event)) => {
                self.on_events.entry((place.source.clone(), event)).or_default().push(called);
            }
            _ => {}
        }
    }
}

fn syncs(functions: &Functions) -> impl Iterator<Item = &Function> {
    functions.all.iter().filter(|function| function.place.kind == FunctionKind::Sync)
}

/// Why no event comes to a function that takes some, if that is so.
fn unreached(definition: &Definition, function: &Function) -> Option<String> {
    let types = subscriptions(function);
    let source = &definition.source;
    match &definition.webhooks {
        _ if types.is_empty() => None,
        None => Some(format!("`webhookSubscriptions`: the definition of `{source}` has no `webhooks`: add them there")),
        Some(webhooks) if webhooks.kind.is_none() && !types.iter().any(|name| name == "*") => Some(format!(
            "`webhookSubscriptions`: `webhooks` of the definition of `{source}` says no `type`: add it, or take all events with `*`"
        )),
        Some(_) => None,
    }
}

/// The types of events it takes.
fn subscriptions(function: &Function) -> &[String] {
    let types = function.definition.webhook_subscriptions.as_deref().filter(|_| function.definition.on_webhook);
    types.unwrap_or_default()
}

fn sync(function: &Function) -> FunctionSync {
    let definition = &function.definition;
    let tick = definition.frequency.as_deref().and_then(|text| schedule(text).ok());
    let usual = tick.map_or_else(Schedule::default, Schedule::of);
    FunctionSync {
        name: function.place.name.clone(),
        file: function.place.file.clone(),
        description: definition.description.clone(),
        models: definition.models.keys().cloned().collect(),
        schedule: Schedule { paused: definition.auto_start == Some(false), ..usual },
        track_deletes: definition.track_deletes == Some(true),
        webhooks: subscriptions(function).to_vec(),
        polled: definition.exec,
    }
}

/// What a function declares that nothing can be arranged for.
fn unusable(functions: &Functions, function: &Function) -> Option<Complaint> {
    match function.place.kind {
        FunctionKind::Sync => bad_frequency(functions, function),
        FunctionKind::Action => None,
        FunctionKind::OnEvent => unknown_event(functions, function),
    }
}

/// A function on an event says which one.
fn unknown_event(functions: &Functions, function: &Function) -> Option<Complaint> {
    if ConnectionEvent::of(function).is_some() {
        return None;
    }
    let known = ConnectionEvent::ALL.map(ConnectionEvent::name).join("`, `");
    let message = format!("`event` is one of `{known}`");
    Some(functions.modules.complain(&function.place.file, "event", "unknown_event", message))
}

/// A sync says how often it runs, in the words of a schedule.
fn bad_frequency(functions: &Functions, function: &Function) -> Option<Complaint> {
    let complain = |code, message: String| functions.modules.complain(&function.place.file, "frequency", code, message);
    match function.definition.frequency.as_deref() {
        Some(text) => schedule(text).err().map(|why| complain("bad_frequency", format!("`frequency`: {why}"))),
        // Without `exec` there is nothing to run.
        None if !function.definition.exec => None,
        None => {
            let message = "the sync does not say how often it runs: add `frequency: 'every hour'`";
            Some(complain("no_frequency", message.to_owned()))
        }
    }
}
