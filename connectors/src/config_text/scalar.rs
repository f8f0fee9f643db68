//! Single values: the core schema of YAML 1.2, durations, sizes.

use super::{Complaint, Content, Node};
use std::time::Duration;

/// What a plain scalar means in the core schema. Numbers keep their digits.
pub(super) fn core_schema(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Content::Null,
        "true" | "True" | "TRUE" => return Content::Bool(true),
        "false" | "False" | "FALSE" => return Content::Bool(false),
        _ => {}
    }
    match number(text) {
        Some(number) => Content::Number(number),
        None => Content::Text(text.to_owned()),
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with(['+', '-'])).map(Into::into);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with(['+', '-'])).map(Into::into);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        || !text.contains(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    serde_json::from_str(&json_number(text)?).ok()
}

/// `+07.` → `7.0`: what YAML writes as a number and JSON does not.
fn json_number(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) || (whole.is_empty() && fraction.is_none_or(str::is_empty)) {
        return None;
    }
    let trimmed = whole.trim_start_matches('0');
    let whole = if trimmed.is_empty() { "0" } else { trimmed };
    let fraction = match fraction {
        Some("") => ".0".to_owned(),
        Some(digits) => format!(".{digits}"),
        None => String::new(),
    };
    Some(format!("{sign}{whole}{fraction}{exponent}"))
}

/// Reads `250ms 30s 5m 2h 7d`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    // A hundred years: far beyond every use, and far from every overflow.
    number.checked_mul(factor).filter(|s| *s <= 3_153_600_000).map(Duration::from_secs)
}

/// Reads a duration; `bad_duration` if it is none.
pub fn read_duration(node: &Node) -> Result<Duration, Complaint> {
    node.text().and_then(duration).ok_or_else(|| {
        let shown = node.to_json();
        node.spot.complain("bad_duration", format!("{shown} is not a duration")).hint("write 250ms, 30s, 5m, 2h or 7d")
    })
}

/// Reads a size (`512B`, `64KiB`, `5MiB`, `1GiB`); `bad_size` if it is none.
pub fn read_size(node: &Node) -> Result<u64, Complaint> {
    node.text().and_then(size).ok_or_else(|| {
        let shown = node.to_json();
        node.spot.complain("bad_size", format!("{shown} is not a size")).hint("write 64KiB or 5MiB")
    })
}

fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_what_is_none() {
        for (text, json) in [("+7", "7"), ("007", "7"), (".5", "0.5"), ("-3.", "-3.0"), ("1e3", "1e3"), ("0o17", "15")]
        {
            assert_eq!(core_schema(text), Content::Number(serde_json::from_str(json).expect("json")), "{text}");
        }
        for text in ["2022-11-28", "1.2.3", "-", ".", "1s", "0x", "e5", ".inf", "1_000", "--1", "+-1", "1e", "0x-5"] {
            assert_eq!(core_schema(text), Content::Text(text.to_owned()), "{text}");
        }
        let big = "123456789012345678901234567890.123";
        assert_eq!(core_schema(big), Content::Number(serde_json::from_str(big).expect("json")));
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        for bad in ["5", "s", "", "-5s", "1.5h", "5 m", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("5MB"), None);
    }
}
