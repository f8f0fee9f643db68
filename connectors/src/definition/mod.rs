//! What a definition file says, checked: one outside system, its streams, its webhooks.
//!
//! [`Definition`] is the checked form; `parse` reads YAML or JSON with the place of every value, so that a complaint names
//! file, line and column; all complaints of a file come at once. The format is described in `docs/definitions.md`.

mod about;
mod account_fields;
mod actions;
mod connections;
mod context;
mod deletes;
mod effects;
mod expressions;
mod fill;
mod functions;
mod integration;
mod limits;
mod parse;
mod partitions;
mod preset;
mod proxy;
mod read;
mod request;
mod schedule;
mod sign_in;
mod streams;
mod tokens;
mod topic;
mod verify;
mod webhooks;

pub use crate::config_text::{Complaint, Reference};
pub use crate::expr::{TimeUnit, read_time};
pub use about::About;
pub use account_fields::AccountField;
pub use actions::{Action, ActionRecord, ActionStep};
pub use connections::connection_of;
pub use functions::{FunctionLimits, FunctionRules, FunctionSync, SourceFunctions, Validation};
pub use integration::{IntegrationCredentials, PresetIntegration, ShippedPreset, shipped, sign_in_of};
pub use parse::{Parsed, parse, parse_beside};
pub use preset::{preset_sign_ins, presets};
pub use proxy::ProxyRules;
pub use schedule::{MIN_INTERVAL, schedule};
pub use tokens::{Algorithm, Assertion, ClientAuth, CodeGrant, Grant, Login, Rotation, TokenAuth};

use crate::expr::{Expr, Template};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::{Strategy, Timestamp};

/// JSON Schema of definition files, for editors. It knows the keys that [`parse()`] knows (compared by test), and refuses nothing that
/// [`parse()`] accepts.
pub const SCHEMA: &str = include_str!("../../schema/definition.json");

/// One outside system as configured.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its id; `Provider-Config-Key` on the wire.
    pub source: String,
    /// Preset it was laid over, if any: the `provider` on the wire.
    pub preset: Option<String>,
    /// For people.
    pub title: Option<String>,
    /// For people who choose a provider.
    pub about: About,
    /// Where relative paths resolve.
    pub base_url: Template,
    /// How requests are signed in.
    pub auth: Auth,
    /// On every request.
    pub headers: Vec<(String, Option<Template>)>,
    /// On every request.
    pub params: Vec<(String, Option<Param>)>,
    /// Pace and retry.
    pub limits: Limits,
    /// Treatment of answers; the first that matches counts.
    pub responses: Vec<Response>,
    /// Partitions by name.
    pub partitions: BTreeMap<String, Partition>,
    /// Streams in order.
    pub streams: Vec<Stream>,
    /// Inbound webhooks.
    pub webhooks: Option<Webhooks>,
    /// Fixed connections by name.
    pub connections: Vec<FixedConnection>,
    /// What its functions may do.
    pub functions: FunctionRules,
    /// What callers of the proxy may do.
    pub proxy: ProxyRules,
    /// What is done at the provider when it is called.
    pub actions: Vec<Action>,
    /// The syncs among its functions. They stand in files of their own.
    pub function_syncs: Vec<FunctionSync>,
    /// Names of its functions that run once a connection was created.
    pub on_creation: Vec<String>,
    /// The file as it was written.
    pub text: Arc<str>,
    /// Content hash of the file (hex), stored with every run.
    pub hash: String,
}

impl Definition {
    /// Whether there is anything that could be asked by HTTP.
    pub fn has_base(&self) -> bool {
        self.base_url.as_literal() != Some(parse::NOWHERE)
    }

    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|s| s.name == name)
    }

    /// The function of this name that is a sync.
    pub fn function_sync(&self, name: &str) -> Option<&FunctionSync> {
        self.function_syncs.iter().find(|function| function.name == name)
    }

    /// The function that writes a model.
    pub fn writer(&self, model: &str) -> Option<&FunctionSync> {
        self.function_syncs.iter().find(|sync| sync.models.iter().any(|own| own == model))
    }

    /// The stream whose sync has this name.
    pub fn sync(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|s| s.sync == name)
    }
}

/// A value that may be a list: the name is repeated for each element; a value that is one placeholder keeps its type.
#[derive(Clone, Debug)]
pub enum Param {
    /// One value.
    One(Template),
    /// `name=a&name=b`.
    Many(Vec<Template>),
}

/// A body with placeholders in its strings (values and keys).
#[derive(Clone, Debug)]
pub enum Tree {
    /// Number, bool, null.
    Leaf(Value),
    /// Text, possibly with placeholders.
    Text(Template),
    /// A list.
    List(Vec<Tree>),
    /// A map in order.
    Map(Vec<(Template, Tree)>),
}

/// How requests are signed in. Secrets are templates over `connection.credentials` or resolved references.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// The kind.
    pub kind: AuthKind,
    /// A connection may bring no credentials: its requests go out unsigned.
    pub optional: bool,
    /// A request that proves the sign-in works.
    pub test: Option<Request>,
    /// Fields kept on the connection: name → jq over the test's answer.
    pub connection_fields: Vec<(String, Expr)>,
}

/// The kinds of sign-in.
#[derive(Clone, Debug, Default)]
pub enum AuthKind {
    /// Nothing.
    #[default]
    None,
    /// `Authorization: Bearer …`. Credential field `token`; the value here is the default for connections without one.
    Bearer {
        /// Default token.
        token: Option<String>,
    },
    /// Credential fields `username`, `password`.
    Basic {
        /// Default user name.
        username: Option<String>,
        /// Default password.
        password: Option<String>,
    },
    /// Credential field `key`.
    ApiKey {
        /// Default key.
        key: Option<String>,
        /// In the query instead of a header.
        in_query: bool,
        /// Header or parameter name.
        name: String,
        /// Text before the key.
        prefix: String,
    },
    /// `Authorization: Bearer …` with tokens that expire and are renewed. Credential field `access_token`.
    Tokens(Box<TokenAuth>),
}

/// Pace and retry (§3.3).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Token buckets per connection; the most specific match wins.
    pub rate: Vec<Rate>,
    /// Open requests per connection.
    pub concurrency: usize,
    /// Statuses that are tried again.
    pub retry_status: Statuses,
    /// Attempts, waits.
    pub retry: syncline_engine::source::Retry,
    /// Names of the provider's hint headers.
    pub headers: HintHeaders,
    /// Keep validators and ask conditionally.
    pub conditional: bool,
    /// Header with seconds before the next run.
    pub poll_hint: Option<String>,
    /// For a whole answer.
    pub timeout: Duration,
    /// After decompression, bytes.
    pub max_response: u64,
}

/// One token bucket.
#[derive(Clone, Debug)]
pub struct Rate {
    /// `METHOD glob` over the path; `None` matches all.
    pub matches: Option<(Option<String>, String)>,
    /// Requests …
    pub limit: u32,
    /// … per this span.
    pub per: Duration,
    /// Bucket size; `limit` by default.
    pub burst: u32,
}

/// Names of hint headers.
#[derive(Clone, Debug, Default)]
pub struct HintHeaders {
    /// Seconds or HTTP date.
    pub retry_after: Option<String>,
    /// Requests left.
    pub remaining: Option<String>,
    /// Requests in all.
    pub limit: Option<String>,
    /// Epoch seconds of the reset.
    pub reset_epoch: Option<String>,
    /// Seconds until the reset.
    pub reset_after: Option<String>,
}

/// A set of outcomes: `429`, `5xx`, `network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Inclusive ranges.
    pub ranges: Vec<(u16, u16)>,
    /// Connect errors, broken answers, timeouts.
    pub network: bool,
}

impl Statuses {
    /// Whether `status` is in the set.
    pub fn has(&self, status: u16) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

/// Treatment of an answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Which statuses; all if none is given.
    pub status: Option<Statuses>,
    /// Over the body.
    pub when: Option<Expr>,
    /// What then.
    pub action: ResponseAction,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseAction {
    /// Try again.
    Retry,
    /// The run fails.
    Fail,
    /// The page is left out, the run is incomplete.
    Skip,
    /// Counts as an empty page.
    Ignore,
    /// Is a whole page, whatever its status says.
    Take,
}

/// A request (§3.4), with everything inherited already laid in: source headers and params, stream, request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`…
    pub method: String,
    /// Path or URL.
    pub path: Template,
    /// Query.
    pub params: Vec<(String, Param)>,
    /// Headers.
    pub headers: Vec<(String, Template)>,
    /// JSON body.
    pub body: Option<Tree>,
    /// Url-encoded body.
    pub form: Option<Vec<(String, Param)>>,
    /// The items of a page; `None`: the answer itself if it is an array.
    pub items: Option<Expr>,
    /// Items failing it are not of this stream.
    pub filter: Option<Expr>,
    /// The API's own count.
    pub total: Option<Expr>,
    /// How to go on.
    pub paginate: Paginate,
    /// The API gives pages without items before the end.
    pub empty_pages: bool,
    /// The run fails beyond.
    pub max_pages: u64,
    /// Treatment of answers, inner levels first.
    pub responses: Vec<Response>,
    /// For a whole answer.
    pub timeout: Duration,
    /// Partition names its placeholders mention, sorted.
    pub partitions: Vec<String>,
    /// Whether its placeholders mention `until`, `since`.
    pub uses_until: bool,
    /// See `uses_until`.
    pub uses_since: bool,
}

/// How to go on to the next page (§3.5).
#[derive(Clone, Debug)]
pub enum Paginate {
    /// One page.
    None,
    /// `Link: <…>; rel="next"`.
    LinkHeader {
        /// The relation.
        rel: String,
    },
    /// A URL in the body.
    LinkBody(Expr),
    /// A token in the body.
    Cursor {
        /// Where it is.
        cursor: Expr,
        /// Parameter it goes to (dotted in a body).
        param: String,
        /// Where that is.
        place: ParameterPlace,
        /// False ends the listing.
        more: Option<Expr>,
    },
    /// Counting items.
    Offset {
        /// Parameter for the offset.
        offset: String,
        /// Parameter for the size.
        limit: Option<String>,
        /// Items a page.
        size: u64,
        /// Where both go.
        place: ParameterPlace,
        /// Whether more follows.
        more: Option<Expr>,
        /// A page with fewer than `size` items is the last.
        short_page_ends: bool,
    },
    /// Counting pages.
    Page {
        /// Parameter for the page number.
        page: String,
        /// First page.
        start: u64,
        /// Items a page.
        size: Option<u64>,
        /// Number of the last page.
        last: Option<Expr>,
        /// Whether more follows.
        more: Option<Expr>,
        /// Where it goes.
        place: ParameterPlace,
        /// A page with fewer than `size` items is the last.
        short_page_ends: bool,
    },
}

/// Where a paging parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterPlace {
    /// Query.
    Query,
    /// Body, dotted name.
    Body,
    /// Header.
    Header,
}

/// Values that split a stream in independent lists (§3.6).
#[derive(Clone, Debug)]
pub struct Partition {
    /// Where the values come from.
    pub values: PartitionValues,
    /// Most values.
    pub max: usize,
    /// Records of a vanished value are deleted (guard permitting) instead of kept.
    pub delete_on_remove: bool,
}

/// Where partition values come from.
#[derive(Clone, Debug)]
pub enum PartitionValues {
    /// Written in the file.
    Fixed(Vec<String>),
    /// A dotted path in the connection's metadata.
    Metadata(String),
    /// Records of another stream.
    Stream {
        /// Its name.
        stream: String,
        /// jq over a record.
        key: Expr,
        /// In incremental runs only parents changed since the last run.
        only_changed: bool,
    },
    /// A request of its own.
    Request {
        /// The request.
        request: Box<Request>,
        /// jq over an item.
        key: Expr,
    },
}

/// A source's time: jq giving RFC 3339 text or a number.
#[derive(Clone, Debug)]
pub struct TimeExpr {
    /// The expression.
    pub value: Expr,
    /// Fixed unit; otherwise numbers ≥ 10¹¹ are milliseconds, smaller ones seconds.
    pub unit: Option<TimeUnit>,
}

impl TimeExpr {
    /// The time in `item`; `Ok(None)` when the value is null.
    pub fn read(&self, item: &Value, vars: &crate::expr::Vars) -> Result<Option<Timestamp>, crate::expr::EvalError> {
        let value = self.value.first(item, vars)?;
        read_time(&value, self.unit)
    }
}

/// One kind of record (§3.7).
#[derive(Clone, Debug)]
pub struct Stream {
    /// Model name.
    pub name: String,
    /// Sync name.
    pub sync: String,
    /// One expression, or the parts of a composite key.
    pub key: Vec<Expr>,
    /// Whether `key` was written as a list: the id is then the JSON array of the parts.
    pub composite: bool,
    /// The source's modified time.
    pub modified_at: Option<TimeExpr>,
    /// Who wins.
    pub merge: Strategy,
    /// When it runs.
    pub schedule: Schedule,
    /// The complete listing.
    pub list: Option<Request>,
    /// What changed.
    pub incremental: Option<Incremental>,
    /// One record by key.
    pub fetch: Option<Fetch>,
    /// A Kafka topic of somebody else's.
    pub topic: Option<Topic>,
    /// The record from the item.
    pub map: Map,
    /// JSON Schema of the mapped record.
    pub schema: Option<Value>,
    /// What happens to records that break it.
    pub on_invalid: OnInvalid,
    /// Dotted paths that alone make no change.
    pub ignore_in_diff: Vec<String>,
    /// How deletes are found.
    pub deletes: Deletes,
    /// Its records are brought by code instead of requests; a file cannot say so.
    pub of_code: bool,
    /// It is a model that a function writes; a file cannot say so.
    pub of_function: bool,
}

impl Stream {
    /// Whether it can be asked for records. One that cannot is fed: by its topic, by its source's input topic, by webhooks.
    pub fn polled(&self) -> bool {
        self.lists() || self.incremental.is_some()
    }

    /// Whether it can be asked for everything.
    pub fn lists(&self) -> bool {
        self.list.is_some() || self.of_code
    }
}

/// A Kafka topic whose messages are records of the stream.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Where reading begins the first time.
    pub start: TopicStart,
    /// The item in a message's value; `None` is the value itself.
    pub value: Option<Expr>,
    /// Whose record it is, read from the message's value; `None` is the source's only connection.
    pub connection: Option<Expr>,
}

/// Where reading of a topic begins the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicStart {
    /// The oldest message there is.
    Earliest,
    /// What is written from then on.
    Latest,
}

/// How the record is made from the item.
#[derive(Clone, Debug)]
pub enum Map {
    /// The item as it is.
    Same,
    /// One expression giving an object.
    Whole(Expr),
    /// Field by field; no output is null.
    Fields(Vec<(String, Expr)>),
}

/// What happens to records that break the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// Stored and counted.
    Warn,
    /// Kept aside; the run is incomplete.
    Quarantine,
    /// Not checked.
    Off,
}

/// What changed (§5.1).
#[derive(Clone, Debug)]
pub struct Incremental {
    /// The request.
    pub request: Request,
    /// Taken off `since`.
    pub lookback: Duration,
    /// First `since` when there is no `list`.
    pub start: Option<Timestamp>,
    /// Result cap of the API.
    pub split_at: Option<u64>,
    /// Smallest span to halve to.
    pub min_span: Duration,
}

/// One record by key.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The request; `{{ key }}` or `{{ keys }}`.
    pub request: Request,
    /// Keys a request.
    pub batch: usize,
    /// 404 and 410 are a delete.
    pub not_found_deletes: bool,
}

/// How deletes are found (§3.8).
#[derive(Clone, Debug)]
pub struct Deletes {
    /// Keys absent from a proven listing are deleted.
    pub from_full_list: Option<ConfirmRule>,
    /// Listings of deleted records.
    pub listings: Vec<DeletedListing>,
    /// An item says it is deleted.
    pub flag: Option<(Expr, Option<TimeExpr>)>,
    /// Hold too many deletes.
    pub guard: Option<Guard>,
}

/// `confirm` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmRule {
    /// Decided by proof: totals, else fetch, else twice.
    Auto,
    /// At once.
    None,
    /// `fetch` must say it is gone.
    Fetch,
    /// Missing twice.
    Twice,
}

/// A listing of deleted records.
#[derive(Clone, Debug)]
pub struct DeletedListing {
    /// The request.
    pub list: Request,
    /// Key of the deleted record.
    pub key: Vec<Expr>,
    /// When it was deleted.
    pub at: Option<TimeExpr>,
    /// How often; with every run if absent.
    pub every: Option<Duration>,
}

/// Holds suspicious deletes for approval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// More than this share …
    pub max_fraction: f64,
    /// … of a dataset of at least so many live records.
    pub min_count: u64,
}

/// When a sync runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The usual ticks.
    pub tick: Tick,
    /// Full listings instead of incremental ones.
    pub full: Option<Tick>,
    /// Deterministic spread, as a span.
    pub jitter: Duration,
    /// Begins paused.
    pub paused: bool,
    /// A run longer than this fails.
    pub timeout: Duration,
}

/// A grid of times.
#[derive(Clone, Debug, PartialEq)]
pub enum Tick {
    /// Every so often, anchored at creation.
    Every(Duration),
    /// A cron expression (UTC).
    Cron(String),
}

/// A connection written in the file.
#[derive(Clone, Debug, Default)]
pub struct FixedConnection {
    /// Its id.
    pub name: String,
    /// Isolation scope.
    pub environment: String,
    /// Secrets, resolved.
    pub credentials: serde_json::Map<String, Value>,
    /// What was entered for it: values of `fields` of `auth`.
    pub fields: serde_json::Map<String, Value>,
    /// Free JSON.
    pub metadata: Value,
    /// Labels.
    pub tags: Vec<String>,
    /// Partition values by name.
    pub partitions: BTreeMap<String, Vec<String>>,
    /// Only these streams.
    pub streams: Option<Vec<String>>,
    /// Other schedules, by stream.
    pub schedule: BTreeMap<String, Schedule>,
    /// Another base.
    pub base_url: Option<String>,
    /// Outgoing webhooks go only there.
    pub webhook_url_override: Option<String>,
}

/// Inbound webhooks (§3.9).
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// One URL per connection instead of one for all.
    pub per_connection: bool,
    /// A fixed path instead of the token path.
    pub path: Option<String>,
    /// How requests are proven.
    pub verify: Verify,
    /// One request → several events.
    pub events: Option<Expr>,
    /// Whose event it is.
    pub route: Option<Route>,
    /// Unrouted events are dropped instead of parked.
    pub drop_unrouted: bool,
    /// Becomes `$type`.
    pub kind: Option<Expr>,
    /// Delivery id: the first that exists.
    pub dedupe: Vec<Expr>,
    /// Order inside one request.
    pub order_by: Option<Expr>,
    /// What events mean.
    pub map: Vec<WebhookMap>,
    /// Status and body of the answer; placeholders read the body of the request.
    pub reply: (u16, Template),
    /// 413 beyond, bytes.
    pub max_body: u64,
}

/// Whose event it is: the connections whose `field` equals the value.
#[derive(Clone, Debug)]
pub struct Route {
    /// jq over the event.
    pub value: Expr,
    /// Field of the connection (`fields`, then `metadata`).
    pub field: String,
}

/// What one kind of event means.
#[derive(Clone, Debug)]
pub struct WebhookMap {
    /// Which events.
    pub when: Option<Expr>,
    /// Go on to the next entry.
    pub all: bool,
    /// The stream; absent where the event is only acknowledged.
    pub stream: Option<String>,
    /// The record's key.
    pub key: Vec<Expr>,
    /// Written as a list.
    pub composite: bool,
    /// What it says.
    pub effect: WebhookEffect,
    /// When that was true.
    pub at: Option<TimeExpr>,
    /// Partition values, for `record` and `hydrate`.
    pub partition: Vec<(String, Expr)>,
    /// Read the record again.
    pub hydrate: Hydrate,
    /// Ask the stream for what has changed.
    pub run: bool,
}

/// What a webhook says of a record.
#[derive(Clone, Debug)]
pub enum WebhookEffect {
    /// Only a hint.
    Nothing,
    /// A whole item, mapped like a polled one.
    Record(Expr),
    /// Item paths → values.
    Patch(Vec<(Template, Expr)>),
    /// It is gone.
    Delete,
}

/// Reading the record again after a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hydrate {
    /// No.
    Never,
    /// At once.
    Now,
    /// Once things are quiet.
    Debounce {
        /// Quiet for so long …
        quiet: Duration,
        /// … but at the latest after this.
        max_wait: Duration,
    },
}

/// How a request is proven (§3.10). Presets are resolved to schemes.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The scheme as data.
    pub scheme: Scheme,
    /// Live secrets, resolved; empty with `per_connection_secret`.
    pub secrets: Vec<String>,
    /// The secret is `{{ webhook_secret }}`: of the connection (credential or field `webhook_secret`).
    pub per_connection_secret: bool,
}

/// A verification scheme as data.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// Not proven at all; must be written out.
    None,
    /// HMAC.
    Hmac(HmacScheme),
    /// The secret itself in a header.
    SharedSecret {
        /// Which header.
        header: String,
    },
}

/// HMAC over chosen parts.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacScheme {
    /// Hash.
    pub algorithm: HashAlgorithm,
    /// Header with the signature.
    pub header: String,
    /// How it stands there.
    pub format: SignatureFormat,
    /// Its encoding.
    pub encoding: SignatureEncoding,
    /// Most signatures in the header.
    pub max: usize,
    /// The signed time.
    pub timestamp: Option<StampRule>,
    /// What is signed.
    pub content: Vec<SignedPart>,
    /// How the secret becomes key bytes.
    pub key: KeyForm,
}

/// Hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HashAlgorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How signatures stand in their header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureFormat {
    /// The signature alone.
    Raw,
    /// A fixed text before it.
    Prefix(String),
    /// `t=1,v1=abc`: the values of this key.
    Kv(String),
    /// `v1,abc v1,def`: space-separated, those with this version.
    List(String),
}

/// Encoding of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SignatureEncoding {
    Hex,
    Base64,
    Base64Url,
}

/// Where the signed time stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StampRule {
    /// Where.
    pub from: StampPlace,
    /// Unit.
    pub unit: StampUnit,
    /// Not older than.
    pub past: Duration,
    /// Not newer than.
    pub future: Duration,
}

/// Where the signed time stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StampPlace {
    /// A header.
    Header(String),
    /// A key of the signature header (`t`).
    Kv(String),
    /// A dotted path of the body.
    Body(String),
}

/// Unit of a signed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StampUnit {
    Seconds,
    Millis,
    Iso8601,
}

/// A part of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SignedPart {
    Stamp,
    /// The delivery id (`webhook-id`).
    Id,
    Method,
    Url,
    Path,
    Query,
    Body,
    Secret,
    Header(String),
    Literal(String),
}

/// How the secret becomes key bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyForm {
    Text,
    Base64,
    Hex,
    /// `whsec_` + base64.
    Whsec,
}
