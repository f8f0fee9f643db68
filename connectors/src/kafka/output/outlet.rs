//! A dataset as its topics see it: the topics' names and the parts of its messages that never change. Pure.
//!
//! Promises: two datasets share a topic only if they differ in the connection alone; variants other than `base` have topics
//! of their own, because their keys are the same.

use super::{By, Shape, TopicKeyForm, json};
use crate::kafka::{Cluster, topics};
use crate::murmur2;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
use syncline_engine::model::DatasetName;

/// What stays as it is in a part of a CloudEvents source.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How long a compacted topic shows deletes, for readers that were away: 7 days.
const DELETES_SHOWN_MS: &str = "604800000";

/// The kinds of topics of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKind {
    /// One message per change.
    Changes,
    /// The latest content per record.
    State,
}

impl TopicKind {
    /// Last part of the topic's name.
    pub fn as_str(self) -> &'static str {
        match self {
            TopicKind::Changes => "changes",
            TopicKind::State => "state",
        }
    }
}

/// The topic of a kind for a dataset.
pub fn topic_of(cluster: &Cluster, shape: &Shape, name: &DatasetName, kind: TopicKind) -> String {
    let prefix = cluster.prefix_of(&name.environment);
    let mut parts = vec![prefix.as_str(), &*name.source];
    if shape.per_connection {
        parts.push(&name.connection);
    }
    let stream = stream_of(name);
    parts.extend([stream.as_str(), kind.as_str()]);
    topics::name(&parts)
}

/// The topic as it should be made: changes for the broker's time, state compacted.
pub fn wanted(topic: &str, kind: TopicKind) -> topics::TopicSpec {
    let wanted = topics::TopicSpec::new(topic);
    match kind {
        TopicKind::Changes => wanted.with("cleanup.policy", "delete"),
        TopicKind::State => wanted.with("cleanup.policy", "compact").with("delete.retention.ms", DELETES_SHOWN_MS),
    }
}

/// The dead letters of an environment.
pub fn dead_letters(cluster: &Cluster, environment: &str) -> String {
    topics::name(&[&cluster.prefix_of(environment), "dlq"])
}

/// The stream's name, with the variant where it is not `base`.
pub(super) fn stream_of(name: &DatasetName) -> String {
    match &*name.variant {
        "base" => name.model.to_string(),
        variant => format!("{}::{variant}", name.model),
    }
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions.
    pub partitions: i32,
    /// Largest message it takes, in bytes.
    pub largest: usize,
    /// Whether it is compacted, so that a delete is followed by a null.
    pub compacted: bool,
}

/// A dataset and its topics.
#[derive(Clone, Debug)]
pub struct TopicBinding {
    /// The dataset.
    pub name: Arc<DatasetName>,
    /// Where changes go.
    pub changes: Option<OutputTopic>,
    /// Where the latest content goes.
    pub state: Option<OutputTopic>,
    /// Where goes what does not fit.
    pub dead: OutputTopic,
    /// Content hash of the stream's JSON Schema, if it has one.
    pub schema: Option<Arc<str>>,
    /// Name of this log in the ids of its changes.
    pub(super) log: String,
    pub(super) stream: String,
    /// Source of its CloudEvents.
    pub(super) source: String,
    /// The same as a header.
    pub(super) source_header: Bytes,
    key_head: Vec<u8>,
    key_form: TopicKeyForm,
    connection_key: Option<Vec<u8>>,
}

impl TopicBinding {
    /// Of a dataset whose topics exist. `log` names the log its changes come from.
    pub fn new(
        shape: &Shape,
        name: Arc<DatasetName>,
        log: &str,
        (changes, state, dead): (Option<OutputTopic>, Option<OutputTopic>, OutputTopic),
    ) -> Self {
        let stream = stream_of(&name);
        let part = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
        let source = format!("/syncline/{}/{}/{}", part(&name.source), part(&name.connection), part(&stream));
        let (key_head, connection_key) = keys(shape.key, &name.connection);
        let connection_key = (shape.by == By::Connection).then_some(connection_key);
        let (log, key_form, source_header) = (log.to_owned(), shape.key, Bytes::from(source.clone()));
        TopicBinding {
            name,
            changes,
            state,
            dead,
            schema: None,
            log,
            stream,
            source,
            source_header,
            key_head,
            key_form,
            connection_key,
        }
    }

    /// The key of a record: `["conn_1","123"]` or `conn_1/123`.
    pub(super) fn key(&self, id: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.key_head.len() + id.len() + 4);
        key.extend_from_slice(&self.key_head);
        match self.key_form {
            TopicKeyForm::Json => {
                json::quote(&mut key, id);
                key.push(b']');
            }
            TopicKeyForm::Plain => key.extend_from_slice(id.as_bytes()),
        }
        key
    }

    /// The partition in a topic where it is not the key's: that of the connection's own key, `["conn_1"]` or `conn_1`.
    pub(super) fn partition(&self, topic: &OutputTopic) -> Option<i32> {
        self.connection_key.as_deref().map(|key| murmur2::partition(key, topic.partitions))
    }
}

/// What a record's key begins with, and the key of the connection alone.
fn keys(form: TopicKeyForm, connection: &str) -> (Vec<u8>, Vec<u8>) {
    match form {
        TopicKeyForm::Json => {
            let mut alone = vec![b'['];
            json::quote(&mut alone, connection);
            let mut head = alone.clone();
            head.push(b',');
            alone.push(b']');
            (head, alone)
        }
        TopicKeyForm::Plain => (format!("{connection}/").into_bytes(), connection.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_as_agreed() {
        let (cluster, mut shape) = (Cluster::default(), Shape::default());
        let mut name = DatasetName::base("default", "crm", "conn_1", "Contact");
        assert_eq!(topic_of(&cluster, &shape, &name, TopicKind::Changes), "syncline.crm.Contact.changes");
        shape.per_connection = true;
        name.environment = "dev".into();
        assert_eq!(topic_of(&cluster, &shape, &name, TopicKind::State), "syncline-dev.crm.conn_1.Contact.state");
        name.variant = "eu".into();
        let other = topic_of(&cluster, &shape, &name, TopicKind::State);
        assert!(other.starts_with("syncline-dev.crm.conn_1.Contact__eu-") && other.ends_with(".state"), "{other}");
        assert_eq!(dead_letters(&cluster, "dev"), "syncline-dev.dlq");
    }

    #[test]
    fn keys_have_the_chosen_form_and_cannot_be_confused() {
        let name = Arc::new(DatasetName::base("default", "crm", "co\"nn", "Contact"));
        let target = OutputTopic { name: "t".into(), partitions: 7, largest: 1, compacted: false };
        let of = |key, by| {
            let shape = Shape { key, by, ..Shape::default() };
            TopicBinding::new(&shape, name.clone(), "log", (None, None, target.clone()))
        };
        let json = of(TopicKeyForm::Json, By::Record);
        assert_eq!(json.key("1\"2"), br#"["co\"nn","1\"2"]"#);
        assert_eq!(json.partition(&target), None);
        assert_eq!(of(TopicKeyForm::Plain, By::Record).key("1/2"), b"co\"nn/1/2");
        let by = of(TopicKeyForm::Json, By::Connection);
        assert_eq!(by.partition(&target), Some(murmur2::partition(br#"["co\"nn"]"#, 7)));
        assert_eq!(json.source, "/syncline/crm/co%22nn/Contact");
    }
}
