//! The journal: what happened, for people.

use super::Engine;
use crate::store::journal::Journal;

impl Engine {
    /// The journal of this engine. What is written to it costs the caller a copy, and what is read from it decides nothing.
    pub fn journal(&self) -> Journal {
        self.inner.journal.journal()
    }
}
