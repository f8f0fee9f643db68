//! All functions of a folder, compiled and described.
//!
//! Promises: what is wrong comes all at once, in the order of the files; a set that loads has one writer for each model of a
//! source. Does not read schedules: a frequency stays text.

use crate::compile::{Complaint, FunctionKind, Modules, Place, compile};
use crate::sandbox::{Definition, describe};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A function that can be run.
#[derive(Clone, Debug)]
pub struct Function {
    /// Where it stands.
    pub place: Place,
    /// What it declares.
    pub definition: Definition,
}

/// The functions of a folder.
#[derive(Clone, Debug)]
pub struct Functions {
    /// What they are made of.
    pub modules: Arc<Modules>,
    /// In the order of their places.
    pub all: Vec<Function>,
    /// What does no harm and should be mended.
    pub warnings: Vec<Complaint>,
}

impl Functions {
    /// Compiles all files of a folder and reads what each function declares.
    pub fn load(folder: &Path) -> Result<Functions, Vec<Complaint>> {
        let modules = Arc::new(compile(folder)?);
        let mut complaints = Vec::new();
        let mut warnings = Vec::new();
        let mut all = Vec::with_capacity(modules.functions.len());
        for place in &modules.functions {
            match describe(&modules, place) {
                Ok(definition) => {
                    warnings.extend(misplaced(place, &definition));
                    warnings.extend(half_a_handler(&modules, place, &definition));
                    let place = Place { kind: definition.declared.kind(), ..place.clone() };
                    complaints.extend(misnamed(&place));
                    all.push(Function { place, definition });
                }
                Err(complaint) => complaints.push(complaint),
            }
        }
        all.sort_by(|a, b| a.place.cmp(&b.place));
        complaints.extend(second_places(&all));
        complaints.extend(second_writers(&all));
        if !complaints.is_empty() {
            complaints.sort();
            complaints.dedup();
            return Err(complaints);
        }
        Ok(Functions { modules, all, warnings })
    }

    /// The sources that have functions, in order.
    pub fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = self.all.iter().map(|function| function.place.source.as_str()).collect();
        sources.dedup();
        sources
    }
}

/// A file in the folder of another kind: what its `create…` made counts, as with Nango.
fn misplaced(place: &Place, definition: &Definition) -> Option<Complaint> {
    let (kind, creator) = (definition.declared.kind(), definition.declared.creator());
    (kind != place.kind).then(|| {
        let (is_in, belongs) = (place.kind.folder(), kind.folder());
        let message = format!("it is in {is_in}/, and counts as what {creator} makes: move it to {belongs}/");
        Complaint::of_file(&place.file, "misplaced_function", message)
    })
}

/// Events come where code takes them and says which: one without the other does nothing.
fn half_a_handler(modules: &Modules, place: &Place, definition: &Definition) -> Option<Complaint> {
    let names = definition.webhook_subscriptions.as_ref().is_some_and(|types| !types.is_empty());
    let (property, message) = match (names, definition.on_webhook) {
        (true, false) => ("webhookSubscriptions", "no event is taken without `onWebhook`: add it, or leave this out"),
        (false, true) => ("onWebhook", "no event comes without `webhookSubscriptions`: add the types, or `['*']`"),
        _ => return None,
    };
    Some(modules.complain(&place.file, property, "no_effect", format!("`{property}`: {message}")))
}

/// Functions of one kind and name; in one folder there are none.
fn second_places(functions: &[Function]) -> Vec<Complaint> {
    let same = |a: &Place, b: &Place| (&a.source, a.kind, &a.name) == (&b.source, b.kind, &b.name);
    let pairs = functions.iter().zip(functions.iter().skip(1));
    let seconds = pairs.filter(|(first, second)| same(&first.place, &second.place));
    seconds
        .map(|(first, second)| {
            let message = format!("`{}` is the same function; keep one of the two", first.place.file);
            Complaint::of_file(&second.place.file, "duplicate_function", message)
        })
        .collect()
}

/// Models begin with a capital and stand where syncs stand, so the name of a sync must not.
fn misnamed(place: &Place) -> Option<Complaint> {
    let small = place.name.starts_with(|first: char| first.is_lowercase());
    (place.kind == FunctionKind::Sync && !small).then(|| {
        let message = format!("the name of a sync begins with a small letter; rename `{}`", place.name);
        Complaint::of_file(&place.file, "invalid_name", message)
    })
}

/// Functions that declare a model which another one of their source declares.
fn second_writers(functions: &[Function]) -> Vec<Complaint> {
    let mut writers: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut complaints = Vec::new();
    for Function { place, definition } in functions.iter().filter(|function| function.place.kind == FunctionKind::Sync)
    {
        for model in definition.models.keys() {
            match writers.get(&(place.source.as_str(), model.as_str())) {
                Some(first) => {
                    let message = format!(
                        "the model `{model}` is that of `{first}`; a model of a source has one sync: give this one another name"
                    );
                    complaints.push(Complaint::of_file(&place.file, "duplicate_model", message));
                }
                None => {
                    writers.insert((&place.source, model), &place.file);
                }
            }
        }
    }
    complaints
}
