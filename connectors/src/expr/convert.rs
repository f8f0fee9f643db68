//! Between JSON values and jq values: nothing is lost, depth and size are bounded.

use super::EvalError;
use jaq_core::ValT as _;
use jaq_json::{Map, Num, Val};
use serde_json::Value;

/// Most bytes one evaluation may put out.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Deepest input.
pub(super) const MAX_DEPTH: usize = 64;
/// Deepest output.
const MAX_OUTPUT_DEPTH: usize = 100;

/// JSON → jq.
pub(super) fn to_jq(value: &Value, depth: usize) -> Result<Val, EvalError> {
    if depth > MAX_DEPTH {
        return Err(EvalError(format!("the value is nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(b) => Val::Bool(*b),
        Value::Number(n) => match n.as_i64().and_then(|i| isize::try_from(i).ok()) {
            Some(i) => Val::from(i),
            None => Val::from_num(n.as_str()).map_err(|_| EvalError(format!("{n} is not a number jq can take")))?,
        },
        Value::String(s) => Val::utf8_str(s.clone()),
        Value::Array(list) => list.iter().map(|v| to_jq(v, depth + 1)).collect::<Result<Val, EvalError>>()?,
        Value::Object(map) => {
            let mut object = Map::default();
            for (key, value) in map {
                object.insert(Val::utf8_str(key.clone()), to_jq(value, depth + 1)?);
            }
            Val::obj(object)
        }
    })
}

/// jq → JSON, taking what it costs off `budget` (bytes).
pub(super) fn to_json(value: &Val, depth: usize, budget: &mut usize) -> Result<Value, EvalError> {
    let cost = match value {
        Val::TStr(text) | Val::BStr(text) => text.len() + 2,
        _ => 8,
    };
    *budget = budget
        .checked_sub(cost)
        .ok_or_else(|| EvalError(format!("the result is larger than {} bytes", MAX_OUTPUT_BYTES)))?;
    if depth > MAX_OUTPUT_DEPTH {
        return Err(EvalError(format!("the result is nested deeper than {MAX_OUTPUT_DEPTH} levels")));
    }
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(b) => Value::Bool(*b),
        Val::Num(Num::Int(i)) => Value::from(*i as i64),
        Val::Num(number) => serde_json::from_str::<serde_json::Number>(&number.to_string())
            // Infinity and NaN are no JSON; jq's own output would not be a number of this value either.
            .map_or(Value::Null, Value::Number),
        Val::TStr(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
        Val::BStr(_) => return Err(EvalError("the result is raw bytes; add `| hex` or `| base64`".to_owned())),
        Val::Arr(list) => Value::Array(list.iter().map(|v| to_json(v, depth + 1, budget)).collect::<Result<_, _>>()?),
        Val::Obj(map) => {
            let mut object = serde_json::Map::new();
            for (key, value) in map.iter() {
                let Val::TStr(name) = key else {
                    return Err(EvalError("a key of the result is not text".to_owned()));
                };
                *budget = budget.saturating_sub(name.len());
                object.insert(String::from_utf8_lossy(name).into_owned(), to_json(value, depth + 1, budget)?);
            }
            Value::Object(object)
        }
    })
}

/// Deepest nesting of a JSON text, told from the brackets outside of strings before anything recurses. jq also reads
/// comments, from `#` to the end of the line: a quote in one opens no string.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut level, mut deepest, mut string, mut escaped, mut comment) = (0usize, 0usize, false, false, false);
    for byte in text {
        match byte {
            _ if comment => comment = *byte != b'\n',
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            _ if string => {}
            b'#' => comment = true,
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_and_comments_open_nothing() {
        assert_eq!(depth(br#"{"a":"[[[[\"{{"}"#), 1);
        assert_eq!(depth(b"# \"\n[[["), 3);
    }
}
