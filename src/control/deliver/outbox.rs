//! The task that makes the attempts: one at a time per lane, a bounded number of lanes at a time.
//!
//! All state is in the store: after a crash the same delivery is tried again under the same id.

use super::schedule::{Next, next};
use super::target;
use crate::connectors::webhook_out::{Attempt, Failed, Post, attempt};
use crate::control::config::Endpoint;
use crate::control::connections::Connections;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Batch, Error, Mark, Table};
use crate::engine::sink::Delivery;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Lanes with an attempt on its way.
const LANES: usize = 64;
/// Deliveries looked at in one round.
const ROUND: usize = 1_000;
/// Webhook-made changes are announced this often.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// First key part of deliveries that were given up.
const DEAD: &str = "dead";
/// First key part of endpoints that said they are gone.
const DISABLED: &str = "endpoint-disabled";

/// The outgoing side. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    endpoints: BTreeMap<String, Endpoint>,
    connections: Arc<Connections>,
    client: Arc<dyn Post>,
    disabled: Mutex<HashSet<String>>,
}

/// A delivery that was given up, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The delivery as it last was.
    pub delivery: Delivery,
    /// `rejected`, `exhausted`, `aborted`, `no_endpoint`.
    pub reason: String,
}

impl Outbox {
    /// Over the engine's outbox; attempts leave through `client`.
    pub fn open(
        engine: Engine,
        endpoints: BTreeMap<String, Endpoint>,
        connections: Arc<Connections>,
        client: Arc<dyn Post>,
    ) -> Result<Self, Error> {
        let disabled = engine.marks(Table::Setting, &[DISABLED])?.into_iter().filter_map(|(mut key, _)| key.pop()).collect();
        Ok(Outbox { inner: Arc::new(Inner { engine, endpoints, connections, client, disabled: Mutex::new(disabled) }) })
    }

    /// Delivers until `stop` is cancelled or the store fails. An attempt cut off by a stop is made again.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let work = async { tokio::try_join!(deliver(&self.inner), announce(&self.inner)).map(drop) };
        tokio::select! {
            done = work => match done {
                Err(Error::Stopped) => Ok(()),
                done => done,
            },
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Deliveries that were given up.
    pub fn dead(&self) -> Result<Vec<Dead>, Error> {
        let marks = self.inner.engine.marks(Table::Setting, &[DEAD])?;
        Ok(marks.iter().filter_map(|(_, value)| read_dead(value)).collect())
    }

    /// Endpoints that get nothing because they said they are gone.
    pub fn disabled(&self) -> Vec<String> {
        let disabled = self.inner.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        disabled.iter().cloned().collect()
    }

    /// Delivers to an endpoint again, from its first undelivered on.
    pub async fn enable(&self, endpoint: &str) -> Result<(), Error> {
        let marks = vec![Mark::delete(Table::Setting, &[DISABLED, endpoint])];
        self.inner.engine.commit(Batch { marks, ..Batch::default() }).await?;
        self.inner.disabled.lock().unwrap_or_else(PoisonError::into_inner).remove(endpoint);
        Ok(())
    }
}

fn read_dead(value: &[u8]) -> Option<Dead> {
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    let delivery = serde_json::from_str(value.get("delivery")?.as_str()?).ok()?;
    Some(Dead { delivery, reason: value.get("reason")?.as_str()?.to_owned() })
}

async fn announce(inner: &Inner) -> Result<(), Error> {
    let clock = inner.engine.clock();
    let mut watermark = inner.engine.watermark();
    loop {
        if watermark.changed().await.is_err() {
            return Err(Error::Stopped);
        }
        clock.sleep(ANNOUNCE).await;
        watermark.borrow_and_update();
        inner.engine.announce_webhooks().await?;
    }
}

async fn deliver(inner: &Arc<Inner>) -> Result<(), Error> {
    let clock = inner.engine.clock();
    let mut changed = inner.engine.outbox_changed();
    let mut busy: HashSet<String> = HashSet::new();
    let mut tasks: JoinSet<(String, Result<(), Error>)> = JoinSet::new();
    loop {
        changed.borrow_and_update();
        let due = launch(inner, &mut busy, &mut tasks)?;
        let tick = async {
            match due {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            seen = changed.changed() => if seen.is_err() { return Err(Error::Stopped) },
            () = tick => {}
            Some(done) = tasks.join_next() => match done {
                Ok((lane, result)) => {
                    busy.remove(&lane);
                    result?;
                }
                // Its lane stays closed until a restart: going on could break the order.
                Err(died) => tracing::error!(%died, "an attempt to deliver ended early"),
            },
        }
    }
}

/// Begins attempts of heads that are due; answers when the next one is.
fn launch(
    inner: &Arc<Inner>,
    busy: &mut HashSet<String>,
    tasks: &mut JoinSet<(String, Result<(), Error>)>,
) -> Result<Option<Timestamp>, Error> {
    let now = inner.engine.clock().now();
    let mut heads: HashSet<String> = HashSet::new();
    let mut earliest: Option<Timestamp> = None;
    for delivery in inner.engine.outbox(ROUND)? {
        let first = heads.insert(delivery.lane.clone());
        if !first || busy.contains(&delivery.lane) || inner.is_disabled(&delivery.endpoint) {
            continue;
        }
        if delivery.next_at > now {
            earliest = Some(earliest.map_or(delivery.next_at, |at| at.min(delivery.next_at)));
        } else if tasks.len() < LANES {
            let (inner, lane) = (inner.clone(), delivery.lane.clone());
            busy.insert(lane.clone());
            tasks.spawn(async move { (lane, inner.one(delivery).await) });
        }
    }
    Ok(earliest)
}

impl Inner {
    fn is_disabled(&self, endpoint: &str) -> bool {
        self.disabled.lock().unwrap_or_else(PoisonError::into_inner).contains(endpoint)
    }

    /// One attempt, and what follows from it.
    async fn one(&self, delivery: Delivery) -> Result<(), Error> {
        let clock = self.engine.clock();
        let Some((target, schedule)) = target(&self.endpoints, &self.connections, &delivery.endpoint) else {
            return self.bury(&delivery, "no_endpoint").await;
        };
        match attempt(self.client.as_ref(), &target, &delivery, clock.now()).await {
            Attempt::Delivered { status } => {
                tracing::debug!(webhook = %delivery.id, status, "webhook delivered");
                self.engine.settle(&delivery.id, None).await
            }
            Attempt::Failed(failed) => self.failed(delivery, failed, &schedule).await,
        }
    }

    async fn failed(&self, delivery: Delivery, failed: Failed, schedule: &[u64]) -> Result<(), Error> {
        let (endpoint, tries) = (&delivery.endpoint, delivery.tries + 1);
        tracing::warn!(webhook = %delivery.id, endpoint, tries, why = %failed.text, "webhook not delivered");
        match next(&delivery, &failed, schedule, self.engine.clock().now()) {
            Next::Again(after) => self.engine.settle(&delivery.id, Some(after)).await,
            Next::Dead(reason) => self.bury(&delivery, reason).await,
            Next::Disable(after) => {
                tracing::error!(endpoint, "the endpoint answered 410 and is disabled; enable it to go on");
                let at = self.engine.clock().now().to_string();
                let marks = vec![Mark::put(Table::Setting, &[DISABLED, endpoint], at)];
                self.engine.commit(Batch { marks, ..Batch::default() }).await?;
                self.disabled.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.clone());
                self.engine.settle(&delivery.id, Some(after)).await
            }
        }
    }

    /// Keeps a delivery that is given up, then takes it out: a crash between the two repeats this, nothing else.
    async fn bury(&self, delivery: &Delivery, reason: &str) -> Result<(), Error> {
        tracing::error!(webhook = %delivery.id, endpoint = %delivery.endpoint, reason, "webhook given up");
        let text = serde_json::to_string(delivery).map_err(|e| Error::Storage(e.to_string()))?;
        let at = self.engine.clock().now().to_string();
        let value = json!({"format": 1, "reason": reason, "at": at, "delivery": text}).to_string();
        let marks = vec![Mark::put(Table::Setting, &[DEAD, &delivery.id], value)];
        self.engine.commit(Batch { marks, ..Batch::default() }).await?;
        self.engine.settle(&delivery.id, None).await
    }
}
