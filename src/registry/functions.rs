//! The functions of the settings' folder: compiled, and laid into the definitions of their sources.
//!
//! Each model of a sync becomes a stream of its source that the function alone writes; the sync itself is one of the source's
//! function syncs. What is wrong comes with all other complaints about definitions.

use crate::config::Settings;
use crate::connectors::definition::{Definition, FunctionSync, Schedule, Stream, schedule};
use crate::connectors::functions::runtime::compile::FunctionKind;
use crate::connectors::functions::runtime::{Function, Functions};
use crate::connectors::functions::{Accounts, Executor, FunctionAction, FunctionProgram, Locks, Runner};
use crate::engine::source::program::Program;
use crate::engine::time::Clock;
use crate::registry::definitions::{Definitions, Sources};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Programs by source and name of the sync.
pub type Programs = BTreeMap<(String, String), Arc<dyn Program>>;

/// Actions by source and name.
pub type Actions = BTreeMap<(String, String), Arc<FunctionAction>>;

/// The functions of a folder; none if there is no folder.
#[derive(Clone, Debug, Default)]
pub struct LoadedFunctions {
    folder: String,
    /// The settings name the folder.
    named: bool,
    functions: Option<Arc<Functions>>,
}

impl LoadedFunctions {
    /// Compiles the folder that the settings name. What is wrong is the second part.
    pub(super) fn load(settings: &Settings) -> (LoadedFunctions, Vec<String>) {
        let Some(set) = settings.functions.as_ref().filter(|set| set.path.is_dir()) else { return Default::default() };
        let (folder, named) = (set.path.as_path(), set.named);
        let folder_name = folder.display().to_string();
        match Functions::load(folder) {
            Ok(functions) => {
                functions.warnings.iter().for_each(|warning| tracing::warn!("{folder_name}/{warning}"));
                let complaints = functions.all.iter().filter_map(|function| bad_frequency(folder, function)).collect();
                (LoadedFunctions { folder: folder_name, named, functions: Some(Arc::new(functions)) }, complaints)
            }
            Err(complaints) => {
                let said = complaints.iter().map(|complaint| format!("{folder_name}/{complaint}")).collect();
                (LoadedFunctions::default(), said)
            }
        }
    }

    /// Whether there are functions at all.
    pub(super) fn any(&self) -> bool {
        self.functions.is_some()
    }

    /// Whether there are actions of a source.
    pub(super) fn act(&self, source: &str) -> bool {
        let is_its =
            |function: &Function| function.place.kind == FunctionKind::Action && function.place.source == source;
        self.functions.as_ref().is_some_and(|functions| functions.all.iter().any(is_its))
    }

    /// Adds to a definition what the functions of its source bring.
    pub(super) fn attach(&self, definition: &mut Definition) -> Result<(), Vec<String>> {
        let Some(functions) = &self.functions else { return Ok(()) };
        let mut complaints = Vec::new();
        for function in syncs(functions).filter(|function| function.place.source == definition.source) {
            for (model, schema) in &function.definition.models {
                if definition.stream(model).is_some() {
                    let place = format!("{}/{}", self.folder, function.place.file);
                    complaints.push(format!(
                        "{place} duplicate_model the definition of `{}` has a stream `{model}` already; name one of the two otherwise",
                        definition.source
                    ));
                    continue;
                }
                definition.streams.push(Stream::of_function(model, schema.clone()));
            }
            if let Some(stream) = definition.streams.iter().find(|stream| stream.sync == function.place.name) {
                let place = format!("{}/{}", self.folder, function.place.file);
                complaints.push(format!(
                    "{place} duplicate_sync the stream `{}` of the definition of `{}` has a sync of this name already; rename one of the two",
                    stream.name, definition.source
                ));
            }
            definition.function_syncs.push(sync(function, &functions.modules.hash));
        }
        if complaints.is_empty() { Ok(()) } else { Err(complaints) }
    }

    /// Complaints about functions of sources that have no definition. A folder that the settings do not name may be there for
    /// another purpose: then they are warnings.
    pub(super) fn undescribed(&self, is_defined: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(functions) = &self.functions else { return Vec::new() };
        let missing = functions.sources().into_iter().filter(|source| !is_defined(source));
        let said = |source: &str| {
            format!(
                "{folder}/{source}:1:1 undescribed_source there are functions of `{source}`, but no definition has this name\n  \
                 hint: add sources/{source}.yaml: {{source: {source}, base_url: https://…, auth: {{type: bearer}}}}",
                folder = self.folder
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

/// What runs the functions of the definitions: those that are syncs, and those that are actions.
pub fn programs(
    definitions: &Definitions,
    sources: &Sources,
    accounts: &Arc<dyn Accounts>,
    executor: &Executor,
    clock: &Arc<dyn Clock>,
) -> (Programs, Actions) {
    let (mut programs, mut actions) = (Programs::new(), Actions::new());
    let Some(functions) = &definitions.functions.functions else { return (programs, actions) };
    let locks = Arc::<Locks>::default();
    for (name, definition) in definitions.iter() {
        let Some(source) = sources.rest.get(name) else { continue };
        let runner = Runner {
            modules: functions.modules.clone(),
            source: source.clone(),
            accounts: accounts.clone(),
            executor: executor.clone(),
            locks: locks.clone(),
            clock: clock.clone(),
        };
        for sync in &definition.function_syncs {
            let program = FunctionProgram { sync: sync.clone(), runner: runner.clone() };
            programs.insert((name.clone(), sync.name.clone()), Arc::new(program));
        }
        let own = functions.all.iter().map(|function| &function.place).filter(|place| place.source == *name);
        for place in own.filter(|place| place.kind == FunctionKind::Action) {
            let (action, file) = (place.name.clone(), place.file.clone());
            let action = FunctionAction { name: action, file, runner: runner.clone() };
            actions.insert((name.clone(), place.name.clone()), Arc::new(action));
        }
    }
    (programs, actions)
}

fn syncs(functions: &Functions) -> impl Iterator<Item = &Function> {
    functions.all.iter().filter(|function| function.place.kind == FunctionKind::Sync)
}

fn sync(function: &Function, hash: &str) -> FunctionSync {
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
        webhooks: definition.webhook_subscriptions.clone().unwrap_or_default(),
        polled: definition.exec,
        hash: hash.to_owned(),
    }
}

/// A sync says how often it runs, in the words of a schedule.
fn bad_frequency(folder: &Path, function: &Function) -> Option<String> {
    if function.place.kind != FunctionKind::Sync || !function.definition.exec {
        return None;
    }
    let place = folder.join(&function.place.file).display().to_string();
    match function.definition.frequency.as_deref() {
        None => Some(format!(
            "{place} no_frequency the sync does not say how often it runs\n  hint: add `frequency: 'every hour'`"
        )),
        Some(text) => schedule(text).err().map(|why| format!("{place} bad_frequency {why}")),
    }
}
