//! Syncs: one stream of one connection on a schedule; their state, and what can be asked of them.

/// Which sync.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncKey {
    /// Isolation scope.
    pub environment: String,
    /// Source.
    pub source: String,
    /// Connection.
    pub connection: String,
    /// Stream (model) name.
    pub stream: String,
    /// Variant, `base` as a rule.
    pub variant: String,
}

/// All syncs.
pub struct Syncs {
    _todo: (),
}
