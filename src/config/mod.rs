//! Settings of the server (`syncline.yaml`, environment, flags), checked.
//!
//! Promises: every complaint names file, line and column and comes with all others at once; secrets are references, never
//! literals, and API keys are kept as hashes only; a key this release does not serve is named, not ignored. What each key
//! means stands in `docs/settings.md`.
//!
//! | file | what |
//! |---|---|
//! | `extensions` | code of the program: views, sources, sinks |
//! | `ingress` | what outsiders may use up |
//! | `kafka` | the part that is about Kafka; `no_kafka` in a program without the feature |
//! | `layers` | flags, environment and files → one tree |
//! | `outward` | where requests may go, and the endpoints |
//! | `read` | the tree → [`Settings`] |
//! | `value` | values that several parts have |

mod extensions;
mod ingress;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "no_kafka.rs"]
mod kafka;
mod layers;
mod outward;
mod read;
mod value;

pub use extensions::Extensions;

use crate::admission::Ingress;
use crate::connectors::config_text::{Complaint, in_order};
use crate::connectors::egress::Egress;
use crate::connectors::http::{ClientOptions, Room};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Waits before each try of a delivery, in seconds: 12 tries over 75.7 hours.
pub const SCHEDULE: [u64; 12] = [0, 5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

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
    /// Functions in TypeScript; `None` where nobody may have any.
    pub functions: Option<FunctionSettings>,
    /// API keys, hashed.
    pub api_keys: Vec<ApiKey>,
    /// Receivers of outgoing webhooks by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// `http:` is allowed for sources and endpoints.
    pub allow_http: bool,
    /// Origins of pages that may show the connect page, and ask what it asks.
    pub connect_origins: Vec<String>,
    /// Where requests may go beside the public internet.
    pub egress: Egress,
    /// Memory for answers of all providers.
    pub answers: Room,
    /// Timely workers.
    pub workers: usize,
    /// Bytes that what is known of records may take in memory before the largest datasets are spilled.
    pub table_bytes: usize,
    /// Bytes of the data folder's disk to keep free; `None`: 512 MiB, or a tenth of a smaller disk.
    pub min_free: Option<u64>,
    /// How the log is written.
    pub logs: Logs,
    /// The Kafka cluster, where one is used.
    #[cfg(feature = "kafka")]
    pub kafka: Option<kafka::Kafka>,
    /// Where the durable log is kept.
    pub log: LogKind,
    /// Who sees `/metrics`, and how much.
    pub metrics: Metrics,
    /// What outsiders may use up.
    pub ingress: Ingress,
    /// What this process is among others, where the log is in Kafka.
    pub process: Process,
    /// What the program's own code brings, which no file can say.
    pub extensions: Extensions,
}

/// Where functions in TypeScript are, and where they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Their folder. It need not be there.
    pub path: PathBuf,
    /// The settings name it. Where they do not, sources without a definition are passed over.
    pub named: bool,
    /// On threads of this process instead of worker processes: for code that is trusted.
    pub in_process: bool,
}

/// Who sees `/metrics`, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Without an API key.
    pub open: bool,
    /// With the names of connections.
    pub per_connection: bool,
}

/// One process of an installation that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where the others reach it; its own address if nothing is said.
    pub url: Option<String>,
    /// Partitions connections are spread over; the same for all processes, and for ever.
    pub partitions: i32,
    /// A process that is silent for so long has lost its partitions.
    pub session: Duration,
}

impl Default for Process {
    fn default() -> Self {
        Process { url: None, partitions: 6, session: Duration::from_secs(10) }
    }
}

/// Where the durable log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// In the store's RocksDB.
    #[default]
    Embedded,
    /// In Kafka topics.
    Kafka,
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
pub struct LoadedSettings {
    /// Settings in force.
    pub settings: Settings,
    /// Accepted, but not as written.
    pub warnings: Vec<Complaint>,
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
    /// Isolation scope, or [`OF_ALL`].
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

/// Environment of a key that belongs to none: it finds nothing of any, and reads the figures of all.
pub const OF_ALL: &str = "*";

/// A receiver of outgoing webhooks.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Isolation scope: it is told of what happens there, and of nothing else.
    pub environment: String,
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

/// Why settings cannot be used: every complaint, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsComplaints(pub Vec<Complaint>);

impl fmt::Display for SettingsComplaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Complaint::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for SettingsComplaints {}

impl Default for Settings {
    /// What holds where nothing is set; no API keys.
    fn default() -> Self {
        Settings {
            listen: "127.0.0.1:8080".into(),
            public_url: None,
            data_dir: PathBuf::from("./data"),
            sources: vec!["./sources".into()],
            functions: None,
            api_keys: Vec::new(),
            endpoints: BTreeMap::new(),
            allow_http: false,
            connect_origins: Vec::new(),
            egress: Egress::default(),
            answers: Room::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            table_bytes: crate::engine::pipeline::TABLE_BYTES,
            min_free: None,
            logs: Logs { format: LogFormat::Auto, level: "info".into() },
            #[cfg(feature = "kafka")]
            kafka: None,
            log: LogKind::Embedded,
            metrics: Metrics::default(),
            ingress: Ingress::default(),
            process: Process::default(),
            extensions: Extensions::default(),
        }
    }
}

impl Settings {
    /// Environments that keys belong to.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.api_keys.iter().map(|key| key.environment.as_str()).filter(|environment| *environment != OF_ALL)
    }

    /// How the clients behave that ask providers and post to endpoints.
    pub fn client(&self) -> ClientOptions {
        let (egress, room) = (self.egress.clone(), self.answers.clone());
        ClientOptions { allow_http: self.allow_http, egress, room, ..ClientOptions::default() }
    }
}

/// Reads and checks the settings of all origins.
pub fn load(origin: &Origin) -> Result<LoadedSettings, SettingsComplaints> {
    let mut complaints = Vec::new();
    let tree = layers::tree(origin, &mut complaints);
    let origins = layers::origins(&tree);
    let settings = read::settings(tree, &mut complaints);
    let complaints = in_order(complaints);
    if complaints.iter().any(|c| !c.warning) {
        return Err(SettingsComplaints(complaints));
    }
    Ok(LoadedSettings { settings, warnings: complaints, origins })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    /// Loads `files`, highest rank first, with an environment.
    fn with(files: &[&str], env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<LoadedSettings, Vec<String>> {
        let dir = tempfile::tempdir().expect("dir");
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut origin = Origin { flags: owned(flags), env: owned(env), files: Vec::new() };
        for (at, text) in files.iter().enumerate() {
            let path = dir.path().join(format!("{at}.yaml"));
            std::fs::write(&path, text).expect("write");
            origin.files.push(path);
        }
        load(&origin).map_err(|wrong| {
            wrong.0.iter().filter(|c| !c.warning).map(|c| format!("{}:{} {}", c.line, c.col, c.code)).collect()
        })
    }

    fn one(file: &str) -> Result<Settings, Vec<String>> {
        with(
            &[file],
            &[
                ("KEY", KEY),
                ("SHORT", "abc"),
                ("WHSEC", "whsec_!!"),
                ("BLANK", "  "),
                ("SECRET_URL", "https://x/?token=abc"),
            ],
            &[],
        )
        .map(|l| l.settings)
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let settings = with(&[], &[], &[]).expect("defaults").settings;
        assert_eq!(settings.listen, "127.0.0.1:8080");
        assert_eq!(settings.sources, ["./sources"]);
        assert!(settings.api_keys.is_empty() && settings.endpoints.is_empty() && !settings.allow_http);
    }

    #[test]
    fn higher_ranks_win_maps_merge_and_lists_replace() {
        let high = "workers: 3\nsources: [a, b]\nlogs: {level: debug}\n";
        let low = "workers: 2\nsources: [c]\nlogs: {format: json}\nlisten: 127.0.0.1:1\n";
        let env = [("SYNCLINE_WORKERS", "4"), ("SYNCLINE_LOGS__LEVEL", "warn")];
        let loaded = with(&[high, low], &env, &[("listen", "127.0.0.1:9")]).expect("good");
        let settings = &loaded.settings;
        assert_eq!((settings.workers, settings.listen.as_str()), (4, "127.0.0.1:9"));
        assert_eq!(settings.sources, ["a", "b"]);
        assert_eq!(settings.logs, Logs { format: LogFormat::Json, level: "warn".into() });
        assert_eq!(loaded.origins["listen"], "--listen:1");
        assert!(loaded.origins["logs.format"].ends_with("1.yaml:3"));
    }

    #[test]
    fn keys_are_hashed_and_belong_to_an_environment() {
        let settings = one("api_keys:\n- {name: me, key: 'env:KEY', role: writer, environment: prod}\n").expect("good");
        let key = &settings.api_keys[0];
        assert_eq!((key.name.as_str(), key.environment.as_str(), key.role), ("me", "prod", Role::Writer));
        assert!(!format!("{settings:?}").contains(KEY));
    }

    #[test]
    fn complaints_come_all_at_once_with_their_places() {
        let file = "listen: here\nworkers: 0\nwrokers: 2\napi_keys:\n- {name: a, key: literal, role: boss}\n\
                    - {name: b, key: 'env:SHORT', role: admin}\n- {name: c, key: 'env:NONE', role: admin}\n";
        let wrong = one(file).expect_err("bad");
        let wanted =
            ["1:9 bad_address", "2:10 out_of_range", "3:1 unknown_key", "5:18 literal_secret", "5:33 bad_value"];
        for complaint in wanted {
            assert!(wrong.contains(&complaint.to_string()), "{complaint} in {wrong:?}");
        }
        let rest: Vec<_> = wrong.iter().filter(|c| c.starts_with("6:") || c.starts_with("7:")).collect();
        assert_eq!(rest, ["6:18 short_key", "7:18 unresolved_reference"]);
    }

    #[test]
    fn the_nearest_key_is_hinted_at() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("s.yaml");
        std::fs::write(&path, "wrokers: 2\n").expect("write");
        let wrong = load(&Origin { files: vec![path], ..Origin::default() }).expect_err("bad");
        assert!(wrong.to_string().contains("workers"), "{wrong}");
    }

    #[test]
    fn the_same_key_twice_is_refused() {
        let file = "api_keys:\n- {name: a, key: 'env:KEY', role: admin}\n- {name: b, key: 'env:KEY', role: reader}\n";
        assert_eq!(one(file).expect_err("bad"), ["3:3 duplicate_key"]);
    }

    #[test]
    fn endpoints_have_secrets_and_safe_urls() {
        let good = "egress: {allow_http: true, allow: ['127.0.0.1:9']}\nendpoints:\n  a: {url: 'http://127.0.0.1:9/x', secret: 'env:KEY', \
                    schedule: [0s, 5s, 1m], sync_always: true}\n";
        let endpoint = one(good).expect("good").endpoints["a"].clone();
        assert_eq!((endpoint.schedule, endpoint.sync_always, endpoint.on_sync_error), (vec![0, 5, 60], true, true));
        assert_eq!(endpoint.secrets, [KEY]);
        let bad = |file: &str| {
            one(file)
                .expect_err("bad")
                .iter()
                .map(|c| c.split(' ').next_back().unwrap_or("").to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(bad("endpoints: {a: {url: 'http://x/', secret: 'env:KEY'}}\n"), ["insecure_url"]);
        assert_eq!(bad("endpoints: {a: {url: 'ftp://x/', secret: 'env:KEY'}}\n"), ["bad_url"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/'}}\n"), ["missing_key"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/', secret: 'env:WHSEC'}}\n"), ["bad_secret"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/', secret: abc}}\n"), ["literal_secret"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://u:pw@x/', secret: 'env:KEY'}}\n"), ["literal_secret"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://u@x/', secret: 'env:KEY'}}\n"), ["literal_secret"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/?token=abc', secret: 'env:KEY'}}\n"), ["literal_secret"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/', secret: []}}\n"), ["bad_value"]);
        assert_eq!(bad("endpoints: {a: {url: 'https://x/', secret: 'env:BLANK'}}\n"), ["bad_secret"]);
        assert!(one("endpoints: {a: {url: 'env:SECRET_URL', secret: 'env:KEY'}}\n").is_ok(), "it stands elsewhere");
    }

    #[test]
    fn endpoints_are_where_requests_may_go() {
        let wrong = |url: &str, allow: &str| {
            let file = format!(
                "egress: {{allow_http: true, allow: [{allow}]}}\nendpoints: {{a: {{url: '{url}', secret: 'env:KEY'}}}}\n"
            );
            one(&file).map(|settings| settings.endpoints.len())
        };
        for url in ["http://127.1/", "https://2130706433/", "http://[::ffff:10.0.0.1]/", "http://a.example:22/"] {
            assert_eq!(wrong(url, ""), Err(vec!["2:22 egress_blocked".into()]), "{url}");
        }
        assert_eq!(wrong("http://127.1/", "127.0.0.0/8"), Ok(1));
        assert_eq!(wrong("http://crm.internal/", ""), Ok(1), "a name is judged when it is known what it stands for");
        assert_eq!(
            one("egress: {allow: [10.0.0.0/8, nowhere/8, '*', 127.1]}\n").expect_err("bad"),
            ["1:30 bad_allowance", "1:41 bad_allowance", "1:46 bad_allowance",]
        );
        let env = [("SYNCLINE_EGRESS__ALLOW", "[\"127.0.0.0/8\"]")];
        assert_eq!(with(&[], &env, &[]).expect("good").settings.egress.to_string(), "127.0.0.0/8");
    }

    #[test]
    fn space_to_be_kept_free_is_counted_in_mib() {
        assert_eq!(one("").expect("good").min_free, None);
        assert_eq!(one("min_free_mb: 0\n").expect("good").min_free, Some(0));
        assert_eq!(one("min_free_mb: 64\n").expect("good").min_free, Some(64 << 20));
        assert_eq!(one("min_free_mb: 2000000\n").expect_err("bad"), ["1:14 out_of_range"]);
    }

    #[test]
    fn what_is_not_served_is_named() {
        let refused = |file: &str| one(file).expect_err("bad");
        assert_eq!(refused("encryption: {keys: ['env:KEY']}\n"), ["1:13 not_in_this_release"]);
        assert!(one("encryption: off\nlog: {kind: embedded}\n").is_ok());
        let loaded = with(&["retention: {changes: 7d, payload: off}\notlp: {}\n"], &[], &[]);
        let codes: Vec<_> = loaded.expect("good").warnings.iter().map(|c| c.code).collect();
        assert_eq!(codes, ["not_in_this_release"; 3]);
    }

    #[test]
    fn metrics_are_for_keys_and_without_connections_unless_told_otherwise() {
        assert_eq!(one("").expect("good").metrics, Metrics::default());
        let both = one("metrics: {open: true, per_connection: true}\n").expect("good").metrics;
        assert_eq!(both, Metrics { open: true, per_connection: true });
        assert_eq!(one("metrics: {opn: true}\n").expect_err("bad"), ["1:11 unknown_key"]);
    }

    #[test]
    fn what_outsiders_may_use_up_is_read_and_checked() {
        let good = "trusted_proxies: [10.0.0.7, 'fd00::/8']\ningress: {connections: 100, connections_per_address: 10, \
                    bodies_mb: 64, send_timeout: 5s, webhooks_per_path: 7}\n";
        let ingress = one(good).expect("good").ingress;
        assert_eq!((ingress.connections, ingress.connections_per_address), (100, 10));
        assert_eq!((ingress.bodies_bytes, ingress.answers_bytes), (64 << 20, Ingress::default().answers_bytes));
        assert_eq!((ingress.send_timeout, ingress.webhooks_per_path), (Duration::from_secs(5), 7));
        assert!(
            ingress.proxies.has("10.0.0.7".parse().expect("ip")) && ingress.proxies.has("fd12::1".parse().expect("ip"))
        );
        let bad = "trusted_proxies: [everybody, 0.0.0.0/0]\ningress: {connections: 0, bodies_mb: 1, send_timeout: 1h, conections: 1}\n";
        let wanted = [
            "1:19 bad_address",
            "1:30 bad_address",
            "2:24 out_of_range",
            "2:38 out_of_range",
            "2:55 out_of_range",
            "2:59 unknown_key",
        ];
        assert_eq!(one(bad).expect_err("bad"), wanted);
        let idle = "ingress: {connections: 100, connections_per_address: 200}\n";
        assert_eq!(one(idle).expect_err("bad"), ["1:54 no_effect"]);
        let idle = "ingress: {webhooks_per_path: 10, webhooks_per_sender: 20, wrong_signatures_per_sender: 11}\n";
        assert_eq!(one(idle).expect_err("bad"), ["1:55 no_effect", "1:88 no_effect"]);
        let few = one("ingress: {webhooks_per_path: 6, connections: 8}\n").expect("good").ingress;
        assert_eq!((few.webhooks_per_sender, few.wrong_signatures_per_sender, few.connections_per_address), (3, 6, 2));
    }

    #[test]
    fn kafka_is_read_whole_and_keeps_what_its_promises_need() {
        let file = "log: kafka\nkafka:\n  brokers: 'a:9092,b:9092'\n  prefix: crm\n  properties: {security.protocol: sasl_ssl, \
                    sasl.password: 'env:KEY', queue.buffering.max.kbytes: 1024}\n  topics: {create: false, partitions: 12}\n  \
                    output: {state: true, format: flat, by: connection}\n";
        let settings = one(file).expect("good");
        let kafka = settings.kafka.expect("set");
        assert_eq!(settings.log, LogKind::Kafka);
        assert_eq!((kafka.cluster.prefix.as_str(), kafka.cluster.topics.partitions), ("crm", 12));
        assert_eq!(kafka.cluster.properties["sasl.password"], KEY);
        assert_eq!(kafka.cluster.properties["queue.buffering.max.kbytes"], "1024");
        assert!(!format!("{:?}", kafka.cluster).contains(KEY));
        assert!(kafka.output.is_some_and(|shape| shape.state && shape.changes) && kafka.input);
        let bad = "kafka:\n  brokers: nowhere\n  properties: {acks: 1, sasl.password: abc}\n  output: {format: avro}\n";
        assert_eq!(
            one(bad).expect_err("bad"),
            ["2:12 bad_address", "3:16 fixed_property", "3:40 literal_secret", "4:20 bad_value"]
        );
        assert_eq!(one("log: {kind: kafka}\n").expect_err("bad"), ["1:6 kafka_not_set"]);
        let role = |role: &str| one(&format!("kafka: {{brokers: 'a:1'}}\nlog: {{kind: kafka, role: {role}}}\n"));
        assert!(role("all").is_ok(), "what every process does");
        assert_eq!(role("gateway").expect_err("gone"), ["2:26 bad_value"]);
    }

    #[test]
    fn foreign_variables_do_no_harm() {
        let env = [("SYNCLINE_PORT_8080_TCP", "tcp://10.0.0.1"), ("SYNCLINE_API_KEY", "x"), ("SYNCLINE_LISTN", "x")];
        let loaded = with(&[], &env, &[]).expect("good");
        let hints: Vec<_> = loaded.warnings.iter().filter_map(|c| c.hint.clone()).collect();
        assert_eq!(hints, ["did you mean SYNCLINE_LISTEN?"]);
    }
}
