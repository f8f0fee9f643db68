//! Holds the partitions that the group gives to this process, and lets go of those it takes.
//!
//! A partition is let go before the group is answered, so the next owner finds everything at rest. An engine that fails (its
//! changelog was taken over, or cannot be reached) is closed and opened again after a while, as long as the group says that
//! the partition is ours: if another has it, we hear of it in that while.

use super::node::ClusterContext;
use super::owners::partition_key;
use super::partition;
use crate::app::Running;
use crate::connectors::kafka::log::log_topic;
use crate::connectors::kafka::members::{Assignment, Group, Membership};
use crate::engine::log::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks at whether an engine is well.
const LOOK: Duration = Duration::from_millis(200);

/// A partition being held.
struct HeldShard {
    letting_go: CancellationToken,
    task: JoinHandle<()>,
}

/// Joins the group of owners.
pub(super) fn join(common: &ClusterContext) -> Result<Group, Error> {
    let membership = Membership { session: common.settings.process.session, ..Membership::default() };
    let (cluster, topic) = (&common.cluster, log_topic(&common.cluster).name);
    Group::join(cluster, &format!("{}.owners", cluster.prefix), &topic, &membership)
}

/// Holds what the group gives until `stop`.
pub(super) async fn hold(common: Arc<ClusterContext>, mut group: Group, stop: CancellationToken) {
    let mut held: BTreeMap<i32, HeldShard> = BTreeMap::new();
    loop {
        let change = tokio::select! {
            change = group.next() => change,
            () = stop.cancelled() => None,
        };
        match change {
            Some(Assignment::Assigned(partitions)) => {
                tracing::info!(?partitions, "shards acquired");
                for partition in partitions {
                    // One that was lost and came back is opened afresh.
                    let_go(&mut held, &[partition]).await;
                    let letting_go = CancellationToken::new();
                    let task = tokio::spawn(keep(common.clone(), partition, letting_go.clone()));
                    held.insert(partition, HeldShard { letting_go, task });
                }
            }
            Some(Assignment::Revoked(partitions, release)) => {
                tracing::info!(?partitions, "shards released");
                let_go(&mut held, &partitions).await;
                drop(release);
            }
            Some(Assignment::Lost(partitions)) => {
                tracing::warn!(?partitions, "shards lost: the group has gone on without this process");
                let_go(&mut held, &partitions).await;
            }
            None => break,
        }
    }
    let all: Vec<i32> = held.keys().copied().collect();
    let_go(&mut held, &all).await;
    group.leave().await;
}

async fn let_go(held: &mut BTreeMap<i32, HeldShard>, partitions: &[i32]) {
    let going: Vec<HeldShard> = partitions.iter().filter_map(|partition| held.remove(partition)).collect();
    going.iter().for_each(|held| held.letting_go.cancel());
    for held in going {
        if let Err(died) = held.task.await {
            tracing::error!(%died, "a shard's task has died");
        }
    }
}

/// Keeps one partition open until it is to be let go.
async fn keep(common: Arc<ClusterContext>, partition: i32, letting_go: CancellationToken) {
    while !letting_go.is_cancelled() {
        let opened = tokio::select! {
            opened = partition::open(&common, partition) => opened,
            // A long rebuild is given up: what was read so far stays in the folder.
            () = letting_go.cancelled() => return,
        };
        match opened {
            Ok(running) => serve(&common, partition, running, &letting_go).await,
            Err(why) => tracing::error!(partition, %why, "will be tried again"),
        }
        // Long enough for the group to tell that it is another's.
        tokio::select! {
            () = common.clock.sleep(common.settings.process.session) => {}
            () = letting_go.cancelled() => {}
        }
    }
}

/// Serves an open partition until it is to be let go, or its engine has failed.
async fn serve(common: &ClusterContext, partition: i32, running: Running, letting_go: &CancellationToken) {
    let app = running.app().clone();
    common.open.write().insert(partition, app.clone());
    common.moved.send_modify(|n| *n += 1);
    if let Err(why) = common.board.put(&partition_key(partition), &common.here()).await {
        tracing::warn!(partition, %why, "the owner of the shard cannot be published to the other processes");
    }
    metrics::gauge!("syncline_partitions_owned").increment(1.0);
    let failed = loop {
        if let Some(why) = app.engine.failed() {
            break Some(why);
        }
        tokio::select! {
            () = common.clock.sleep(LOOK) => {}
            () = letting_go.cancelled() => break None,
        }
    };
    if let Some(why) = failed {
        tracing::warn!(partition, %why, "the shard is closed");
    }
    metrics::gauge!("syncline_partitions_owned").decrement(1.0);
    common.open.write().remove(&partition);
    common.moved.send_modify(|n| *n += 1);
    drop(app);
    if let Err(why) = running.stop().await {
        tracing::warn!(partition, %why, "the shard was not closed cleanly");
    }
}
