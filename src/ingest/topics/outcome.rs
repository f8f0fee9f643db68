//! What became of a message.

use super::target::ELSEWHERE;
use crate::connectors::kafka::input::Bad;

/// What became of a message.
pub(super) enum MessageOutcome {
    /// It has effects, or is about to.
    Applied,
    /// It was met before.
    Duplicate,
    /// It says nothing for us.
    Ignored,
    /// It needs a group of its own kind: what is in this one has to go first.
    Later,
    /// It cannot be taken.
    Dead(Bad),
    /// It cannot be taken, and it is nobody's: of all parts of an installation one keeps it.
    Nobodys(Bad),
}

impl MessageOutcome {
    /// Of a message for which there is no target.
    pub fn stray(bad: Bad) -> MessageOutcome {
        match bad.code {
            ELSEWHERE => MessageOutcome::Ignored,
            "unknown_connection" | "ambiguous_connection" => MessageOutcome::Nobodys(bad),
            _ => MessageOutcome::Dead(bad),
        }
    }
}

/// Whether a message has been met.
pub(super) enum Met {
    New,
    Before,
    Bad(Bad),
}
