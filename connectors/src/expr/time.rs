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

/// Reads RFC 3339 text or a number: of `unit`, else from 10¹¹ on milliseconds and below seconds. `None` is what says that
/// there is no time: null, empty text, and the dates that databases and languages put in the place of none.
pub fn read_time(value: &Value, unit: Option<TimeUnit>) -> Result<Option<Timestamp>, EvalError> {
    let bad = || EvalError(format!("{value} is not a time: RFC 3339 text or a number is wanted"));
    match value {
        Value::Null => Ok(None),
        Value::String(text) if is_no_time(text.trim()) => Ok(None),
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

/// `0000-00-00 00:00:00`, as SQL databases say it, and the first instant of the year 1, as Go and .NET do.
fn is_no_time(text: &str) -> bool {
    let zeros =
        |rest: &str| rest.chars().all(|c| matches!(c, '0' | ':' | '.' | 'T' | 't' | 'Z' | 'z' | ' ' | '+' | '-'));
    text.is_empty() || ["0000-00-00", "0001-01-01"].iter().any(|date| text.strip_prefix(date).is_some_and(zeros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_time_is_said_in_many_ways() {
        for none in [
            json!(null),
            json!(""),
            json!("  "),
            json!("0000-00-00"),
            json!("0000-00-00 00:00:00"),
            json!("0000-00-00T00:00:00Z"),
            json!("0001-01-01T00:00:00Z"),
            json!("0001-01-01T00:00:00.0000000+00:00"),
            json!("0001-01-01T00:00:00"),
        ] {
            assert_eq!(read_time(&none, None), Ok(None), "{none}");
        }
        for time in
            [json!("0001-01-01T00:00:01Z"), json!("0000-01-01T00:00:00Z"), json!("9999-12-31T23:59:59Z"), json!(0)]
        {
            assert!(read_time(&time, None).is_ok_and(|time| time.is_some()), "{time}");
        }
        for bad in [json!("yesterday"), json!("2026-00-00T00:00:00Z"), json!(true), json!({})] {
            assert!(read_time(&bad, None).is_err(), "{bad}");
        }
    }
}
