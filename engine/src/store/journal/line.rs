//! A line of the journal: what happened, to what, and how it went; and how it is stored.
//!
//! Promises: whatever is put into a line, what is stored has no secret ([`super::redact`]) and at most some 6 KiB; what was cut says
//! so. A line of a kind, or a format, that a later program wrote is passed over.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format |
//! | 1 | kind |
//! | 1 + n each | environment, source, connection, stream, endpoint, id, outcome: length and text, empty for none |
//! | the rest | details, JSON; nothing for none |

use super::redact::{redact, without_secrets};
use crate::model::{DatasetName, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

/// Most bytes of each text of a line.
pub const TEXT_BYTES: usize = 255;
/// Most bytes of a line's details, as JSON.
pub const DETAILS_BYTES: usize = 4 << 10;

const FORMAT: u8 = 1;
/// Ends a text that was cut.
const CUT: &str = "…";

/// What a line is about. Later kinds join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JournalKind {
    /// The end of a run.
    Run,
    /// A webhook that came in.
    Webhook,
    /// An attempt to deliver a webhook.
    Delivery,
    /// Lines that are missing here, because they came too fast or the disk was full. It belongs to every environment.
    Gap,
}

impl JournalKind {
    /// All kinds this program knows.
    pub const ALL: [JournalKind; 4] = [JournalKind::Run, JournalKind::Webhook, JournalKind::Delivery, JournalKind::Gap];

    /// Its name outside.
    pub fn name(self) -> &'static str {
        match self {
            JournalKind::Run => "run",
            JournalKind::Webhook => "webhook",
            JournalKind::Delivery => "delivery",
            JournalKind::Gap => "gap",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<JournalKind> {
        JournalKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its number in stored lines.
    fn number(self) -> u8 {
        match self {
            JournalKind::Run => 1,
            JournalKind::Webhook => 2,
            JournalKind::Delivery => 3,
            JournalKind::Gap => 255,
        }
    }

    fn numbered(number: u8) -> Option<JournalKind> {
        JournalKind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A line. Made by [`run`](JournalLine::run) and its like, and handed to [`Journal::write`](super::Journal::write).
///
/// ```
/// use syncline_engine::store::journal::JournalLine;
/// let line = JournalLine::webhook("whk_1", "applied").environment("default").source("crm").details(serde_json::json!({"ms": 3}));
/// assert_eq!(line.outcome, "applied");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JournalLine {
    /// When it was written: no two lines have the same time, and it names the line.
    pub at: Timestamp,
    /// What it is about.
    pub kind: JournalKind,
    /// The environment; `None` for what belongs to all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// The stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `run_…`, `whk_…` or `msg_…`; empty where nothing has an id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// How it went: a code, or a short text.
    pub outcome: String,
    /// More, as JSON; null for nothing.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl JournalLine {
    fn of(kind: JournalKind, id: String, outcome: String) -> JournalLine {
        let (environment, source, connection, stream, endpoint) = (None, None, None, None, None);
        let (at, details) = (Timestamp(0), Value::Null);
        JournalLine { at, kind, environment, source, connection, stream, endpoint, id, outcome, details }
    }

    /// The end of a run.
    pub fn run(id: impl Into<String>, outcome: impl Into<String>) -> JournalLine {
        JournalLine::of(JournalKind::Run, id.into(), outcome.into())
    }

    /// A webhook that came in.
    pub fn webhook(id: impl Into<String>, outcome: impl Into<String>) -> JournalLine {
        JournalLine::of(JournalKind::Webhook, id.into(), outcome.into())
    }

    /// An attempt to deliver.
    pub fn delivery(id: impl Into<String>, outcome: impl Into<String>) -> JournalLine {
        JournalLine::of(JournalKind::Delivery, id.into(), outcome.into())
    }

    /// Lines that are missing: so many because they came too fast, so many because the disk did not take them.
    pub(super) fn gap(overflowed: u64, unwritten: u64) -> JournalLine {
        let lost = overflowed.saturating_add(unwritten);
        let details = json!({"lost": lost, "too_fast": overflowed, "disk": unwritten});
        JournalLine::of(JournalKind::Gap, String::new(), "lost".to_owned()).details(details)
    }

    /// In this environment.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// About this source.
    pub fn source(mut self, name: impl Into<String>) -> Self {
        self.source = Some(name.into());
        self
    }

    /// About this connection.
    pub fn connection(mut self, name: impl Into<String>) -> Self {
        self.connection = Some(name.into());
        self
    }

    /// About this stream.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// About this endpoint.
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.endpoint = Some(name.into());
        self
    }

    /// About this dataset: its environment, source, connection and stream.
    pub fn dataset(self, name: &DatasetName) -> Self {
        self.environment(&*name.environment).source(&*name.source).connection(&*name.connection).stream(&*name.model)
    }

    /// With more to say: a small object. Secrets in it are masked, and what is longer than [`DETAILS_BYTES`] is cut.
    pub fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// As it is stored, without its time.
    pub(super) fn encode(mut self) -> Vec<u8> {
        redact(&mut self.details);
        let details = match self.details {
            Value::Null => String::new(),
            details => fit_details(details.to_string()),
        };
        let outcome = without_secrets(&self.outcome).unwrap_or(self.outcome);
        let subjects = [self.environment, self.source, self.connection, self.stream, self.endpoint];
        let subjects = subjects.map(Option::unwrap_or_default);
        let size: usize = subjects.iter().map(|text| text.len() + 1).sum();
        let mut bytes = Vec::with_capacity(4 + size + self.id.len() + outcome.len() + details.len());
        bytes.extend_from_slice(&[FORMAT, self.kind.number()]);
        for text in subjects.iter().chain([&self.id, &outcome]) {
            let (text, cut) = fit(text);
            // It fits: a text has at most as many bytes as one can count.
            bytes.push((text.len() + cut.len()) as u8);
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(cut.as_bytes());
        }
        bytes.extend_from_slice(details.as_bytes());
        bytes
    }
}

/// A text cut to [`TEXT_BYTES`], and what shows that it was.
fn fit(text: &str) -> (&str, &'static str) {
    match text.len() {
        ..=TEXT_BYTES => (text, ""),
        _ => (beginning(text, TEXT_BYTES - CUT.len()), CUT),
    }
}

/// Details that are too long become how they begin, and how long they were.
fn fit_details(details: String) -> String {
    if details.len() <= DETAILS_BYTES {
        return details;
    }
    // Written as a text in JSON, quotes and backslashes of it take two bytes each, and nothing takes more.
    let begins = beginning(&details, DETAILS_BYTES / 2 - 64);
    json!({"cut_from_bytes": details.len(), "begins": begins}).to_string()
}

/// So many bytes of a text, or a few less where that is within a character.
fn beginning(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// A stored line where it lies: it is looked at before anything of it is copied.
pub(super) struct Stored<'a> {
    pub kind: JournalKind,
    /// Environment, source, connection, stream, endpoint, id, outcome.
    pub texts: [&'a str; 7],
    details: &'a [u8],
}

impl<'a> Stored<'a> {
    /// `Ok(None)` for what a later program wrote, an error for what nobody did.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<Stored<'a>>, &'static str> {
        let (kind, mut rest) = match bytes {
            [FORMAT, kind, rest @ ..] => (*kind, rest),
            [] | [0, ..] | [FORMAT] => return Err("it ends before it begins"),
            _ => return Ok(None),
        };
        let mut texts = [""; 7];
        for text in &mut texts {
            let (length, behind) = rest.split_first().ok_or("it ends too early")?;
            let (bytes, behind) = behind.split_at_checked(usize::from(*length)).ok_or("it ends too early")?;
            *text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
            rest = behind;
        }
        Ok(JournalKind::numbered(kind).map(|kind| Stored { kind, texts, details: rest }))
    }

    /// All of it.
    pub fn line(&self, at: Timestamp) -> Result<JournalLine, &'static str> {
        let [environment, source, connection, stream, endpoint, id, outcome] = self.texts;
        let subject = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let details = match self.details {
            [] => Value::Null,
            details => serde_json::from_slice(details).map_err(|_| "its details are no JSON")?,
        };
        Ok(JournalLine {
            at,
            kind: self.kind,
            environment: subject(environment),
            source: subject(source),
            connection: subject(connection),
            stream: subject(stream),
            endpoint: subject(endpoint),
            id: id.to_owned(),
            outcome: outcome.to_owned(),
            details,
        })
    }

    /// Whether one of its texts is this one, which may be longer than what is stored.
    pub fn is(&self, which: usize, wanted: &str) -> bool {
        let (begin, cut) = fit(wanted);
        self.texts.get(which).and_then(|text| text.strip_prefix(begin)) == Some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(line: JournalLine) -> JournalLine {
        let bytes = line.encode();
        assert!(bytes.len() <= 2 + 7 * (1 + TEXT_BYTES) + DETAILS_BYTES, "{} bytes", bytes.len());
        Stored::decode(&bytes).expect("whole").expect("known").line(Timestamp(7)).expect("read")
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let name = DatasetName::base("dev", "crm", "acme", "Contact");
        let lines = [
            JournalLine::run("run_1", "complete").dataset(&name).details(json!({"pages": 3, "error": null})),
            JournalLine::delivery("msg_1", "503").endpoint("backend"),
            JournalLine::gap(1, 2),
        ];
        for line in lines {
            assert_eq!(stored(line.clone()), JournalLine { at: Timestamp(7), ..line });
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = "ü\"".repeat(5_000);
        let line = stored(JournalLine::webhook(&long, &long).source(&long).details(json!({ "text": long })));
        assert!(line.id.len() <= TEXT_BYTES && line.id.ends_with(CUT) && line.outcome == line.id);
        assert_eq!(line.details["cut_from_bytes"], json!({ "text": long }).to_string().len());
        assert!(line.details["begins"].as_str().expect("a text").starts_with("{\"text\":\"ü"));
        let bytes = JournalLine::webhook("", "").source(&long).encode();
        let stored = Stored::decode(&bytes).expect("whole").expect("known");
        assert!(stored.is(1, &long) && !stored.is(1, "ü") && stored.is(0, "") && !stored.is(9, ""));
    }

    #[test]
    fn a_later_program_is_passed_over_and_damage_is_told() {
        let bytes = JournalLine::run("run_1", "failed").encode();
        assert!(matches!(Stored::decode(&[&[9], &bytes[1..]].concat()), Ok(None)), "another format");
        assert!(matches!(Stored::decode(&[&[FORMAT, 99], &bytes[2..]].concat()), Ok(None)), "another kind");
        for end in 0..bytes.len() {
            assert!(Stored::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn names_of_kinds_lead_back_to_them() {
        for kind in JournalKind::ALL {
            assert_eq!(
                (JournalKind::named(kind.name()), JournalKind::numbered(kind.number())),
                (Some(kind), Some(kind))
            );
        }
        assert_eq!(JournalKind::named("later"), None);
    }
}
