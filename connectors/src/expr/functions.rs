//! Functions added to jq, and the meters that keep an evaluation bounded.
//!
//! jaq has no step limit of its own. The checker puts `tick__` behind everything that can produce many values and
//! `weigh__` into every fold; both count on a meter of the evaluating thread and end the evaluation once it is spent.

use super::convert;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::box_iter::box_once;
use jaq_core::{Error, Exn, RunPtr, ValR, ValX, data::JustLut};
use jaq_json::{Num, Val};
use std::cell::Cell;
use subtle::ConstantTimeEq;
use syncline_engine::model::Timestamp;

/// Values one evaluation may produce along the way.
const MAX_STEPS: u32 = 250_000;
/// Longest text, largest array while evaluating.
const MAX_BYTES: usize = 4 << 20;
/// Nodes of a value that is being folded.
const MAX_WEIGHT: usize = 200_000;
/// Depth of a value that is being folded.
const MAX_FOLD_DEPTH: usize = 200;
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

/// Definitions in jq over the functions below.
pub(super) const DEFS: &str = "
def tick__: if over__ then . else . end;
def weigh__: if heavy__ then . else . end;
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
";

/// Native functions.
pub(super) fn all() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    let list: [Filter<RunPtr<JustLut<Val>>>; 9] = [
        ("over__", v(0), |cv| box_once(over(&cv.1))),
        ("heavy__", v(0), |cv| box_once(heavy(&cv.1))),
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

fn over<'a>(value: &Val) -> ValX<'a, Val> {
    STEPS.set(STEPS.get().saturating_add(1));
    if STEPS.get() > MAX_STEPS {
        return stop("the expression takes too many steps");
    }
    let size = match value {
        Val::TStr(b) | Val::BStr(b) => b.len(),
        Val::Arr(list) => list.len() * 16,
        Val::Obj(map) => map.len() * 32,
        Val::Num(Num::BigInt(n)) => usize::try_from(n.bits()).unwrap_or(usize::MAX),
        _ => 0,
    };
    if size > MAX_BYTES { stop("a value grows beyond bounds") } else { Ok(Val::Bool(true)) }
}

fn heavy<'a>(value: &Val) -> ValX<'a, Val> {
    over(value)?;
    FOLDS.set(FOLDS.get().wrapping_add(1));
    let mut budget = MAX_WEIGHT;
    if FOLDS.get().is_multiple_of(WEIGH_EVERY) && !weigh(value, 0, &mut budget) {
        return stop("a value grows beyond bounds while it is folded");
    }
    Ok(Val::Bool(true))
}

fn weigh(value: &Val, depth: usize, budget: &mut usize) -> bool {
    if *budget == 0 || depth > MAX_FOLD_DEPTH {
        return false;
    }
    *budget -= 1;
    match value {
        Val::Arr(list) => list.iter().all(|v| weigh(v, depth + 1, budget)),
        Val::Obj(map) => map.values().all(|v| weigh(v, depth + 1, budget)),
        _ => true,
    }
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
