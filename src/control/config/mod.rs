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
    /// How the log is written.
    pub logs: Logs,
}

/// How the log of the program is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Pretty or JSON.
    pub format: LogFormat,
    /// A filter such as `info` or `syncline=debug,warn`.
    pub level: String,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Where settings come from. The command line fills it; tests fill it by hand.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// From flags: dotted key and value, e.g. (`listen`, `127.0.0.1:0`). Highest rank.
    pub flags: Vec<(String, String)>,
    /// The process environment; `SYNCLINE_…` counts, and `env:NAME` references look here.
    pub env: Vec<(String, String)>,
    /// Files that exist and count, highest rank first.
    pub files: Vec<PathBuf>,
}

/// Settings with what should be said about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Settings in force.
    pub settings: Settings,
    /// Accepted, but not as written.
    pub warnings: Vec<String>,
    /// Where each value that is not a default came from, by dotted key.
    pub origins: BTreeMap<String, String>,
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

/// Reads the settings of `origin`.
pub fn load(_origin: &Origin) -> Result<Loaded, String> {
    Err("not yet".into())
}
