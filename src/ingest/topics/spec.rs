//! Which topics are read, and for what.

use super::Parts;
use crate::connectors::definition::{Definition, Topic, TopicStart};
use crate::connectors::kafka::input::Start;
use crate::connectors::kafka::topics;
use crate::ingest::webhooks::OtherShards;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One topic read for one purpose.
#[derive(Clone)]
pub(super) struct Spec {
    pub topic: String,
    /// `SOURCE` or `SOURCE/STREAM`, with the environment before it where it is not `default`: first part of its marks.
    pub name: String,
    /// Environment of the dead letters.
    pub environment: String,
    pub definition: Arc<Definition>,
    pub feed: Feed,
    /// Where partitions begin the first time.
    pub start: Start,
}

/// What the messages are.
#[derive(Clone)]
pub(super) enum Feed {
    /// Ours: `{prefix}.in.{source}`.
    Messages,
    /// Records of one stream.
    Records { stream: String, topic: Topic },
}

/// All inputs of the definitions: for each source and environment with connections its input topic, for each stream with a
/// topic that. Of several parts those read a topic that have connections of its source; if there are none at all, the one
/// does that keeps what is nobody's.
pub(super) fn all(parts: &Parts) -> Vec<Spec> {
    let mut specs = Vec::new();
    for (source, definition) in &parts.definitions {
        let accounts = parts.connections.of_source(source);
        let environments: BTreeSet<&str> = accounts.iter().map(|a| a.key.environment.as_str()).collect();
        for environment in environments.iter().filter(|_| parts.input) {
            specs.push(Spec {
                topic: topics::name(&[&parts.cluster.prefix_of(environment), "in", source]),
                name: if *environment == "default" { source.clone() } else { format!("{environment}:{source}") },
                environment: (*environment).to_owned(),
                definition: definition.clone(),
                feed: Feed::Messages,
                start: Start::Earliest,
            });
        }
        let streams = definition.streams.iter().filter(|_| !accounts.is_empty() || keeps_nobodys(parts, source));
        for stream in streams {
            let Some(topic) = &stream.topic else { continue };
            specs.push(Spec {
                topic: topic.name.clone(),
                name: format!("{source}/{}", stream.name),
                environment: environments.first().map_or("default", |e| e).to_owned(),
                definition: definition.clone(),
                feed: Feed::Records { stream: stream.name.clone(), topic: topic.clone() },
                start: match topic.start {
                    TopicStart::Earliest => Start::Earliest,
                    TopicStart::Latest => Start::Latest,
                },
            });
        }
    }
    specs
}

/// Whether this part keeps the messages of a source of which nobody has connections.
fn keeps_nobodys(parts: &Parts, source: &str) -> bool {
    let mine = |n: &OtherShards| n.of_source(source).is_empty() && (n.is_default)("default", source);
    parts.other_shards.as_ref().is_none_or(mine)
}
