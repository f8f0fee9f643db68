//! `kafka` and `log` of the settings in a program without the feature `kafka`: whoever asks for Kafka is told.

use super::Settings;
use super::value::Wrong;
use crate::connectors::config_text::Fields;

impl Settings {
    /// Whether a cluster is named.
    pub(crate) fn has_topics(&self) -> bool {
        false
    }

    /// Whether topics are read.
    pub(crate) fn reads_topics(&self) -> bool {
        false
    }
}

/// Refuses `kafka`, and every `log` but the embedded one.
pub(super) fn read(top: &mut Fields, _settings: &mut Settings, wrong: &mut Wrong) {
    let log = top.take("log").filter(|log| log.text() != Some("embedded"));
    for (key, node) in [("kafka", top.take("kafka")), ("log", log)] {
        let Some(node) = node else { continue };
        let complaint = node.spot.complain("without_kafka", format!("`{key}`: this program is built without Kafka"));
        wrong.push(complaint.hint("build it with its default features: cargo build --bin syncline"));
    }
}
