//! Proves that a request came from who it says: one evaluator, schemes as data.
//!
//! Pure and without IO; works on the bytes as received. A request it cannot prove is refused, never an error or a panic:
//! a missing secret refuses, an ambiguous header refuses, a wrong length refuses. Every live secret is tried against every
//! offered signature in constant time and the results are OR-ed, so neither rotation nor timing tells which one matched.

use crate::definition::{
    HashAlgorithm, HmacScheme, KeyForm, Scheme, SignatureEncoding, SignatureFormat, SignedPart, StampPlace, StampRule,
    StampUnit,
};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use serde_json::Value;
use sha2::Digest;
use std::borrow::Cow;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq};
use syncline_engine::fault;
use syncline_engine::model::Timestamp;

/// Header that carries the delivery id in Standard Webhooks.
const ID_HEADER: &str = "webhook-id";
/// Most digits of a numeric stamp: more cannot be a time and could overflow.
const STAMP_DIGITS: usize = 18;
/// Most characters of an ISO 8601 stamp.
const STAMP_CHARS: usize = 40;

/// A request as it came, before anything was decoded.
#[derive(Clone, Copy, Debug)]
pub struct RawRequest<'a> {
    /// `POST` as a rule.
    pub method: &'a str,
    /// The public URL as configured, with path and query; never built from the `Host` header.
    pub url: &'a str,
    /// Path alone.
    pub path: &'a str,
    /// Query without `?`.
    pub query: &'a str,
    /// All headers, repeated ones too.
    pub headers: &'a HeaderMap,
    /// Raw body.
    pub body: &'a [u8],
}

/// What is known of a proven request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Which of the live secrets matched; `None` where nothing is signed.
    pub secret: Option<usize>,
    /// Our clock minus the signed time.
    pub skew_ms: Option<i64>,
}

/// Why a request is refused. For counters and logs; the sender is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VerifyRefusal {
    /// No secret is configured: nothing can be proven.
    #[error("no secret is configured; set webhooks.verify.secret or the connection's webhook_secret")]
    NoSecret,
    /// A header the scheme needs is absent.
    #[error("a header the scheme needs is missing")]
    Missing,
    /// A header the scheme reads came twice, or names a part twice.
    #[error("a signature header came twice")]
    Doubled,
    /// More signatures than allowed.
    #[error("too many signatures in one header")]
    TooMany,
    /// A header or the signed time is not of the scheme's form.
    #[error("a signature header is malformed")]
    Malformed,
    /// The signed time is too old or too far ahead.
    #[error("the signed time is outside the tolerance")]
    OutOfTime,
    /// No signature matches.
    #[error("no signature matches")]
    Mismatch,
}

/// Checks `parts` against `scheme` with every live secret.
pub fn verify(
    scheme: &Scheme,
    secrets: &[String],
    parts: &RawRequest<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyRefusal> {
    if matches!(scheme, Scheme::None) {
        return Ok(Verified::default());
    }
    let live: Vec<&str> = secrets.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    if live.is_empty() {
        if fault::planted("missing_secret_accepted") {
            return Ok(Verified::default());
        }
        return Err(VerifyRefusal::NoSecret);
    }
    match scheme {
        Scheme::None => Ok(Verified::default()),
        Scheme::Hmac(scheme) => signed(scheme, &live, parts, now),
        Scheme::SharedSecret { header } => shared(header, &live, parts),
    }
}

/// Refuses what [`verify`] would refuse whatever the body is, so that the body need not be read. Of `parts` the body is not
/// looked at.
pub fn verify_head(
    scheme: &Scheme,
    secrets: &[String],
    parts: &RawRequest<'_>,
    now: Timestamp,
) -> Result<(), VerifyRefusal> {
    let scheme = match scheme {
        Scheme::None => return Ok(()),
        // All of the proof is in the head.
        Scheme::SharedSecret { .. } => return verify(scheme, secrets, parts, now).map(drop),
        Scheme::Hmac(scheme) => scheme,
    };
    if secrets.iter().all(String::is_empty) {
        return Err(VerifyRefusal::NoSecret);
    }
    let header = only(parts, &scheme.header)?;
    let length = match scheme.algorithm {
        HashAlgorithm::Sha1 => 20,
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha512 => 64,
    };
    if offered(scheme, header)?.iter().all(|signature| signature.len() != length) {
        return Err(VerifyRefusal::Mismatch);
    }
    for part in &scheme.content {
        match part {
            SignedPart::Id => drop(only(parts, ID_HEADER)?),
            SignedPart::Header(name) => drop(only(parts, name)?),
            _ => {}
        }
    }
    match &scheme.timestamp {
        Some(rule) if !in_body(rule) => within(rule, read_stamp(rule, header, parts)?.1, now).map(drop),
        _ => Ok(()),
    }
}

fn shared(header: &str, live: &[&str], parts: &RawRequest<'_>) -> Result<Verified, VerifyRefusal> {
    let offered = sha2::Sha256::digest(only(parts, header)?.as_bytes());
    // Hashes have one length, so the comparison tells nothing about the secret's.
    matching(live, |secret| sha2::Sha256::digest(secret.as_bytes()).ct_eq(&offered))
        .map(|secret| Verified { secret: Some(secret), skew_ms: None })
}

fn signed(
    scheme: &HmacScheme,
    live: &[&str],
    parts: &RawRequest<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyRefusal> {
    let header = only(parts, &scheme.header)?;
    let offered = offered(scheme, header)?;
    // A stamp inside the body is read only after the signature proved the body, unless it is signed on its own.
    let early = match &scheme.timestamp {
        Some(rule) if !in_body(rule) || scheme.content.contains(&SignedPart::Stamp) => {
            Some(read_stamp(rule, header, parts)?)
        }
        _ => None,
    };
    let pieces = pieces(scheme, early.as_ref().map(|(text, _)| text.as_str()), parts)?;
    let secret = matching(live, |secret| match key_bytes(scheme.key, secret) {
        Some(key) => any_equal(&mac(scheme.algorithm, &key, &pieces, secret), &offered),
        None => Choice::from(0),
    })?;
    let Some(rule) = &scheme.timestamp else {
        return Ok(Verified { secret: Some(secret), skew_ms: None });
    };
    let at = match early {
        Some((_, at)) => at,
        None => read_stamp(rule, header, parts)?.1,
    };
    let skew = within(rule, at, now)?;
    Ok(Verified { secret: Some(secret), skew_ms: Some(skew) })
}

/// Index of a secret that matches; all are tried whatever the first ones say.
fn matching(live: &[&str], same: impl Fn(&str) -> Choice) -> Result<usize, VerifyRefusal> {
    let mut found = None;
    for (index, secret) in live.iter().enumerate() {
        if bool::from(same(secret)) {
            found = found.or(Some(index));
        }
    }
    found.ok_or(VerifyRefusal::Mismatch)
}

fn any_equal(expected: &[u8], offered: &[Vec<u8>]) -> Choice {
    let mut hit = Choice::from(0);
    for signature in offered {
        if fault::planted("signature_compared_up_to_the_shorter") {
            let shorter = expected.len().min(signature.len());
            hit |= expected[..shorter].ct_eq(&signature[..shorter]);
        }
        hit |= expected.ct_eq(signature.as_slice());
    }
    hit
}

/// The one value of a header; none or several are refused.
fn only<'a>(parts: &RawRequest<'a>, name: &str) -> Result<&'a str, VerifyRefusal> {
    let mut values = parts.headers.get_all(name).iter();
    let value = values.next().ok_or(VerifyRefusal::Missing)?;
    if values.next().is_some() {
        return Err(VerifyRefusal::Doubled);
    }
    value.to_str().map_err(|_| VerifyRefusal::Malformed)
}

/// The signatures in the header that are of the form and version we accept, decoded. What cannot be decoded matches nothing.
fn offered(scheme: &HmacScheme, header: &str) -> Result<Vec<Vec<u8>>, VerifyRefusal> {
    let texts: Vec<&str> = match &scheme.format {
        SignatureFormat::Raw => vec![header.trim()],
        SignatureFormat::Prefix(prefix) => {
            vec![header.trim().strip_prefix(prefix.as_str()).ok_or(VerifyRefusal::Malformed)?]
        }
        SignatureFormat::Kv(key) => kv(header, key).collect(),
        SignatureFormat::List(version) => header
            .split(' ')
            .filter_map(|entry| entry.split_once(','))
            .filter(|(v, _)| v == version)
            .map(|(_, signature)| signature)
            .collect(),
    };
    match texts.len() {
        0 => Err(VerifyRefusal::Missing),
        n if n > scheme.max => Err(VerifyRefusal::TooMany),
        _ => Ok(texts.into_iter().filter_map(|text| decode(scheme.encoding, text)).collect()),
    }
}

/// Values of `key` in `a=1,b=2`.
fn kv<'a>(header: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    header.split(',').filter_map(|pair| pair.trim().split_once('=')).filter(move |(k, _)| *k == key).map(|(_, v)| v)
}

fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    GeneralPurpose::new(alphabet, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent))
}

fn decode(encoding: SignatureEncoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        SignatureEncoding::Hex => hex::decode(text).ok(),
        SignatureEncoding::Base64 => lenient(&alphabet::STANDARD).decode(text).ok(),
        SignatureEncoding::Base64Url => lenient(&alphabet::URL_SAFE).decode(text).ok(),
    }
}

fn key_bytes(form: KeyForm, secret: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = match form {
        KeyForm::Text => return Some(Cow::Borrowed(secret.as_bytes())),
        KeyForm::Hex => hex::decode(secret).ok()?,
        KeyForm::Base64 => lenient(&alphabet::STANDARD).decode(secret).ok()?,
        KeyForm::Whsec => lenient(&alphabet::STANDARD).decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?,
    };
    // An empty key would let anybody sign.
    (!bytes.is_empty()).then_some(Cow::Owned(bytes))
}

/// A piece of the signed content; the secret itself differs from try to try.
enum SignedPiece<'a> {
    Bytes(Cow<'a, [u8]>),
    Secret,
}

fn pieces<'a>(
    scheme: &'a HmacScheme,
    stamp: Option<&str>,
    parts: &RawRequest<'a>,
) -> Result<Vec<SignedPiece<'a>>, VerifyRefusal> {
    let text = |t: &'a str| SignedPiece::Bytes(Cow::Borrowed(t.as_bytes()));
    scheme
        .content
        .iter()
        .map(|part| {
            Ok(match part {
                SignedPart::Stamp => {
                    SignedPiece::Bytes(Cow::Owned(stamp.ok_or(VerifyRefusal::Missing)?.as_bytes().to_vec()))
                }
                SignedPart::Id => text(only(parts, ID_HEADER)?),
                SignedPart::Method => text(parts.method),
                SignedPart::Url => text(parts.url),
                SignedPart::Path => text(parts.path),
                SignedPart::Query => text(parts.query),
                SignedPart::Body => SignedPiece::Bytes(Cow::Borrowed(parts.body)),
                SignedPart::Secret => SignedPiece::Secret,
                SignedPart::Header(name) => text(only(parts, name)?),
                SignedPart::Literal(literal) => text(literal),
            })
        })
        .collect()
}

fn mac(algorithm: HashAlgorithm, key: &[u8], pieces: &[SignedPiece<'_>], secret: &str) -> Vec<u8> {
    match algorithm {
        HashAlgorithm::Sha1 => sum::<Hmac<sha1::Sha1>>(key, pieces, secret),
        HashAlgorithm::Sha256 => sum::<Hmac<sha2::Sha256>>(key, pieces, secret),
        HashAlgorithm::Sha512 => sum::<Hmac<sha2::Sha512>>(key, pieces, secret),
    }
}

fn sum<M: Mac + hmac::digest::KeyInit>(key: &[u8], pieces: &[SignedPiece<'_>], secret: &str) -> Vec<u8> {
    // HMAC takes keys of any length; if it ever did not, the empty sum matches no signature.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    for piece in pieces {
        match piece {
            SignedPiece::Bytes(bytes) => mac.update(bytes),
            SignedPiece::Secret => mac.update(secret.as_bytes()),
        }
    }
    mac.finalize().into_bytes().to_vec()
}

fn in_body(rule: &StampRule) -> bool {
    matches!(rule.from, StampPlace::Body(_))
}

/// The signed time, as text (it is part of the signed content) and as a time.
fn read_stamp(rule: &StampRule, header: &str, parts: &RawRequest<'_>) -> Result<(String, Timestamp), VerifyRefusal> {
    let text = match &rule.from {
        StampPlace::Header(name) => only(parts, name)?.to_owned(),
        StampPlace::Kv(key) => {
            let mut values = kv(header, key);
            let value = values.next().ok_or(VerifyRefusal::Missing)?;
            if values.next().is_some() {
                return Err(VerifyRefusal::Doubled);
            }
            value.to_owned()
        }
        StampPlace::Body(path) => body_text(parts, path)?,
    };
    let at = stamp_time(rule.unit, &text).ok_or(VerifyRefusal::Malformed)?;
    Ok((text, at))
}

fn body_text(parts: &RawRequest<'_>, path: &str) -> Result<String, VerifyRefusal> {
    let kind = parts.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let (body, _) = super::content::read(kind, parts.body).map_err(|_| VerifyRefusal::Malformed)?;
    let found =
        path.trim_start_matches("$.").split('.').filter(|p| !p.is_empty()).try_fold(&body, |value, key| value.get(key));
    match found {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(VerifyRefusal::Missing),
    }
}

/// A whole decimal number, or strict RFC 3339.
fn stamp_time(unit: StampUnit, text: &str) -> Option<Timestamp> {
    if unit == StampUnit::Iso8601 {
        let shaped = text.is_ascii() && text.len() <= STAMP_CHARS && text.as_bytes().get(10) == Some(&b'T');
        return Timestamp::parse(text).filter(|_| shaped);
    }
    if text.is_empty() || text.len() > STAMP_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = text.parse().ok()?;
    Some(if unit == StampUnit::Millis { Timestamp::from_millis(number) } else { Timestamp::from_seconds(number) })
}

/// Checks both sides; answers our clock minus the stamp in milliseconds.
fn within(rule: &StampRule, at: Timestamp, now: Timestamp) -> Result<i64, VerifyRefusal> {
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    let age = now.0.saturating_sub(at.0);
    let ahead = if fault::planted("stamp_checked_on_one_side") { 0 } else { age.saturating_neg() };
    if age > micros(rule.past) || ahead > micros(rule.future) {
        return Err(VerifyRefusal::OutOfTime);
    }
    Ok(age / 1_000)
}

#[cfg(test)]
mod tests;
