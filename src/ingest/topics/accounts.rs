//! Whose connections an input is about: this shard's, and those of the others.

use super::InputsInner;
use super::spec::{InputSpec, MessageKind};
use std::collections::{BTreeSet, HashSet};

/// Who has connections of the source, as far as an input is about them.
pub(super) struct InputConnections {
    /// (environment, id) of all of them.
    pub all: Vec<(String, String)>,
    /// Whether messages of nobody are this shard's to keep.
    pub keeps_strays: bool,
    /// Ids of which a message in our own form is another part's whatever else it says.
    pub elsewhere: HashSet<String>,
}

impl InputConnections {
    pub fn of(inner: &InputsInner, spec: &InputSpec) -> InputConnections {
        let source = &spec.definition.source;
        let ours = matches!(spec.feed, MessageKind::Messages);
        // An input topic is one environment's; a topic of somebody else's may be about all.
        let concerned = |(environment, _): &(String, String)| !ours || *environment == spec.environment;
        let own = inner.parts.connections.of_source(source);
        let own: BTreeSet<_> = own.iter().map(|a| (a.key.environment.clone(), a.key.id.clone())).collect();
        let own: BTreeSet<_> = own.into_iter().filter(concerned).collect();
        let others = inner.parts.other_shards.as_ref().map(|n| n.of_source(source)).unwrap_or_default();
        let others: Vec<_> = others.into_iter().filter(concerned).collect();
        let elsewhere = others.iter().filter(|_| ours).map(|(_, id)| id.clone()).collect();
        let all: Vec<_> = own.iter().cloned().chain(others).collect();
        // The part with the first of the connections keeps what is nobody's.
        let keeps_strays = all.iter().min().is_none_or(|first| own.contains(first));
        InputConnections { all, keeps_strays, elsewhere }
    }
}
