//! Connections that are made, changed and deleted while the program runs, and everything that follows them: syncs with their
//! schedules, webhook URLs, events that waited, records.
//!
//! Promises: one that was answered is there after a crash; of one that was deleted nothing is left but what its webhooks and
//! changes were already told of, and a delete that broke off can be repeated. Creating and deleting go on when whoever asked goes
//! away.

use crate::app::App;
use crate::app::quarantine::{ENTRIES_MAX, QuarantineFilter};
use crate::engine::pipeline::Error;
use crate::engine::source::Failure;
use crate::ingest::poll::{Status, SyncError, SyncKey};
use crate::registry::connections::{Account, AccountKey, Refused};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for runs of a deleted connection to end.
const RUNS_END: Duration = Duration::from_secs(30);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// Why a connection was not made, changed or deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It may not be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The provider does not let it in.
    #[error("the provider was asked with it, and refused: {0}")]
    Test(Failure),
    /// A function of its source does not let it in.
    #[error("{message}")]
    Validation {
        /// Where and why.
        message: String,
        /// What the function says beside that.
        payload: Option<Value>,
    },
    /// The program stops.
    #[error("the program is stopping")]
    Stopping,
    /// Its syncs.
    #[error(transparent)]
    Syncs(#[from] SyncError),
}

impl From<Error> for ConnectionError {
    fn from(error: Error) -> Self {
        ConnectionError::Refused(Refused::Engine(error))
    }
}

impl App {
    /// Makes a connection and begins its syncs. `said` is what would stand in a file, with secrets written out; `fields` are told
    /// of the account beside what its provider tells.
    pub async fn create_connection(
        self: &Arc<Self>,
        key: &AccountKey,
        said: Value,
        mut fields: Map<String, Value>,
    ) -> Result<Arc<Account>, ConnectionError> {
        let (app, key) = (self.clone(), key.clone());
        to_its_end(async move {
            let mut draft = Arc::new(app.connections.draft(&key, said.clone())?);
            if let Some(source) = app.sources.get(&key.source) {
                let told = source.check(&draft).await.map_err(ConnectionError::Test)?;
                fields.extend(told.into_iter().flatten());
            }
            Arc::make_mut(&mut draft).fields = fields.clone();
            app.actions.validate(&key.source, draft).await?;
            let account = app.connections.create(&key, said, fields).await?;
            app.follow(&key).await?;
            app.actions.created(&key);
            Ok(account)
        })
        .await
    }

    /// Changes what a connection was made with; null takes something back. Where it changes who is asked, or in whose name, it
    /// has to be valid first.
    pub async fn update_connection(
        &self,
        key: &AccountKey,
        changes: &Map<String, Value>,
    ) -> Result<Arc<Account>, ConnectionError> {
        if ["credentials", "base_url"].iter().any(|name| changes.contains_key(*name)) {
            let draft = self.connections.draft_of_change(key, changes)?;
            self.actions.validate(&key.source, Arc::new(draft)).await?;
        }
        let account = self.connections.update(key, changes).await?;
        self.follow(key).await?;
        Ok(account)
    }

    /// Gives a connection other credentials, once its provider lets them in: its records and its places stay.
    pub async fn sign_in_again(
        &self,
        key: &AccountKey,
        changes: &Map<String, Value>,
    ) -> Result<Arc<Account>, ConnectionError> {
        let draft = Arc::new(self.connections.draft_of_change(key, changes)?);
        if let Some(source) = self.sources.get(&key.source) {
            source.check(&draft).await.map_err(ConnectionError::Test)?;
        }
        let account = self.update_connection(key, changes).await?;
        self.connections.clear_error(key, "auth").await?;
        Ok(account)
    }

    /// Deletes a connection with its syncs, its records and what lies in quarantine of it, after what its source does before.
    pub async fn delete_connection(self: &Arc<Self>, key: &AccountKey) -> Result<(), ConnectionError> {
        let (app, key) = (self.clone(), key.clone());
        to_its_end(async move {
            app.connections.deletable(&key)?;
            app.actions.before_deletion(&key).await?;
            app.remove_connection(&key).await
        })
        .await
    }

    async fn remove_connection(&self, key: &AccountKey) -> Result<(), ConnectionError> {
        self.connections.hide(key).await?;
        self.hooks.refresh();
        self.end_runs(key).await;
        self.hooks.forget_connection(&key.environment, &key.source, &key.id).await?;
        self.syncs.forget_connection(&key.environment, &key.source, &key.id).await?;
        for dataset in self.engine.datasets(&key.environment) {
            if *dataset.name.source == *key.source && *dataset.name.connection == *key.id {
                self.engine.clear(&dataset).await?;
            }
        }
        let (source, connection) = (Some(key.source.clone()), Some(key.id.clone()));
        let filter = QuarantineFilter { source, connection, ..QuarantineFilter::default() };
        while let (rows, more) = self.quarantined(&key.environment, &filter, None, ENTRIES_MAX)?
            && !rows.is_empty()
        {
            self.drop_quarantined(&key.environment, rows).await?;
            if !more {
                break;
            }
        }
        self.connections.remove(key).await?;
        Ok(())
    }

    /// An id for a connection that was given none.
    pub fn connection_id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.engine.secret("connection ids"));
        hash.update(self.connections.count().to_be_bytes());
        hash.update(self.engine.clock().now().0.to_be_bytes());
        let text = hex::encode(hash.finalize());
        let cut = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32))
    }

    /// Lets what depends on connections know of one.
    async fn follow(&self, key: &AccountKey) -> Result<(), ConnectionError> {
        self.syncs.refresh().await?;
        self.hooks.refresh();
        self.hooks.connection_changed(&key.environment, &key.source);
        Ok(())
    }

    /// Cancels its runs and waits until they have written their last.
    async fn end_runs(&self, key: &AccountKey) {
        let clock = self.engine.clock();
        let until = clock.now().plus(RUNS_END);
        let mine = |sync: &SyncKey| {
            sync.environment == key.environment && sync.source == key.source && sync.connection == key.id
        };
        let keys: Vec<SyncKey> = self.syncs.keys().into_iter().filter(mine).collect();
        for sync in &keys {
            self.syncs.cancel(sync);
        }
        while self.syncs.status(&keys).iter().any(|sync| sync.status == Status::Running) && clock.now() < until {
            clock.sleep(LOOK).await;
        }
    }
}

/// Work that goes on when whoever asked for it goes away: half of it would be left otherwise.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ConnectionError>> + Send + 'static,
) -> Result<T, ConnectionError> {
    let died = |died| Err(Error::Storage(format!("a change of a connection ended early: {died}")).into());
    tokio::spawn(work).await.unwrap_or_else(died)
}
