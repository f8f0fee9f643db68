//! Topics of the output, made or refused, with what the broker says of them: how large a message may be, and whether a
//! delete is to be followed by a null.

use super::outlet::OutputTopic;
use super::writer::BATCH_BYTES;
use crate::kafka::cluster::Cluster;
use crate::kafka::topics::{self, TopicSpec};
use rdkafka::admin::{AdminOptions, ConfigResource, ResourceSpecifier};
use std::time::Duration;
use syncline_engine::model::Failure;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a client and a broker take in one message where neither says otherwise.
const LARGEST: usize = 1_000_000;

/// The topics as they are, in the order asked for; missing ones are made, or refused with the command that makes them.
pub async fn targets(cluster: &Cluster, wanted: &[TopicSpec]) -> Result<Vec<OutputTopic>, Failure> {
    let counts = topics::ensure(cluster, wanted).await?;
    let found = traits(cluster, wanted).await;
    let ours = cluster.properties.get("message.max.bytes").and_then(|n| n.parse().ok()).unwrap_or(LARGEST);
    let targets = wanted.iter().zip(counts).enumerate().map(|(at, (topic, partitions))| {
        let traits = found.get(at).and_then(Option::as_ref);
        OutputTopic {
            name: topic.name.as_str().into(),
            partitions,
            largest: traits.map_or(ours, |(largest, _)| ours.min(*largest)),
            compacted: traits.is_some_and(|(_, compacted)| *compacted),
        }
    });
    Ok(targets.collect())
}

/// The largest batches that all these topics take.
pub fn batch_for<'a>(targets: impl Iterator<Item = &'a OutputTopic>) -> usize {
    targets.map(|target| target.largest).min().unwrap_or(BATCH_BYTES).min(BATCH_BYTES)
}

/// Largest message, and whether the topic is compacted. Who may not ask goes on with what is usual.
async fn traits(cluster: &Cluster, wanted: &[TopicSpec]) -> Vec<Option<(usize, bool)>> {
    let Ok(admin) = cluster.admin() else { return Vec::new() };
    let asked: Vec<ResourceSpecifier<'_>> = wanted.iter().map(|t| ResourceSpecifier::Topic(&t.name)).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let answers = admin.describe_configs(&asked, &options).await;
    // Its end takes up to a tenth of a second: not on a thread that serves others.
    tokio::task::spawn_blocking(move || drop(admin));
    match answers {
        Ok(answers) => answers.into_iter().map(|answer| answer.ok().map(|topic| read(&topic))).collect(),
        Err(error) => {
            tracing::debug!(%error, "the broker does not report the settings of topics; the usual ones are assumed");
            Vec::new()
        }
    }
}

fn read(topic: &ConfigResource) -> (usize, bool) {
    let value = |name: &str| topic.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let compacted = value("cleanup.policy").contains("compact");
    (value("max.message.bytes").parse().unwrap_or(LARGEST), compacted)
}
