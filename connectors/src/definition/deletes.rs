//! `deletes`: complete listings, listings of deleted records, flags, and the guard that holds too many.

use super::context::StreamContext;
use super::read::{self, ANSWER, KnownNames, Out};
use super::request::{Level, request};
use super::{ConfirmRule, DeletedListing, Deletes, Guard};
use crate::config_text::{Content, Fields, Node, SourceSpan, bad_type};
use std::time::Duration;

/// In force if none is written.
pub(super) const GUARD: Guard = Guard { max_fraction: 0.25, min_count: 100 };

/// Reads the entries of `deletes`.
pub(super) fn deletes(
    entries: Vec<Node>,
    around: &StreamContext<'_>,
    level: &Level,
    has_list: bool,
    has_fetch: bool,
    out: &mut Out,
) -> Deletes {
    let mut deletes = Deletes { from_full_list: None, listings: Vec::new(), flag: None, guard: Some(GUARD) };
    let mut guarded = false;
    let variables = around.names.variables(ANSWER);
    for node in entries {
        let Some(mut fields) = Fields::open(node, "an entry of `deletes`", out) else { continue };
        let kinds = ["from_full_list", "list", "flag", "guard"];
        let found: Vec<&str> = kinds.iter().copied().filter(|k| fields.has(k)).collect();
        match found.as_slice() {
            ["from_full_list"] => {
                let again = deletes.from_full_list.is_some();
                deletes.from_full_list =
                    full_list(&mut fields, has_list, has_fetch, again, out).or(deletes.from_full_list);
            }
            ["list"] => deletes.listings.extend(listing(&mut fields, around, level, out)),
            ["flag"] => {
                refuse_second(deletes.flag.is_some(), "flag", &fields.spot, out);
                let at_spot = read::expr_at(&mut fields, "flag", variables, out);
                let at = read::time_at(&mut fields, "at", variables, out);
                deletes.flag = at_spot.map(|flag| (flag, at)).or(deletes.flag);
            }
            ["guard"] => {
                refuse_second(guarded, "guard", &fields.spot, out);
                guarded = true;
                deletes.guard = fields.take("guard").and_then(|node| guard(node, out));
            }
            [] => {
                let complaint = fields.spot.complain("missing_key", "an entry of `deletes` names no kind");
                out.push(complaint.hint("one of from_full_list, list, flag, guard"));
                fields.known(&kinds);
                continue;
            }
            several => {
                let message = format!("an entry of `deletes` has one of {}", several.join(", "));
                out.push(fields.spot.complain("conflict", message).hint("write an entry for each"));
                continue;
            }
        }
        fields.known(&["confirm", "key", "at", "every"]);
        fields.finish(out);
    }
    deletes
}

fn refuse_second(second: bool, what: &str, spot: &SourceSpan, out: &mut Out) {
    if second {
        out.push(spot.complain("conflict", format!("`deletes` has a second `{what}`")));
    }
}

fn full_list(fields: &mut Fields, has_list: bool, has_fetch: bool, again: bool, out: &mut Out) -> Option<ConfirmRule> {
    let spot = fields.spot.clone();
    refuse_second(again, "from_full_list", &spot, out);
    let on = fields.bool("from_full_list", out)?;
    let words = [
        ("auto", ConfirmRule::Auto),
        ("none", ConfirmRule::None),
        ("fetch", ConfirmRule::Fetch),
        ("twice", ConfirmRule::Twice),
    ];
    let rule = fields.word("confirm", &words, out).unwrap_or(ConfirmRule::Auto);
    if on && !has_list {
        out.push(spot.complain("conflict", "`from_full_list` needs the complete listing, `list`"));
    }
    if on && rule == ConfirmRule::Fetch && !has_fetch {
        out.push(spot.complain("no_fetch", "`confirm: fetch` needs `fetch` on the stream"));
    }
    on.then_some(rule)
}

fn listing(fields: &mut Fields, around: &StreamContext<'_>, level: &Level, out: &mut Out) -> Option<DeletedListing> {
    let names = KnownNames { window: true, ..around.names.clone() };
    let list = fields.take("list").and_then(|node| {
        let mut fields = Fields::open(node, "`list` of `deletes`", out)?;
        let list = request(&mut fields, level, &names, out);
        fields.finish(out);
        list
    });
    let variables = around.names.variables(ANSWER);
    let key = fields.require("key", out).map(|node| read::key(&node, "`key` of `deletes`", variables, out).0);
    let at = read::time_at(fields, "at", variables, out);
    let every: Option<Duration> = fields.duration("every", out).map(|(span, spot)| {
        if span < super::schedule::MIN_INTERVAL {
            out.push(spot.complain("out_of_range", "`every` is at least 15s"));
        }
        span
    });
    Some(DeletedListing { list: list?, key: key?, at, every })
}

/// Reads `guard`.
pub(super) fn guard(node: Node, out: &mut Out) -> Option<Guard> {
    if node.text() == Some("off") || node.content == Content::Bool(false) {
        return None;
    }
    if !matches!(node.content, Content::Map(_)) {
        out.push(bad_type(&node, "`guard`", "off, false or a map"));
        return Some(GUARD);
    }
    let Some(mut fields) = Fields::open(node, "`guard`", out) else { return Some(GUARD) };
    let mut guard = GUARD;
    if let Some(node) = fields.take("max_fraction") {
        let number = match &node.content {
            Content::Number(n) => n.as_f64().filter(|n| (0.0..=1.0).contains(n)),
            _ => None,
        };
        match number {
            Some(number) => guard.max_fraction = number,
            None => out.push(node.spot.complain("out_of_range", "`max_fraction` is a number from 0 to 1")),
        }
    }
    guard.min_count = fields.whole("min_count", 0, u64::MAX, out).unwrap_or(GUARD.min_count);
    fields.finish(out);
    Some(guard)
}
