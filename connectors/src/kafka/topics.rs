//! Names of topics; topics made as they should be, or refused with the command that makes them.

use super::cluster::{Cluster, failure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Failure;

/// Longest name of a topic.
const NAME_CHARS: usize = 249;
/// Longest wait for an answer about topics.
const PATIENCE: Duration = Duration::from_secs(10);

/// One part of a topic's name: what Kafka does not allow becomes `_`, and then four digits of the text's hash keep it apart
/// from others that look alike.
pub fn part(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.chars().all(allowed) {
        return text.to_owned();
    }
    let clean: String = text.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    format!("{clean}-{}", digits(text))
}

/// A whole name of parts, cut to what Kafka takes.
pub fn name(parts: &[&str]) -> String {
    let full = parts.iter().map(|p| part(p)).collect::<Vec<_>>().join(".");
    if full.len() <= NAME_CHARS {
        return full;
    }
    let cut: String = full.chars().take(NAME_CHARS - 5).collect();
    format!("{cut}-{}", digits(&full))
}

fn digits(text: &str) -> String {
    Sha256::digest(text).iter().take(2).map(|b| format!("{b:02x}")).collect()
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its partitions if it has to be made; `None` takes the settings' number.
    pub partitions: Option<i32>,
    /// Its own settings, such as (`cleanup.policy`, `compact`).
    pub config: Vec<(&'static str, String)>,
}

impl TopicSpec {
    /// A topic that keeps what is written for the broker's time.
    pub fn new(name: impl Into<String>) -> Self {
        TopicSpec { name: name.into(), partitions: None, config: Vec::new() }
    }

    /// With a setting of its own.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.config.push((key, value.into()));
        self
    }

    /// With this many partitions.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The command that makes it.
    pub fn command(&self, cluster: &Cluster) -> String {
        let partitions = self.partitions.unwrap_or(cluster.topics.partitions);
        let mut text = format!(
            "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {partitions}",
            cluster.brokers, self.name
        );
        if cluster.topics.replication > 0 {
            text.push_str(&format!(" --replication-factor {}", cluster.topics.replication));
        }
        for (key, value) in &self.config {
            text.push_str(&format!(" --config {key}={value}"));
        }
        text
    }
}

/// Makes sure that these topics exist, and answers how many partitions each has. A missing topic is made, or refused
/// (`topic_missing`) with the command that makes it where `topics.create` is off.
pub async fn ensure(cluster: &Cluster, wanted: &[TopicSpec]) -> Result<Vec<i32>, Failure> {
    let admin = Arc::new(cluster.admin()?);
    let counts = ensure_with(cluster, &admin, wanted).await;
    // Its end takes up to a tenth of a second: not on a thread that serves others.
    tokio::task::spawn_blocking(move || drop(admin));
    counts
}

async fn ensure_with(
    cluster: &Cluster,
    admin: &Arc<AdminClient<DefaultClientContext>>,
    wanted: &[TopicSpec],
) -> Result<Vec<i32>, Failure> {
    let mut counts = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let found = match count_with(cluster, admin.clone(), &topic.name).await? {
            Some(found) => found,
            None if cluster.topics.create => make(cluster, admin, topic).await?,
            None => {
                let message = format!(
                    "the topic {} does not exist and `kafka.topics.create` is off; make it with: {}",
                    topic.name,
                    topic.command(cluster)
                );
                return Err(Failure::lasting("topic_missing", message));
            }
        };
        counts.push(found);
    }
    Ok(counts)
}

async fn make(
    cluster: &Cluster,
    admin: &Arc<AdminClient<DefaultClientContext>>,
    topic: &TopicSpec,
) -> Result<i32, Failure> {
    let partitions = topic.partitions.unwrap_or(cluster.topics.partitions);
    let replication = TopicReplication::Fixed(cluster.topics.replication);
    let mut new = NewTopic::new(&topic.name, partitions, replication);
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let refused = |why: &dyn std::fmt::Display| {
        failure("topic_refused", &format!("the topic {} cannot be made ({})", topic.name, topic.command(cluster)), why)
    };
    let made = admin.create_topics([&new], &options).await.map_err(|e| refused(&e))?;
    match made.into_iter().next() {
        // Another process was quicker: as good.
        Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) => return Err(refused(&code)),
        None => return Err(refused(&"the broker did not answer")),
    }
    tracing::info!(topic = topic.name, partitions, "topic made");
    Ok(count_with(cluster, admin.clone(), &topic.name).await?.unwrap_or(partitions))
}

/// Partitions of a topic; `None` if it does not exist.
pub async fn count(cluster: &Cluster, topic: &str) -> Result<Option<i32>, Failure> {
    count_with(cluster, Arc::new(cluster.admin()?), topic).await
}

async fn count_with(
    cluster: &Cluster,
    admin: Arc<AdminClient<DefaultClientContext>>,
    topic: &str,
) -> Result<Option<i32>, Failure> {
    let name = topic.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&name), PATIENCE)?;
        let found = metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len());
        Ok::<_, rdkafka::error::KafkaError>(found)
    });
    let found = asked
        .await
        .map_err(|e| failure("kafka_unreachable", "the question about topics ended early", e))?
        .map_err(|e| failure("kafka_unreachable", &format!("no broker of {} answers", cluster.brokers), e))?;
    Ok(found.filter(|n| *n > 0).and_then(|n| i32::try_from(n).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal_and_stay_apart() {
        assert_eq!(name(&["syncline", "crm", "Contact", "changes"]), "syncline.crm.Contact.changes");
        let (a, b) = (part("a b"), part("a/b"));
        assert!(a.starts_with("a_b-") && b.starts_with("a_b-") && a != b, "{a} {b}");
        let long = name(&["p", &"x".repeat(400)]);
        assert_eq!(long.len(), 249);
        assert_ne!(long, name(&["p", &"x".repeat(401)]));
    }

    #[test]
    fn the_command_says_all_that_matters() {
        let cluster = Cluster { brokers: "b:9092".into(), ..Cluster::default() };
        let command = TopicSpec::new("t").partitions(3).with("cleanup.policy", "compact").command(&cluster);
        assert_eq!(
            command,
            "kafka-topics.sh --bootstrap-server b:9092 --create --topic t --partitions 3 --config cleanup.policy=compact"
        );
    }
}
