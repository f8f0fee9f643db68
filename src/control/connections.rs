//! Accounts: from definition files and from REST, kept in the engine's marks.

/// All connections.
pub struct Connections {
    _todo: (),
}
