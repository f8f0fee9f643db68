//! How people connect their accounts: sessions that a customer's app opens for them, and what becomes of them.
//!
//! | file | what |
//! |---|---|
//! | [`sessions`] | leave for one person to make one connection of each integration |
//! | [`sockets`] | browsers that wait for what comes of it |
//! | `flows` | trips of people to a provider and back, as they are stored |
//! | [`trips`] | where people are sent, and what their way back brings |
//! | [`token`] | tokens that stand for what is stored |
//!
//! Promises: a session makes one connection of an integration, or signs one in again that was there; what came of it is told to
//! whoever holds the session.

pub mod flows;
pub mod sessions;
pub mod sockets;
pub mod token;
pub mod trips;

use crate::app::App;
use crate::app::connections::ConnectionError;
use crate::connectors::http::Client;
use crate::engine::Engine;
use crate::engine::pipeline::Error;
use crate::engine::source::Failure;
use crate::registry::connections::AccountKey;
use flows::Flows;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sessions::{ConnectOutcome, LASTS, LIVE_MAX, Session, Sessions};
use sockets::Sockets;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is needed to connect people's accounts.
pub struct Connect {
    /// Sessions.
    pub sessions: Sessions,
    /// Browsers that wait.
    pub sockets: Sockets,
    flows: Flows,
    /// The way to token endpoints.
    client: Client,
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
    pub(super) fn open(engine: &Engine, client: Client, shard: u16) -> Result<Connect, Error> {
        let (sessions, flows) = (Sessions::open(engine.clone(), shard)?, Flows::open(engine.clone(), shard)?);
        Ok(Connect { sessions, sockets: Sockets::default(), flows, client, under_way: Mutex::default() })
    }

    /// Begins an attempt, unless one of the same session and integration is under way.
    fn begin(&self, session: &str, integration: &str) -> Option<Attempt<'_>> {
        let of = (session.to_owned(), integration.to_owned());
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
    /// Nobody signs in there.
    #[error("nobody signs in at the provider of `{0}`: its accounts are connected by what is entered")]
    NoSignIn(String),
    /// The definition, or the app, does not suffice.
    #[error(transparent)]
    Unusable(Failure),
    /// A field of the definition has no value, or not one that it takes: its name, and its name for people.
    #[error("`{1}` does not take this value")]
    Field(String, String),
    /// No such trip, or not this browser's, or one that took too long.
    #[error("this sign-in is not known, was used before, or took longer than {} minutes: begin again", flows::LASTS.as_secs() / 60)]
    Flow,
    /// The provider, or its answer: a word, and a sentence.
    #[error("{1}")]
    SignIn(String, String),
    /// The environment has too many sessions.
    #[error("there are {LIVE_MAX} live sessions, which is the most: they end by themselves within {} minutes", LASTS.as_secs() / 60)]
    TooMany,
    /// What was entered does not make a connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl ConnectRefused {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            ConnectRefused::Session => "invalid_connect_session_token",
            ConnectRefused::NotAllowed(_) => "integration_not_allowed",
            ConnectRefused::Integration(_) => "unknown_provider_config",
            ConnectRefused::Done(_) | ConnectRefused::Busy(_) => "session_used",
            ConnectRefused::TooMany => "too_many_sessions",
            ConnectRefused::NoSignIn(_) => "invalid_auth_mode",
            ConnectRefused::Unusable(failure) => failure.code,
            ConnectRefused::Field(..) => "invalid_field",
            ConnectRefused::Flow => "unknown_sign_in",
            ConnectRefused::SignIn(code, _) => code,
            ConnectRefused::Connection(ConnectionError::Test(_)) => "connection_test_failed",
            ConnectRefused::Connection(ConnectionError::Validation { .. }) => "connection_validation_failed",
            ConnectRefused::Connection(_) => "connection_failed",
        }
    }
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
    /// Fields of the connection: those that the definition asks for, and others that are kept with it.
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
        self.must_connect(&session, integration).map(|()| session)
    }

    /// The session of a token.
    pub async fn session(&self, token: &str) -> Result<Session, ConnectRefused> {
        self.connect.sessions.get(token)?.ok_or(ConnectRefused::Session)
    }

    fn must_connect(&self, session: &Session, integration: &str) -> Result<(), ConnectRefused> {
        if self.integrations.get(&session.environment, integration).is_none() {
            return Err(ConnectRefused::Integration(integration.to_owned()));
        }
        if !session.allows(integration) {
            return Err(ConnectRefused::NotAllowed(integration.to_owned()));
        }
        match session.outcomes.get(integration) {
            Some(ConnectOutcome::Connected(_)) => Err(ConnectRefused::Done(integration.to_owned())),
            _ => Ok(()),
        }
    }

    /// Connects what was entered under a session, as a new connection or as the one that is signed in again, and notes what came
    /// of it.
    pub async fn connect_entered(
        self: &Arc<Self>,
        token: &str,
        integration: &str,
        entered: EnteredAccount,
    ) -> Result<AccountKey, ConnectRefused> {
        self.session(token).await?;
        self.connect_session(&token::hash(token), integration, entered).await
    }

    /// The same by the hash of the token.
    async fn connect_session(
        self: &Arc<Self>,
        session: &str,
        integration: &str,
        entered: EnteredAccount,
    ) -> Result<AccountKey, ConnectRefused> {
        let attempt = self.connect.begin(session, integration);
        let _attempt = attempt.ok_or_else(|| ConnectRefused::Busy(integration.to_owned()))?;
        let known = self.connect.sessions.of_hash(session)?.ok_or(ConnectRefused::Session)?;
        self.must_connect(&known, integration)?;
        let connected = self.connect_under(&known, integration, entered).await.map_err(ConnectRefused::from);
        let outcome = match &connected {
            Ok(key) => ConnectOutcome::Connected(key.id.clone()),
            Err(why) => ConnectOutcome::Failed(why.code().to_owned(), why.to_string()),
        };
        self.connect.sessions.note_of(session, integration, outcome).await?;
        connected
    }

    async fn connect_under(
        self: &Arc<Self>,
        session: &Session,
        integration: &str,
        entered: EnteredAccount,
    ) -> Result<AccountKey, ConnectionError> {
        let (mut said, more) = self.sorted(integration, entered);
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
        fields.extend(more);
        self.create_connection(&key, Value::Object(said), fields).await?;
        Ok(key)
    }

    /// What was entered as a file would say it, and the fields beside.
    fn sorted(&self, integration: &str, entered: EnteredAccount) -> (Map<String, Value>, Map<String, Value>) {
        let definition = self.definitions.get(integration);
        let asked = definition.as_ref().map_or(&[][..], |definition| definition.auth.fields());
        let is_asked = |(name, _): &(String, Value)| asked.iter().any(|field| field.name == *name);
        // What is secret is entered like a credential.
        let (mut own, credentials): (Map<String, Value>, Map<String, Value>) =
            entered.credentials.into_iter().partition(is_asked);
        let (fields, more): (Map<String, Value>, Map<String, Value>) = entered.fields.into_iter().partition(is_asked);
        own.extend(fields);
        let parts = [("credentials", credentials), ("fields", own)].into_iter().filter(|(_, part)| !part.is_empty());
        (parts.map(|(name, part)| (name.to_owned(), Value::Object(part))).collect(), more)
    }
}
