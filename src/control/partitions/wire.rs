//! Questions to sources and their answers as JSON: the words of [`source`](crate::engine::source) on their way between two
//! processes of one installation.

use crate::engine::model::Timestamp;
use crate::engine::source::{
    Ask, Body, Bookmark, Confirm, Connection, End, Failure, Observation, Page, Part, Quarantined,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Different codes that are remembered; there are some dozens.
const CODES: usize = 1_000;

/// What is asked.
#[derive(Serialize, Deserialize)]
pub(super) struct Question {
    pub source: String,
    pub connection: Account,
    stream: String,
    variant: String,
    part: u8,
    index: usize,
    since: i64,
    until: i64,
    started_at: i64,
    after: Option<String>,
    /// Keys to fetch; a page is asked for where there are none.
    pub keys: Option<Vec<String>>,
}

/// What of a connection can change at run time.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    pub environment: String,
    pub id: String,
    pub metadata: Value,
    pub fields: Map<String, Value>,
}

impl Question {
    pub fn poll(source: &str, ask: &Ask, after: Option<&Bookmark>) -> Question {
        Question { after: after.map(|mark| STANDARD.encode(&mark.0)), ..Question::new(source, ask) }
    }

    pub fn fetch(source: &str, ask: &Ask, keys: &[String]) -> Question {
        Question { keys: Some(keys.to_vec()), ..Question::new(source, ask) }
    }

    fn new(source: &str, ask: &Ask) -> Question {
        let (part, index, since, until) = match ask.part {
            Part::Full => (0, 0, Timestamp(0), Timestamp(0)),
            Part::Incremental { since, until } => (1, 0, since, until),
            Part::Deletes { index, since, until } => (2, index, since, until),
        };
        let Connection { environment, id, metadata, fields, .. } = (*ask.connection).clone();
        Question {
            source: source.to_owned(),
            connection: Account { environment, id, metadata, fields },
            stream: ask.stream.clone(),
            variant: ask.variant.clone(),
            part,
            index,
            since: since.0,
            until: until.0,
            started_at: ask.started_at.0,
            after: None,
            keys: None,
        }
    }

    /// The question as a source takes it.
    pub fn ask(&self, connection: Arc<Connection>) -> Ask {
        let (since, until) = (Timestamp(self.since), Timestamp(self.until));
        let part = match self.part {
            0 => Part::Full,
            1 => Part::Incremental { since, until },
            _ => Part::Deletes { index: self.index, since, until },
        };
        let (stream, variant) = (self.stream.clone(), self.variant.clone());
        Ask { stream, connection, variant, part, started_at: Timestamp(self.started_at) }
    }

    pub fn bookmark(&self) -> Option<Bookmark> {
        STANDARD.decode(self.after.as_ref()?).ok().map(|bytes| Bookmark(bytes.into()))
    }
}

/// What came of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    page: Option<Sheet>,
    failure: Option<Refused>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    code: String,
    message: String,
    status: Option<u16>,
    retry: bool,
    retry_after_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Sheet {
    rows: Vec<Row>,
    quarantined: Vec<Kept>,
    warnings: Vec<Kept>,
    notes: Vec<(String, String)>,
    next: Option<String>,
    end: Option<(Vec<String>, u8)>,
    provider_time: Option<i64>,
    requests: u32,
    not_modified: u32,
    poll_hint_ms: Option<u64>,
    expected: Option<u64>,
}

/// Id, modified, observed, kind, text, deleted.
#[derive(Serialize, Deserialize)]
struct Row(String, Option<i64>, i64, u8, String, Option<i64>);

#[derive(Serialize, Deserialize)]
struct Kept {
    code: String,
    message: String,
    id: Option<String>,
    item: String,
}

impl Answer {
    pub fn of(result: Result<Page, Failure>) -> Answer {
        match result {
            Ok(page) => Answer { page: Some(Sheet::of(page)), failure: None },
            Err(why) => Answer {
                page: None,
                failure: Some(Refused {
                    code: why.code.to_owned(),
                    message: why.message,
                    status: why.status,
                    retry: why.retry,
                    retry_after_ms: why.retry_after.map(millis),
                }),
            },
        }
    }

    pub fn page(self) -> Result<Page, Failure> {
        if let Some(page) = self.page {
            return Ok(page.page());
        }
        let nothing = || Refused {
            code: "gateway_protocol".to_owned(),
            message: "a gateway answered nothing".to_owned(),
            status: None,
            retry: true,
            retry_after_ms: None,
        };
        let Refused { code, message, status, retry, retry_after_ms } = self.failure.unwrap_or_else(nothing);
        let retry_after = retry_after_ms.map(Duration::from_millis);
        Err(Failure { code: known(code), message, status, retry, retry_after })
    }
}

impl Sheet {
    fn of(page: Page) -> Sheet {
        Sheet {
            rows: page.observations.into_iter().map(Row::of).collect(),
            quarantined: page.quarantined.into_iter().map(Kept::of).collect(),
            warnings: page.warnings.into_iter().map(Kept::of).collect(),
            notes: page.notes.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect(),
            next: page.next.map(|mark| STANDARD.encode(&mark.0)),
            end: page.end.map(|end| (end.doubts, confirm_number(end.confirm))),
            provider_time: page.provider_time.map(|at| at.0),
            requests: page.requests,
            not_modified: page.not_modified,
            poll_hint_ms: page.poll_hint.map(millis),
            expected: page.expected,
        }
    }

    fn page(self) -> Page {
        let bytes = |text: String| STANDARD.decode(text).unwrap_or_default();
        let confirm = |n: u8| {
            let all = [Confirm::None, Confirm::Fetch, Confirm::Twice, Confirm::Never];
            // What is not known proves nothing.
            all.into_iter().find(|c| confirm_number(*c) == n).unwrap_or(Confirm::Never)
        };
        Page {
            observations: self.rows.into_iter().map(Row::observation).collect(),
            quarantined: self.quarantined.into_iter().map(Kept::quarantined).collect(),
            warnings: self.warnings.into_iter().map(Kept::quarantined).collect(),
            notes: self.notes.into_iter().map(|(key, value)| (key, bytes(value))).collect(),
            next: self.next.map(|text| Bookmark(bytes(text).into())),
            end: self.end.map(|(doubts, n)| End { doubts, confirm: confirm(n) }),
            provider_time: self.provider_time.map(Timestamp),
            requests: self.requests,
            not_modified: self.not_modified,
            poll_hint: self.poll_hint_ms.map(Duration::from_millis),
            expected: self.expected,
        }
    }
}

impl Row {
    fn of(seen: Observation) -> Row {
        let (kind, text, deleted) = match seen.body {
            Body::Whole(text) => (0, text, None),
            Body::Patch(text) => (1, text, None),
            Body::Gone { deleted_at } => (2, String::new(), deleted_at),
        };
        Row(seen.id, seen.modified_at.map(|at| at.0), seen.observed_at.0, kind, text, deleted.map(|at| at.0))
    }

    fn observation(self) -> Observation {
        let Row(id, modified_at, observed_at, kind, text, deleted) = self;
        let body = match kind {
            0 => Body::Whole(text),
            1 => Body::Patch(text),
            _ => Body::Gone { deleted_at: deleted.map(Timestamp) },
        };
        Observation { id, modified_at: modified_at.map(Timestamp), observed_at: Timestamp(observed_at), body }
    }
}

impl Kept {
    fn of(what: Quarantined) -> Kept {
        Kept { code: what.code.to_owned(), message: what.message, id: what.id, item: what.item }
    }

    fn quarantined(self) -> Quarantined {
        Quarantined { code: known(self.code), message: self.message, id: self.id, item: self.item }
    }
}

fn confirm_number(confirm: Confirm) -> u8 {
    match confirm {
        Confirm::None => 0,
        Confirm::Fetch => 1,
        Confirm::Twice => 2,
        Confirm::Never => 3,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A code as the constant it is. Codes are words of our own programs: kept for ever, but only so many of them.
fn known(code: String) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(code.as_str()) {
        return known;
    }
    if all.len() >= CODES {
        return "other";
    }
    let code: &'static str = Box::leak(code.into_boxed_str());
    all.insert(code);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn questions_and_pages_come_through_as_they_were() {
        let connection = Connection {
            environment: "e".into(),
            id: "c".into(),
            metadata: json!({"a": [1, null]}),
            ..Connection::default()
        };
        let part = Part::Deletes { index: 3, since: Timestamp(1), until: Timestamp(2) };
        let ask = Ask {
            stream: "S".into(),
            connection: Arc::new(connection.clone()),
            variant: "base".into(),
            part,
            started_at: Timestamp(9),
        };
        let mark = Bookmark(vec![0, 255].into());
        let text = serde_json::to_string(&Question::poll("crm", &ask, Some(&mark))).expect("JSON");
        let question: Question = serde_json::from_str(&text).expect("JSON");
        let again = question.ask(Arc::new(connection));
        assert_eq!((again.part, again.started_at, again.stream), (part, Timestamp(9), "S".to_owned()));
        assert_eq!((question.bookmark(), question.keys), (Some(mark.clone()), None));
        let seen = |id: &str, body| Observation {
            id: id.into(),
            modified_at: Some(Timestamp(5)),
            observed_at: Timestamp(6),
            body,
        };
        let kept = Quarantined { code: "bad_key", message: "m".into(), id: None, item: "{}".into() };
        let page = Page {
            observations: vec![
                seen("1", Body::Whole("{\"id\":\"1\",\"n\":12345678901234567890.5}".into())),
                seen("2", Body::Patch("{}".into())),
                seen("3", Body::Gone { deleted_at: Some(Timestamp(4)) }),
            ],
            quarantined: vec![kept],
            notes: vec![("n".into(), vec![1, 2])],
            next: Some(mark),
            end: Some(End { doubts: vec!["d".into()], confirm: Confirm::Twice }),
            poll_hint: Some(Duration::from_secs(3)),
            ..Page::default()
        };
        let text = serde_json::to_string(&Answer::of(Ok(page.clone()))).expect("JSON");
        let answer: Answer = serde_json::from_str(&text).expect("JSON");
        assert_eq!(format!("{:?}", answer.page().expect("a page")), format!("{page:?}"));
        let why = Failure { code: "timeout", message: "m".into(), status: Some(504), retry: true, retry_after: None };
        let text = serde_json::to_string(&Answer::of(Err(why.clone()))).expect("JSON");
        let answer: Answer = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer.page().expect_err("a failure"), why);
    }
}
