//! The members of the `nango` object that are no requests and no writes: what is known of the connection, and what is kept of it.

use super::action::told;
use super::locks::Holder;
use super::secrets::Handles;
use crate::actions::{ActionFailure, Chain, NESTING_MAX};
use crate::rest::RestSource;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::source::{Connection, Failure};
use syncline_runtime::wire::Answer;

/// Who keeps connections, knows where their webhooks arrive, and runs what else there is of them.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Another connection of the same environment, for requests in its name.
    fn connection(&self, environment: &str, source: &str, id: &str) -> Result<Arc<Connection>, Failure>;

    /// What is known of another connection of the same environment, as [`described`] says it.
    async fn describe(&self, environment: &str, source: &str, id: &str) -> Result<Value, Failure>;

    /// Stores the metadata of a connection.
    async fn set_metadata(&self, source: &str, connection: &Connection, metadata: Value) -> Result<(), Failure>;

    /// Where the provider's webhooks for this connection arrive.
    fn webhook_url(&self, source: &str, connection: &Connection) -> Option<String>;

    /// Runs an action from within a function; gives its output as JSON.
    async fn trigger_action(&self, environment: &str, call: InnerCall) -> Result<String, ActionFailure>;

    /// Begins runs of syncs now; `full` lists everything again.
    async fn trigger_syncs(&self, environment: &str, syncs: NamedSyncs, full: bool) -> Result<(), Failure>;

    /// Puts paused syncs on their schedules again.
    async fn start_syncs(&self, environment: &str, syncs: NamedSyncs) -> Result<(), Failure>;
}

/// An action that a function calls.
pub struct InnerCall {
    /// Its source.
    pub source: String,
    /// For whom.
    pub connection: String,
    /// Its name.
    pub action: String,
    /// What it is given.
    pub input: Option<Value>,
    /// What the caller is part of.
    pub chain: Chain,
}

/// Syncs as a function names them.
#[derive(Clone)]
pub struct NamedSyncs {
    /// Their source.
    pub source: String,
    /// Of whom; all connections if nobody is named.
    pub connection: Option<String>,
    /// Names, each with its variant if one is named.
    pub syncs: Vec<(String, Option<String>)>,
}

/// Answers members during one execution.
pub(super) struct Members {
    pub(super) source: Arc<RestSource>,
    pub(super) accounts: Arc<dyn Accounts>,
    pub(super) connection: Arc<Connection>,
    pub(super) handles: Arc<Handles>,
    /// The metadata, own writes included.
    pub(super) metadata: Mutex<Value>,
    /// What the execution is part of.
    pub(super) chain: Chain,
    /// The locks it holds.
    pub(super) locks: Holder,
}

impl Members {
    /// Answers a member that the code called with these arguments (a JSON array).
    pub(super) async fn answer(&self, name: &str, arguments: &str) -> Answer {
        let arguments: Vec<Value> = serde_json::from_str(arguments).unwrap_or_default();
        if name == "triggerAction" {
            return match self.trigger_action(arguments).await {
                Ok(output) => Answer::Json(output.into_bytes()),
                Err(why) => told(why),
            };
        }
        let answered = match name {
            "getConnection" => self.connection(&arguments).await,
            "getMetadata" => Ok(self.metadata.lock().clone()),
            "setMetadata" => self.set_metadata(&arguments, false).await,
            "updateMetadata" => self.set_metadata(&arguments, true).await,
            "getToken" => self.token(),
            "getIntegration" => Ok(self.integration()),
            "getWebhookURL" => {
                Ok(self.accounts.webhook_url(self.name(), &self.connection).map_or(Value::Null, Value::from))
            }
            "getEnvironmentVariables" => Ok(self.environment()),
            "triggerSync" => self.trigger_sync(&arguments).await,
            "startSync" => self.start_sync(&arguments).await,
            "tryAcquireLock" => self.lock(&arguments),
            "releaseLock" => Ok(key_of(&arguments).is_some_and(|key| self.locks.release(key)).into()),
            "releaseAllLocks" => {
                self.locks.release_all();
                Ok(Value::Null)
            }
            other => {
                Err(Failure::lasting("unsupported", format!("unsupported: nango.{other} is not there in this release")))
            }
        };
        match answered {
            Ok(value) => Answer::json(&value),
            Err(why) => Answer::failed(why.code, why.message),
        }
    }

    fn name(&self) -> &str {
        &self.source.definition().source
    }

    /// The connection as it is on the wire: this one, or another of the same environment.
    async fn connection(&self, arguments: &[Value]) -> Result<Value, Failure> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_str);
        let (source, id) = (text(0).unwrap_or(self.name()), text(1).unwrap_or(&self.connection.id));
        if source == self.name() && id == self.connection.id {
            let mut own = described(source, &self.connection);
            own["credentials"] = Value::Object(self.handles.shown().clone());
            own["metadata"] = shown_metadata(&self.metadata.lock());
            return Ok(own);
        }
        self.accounts.describe(&self.connection.environment, source, id).await
    }

    async fn set_metadata(&self, arguments: &[Value], merge: bool) -> Result<Value, Failure> {
        let Some(Value::Object(given)) = arguments.first() else {
            return Err(Failure::lasting("invalid_metadata", "metadata is an object"));
        };
        let mut whole = match (merge, self.metadata.lock().clone()) {
            (true, Value::Object(known)) => known,
            _ => Map::new(),
        };
        whole.extend(given.clone());
        let metadata = Value::Object(whole);
        self.chain.begins_effect().await?;
        self.accounts.set_metadata(self.name(), &self.connection, metadata.clone()).await?;
        *self.metadata.lock() = metadata;
        Ok(Value::Null)
    }

    async fn trigger_action(&self, arguments: Vec<Value>) -> Result<String, ActionFailure> {
        let mut given = arguments.into_iter();
        let mut text = |what: &str| match given.next() {
            Some(Value::String(text)) => Ok(text),
            _ => Err(ActionFailure::new("invalid_call", format!("triggerAction: {what} is a text"))),
        };
        let (source, connection) = (text("the source")?, text("the connection")?);
        let action = text("the name of the action")?;
        if self.chain.depth >= NESTING_MAX {
            let message = format!("actions nest at most {NESTING_MAX} deep, so `{action}` is not begun");
            return Err(ActionFailure::new(ActionFailure::TOO_DEEP, message));
        }
        // What is `undefined` in the code comes as null.
        let input = given.next().filter(|input| !input.is_null());
        let call = InnerCall { source, connection, action, input, chain: self.chain.clone() };
        self.accounts.trigger_action(&self.connection.environment, call).await
    }

    async fn trigger_sync(&self, arguments: &[Value]) -> Result<Value, Failure> {
        let full = arguments.get(3) == Some(&Value::Bool(true));
        let connection = arguments.get(1).and_then(Value::as_str);
        let syncs = self.syncs(arguments.first(), connection, arguments.get(2).map(std::slice::from_ref))?;
        self.chain.begins_effect().await?;
        self.accounts.trigger_syncs(&self.connection.environment, syncs, full).await.map(|()| Value::Null)
    }

    async fn start_sync(&self, arguments: &[Value]) -> Result<Value, Failure> {
        let connection = arguments.get(2).and_then(Value::as_str);
        let list = arguments.get(1).and_then(Value::as_array).map(Vec::as_slice);
        let syncs = self.syncs(arguments.first(), connection, list)?;
        self.chain.begins_effect().await?;
        self.accounts.start_syncs(&self.connection.environment, syncs).await.map(|()| Value::Null)
    }

    fn syncs(
        &self,
        source: Option<&Value>,
        connection: Option<&str>,
        names: Option<&[Value]>,
    ) -> Result<NamedSyncs, Failure> {
        let source = source.and_then(Value::as_str).unwrap_or(self.name()).to_owned();
        let named = |sync: &Value| match sync {
            Value::String(name) => Some((name.clone(), None)),
            sync => {
                let variant = sync["variant"].as_str().map(str::to_owned);
                Some((sync["name"].as_str()?.to_owned(), variant))
            }
        };
        let syncs: Option<Vec<_>> = names.unwrap_or_default().iter().map(named).collect();
        let syncs = syncs.filter(|syncs| !syncs.is_empty()).ok_or_else(|| {
            Failure::lasting("invalid_call", "syncs are named by text, or by an object of name and variant")
        })?;
        Ok(NamedSyncs { source, connection: connection.map(str::to_owned), syncs })
    }

    fn lock(&self, arguments: &[Value]) -> Result<Value, Failure> {
        let ttl = arguments.first().and_then(|lock| lock["ttlMs"].as_u64()).map(Duration::from_millis);
        self.locks.acquire(key_of(arguments).unwrap_or_default(), ttl).map(Value::from)
    }

    /// The token, or the credentials where there is more than one value.
    fn token(&self) -> Result<Value, Failure> {
        let shown = self.handles.shown();
        let known = ["access_token", "token", "api_key", "apiKey"].iter().find_map(|name| shown.get(*name));
        Ok(known.cloned().unwrap_or_else(|| Value::Object(shown.clone())))
    }

    fn integration(&self) -> Value {
        let definition = self.source.definition();
        let provider = definition.preset.as_deref().unwrap_or(&definition.source);
        json!({"unique_key": definition.source, "provider": provider, "display_name": definition.title})
    }

    fn environment(&self) -> Value {
        let env = &self.source.definition().functions.env;
        match env.is_empty() {
            true => Value::Null,
            false => env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect(),
        }
    }
}

/// The key of the lock that is meant.
fn key_of(arguments: &[Value]) -> Option<&str> {
    arguments.first()?["key"].as_str()
}

/// A connection as functions see it. Credentials of others are never shown: their own requests sign them in.
pub fn described(source: &str, connection: &Connection) -> Value {
    json!({
        "connection_id": connection.id,
        "provider_config_key": source,
        "connection_config": connection.fields,
        "metadata": shown_metadata(&connection.metadata),
        "tags": connection.tags,
        "credentials": {},
    })
}

fn shown_metadata(metadata: &Value) -> Value {
    if metadata.is_null() { Value::Object(Map::new()) } else { metadata.clone() }
}
