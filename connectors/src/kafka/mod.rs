//! Kafka: topics in, topics out, and the log on topics. The only room that knows librdkafka.
//!
//! | file | what it is |
//! |---|---|
//! | [`cluster`] | how a broker is reached: settings → clients |
//! | [`murmur2`] | the hash by which Java clients choose a partition |
//! | [`output`] | changes → topics |
//! | [`topics`] | names of topics, made or refused with the command that makes them |

pub mod cluster;
pub mod murmur2;
pub mod output;
pub mod topics;

pub use cluster::{Cluster, NewTopics};
