//! Settings of the server (`syncline.yaml`, environment, flags), checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of API and hooks.
    pub listen: String,
    /// URL given to providers.
    pub public_url: Option<String>,
    /// Data folder.
    pub data_dir: PathBuf,
    /// Folder or globs of definitions.
    pub sources: Vec<String>,
    /// API keys, hashed.
    pub api_keys: Vec<ApiKey>,
    /// Receivers of outgoing webhooks by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// `http:` is allowed for sources and endpoints.
    pub allow_http: bool,
    /// Timely workers.
    pub workers: usize,
}

/// An API key as kept: only its hash.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// For people.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// Isolation scope.
    pub environment: String,
    /// What it may do.
    pub role: Role,
}

/// What a key may do; each includes the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read records.
    Reader,
    /// Also trigger and change.
    Writer,
    /// Also see credentials.
    Admin,
}

/// A receiver of outgoing webhooks.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where.
    pub url: String,
    /// Secrets, newest first: text as configured (`whsec_…` or any).
    pub secrets: Vec<String>,
    /// Also announce runs without changes.
    pub sync_always: bool,
    /// Also announce failed runs.
    pub on_sync_error: bool,
    /// Waits before each try, in seconds.
    pub schedule: Vec<u64>,
    /// Send the length-extendable `X-Nango-Signature` as well.
    pub legacy_signature: bool,
}
