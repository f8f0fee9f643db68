//! What the router asks of the process it stands in.

use crate::app::App;
#[cfg(feature = "kafka")]
use crate::cluster::ClusterNode;
use crate::cluster::ShardPlace;
use crate::cluster::spread::Spread;
use std::sync::Arc;
use tokio::sync::watch;

/// One process of a cluster: a [`ClusterNode`], or a test's.
pub(super) trait ClusterMember: Send + Sync + 'static {
    /// The app that knows all connections and owns none of them.
    fn front(&self) -> &Arc<App>;
    /// How connections are spread.
    fn spread(&self) -> Spread;
    /// Where requests about a partition are answered.
    fn place(&self, partition: i32) -> ShardPlace;
    /// Wakes whoever waits for partitions to be opened or closed here.
    fn moved(&self) -> watch::Receiver<u64>;
    /// What a request of this process shows to others of the cluster.
    fn proof(&self) -> String;
    /// Whether this proof is one of a process of the cluster.
    fn is_own(&self, proof: &str) -> bool;
}

#[cfg(feature = "kafka")]
impl ClusterMember for ClusterNode {
    fn front(&self) -> &Arc<App> {
        ClusterNode::front(self)
    }

    fn spread(&self) -> Spread {
        ClusterNode::spread(self)
    }

    fn place(&self, partition: i32) -> ShardPlace {
        ClusterNode::place(self, partition)
    }

    fn moved(&self) -> watch::Receiver<u64> {
        ClusterNode::moved(self)
    }

    fn proof(&self) -> String {
        ClusterNode::proof(self)
    }

    fn is_own(&self, proof: &str) -> bool {
        ClusterNode::is_own(self, proof)
    }
}
