//! A host made of recorded answers: it runs a function without a provider, and compares what comes out with what was recorded.
//!
//! ```text
//! tests/contacts.test.json ── parse ──► Mocks ── run ──► Replay ── differences ──► what is not as recorded
//! ```
//!
//! | member of the file | what it is |
//! |---|---|
//! | `api.{method}.{endpoint}` | an answer or a list of them: `response`, `status`, `headers`, `hash`, `request: {params, headers, data}` |
//! | `nango.{batchSave, batchDelete, batchUpdate}.{Model}` | the records that have to come out |
//! | `nango.{getConnection, getMetadata, getCheckpoint, getToken, …}` | what that member answers |
//! | `input`, `output` | of an action |
//! | `run: {now, seed, about}` | clock, chance and what else the function was told: only in what [`Recorder`] wrote |
//! | `webhook` | what `onWebhook` is given instead of running `exec` |
//!
//! Promises: no socket and no clock are touched, so that the same file gives the same result; a request that was not recorded
//! is an error which says what was recorded instead. What is not recorded of the connection is as with a new one: no metadata,
//! no checkpoint, no records. The clock stands at the date of the earliest answer. If a request differs from a recorded one in
//! nothing but moments, all by the same time, the clock is put right by it and the function begins again.

mod clock;
mod compare;
mod host;
mod recorder;
mod recording;

pub use host::{Replay, run};
pub use recorder::Recorder;

use crate::compile::{Complaint, FunctionKind, Place};
use crate::sandbox::Definition;
use crate::wire::{Invocation, Limits};
use recording::Recording;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time a function sees where no answer has a date: 2026-01-01.
const NOW: i64 = 1_767_225_600_000;
/// The connection that functions see.
const CONNECTION: &str = "test";
/// Time on the processor that a test may use.
const CPU: Duration = Duration::from_secs(60);
/// Requests that a test may make.
const REQUESTS: u32 = 10_000;

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Mocks {
    recordings: Vec<Recording>,
    nango: Map<String, Value>,
    input: Option<Value>,
    output: Option<Value>,
    webhook: Option<Value>,
    run: RecordedRun,
}

/// What a run was told of the world.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RecordedRun {
    /// Milliseconds since 1970.
    now: Option<i64>,
    seed: u64,
    about: Map<String, Value>,
}

/// What is given by hand instead of what was recorded.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The time that the function sees, in milliseconds since 1970.
    pub now: Option<i64>,
    /// Where its chance begins.
    pub seed: Option<u64>,
    /// The checkpoint at which it begins.
    pub checkpoint: Option<Value>,
    /// The metadata of the connection.
    pub metadata: Option<Value>,
    /// Of an action.
    pub input: Option<Value>,
    /// An event for `onWebhook`, which runs instead of `exec`.
    pub webhook: Option<Value>,
}

/// The file as it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    nango: Map<String, Value>,
    #[serde(default)]
    api: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "present")]
    input: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    output: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    webhook: Option<Value>,
    #[serde(default)]
    run: RecordedRun,
}

/// `null` is a value; only what is absent is none.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Mocks {
    /// Reads a file of recordings; `file` is named in the complaint.
    pub fn parse(file: &str, text: &str) -> Result<Mocks, Complaint> {
        let complain =
            |line, column, message| Complaint { file: file.to_owned(), line, column, code: "bad_recording", message };
        let written: Written = serde_json::from_str(text)
            .map_err(|error| complain(error.line() as u32, error.column() as u32, error.to_string()))?;
        let mut recordings = Vec::new();
        for (method, endpoints) in written.api {
            for (endpoint, value) in endpoints {
                let answers = if let Value::Array(answers) = value { answers } else { vec![value] };
                for answer in answers {
                    let recording = Recording::read(&method, &endpoint, answer)
                        .map_err(|why| complain(0, 0, format!("api.{method} \"{endpoint}\": {why}")))?;
                    recordings.push(recording);
                }
            }
        }
        let Written { nango, input, output, webhook, run, .. } = written;
        Ok(Mocks { recordings, nango, input, output, webhook, run })
    }

    /// The same with what is given by hand.
    pub fn with(mut self, given: Given) -> Mocks {
        self.run.now = given.now.or(self.run.now);
        self.run.seed = given.seed.unwrap_or(self.run.seed);
        self.input = given.input.or(self.input);
        self.webhook = given.webhook.or(self.webhook);
        for (member, value) in [("getCheckpoint", given.checkpoint), ("getMetadata", given.metadata)] {
            self.nango.extend(value.map(|value| (member.to_owned(), value)));
        }
        self
    }

    /// What begins the function of a place with what was recorded.
    pub fn invocation(&self, place: &Place, definition: &Definition) -> Invocation {
        let (kind, input, limits) = match (place.kind, &self.webhook) {
            (FunctionKind::Sync, Some(webhook)) => ("webhook", Some(webhook), Limits::WEBHOOK),
            (FunctionKind::Sync, None) => ("exec", None, Limits::EXEC),
            (FunctionKind::Action, _) => ("action", self.input.as_ref(), Limits::ACTION),
            (FunctionKind::OnEvent, _) => ("event", None, Limits::ACTION),
        };
        let mut about = json!({
            "kind": kind,
            "connectionId": CONNECTION,
            "providerConfigKey": place.source,
            "provider": place.source,
            "environmentName": "dev",
            "variant": "base",
            "syncName": place.name,
            "checkpoint": self.nango.get("getCheckpoint"),
        });
        if let Some(about) = about.as_object_mut() {
            about.extend(self.run.about.clone());
            about.extend(input.map(|input| ("input".to_owned(), input.clone())));
        }
        let recorded = || self.recordings.iter().filter_map(Recording::date).min().unwrap_or(NOW);
        Invocation {
            file: place.file.clone(),
            about: about.to_string(),
            models: definition.models.keys().cloned().collect(),
            limits: Limits { cpu: CPU, requests: REQUESTS, ..limits },
            now: Some(self.run.now.unwrap_or_else(recorded)),
            seed: self.run.seed,
        }
    }
}
