//! Webhooks on their way in: path → verify → log → answer, and from the log to the records.

use crate::engine::Engine;

/// Webhooks on their way in.
pub struct Hooks {
    _engine: Engine,
}

impl Hooks {
    /// Over the engine's log.
    pub fn open(engine: &Engine) -> Self {
        Hooks { _engine: engine.clone() }
    }

    /// The URLs providers post to for a source.
    pub fn urls(&self, source: &str) -> Vec<String> {
        let _ = source;
        Vec::new()
    }
}
