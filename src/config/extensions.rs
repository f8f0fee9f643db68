//! Code of the program beside its definition files: views, sources, sinks.
//!
//! A source of code is described by a definition file like any other: the file says streams, schedules, connections and how
//! versions compete, and leaves the requests out, which the code makes. A sink of code gets all changes it takes, at least once
//! and in order, from where it stopped.

use crate::engine::sink::Sink;
use crate::engine::source::Source;
use crate::engine::views::Definition;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What no file can say.
#[derive(Clone, Default)]
pub struct Extensions {
    /// What is derived from the records.
    pub views: Option<Definition>,
    /// Sources by name; each has a definition of this name.
    pub sources: BTreeMap<String, Arc<dyn Source>>,
    /// Sinks by name: what their places are stored under.
    pub sinks: BTreeMap<String, Arc<dyn Sink>>,
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = (self.sources.keys().collect::<Vec<_>>(), self.sinks.keys().collect::<Vec<_>>());
        f.debug_struct("Extensions")
            .field("views", &self.views)
            .field("sources", &names.0)
            .field("sinks", &names.1)
            .finish()
    }
}
