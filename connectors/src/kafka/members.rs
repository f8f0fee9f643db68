//! Membership of a consumer group, for the question who owns which partitions; no message is ever consumed through it.
//!
//! Promises: a partition that the group takes back is given up only once the owner has let go of it, or after a bounded time
//! ([`Membership::let_go`]); nobody else is given it before. Where the group has moved on without us (the process stood
//! still, the broker was away) the owner is told [`Assignment::Lost`]: then another may be the owner already, and what keeps
//! the two apart is the fence of the changelog.

use super::cluster::Cluster;
use super::reader::unreachable;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;
use syncline_engine::log::Error;
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait for the owner.
const WAITING_CHANGES: usize = 64;
/// How long one look for news of the group takes at most.
const LOOK: Duration = Duration::from_millis(50);
/// Heartbeats within one session's time.
const HEARTBEATS: u32 = 10;
/// The longest a member may be busy with a change before the group gives it up, beyond the time to let go.
const BUSY: Duration = Duration::from_secs(60);

/// How to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// A member that is silent for this long is out. Brokers take 6 s to 30 min unless told otherwise.
    pub session: Duration,
    /// How long the owner may take to let go of a partition.
    pub let_go: Duration,
    /// A name that keeps a member's partitions over a restart shorter than its session (`group.instance.id`).
    pub instance: Option<String>,
}

impl Default for Membership {
    fn default() -> Self {
        Membership { session: Duration::from_secs(10), let_go: Duration::from_secs(20), instance: None }
    }
}

/// What the group decided.
#[derive(Debug)]
pub enum Assignment {
    /// These partitions are this process's from now on.
    Assigned(Vec<i32>),
    /// These are to be let go; the group waits until the release is dropped.
    Revoked(Vec<i32>, Release),
    /// These were ours and may be another's already.
    Lost(Vec<i32>),
}

/// To be dropped once the partitions are let go.
#[derive(Debug)]
pub struct Release {
    _held: blocking::Sender<()>,
}

/// A member of a group. Dropped without [`Group::leave`] it leaves all the same, a little later.
pub struct Group {
    changes: mpsc::Receiver<Assignment>,
    leaving: Arc<AtomicBool>,
    left: oneshot::Receiver<()>,
}

impl Group {
    /// Joins a group over the partitions of a topic. Changes come through [`Group::next`].
    pub fn join(cluster: &Cluster, group: &str, topic: &str, membership: &Membership) -> Result<Group, Error> {
        let refused = |e: &dyn std::fmt::Display| {
            unreachable(&cluster.brokers, &format!("the group {group} cannot be joined"), e)
        };
        let (sender, changes) = mpsc::channel(WAITING_CHANGES);
        let leaving = Arc::new(AtomicBool::new(false));
        let context = Callbacks { changes: sender, leaving: leaving.clone(), let_go: membership.let_go };
        let consumer: BaseConsumer<Callbacks> =
            settings(cluster, group, membership).create_with_context(context).map_err(|e| refused(&e))?;
        consumer.subscribe(&[topic]).map_err(|e| refused(&e))?;
        let (gone, left) = oneshot::channel();
        let stop = leaving.clone();
        std::thread::Builder::new()
            .name("syncline-group".to_owned())
            .spawn(move || {
                take_part(&consumer, &stop);
                drop(consumer);
                // Nobody may be waiting for it.
                let _ = gone.send(());
            })
            .map_err(|e| refused(&e))?;
        Ok(Group { changes, leaving, left })
    }

    /// The next change; `None` when the membership has ended.
    pub async fn next(&mut self) -> Option<Assignment> {
        self.changes.recv().await
    }

    /// Leaves at once: the others get what was ours without waiting for the session to end. To be called when everything is
    /// let go.
    pub async fn leave(mut self) {
        self.leaving.store(true, Ordering::Release);
        self.changes.close();
        // What the group wanted back meanwhile is let go as well: nobody will look at it any more.
        while self.changes.try_recv().is_ok() {}
        // An error means that it has left already.
        let _ = (&mut self.left).await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Release);
    }
}

fn settings(cluster: &Cluster, group: &str, membership: &Membership) -> rdkafka::ClientConfig {
    let millis = |span: Duration| span.as_millis().to_string();
    let mut config = cluster.client();
    config
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", millis(membership.session))
        .set("heartbeat.interval.ms", millis(membership.session / HEARTBEATS))
        .set("max.poll.interval.ms", millis(membership.session.max(membership.let_go + BUSY)))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "latest")
        .set("queued.max.messages.kbytes", "1")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500");
    if let Some(instance) = &membership.instance {
        config.set("group.instance.id", instance);
    }
    config
}

/// Serves the group until it is left, or until the broker puts us out for good.
fn take_part(consumer: &BaseConsumer<Callbacks>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match consumer.poll(LOOK) {
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                tracing::error!(%error, "out of the group");
                let ours = consumer.assignment().map(|list| partitions(&list)).unwrap_or_default();
                consumer.context().tell(Assignment::Lost(ours));
                return;
            }
            Some(Err(error)) => tracing::debug!(%error, "the group goes on"),
            // Fetched in the moment between assignment and pause: not ours to read.
            Some(Ok(_)) | None => {}
        }
    }
}

/// What the group calls.
struct Callbacks {
    changes: mpsc::Sender<Assignment>,
    leaving: Arc<AtomicBool>,
    let_go: Duration,
}

impl Callbacks {
    fn tell(&self, change: Assignment) {
        // Nobody listens any more: the membership is about to end.
        let _ = self.changes.blocking_send(change);
    }

    fn revoke(&self, ours: Vec<i32>) {
        let (held, released) = blocking::channel();
        self.tell(Assignment::Revoked(ours.clone(), Release { _held: held }));
        if self.leaving.load(Ordering::Acquire) {
            return;
        }
        if let Err(blocking::RecvTimeoutError::Timeout) = released.recv_timeout(self.let_go) {
            metrics::counter!("syncline_kafka_releases_overdue_total").increment(1);
            tracing::error!(partitions = ?ours, "not let go within {:?}: given up all the same", self.let_go);
        }
    }
}

impl ClientContext for Callbacks {}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let ours = partitions(list);
        if ours.is_empty() {
            return;
        }
        if consumer.assignment_lost() {
            count("lost");
            self.tell(Assignment::Lost(ours));
        } else {
            count("revoked");
            self.revoke(ours);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(%error, "the partitions are not paused: what is fetched is thrown away");
                }
                let ours = partitions(list);
                if !ours.is_empty() {
                    count("assigned");
                    self.tell(Assignment::Assigned(ours));
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed; the group tries again"),
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    let mut numbers: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    numbers.sort_unstable();
    numbers
}

fn count(what: &'static str) {
    metrics::counter!("syncline_kafka_rebalances_total", "kind" => what).increment(1);
}
