//! Kafka: topics in, topics out, and the log on topics. The only room that knows librdkafka.
//!
//! | file | what it is |
//! |---|---|
//! | [`board`] | small values that every process sees, on a compacted topic |
//! | [`changelog`] | a store's own writes, on a partition of a compacted topic |
//! | [`check`] | whether a broker answers, and if not, why |
//! | [`cluster`] | how a broker is reached: settings → clients |
//! | `identity` | what the broker says of a topic: which one it is |
//! | [`log`] | the log on a partition, for several processes |
//! | [`members`] | who of a group owns which partitions |
//! | [`input`] | what others write to topics → messages |
//! | [`output`] | changes → topics |
//! | `pace` | when the next transaction had better begin |
//! | `polled` | a producer whose reports are waited for without spinning |
//! | `reader` | one partition read in order, by place |
//! | [`topics`] | names of topics, made or refused with the command that makes them |

pub mod board;
pub mod changelog;
pub mod check;
pub mod cluster;
mod identity;
#[cfg(test)]
mod injected;
pub mod input;
pub mod log;
pub mod members;
pub mod output;
mod pace;
mod polled;
mod reader;
pub mod topics;

pub use cluster::{Cluster, NewTopics};
