//! What the router asks of the process it stands in.

use super::place::ShardPlace;
use super::spread::Spread;
use crate::app::App;
use std::sync::Arc;
use tokio::sync::watch;

/// One process of a cluster: a [`ClusterNode`](super::ClusterNode), or a test's.
pub trait ClusterMember: Send + Sync + 'static {
    /// The app that knows all connections and owns none of them: it takes webhooks and describes what is configured.
    fn front(&self) -> &Arc<App>;
    /// How connections are spread.
    fn spread(&self) -> Spread;
    /// Where requests about a partition are answered.
    fn place(&self, partition: i32) -> ShardPlace;
    /// Changes wake who waits for partitions to be opened or closed here.
    fn moved(&self) -> watch::Receiver<u64>;
    /// What a request of this process shows to others of the installation.
    fn proof(&self) -> String;
    /// Whether this proof is one of a process of the installation.
    fn is_own(&self, proof: &str) -> bool;
}
