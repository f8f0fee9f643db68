//! The log as a process sees it that takes webhooks for all partitions: each entry goes to the partition of its connection.
//!
//! A request that names no connection may hold events of several: it goes to every partition, whose owner takes what is its
//! own and knows the others' (see [`OtherShards`](crate::ingest::webhooks::OtherShards)). It is answered once all have it; a
//! repeat after a failure half-way is recognised by its delivery ids.

use super::spread::Spread;
use crate::connectors::kafka::log::KafkaLog;
use crate::connectors::webhooks::StoredWebhook;
use crate::engine::log::{Error, Log};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::sync::Arc;
use tokio::sync::watch;

/// The logs of all partitions, to be appended to.
pub(super) struct Inbox {
    spread: Spread,
    logs: Vec<Arc<KafkaLog>>,
    end: watch::Sender<u64>,
}

impl Inbox {
    pub fn new(spread: Spread, logs: Vec<Arc<KafkaLog>>) -> Inbox {
        Inbox { spread, logs, end: watch::Sender::new(0) }
    }

    /// The logs an entry goes to.
    fn ways(&self, entry: &[u8]) -> &[Arc<KafkaLog>] {
        let head = StoredWebhook::decode(entry).map(|stored| stored.head);
        let Ok(head) = head else { return &self.logs };
        let Some(connection) = head.connection else { return &self.logs };
        let partition = self.spread.of(&head.environment, &head.source, &connection);
        let one = usize::try_from(partition).ok().and_then(|p| self.logs.get(p..=p));
        one.unwrap_or(&self.logs)
    }
}

#[async_trait]
impl Log for Inbox {
    async fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        for entry in entries {
            try_join_all(self.ways(&entry).iter().map(|log| log.append(vec![entry.clone()]))).await?;
        }
        // Positions are each partition's own; here nobody reads.
        Ok(0)
    }

    fn read(&self, _after: u64, _limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        Ok(Vec::new())
    }

    fn trim(&self, _through: u64) -> Result<(), Error> {
        Ok(())
    }

    fn end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}
