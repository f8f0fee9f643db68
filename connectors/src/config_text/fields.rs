//! Reading a map key by key: types, missing and unknown keys are reported, and reading goes on.

use super::{Complaint, Content, Entry, Node, SourceSpan, read_duration, read_size};
use std::time::Duration;

/// A map being read. Every `take_…` removes a key; [`Fields::finish`] reports what is left as unknown.
///
/// A wrong type is reported as `bad_type` and gives `None`, so that a reader can go on and find the rest.
pub struct Fields {
    /// Where the map stands.
    pub spot: SourceSpan,
    /// What it is, for messages: `streams[0]`.
    pub what: String,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
}

impl Fields {
    /// Opens `node`; null counts as an empty map. `None` (and `bad_type`) if it is something else.
    pub fn open(node: Node, what: impl Into<String>, complaints: &mut Vec<Complaint>) -> Option<Fields> {
        let what = what.into();
        let entries = match node.content {
            Content::Map(entries) => entries,
            Content::Null => Vec::new(),
            _ => {
                complaints.push(bad_type(&node, &what, "a map"));
                return None;
            }
        };
        Some(Fields { spot: node.spot, what, entries, asked: Vec::new() })
    }

    /// Takes a key. A null counts as not written.
    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.take_entry(key).map(|e| e.value)
    }

    /// Takes a key with the place of the key itself. A null counts as not written.
    pub fn take_entry(&mut self, key: &'static str) -> Option<Entry> {
        self.asked.push(key);
        let at = self.entries.iter().position(|e| e.key == key)?;
        Some(self.entries.remove(at)).filter(|e| !e.value.is_null())
    }

    /// Takes a key whose name is known only while running.
    pub fn take_named(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|e| e.key == key)?;
        Some(self.entries.remove(at).value).filter(|v| !v.is_null())
    }

    /// Takes a key that must be there: `missing_key`.
    pub fn require(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<Node> {
        let found = self.take(key);
        if found.is_none() {
            let message = format!("{} needs the key `{key}`", self.what);
            complaints.push(self.spot.complain("missing_key", message));
        }
        found
    }

    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.peek(key).is_some_and(|v| !v.is_null())
    }

    /// The value of a key, also null, without taking it.
    pub fn peek(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// Names a key that is known though nobody takes it here, for hints.
    pub fn known(&mut self, keys: &[&'static str]) {
        self.asked.extend_from_slice(keys);
    }

    /// Everything not taken yet; for maps with free keys.
    pub fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Takes text. Numbers and booleans count as text as they are written.
    pub fn text(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<(String, SourceSpan)> {
        let node = self.take(key)?;
        self.as_text(key, node, complaints)
    }

    /// Takes text that must be there.
    pub fn require_text(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<(String, SourceSpan)> {
        let node = self.require(key, complaints)?;
        self.as_text(key, node, complaints)
    }

    fn as_text(&self, key: &str, node: Node, complaints: &mut Vec<Complaint>) -> Option<(String, SourceSpan)> {
        match node.content {
            Content::Text(text) => Some((text, node.spot)),
            Content::Number(number) => Some((number.to_string(), node.spot)),
            Content::Bool(b) => Some((b.to_string(), node.spot)),
            _ => {
                complaints.push(bad_type(&node, &self.name(key), "text"));
                None
            }
        }
    }

    /// Takes `true` or `false`.
    pub fn bool(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<bool> {
        let node = self.take(key)?;
        match (&node.content, node.referenced) {
            (Content::Bool(b), _) => Some(*b),
            (Content::Text(t), true) if t == "true" || t == "false" => Some(t == "true"),
            _ => {
                complaints.push(bad_type(&node, &self.name(key), "true or false"));
                None
            }
        }
    }

    /// Takes a whole number within `from..=to`: `bad_type`, `out_of_range`.
    pub fn whole(&mut self, key: &'static str, from: u64, to: u64, complaints: &mut Vec<Complaint>) -> Option<u64> {
        let node = self.take(key)?;
        let number = match (&node.content, node.referenced) {
            (Content::Number(number), _) => number.to_string().parse::<i128>().ok(),
            (Content::Text(text), true) => text.parse::<i128>().ok(),
            _ => None,
        };
        let Some(number) = number else {
            complaints.push(bad_type(&node, &self.name(key), "a whole number"));
            return None;
        };
        let fits = u64::try_from(number).ok().filter(|n| (from..=to).contains(n));
        if fits.is_none() {
            let message = format!("{} is {number}; {from} to {to} is allowed", self.name(key));
            complaints.push(node.spot.complain("out_of_range", message));
        }
        fits
    }

    /// Takes a duration: `bad_duration`.
    pub fn duration(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<(Duration, SourceSpan)> {
        let node = self.take(key)?;
        let spot = node.spot.clone();
        read_duration(&node).map_err(|c| complaints.push(c)).ok().map(|d| (d, spot))
    }

    /// Takes a size in bytes: `bad_size`.
    pub fn size(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<(u64, SourceSpan)> {
        let node = self.take(key)?;
        let spot = node.spot.clone();
        read_size(&node).map_err(|c| complaints.push(c)).ok().map(|s| (s, spot))
    }

    /// Takes a list.
    pub fn list(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<Vec<Node>> {
        let node = self.take(key)?;
        match node.content {
            Content::List(list) => Some(list),
            _ => {
                complaints.push(bad_type(&node, &self.name(key), "a list"));
                None
            }
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, key: &'static str, complaints: &mut Vec<Complaint>) -> Option<Vec<(String, SourceSpan)>> {
        let what = self.name(key);
        let list = self.list(key, complaints)?;
        let mut texts = Vec::with_capacity(list.len());
        for node in list {
            match node.content {
                Content::Text(text) => texts.push((text, node.spot)),
                Content::Number(number) => texts.push((number.to_string(), node.spot)),
                _ => complaints.push(bad_type(&node, &format!("an entry of {what}"), "text")),
            }
        }
        Some(texts)
    }

    /// Takes one of a few words; `bad_value` otherwise.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        complaints: &mut Vec<Complaint>,
    ) -> Option<T> {
        let what = self.name(key);
        let (text, spot) = self.text(key, complaints)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let complaint =
                spot.complain("bad_value", format!("{what} is `{text}`; one of {} is wanted", names.join(", ")));
            complaints.push(match nearest(&text, names.iter().copied()) {
                Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                None => complaint,
            });
        }
        found
    }

    /// Reports every key nobody took: `unknown_key`, with the nearest known one.
    pub fn finish(self, complaints: &mut Vec<Complaint>) {
        let known = |e: &Entry| e.value.is_null() && self.asked.contains(&e.key.as_str());
        for entry in self.entries.iter().filter(|e| !known(e)) {
            let complaint = entry.spot.complain("unknown_key", format!("{} has no key `{}`", self.what, entry.key));
            complaints.push(match nearest(&entry.key, self.asked.iter().copied()) {
                Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                None => {
                    let mut known = self.asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    complaint.hint(format!("known keys: {}", known.join(", ")))
                }
            });
        }
    }

    fn name(&self, key: &str) -> String {
        format!("`{key}` of {}", self.what)
    }
}

/// A complaint about a value of the wrong type.
pub(crate) fn bad_type(node: &Node, what: &str, wanted: &str) -> Complaint {
    node.spot.complain("bad_type", format!("{what} must be {wanted}, not {}", node.kind()))
}

/// The known word most like `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
