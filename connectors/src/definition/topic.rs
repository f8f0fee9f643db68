//! `topic`: a stream read from a Kafka topic of somebody else's.

use super::read::{self, KnownNames, MESSAGE, Out};
use super::{Topic, TopicStart};
use crate::config_text::{Fields, Node};
use crate::expr::Expr;

/// Longest name of a topic.
const NAME_CHARS: usize = 249;

/// Reads `topic` of a stream. Whether there is a broker stands in the settings: that `kafka_not_set` is a warning here, which
/// whoever knows the settings drops or makes an error.
pub(super) fn topic(node: Node, names: &KnownNames, out: &mut Out) -> Option<Topic> {
    let spot = node.spot.clone();
    let mut fields = Fields::open(node, "`topic`", out)?;
    let complaint =
        spot.complain("kafka_not_set", "`topic` is read from a Kafka cluster, which the settings must name");
    out.push(complaint.warn().hint("add `kafka: {brokers: \"HOST:9092\"}` to syncline.yaml"));
    let name = fields.require_text("name", out).and_then(|(name, spot)| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.is_empty() && name.len() <= NAME_CHARS && name.chars().all(legal) && name != "." && name != ".." {
            return Some(name);
        }
        let complaint = spot.complain("bad_name", format!("`{name}` is no name of a topic"));
        out.push(complaint.hint("letters, digits, `.`, `_`, `-`; 249 characters at most"));
        None
    });
    let starts = [("earliest", TopicStart::Earliest), ("latest", TopicStart::Latest)];
    let start = fields.word("start", &starts, out).unwrap_or(TopicStart::Earliest);
    let mut expression = |key: &'static str, what: &str, out: &mut Out| -> Option<Expr> {
        fields.take(key).and_then(|node| read::expr(&node, what, names.variables(MESSAGE), out))
    };
    let value = expression("value", "`topic.value`", out).filter(|value| value.text().trim() != ".");
    let connection = expression("connection", "`topic.connection`", out);
    fields.finish(out);
    Some(Topic { name: name?, start, value, connection })
}
