//! Functions added to jq, and the meters that keep an evaluation bounded.
//!
//! jaq has no step limit of its own. The checker puts `tick__` behind everything that can produce many or long values,
//! `weigh__` into every fold and `built__` behind every array and object; they count on a meter of the evaluating thread and end the evaluation once it is spent.

use super::convert;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jaq_core::box_iter::box_once;
use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::{Error, Exn, RunPtr, ValR, ValX, data::JustLut};
use jaq_json::{Num, Val};
use std::cell::Cell;
use subtle::ConstantTimeEq;
use syncline_engine::model::Timestamp;

/// Values one evaluation may produce along the way.
const MAX_STEPS: u32 = 250_000;
/// Longest text, largest array while evaluating.
const MAX_BYTES: usize = 4 << 20;
/// Nodes of a value that is put together; 64 bytes of text count as one more.
const MAX_WEIGHT: usize = 1 << 20;
/// Depth of a value that is put together.
const MAX_BUILT_DEPTH: usize = 200;
/// Longest text regular expressions look at.
const MAX_SEARCHED: usize = 64 << 10;
/// What weighing and long texts cost on the meter.
const NODES_A_STEP: usize = 64;
const BYTES_A_STEP: usize = 1 << 10;
/// A fold is weighed once in so many rounds.
const WEIGH_EVERY: u32 = 8;

thread_local! {
    static STEPS: Cell<u32> = const { Cell::new(0) };
    static FOLDS: Cell<u32> = const { Cell::new(0) };
    static WHY: Cell<&'static str> = const { Cell::new("") };
}

/// Starts the meters of an evaluation on this thread.
pub(super) fn start() {
    STEPS.set(0);
    FOLDS.set(0);
}

/// Why the evaluation was stopped.
pub(super) fn why_stopped() -> &'static str {
    WHY.get()
}

/// Definitions that come before the library, which then uses them: a match costs hundreds of bytes, so texts that are
/// searched are bounded; the reader of JSON recurses with every bracket, so depth is looked at first. That reader would go on
/// behind an error, maybe in the middle of a text, where its brackets are no longer those that were counted.
pub(super) const DEFS_BELOW: &str = "
def fromjson: shallow__ | try fromjson_raw__ catch error_empty;
def matches($re; $flags): short__ | matches_raw__($re; $flags);
def split_matches($re; $flags): short__ | split_matches_raw__($re; $flags);
def split_($re; $flags): short__ | split_raw__($re; $flags);
";

/// The library's functions, those that search or read texts under other names.
pub(super) fn library() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs()).map(|(name, arguments, function)| {
        let name = match name {
            "fromjson" => "fromjson_raw__",
            "matches" => "matches_raw__",
            "split_matches" => "split_matches_raw__",
            "split_" => "split_raw__",
            other => other,
        };
        (name, arguments, function)
    })
}

/// Definitions in jq over the functions below.
pub(super) const DEFS: &str = "
def tick__: if over__ then . else . end;
def weigh__: if heavy__ then . else . end;
def built__: if weight__ then . else . end;
def join($s): join__($s);
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
";

/// Native functions.
pub(super) fn all() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    let list: [Filter<RunPtr<JustLut<Val>>>; 13] = [
        ("over__", v(0), |cv| box_once(over(&cv.1))),
        ("heavy__", v(0), |cv| box_once(heavy(&cv.1))),
        ("weight__", v(0), |cv| box_once(built(&cv.1))),
        ("short__", v(0), |cv| bome(short(cv.1))),
        ("shallow__", v(0), |cv| bome(shallow(cv.1))),
        ("join__", v(1), |mut cv| {
            let separator = cv.0.pop_var();
            bome(join(&cv.1, &separator))
        }),
        ("times__", v(2), |mut cv| {
            let right = cv.0.pop_var();
            bome(times(cv.0.pop_var(), right))
        }),
        ("hmac", v(3), |mut cv| {
            let data = cv.0.pop_var();
            let key = cv.0.pop_var();
            bome(hmac(&cv.0.pop_var(), &key, &data))
        }),
        ("secure_eq", v(2), |mut cv| {
            let right = cv.0.pop_var();
            bome(secure_eq(&cv.0.pop_var(), &right))
        }),
        ("base64", v(0), |cv| bome(bytes(&cv.1).map(|b| Val::utf8_str(STANDARD.encode(b))))),
        ("hex", v(0), |cv| bome(bytes(&cv.1).map(|b| Val::utf8_str(hex::encode(b))))),
        ("iso8601", v(0), |cv| bome(time(&cv.1).map(|t| t.map_or(Val::Null, |t| Val::utf8_str(t.to_string()))))),
        ("epoch_ms", v(0), |cv| bome(time(&cv.1).map(|t| t.map_or(Val::Null, |t| Val::from(t.millis() as isize))))),
    ];
    list.into_iter().map(|function| run::<JustLut<Val>>(function))
}

fn fail<T>(message: impl std::fmt::Display) -> Result<T, Error<Val>> {
    Err(Error::str(message))
}

/// Ends the evaluation for good: unlike an error this cannot be caught with `?` or `try`.
fn stop<'a>(why: &'static str) -> ValX<'a, Val> {
    WHY.set(why);
    Err(Exn::halt(1))
}

/// Takes steps off the meter.
fn charge<'a>(steps: usize) -> Result<(), Exn<'a, Val>> {
    STEPS.set(STEPS.get().saturating_add(u32::try_from(steps).unwrap_or(u32::MAX)));
    if STEPS.get() > MAX_STEPS { stop("the expression takes too many steps").map(|_| ()) } else { Ok(()) }
}

fn over<'a>(value: &Val) -> ValX<'a, Val> {
    let size = match value {
        Val::TStr(b) | Val::BStr(b) => b.len(),
        Val::Arr(list) => list.len() * 16,
        Val::Obj(map) => map.len() * 32,
        Val::Num(Num::BigInt(n)) => usize::try_from(n.bits()).unwrap_or(usize::MAX),
        _ => 0,
    };
    let text = if matches!(value, Val::TStr(_) | Val::BStr(_)) { size / BYTES_A_STEP } else { 0 };
    charge(1 + text)?;
    if size > MAX_BYTES { stop("a value grows beyond bounds") } else { Ok(Val::Bool(true)) }
}

/// Weighs what is folded, once in a few rounds.
fn heavy<'a>(value: &Val) -> ValX<'a, Val> {
    over(value)?;
    FOLDS.set(FOLDS.get().wrapping_add(1));
    if FOLDS.get().is_multiple_of(WEIGH_EVERY) { built(value) } else { Ok(Val::Bool(true)) }
}

/// Weighs an array or object that was put together: parts may be shared, so that few steps could make it endless.
fn built<'a>(value: &Val) -> ValX<'a, Val> {
    let mut budget = MAX_WEIGHT;
    let fits = weigh(value, 0, &mut budget);
    charge((MAX_WEIGHT - budget) / NODES_A_STEP)?;
    if fits { Ok(Val::Bool(true)) } else { stop("a value grows beyond bounds") }
}

fn weigh(value: &Val, depth: usize, budget: &mut usize) -> bool {
    let cost = match value {
        Val::TStr(b) | Val::BStr(b) => 1 + b.len() / 64,
        _ => 1,
    };
    let Some(left) = budget.checked_sub(cost).filter(|_| depth <= MAX_BUILT_DEPTH) else { return false };
    *budget = left;
    match value {
        Val::Arr(list) => list.iter().all(|v| weigh(v, depth + 1, budget)),
        Val::Obj(map) => map.values().all(|v| weigh(v, depth + 1, budget)),
        _ => true,
    }
}

/// The value, unless it is a text too long to be searched.
fn short(value: Val) -> ValR<Val> {
    match &value {
        Val::TStr(text) if text.len() > MAX_SEARCHED => {
            fail(format_args!("a text of more than {MAX_SEARCHED} bytes cannot be searched"))
        }
        _ => Ok(value),
    }
}

/// The value, unless it is a text of JSON too deep to be read.
fn shallow(value: Val) -> ValR<Val> {
    match &value {
        Val::TStr(text) | Val::BStr(text) if convert::depth(text) > convert::MAX_DEPTH => {
            fail(format_args!("JSON nested deeper than {} levels cannot be read", convert::MAX_DEPTH))
        }
        _ => Ok(value),
    }
}

/// `join` in one go, with the length of the result bounded.
fn join(list: &Val, separator: &Val) -> ValR<Val> {
    let Val::Arr(list) = list else { return fail("join wants an array") };
    let separator = bytes(separator)?;
    let mut joined = Vec::new();
    for (place, value) in list.iter().enumerate() {
        if place > 0 {
            joined.extend_from_slice(separator);
        }
        match value {
            Val::Null => {}
            Val::TStr(text) | Val::BStr(text) => joined.extend_from_slice(text),
            Val::Num(_) | Val::Bool(_) => joined.extend_from_slice(value.to_string().as_bytes()),
            Val::Arr(_) | Val::Obj(_) => return fail("join wants text, numbers, booleans and null"),
        }
        if joined.len() > MAX_BYTES {
            return fail(format_args!("joined text grows beyond {MAX_BYTES} bytes"));
        }
    }
    Ok(Val::utf8_str(joined))
}

/// `*`, with the length of repeated text bounded.
fn times(left: Val, right: Val) -> ValR<Val> {
    let (text, number) = match (&left, &right) {
        (Val::TStr(t) | Val::BStr(t), n @ Val::Num(_)) | (n @ Val::Num(_), Val::TStr(t) | Val::BStr(t)) => (t.len(), n),
        (Val::Num(Num::BigInt(a)), Val::Num(Num::BigInt(b))) if a.bits() + b.bits() > 1 << 20 => {
            return fail("a number grows beyond bounds");
        }
        _ => return left * right,
    };
    let count = jaq_std::ValT::as_f64(number).unwrap_or(f64::INFINITY);
    match text as f64 * count <= MAX_BYTES as f64 {
        true => left * right,
        false => fail(format_args!("repeated text grows beyond {MAX_BYTES} bytes")),
    }
}

fn bytes(value: &Val) -> Result<&[u8], Error<Val>> {
    match value {
        Val::TStr(b) | Val::BStr(b) => Ok(b),
        _ => fail("text is wanted here"),
    }
}

fn hmac(algorithm: &Val, key: &Val, data: &Val) -> ValR<Val> {
    let (key, data) = (bytes(key)?, bytes(data)?);
    let mac = match bytes(algorithm)? {
        b"sha1" => digest::<Hmac<sha1::Sha1>>(key, data),
        b"sha256" => digest::<Hmac<sha2::Sha256>>(key, data),
        b"sha512" => digest::<Hmac<sha2::Sha512>>(key, data),
        _ => return fail("hmac knows sha1, sha256 and sha512"),
    };
    mac.map(Val::byte_str).map_or_else(|| fail("this key cannot be used"), Ok)
}

fn digest<M: Mac + hmac::digest::KeyInit>(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <M as Mac>::new_from_slice(key).ok()?;
    mac.update(data);
    Some(mac.finalize().into_bytes().to_vec())
}

/// Equal, compared in constant time; anything but text is unequal.
fn secure_eq(left: &Val, right: &Val) -> ValR<Val> {
    let equal = match (bytes(left), bytes(right)) {
        (Ok(a), Ok(b)) if !a.is_empty() => bool::from(a.ct_eq(b)),
        _ => false,
    };
    Ok(Val::Bool(equal))
}

fn time(value: &Val) -> Result<Option<Timestamp>, Error<Val>> {
    let mut budget = 1_000;
    let json = convert::to_json(value, 0, &mut budget).map_err(|e| Error::str(e.0))?;
    super::read_time(&json, None).map_err(|e| Error::str(e.0))
}
