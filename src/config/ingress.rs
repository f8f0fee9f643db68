//! `ingress` and `trusted_proxies` of the settings: what outsiders may use up.

use super::value::Wrong;
use crate::admission::{Ingress, Proxies};
use crate::connectors::config_text::{Content, Fields, Node, SourceSpan};
use ipnet::IpNet;
use std::time::Duration;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1 << 20;
/// Least and most memory of one kind, in MiB: less would not hold the largest of what is allowed.
const MB_LEAST: u64 = 32;
const MB_MAX: u64 = 1 << 20;
/// Most requests a second.
const RATE_MAX: u64 = 1_000_000;
/// Keys that say a part, and those that say the whole of which it is.
const PARTS: [(&str, &str); 4] = [
    ("connections_per_address", "connections"),
    ("webhooks_per_sender", "webhooks_per_path"),
    ("wrong_keys_per_address", "requests_per_address"),
    ("wrong_signatures_per_sender", "webhooks_per_path"),
];
/// Bounds of `send_timeout`.
const SEND_LEAST: Duration = Duration::from_secs(1);
const SEND_MAX: Duration = Duration::from_secs(600);

/// Reads both.
pub(super) fn read(top: &mut Fields, wrong: &mut Wrong) -> Ingress {
    let proxies = proxies(top, wrong);
    let mut ingress = Ingress { proxies, ..Ingress::default() };
    let Some(node) = top.take("ingress") else { return ingress };
    let Some(mut fields) = Fields::open(node, "`ingress`", wrong) else { return ingress };
    let written = PARTS.map(|(part, _)| fields.peek(part).map(|node| node.spot.clone()));
    for (key, value) in
        [("connections", &mut ingress.connections), ("connections_per_address", &mut ingress.connections_per_address)]
    {
        set(value, fields.whole(key, 1, CONNECTIONS_MAX, wrong));
    }
    for (key, value) in [("bodies_mb", &mut ingress.bodies_bytes), ("answers_mb", &mut ingress.answers_bytes)] {
        set(value, fields.whole(key, MB_LEAST, MB_MAX, wrong).map(|mb| mb << 20));
    }
    for (key, value) in [
        ("requests_per_address", &mut ingress.requests_per_address),
        ("requests_per_key", &mut ingress.requests_per_key),
        ("webhooks_per_path", &mut ingress.webhooks_per_path),
        ("webhooks_per_sender", &mut ingress.webhooks_per_sender),
        ("wrong_keys_per_address", &mut ingress.wrong_keys_per_address),
        ("wrong_signatures_per_sender", &mut ingress.wrong_signatures_per_sender),
    ] {
        set(value, fields.whole(key, 1, RATE_MAX, wrong));
    }
    if let Some((span, spot)) = fields.duration("send_timeout", wrong) {
        if !(SEND_LEAST..=SEND_MAX).contains(&span) {
            let message = format!("`send_timeout` is {span:?}; {SEND_LEAST:?} to {SEND_MAX:?} is allowed");
            wrong.push(spot.complain("out_of_range", message));
        }
        ingress.send_timeout = span;
    }
    fields.finish(wrong);
    parts(&mut ingress, written, wrong);
    ingress
}

/// A part larger than its whole bounds nothing: it is a complaint where it is written, and smaller where it is not.
fn parts(ingress: &mut Ingress, written: [Option<SourceSpan>; PARTS.len()], wrong: &mut Wrong) {
    if written[0].is_none() {
        ingress.connections_per_address = (ingress.connections / 4).max(1);
    }
    if written[1].is_none() {
        ingress.webhooks_per_sender = (ingress.webhooks_per_path / 2).max(1);
    }
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let of_all = number(ingress.connections);
    let mut of_one = number(ingress.connections_per_address);
    let values = [
        (&mut of_one, of_all),
        (&mut ingress.webhooks_per_sender, ingress.webhooks_per_path),
        (&mut ingress.wrong_keys_per_address, ingress.requests_per_address),
        (&mut ingress.wrong_signatures_per_sender, ingress.webhooks_per_path),
    ];
    for (((part, all), (value, most)), spot) in PARTS.into_iter().zip(values).zip(written) {
        if let Some(spot) = spot.filter(|_| *value > most) {
            let message = format!("`{part}` is {value}, but `{all}` allows no more than {most}: it bounds nothing");
            wrong.push(spot.complain("no_effect", message).hint("choose a smaller number, or leave it out"));
        }
        *value = (*value).min(most);
    }
}

fn set<N: TryFrom<u64>>(value: &mut N, read: Option<u64>) {
    if let Some(number) = read.and_then(|number| N::try_from(number).ok()) {
        *value = number;
    }
}

fn proxies(top: &mut Fields, wrong: &mut Wrong) -> Proxies {
    let list = top.list("trusted_proxies", wrong).unwrap_or_default();
    Proxies(list.into_iter().filter_map(|node| proxy(node, wrong)).collect())
}

/// `10.0.0.7` or `10.0.0.0/8`.
fn proxy(node: Node, wrong: &mut Wrong) -> Option<IpNet> {
    let Content::Text(text) = &node.content else {
        let message = format!("an entry of `trusted_proxies` must be text, not {}", node.kind());
        wrong.push(node.spot.complain("bad_type", message));
        return None;
    };
    let net =
        text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.to_canonical().into()));
    let complaint = match net {
        None => node.spot.complain("bad_address", format!("`{text}` is neither an address nor a range of them")),
        Some(net) if net.prefix_len() == 0 => {
            let message = format!("`{text}` is everybody: whoever comes could say to be somebody else");
            node.spot.complain("bad_address", message)
        }
        found => return found,
    };
    wrong.push(complaint.hint("write the proxy's own address, such as 10.0.0.7 or 10.0.0.0/24"));
    None
}
