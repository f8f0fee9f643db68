//! Trips of people to a provider and back, as they are stored: from their departure until they are back, ten minutes at most.
//!
//! Promises: a trip is taken out at its first way back, so that it counts once; what names it is stored as a hash.

use super::token;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::keyspaces::FLOW;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a trip may take.
pub const LASTS: Duration = Duration::from_secs(10 * 60);
/// Trips at one time.
const OPEN_MAX: usize = 20_000;
/// Trips that are forgotten by one commit.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// A trip.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Flow {
    /// The session it belongs to, by the hash of its token.
    pub session: String,
    /// What is connected.
    pub integration: String,
    /// What proves that whoever comes back with the code departed here (RFC 7636).
    pub verifier: Option<String>,
    /// Where the way back leads, which the provider compares.
    pub redirect_uri: String,
    /// Hash of what the browser that departed keeps.
    pub nonce: String,
    /// The browser that waits on a socket.
    pub socket: Option<String>,
    /// What was entered for the connection.
    pub fields: Map<String, Value>,
    /// What was asked for.
    pub scopes: Vec<String>,
    /// When it counts no more.
    pub expires_at: Timestamp,
}

/// All trips of a shard.
pub(super) struct Flows {
    engine: Engine,
    shard: u16,
    /// The end of each, by the hash of its state.
    open: Mutex<BTreeMap<String, Timestamp>>,
    /// Held while one is taken out: it counts once.
    taking: tokio::sync::Mutex<()>,
}

impl Flows {
    /// Reads what is stored.
    pub fn open(engine: Engine, shard: u16) -> Result<Flows, Error> {
        let mut open = BTreeMap::new();
        for (key, value) in engine.marks(FLOW, &[])? {
            let ([hash], Ok(flow)) = (key.as_slice(), read(&value)) else { continue };
            open.insert(hash.clone(), flow.expires_at);
        }
        Ok(Flows { engine, shard, open: Mutex::new(open), taking: tokio::sync::Mutex::new(()) })
    }

    /// A name for a trip: the `state` that the provider hands back.
    pub fn name(&self) -> String {
        token::new("", self.shard)
    }

    /// Stores a trip; false where there are too many.
    pub async fn put(&self, state: &str, flow: &Flow) -> Result<bool, Error> {
        self.forget_expired().await?;
        if self.open.lock().len() >= OPEN_MAX {
            return Ok(false);
        }
        let hash = token::hash(state);
        let text = serde_json::to_vec(flow).map_err(|error| Error::Storage(format!("a sign-in: {error}")))?;
        self.engine.put_marks(vec![Mark::put(FLOW, &[&hash], text)]).await?;
        self.open.lock().insert(hash, flow.expires_at);
        Ok(true)
    }

    /// Takes a trip out. One that took too long is none.
    pub async fn take(&self, state: &str) -> Result<Option<Flow>, Error> {
        if token::shard_of("", state) != Some(self.shard) {
            return Ok(None);
        }
        let hash = token::hash(state);
        let _once = self.taking.lock().await;
        let Some(stored) = self.engine.mark(FLOW, &[&hash])? else { return Ok(None) };
        self.engine.put_marks(vec![Mark::delete(FLOW, &[&hash])]).await?;
        self.open.lock().remove(&hash);
        let flow = read(&stored)?;
        Ok(Some(flow).filter(|flow| flow.expires_at > self.engine.clock().now()))
    }

    async fn forget_expired(&self) -> Result<(), Error> {
        let now = self.engine.clock().now();
        let over = |(hash, expires_at): (&String, &Timestamp)| (*expires_at <= now).then(|| hash.clone());
        let expired: Vec<String> = self.open.lock().iter().filter_map(over).take(FORGOTTEN_AT_ONCE).collect();
        if expired.is_empty() {
            return Ok(());
        }
        self.engine.put_marks(expired.iter().map(|hash| Mark::delete(FLOW, &[hash])).collect()).await?;
        let mut open = self.open.lock();
        for hash in &expired {
            open.remove(hash);
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<Flow, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Storage(format!("a sign-in cannot be read: {error}")))
}
