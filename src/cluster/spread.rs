//! Which partition a connection belongs to. Pure, and the same on every process: everything of a connection is in one place.

use crate::connectors::definition::FixedConnection;
use crate::connectors::murmur2;
use crate::engine::source::Connection;
use crate::ingest::webhooks::OtherShards;
use crate::registry::definitions::Definitions;
use std::sync::Arc;

/// How connections are spread over partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Partitions in all.
    pub count: i32,
}

impl Spread {
    /// The partition of a connection.
    pub fn of(self, environment: &str, source: &str, connection: &str) -> i32 {
        murmur2::partition(format!("{environment}/{source}/{connection}").as_bytes(), self.count)
    }

    /// The partition that keeps what of a source belongs to no connection.
    pub fn default_shard(self, environment: &str, source: &str) -> i32 {
        murmur2::partition(format!("{environment}/{source}").as_bytes(), self.count)
    }

    /// The definitions as one partition sees them: with its own connections only.
    pub fn definitions(self, all: &Definitions, partition: i32) -> Definitions {
        let own = |(name, definition): (&String, &Arc<crate::connectors::definition::Definition>)| {
            let mut own = (**definition).clone();
            own.connections.retain(|c| self.of(environment(c), name, &c.name) == partition);
            (name.clone(), Arc::new(own))
        };
        all.with(all.all().iter().map(own).collect())
    }

    /// What a partition has to know of the others, so that it can tell an event of theirs from an event of nobody.
    pub fn other_shards(self, all: &Definitions, partition: i32) -> OtherShards {
        let mut accounts = Vec::new();
        for (source, definition) in all.all().iter() {
            for file in &definition.connections {
                if self.of(environment(file), source, &file.name) != partition {
                    let connection = Connection {
                        environment: environment(file).to_owned(),
                        id: file.name.clone(),
                        metadata: file.metadata.clone(),
                        ..Connection::default()
                    };
                    accounts.push((source.clone(), connection));
                }
            }
        }
        OtherShards {
            shard: u16::try_from(partition).unwrap_or(u16::MAX),
            accounts,
            is_default: Arc::new(move |environment, source| self.default_shard(environment, source) == partition),
        }
    }
}

fn environment(file: &FixedConnection) -> &str {
    if file.environment.is_empty() { "default" } else { &file.environment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_where_it_is() {
        // These never change: what is stored lies there.
        let spread = Spread { count: 6 };
        let places: Vec<i32> = ["acme", "zenith", "hidden", "a", "b"].map(|c| spread.of("default", "crm", c)).to_vec();
        assert_eq!(places, [4, 0, 1, 3, 0]);
    }
}
