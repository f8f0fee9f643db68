//! One partition on this machine: opened from what lies in Kafka, run, closed.

#[cfg(feature = "functions")]
use super::functions::FunctionsElsewhere;
use super::node::ClusterContext;
use crate::app::{App, Running, ShardContext};
use crate::connectors::kafka::changelog::{KafkaChangelog, state_topic};
use crate::connectors::kafka::log::{KafkaLog, log_topic};
use crate::engine::pipeline::{Error, Options, Remote};
use crate::engine::source::Failure;
use crate::engine::{Engine, log};
use crate::ingest::webhooks;
use crate::sinks::deliveries::Announcer;
use std::path::PathBuf;
use std::sync::Arc;

/// Opens the partition: whoever had it is fenced, its folder here is brought to where the changelog is, the app over it
/// starts and claims the log. From then on it is ours.
pub(super) async fn open(common: &Arc<ClusterContext>, partition: i32) -> Result<Running, Failure> {
    let folder = common.settings.data_dir.join("partitions").join(partition.to_string());
    let announcer = Arc::new(Announcer::new(&common.settings.endpoints, &common.definitions));
    let engine = match engine(common, partition, folder.clone(), announcer.clone()).await {
        Err(Error::Foreign(why) | Error::Damaged(why)) => {
            tracing::warn!(partition, %why, "the copy here is dropped and rebuilt");
            tokio::fs::remove_dir_all(&folder).await.map_err(|e| failed(partition, &e))?;
            engine(common, partition, folder, announcer.clone()).await.map_err(|e| failed(partition, &e))?
        }
        opened => opened.map_err(|e| failed(partition, &e))?,
    };
    let cursors = engine.cursor_key();
    let part = ShardContext {
        name: partition.to_string(),
        other_shards: Some(common.spread.other_shards(&common.definitions, partition)),
        #[cfg(feature = "functions")]
        function_shards: Some(Arc::new(FunctionsElsewhere::new(common, partition)?)),
    };
    let definitions = common.spread.definitions(&common.definitions, partition);
    let app = App::of_part(engine, common.settings.clone(), definitions, part).await;
    let app = app.map_err(|e| failed(partition, &e))?;
    announcer.attach(cursors, app.connections.clone());
    Ok(app.start())
}

async fn engine(
    common: &ClusterContext,
    partition: i32,
    folder: PathBuf,
    announcer: Arc<Announcer>,
) -> Result<Engine, Error> {
    let inbox = log_topic(&common.cluster).name;
    let log = KafkaLog::open_with(&common.producer, &inbox, partition).await.map_err(remote)?;
    let options = Options {
        data_dir: Some(folder),
        workers: common.settings.workers.max(1),
        clock: common.clock.clone(),
        announce: Some(announcer),
        views: common.settings.extensions.views.clone(),
        min_free: common.settings.min_free,
        ..Options::default()
    };
    let (cluster, secret) = (common.cluster.clone(), common.secret);
    let opening = tokio::task::spawn_blocking(move || {
        let name = format!("{}/{partition}", cluster.prefix);
        let changelog =
            KafkaChangelog::open(&cluster, &state_topic(&cluster).name, partition, &name).map_err(remote)?;
        let part = u16::try_from(partition).unwrap_or(u16::MAX);
        let log = Arc::new(log);
        let engine =
            Engine::open_copy(options, Remote { log: log.clone(), changelog: Arc::new(changelog), secret, part })?;
        // What was removed from the log before it was processed is nothing to pass over in silence.
        log.check(webhooks::place(&engine)?).map_err(|e| Error::Storage(format!("log_gone: {e}")))?;
        Ok(engine)
    });
    opening.await.map_err(|e| Error::Storage(format!("the engine could not be opened: {e}")))?
}

fn remote(error: log::Error) -> Error {
    match error {
        log::Error::Gone(text) => Error::Foreign(text),
        log::Error::Fenced(text) => Error::Fenced(text),
        other => Error::Remote(other.to_string()),
    }
}

fn failed(partition: i32, why: &dyn std::fmt::Display) -> Failure {
    let message = format!("shard {partition} cannot be opened: {why}");
    Failure::passing("partition_failed", message)
}
