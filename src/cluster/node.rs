//! One process of a cluster: joins it, holds the shards it is given, and knows where the others are.

use super::inbox::Inbox;
use super::member::ClusterMember;
use super::owners::Owner;
use super::place::ShardPlace;
use super::spread::Spread;
use super::{hold, owners};
use crate::app::{App, OpenError, ShardContext};
use crate::config::Settings;
use crate::connectors::kafka::Cluster;
use crate::connectors::kafka::board::Board;
use crate::connectors::kafka::changelog::state_topic;
use crate::connectors::kafka::log::{KafkaLog, SharedProducer, log_topic};
use crate::connectors::kafka::topics;
use crate::engine::Engine;
use crate::engine::log::MemoryChangelog;
use crate::engine::pipeline::{self, Options, Remote};
use crate::engine::source::Failure;
use crate::engine::time::{Clock, entropy};
use crate::registry::definitions::{self, Definitions};
use crate::telemetry;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What all parts of a process share.
pub(super) struct ClusterContext {
    pub settings: Settings,
    pub definitions: Definitions,
    pub clock: Arc<dyn Clock>,
    pub cluster: Cluster,
    pub producer: SharedProducer,
    pub board: Arc<Board>,
    pub spread: Spread,
    pub secret: [u8; 32],
    /// This process among all; by chance.
    pub process: String,
    /// Where the others reach it.
    pub url: String,
    /// The partitions that are open here.
    pub open: RwLock<BTreeMap<i32, Arc<App>>>,
    /// Counts openings and closings.
    pub moved: watch::Sender<u64>,
}

/// One process of an installation.
pub struct ClusterNode {
    common: Arc<ClusterContext>,
    front: Arc<App>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ClusterNode {
    /// Joins the installation. `url` is where this process is reached if the settings do not say.
    pub async fn start(settings: Settings, clock: Arc<dyn Clock>, url: &str) -> Result<Arc<ClusterNode>, OpenError> {
        let definitions = definitions::load(&settings)?;
        let common = Arc::new(common(settings, definitions, clock, url).await?);
        let front = front(&common).await?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let group = hold::join(&common).map_err(|e| OpenError::Source(unreachable(&e.to_string())))?;
        tasks.spawn(hold::hold(common.clone(), group, stop.clone()));
        // Also where no partition is open: requests are timed here too.
        tasks.spawn(telemetry::sum_up(common.clock.clone(), stop.clone()));
        tasks.close();
        Ok(Arc::new(ClusterNode { common, front, stop, tasks }))
    }

    /// Partitions that are open here.
    pub fn owned(&self) -> Vec<i32> {
        self.common.open.read().keys().copied().collect()
    }

    /// Lets go of everything and leaves.
    pub async fn stop(&self) -> Result<(), pipeline::Error> {
        self.stop.cancel();
        self.tasks.wait().await;
        self.front.stop().await
    }
}

impl ClusterMember for ClusterNode {
    fn front(&self) -> &Arc<App> {
        &self.front
    }

    fn spread(&self) -> Spread {
        self.common.spread
    }

    fn place(&self, partition: i32) -> ShardPlace {
        self.common.place(partition)
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.common.moved.subscribe()
    }

    fn proof(&self) -> String {
        self.common.proof()
    }

    /// Compared in constant time.
    fn is_own(&self, proof: &str) -> bool {
        self.common.proof().as_bytes().ct_eq(proof.as_bytes()).into()
    }
}

impl ClusterContext {
    /// This process as the others see it.
    pub fn here(&self) -> String {
        let here = Owner { process: self.process.clone(), url: self.url.clone() };
        // Two texts always serialise.
        serde_json::to_string(&here).unwrap_or_default()
    }

    /// Where a partition is.
    pub fn place(&self, partition: i32) -> ShardPlace {
        if let Some(app) = self.open.read().get(&partition) {
            return ShardPlace::Here(app.clone());
        }
        match owners::owner(&self.board, partition) {
            Some(owner) if owner.process != self.process => ShardPlace::There(owner.url),
            _ => ShardPlace::Nowhere,
        }
    }

    /// What processes show each other.
    pub fn proof(&self) -> String {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::new().chain_update(self.secret).chain_update(b"processes").finalize())
    }
}

async fn common(
    settings: Settings,
    definitions: Definitions,
    clock: Arc<dyn Clock>,
    url: &str,
) -> Result<ClusterContext, OpenError> {
    let Some(kafka) = &settings.kafka else {
        return Err(OpenError::Source(unreachable("`log: kafka` is set, but `kafka` names no broker")));
    };
    let (cluster, wanted) = (kafka.cluster.clone(), settings.process.partitions);
    let (inbox, state) = (log_topic(&cluster).partitions(wanted), state_topic(&cluster).partitions(wanted));
    for (found, topic) in topics::ensure(&cluster, &[inbox.clone(), state.clone()]).await?.iter().zip([inbox, state]) {
        if *found != wanted {
            return Err(OpenError::Source(mismatch(&topic.name, *found, wanted)));
        }
    }
    let producer = SharedProducer::new(&cluster).map_err(|e| unreachable(&e.to_string()))?;
    let board = Arc::new(Board::open(&producer).await?);
    let process = hex::encode(&entropy()[..8]);
    let secret = owners::secret(&board, &process, &*clock).await?;
    let url = settings.process.url.clone().unwrap_or_else(|| url.to_owned());
    Ok(ClusterContext {
        spread: Spread { count: wanted },
        settings,
        definitions,
        clock,
        cluster,
        producer,
        board,
        secret,
        process,
        url,
        open: RwLock::default(),
        moved: watch::Sender::new(0),
    })
}

/// The app in front: all connections, nothing of its own to keep, no task running.
async fn front(common: &ClusterContext) -> Result<Arc<App>, OpenError> {
    let topic = log_topic(&common.cluster).name;
    let mut logs = Vec::new();
    for partition in 0..common.spread.count {
        let log = KafkaLog::open_with(&common.producer, &topic, partition).await;
        logs.push(Arc::new(log.map_err(|e| unreachable(&e.to_string()))?));
    }
    let remote = Remote {
        log: Arc::new(Inbox::new(common.spread, logs)),
        changelog: Arc::new(MemoryChangelog::default()),
        secret: common.secret,
        part: 0,
    };
    let options = Options { data_dir: None, workers: 1, clock: common.clock.clone(), ..Options::default() };
    let engine = tokio::task::spawn_blocking(move || Engine::open_copy(options, remote))
        .await
        .map_err(|e| pipeline::Error::Storage(format!("the engine could not be opened: {e}")))??;
    let settings = Settings { kafka: None, ..common.settings.clone() };
    App::of_part(engine, settings, common.definitions.clone(), ShardContext::default()).await
}

fn unreachable(why: &str) -> Failure {
    Failure::passing("kafka_unreachable", why)
}

fn mismatch(topic: &str, found: i32, wanted: i32) -> Failure {
    let message = format!(
        "the topic {topic} has {found} partitions and `log.partitions` says {wanted}: connections would lie elsewhere than \
         their data. Set `log.partitions: {found}`"
    );
    Failure::lasting("partition_mismatch", message)
}
