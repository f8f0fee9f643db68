//! Functions in a program without the feature `functions`: whoever has some is told.

use crate::config::{FunctionSettings, Settings};
use crate::connectors::definition::{Definition, SourceFunctions};
use crate::engine::source::program::Program;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Programs by source and name of the sync: none.
pub type Programs = BTreeMap<(String, String), Arc<dyn Program>>;

/// No functions.
#[derive(Clone, Debug, Default)]
pub struct LoadedFunctions {}

impl LoadedFunctions {
    /// Refuses a folder of functions.
    pub(super) fn load(settings: &Settings) -> (LoadedFunctions, Vec<String>) {
        // One that the settings do not name may be there for another purpose.
        let named = settings.functions.as_ref().filter(|functions| functions.named && functions.path.is_dir());
        let said = |functions: &FunctionSettings| {
            format!(
                "{}:1:1 without_functions this program is built without functions in TypeScript\n  \
                 hint: build it with its default features: cargo build --bin syncline",
                functions.path.display()
            )
        };
        (LoadedFunctions {}, named.map(said).into_iter().collect::<Vec<_>>())
    }

    /// There are none.
    pub fn text(&self, _: &str) -> Option<String> {
        None
    }

    /// There are none.
    pub(super) fn any(&self) -> bool {
        false
    }

    /// There are none.
    pub(super) fn act(&self, _: &str) -> bool {
        false
    }

    /// They bring nothing.
    pub(super) fn of_source(&self, _: &str) -> SourceFunctions {
        SourceFunctions::default()
    }

    /// Adds nothing.
    pub(super) fn attach(&self, _: &mut Definition) -> Result<(), Vec<String>> {
        Ok(())
    }

    /// Misses nothing.
    pub(super) fn undescribed(&self, _: impl Fn(&str) -> bool) -> Vec<String> {
        Vec::new()
    }
}
