//! How far the clock of a replay is from the one that was recorded.
//!
//! An answer says the second in which it was sent. The function had read its clock before, and to the millisecond, so a
//! request that names moments may differ from the recorded one in nothing but these.

use serde_json::Value;
use std::collections::BTreeSet;

/// Most that a clock is put right by, in milliseconds.
const FARTHEST: i64 = 3_600_000;
/// Seconds since 1970 with ten digits: from 2001 to 2286. With three more they are milliseconds.
const SECONDS: std::ops::Range<i64> = 1_000_000_000..10_000_000_000;
/// The length of `2026-01-01T00:00:00`.
const TO_SECONDS: usize = 19;

/// By how many milliseconds all moments of the recorded request are later than these; nothing if anything else differs, or
/// they are not all shifted alike. A moment that is equal may be one that the function rounded.
pub(super) fn shift(recorded: &Value, asked: &Value) -> Option<i64> {
    let mut shifts = BTreeSet::new();
    compare(recorded, asked, &mut shifts)?;
    match shifts.into_iter().collect::<Vec<_>>().as_slice() {
        [shift] if shift.abs() <= FARTHEST => Some(*shift),
        _ => None,
    }
}

fn compare(recorded: &Value, asked: &Value, shifts: &mut BTreeSet<i64>) -> Option<()> {
    match (recorded, asked) {
        (a, b) if a == b => Some(()),
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().try_for_each(|(name, value)| compare(value, b.get(name)?, shifts))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| compare(a, b, shifts))
        }
        (Value::Number(a), Value::Number(b)) => {
            shifts.insert(since_1970(a.as_i64()?)?.checked_sub(since_1970(b.as_i64()?)?)?);
            Some(())
        }
        (Value::String(a), Value::String(b)) => texts(a, b, shifts),
        _ => None,
    }
}

/// A text that is a number, or has moments in it.
fn texts(recorded: &str, asked: &str, shifts: &mut BTreeSet<i64>) -> Option<()> {
    if let (Ok(a), Ok(b)) = (recorded.parse::<i64>(), asked.parse::<i64>()) {
        shifts.insert(since_1970(a)?.checked_sub(since_1970(b)?)?);
        return Some(());
    }
    let (mut a, mut b) = (recorded.as_bytes(), asked.as_bytes());
    while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b) {
        match (moment(a), moment(b)) {
            (Some((then, after_a)), Some((now, after_b))) => {
                if then != now {
                    shifts.insert(then - now);
                }
                (a, b) = (after_a, after_b);
            }
            _ if first_a == first_b => (a, b) = (rest_a, rest_b),
            _ => return None,
        }
    }
    (a == b).then_some(())
}

fn since_1970(number: i64) -> Option<i64> {
    match number {
        seconds if SECONDS.contains(&seconds) => Some(seconds * 1_000),
        millis if SECONDS.contains(&(millis / 1_000)) => Some(millis),
        _ => None,
    }
}

/// A moment such as `2026-01-01T00:00:00.000` at the beginning of a text, in milliseconds, and what comes after it. A zone
/// comes after it: two moments are compared in the same one.
fn moment(text: &[u8]) -> Option<(i64, &[u8])> {
    let (start, mut rest) = text.split_at_checked(TO_SECONDS)?;
    let shape = start.iter().zip(b"0000-00-00T00:00:00");
    if !shape.into_iter().all(|(is, like)| if *like == b'0' { is.is_ascii_digit() } else { is == like }) {
        return None;
    }
    let number = |from: usize, to: usize| -> i64 {
        start.get(from..to).unwrap_or_default().iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    };
    let days = days(number(0, 4), number(5, 7), number(8, 10));
    let seconds = (days * 24 + number(11, 13)) * 3_600 + number(14, 16) * 60 + number(17, 19);
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|digit| digit.is_ascii_digit()).count();
        let digit = |at: usize| fraction.get(at).filter(|_| at < digits).map_or(0, |digit| i64::from(digit - b'0'));
        millis = digit(0) * 100 + digit(1) * 10 + digit(2);
        rest = fraction.get(digits..).unwrap_or_default();
    }
    Some((seconds * 1_000 + millis, rest))
}

/// Days from 1970 to a date: years begin in March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 719_469
}
