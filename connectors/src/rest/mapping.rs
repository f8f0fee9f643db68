//! From a provider's item to an observation: key, modified time, `map`, delete flag. Shared by pages and webhooks.

use crate::expr::{EvalError, Expr, Vars};
use crate::rest::definition::{Map, Stream};
use serde_json::Value;
use std::time::Duration;
use syncline_engine::model::{Timestamp, record_id};
use syncline_engine::source::{Body, Observation, Quarantined};

/// A modified time further ahead than this is clamped.
const AHEAD: Duration = Duration::from_secs(60);

/// A mapped item.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// What was seen.
    pub observation: Observation,
    /// A complaint in spite of which it is stored.
    pub warning: Option<Quarantined>,
}

/// The observation an item makes. A modified time more than 60 s after `clamp_to` is clamped to it.
pub fn map_item(
    stream: &Stream,
    item: &Value,
    vars: &Vars,
    observed_at: Timestamp,
    clamp_to: Timestamp,
) -> Result<Mapped, Quarantined> {
    let id = record_key(&stream.key, stream.composite, item, vars)?;
    let modified_at = match &stream.modified_at {
        Some(rule) => rule.read(item, vars).map_err(|e| bad("bad_time", &e.0, item))?,
        None => None,
    };
    let modified_at = modified_at.map(|t| if t > clamp_to.plus(AHEAD) { clamp_to } else { t });
    let body = body(stream, item, vars, &id)?;
    Ok(Mapped { observation: Observation { id, modified_at, observed_at, body }, warning: None })
}

fn body(stream: &Stream, item: &Value, vars: &Vars, id: &str) -> Result<Body, Quarantined> {
    let failed = |e: EvalError| bad("bad_expression", &e.0, item);
    if let Some((flag, at)) = &stream.deletes.flag
        && flag.truthy(item, vars).map_err(failed)?
    {
        let deleted_at = at.as_ref().map_or(Ok(None), |at| at.read(item, vars)).map_err(failed)?;
        return Ok(Body::Gone { deleted_at });
    }
    let mapped = match &stream.map {
        Map::Same => item.clone(),
        Map::Whole(rule) => rule.first(item, vars).map_err(failed)?,
        Map::Fields(lines) => Value::Object(
            lines.iter().map(|(name, rule)| Ok((name.clone(), rule.first(item, vars)?))).collect::<Result<_, _>>().map_err(failed)?,
        ),
    };
    let Value::Object(mut record) = mapped else { return Err(bad("not_an_object", "the mapped record is not an object", item)) };
    record.insert("id".to_owned(), Value::String(id.to_owned()));
    Ok(Body::Whole(Value::Object(record).to_string()))
}

/// The record id of an item: one expression's text, or the JSON array of the parts.
pub fn record_key(key: &[Expr], composite: bool, item: &Value, vars: &Vars) -> Result<String, Quarantined> {
    let values: Vec<Value> = key
        .iter()
        .map(|rule| rule.first(item, vars))
        .collect::<Result<_, _>>()
        .map_err(|e| bad("bad_key", &e.0, item))?;
    let value = match (composite, values.into_iter().as_slice()) {
        (false, [one]) => one.clone(),
        (_, parts) => Value::String(Value::Array(parts.to_vec()).to_string()),
    };
    record_id(&value).map_err(|e| bad("bad_key", &e.to_string(), item))
}

fn bad(code: &'static str, message: &str, item: &Value) -> Quarantined {
    Quarantined { code, message: message.to_owned(), id: None, item: item.to_string().chars().take(64 * 1024).collect() }
}
