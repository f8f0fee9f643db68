//! `kafka` and `log` of the settings: the cluster, the topics in and out, and where the log is kept.

use super::value::{Wrong, secret_or_text};
use super::{LogKind, Process, Settings};
use crate::connectors::config_text::{Content, Fields, Node};
use crate::connectors::kafka::cluster::FIXED;
use crate::connectors::kafka::output::{By, ChangeFormat, HeaderForm, Shape, TopicKeyForm};
use crate::connectors::kafka::{Cluster, NewTopics};
use std::time::Duration;

/// A Kafka cluster and what it is used for.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// How it is reached.
    pub cluster: Cluster,
    /// What is written to topics; `None`: nothing.
    pub output: Option<Shape>,
    /// Whether input topics are read.
    pub input: bool,
}

/// Most partitions of a topic we make.
const PARTITIONS_MAX: u64 = 1_000;
/// Shortest session: heartbeats need time to travel.
const SESSION_LEAST: Duration = Duration::from_millis(500);
/// Most copies of a partition.
const REPLICATION_MAX: u64 = 9;
/// Properties whose values are secrets: references, never literals.
const SECRET: [&str; 5] =
    ["sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"];

impl Settings {
    /// Whether a cluster is named.
    pub(crate) fn has_topics(&self) -> bool {
        self.kafka.is_some()
    }

    /// Whether topics are read.
    pub(crate) fn reads_topics(&self) -> bool {
        self.kafka.as_ref().is_some_and(|kafka| kafka.input)
    }
}

/// Reads `kafka` and `log`.
pub(super) fn read(top: &mut Fields, settings: &mut Settings, wrong: &mut Wrong) {
    settings.kafka = top.take("kafka").and_then(|node| kafka(node, wrong));
    let Some(node) = top.take("log") else { return };
    let spot = node.spot.clone();
    settings.log = log(node, &mut settings.process, wrong).unwrap_or_default();
    if settings.log == LogKind::Kafka && settings.kafka.is_none() {
        let complaint = spot.complain("kafka_not_set", "the log is to be kept in Kafka, but no broker is named");
        wrong.push(complaint.hint("add `kafka: {brokers: \"HOST:9092\"}`"));
    }
}

/// `log: kafka`, or `log: {kind: kafka, url: …, partitions: …, session: …}`.
fn log(node: Node, process: &mut Process, wrong: &mut Wrong) -> Option<LogKind> {
    const KINDS: [(&str, LogKind); 2] = [("embedded", LogKind::Embedded), ("kafka", LogKind::Kafka)];
    if let Some(word) = node.text() {
        let found = KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        if found.is_none() {
            let complaint = node.spot.complain("bad_value", format!("`{word}` is no kind of log"));
            wrong.push(complaint.hint("write embedded or kafka"));
        }
        return found;
    }
    let mut fields = Fields::open(node, "`log`", wrong)?;
    let kind = fields.word("kind", &KINDS, wrong);
    one_role(&mut fields, wrong);
    if let Some(n) = fields.whole("partitions", 1, PARTITIONS_MAX, wrong) {
        process.partitions = i32::try_from(n).unwrap_or(process.partitions);
    }
    if let Some((session, spot)) = fields.duration("session", wrong) {
        if session < SESSION_LEAST {
            let message = format!("`session` is {session:?}; at least {SESSION_LEAST:?} are wanted");
            wrong.push(spot.complain("out_of_range", message));
        }
        process.session = session;
    }
    if let Some((url, spot)) = fields.text("url", wrong) {
        let good = url::Url::parse(&url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        if !good {
            let complaint = spot.complain("bad_url", format!("`{url}` is not a URL other processes could call"));
            wrong.push(complaint.hint("write http://10.0.0.5:8080"));
        }
        process.url = Some(url.trim_end_matches('/').to_owned());
    }
    fields.finish(wrong);
    kind
}

/// Earlier releases had processes that did a part of the work. Each does all of it now, so `all` says nothing new.
fn one_role(fields: &mut Fields, wrong: &mut Wrong) {
    if let Some((role, spot)) = fields.text("role", wrong)
        && role != "all"
    {
        let message =
            format!("there is no role `{role}` any more: each process takes webhooks, polls and owns a share");
        wrong.push(spot.complain("bad_value", message).hint("leave `role` out"));
    }
}

fn kafka(node: Node, wrong: &mut Wrong) -> Option<Kafka> {
    let mut fields = Fields::open(node, "`kafka`", wrong)?;
    let mut cluster = Cluster::default();
    if let Some((brokers, spot)) = fields.require_text("brokers", wrong) {
        let good = brokers.split(',').all(|b| {
            b.trim().rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        if !good {
            let complaint = spot.complain("bad_address", format!("`{brokers}` names no brokers"));
            wrong.push(complaint.hint("write HOST:PORT, several separated by commas"));
        }
        cluster.brokers = brokers;
    }
    if let Some((prefix, spot)) = fields.text("prefix", wrong) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(legal) {
            let message = format!("`{prefix}` cannot begin a topic's name");
            wrong.push(spot.complain("bad_name", message).hint("letters, digits, `.`, `_`, `-`; 100 at most"));
        }
        cluster.prefix = prefix;
    }
    properties(&mut fields, &mut cluster, wrong);
    cluster.topics = topics(&mut fields, wrong);
    let kafka =
        Kafka { cluster, output: output(&mut fields, wrong), input: fields.bool("input", wrong).unwrap_or(true) };
    fields.finish(wrong);
    Some(kafka)
}

fn properties(fields: &mut Fields, cluster: &mut Cluster, wrong: &mut Wrong) {
    let Some(node) = fields.take("properties") else { return };
    let Some(mut all) = Fields::open(node, "`properties` of `kafka`", wrong) else { return };
    for entry in all.rest() {
        if FIXED.contains(&entry.key.as_str()) {
            let message = format!("`{}` is set by Syncline: what it promises depends on the value", entry.key);
            wrong.push(entry.spot.complain("fixed_property", message).hint("leave it out"));
            continue;
        }
        let secret = SECRET.contains(&entry.key.as_str());
        if let Some(text) = secret_or_text(&entry.value, secret, &format!("`{}`", entry.key), wrong) {
            cluster.properties.insert(entry.key, text);
        }
    }
}

fn topics(fields: &mut Fields, wrong: &mut Wrong) -> NewTopics {
    let mut topics = NewTopics::default();
    let Some(node) = fields.take("topics") else { return topics };
    let Some(mut all) = Fields::open(node, "`topics` of `kafka`", wrong) else { return topics };
    topics.create = all.bool("create", wrong).unwrap_or(topics.create);
    if let Some(n) = all.whole("partitions", 1, PARTITIONS_MAX, wrong) {
        topics.partitions = i32::try_from(n).unwrap_or(topics.partitions);
    }
    if let Some(n) = all.whole("replication", 1, REPLICATION_MAX, wrong) {
        topics.replication = i32::try_from(n).unwrap_or(topics.replication);
    }
    all.finish(wrong);
    topics
}

fn output(fields: &mut Fields, wrong: &mut Wrong) -> Option<Shape> {
    const FORMATS: [(&str, ChangeFormat); 3] = [
        ("debezium", ChangeFormat::Debezium),
        ("cloudevents", ChangeFormat::CloudEvents),
        ("flat", ChangeFormat::Flat),
    ];
    const KEYS: [(&str, TopicKeyForm); 2] = [("json", TopicKeyForm::Json), ("plain", TopicKeyForm::Plain)];
    const HEADERS: [(&str, HeaderForm); 2] = [("all", HeaderForm::All), ("few", HeaderForm::Few)];
    const BY: [(&str, By); 2] = [("record", By::Record), ("connection", By::Connection)];
    let node = fields.take("output")?;
    let mut shape = Shape::default();
    // `output: true` is the short form of all defaults.
    match &node.content {
        Content::Bool(on) => return on.then_some(shape),
        Content::Text(word) if word == "on" => return Some(shape),
        Content::Text(word) if word == "off" => return None,
        _ => {}
    }
    let mut all = Fields::open(node, "`output` of `kafka`", wrong)?;
    shape.changes = all.bool("changes", wrong).unwrap_or(shape.changes);
    shape.state = all.bool("state", wrong).unwrap_or(shape.state);
    shape.format = all.word("format", &FORMATS, wrong).unwrap_or(shape.format);
    shape.key = all.word("key", &KEYS, wrong).unwrap_or(shape.key);
    shape.by = all.word("by", &BY, wrong).unwrap_or(shape.by);
    shape.per_connection = all.bool("per_connection", wrong).unwrap_or(shape.per_connection);
    shape.claim_check = all.bool("claim_check", wrong).unwrap_or(shape.claim_check);
    shape.headers = all.word("headers", &HEADERS, wrong).unwrap_or(shape.headers);
    all.finish(wrong);
    (shape.changes || shape.state).then_some(shape)
}
