//! What an event means: `map` entries turned into observations and wishes to read a record again.

use super::{Effect, EventRejection, Observer, Routed};
use crate::definition::{FunctionSync, Hydrate, Map, WebhookEffect, WebhookMap};
use crate::expr::{EvalError, Expr, Scope, Template, Vars};
use crate::mapping::{Mapped, Mapper, SeenAt, key_of, refuse};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::{Body, Connection, Observation, Quarantined};

/// Longest kind of an event that is told.
const KIND_CHARS: usize = 100;

/// A source's time further ahead than this is taken as our time of receipt.
const AHEAD: Duration = Duration::from_secs(60);

/// Applies the entries that fit: the first one, and as long as `all` says so the next ones.
pub(super) fn apply(
    observer: &Observer,
    connection: &Arc<Connection>,
    event: &Value,
    vars: &mut Vars,
    received_at: Timestamp,
) -> Routed {
    let (effects, complaints) = (Vec::new(), Vec::new());
    let mut routed = Routed { connection: connection.clone(), effects, complaints, unmapped: None };
    let Some(webhooks) = &observer.definition().webhooks else { return routed };
    let mut fitting = false;
    for entry in &webhooks.map {
        vars.partition = Value::Null;
        match fits(entry, event, vars) {
            Ok(false) => continue,
            Ok(true) => {
                fitting = true;
                if let Err(quarantined) = one(observer, entry, event, vars, received_at, &mut routed) {
                    let stream = entry.stream.clone().unwrap_or_default();
                    routed.complaints.push(EventRejection { stream, quarantined });
                }
            }
            Err(error) => {
                let stream = entry.stream.clone().unwrap_or_default();
                routed.complaints.push(EventRejection { stream, quarantined: bad("bad_expression", &error, event) });
            }
        }
        if !entry.all {
            break;
        }
    }
    let kind = vars.kind.as_str().unwrap_or_default();
    routed.effects.extend(handled(observer, kind, event));
    if !fitting && routed.complaints.is_empty() && routed.effects.is_empty() {
        routed.unmapped = Some(kind.chars().take(KIND_CHARS).collect());
    }
    routed
}

/// The functions that subscribe to its type take the event as it is, whatever `map` says.
fn handled(observer: &Observer, kind: &str, event: &Value) -> Vec<Effect> {
    let subscribes = |sync: &&FunctionSync| sync.webhooks.iter().any(|wanted| wanted == "*" || wanted == kind);
    let syncs: Vec<&FunctionSync> = observer.definition().function_syncs.iter().filter(subscribes).collect();
    if syncs.is_empty() {
        return Vec::new();
    }
    let event = Bytes::from(event.to_string());
    syncs.iter().map(|sync| Effect::Handle { sync: sync.name.clone(), event: event.clone() }).collect()
}

fn fits(entry: &WebhookMap, event: &Value, vars: &Vars) -> Result<bool, EvalError> {
    entry.when.as_ref().map_or(Ok(true), |when| when.truthy(event, vars))
}

fn one(
    observer: &Observer,
    entry: &WebhookMap,
    event: &Value,
    vars: &mut Vars,
    received_at: Timestamp,
    routed: &mut Routed,
) -> Result<(), Quarantined> {
    let Some(mapper) = entry.stream.as_deref().and_then(|name| observer.mapper(name)) else { return Ok(()) };
    let at = time(entry, event, vars, received_at)?;
    let partition = partition(entry, event, vars)?;
    vars.partition = Value::Object(partition.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect());
    let about = EffectContext { mapper, entry, event, vars, at, received_at };
    let mut seen = match &entry.effect {
        WebhookEffect::Nothing => None,
        WebhookEffect::Record(item) => Some(record(&about, item, routed)?),
        WebhookEffect::Patch(lines) => patch(&about, lines, routed)?,
        WebhookEffect::Delete => Some(mapper.gone(about.key()?, about.at, about.at, about.seen())),
    };
    if let Some(observation) = &mut seen {
        // What the event says of its time is all there is to tell an older one by, where the record has no time of its own.
        observation.modified_at = observation.modified_at.or(at);
    }
    if entry.hydrate != Hydrate::Never {
        let key = match &seen {
            Some(observation) => observation.id.clone(),
            None => about.key()?,
        };
        let (stream, when) = (mapper.stream().name.clone(), entry.hydrate);
        routed.effects.push(Effect::Fetch { stream, key, partition, when });
    }
    if entry.run {
        routed.effects.push(Effect::Run { stream: mapper.stream().name.clone() });
    }
    if let Some(observation) = seen {
        routed.effects.push(Effect::Seen { stream: mapper.stream().name.clone(), observation });
    }
    Ok(())
}

struct EffectContext<'a> {
    mapper: &'a Mapper,
    entry: &'a WebhookMap,
    event: &'a Value,
    vars: &'a Vars,
    at: Option<Timestamp>,
    received_at: Timestamp,
}

impl EffectContext<'_> {
    /// An event without a time of its own counts as of receipt.
    fn seen(&self) -> SeenAt {
        SeenAt { observed_at: self.at.unwrap_or(self.received_at), answered_at: self.received_at }
    }

    fn key(&self) -> Result<String, Quarantined> {
        let key = key_of(&self.entry.key, self.entry.composite, self.event, self.vars);
        key.map_err(|why| refuse("bad_key", why, None, self.event))
    }

    fn complain(&self, routed: &mut Routed, quarantined: Quarantined) {
        routed.complaints.push(EventRejection { stream: self.mapper.stream().name.clone(), quarantined });
    }
}

fn record(about: &EffectContext<'_>, item: &Expr, routed: &mut Routed) -> Result<Observation, Quarantined> {
    let item = item.first(about.event, about.vars).map_err(|e| bad("bad_expression", &e, about.event))?;
    match about.mapper.read(&item, about.seen(), about.vars) {
        Mapped::Taken(observation, warning) => {
            warning.into_iter().for_each(|warning| about.complain(routed, warning));
            Ok(observation)
        }
        Mapped::Refused(why) => Err(why),
    }
}

/// Patches are written in item paths; the fields of the record are those whose `map` line reads that path.
fn patch(
    about: &EffectContext<'_>,
    lines: &[(Template, Expr)],
    routed: &mut Routed,
) -> Result<Option<Observation>, Quarantined> {
    let id = about.key()?;
    let scope = Scope(serde_json::Map::from_iter([("event".to_owned(), about.event.clone())]));
    let mut fields = Value::Object(serde_json::Map::new());
    for (path, value) in lines {
        let path = path.text(&scope).map_err(|e| bad("missing_value", &e, about.event))?;
        let value = value.first(about.event, about.vars).map_err(|e| bad("bad_expression", &e, about.event))?;
        let path: Vec<&str> = path.trim_start_matches('.').split('.').collect();
        lay(&about.mapper.stream().map, &path, value, &mut fields);
    }
    if fields.as_object().is_none_or(serde_json::Map::is_empty) {
        if about.entry.hydrate == Hydrate::Never {
            let why = "no line of the stream's map reads just the patched path; write hydrate, or such a line";
            about.complain(routed, refuse("patch_unmapped", why.into(), Some(id), about.event));
        }
        return Ok(None);
    }
    let seen = about.seen();
    // Where the stream keeps a merge clock, the patch carries one as well: without it, it would lose against every version.
    let modified_at = about.mapper.stream().modified_at.is_some().then_some(seen.observed_at);
    Ok(Some(Observation { id, modified_at, observed_at: seen.observed_at, body: Body::Patch(fields.to_string()) }))
}

/// Lays the value of an item path into every field that reads it: the very path, a part above it or a part below it.
fn lay(map: &Map, path: &[&str], value: Value, fields: &mut Value) {
    match map {
        Map::Same => put(fields, path, value),
        // One expression for the whole record shows no lines: only reading the record again tells what it makes of this.
        Map::Whole(_) => {}
        Map::Fields(lines) => {
            for (field, line) in lines {
                let Some(read) = line.path() else { continue };
                let shared = read.iter().zip(path).take_while(|(a, b)| a.as_str() == **b).count();
                if shared == read.len() {
                    let mut target = vec![field.as_str()];
                    target.extend(path.iter().skip(shared));
                    put(fields, &target, value.clone());
                } else if shared == path.len()
                    && let Some(below) = read.iter().skip(shared).try_fold(&value, |v, key| v.get(key))
                {
                    put(fields, &[field], below.clone());
                }
            }
        }
    }
}

fn put(target: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Some(map) = target.as_object_mut() {
        put(map.entry(*first).or_insert(Value::Null), rest, value);
    }
}

fn time(
    entry: &WebhookMap,
    event: &Value,
    vars: &Vars,
    received_at: Timestamp,
) -> Result<Option<Timestamp>, Quarantined> {
    let Some(rule) = &entry.at else { return Ok(None) };
    let at = rule.read(event, vars).map_err(|e| bad("bad_time", &e, event))?;
    Ok(at.map(|at| if at > received_at.plus(AHEAD) { received_at } else { at }))
}

fn partition(entry: &WebhookMap, event: &Value, vars: &Vars) -> Result<Vec<(String, String)>, Quarantined> {
    entry
        .partition
        .iter()
        .map(|(name, rule)| {
            let value = rule.first(event, vars).map_err(|e| bad("bad_expression", &e, event))?;
            match value {
                Value::String(text) => Ok((name.clone(), text)),
                Value::Number(number) => Ok((name.clone(), number.to_string())),
                other => {
                    let why = EvalError(format!("partition {name} is {other}; text or a number is wanted"));
                    Err(bad("bad_value", &why, event))
                }
            }
        })
        .collect()
}

pub(super) fn bad(code: &'static str, error: &EvalError, event: &Value) -> Quarantined {
    refuse(code, error.0.clone(), None, event)
}
