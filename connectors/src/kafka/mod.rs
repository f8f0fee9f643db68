//! Kafka: topics in, topics out, and the log on topics. The only room that knows librdkafka.
//!
//! | file | what it is |
//! |---|---|
//! | [`cluster`] | how a broker is reached: settings → clients |
//! | [`input`] | what others write to topics → messages |
//! | [`output`] | changes → topics |
//! | [`topics`] | names of topics, made or refused with the command that makes them |

pub mod cluster;
pub mod input;
pub mod output;
pub mod topics;

pub use cluster::{Cluster, NewTopics};
