//! Several processes of one installation: who owns which partition of its connections, and where everybody else finds it.
//!
//! Every connection belongs to a partition (in the documentation: a *shard*). A partition is an installation in small: its own engine, syncs, webhooks and
//! deliveries, over its own folder. What it knows lies in Kafka: webhooks and batches of runs in the *inbox* topic, every
//! write of its store in the compacted *state* topic. A consumer group says which process owns which partition.
//!
//! Promises: what belongs to a partition is done by one process, its owner, schedules included; an owner that is gone, or
//! stands still, is followed by another that has everything it had; one that wakes up after it was followed changes nothing
//! any more; who asks the wrong process gets the owner's answer.
//!
//! | file | what |
//! |---|---|
//! | [`spread`] | connection → partition: pure |
//! | [`member`] | what the router asks of the process |
//! | [`place`] | where a shard is answered |
//! | `node` | one process |
//! | `hold` | holds the partitions the group gives, lets go of those it takes |
//! | `partition` | one partition: opened from Kafka, run, closed |
//! | `inbox` | webhooks → the logs of their partitions |
//! | `functions` | what functions ask of shards that are elsewhere; feature `functions` |
//! | `owners` | who owns what, told on a board; the installation's secret |

#[cfg(all(feature = "kafka", feature = "functions"))]
mod functions;
#[cfg(feature = "kafka")]
mod hold;
#[cfg(feature = "kafka")]
mod inbox;
pub mod member;
#[cfg(feature = "kafka")]
mod node;
#[cfg(feature = "kafka")]
mod owners;
#[cfg(feature = "kafka")]
mod partition;
pub mod place;
pub mod spread;

pub use member::ClusterMember;
#[cfg(feature = "kafka")]
pub use node::ClusterNode;
#[cfg(feature = "kafka")]
pub use owners::Owner;
#[cfg(feature = "functions")]
pub use place::{FUNCTION_BYTES, FUNCTIONS};
pub use place::{PROOF, ShardPlace};
