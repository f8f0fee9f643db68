//! How a broker is reached: the settings every client begins with, and clients made of them.
//!
//! Promises: what the user sets in `properties` wins over our defaults, except where a promise of ours depends on the value
//! (idempotence, acknowledgements, isolation: see [`FIXED`]); secrets never reach a log line.

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::collections::BTreeMap;
use std::fmt;
use syncline_engine::model::Failure;

/// Properties that are ours: with another value a promise would not hold.
pub const FIXED: [&str; 11] = [
    "bootstrap.servers",
    "group.id",
    "group.instance.id",
    "transactional.id",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
];

/// A Kafka cluster as the settings describe it.
#[derive(Clone)]
pub struct Cluster {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Settings of librdkafka such as `security.protocol` or `sasl.password`.
    pub properties: BTreeMap<String, String>,
    /// First part of all topic, group and transaction names.
    pub prefix: String,
    /// How topics are made.
    pub topics: NewTopics,
}

/// How topics that do not exist are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopics {
    /// Make them; otherwise a missing topic is refused with the command that makes it.
    pub create: bool,
    /// Partitions of a topic.
    pub partitions: i32,
    /// Copies of a partition; -1 is the broker's default.
    pub replication: i32,
}

impl Default for NewTopics {
    fn default() -> Self {
        NewTopics { create: true, partitions: 6, replication: -1 }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            brokers: String::new(),
            properties: BTreeMap::new(),
            prefix: "syncline".into(),
            topics: NewTopics::default(),
        }
    }
}

impl fmt::Debug for Cluster {
    /// Names of the properties only: some of their values are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("prefix", &self.prefix)
            .field("topics", &self.topics)
            .finish()
    }
}

impl Cluster {
    /// What every client begins with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", &self.prefix);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// A client for questions about topics and for making them.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Failure> {
        self.client().create().map_err(|error| failure("kafka_settings", "the Kafka client cannot be made", error))
    }

    /// First part of topic names of an environment: the prefix, and for another than `default` its name.
    pub fn prefix_of(&self, environment: &str) -> String {
        if environment == "default" { self.prefix.clone() } else { format!("{}-{environment}", self.prefix) }
    }
}

/// A failure of the broker or the client, in our words.
pub fn failure(code: &'static str, what: &str, error: impl fmt::Display) -> Failure {
    Failure::passing(code, format!("{what}: {error}"))
}
