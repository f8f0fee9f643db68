//! Connections: from definition files and made over REST, with what REST changed of them kept in the engine's marks.
//!
//! One that was made over REST is kept as it was given, and read by the rules of those in files. Where a file has one of the same
//! name the file's counts.
//!
//! Everything a file says is read afresh at each start. Kept are the account's number, its times, its errors, the fields the
//! provider told, and the metadata changed through REST, which is laid over the file's: it survives restarts, and keys that
//! REST never touched still follow the file.

use crate::connectors::definition::{Complaint, Definition, FixedConnection, FunctionSync, Schedule, connection_of};
use crate::connectors::rest::Credentials;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Batch, Error, Mark};
use crate::engine::source;
use crate::keyspaces;
use crate::registry::definitions::Definitions;
use crate::registry::end_user::EndUser;
use async_trait::async_trait;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Version of the stored form; that of accounts which stand in no file is the second.
const FORMAT: u32 = 2;
const IN_FILE: u32 = 1;

/// Most accounts made over REST.
const MADE_MAX: usize = 100_000;

/// Errors an account keeps; older ones go.
const MAX_ERRORS: usize = 20;

/// Which account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey {
    /// Isolation scope.
    pub environment: String,
    /// Source (`Provider-Config-Key`).
    pub source: String,
    /// Its id (`Connection-Id`).
    pub id: String,
}

impl AccountKey {
    /// From its parts.
    pub fn new(environment: &str, source: &str, id: &str) -> Self {
        AccountKey { environment: environment.into(), source: source.into(), id: id.into() }
    }

    /// Environment, source, connection.
    pub fn parts(&self) -> [&str; 3] {
        [&self.environment, &self.source, &self.id]
    }
}

/// One account at an outside system.
#[derive(Clone, Debug)]
pub struct Account {
    /// Which one.
    pub key: AccountKey,
    /// Number on the wire; unique in this store.
    pub number: u64,
    /// The preset of its source, or the source's own name.
    pub provider: String,
    /// What a source needs to make requests for it; metadata and fields included.
    pub connection: Arc<source::Connection>,
    /// Only these streams; all if absent.
    pub streams: Option<Vec<String>>,
    /// Schedules that differ from the stream's, by stream.
    pub schedule: BTreeMap<String, Schedule>,
    /// Outgoing webhooks go only there.
    pub webhook_url_override: Option<String>,
    /// Whose it is.
    pub end_user: Option<EndUser>,
    /// It was made over REST and stands in no file.
    pub made: bool,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What is wrong with it at present.
    pub errors: Vec<AccountError>,
}

impl Account {
    /// Whether it takes part in a stream.
    pub fn takes_stream(&self, name: &str) -> bool {
        self.streams.as_ref().is_none_or(|names| names.iter().any(|known| known == name))
    }

    /// Whether it takes part in a function: it names the function, or one of its models.
    pub fn takes(&self, function: &FunctionSync) -> bool {
        self.takes_stream(&function.name) || function.models.iter().any(|model| self.takes_stream(model))
    }
}

/// Something that is wrong with an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountError {
    /// `auth` or `sync`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The run or request that tells more.
    pub log_id: String,
}

/// Why a change was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// One of the named accounts does not exist; none was changed.
    #[error("unknown connection {0}")]
    Unknown(String),
    /// There is one already.
    #[error("connection {0} exists already")]
    Exists(String),
    /// It stands in a definition file.
    #[error("connection {0} stands in the definition of its source: change it there")]
    InFile(String),
    /// There is no such source.
    #[error("unknown source {0}")]
    UnknownSource(String),
    /// What it says is wrong: every complaint.
    #[error("the connection cannot be used")]
    Wrong(Vec<Complaint>),
    /// Its end user cannot be read.
    #[error("`end_user` cannot be read: {0}")]
    EndUser(String),
    /// There are too many.
    #[error("there are {MADE_MAX} connections, which is the most")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// What is kept of an account between starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredConnection {
    format: u32,
    number: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// The file's metadata counts no more.
    #[serde(default)]
    replaced: bool,
    /// Top-level keys set through REST.
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    fields: Map<String, Value>,
    #[serde(default)]
    errors: Vec<AccountError>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_user: Option<EndUser>,
    /// What a file would say of it, where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Value>,
}

/// An account with the two halves it is made of.
struct KeptConnection {
    file: FixedConnection,
    stored: StoredConnection,
    account: Arc<Account>,
}

/// All connections.
pub struct Connections {
    engine: Engine,
    definitions: Definitions,
    accounts: RwLock<BTreeMap<AccountKey, KeptConnection>>,
    /// Number of the next new one.
    next: AtomicU64,
    /// Held from reading the old value to the commit of the new one.
    writing: tokio::sync::Mutex<()>,
}

impl Connections {
    /// Reads what is kept, lays it over what the definitions say and stores accounts that are new.
    pub async fn open(engine: Engine, definitions: &Definitions) -> Result<Self, Error> {
        let mut stored = read_all(&engine)?;
        let mut next = stored.values().map(|s| s.number).max().unwrap_or(0) + 1;
        let now = engine.clock().now();
        let mut accounts = BTreeMap::new();
        let mut marks = Vec::new();
        for definition in definitions.all().values() {
            for file in &definition.connections {
                let key = AccountKey::new(environment(file), &definition.source, &file.name);
                let kept = match stored.remove(&key) {
                    Some(kept) => StoredConnection { made: None, ..kept },
                    None => {
                        let new = StoredConnection::new(next, now);
                        next += 1;
                        marks.push(mark(&key, &new)?);
                        marks.extend(definition.on_creation.iter().map(|function| creation_mark(&key, function)));
                        new
                    }
                };
                let kept = KeptConnection::new(&key, definition, file.clone(), kept);
                accounts.insert(key, kept);
            }
        }
        if !marks.is_empty() {
            engine.commit(Batch { marks, ..Batch::default() }).await?;
        }
        for (key, kept) in stored {
            let (Some(said), Some(definition)) = (&kept.made, definitions.get(&key.source)) else { continue };
            match connection_of(&definition, &key.id, said) {
                Ok(file) => drop(accounts.insert(key.clone(), KeptConnection::new(&key, &definition, file, kept))),
                Err(complaints) => {
                    let why = complaints.iter().map(Complaint::to_string).collect::<Vec<_>>().join("; ");
                    let (source, connection) = (key.source, key.id);
                    tracing::error!(source, connection, why, "a connection does not fit the definition any more");
                }
            }
        }
        let (definitions, accounts) = (definitions.clone(), RwLock::new(accounts));
        let (next, writing) = (AtomicU64::new(next), tokio::sync::Mutex::new(()));
        Ok(Connections { engine, definitions, accounts, next, writing })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.read(|all| all.len() as u64)
    }

    /// The connection that would be made, to be tried.
    pub fn draft(&self, key: &AccountKey, mut said: Value) -> Result<source::Connection, Refused> {
        let definition = self.definitions.get(&key.source).ok_or_else(|| Refused::UnknownSource(key.source.clone()))?;
        said.as_object_mut().map_or(Ok(None), end_user)?;
        let file = connection_of(&definition, &key.id, &said).map_err(Refused::Wrong)?;
        if self.read(|all| all.contains_key(key)) {
            return Err(Refused::Exists(key.id.clone()));
        }
        let stored = StoredConnection { made: Some(said), ..StoredConnection::new(0, self.engine.clock().now()) };
        Ok(draft_of(&KeptConnection::new(key, &definition, file, stored)))
    }

    /// Makes an account. `said` is what would stand in a file, with secrets written out, and `end_user`; `fields` are what is
    /// told of it. The functions that are to run because of it are noted in the same commit.
    pub async fn create(
        &self,
        key: &AccountKey,
        mut said: Value,
        fields: Map<String, Value>,
    ) -> Result<Arc<Account>, Refused> {
        let _one_at_a_time = self.writing.lock().await;
        let definition = self.definitions.get(&key.source).ok_or_else(|| Refused::UnknownSource(key.source.clone()))?;
        let (exists, made) = self.read(|all| {
            let made = all.values().filter(|kept| kept.stored.made.is_some()).count();
            (all.contains_key(key), made)
        });
        if exists {
            return Err(Refused::Exists(key.id.clone()));
        }
        if made >= MADE_MAX {
            return Err(Refused::TooMany);
        }
        let end_user = said.as_object_mut().map_or(Ok(None), end_user)?.flatten();
        let file = connection_of(&definition, &key.id, &said).map_err(Refused::Wrong)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stored = StoredConnection {
            format: FORMAT,
            made: Some(said),
            fields,
            end_user,
            ..StoredConnection::new(number, self.engine.clock().now())
        };
        let mut marks = vec![mark(key, &stored)?];
        marks.extend(definition.on_creation.iter().map(|function| creation_mark(key, function)));
        self.engine.put_marks(marks).await?;
        let kept = KeptConnection::new(key, &definition, file, stored);
        let account = kept.account.clone();
        self.accounts.write().insert(key.clone(), kept);
        Ok(account)
    }

    /// Changes what an account was made with: fields of `changes` take the place of its own, null removes one.
    pub async fn update(&self, key: &AccountKey, changes: &Map<String, Value>) -> Result<Arc<Account>, Refused> {
        let _one_at_a_time = self.writing.lock().await;
        let kept = self.changed(key, changes)?;
        self.engine.put_marks(vec![mark(key, &kept.stored)?]).await?;
        let account = kept.account.clone();
        self.accounts.write().insert(key.clone(), kept);
        Ok(account)
    }

    /// The connection that changes would make of one, to be tried.
    pub fn draft_of_change(
        &self,
        key: &AccountKey,
        changes: &Map<String, Value>,
    ) -> Result<source::Connection, Refused> {
        self.changed(key, changes).map(|kept| draft_of(&kept))
    }

    fn changed(&self, key: &AccountKey, changes: &Map<String, Value>) -> Result<KeptConnection, Refused> {
        let definition = self.definitions.get(&key.source).ok_or_else(|| Refused::UnknownSource(key.source.clone()))?;
        let mut stored = self.made(key)?;
        let Some(Value::Object(said)) = &mut stored.made else { return Err(Refused::InFile(key.id.clone())) };
        let mut changes = changes.clone();
        if let Some(end_user) = end_user(&mut changes)? {
            stored.end_user = end_user;
        }
        for (name, value) in changes {
            match value {
                Value::Null => drop(said.remove(&name)),
                value => drop(said.insert(name, value)),
            }
        }
        let file = connection_of(&definition, &key.id, &Value::Object(said.clone())).map_err(Refused::Wrong)?;
        stored.updated_at = self.engine.clock().now();
        Ok(KeptConnection::new(key, &definition, file, stored))
    }

    /// Takes an account out of what is known, so that nothing new begins for it. It comes back at the next start unless it is
    /// [removed](Connections::remove) before.
    pub async fn hide(&self, key: &AccountKey) -> Result<(), Refused> {
        let _one_at_a_time = self.writing.lock().await;
        self.made(key)?;
        self.accounts.write().remove(key);
        Ok(())
    }

    /// Removes what is stored of an account that is hidden.
    pub async fn remove(&self, key: &AccountKey) -> Result<(), Error> {
        let place = key.parts();
        let mut marks = vec![Mark::delete(keyspaces::CONNECTION, &place)];
        for (function, _) in self.engine.marks(keyspaces::CREATION, &place)? {
            let whole: Vec<&str> = place.into_iter().chain(function.iter().map(String::as_str)).collect();
            marks.push(Mark::delete(keyspaces::CREATION, &whole));
        }
        self.engine.put_marks(marks).await
    }

    /// Whether an account may be deleted: it was made over REST.
    pub fn deletable(&self, key: &AccountKey) -> Result<(), Refused> {
        self.made(key).map(drop)
    }

    /// What is kept of an account that was made over REST.
    fn made(&self, key: &AccountKey) -> Result<StoredConnection, Refused> {
        let stored = self.read(|all| all.get(key).map(|kept| kept.stored.clone()));
        let stored = stored.ok_or_else(|| Refused::Unknown(key.id.clone()))?;
        if stored.made.is_none() { Err(Refused::InFile(key.id.clone())) } else { Ok(stored) }
    }

    /// One account.
    pub fn get(&self, environment: &str, source: &str, id: &str) -> Option<Arc<Account>> {
        let key = AccountKey::new(environment, source, id);
        self.read(|all| all.get(&key).map(|kept| kept.account.clone()))
    }

    /// All accounts of an environment, by source and id.
    pub fn list(&self, environment: &str) -> Vec<Arc<Account>> {
        self.read(|all| {
            all.values().filter(|k| k.account.key.environment == environment).map(|k| k.account.clone()).collect()
        })
    }

    /// All accounts of a source, in every environment: for webhooks that arrive for the whole source.
    pub fn of_source(&self, source: &str) -> Vec<Arc<Account>> {
        self.read(|all| all.values().filter(|k| k.account.key.source == source).map(|k| k.account.clone()).collect())
    }

    /// All accounts.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.read(|all| all.values().map(|k| k.account.clone()).collect())
    }

    /// Replaces the metadata of these accounts, of all or of none.
    pub async fn set_metadata(
        &self,
        environment: &str,
        source: &str,
        ids: &[String],
        metadata: &Map<String, Value>,
    ) -> Result<(), Refused> {
        self.change(environment, source, ids, |stored| {
            stored.replaced = true;
            stored.metadata = metadata.clone();
        })
        .await
    }

    /// Lays top-level keys over the metadata of these accounts, of all or of none.
    pub async fn merge_metadata(
        &self,
        environment: &str,
        source: &str,
        ids: &[String],
        metadata: &Map<String, Value>,
    ) -> Result<(), Refused> {
        self.change(environment, source, ids, |stored| {
            for (name, value) in metadata {
                stored.metadata.insert(name.clone(), value.clone());
            }
        })
        .await
    }

    /// Keeps what the provider told about an account (`connection_fields`).
    pub async fn set_fields(&self, key: &AccountKey, fields: &Map<String, Value>) -> Result<(), Refused> {
        let ids = std::slice::from_ref(&key.id);
        self.change(&key.environment, &key.source, ids, |stored| stored.fields = fields.clone()).await
    }

    /// Notes that something is wrong with an account; one error of a kind is kept.
    pub async fn set_error(&self, key: &AccountKey, kind: &str, log_id: &str) -> Result<(), Refused> {
        let error = AccountError { kind: kind.into(), log_id: log_id.into() };
        self.change(&key.environment, &key.source, std::slice::from_ref(&key.id), |stored| {
            stored.errors.retain(|e| e.kind != error.kind);
            stored.errors.push(error.clone());
            let over = stored.errors.len().saturating_sub(MAX_ERRORS);
            stored.errors.drain(..over);
        })
        .await
    }

    /// Takes back an error of this kind, if there is one; costs nothing otherwise.
    pub async fn clear_error(&self, key: &AccountKey, kind: &str) -> Result<(), Refused> {
        let broken = self
            .get(&key.environment, &key.source, &key.id)
            .is_some_and(|account| account.errors.iter().any(|e| e.kind == kind));
        if !broken {
            return Ok(());
        }
        let ids = std::slice::from_ref(&key.id);
        self.change(&key.environment, &key.source, ids, |stored| stored.errors.retain(|e| e.kind != kind)).await
    }

    /// Changes what is kept of these accounts in one commit; readers see it once it is durable.
    async fn change(
        &self,
        environment: &str,
        source: &str,
        ids: &[String],
        edit: impl Fn(&mut StoredConnection),
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.writing.lock().await;
        let now = self.engine.clock().now();
        let mut changed = Vec::with_capacity(ids.len());
        for id in ids {
            let key = AccountKey::new(environment, source, id);
            let mut stored = self
                .read(|all| all.get(&key).map(|kept| kept.stored.clone()))
                .ok_or_else(|| Refused::Unknown(id.clone()))?;
            edit(&mut stored);
            stored.updated_at = now;
            changed.push((key, stored));
        }
        let marks = changed.iter().map(|(key, stored)| mark(key, stored)).collect::<Result<_, _>>()?;
        self.engine.commit(Batch { marks, ..Batch::default() }).await?;
        let mut all = self.accounts.write();
        for (key, stored) in changed {
            if let Some(kept) = all.get_mut(&key) {
                kept.account = Arc::new(assemble(&key, kept.account.provider.clone(), &kept.file, &stored));
                kept.stored = stored;
            }
        }
        Ok(())
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<AccountKey, KeptConnection>) -> T) -> T {
        look(&self.accounts.read())
    }
}

/// What a connection was changed to is used from the next request on, also by runs that have begun before.
#[async_trait]
impl Credentials for Connections {
    async fn current(
        &self,
        source: &str,
        connection: &source::Connection,
    ) -> Result<Option<Map<String, Value>>, source::Failure> {
        if is_draft(connection) {
            return Ok(None);
        }
        let known = self.get(&connection.environment, source, &connection.id);
        let now = known.map(|account| account.connection.clone());
        Ok(now.filter(|now| now.credentials != connection.credentials).map(|now| now.credentials.clone()))
    }

    /// Those that were given in the meantime.
    async fn refused(
        &self,
        source: &str,
        connection: &source::Connection,
    ) -> Result<Option<Map<String, Value>>, source::Failure> {
        self.current(source, connection).await
    }
}

impl KeptConnection {
    fn new(
        key: &AccountKey,
        definition: &Definition,
        file: FixedConnection,
        stored: StoredConnection,
    ) -> KeptConnection {
        let provider = definition.preset.clone().unwrap_or_else(|| definition.source.clone());
        let account = Arc::new(assemble(key, provider, &file, &stored));
        KeptConnection { file, stored, account }
    }
}

impl StoredConnection {
    fn new(number: u64, now: Timestamp) -> Self {
        StoredConnection {
            format: IN_FILE,
            number,
            created_at: now,
            updated_at: now,
            replaced: false,
            metadata: Map::new(),
            fields: Map::new(),
            errors: Vec::new(),
            end_user: None,
            made: None,
        }
    }
}

/// Takes out whose connection it is, where that is said; null is nobody's.
fn end_user(said: &mut Map<String, Value>) -> Result<Option<Option<EndUser>>, Refused> {
    match said.remove("end_user") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(user) => EndUser::read(user).map(|user| Some(Some(user))).map_err(Refused::EndUser),
    }
}

fn environment(file: &FixedConnection) -> &str {
    if file.environment.is_empty() { "default" } else { &file.environment }
}

fn read_all(engine: &Engine) -> Result<BTreeMap<AccountKey, StoredConnection>, Error> {
    let mut all = BTreeMap::new();
    for (key, value) in engine.marks(keyspaces::CONNECTION, &[])? {
        let [environment, source, id] = key.as_slice() else { continue };
        let stored: StoredConnection = serde_json::from_slice(&value)
            .map_err(|e| Error::Storage(format!("connection {environment}/{source}/{id} cannot be read: {e}")))?;
        if stored.format > FORMAT {
            return Err(Error::NewerFormat { found: stored.format, known: FORMAT });
        }
        all.insert(AccountKey::new(environment, source, id), stored);
    }
    Ok(all)
}

fn mark(key: &AccountKey, stored: &StoredConnection) -> Result<Mark, Error> {
    let text = serde_json::to_vec(stored).map_err(|e| Error::Storage(format!("connection {}: {e}", key.id)))?;
    Ok(Mark::put(keyspaces::CONNECTION, &key.parts(), text))
}

/// The mark that a function is to run because an account was made.
pub fn creation_mark(key: &AccountKey, function: &str) -> Mark {
    let [environment, source, id] = key.parts();
    Mark::put(keyspaces::CREATION, &[environment, source, id, function], b"{}".to_vec())
}

/// A connection that is only tried. It names no credentials: those it bears count, whatever is known of the connection.
fn draft_of(kept: &KeptConnection) -> source::Connection {
    source::Connection { credentials_id: String::new(), ..(*kept.account.connection).clone() }
}

/// Whether a connection is only tried, and nothing of it stored.
pub fn is_draft(connection: &source::Connection) -> bool {
    connection.credentials_id.is_empty()
}

fn assemble(key: &AccountKey, provider: String, file: &FixedConnection, stored: &StoredConnection) -> Account {
    let connection = source::Connection {
        environment: key.environment.clone(),
        id: key.id.clone(),
        credentials: file.credentials.clone(),
        credentials_id: credentials_id(&file.credentials),
        metadata: metadata(&file.metadata, stored),
        fields: fields(&file.fields, stored),
        tags: tags(&file.tags),
        partitions: file.partitions.clone(),
        base_url: file.base_url.clone(),
    };
    Account {
        key: key.clone(),
        number: stored.number,
        provider,
        connection: Arc::new(connection),
        streams: file.streams.clone(),
        schedule: file.schedule.clone(),
        webhook_url_override: file.webhook_url_override.clone(),
        end_user: stored.end_user.clone(),
        made: stored.made.is_some(),
        created_at: stored.created_at,
        updated_at: stored.updated_at,
        errors: stored.errors.clone(),
    }
}

/// What was entered says which credentials they are, whatever they are exchanged for.
fn credentials_id(entered: &Map<String, Value>) -> String {
    let text = Value::Object(entered.clone()).to_string();
    hex::encode(Sha256::digest(text).get(..16).unwrap_or_default())
}

fn metadata(file: &Value, stored: &StoredConnection) -> Value {
    if !stored.replaced && stored.metadata.is_empty() && !file.is_null() {
        return file.clone();
    }
    let mut laid = match file {
        Value::Object(map) if !stored.replaced => map.clone(),
        _ => Map::new(),
    };
    for (name, value) in &stored.metadata {
        laid.insert(name.clone(), value.clone());
    }
    Value::Object(laid)
}

/// What the provider told, and what was entered.
fn fields(entered: &Map<String, Value>, stored: &StoredConnection) -> Map<String, Value> {
    let mut fields = stored.fields.clone();
    fields.extend(entered.clone());
    fields
}

/// Labels as the wire wants them: `name=value`, or a name alone with an empty value.
fn tags(file: &[String]) -> Map<String, Value> {
    file.iter()
        .map(|tag| {
            let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
            (name.to_owned(), Value::String(value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(replaced: bool, metadata: Value) -> StoredConnection {
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        StoredConnection { replaced, metadata, ..StoredConnection::new(1, Timestamp(0)) }
    }

    #[test]
    fn rest_metadata_lies_over_the_file() {
        let file = json!({"a": 1, "b": {"c": 2}});
        assert_eq!(metadata(&file, &stored(false, json!({}))), file);
        assert_eq!(metadata(&file, &stored(false, json!({"b": 3, "d": 4}))), json!({"a": 1, "b": 3, "d": 4}));
        assert_eq!(metadata(&file, &stored(true, json!({"d": 4}))), json!({"d": 4}));
        assert_eq!(metadata(&file, &stored(true, json!({}))), json!({}));
        assert_eq!(metadata(&Value::Null, &stored(false, json!({}))), json!({}));
    }

    #[test]
    fn stored_form_reads_back() {
        let before = stored(true, json!({"n": 1.50, "t": "x"}));
        let text = serde_json::to_vec(&before).expect("plain");
        let after: StoredConnection = serde_json::from_slice(&text).expect("ours");
        assert_eq!((after.replaced, after.metadata, after.number), (true, before.metadata, 1));
    }

    #[test]
    fn tags_split_at_the_first_equals_sign() {
        let made = tags(&["team=a=b".into(), "vip".into()]);
        assert_eq!(Value::Object(made), json!({"team": "a=b", "vip": ""}));
    }
}
