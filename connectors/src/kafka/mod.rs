//! Kafka: topics in, topics out, and the log on topics. The only room that knows librdkafka.
//!
//! | file | what it is |
//! |---|---|
//! | [`check`] | whether a broker answers, and if not, why |
//! | [`cluster`] | how a broker is reached: settings → clients |
//! | [`output`] | changes → topics |
//! | [`topics`] | names of topics, made or refused with the command that makes them |

pub mod check;
pub mod cluster;
pub mod output;
pub mod topics;

pub use cluster::{Cluster, NewTopics};
