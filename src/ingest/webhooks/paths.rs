//! Which URL belongs to which source, environment and connection.
//!
//! A token is derived from the installation's secret, so that it can be shown again at any time, survives restarts and is
//! stored nowhere. Requests are matched by its hash. In a cluster, tokens of connections made over REST name their shard
//! ([`shard_token`]).

use super::{Hooks, HooksParts, shard_token};
use crate::connectors::definition::{Definition, Verify};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use parking_lot::RwLock;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// Bytes of a token: 32 characters of base64url.
const TOKEN: usize = 24;
/// Environment that is always there.
const DEFAULT: &str = "default";

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entrance {
    /// Isolation scope.
    pub environment: String,
    /// Source.
    pub source: String,
    /// The connection, where each has a URL of its own.
    pub connection: Option<String>,
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connection {
            Some(connection) => write!(f, "connection {connection}")?,
            None => write!(f, "all connections")?,
        }
        if self.environment == DEFAULT { Ok(()) } else { write!(f, " in {}", self.environment) }
    }
}

/// A URL to give to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookUrl {
    /// What it stands for.
    pub entrance: Entrance,
    /// With the public URL if one is set, else the path alone.
    pub url: String,
    /// The secret to give to the provider, where each connection has its own.
    pub secret: Option<String>,
}

/// All paths, by the hash of their token or as they are.
pub(super) struct Paths {
    key: [u8; 32],
    table: RwLock<PathTable>,
}

#[derive(Default)]
struct PathTable {
    tokens: HashMap<[u8; 32], Arc<Entrance>>,
    fixed: HashMap<String, Arc<Entrance>>,
}

impl Paths {
    pub fn new(parts: &HooksParts) -> Self {
        let paths = Paths { key: parts.engine.secret("webhook paths"), table: RwLock::default() };
        paths.refresh(parts);
        paths
    }

    /// Lists all paths anew, e.g. after a connection was added.
    pub fn refresh(&self, parts: &HooksParts) {
        let mut table = PathTable::default();
        for definition in parts.definitions.all().values() {
            for entrance in entrances(parts, definition) {
                let entrance = Arc::new(entrance);
                let Some(path) = fixed(definition) else {
                    // Both hold: a connection may come into a file later, and its provider keeps the URL it was given.
                    let tokens = [Some(self.token(&entrance)), self.shard_token(parts, &entrance)];
                    for token in tokens.into_iter().flatten() {
                        table.tokens.insert(Sha256::digest(token).into(), entrance.clone());
                    }
                    continue;
                };
                table.fixed.entry(path.to_owned()).or_insert(entrance);
            }
        }
        *self.table.write() = table;
    }

    /// What a request path stands for.
    pub fn find(&self, path: &str) -> Option<Arc<Entrance>> {
        let table = self.table.read();
        if let Some(entrance) = table.fixed.get(path) {
            return Some(entrance.clone());
        }
        let (source, token) = source_and_token(path)?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        table.tokens.get(&hash).filter(|entrance| entrance.source == source).cloned()
    }

    fn token(&self, entrance: &Entrance) -> String {
        self.derive("path", entrance)
    }

    /// The token that says which shard knows the connection; without a cluster, or a connection, there is none.
    fn shard_token(&self, parts: &HooksParts, entrance: &Entrance) -> Option<String> {
        let shard = parts.other_shards.as_ref()?.shard;
        entrance.connection.as_ref()?;
        let identity = self.mac("path", entrance);
        Some(shard_token::encode(&self.key, &entrance.source, shard, &identity))
    }

    /// The token to show of a path.
    fn shown_token(&self, parts: &HooksParts, entrance: &Entrance) -> String {
        let id = entrance.connection.as_deref();
        let account = id.and_then(|id| parts.connections.get(&entrance.environment, &entrance.source, id));
        let named = account.filter(|account| account.made).and_then(|_| self.shard_token(parts, entrance));
        named.unwrap_or_else(|| self.token(entrance))
    }

    fn derive(&self, purpose: &str, entrance: &Entrance) -> String {
        self.mac(purpose, entrance).get(..TOKEN).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).unwrap_or_default()
    }

    fn mac(&self, purpose: &str, entrance: &Entrance) -> Vec<u8> {
        // HMAC takes keys of any length; the fallback keeps the type honest.
        let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(&self.key) else { return Vec::new() };
        let connection = entrance.connection.as_deref();
        for part in [purpose, &entrance.environment, &entrance.source, connection.unwrap_or_default()] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(&[u8::from(connection.is_some())]);
        mac.finalize().into_bytes().to_vec()
    }
}

fn source_and_token(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/hooks/")?.split_once('/')
}

/// The paths of one definition: one for each connection, or one for each environment.
fn entrances(parts: &HooksParts, definition: &Definition) -> Vec<Entrance> {
    let Some(webhooks) = &definition.webhooks else { return Vec::new() };
    let accounts = parts.connections.of_source(&definition.source);
    let source = &definition.source;
    if webhooks.per_connection && webhooks.path.is_none() {
        let each = accounts.iter().map(|account| Entrance {
            environment: account.key.environment.clone(),
            source: source.clone(),
            connection: Some(account.key.id.clone()),
        });
        return each.collect();
    }
    let mut environments: BTreeSet<String> = accounts.iter().map(|a| a.key.environment.clone()).collect();
    if webhooks.path.is_none() || environments.is_empty() {
        environments.insert(DEFAULT.to_owned());
        environments.extend(parts.environments.iter().cloned());
    }
    let each =
        environments.into_iter().map(|environment| Entrance { environment, source: source.clone(), connection: None });
    // A fixed path can stand for one environment only: the first one that has connections.
    if webhooks.path.is_some() { each.take(1).collect() } else { each.collect() }
}

fn fixed(definition: &Definition) -> Option<&str> {
    definition.webhooks.as_ref()?.path.as_deref()
}

impl Hooks {
    /// What a request path stands for; `None` is a 404.
    pub fn find(&self, path: &str) -> Option<Arc<Entrance>> {
        self.inner.paths.find(path)
    }

    /// The shard whose owner knows this path, if the installation made its token: of a connection that is not known here.
    pub fn shard_of(&self, path: &str) -> Option<u16> {
        let (source, token) = source_and_token(path)?;
        shard_token::shard(&self.inner.paths.key, source, token)
    }

    /// Lists all paths anew: call after connections were added or removed.
    pub fn refresh(&self) {
        self.inner.paths.refresh(&self.inner.parts);
    }

    /// The URLs providers post to for a source.
    pub fn urls(&self, source: &str) -> Vec<String> {
        self.hook_urls(Some(source)).into_iter().map(|hook| hook.url).collect()
    }

    /// The URLs to give to providers, of one source or all, with what they stand for.
    pub fn hook_urls(&self, source: Option<&str>) -> Vec<HookUrl> {
        let inner = &self.inner;
        let base = inner.parts.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
        let all = inner.parts.definitions.all();
        let chosen = all.values().filter(|d| source.is_none_or(|s| s == d.source));
        chosen
            .flat_map(|definition| {
                entrances(&inner.parts, definition).into_iter().map(move |entrance| {
                    let path = match fixed(definition) {
                        Some(path) => path.to_owned(),
                        None => {
                            format!("/hooks/{}/{}", entrance.source, inner.paths.shown_token(&inner.parts, &entrance))
                        }
                    };
                    let own = definition.webhooks.as_ref().is_some_and(|w| w.verify.per_connection_secret);
                    let secret = own.then(|| self.own_secret(&entrance)).flatten();
                    HookUrl { url: format!("{base}{path}"), entrance, secret }
                })
            })
            .collect()
    }

    /// The live secrets for requests on a path.
    pub(super) fn secrets(&self, verify: &Verify, entrance: &Entrance) -> Vec<String> {
        match verify.per_connection_secret {
            true => self.own_secret(entrance).into_iter().collect(),
            false => verify.secrets.clone(),
        }
    }

    /// `{{ webhook_secret }}`: what the connection says, else one derived for it.
    fn own_secret(&self, entrance: &Entrance) -> Option<String> {
        let id = entrance.connection.as_deref()?;
        let account = self.inner.parts.connections.get(&entrance.environment, &entrance.source, id)?;
        let named =
            ["credentials", "fields"].into_iter().zip([&account.connection.credentials, &account.connection.fields]);
        let said = named.filter_map(|(_, values)| values.get("webhook_secret")).find_map(Value::as_str);
        let derived = || self.inner.paths.derive("secret", entrance);
        Some(said.filter(|s| !s.trim().is_empty()).map_or_else(derived, str::to_owned))
    }
}
