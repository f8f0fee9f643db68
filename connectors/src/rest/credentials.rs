//! Credentials as they are when a request is made, which may be others than those a run began with.
//!
//! Asked for each page; after a 401 once more, and if there are others by then the page is asked for once more with them.

use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure};

/// Who knows the credentials of connections.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Those that a connection of a source has now; `None` if they are those it bears.
    async fn current(&self, source: &str, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure>;

    /// Others than those the connection bears, which the provider has refused; `None` if there are none.
    async fn refused(&self, source: &str, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure>;
}

/// Those a connection bears, always.
pub struct AsBorne;

#[async_trait]
impl Credentials for AsBorne {
    async fn current(&self, _: &str, _: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        Ok(None)
    }

    async fn refused(&self, _: &str, _: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        Ok(None)
    }
}

/// The connection with other credentials.
pub(super) fn bearing(connection: &Arc<Connection>, credentials: Map<String, Value>) -> Arc<Connection> {
    Arc::new(Connection { credentials, ..(**connection).clone() })
}
