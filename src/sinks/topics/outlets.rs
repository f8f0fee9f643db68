//! Datasets → their topics, made or refused when a dataset appears.
//!
//! Promises: no two streams share a topic; names that Kafka's metrics cannot keep apart (`.` and `_`) are refused.

use super::ExportOrder;
use crate::connectors::kafka::Cluster;
use crate::connectors::kafka::output::Shape;
use crate::connectors::kafka::output::outlet::{OutputTopic, TopicBinding, TopicKind, dead_letters, topic_of, wanted};
use crate::connectors::kafka::output::targets::{batch_for, targets};
use crate::connectors::kafka::topics::TopicSpec;
use crate::engine::Engine;
use crate::engine::model::{DatasetId, DatasetName};
use crate::engine::pipeline::Dataset;
use crate::engine::source::Failure;
use crate::registry::scope::{Selection, changes_scope};
use crate::sinks::topics::schemas::{Schemas, hex};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bytes of the log's name in ids of changes.
const LOG_BYTES: usize = 8;

/// A dataset with its topics.
pub(super) struct DatasetTopics {
    pub outlet: TopicBinding,
    /// What its cursors are bound to.
    pub scope: Vec<u8>,
}

/// What a round works with.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub datasets: Arc<Vec<Dataset>>,
    pub ways: Arc<HashMap<DatasetId, Arc<DatasetTopics>>>,
}

/// All datasets known so far.
pub(super) struct Outlets {
    cluster: Cluster,
    shape: Shape,
    schemas: Arc<Schemas>,
    targets: HashMap<String, OutputTopic>,
    /// Who has a name, by the name with `_` for `.`: the name itself and whose it is.
    owners: HashMap<String, (String, String)>,
    snapshot: Snapshot,
}

/// Name of an engine's log in an environment, the same for as long as its store lives.
pub(super) fn log_of(engine: &Engine, environment: &str) -> String {
    let secret = engine.secret(&format!("log of {environment}"));
    hex(secret.get(..LOG_BYTES).unwrap_or_default())
}

impl Outlets {
    pub fn new(order: &ExportOrder) -> Self {
        Outlets {
            cluster: order.cluster.clone(),
            shape: order.shape.clone(),
            schemas: order.schemas.clone(),
            targets: HashMap::new(),
            owners: HashMap::new(),
            snapshot: Snapshot::default(),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Asks again what the topics take, at the next refresh.
    pub fn forget(&mut self) {
        self.targets.clear();
        self.snapshot = Snapshot::default();
    }

    /// The largest batch that all topics take.
    pub fn batch(&self) -> usize {
        batch_for(self.targets.values())
    }

    /// Meets datasets that are new.
    pub async fn refresh(&mut self, engine: &Engine) -> Result<(), Failure> {
        let all = engine.every_dataset();
        if all.len() == self.snapshot.datasets.len() {
            return Ok(());
        }
        let mut ways = (*self.snapshot.ways).clone();
        let new: Vec<&Dataset> = all.iter().filter(|dataset| !ways.contains_key(&dataset.id)).collect();
        self.make(&new).await?;
        for dataset in new {
            ways.insert(dataset.id, Arc::new(self.way(engine, &dataset.name)?));
        }
        self.snapshot = Snapshot { datasets: Arc::new(all), ways: Arc::new(ways) };
        Ok(())
    }

    /// Makes or finds the topics of these datasets.
    async fn make(&mut self, new: &[&Dataset]) -> Result<(), Failure> {
        let mut unknown = BTreeMap::new();
        for dataset in new {
            for (kind, topic) in self.topics_of(&dataset.name) {
                self.claim(&topic, &dataset.name)?;
                unknown.entry(topic.clone()).or_insert_with(|| wanted(&topic, kind));
            }
            let dead = dead_letters(&self.cluster, &dataset.name.environment);
            unknown.entry(dead.clone()).or_insert_with(|| TopicSpec::new(dead));
        }
        unknown.retain(|topic, _| !self.targets.contains_key(topic));
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<TopicSpec> = unknown.into_values().collect();
        let found = targets(&self.cluster, &unknown).await?;
        self.targets.extend(unknown.into_iter().map(|topic| topic.name).zip(found));
        Ok(())
    }

    fn topics_of(&self, name: &DatasetName) -> Vec<(TopicKind, String)> {
        let kinds = [(TopicKind::Changes, self.shape.changes), (TopicKind::State, self.shape.state)];
        let of = |kind| (kind, topic_of(&self.cluster, &self.shape, name, kind));
        kinds.into_iter().filter(|(_, on)| *on).map(|(kind, _)| of(kind)).collect()
    }

    fn way(&self, engine: &Engine, name: &Arc<DatasetName>) -> Result<DatasetTopics, Failure> {
        let found = |topic: &str| {
            let missing = || clash(format!("the broker said nothing of the topic {topic}"));
            self.targets.get(topic).cloned().ok_or_else(missing)
        };
        let (mut changes, mut state) = (None, None);
        for (kind, topic) in self.topics_of(name) {
            match kind {
                TopicKind::Changes => changes = Some(found(&topic)?),
                TopicKind::State => state = Some(found(&topic)?),
            }
        }
        let dead = found(&dead_letters(&self.cluster, &name.environment))?;
        let log = log_of(engine, &name.environment);
        let mut outlet = TopicBinding::new(&self.shape, name.clone(), &log, (changes, state, dead));
        outlet.schema = self.schemas.hash_of(&name.source, &name.model);
        let scope = changes_scope(&name.environment, &Selection::default());
        Ok(DatasetTopics { outlet, scope })
    }

    /// A name belongs to one stream, and so do all that look like it.
    fn claim(&mut self, topic: &str, name: &DatasetName) -> Result<(), Failure> {
        let mut owner = vec![&*name.environment, &*name.source, &*name.model, &*name.variant];
        if self.shape.per_connection {
            owner.push(&name.connection);
        }
        let owner = owner.join("/");
        let known = self.owners.entry(topic.replace('.', "_")).or_insert_with(|| (topic.to_owned(), owner.clone()));
        if known.0 == topic && known.1 == owner {
            return Ok(());
        }
        Err(clash(format!(
            "{owner} would be written to {topic} and {} to {}, which Kafka cannot keep apart; rename one of them",
            known.1, known.0
        )))
    }
}

fn clash(message: String) -> Failure {
    Failure::lasting("topic_clash", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_refused() {
        let mut outlets = Outlets {
            cluster: Cluster::default(),
            shape: Shape::default(),
            schemas: Arc::default(),
            targets: HashMap::new(),
            owners: HashMap::new(),
            snapshot: Snapshot::default(),
        };
        let name = |source: &str, connection: &str| DatasetName::base("default", source, connection, "Contact");
        let mut claim = |name: DatasetName| {
            let topic = topic_of(&Cluster::default(), &Shape::default(), &name, TopicKind::Changes);
            outlets.claim(&topic, &name).map_err(|failure| failure.code)
        };
        assert_eq!(claim(name("my.crm", "a")), Ok(()));
        assert_eq!(claim(name("my.crm", "b")), Ok(()));
        assert_eq!(claim(name("my_crm", "a")), Err("topic_clash"));
    }
}
