//! How people connect their accounts: sessions that a customer's app opens for them, and what becomes of them.
//!
//! | file | what |
//! |---|---|
//! | [`sessions`] | leave for one person to make one connection of each integration |
//! | [`token`] | tokens that stand for what is stored |
//!
//! Promises: a session makes one connection of an integration, or signs one in again that was there; what came of it is told to
//! whoever holds the session.

pub mod sessions;
pub mod token;

use crate::app::App;
use crate::app::connections::ConnectionError;
use crate::engine::pipeline::Error;
use crate::registry::connections::AccountKey;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sessions::{ConnectOutcome, LASTS, LIVE_MAX, Session, Sessions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is needed to connect people's accounts.
pub struct Connect {
    /// Sessions.
    pub sessions: Sessions,
    /// Session and integration of attempts that are under way.
    under_way: Mutex<BTreeSet<(String, String)>>,
}

/// An attempt to connect that is under way, until this is dropped.
struct Attempt<'a> {
    connect: &'a Connect,
    of: (String, String),
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.connect.under_way.lock().remove(&self.of);
    }
}

impl Connect {
    pub(super) fn open(engine: &crate::engine::Engine, shard: u16) -> Result<Connect, Error> {
        Ok(Connect { sessions: Sessions::open(engine.clone(), shard)?, under_way: Mutex::default() })
    }

    /// Begins an attempt, unless one of the same session and integration is under way.
    fn begin(&self, token: &str, integration: &str) -> Option<Attempt<'_>> {
        let of = (token::hash(token), integration.to_owned());
        self.under_way.lock().insert(of.clone()).then(|| Attempt { connect: self, of })
    }
}

/// Why nothing was connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectRefused {
    /// No session, or one that is over.
    #[error("the session is not known, or is over: open the link anew")]
    Session,
    /// Not for this session.
    #[error("this session may not connect `{0}`")]
    NotAllowed(String),
    /// There is none.
    #[error("there is no integration `{0}`")]
    Integration(String),
    /// The session has connected it.
    #[error("this session has connected `{0}` already: open a new one")]
    Done(String),
    /// The session connects it at this moment.
    #[error("this session is connecting `{0}` at this moment")]
    Busy(String),
    /// The environment has too many sessions.
    #[error("there are {LIVE_MAX} live sessions, which is the most: they end by themselves within {} minutes", LASTS.as_secs() / 60)]
    TooMany,
    /// What was entered does not make a connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<Error> for ConnectRefused {
    fn from(error: Error) -> Self {
        ConnectRefused::Connection(error.into())
    }
}

/// What somebody enters to connect an account.
#[derive(Default)]
pub struct EnteredAccount {
    /// Credentials, by the names that the definition has for them.
    pub credentials: Map<String, Value>,
    /// Fields of the connection.
    pub fields: Map<String, Value>,
}

impl App {
    /// Opens a session; its token.
    pub async fn open_session(&self, session: &Session) -> Result<String, ConnectRefused> {
        self.connect.sessions.create(session).await?.ok_or(ConnectRefused::TooMany)
    }

    /// The session of a token, where it may connect an integration.
    pub async fn session_for(&self, token: &str, integration: &str) -> Result<Session, ConnectRefused> {
        let session = self.session(token).await?;
        if self.integrations.get(&session.environment, integration).is_none() {
            return Err(ConnectRefused::Integration(integration.to_owned()));
        }
        if !session.allows(integration) {
            return Err(ConnectRefused::NotAllowed(integration.to_owned()));
        }
        match session.outcomes.get(integration) {
            Some(ConnectOutcome::Connected(_)) => Err(ConnectRefused::Done(integration.to_owned())),
            _ => Ok(session),
        }
    }

    /// The session of a token.
    pub async fn session(&self, token: &str) -> Result<Session, ConnectRefused> {
        self.connect.sessions.get(token)?.ok_or(ConnectRefused::Session)
    }

    /// Connects what was entered under a session, as a new connection or as the one that is signed in again, and notes what came
    /// of it.
    pub async fn connect_entered(
        self: &Arc<Self>,
        token: &str,
        integration: &str,
        entered: EnteredAccount,
    ) -> Result<AccountKey, ConnectRefused> {
        let attempt = self.connect.begin(token, integration);
        let _attempt = attempt.ok_or_else(|| ConnectRefused::Busy(integration.to_owned()))?;
        let session = self.session_for(token, integration).await?;
        let connected = self.connect_under(&session, integration, entered).await;
        let outcome = match &connected {
            Ok(key) => ConnectOutcome::Connected(key.id.clone()),
            Err(why) => ConnectOutcome::Failed("connection_failed".to_owned(), why.to_string()),
        };
        self.connect.sessions.note(token, integration, outcome).await?;
        connected.map_err(ConnectRefused::from)
    }

    async fn connect_under(
        self: &Arc<Self>,
        session: &Session,
        integration: &str,
        entered: EnteredAccount,
    ) -> Result<AccountKey, ConnectionError> {
        let mut said = Map::new();
        said.insert("credentials".to_owned(), Value::Object(entered.credentials));
        if let Some(key) = &session.reconnect {
            self.sign_in_again(key, &said).await?;
            return Ok(key.clone());
        }
        let key = AccountKey::new(&session.environment, integration, &self.connection_id());
        said.insert("environment".to_owned(), session.environment.as_str().into());
        let tags = session.tags.iter().map(|(name, value)| Value::from(format!("{name}={value}")));
        said.insert("tags".to_owned(), tags.collect());
        let receiver = session.webhook_url_override.as_deref();
        said.extend(receiver.map(|url| ("webhook_url_override".to_owned(), url.into())));
        if let Some(user) = &session.end_user {
            let user = serde_json::to_value(user).map_err(|why| Error::Storage(why.to_string()))?;
            said.insert("end_user".to_owned(), user);
        }
        let defaults = session.defaults.get(integration);
        let mut fields = defaults.map(|defaults| defaults.connection_config.clone()).unwrap_or_default();
        fields.remove("oauth_scopes_override");
        fields.extend(entered.fields);
        self.create_connection(&key, Value::Object(said), fields).await?;
        Ok(key)
    }
}
