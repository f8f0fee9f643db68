//! `partitions`: where the values that split a stream come from.

use super::read::{self, ANSWER, KnownNames, Out, STORED};
use super::request::{Level, request};
use super::{Partition, PartitionValues, Stream};
use crate::config_text::{Fields, Node, SourceSpan};
use std::collections::{BTreeMap, BTreeSet};

/// Most values, and its limit.
const MAX_VALUES: u64 = 10_000;
const MAX_VALUES_LIMIT: u64 = 100_000;

/// Names under `partitions`, before anything is read: placeholders are checked against them.
pub(super) fn names(node: Option<&Node>) -> BTreeSet<String> {
    match node.map(|n| &n.content) {
        Some(crate::config_text::Content::Map(entries)) => entries.iter().map(|e| e.key.clone()).collect(),
        _ => BTreeSet::new(),
    }
}

/// A partition with its place, for checks across streams.
pub(super) type Placed = BTreeMap<String, (Partition, SourceSpan)>;

/// Reads `partitions`.
pub(super) fn partitions(node: Option<Node>, level: &Level, outer: &KnownNames, out: &mut Out) -> Placed {
    let Some(mut map) = node.and_then(|n| Fields::open(n, "`partitions`", out)) else { return Placed::new() };
    let mut placed = Placed::new();
    for entry in map.rest() {
        read::name(&entry.key, "a partition", &entry.spot, out);
        let what = format!("partition `{}`", entry.key);
        let Some(mut fields) = Fields::open(entry.value, what, out) else { continue };
        let values = values(&mut fields, level, outer, out);
        let max = fields.whole("max", 1, MAX_VALUES_LIMIT, out).unwrap_or(MAX_VALUES);
        let delete_on_remove = fields.word("on_remove", &[("keep", false), ("delete", true)], out).unwrap_or(false);
        fields.finish(out);
        if let Some(values) = values {
            let partition = Partition { values, max: usize::try_from(max).unwrap_or(usize::MAX), delete_on_remove };
            placed.insert(entry.key, (partition, entry.spot));
        }
    }
    placed
}

fn values(fields: &mut Fields, level: &Level, outer: &KnownNames, out: &mut Out) -> Option<PartitionValues> {
    let kinds = ["values", "metadata", "stream", "request"];
    let found: Vec<&str> = kinds.iter().copied().filter(|k| fields.has(k)).collect();
    fields.known(&["values", "metadata", "stream", "request", "key", "only"]);
    match found.as_slice() {
        ["values"] => {
            let spot = fields.spot.clone();
            let values: Vec<String> = fields.texts("values", out)?.into_iter().map(|(text, _)| text).collect();
            let distinct: BTreeSet<&String> = values.iter().collect();
            if distinct.len() != values.len() || values.iter().any(String::is_empty) {
                out.push(
                    spot.complain("bad_value", format!("the values of {} must differ and not be empty", fields.what)),
                );
            }
            Some(PartitionValues::Fixed(values))
        }
        ["metadata"] => {
            let (path, spot) = fields.text("metadata", out)?;
            let path = path.trim_start_matches('.').to_owned();
            if path.is_empty() || path.split('.').any(str::is_empty) {
                out.push(spot.complain("bad_value", "`metadata` is a dotted path").hint("write accounts or team.ids"));
            }
            Some(PartitionValues::Metadata(path))
        }
        ["stream"] => {
            let stream = fields.text("stream", out).map(|(text, _)| text);
            let key = fields.require("key", out).and_then(|n| read::expr(&n, "`key`", outer.variables(STORED), out));
            let only_changed = fields.word("only", &[("all", false), ("changed", true)], out).unwrap_or(false);
            Some(PartitionValues::Stream { stream: stream?, key: key?, only_changed })
        }
        ["request"] => {
            let node = fields.take("request")?;
            let mut inner = Fields::open(node, "`request`", out)?;
            let names = KnownNames { in_stream: false, ..outer.clone() };
            let request = request(&mut inner, level, &names, out);
            inner.finish(out);
            let key = fields.require("key", out).and_then(|n| read::expr(&n, "`key`", outer.variables(ANSWER), out));
            Some(PartitionValues::Request { request: Box::new(request?), key: key? })
        }
        [] => {
            let complaint =
                fields.spot.complain("missing_key", format!("{} does not say where its values come from", fields.what));
            out.push(complaint.hint("one of values, metadata, stream, request"));
            None
        }
        several => {
            let message = format!("{} takes its values from one of {}", fields.what, several.join(", "));
            out.push(fields.spot.complain("conflict", message));
            for kind in kinds {
                fields.take(kind);
            }
            None
        }
    }
}

/// Complains about partitions of unknown streams, and of streams that need the partition itself.
pub(super) fn check(placed: &Placed, streams: &[Stream], out: &mut Out) {
    for (name, (partition, spot)) in placed {
        let PartitionValues::Stream { stream, .. } = &partition.values else { continue };
        if !streams.iter().any(|s| s.name == *stream) {
            out.push(
                spot.complain(
                    "unknown_stream",
                    format!("partition `{name}` reads stream `{stream}`, which is not there"),
                ),
            );
        } else if reaches(name, name, placed, streams, &mut BTreeSet::new()) {
            let message = format!("the values of partition `{name}` depend on the partition itself");
            out.push(spot.complain("partition_cycle", message));
        }
    }
}

/// Whether the values of `from` need the values of `target`.
fn reaches(from: &str, target: &str, placed: &Placed, streams: &[Stream], seen: &mut BTreeSet<String>) -> bool {
    let Some((Partition { values: PartitionValues::Stream { stream, .. }, .. }, _)) = placed.get(from) else {
        return false;
    };
    let Some(stream) = streams.iter().find(|s| s.name == *stream) else { return false };
    let requests = stream.list.iter().chain(stream.incremental.iter().map(|i| &i.request));
    requests.flat_map(|r| &r.partitions).any(|needed| {
        needed == target || (seen.insert(needed.clone()) && reaches(needed, target, placed, streams, seen))
    })
}
