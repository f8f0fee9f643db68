//! Connect sessions: leave for one person to make one connection of each integration that is allowed to them, for half an hour.
//!
//! Promises: whoever does not hold the token of a session can do nothing with it, and what is stored does not show it; a session
//! that was answered is there after a crash; expired ones are forgotten.

use super::token;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::keyspaces::SESSION;
use crate::registry::connections::AccountKey;
use crate::registry::end_user::EndUser;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What tokens of sessions begin with.
pub const PREFIX: &str = "nango_connect_session_";
/// How long a session lasts.
pub const LASTS: Duration = Duration::from_secs(30 * 60);
/// Live sessions of an environment.
pub const LIVE_MAX: usize = 10_000;
/// Sessions that are forgotten by one commit.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Isolation scope.
    pub environment: String,
    /// Who connects.
    pub end_user: Option<EndUser>,
    /// Labels of the connections it makes.
    pub tags: BTreeMap<String, String>,
    /// Integrations that may be connected; all if absent.
    pub allowed: Option<Vec<String>>,
    /// What is asked of providers beside what the integration says, by integration.
    pub defaults: BTreeMap<String, SessionDefaults>,
    /// Outgoing webhooks of its connections go only there.
    pub webhook_url_override: Option<String>,
    /// The connection that is to be signed in again, instead of a new one.
    pub reconnect: Option<AccountKey>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What became of it, by integration.
    #[serde(default)]
    pub outcomes: BTreeMap<String, ConnectOutcome>,
}

/// What a session asks beside what an integration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionDefaults {
    /// Scopes of the user, for providers that have such.
    #[serde(default)]
    pub user_scopes: Option<String>,
    /// Parameters of the authorization URL.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// Fields of the connection; `oauth_scopes_override` stands for other scopes than the integration's.
    #[serde(default)]
    pub connection_config: Map<String, Value>,
}

/// What became of an attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectOutcome {
    /// There is a connection of this id.
    Connected(String),
    /// There is none: a code, and a sentence for people.
    Failed(String, String),
}

impl Session {
    /// Whether it may connect an integration.
    pub fn allows(&self, integration: &str) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| name == integration);
        let again = self.reconnect.as_ref().is_none_or(|key| key.source == integration);
        again && self.allowed.as_ref().is_none_or(named)
    }
}

/// All sessions of a shard.
pub struct Sessions {
    engine: Engine,
    shard: u16,
    /// Environment and end of each, by the hash of its token.
    live: Mutex<BTreeMap<String, (String, Timestamp)>>,
    /// Held from reading the old value to the commit of the new one.
    writing: tokio::sync::Mutex<()>,
}

impl Sessions {
    /// Reads what is stored.
    pub(super) fn open(engine: Engine, shard: u16) -> Result<Sessions, Error> {
        let mut live = BTreeMap::new();
        for (key, value) in engine.marks(SESSION, &[])? {
            let ([hash], Ok(session)) = (key.as_slice(), read(&value)) else { continue };
            live.insert(hash.clone(), (session.environment, session.expires_at));
        }
        Ok(Sessions { engine, shard, live: Mutex::new(live), writing: tokio::sync::Mutex::new(()) })
    }

    /// Stores a session; its token, or nothing where the environment has too many.
    pub async fn create(&self, session: &Session) -> Result<Option<String>, Error> {
        self.forget_expired().await?;
        let token = token::new(PREFIX, self.shard);
        let hash = token::hash(&token);
        {
            let mut live = self.live.lock();
            if live.values().filter(|(of, _)| *of == session.environment).count() >= LIVE_MAX {
                return Ok(None);
            }
            live.insert(hash.clone(), (session.environment.clone(), session.expires_at));
        }
        let stored = self.engine.put_marks(vec![mark(&hash, session)?]).await;
        if stored.is_err() {
            self.live.lock().remove(&hash);
        }
        stored.map(|()| Some(token))
    }

    /// The session of a token, while it lasts. Blocks.
    pub fn get(&self, token: &str) -> Result<Option<Session>, Error> {
        if token::shard_of(PREFIX, token) != Some(self.shard) {
            return Ok(None);
        }
        self.of_hash(&token::hash(token))
    }

    /// The session of a token's hash, while it lasts. Blocks.
    pub(super) fn of_hash(&self, hash: &str) -> Result<Option<Session>, Error> {
        let stored = self.engine.mark(SESSION, &[hash])?;
        let session = stored.as_deref().map(read).transpose()?;
        let now = self.engine.clock().now();
        Ok(session.filter(|session| session.expires_at > now))
    }

    /// Notes what became of a session's attempt to connect an integration.
    pub(super) async fn note_of(&self, hash: &str, integration: &str, outcome: ConnectOutcome) -> Result<(), Error> {
        let _one_at_a_time = self.writing.lock().await;
        let Some(mut session) = self.of_hash(hash)? else { return Ok(()) };
        // A connection that was made stays made, whatever comes of an attempt beside it.
        if matches!(session.outcomes.get(integration), Some(ConnectOutcome::Connected(_))) {
            return Ok(());
        }
        session.outcomes.insert(integration.to_owned(), outcome);
        self.engine.put_marks(vec![mark(hash, &session)?]).await
    }

    /// Ends a session.
    pub async fn delete(&self, token: &str) -> Result<(), Error> {
        let _one_at_a_time = self.writing.lock().await;
        let hash = token::hash(token);
        self.engine.put_marks(vec![Mark::delete(SESSION, &[&hash])]).await?;
        self.live.lock().remove(&hash);
        Ok(())
    }

    async fn forget_expired(&self) -> Result<(), Error> {
        let now = self.engine.clock().now();
        let expired: Vec<String> = {
            let live = self.live.lock();
            let over = live.iter().filter(|(_, (_, expires_at))| *expires_at <= now);
            over.map(|(hash, _)| hash.clone()).take(FORGOTTEN_AT_ONCE).collect()
        };
        if expired.is_empty() {
            return Ok(());
        }
        self.engine.put_marks(expired.iter().map(|hash| Mark::delete(SESSION, &[hash])).collect()).await?;
        let mut live = self.live.lock();
        for hash in &expired {
            live.remove(hash);
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<Session, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Storage(format!("a connect session cannot be read: {error}")))
}

fn mark(hash: &str, session: &Session) -> Result<Mark, Error> {
    let text = serde_json::to_vec(session).map_err(|error| Error::Storage(format!("a connect session: {error}")))?;
    Ok(Mark::put(SESSION, &[hash], text))
}
