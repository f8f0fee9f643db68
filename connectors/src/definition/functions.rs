//! `functions`: what a source allows its functions, and what is known of those that write its models.

use super::read::Out;
use super::{Guard, Schedule, Stream, deletes};
use crate::config_text::{self, Content, Fields, Node};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time of one execution.
const WALL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest time on the processor of one execution.
const CPU_MAX: Duration = Duration::from_secs(3_600);
/// Bounds of the heap.
const MEMORY: std::ops::RangeInclusive<u64> = 8 << 20..=1 << 30;
/// Keys of `paginate` that name a place in a request or an answer.
const PLACES: [&str; 7] = [
    "cursor_path_in_response",
    "cursor_name_in_request",
    "link_rel_in_response_header",
    "link_path_in_response_body",
    "offset_name_in_request",
    "limit_name_in_request",
    "response_path",
];
/// Largest number in `paginate`.
const NUMBER_MAX: u64 = 1_000_000;

/// What functions of a source may do.
#[derive(Clone, Debug)]
pub struct FunctionRules {
    /// Hosts beside the base's where signed requests may go: names, or `*.example.com`.
    pub hosts: Vec<String>,
    /// Credentials are handed to the code as they are; otherwise it sees handles that only its requests can use.
    pub visible: bool,
    /// What `getEnvironmentVariables` gives.
    pub env: BTreeMap<String, String>,
    /// Defaults of `paginate`.
    pub paginate: Map<String, Value>,
    /// What one execution may use up, where it is not as usual.
    pub limits: FunctionLimits,
    /// Holds too many deletes of a model.
    pub guard: Option<Guard>,
    /// Whether records are held against the schemas of their models.
    pub validate: Validation,
}

/// What happens to a record that does not fit its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Nothing is checked.
    #[default]
    Off,
    /// It is saved, and a line of the log says so.
    Warn,
    /// The run fails, and what was written since its last step is not saved.
    Reject,
}

impl Default for FunctionRules {
    fn default() -> Self {
        FunctionRules {
            hosts: Vec::new(),
            visible: false,
            env: BTreeMap::new(),
            paginate: Map::new(),
            limits: FunctionLimits::default(),
            guard: Some(deletes::GUARD),
            validate: Validation::Off,
        }
    }
}

impl FunctionRules {
    /// Whether signed requests may go to this host.
    pub fn allows(&self, host: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|before| before.len() > 1 && before.ends_with('.')),
            None => pattern == host,
        };
        self.hosts.iter().any(fits)
    }
}

/// What one execution may use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionLimits {
    /// Bytes of the heap.
    pub memory: Option<usize>,
    /// From its beginning to its end.
    pub wall: Option<Duration>,
    /// Time on the processor in all.
    pub cpu: Option<Duration>,
}

/// A sync that is a function: its code writes several models of its source.
#[derive(Clone, Debug)]
pub struct FunctionSync {
    /// Name on the wire.
    pub name: String,
    /// Where its code stands, within the folder of functions.
    pub file: String,
    /// For people.
    pub description: Option<String>,
    /// The models it writes: each is a stream of the source.
    pub models: Vec<String>,
    /// When it runs.
    pub schedule: Schedule,
    /// A run that began without a checkpoint is a complete listing of all its models.
    pub track_deletes: bool,
    /// Types of webhook events its `onWebhook` takes; `*` for all.
    pub webhooks: Vec<String>,
    /// Whether it has `exec`.
    pub polled: bool,
}

/// What the functions of a source bring to it.
#[derive(Clone, Debug, Default)]
pub struct SourceFunctions {
    /// A stream for each of their models.
    pub models: Vec<Stream>,
    /// Names of the syncs.
    pub syncs: Vec<String>,
    /// Any function makes requests.
    pub any: bool,
    /// Some take events of webhooks, by their type.
    pub subscribe: bool,
}

/// Reads `functions`.
pub(super) fn functions(node: Option<Node>, out: &mut Out) -> FunctionRules {
    let mut rules = FunctionRules::default();
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`functions`", out)) else { return rules };
    for (host, spot) in fields.texts("hosts", out).unwrap_or_default() {
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
        if !is_name {
            out.push(spot.complain("bad_host", format!("`{host}` is no host; write api.example.com or *.example.com")));
        }
        rules.hosts.push(host.to_ascii_lowercase());
    }
    let words = [("hidden", false), ("visible", true)];
    rules.visible = fields.word("credentials", &words, out).unwrap_or(false);
    if let Some(node) = fields.take("env") {
        rules.env = env(node, out);
    }
    if let Some(node) = fields.take("paginate") {
        rules.paginate = paginate(node, out);
    }
    if let Some(mut limits) = fields.take("limits").and_then(|node| Fields::open(node, "`functions.limits`", out)) {
        rules.limits = self::limits(&mut limits, out);
        limits.finish(out);
    }
    if let Some(node) = fields.take("guard") {
        rules.guard = deletes::guard(node, out);
    }
    let words = [("off", Validation::Off), ("warn", Validation::Warn), ("reject", Validation::Reject)];
    rules.validate = fields.word("validate", &words, out).unwrap_or_default();
    fields.finish(out);
    rules
}

fn env(node: Node, out: &mut Out) -> BTreeMap<String, String> {
    let Content::Map(entries) = node.content else {
        out.push(config_text::bad_type(&node, "`functions.env`", "a map of texts"));
        return BTreeMap::new();
    };
    let text = |entry: config_text::Entry| match entry.value.scalar_text() {
        Some(text) => Some((entry.key, text)),
        None => {
            out.push(config_text::bad_type(&entry.value, "a value of `functions.env`", "a text"));
            None
        }
    };
    entries.into_iter().filter_map(text).collect()
}

fn paginate(node: Node, out: &mut Out) -> Map<String, Value> {
    let mut paging = Map::new();
    let Some(mut fields) = Fields::open(node, "`functions.paginate`", out) else { return paging };
    let kinds = [("cursor", "cursor"), ("link", "link"), ("offset", "offset")];
    match (fields.has("type"), fields.word("type", &kinds, out)) {
        (_, Some(kind)) => drop(paging.insert("type".to_owned(), kind.into())),
        (true, None) => {}
        (false, None) => {
            let message = "`functions.paginate` needs the key `type`: cursor, link or offset";
            out.push(fields.spot.complain("missing_key", message));
        }
    }
    for key in PLACES {
        let Some((text, _)) = fields.text(key, out) else { continue };
        paging.insert(key.to_owned(), text.into());
    }
    for (key, least) in [("limit", 1), ("offset_start_value", 0)] {
        let Some(number) = fields.whole(key, least, NUMBER_MAX, out) else { continue };
        paging.insert(key.to_owned(), number.into());
    }
    let steps = [("by-response-size", "by-response-size"), ("per-page", "per-page")];
    if let Some(step) = fields.word("offset_calculation_method", &steps, out) {
        paging.insert("offset_calculation_method".to_owned(), step.into());
    }
    if let Some(in_body) = fields.bool("in_body", out) {
        paging.insert("in_body".to_owned(), in_body.into());
    }
    fields.finish(out);
    paging
}

fn limits(fields: &mut Fields, out: &mut Out) -> FunctionLimits {
    let memory = fields.size("memory", out).map(|(bytes, spot)| {
        if !MEMORY.contains(&bytes) {
            out.push(spot.complain("out_of_range", "`memory` must be 8MiB to 1GiB"));
        }
        bytes as usize
    });
    let mut span = |key: &'static str, most: Duration, most_text: &str, out: &mut Out| {
        fields.duration(key, out).map(|(span, spot)| {
            if span.is_zero() || span > most {
                out.push(spot.complain("out_of_range", format!("`{key}` must be more than 0 and at most {most_text}")));
            }
            span
        })
    };
    FunctionLimits { memory, wall: span("wall", WALL_MAX, "24h", out), cpu: span("cpu", CPU_MAX, "1h", out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_at_least_one_label() {
        let rules =
            FunctionRules { hosts: vec!["api.example.com".into(), "*.example.org".into()], ..FunctionRules::default() };
        for host in ["api.example.com", "a.example.org", "a.b.example.org"] {
            assert!(rules.allows(host), "{host}");
        }
        for host in ["example.com", "x.api.example.com", "example.org", ".example.org", "evilexample.org", ""] {
            assert!(!rules.allows(host), "{host}");
        }
    }
}
