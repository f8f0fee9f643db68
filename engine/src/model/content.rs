//! Canonical content: what makes two JSON texts the same record, as a 64-bit hash computed while reading.
//!
//! Keys are unordered, `2` equals `2.0` and `20e-1`, integers are exact at any size, array order counts, `null` differs from
//! absent. `_nango_metadata` at the top and the paths of an [`Ignore`] do not count. The hash only ever compares the old
//! and the new content of one key, so 64 bits suffice. Nothing is allocated unless a string holds an escape.
//!
//! Objects are a wrapping sum over mixed (key, value) hashes, which makes them order-free; arrays are an ordered chain.

use std::collections::{BTreeMap, HashMap};
use twox_hash::{XxHash3_64, XxHash3_128};

/// Deepest nesting that is read.
pub const DEPTH: usize = 128;

/// The seeded hash of a record id: 128 bits, because ids come from outside and must not be made to collide.
pub type Key = [u64; 2];

/// The installation's secret for key hashes.
#[derive(Clone)]
pub struct KeySeed(Box<[u8; 192]>);

impl KeySeed {
    /// Stretches a secret of this installation.
    pub fn new(secret: &[u8; 32]) -> Self {
        use sha2::{Digest, Sha256};
        let mut bytes = Box::new([0u8; 192]);
        for (n, chunk) in bytes.chunks_mut(32).enumerate() {
            let mut hasher = Sha256::new();
            hasher.update(secret);
            hasher.update([n as u8]);
            chunk.copy_from_slice(&hasher.finalize());
        }
        KeySeed(bytes)
    }

    /// The hash of `id`.
    pub fn key(&self, id: &[u8]) -> Key {
        let hash = XxHash3_128::oneshot_with_secret(&self.0[..], id).unwrap_or_else(|_| XxHash3_128::oneshot(id));
        [hash as u64, (hash >> 64) as u64]
    }
}

/// The hash of the bytes as they came: equal bytes need no parsing.
pub fn raw_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Paths that do not count as content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    below: BTreeMap<String, Ignore>,
    whole: bool,
}

impl Ignore {
    /// From dotted paths (`stats.views`).
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = Ignore::default();
        for path in paths {
            let node = path.split('.').fold(&mut root, |node, part| node.below.entry(part.to_owned()).or_default());
            node.whole = true;
        }
        root
    }

    fn child(&self, key: &[u8]) -> Option<&Ignore> {
        std::str::from_utf8(key).ok().and_then(|key| self.below.get(key))
    }
}

/// Why a text is no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: {what} at byte {at}")]
pub struct NotContent {
    /// What was found.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// The canonical hash of the JSON object in `json`.
///
/// ```
/// use syncline_engine::model::content::{canonical_hash, Ignore};
/// let all = Ignore::default();
/// let hash = |text: &str| canonical_hash(text.as_bytes(), &all).unwrap();
/// assert_eq!(hash(r#"{"a":2,"b":[1]}"#), hash(r#"{ "b": [1.0], "a": 20e-1 }"#));
/// assert_ne!(hash(r#"{"a":null}"#), hash(r#"{}"#));
/// ```
pub fn canonical_hash(json: &[u8], ignore: &Ignore) -> Result<u64, NotContent> {
    // Whatever is accepted here is stored and handed to readers, so it must be text through and through.
    if let Err(bad) = std::str::from_utf8(json) {
        return Err(NotContent { what: "bytes that are not UTF-8", at: bad.valid_up_to() });
    }
    let mut reader = CanonicalReader { json, at: 0, scratch: Vec::new(), fields: Vec::new() };
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(reader.wrong("something else than an object"));
    }
    let hash = reader.object(Some(ignore), 0)?;
    reader.space();
    match reader.peek() {
        None => Ok(hash),
        Some(_) => Err(reader.wrong("text after the end")),
    }
}

const METADATA: &[u8] = b"_nango_metadata";

struct CanonicalReader<'a> {
    json: &'a [u8],
    at: usize,
    scratch: Vec<u8>,
    /// Fields of the objects that are being read: hash of the key, share in the object's hash.
    fields: Vec<(u64, u64)>,
}

impl<'a> CanonicalReader<'a> {
    fn wrong(&self, what: &'static str) -> NotContent {
        NotContent { what, at: self.at }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, text: &'static [u8], tag: u64) -> Result<u64, NotContent> {
        if self.json[self.at..].starts_with(text) {
            self.at += text.len();
            Ok(mix(tag))
        } else {
            Err(self.wrong("an unknown word"))
        }
    }

    fn value(&mut self, ignore: Option<&Ignore>, depth: usize) -> Result<u64, NotContent> {
        if depth > DEPTH {
            return Err(self.wrong("nesting that is too deep"));
        }
        match self.peek() {
            Some(b'"') => self.string().map(|hash| mix(hash ^ TAG_STRING)),
            Some(b'{') => self.object(ignore, depth),
            Some(b'[') => self.array(depth),
            Some(b't') => self.literal(b"true", 0x11),
            Some(b'f') => self.literal(b"false", 0x12),
            Some(b'n') => self.literal(b"null", 0x13),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.wrong("a character that begins no value")),
            None => Err(self.wrong("the end of the text")),
        }
    }

    fn object(&mut self, ignore: Option<&Ignore>, depth: usize) -> Result<u64, NotContent> {
        self.at += 1;
        let outer = self.fields.len();
        let (mut sum, mut met) = (TAG_OBJECT, [0u64; 4]);
        let mut first = true;
        loop {
            self.space();
            match self.peek() {
                Some(b'}') if first => break,
                Some(b'"') => {}
                _ => return Err(self.wrong("no key where one belongs")),
            }
            first = false;
            let from = self.at;
            let key = self.string()?;
            let below = match ignore {
                Some(ignore) if !ignore.below.is_empty() => ignore.child(self.name(from)),
                _ => None,
            };
            let skip = below.is_some_and(|b| b.whole) || (depth == 0 && self.name(from) == METADATA);
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("no colon after a key"));
            }
            self.at += 1;
            self.space();
            let value = self.value(below, depth + 1)?;
            let share = if skip { 0 } else { mix(key ^ value.rotate_left(23)) };
            let (word, bit) = ((key >> 6 & 3) as usize, 1u64 << (key & 63));
            let before = if met[word] & bit == 0 { 0 } else { self.share_before(outer, key) };
            met[word] |= bit;
            self.fields.push((key, share));
            sum = sum.wrapping_add(share).wrapping_sub(before);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("neither comma nor end of an object")),
            }
        }
        self.at += 1;
        if self.fields.len() - outer > FEW_FIELDS {
            let last: HashMap<u64, u64> = self.fields.drain(outer..).collect();
            sum = last.values().fold(TAG_OBJECT, |sum, share| sum.wrapping_add(*share));
        }
        self.fields.truncate(outer);
        Ok(mix(sum))
    }

    /// What a key that may have been met in the object that began at `outer` adds to its hash: of a key written twice the
    /// last counts, as it does for every reader. Objects of many fields are summed up at their end instead.
    fn share_before(&self, outer: usize, key: u64) -> u64 {
        match self.fields.get(outer..) {
            Some(fields) if fields.len() < FEW_FIELDS => {
                fields.iter().rev().find(|(other, _)| *other == key).map_or(0, |(_, share)| *share)
            }
            _ => 0,
        }
    }

    /// The characters of the string that began at `from` and was just read.
    fn name(&self, from: usize) -> &[u8] {
        let raw = self.json.get(from + 1..self.at - 1).unwrap_or_default();
        if raw.contains(&b'\\') { &self.scratch } else { raw }
    }

    fn array(&mut self, depth: usize) -> Result<u64, NotContent> {
        self.at += 1;
        let mut chain = TAG_ARRAY;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(mix(chain));
        }
        loop {
            self.space();
            let value = self.value(None, depth + 1)?;
            chain = mix(chain.rotate_left(5) ^ value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("neither comma nor end of an array")),
            }
        }
        self.at += 1;
        Ok(chain)
    }

    /// Hash of a string's characters; leaves `at` behind the closing quote.
    fn string(&mut self) -> Result<u64, NotContent> {
        self.at += 1;
        let from = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let hash = XxHash3_64::oneshot(&self.json[from..self.at]);
                    self.at += 1;
                    return Ok(hash);
                }
                Some(b'\\') => return self.escaped(from),
                Some(0..=0x1f) => return Err(self.wrong("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.wrong("a string without end")),
            }
        }
    }

    /// The rest of a string that holds escapes: unescaped into the scratch buffer.
    fn escaped(&mut self, from: usize) -> Result<u64, NotContent> {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        text.extend_from_slice(&self.json[from..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut text)?;
                }
                Some(0..=0x1f) => return Err(self.wrong("a control character in a string")),
                Some(byte) => {
                    text.push(byte);
                    self.at += 1;
                }
                None => return Err(self.wrong("a string without end")),
            }
        }
        self.at += 1;
        let hash = XxHash3_64::oneshot(&text);
        self.scratch = text;
        Ok(hash)
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), NotContent> {
        let Some(kind) = self.peek() else { return Err(self.wrong("a string without end")) };
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' => text.push(kind),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let mut unit = self.hex4()?;
                if (0xd800..0xdc00).contains(&unit) && self.json[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    unit = match low {
                        0xdc00..0xe000 => 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                        _ => return Err(self.wrong("half a surrogate pair")),
                    };
                }
                match char::from_u32(unit) {
                    Some(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => return Err(self.wrong("half a surrogate pair")),
                }
            }
            _ => return Err(self.wrong("an unknown escape")),
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, NotContent> {
        let digits = self.json.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let unit =
            digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|d| u32::from_str_radix(d, 16).ok());
        self.at += 4;
        unit.ok_or_else(|| NotContent { what: "a bad \\u escape", at: self.at.min(self.json.len()) })
    }

    /// A number as (sign, digits without zeros at either end, power of ten).
    fn number(&mut self) -> Result<u64, NotContent> {
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let from = self.at;
        let (mut digits, mut exponent, mut count, mut long) = (0u64, 0i64, 0u32, false);
        let mut fraction = false;
        let mut last = None;
        loop {
            match self.peek() {
                Some(byte @ b'0'..=b'9') => {
                    if count > 0 || byte != b'0' {
                        count += 1;
                        if count <= 19 {
                            digits = digits * 10 + u64::from(byte - b'0');
                        } else {
                            long = true;
                        }
                    }
                    exponent -= i64::from(fraction);
                }
                Some(b'.') if !fraction && last.is_some() => fraction = true,
                _ => break,
            }
            last = self.peek();
            self.at += 1;
        }
        if !last.is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong("no digit where one belongs"));
        }
        if self.json.get(from) == Some(&b'0') && self.json.get(from + 1).is_some_and(u8::is_ascii_digit) {
            return Err(self.wrong("a number that begins with zero"));
        }
        let mantissa = &self.json[from..self.at];
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            exponent = exponent.saturating_add(self.exponent()?);
        }
        if long {
            return Ok(long_number(negative, mantissa, exponent));
        }
        if digits == 0 {
            return Ok(mix(TAG_NUMBER));
        }
        while digits % 10 == 0 {
            digits /= 10;
            exponent = exponent.saturating_add(1);
        }
        Ok(mix(TAG_NUMBER ^ mix(digits) ^ (exponent as u64).rotate_left(32) ^ u64::from(negative)))
    }

    fn exponent(&mut self) -> Result<i64, NotContent> {
        let sign = match self.peek() {
            Some(b'-') => -1,
            _ => 1,
        };
        if matches!(self.peek(), Some(b'-' | b'+')) {
            self.at += 1;
        }
        let from = self.at;
        let mut value = 0i64;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            value = value.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
            self.at += 1;
        }
        if from == self.at {
            return Err(self.wrong("an exponent without digits"));
        }
        Ok(sign * value)
    }
}

/// Up to so many fields, looking for a doubled key one by one is quicker than a table.
const FEW_FIELDS: usize = 64;

/// Numbers of more than 19 digits: the same normal form over their text.
fn long_number(negative: bool, mantissa: &[u8], mut exponent: i64) -> u64 {
    let digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).skip_while(|d| *d == b'0').collect();
    let kept = digits.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
    exponent = exponent.saturating_add(i64::try_from(digits.len() - kept).unwrap_or(i64::MAX));
    if kept <= 19 {
        let short = digits[..kept].iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
        return mix(TAG_NUMBER ^ mix(short) ^ (exponent as u64).rotate_left(32) ^ u64::from(negative));
    }
    mix(TAG_NUMBER ^ XxHash3_64::oneshot(&digits[..kept]) ^ (exponent as u64).rotate_left(32) ^ u64::from(negative))
}

const TAG_STRING: u64 = 0x5bd1_e995_7b93_a1c7;
const TAG_OBJECT: u64 = 0x9f86_d081_884c_7d65;
const TAG_ARRAY: u64 = 0x2c26_b46b_68ff_c68f;
const TAG_NUMBER: u64 = 0xfcde_2b2e_dba5_6bf4;

/// The finaliser of splitmix64.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(text: &str) -> Result<u64, NotContent> {
        canonical_hash(text.as_bytes(), &Ignore::default())
    }

    #[test]
    fn equal_content() {
        for (a, b) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
            (r#"{"a":2}"#, r#"{"a":2.0}"#),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"a":0}"#, r#"{"a":-0.00}"#),
            (r#"{"a":10000000000000000000000}"#, r#"{"a":1E22}"#),
            (r#"{"a":123456789012345678901234567890}"#, r#"{"a":1.2345678901234567890123456789e29}"#),
            (r#"{"a":"é\n"}"#, "{\"a\":\"\\u00e9\\u000a\"}"),
            (r#"{"a":"😀"}"#, r#"{"a":"\ud83d\ude00"}"#),
            (r#"{"a":1}"#, r#"{"a":1,"_nango_metadata":{"x":[1]}}"#),
            (r#"{"a":[ ],"b":{ }}"#, r#"{"a":[],"b":{}}"#),
        ] {
            assert_eq!(hash(a).expect(a), hash(b).expect(b), "{a} {b}");
        }
    }

    #[test]
    fn different_content() {
        for (a, b) in [
            (r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":"1"}"#, r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"{"a":-1}"#),
            (r#"{"a":10}"#, r#"{"a":1}"#),
            (r#"{"a":{"b":1}}"#, r#"{"b":{"a":1}}"#),
            (r#"{"a":[]}"#, r#"{"a":{}}"#),
            (r#"{"a":123456789012345678901234567890}"#, r#"{"a":123456789012345678901234567891}"#),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
            (r#"{"x":{"_nango_metadata":1}}"#, r#"{"x":{}}"#),
        ] {
            assert_ne!(hash(a).expect(a), hash(b).expect(b), "{a} {b}");
        }
    }

    #[test]
    fn ignored_paths_do_not_count() {
        let ignore = Ignore::new(["seen", "stats.views"]);
        let hash = |text: &str| canonical_hash(text.as_bytes(), &ignore).expect(text);
        assert_eq!(
            hash(r#"{"a":1,"seen":1,"stats":{"views":1,"likes":2}}"#),
            hash(r#"{"a":1,"stats":{"likes":2,"views":7}}"#)
        );
        assert_ne!(hash(r#"{"stats":{"likes":1}}"#), hash(r#"{"stats":{"likes":2}}"#));
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}x"#,
            r#"{"a":tru}"#,
            r#"{"a":"\q"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\u12"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":[1 2]}"#,
        ] {
            assert!(hash(text).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(hash(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = canonical_hash(&bytes, &Ignore::default());
        }

        #[test]
        fn reading_and_writing_again_is_the_same(fields in proptest::collection::btree_map("[a-c]{1,3}", -1000i64..1000, 0..5)) {
            let value = serde_json::to_value(&fields).expect("json");
            let (tight, wide) = (value.to_string(), serde_json::to_string_pretty(&value).expect("json"));
            prop_assert_eq!(hash(&tight), hash(&wide));
        }
    }
}
