//! The members of the `nango` object that are no requests and no writes: what is known of the connection, and what is kept of it.

use super::secrets::Handles;
use crate::rest::RestSource;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure};
use syncline_runtime::wire::Answer;

/// Who keeps connections, and knows where their webhooks arrive.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Another connection of the same environment.
    fn connection(&self, environment: &str, source: &str, id: &str) -> Option<Arc<Connection>>;

    /// Stores the metadata of a connection.
    async fn set_metadata(&self, source: &str, connection: &Connection, metadata: Value) -> Result<(), Failure>;

    /// Where the provider's webhooks for this connection arrive.
    fn webhook_url(&self, source: &str, connection: &Connection) -> Option<String>;
}

/// Answers members during one execution.
pub(super) struct Members {
    pub(super) source: Arc<RestSource>,
    pub(super) accounts: Arc<dyn Accounts>,
    pub(super) connection: Arc<Connection>,
    pub(super) handles: Arc<Handles>,
    /// The metadata, own writes included.
    pub(super) metadata: Mutex<Value>,
}

impl Members {
    /// Answers a member that the code called with these arguments (a JSON array).
    pub(super) async fn answer(&self, name: &str, arguments: &str) -> Answer {
        let arguments: Vec<Value> = serde_json::from_str(arguments).unwrap_or_default();
        let answered = match name {
            "getConnection" => self.connection(&arguments),
            "getMetadata" => Ok(self.metadata.lock().clone()),
            "setMetadata" => self.set_metadata(&arguments, false).await,
            "updateMetadata" => self.set_metadata(&arguments, true).await,
            "getToken" => self.token(),
            "getIntegration" => Ok(self.integration()),
            "getWebhookURL" => {
                Ok(self.accounts.webhook_url(self.name(), &self.connection).map_or(Value::Null, Value::from))
            }
            "getEnvironmentVariables" => Ok(self.environment()),
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
    fn connection(&self, arguments: &[Value]) -> Result<Value, Failure> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_str);
        let (source, id) = (text(0).unwrap_or(self.name()), text(1).unwrap_or(&self.connection.id));
        if source == self.name() && id == self.connection.id {
            return Ok(described(source, &self.connection, self.metadata.lock().clone(), self.handles.shown().clone()));
        }
        let other = self.accounts.connection(&self.connection.environment, source, id).ok_or_else(|| {
            Failure::lasting(
                "unknown_connection",
                format!("there is no connection `{id}` of `{source}` in this environment"),
            )
        })?;
        // Credentials of others are never shown: their own requests sign them in.
        Ok(described(source, &other, other.metadata.clone(), Map::new()))
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
        self.accounts.set_metadata(self.name(), &self.connection, metadata.clone()).await?;
        *self.metadata.lock() = metadata;
        Ok(Value::Null)
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

fn described(source: &str, connection: &Connection, metadata: Value, credentials: Map<String, Value>) -> Value {
    let metadata = if metadata.is_null() { Value::Object(Map::new()) } else { metadata };
    json!({
        "connection_id": connection.id,
        "provider_config_key": source,
        "connection_config": connection.fields,
        "metadata": metadata,
        "tags": connection.tags,
        "credentials": credentials,
    })
}
