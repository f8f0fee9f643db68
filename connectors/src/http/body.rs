//! Bodies: from the bytes of an answer or a webhook to a JSON value.
//!
//! A byte order mark is no part of the text. What is valid UTF-8 is UTF-8, whatever the header says, since JSON has no other
//! encoding; everything else is decoded as the header declares. What cannot be read inside of one text or number costs that
//! value and no more: it is replaced by a text that says why, and [`Faults`] tells which of the values around it to
//! put aside. Where the structure itself is broken there is no value, and [`NotJson`] says what the parser knows.

use encoding_rs::{DecoderResult, Encoding, UTF_8};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::borrow::Cow;

/// Levels that are kept of a body which is nested deeper than the parser goes.
const DEPTH: usize = 100;

/// Unreadable values that are told apart; a body with more of them is none.
const FAULTS_MAX: usize = 10_000;

/// Why a body is no JSON: what was wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotJson {
    why: String,
}

/// What of a body could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What each stands for in the value.
    texts: Vec<String>,
}

impl Faults {
    /// Whether everything could be read.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What could not be read inside of this value, if there is anything.
    pub fn within(&self, value: &Value) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        let known = |text: &str| self.texts.iter().map(String::as_str).find(|fault| *fault == text);
        match value {
            Value::String(text) => known(text),
            Value::Array(list) => list.iter().find_map(|value| self.within(value)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| known(name).or_else(|| self.within(value))),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// What could not be read outside of these values, if there is anything: it may be anything, so nothing can be made of
    /// the body.
    pub fn outside<'a>(&self, values: impl IntoIterator<Item = &'a Value>) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        let mut left: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        values.into_iter().for_each(|value| strike(value, &mut left));
        left.first().copied()
    }
}

/// Takes the faults that lie in `value` off the list.
fn strike(value: &Value, left: &mut Vec<&str>) {
    match value {
        Value::String(text) => left.retain(|fault| fault != text),
        Value::Array(list) => list.iter().for_each(|value| strike(value, left)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            left.retain(|fault| fault != name);
            strike(value, left);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads a body. `content_type` is the header of that name.
pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<(Value, Faults), NotJson> {
    let text = decode(content_type, bytes)?;
    match serde_json::from_str(&text.text) {
        Ok(value) if text.broken.is_empty() => Ok((value, Faults::default())),
        Ok(_) => mend(&text, None),
        Err(error) => mend(&text, Some(error)),
    }
}

/// The text of a body. `content_type` is the header of that name.
pub fn text<'a>(content_type: Option<&str>, bytes: &'a [u8]) -> Result<Cow<'a, str>, NotJson> {
    let text = decode(content_type, bytes)?;
    match text.broken.first() {
        None => Ok(text.text),
        Some(at) => Err(NotJson { why: format!("bytes that are not {} at byte {at}", text.encoding) }),
    }
}

/// A body as text.
struct Text<'a> {
    text: Cow<'a, str>,
    encoding: &'static str,
    /// Stands for what could not be decoded, and for nothing else in this text.
    hole: char,
    /// Where that was, in bytes of the body.
    broken: Vec<usize>,
}

fn decode<'a>(content_type: Option<&str>, bytes: &'a [u8]) -> Result<Text<'a>, NotJson> {
    let (encoding, skipped) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (Ok(encoding), mark),
        None => (declared(content_type), 0),
    };
    let body = bytes.get(skipped..).unwrap_or_default();
    if encoding.as_ref().map_or(true, |encoding| encoding.is_ascii_compatible())
        && let Ok(text) = std::str::from_utf8(body)
    {
        return Ok(Text { text: Cow::Borrowed(text), encoding: UTF_8.name(), hole: '\u{fdd0}', broken: Vec::new() });
    }
    let encoding = encoding?;
    let whole = |text| Text { text, encoding: encoding.name(), hole: '\u{fdd0}', broken: Vec::new() };
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(body) {
        return Ok(whole(text));
    }
    // A code point that is no character, and that the body does not have.
    let (lossy, _) = encoding.decode_without_bom_handling(body);
    let mut holes = ('\u{fdd0}'..='\u{fdef}').filter(|hole| !lossy.contains(*hole));
    let hole = holes.next().ok_or_else(|| NotJson { why: format!("bytes that are not {}", encoding.name()) })?;
    let (text, broken) = with_holes(encoding, body, skipped, hole);
    Ok(Text { text: Cow::Owned(text), encoding: encoding.name(), hole, broken })
}

/// The encoding a `Content-Type` names; UTF-8 where it names none.
fn declared(content_type: Option<&str>) -> Result<&'static Encoding, NotJson> {
    let parameters = content_type.unwrap_or_default().split(';').skip(1);
    let charset =
        parameters.filter_map(|one| one.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let Some((_, label)) = charset else { return Ok(UTF_8) };
    let label = label.trim().trim_matches('"');
    let unknown = || NotJson { why: format!("its charset {label:.40?} is unknown, and it is not UTF-8") };
    Encoding::for_label_no_replacement(label.as_bytes()).ok_or_else(unknown)
}

/// Decodes with `hole` for each sequence that is none of this encoding; their places in the body, which begins `skipped`
/// bytes before.
fn with_holes(encoding: &'static Encoding, body: &[u8], skipped: usize, hole: char) -> (String, Vec<usize>) {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(body.len() + body.len() / 2 + 16);
    let (mut broken, mut at) = (Vec::new(), 0);
    loop {
        let rest = body.get(at..).unwrap_or_default();
        let (result, read) = decoder.decode_to_string_without_replacement(rest, &mut text, true);
        at += read;
        match result {
            DecoderResult::InputEmpty => return (text, broken),
            DecoderResult::OutputFull => text.reserve(rest.len() + 16),
            DecoderResult::Malformed(length, after) => {
                broken.push(skipped + at.saturating_sub(usize::from(length) + usize::from(after)));
                text.push(hole);
            }
        }
    }
}

/// Replaces each text and number that cannot be read by a text that says so. `error` is what the parser says of the whole.
fn mend(text: &Text<'_>, error: Option<serde_json::Error>) -> Result<(Value, Faults), NotJson> {
    let refused = |error: &Option<serde_json::Error>| match (error, text.broken.first()) {
        (_, Some(at)) => NotJson { why: format!("bytes that are not {} at byte {at}", text.encoding) },
        (Some(error), None) => NotJson { why: explain(error, &text.text) },
        (None, None) => NotJson { why: "it cannot be read".to_owned() },
    };
    let out = String::with_capacity(text.text.len() + 256);
    let mut mending = Mending { text, at: 0, depth: 0, out, met: 0, faults: Vec::new() };
    if mending.run().is_none() {
        return Err(refused(&error));
    }
    let value = serde_json::from_str(&mending.out).map_err(|_| refused(&error))?;
    Ok((value, Faults { texts: mending.faults }))
}

/// The parser's reason, and the place it names as lines and columns also in bytes.
fn explain(error: &serde_json::Error, text: &str) -> String {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (before + error.column()).min(text.len());
    format!("{error}, which is byte {at} of {}", text.len())
}

/// A walk through the text of a body that copies what can be read.
struct Mending<'a> {
    text: &'a Text<'a>,
    at: usize,
    depth: usize,
    out: String,
    /// Holes met so far.
    met: usize,
    faults: Vec<String>,
}

impl Mending<'_> {
    /// To the end; `None` where something else than a text or a number cannot be read.
    fn run(&mut self) -> Option<()> {
        let bytes = self.text.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => self.string()?,
                b'{' | b'[' if self.depth >= DEPTH => self.deep()?,
                b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\n' | b'\r' => {
                    match byte {
                        b'{' | b'[' => self.depth += 1,
                        b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                        _ => {}
                    }
                    self.out.push(char::from(*byte));
                    self.at += 1;
                }
                _ => self.word()?,
            }
        }
        Some(())
    }

    /// Behind the string that begins at `at`.
    fn string_end(&self, at: usize) -> Option<usize> {
        let bytes = self.text.text.as_bytes();
        let mut end = at + 1;
        loop {
            match bytes.get(end)? {
                b'"' => return Some(end + 1),
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        let end = self.string_end(self.at)?;
        let piece = self.text.text.get(self.at..end)?;
        match (self.holes(piece), serde_json::from_str::<String>(piece)) {
            (0, Ok(_)) => self.out.push_str(piece),
            (0, Err(error)) => self.fault(format!("{} at byte {}", reason(&error), self.at))?,
            (holes, _) => {
                let at = self.text.broken.get(self.met).copied().unwrap_or_default();
                self.fault(format!("bytes that are not {} at byte {at}", self.text.encoding))?;
                self.met += holes;
            }
        }
        self.at = end;
        Some(())
    }

    /// How many sequences in this piece could not be decoded.
    fn holes(&self, piece: &str) -> usize {
        if self.text.broken.is_empty() { 0 } else { piece.matches(self.text.hole).count() }
    }

    /// An object or a list deeper than the parser goes.
    fn deep(&mut self) -> Option<()> {
        let bytes = self.text.text.as_bytes();
        let (mut end, mut open) = (self.at, 0usize);
        loop {
            match bytes.get(end)? {
                b'"' => {
                    end = self.string_end(end)?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            end += 1;
            if open == 0 {
                break;
            }
        }
        self.met += self.holes(self.text.text.get(self.at..end)?);
        self.fault(format!("more than {DEPTH} levels of nesting at byte {}", self.at))?;
        self.at = end;
        Some(())
    }

    /// A number, or what others write in the place of one.
    fn word(&mut self) -> Option<()> {
        let rest = self.text.text.get(self.at..)?;
        let end = rest.find(|c: char| "{}[]:,\" \t\n\r".contains(c)).unwrap_or(rest.len());
        let word = rest.get(..end)?;
        if serde_json::from_str::<IgnoredAny>(word).is_ok() {
            self.out.push_str(word);
        } else if is_like_a_number(word) {
            self.fault(format!("{word:.40} is no number of JSON, at byte {}", self.at))?;
        } else {
            return None;
        }
        self.at += end;
        Some(())
    }

    /// Puts a text in the place of what cannot be read, one that the body has nowhere else.
    fn fault(&mut self, why: String) -> Option<()> {
        if self.faults.len() >= FAULTS_MAX {
            return None;
        }
        let mut text = format!("\u{fffd} unreadable: {why}");
        while self.text.text.contains(&text) {
            text.push('\u{fffd}');
        }
        self.out.push_str(&serde_json::to_string(&text).ok()?);
        self.faults.push(text);
        Some(())
    }
}

/// What other writers than those of JSON make of numbers.
fn is_like_a_number(word: &str) -> bool {
    let plain = word.trim_start_matches(['-', '+']).to_ascii_lowercase();
    matches!(plain.as_str(), "nan" | "inf" | "infinity" | "1.#inf" | "1.#qnan" | "1.#ind")
        || plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && plain.chars().all(|c| c.is_ascii_hexdigit() || "+-.x_".contains(c))
}

/// Why a text cannot be read, without the place, which is one within the text.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}
