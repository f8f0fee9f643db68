//! A source's times: RFC 3339 text or numbers in some unit.

use super::EvalError;
use serde_json::Value;
use syncline_engine::model::Timestamp;

/// Unit of a numeric time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
}

/// Reads RFC 3339 text or a number: of `unit`, else from 10¹¹ on milliseconds and below seconds. Null is `None`.
pub fn read_time(value: &Value, unit: Option<TimeUnit>) -> Result<Option<Timestamp>, EvalError> {
    let bad = || EvalError(format!("{value} is not a time: RFC 3339 text or a number is wanted"));
    match value {
        Value::Null => Ok(None),
        Value::String(text) => match Timestamp::parse(text) {
            Some(t) => Ok(Some(t)),
            None => {
                text.parse::<serde_json::Number>().map_err(|_| bad()).and_then(|n| read_time(&Value::Number(n), unit))
            }
        },
        Value::Number(n) => {
            let number = n.as_f64().filter(|f| f.is_finite()).ok_or_else(bad)?;
            let unit = unit.unwrap_or(if number.abs() >= 1e11 { TimeUnit::Millis } else { TimeUnit::Seconds });
            let per_unit: i64 = match unit {
                TimeUnit::Seconds => 1_000_000,
                TimeUnit::Millis => 1_000,
                TimeUnit::Micros => 1,
            };
            Ok(Some(match n.as_i64() {
                Some(whole) => Timestamp(whole.saturating_mul(per_unit)),
                None => Timestamp((number * per_unit as f64) as i64),
            }))
        }
        _ => Err(bad()),
    }
}
