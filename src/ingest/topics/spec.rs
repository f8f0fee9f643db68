//! Which topics are read, and for what.

use super::InputsParts;
use crate::connectors::definition::{Definition, Topic, TopicStart};
use crate::connectors::kafka::input::StartOffset;
use crate::connectors::kafka::topics;
use crate::ingest::webhooks::OtherShards;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One topic read for one purpose.
#[derive(Clone)]
pub(super) struct InputSpec {
    pub topic: String,
    /// `SOURCE` or `SOURCE/STREAM`, with the environment before it where it is not `default`: first part of its marks.
    pub name: String,
    /// Environment of the dead letters.
    pub environment: String,
    pub definition: Arc<Definition>,
    pub feed: MessageKind,
    /// Where partitions begin the first time.
    pub start: StartOffset,
}

/// What the messages are.
#[derive(Clone)]
pub(super) enum MessageKind {
    /// Ours: `{prefix}.in.{source}`.
    Messages,
    /// Records of one stream.
    Records { stream: String, topic: Topic },
}

/// All inputs of the definitions: for each source and environment with connections its input topic, for each stream with a
/// topic that. Of several parts those read a topic that have connections of its source; if there are none at all, the one
/// does that keeps what is nobody's.
pub(super) fn all(parts: &InputsParts) -> Vec<InputSpec> {
    let mut specs = Vec::new();
    for (source, definition) in &parts.definitions {
        let accounts = parts.connections.of_source(source);
        let environments: BTreeSet<&str> = accounts.iter().map(|a| a.key.environment.as_str()).collect();
        for environment in environments.iter().filter(|_| parts.input) {
            specs.push(InputSpec {
                topic: topics::name(&[&parts.cluster.prefix_of(environment), "in", source]),
                name: if *environment == "default" { source.clone() } else { format!("{environment}:{source}") },
                environment: (*environment).to_owned(),
                definition: definition.clone(),
                feed: MessageKind::Messages,
                start: StartOffset::Earliest,
            });
        }
        let streams = definition.streams.iter().filter(|_| !accounts.is_empty() || keeps_nobodys(parts, source));
        for stream in streams {
            let Some(topic) = &stream.topic else { continue };
            specs.push(InputSpec {
                topic: topic.name.clone(),
                name: format!("{source}/{}", stream.name),
                environment: environments.first().map_or("default", |e| e).to_owned(),
                definition: definition.clone(),
                feed: MessageKind::Records { stream: stream.name.clone(), topic: topic.clone() },
                start: match topic.start {
                    TopicStart::Earliest => StartOffset::Earliest,
                    TopicStart::Latest => StartOffset::Latest,
                },
            });
        }
    }
    specs
}

/// Whether this part keeps the messages of a source of which nobody has connections.
fn keeps_nobodys(parts: &InputsParts, source: &str) -> bool {
    let mine = |n: &OtherShards| n.of_source(source).is_empty() && (n.is_default)("default", source);
    parts.other_shards.as_ref().is_none_or(mine)
}
