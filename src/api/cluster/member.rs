//! What the router asks of the process it stands in.

use crate::app::App;
use crate::cluster::spread::Spread;
use crate::cluster::{Node, Place};
use std::sync::Arc;
use tokio::sync::watch;

/// One process of a cluster: a [`Node`], or a test's.
pub(super) trait ClusterMember: Send + Sync + 'static {
    /// The app that knows all connections and owns none of them.
    fn front(&self) -> &Arc<App>;
    /// How connections are spread.
    fn spread(&self) -> Spread;
    /// Where requests about a partition are answered.
    fn place(&self, partition: i32) -> Place;
    /// Wakes whoever waits for partitions to be opened or closed here.
    fn moved(&self) -> watch::Receiver<u64>;
    /// What a request of this process shows to others of the cluster.
    fn proof(&self) -> String;
    /// Whether this proof is one of a process of the cluster.
    fn is_own(&self, proof: &str) -> bool;
}

impl ClusterMember for Node {
    fn front(&self) -> &Arc<App> {
        Node::front(self)
    }

    fn spread(&self) -> Spread {
        Node::spread(self)
    }

    fn place(&self, partition: i32) -> Place {
        Node::place(self, partition)
    }

    fn moved(&self) -> watch::Receiver<u64> {
        Node::moved(self)
    }

    fn proof(&self) -> String {
        Node::proof(self)
    }

    fn is_own(&self, proof: &str) -> bool {
        Node::is_own(self, proof)
    }
}
