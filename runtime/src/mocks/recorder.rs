//! The other way round: an execution against a provider, written down in the form that mocks are read in.
//!
//! Promises: one execution is written down, and none that it calls; what it was told of its connection, its clock and its
//! chance is part of it, so that a replay gives the same records. Does not: know secrets; whoever hands in answers masks them.

use super::recording::Asked;
use crate::wire::{Answer, Invocation, PageKind, Request, Writes};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Headers of answers that say how the bytes came, or that are a secret of the session.
const NOT_KEPT: [&str; 6] =
    ["connection", "content-encoding", "content-length", "keep-alive", "set-cookie", "transfer-encoding"];
/// Most bytes of answers and records that are kept: beyond them it is no recording that anybody reads.
const BYTES: usize = 64 << 20;
/// Members of the invocation that have a place of their own in the file, or none.
const NOT_TOLD: [&str; 3] = ["kind", "checkpoint", "input"];
/// Members that a replay answers by itself.
const PLAYED: [&str; 8] = [
    "getMetadata",
    "setMetadata",
    "updateMetadata",
    "releaseAllLocks",
    "releaseLock",
    "startSync",
    "triggerSync",
    "tryAcquireLock",
];

/// Writes down one execution.
#[derive(Default)]
pub struct Recorder {
    taken: Mutex<Option<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// `kind`, `connectionId`, …
    about: Map<String, Value>,
    now: Option<i64>,
    seed: u64,
    metadata: Value,
    /// In the order in which they were asked.
    requests: Vec<(Request, Option<Answer>)>,
    members: Map<String, Value>,
    /// What was written, by the member that wrote it and its model.
    rows: BTreeMap<&'static str, BTreeMap<String, Vec<Value>>>,
    output: Option<Value>,
    /// Of answers and records.
    bytes: usize,
}

impl Recorder {
    /// An execution begins; false if another one is written down already.
    pub fn begin(&self, invocation: &Invocation, metadata: Value) -> bool {
        let mut taken = self.taken.lock();
        if taken.is_some() {
            return false;
        }
        let about = serde_json::from_str(&invocation.about).unwrap_or_default();
        let (now, seed) = (invocation.now, invocation.seed);
        *taken = Some(Taken { about, now, seed, metadata, ..Taken::default() });
        true
    }

    /// Forgets it all: it is executed again.
    pub fn forget(&self) {
        *self.taken.lock() = None;
    }

    /// The function asks for something; what to name when it is answered.
    pub fn asked(&self, request: &Request) -> usize {
        self.with(|taken| {
            taken.requests.push((request.clone(), None));
            taken.requests.len() - 1
        })
    }

    /// What it was answered.
    pub fn answered(&self, number: usize, answer: Answer) {
        let bytes = if let Answer::Response { body, .. } = &answer { body.len() } else { 0 };
        self.with(|taken| {
            if let Some((_, answered)) = taken.room_for(bytes).and_then(|taken| taken.requests.get_mut(number)) {
                *answered = Some(answer);
            }
        });
    }

    /// What a member of the object answered. The first time counts: the file has one answer.
    pub fn member(&self, name: &str, answer: &Answer) {
        let Answer::Json(json) = answer else { return };
        let Ok(value) = serde_json::from_slice(json) else { return };
        if !PLAYED.contains(&name) {
            self.with(|taken| _ = taken.members.entry(name.to_owned()).or_insert(value));
        }
    }

    /// What it wrote.
    pub fn wrote(&self, writes: &Writes) {
        for page in &writes.pages {
            let member = match page.kind {
                PageKind::Save => "batchSave",
                PageKind::Patch => "batchUpdate",
                PageKind::Gone => "batchDelete",
            };
            if self.with(|taken| taken.room_for(page.bytes.len()).is_none()) {
                return;
            }
            let rows = page.iter().map(|(_, json)| serde_json::from_slice(json).unwrap_or(Value::Null));
            let rows: Vec<Value> = rows.collect();
            self.with(|taken| {
                taken.rows.entry(member).or_default().entry(page.model.clone()).or_default().extend(rows);
            });
        }
    }

    /// Its output, if it has one.
    pub fn ended(&self, output: Option<&str>) {
        self.with(|taken| taken.output = output.and_then(|output| serde_json::from_str(output).ok()));
    }

    /// The file; `None` if nothing began, or it would be larger than 64 MiB.
    pub fn file(&self) -> Option<Value> {
        self.with(|taken| (taken.bytes <= BYTES).then(|| taken.file()))
    }

    fn with<T: Default>(&self, act: impl FnOnce(&mut Taken) -> T) -> T {
        self.taken.lock().as_mut().map(act).unwrap_or_default()
    }
}

impl Taken {
    fn room_for(&mut self, bytes: usize) -> Option<&mut Taken> {
        self.bytes = self.bytes.saturating_add(bytes);
        (self.bytes <= BYTES).then_some(self)
    }

    fn file(&self) -> Value {
        let mut file = Map::new();
        let about: Map<String, Value> = self
            .about
            .iter()
            .filter(|(name, value)| !NOT_TOLD.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        file.insert("run".to_owned(), json!({"now": self.now, "seed": self.seed, "about": about}));
        let told = |name: &str| self.about.get(name).filter(|value| !value.is_null()).cloned();
        let input = if self.about.get("kind").is_some_and(|kind| kind == "webhook") { "webhook" } else { "input" };
        file.extend(told("input").map(|value| (input.to_owned(), value)));
        file.insert("nango".to_owned(), self.nango(told("checkpoint")).into());
        file.insert("api".to_owned(), self.api());
        file.extend(self.output.clone().map(|output| ("output".to_owned(), output)));
        Value::Object(file)
    }

    fn nango(&self, checkpoint: Option<Value>) -> Map<String, Value> {
        let mut nango = self.members.clone();
        let metadata = Some(&self.metadata).filter(|metadata| metadata.as_object().is_some_and(|all| !all.is_empty()));
        nango.extend(metadata.map(|metadata| ("getMetadata".to_owned(), metadata.clone())));
        nango.extend(checkpoint.map(|checkpoint| ("getCheckpoint".to_owned(), checkpoint)));
        nango.extend(self.rows.iter().map(|(member, models)| ((*member).to_owned(), json!(models))));
        nango
    }

    fn api(&self) -> Value {
        let mut api: BTreeMap<String, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
        for (request, answer) in &self.requests {
            // One that was not answered threw: without a recording it throws again.
            let Some(Answer::Response { status, headers, body }) = answer else { continue };
            let asked = Asked::of(request);
            let headers: Map<String, Value> = headers
                .iter()
                .filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect();
            let entry =
                json!({"response": response(body), "status": status, "headers": headers, "request": asked.recorded()});
            let (method, endpoint) = asked.place();
            api.entry(method).or_default().entry(endpoint).or_default().push(entry);
        }
        json!(api)
    }
}

/// A body so that reading it gives the same bytes, or the same JSON.
fn response(body: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(body) else { return json!({"type": "Buffer", "data": body}) };
    match serde_json::from_str::<Value>(text) {
        // An object that looks like bytes would be read as these.
        Ok(Value::Object(members)) if members.get("type").is_some_and(|kind| kind == "Buffer") => text.into(),
        Ok(json @ (Value::Object(_) | Value::Array(_))) => json,
        _ => text.into(),
    }
}
