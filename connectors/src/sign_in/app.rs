//! Who the app is at a provider: what the definition says, and what is known elsewhere where it says nothing.

use crate::definition::TokenAuth;
use serde_json::{Map, Value};
use std::fmt;

/// The app as a provider knows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppCredentials {
    /// Its id.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<String>,
    /// What it asks to be let to do; what the definition says if absent.
    pub scopes: Option<Vec<String>>,
}

/// Who knows apps beside definitions: integrations that were made while the program runs.
pub trait Apps: Send + Sync {
    /// The app of a source in an environment; what it leaves out is the definition's.
    fn of(&self, environment: &str, source: &str) -> Option<AppCredentials>;
}

/// Nobody: what definitions say is all there is.
pub struct OfDefinition;

impl Apps for OfDefinition {
    fn of(&self, _: &str, _: &str) -> Option<AppCredentials> {
        None
    }
}

impl AppCredentials {
    /// What counts for a connection: its own credentials, then `known`, then the definition.
    pub fn of(auth: &TokenAuth, known: Option<AppCredentials>, own: &Map<String, Value>) -> AppCredentials {
        let known = known.unwrap_or_default();
        let text = |name: &str| own.get(name).and_then(Value::as_str).map(str::to_owned);
        AppCredentials {
            client_id: text("client_id").or(known.client_id).or_else(|| auth.client_id.clone()),
            client_secret: text("client_secret").or(known.client_secret).or_else(|| auth.client_secret.clone()),
            scopes: Some(known.scopes.unwrap_or_else(|| auth.scopes.clone())),
        }
    }
}

impl fmt::Debug for AppCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppCredentials({:?})", self.client_id)
    }
}
