//! The other side of a sandbox, played by recordings.

use super::recording::{Asked, hashes};
use super::{CONNECTION, Mocks};
use crate::compile::Modules;
use crate::sandbox::{Said, Sandbox};
use crate::wire::{Answer, Ask, Ended, Fault, Invocation, Line, PageKind, Request, Writes};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Most recordings that are named where none fits.
const NEAREST: usize = 3;

/// What a function did.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Its end.
    pub ended: Ended,
    /// Records that it saved, by model, in order.
    pub saved: BTreeMap<String, Vec<Value>>,
    /// Records that it patched.
    pub patched: BTreeMap<String, Vec<Value>>,
    /// Records that it deleted.
    pub deleted: BTreeMap<String, Vec<Value>>,
    /// What is there of each model in the end, by id.
    pub records: BTreeMap<String, BTreeMap<String, Value>>,
    /// What it logged.
    pub lines: Vec<Line>,
    /// Its last checkpoint; `None` if it saved none, or cleared it.
    pub checkpoint: Option<Value>,
    /// How many requests it made.
    pub requests: usize,
    /// Requests that were not recorded, each with the nearest ones that were.
    pub unmatched: Vec<String>,
}

/// What one play came to.
enum Played {
    Ended(Box<Replay>),
    /// The recording's clock was ahead by so many milliseconds.
    Behind(i64),
}

/// Runs a function to its end. An error is that there was no memory to begin.
pub fn run(modules: Arc<Modules>, mut invocation: Invocation, mocks: &Mocks) -> Result<Replay, Fault> {
    let mut clock_is_right = invocation.now.is_none() || mocks.run.now.is_some();
    loop {
        match play(modules.clone(), invocation.clone(), Host { clock_is_right, ..Host::new(mocks) })? {
            Played::Ended(replay) => return Ok(*replay),
            Played::Behind(by) => invocation.now = invocation.now.map(|now| now.saturating_add(by)),
        }
        clock_is_right = true;
    }
}

fn play(modules: Arc<Modules>, invocation: Invocation, mut host: Host<'_>) -> Result<Played, Fault> {
    let (mut sandbox, said) = Sandbox::begin(modules, invocation)?;
    let mut waiting = VecDeque::from(said);
    while let Some(said) = waiting.pop_front() {
        match said {
            Said::Call(call) => {
                host.take(call.writes);
                let answer = host.answer(call.ask);
                if let Some(by) = host.behind {
                    return Ok(Played::Behind(by));
                }
                waiting.extend(sandbox.answer(call.id, answer));
            }
            Said::Ended(mut ended) => {
                host.take(std::mem::take(&mut ended.writes));
                return Ok(Played::Ended(Box::new(host.replay(ended))));
            }
        }
    }
    // A sandbox that waits for nothing ends by itself.
    Err(Fault { code: "stuck".into(), message: "the function waits for nothing".into(), ..Fault::default() })
}

struct Host<'a> {
    mocks: &'a Mocks,
    /// Which recordings have answered.
    used: Vec<bool>,
    /// What was written, by kind of page and model.
    rows: BTreeMap<u8, BTreeMap<String, Vec<Value>>>,
    /// What is live of each model, by id.
    records: BTreeMap<String, BTreeMap<String, Value>>,
    lines: Vec<Line>,
    checkpoint: Option<Value>,
    metadata: Map<String, Value>,
    locks: BTreeSet<String>,
    requests: usize,
    unmatched: Vec<String>,
    /// The clock was put right, or is nobody's to set.
    clock_is_right: bool,
    /// By how much the clock is behind the recorded one, once a request showed it.
    behind: Option<i64>,
}

impl<'a> Host<'a> {
    fn new(mocks: &'a Mocks) -> Host<'a> {
        let recorded = |member: &str| mocks.nango.get(member);
        let of_connection = || recorded("getConnection").and_then(|connection| connection.get("metadata"));
        let metadata = recorded("getMetadata").or_else(of_connection).and_then(Value::as_object).cloned();
        Host {
            mocks,
            used: vec![false; mocks.recordings.len()],
            rows: BTreeMap::new(),
            records: BTreeMap::new(),
            lines: Vec::new(),
            checkpoint: recorded("getCheckpoint").filter(|checkpoint| checkpoint.is_object()).cloned(),
            metadata: metadata.unwrap_or_default(),
            locks: BTreeSet::new(),
            requests: 0,
            unmatched: Vec::new(),
            clock_is_right: false,
            behind: None,
        }
    }

    fn replay(mut self, ended: Ended) -> Replay {
        let mut rows = |kind: PageKind| self.rows.remove(&(kind as u8)).unwrap_or_default();
        Replay {
            saved: rows(PageKind::Save),
            patched: rows(PageKind::Patch),
            deleted: rows(PageKind::Gone),
            ended,
            records: self.records,
            lines: self.lines,
            checkpoint: self.checkpoint,
            requests: self.requests,
            unmatched: self.unmatched,
        }
    }

    /// Takes what was written.
    fn take(&mut self, writes: Writes) {
        self.lines.extend(writes.lines);
        for page in writes.pages {
            for (id, json) in page.iter() {
                let id = String::from_utf8_lossy(id).into_owned();
                let row: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
                let live = self.records.entry(page.model.clone()).or_default();
                match page.kind {
                    PageKind::Save => {
                        live.insert(id, row.clone());
                    }
                    PageKind::Patch => {
                        live.entry(id).and_modify(|record| merge(record, &row));
                    }
                    PageKind::Gone => {
                        live.remove(&id);
                    }
                }
                self.rows.entry(page.kind as u8).or_default().entry(page.model.clone()).or_default().push(row);
            }
        }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Flush | Ask::Sleep { .. } => Answer::Done,
            Ask::Request(request) => self.request(&request),
            Ask::Checkpoint(checkpoint) => {
                self.checkpoint = checkpoint.and_then(|json| serde_json::from_str(&json).ok());
                Answer::Done
            }
            // There were no records before this run, so none of them is gone.
            Ask::CloseWindow { .. } => Answer::json(&json!([])),
            Ask::Records { model, ids } => {
                let live = self.records.get(&model);
                Answer::json(&ids.iter().filter_map(|id| live?.get(id).cloned()).collect())
            }
            Ask::List { model, .. } => {
                let records: Vec<&Value> = self.records.get(&model).into_iter().flat_map(BTreeMap::values).collect();
                Answer::json(&json!({"records": records, "next": null}))
            }
            Ask::Member { name, arguments } => {
                let arguments: Vec<Value> = serde_json::from_str(&arguments).unwrap_or_default();
                self.member(&name, &arguments)
            }
        }
    }

    /// The recording that fits best; of several the first that has not answered yet, and the last one again when all have.
    fn request(&mut self, request: &Request) -> Answer {
        self.requests += 1;
        let asked = Asked::of(request);
        let hashes = hashes(request, &asked);
        let fitting = self.mocks.recordings.iter().zip(&self.used).enumerate();
        let best = fitting
            .filter_map(|(at, (recording, &used))| Some((recording.fits(&asked, &hashes)?, !used, at)))
            .max_by_key(|&(fit, fresh, at)| (fit, fresh, if fresh { Reverse(at) } else { Reverse(usize::MAX - at) }));
        let found = best.and_then(|(_, _, at)| Some((self.mocks.recordings.get(at)?, self.used.get_mut(at)?)));
        if let Some((recording, used)) = found {
            *used = true;
            return recording.answer();
        }
        if !self.clock_is_right {
            self.behind = self.mocks.recordings.iter().find_map(|recording| recording.ahead(&asked));
        }
        let message = format!("{asked} was not recorded{}", self.nearest(&asked));
        self.unmatched.push(message.clone());
        Answer::failed("not_recorded", message)
    }

    fn nearest(&self, asked: &Asked) -> String {
        let mut nearest: Vec<_> = self.mocks.recordings.iter().collect();
        nearest.sort_by_key(|recording| recording.distance(asked));
        let told: Vec<String> = nearest.into_iter().take(NEAREST).map(|recording| recording.told(asked)).collect();
        match told.is_empty() {
            true => "; the file has no recorded answers".to_owned(),
            false => format!("; nearest are: {}", told.join("; ")),
        }
    }

    /// Another member of the object: as recorded, or as it is with a new connection.
    fn member(&mut self, name: &str, arguments: &[Value]) -> Answer {
        let first = arguments.first().unwrap_or(&Value::Null);
        let key = first.get("key").and_then(Value::as_str).unwrap_or_default();
        match name {
            "setMetadata" => self.metadata = first.as_object().cloned().unwrap_or_default(),
            "updateMetadata" => self.metadata.extend(first.as_object().cloned().unwrap_or_default()),
            "getMetadata" => return Answer::json(&Value::Object(self.metadata.clone())),
            "tryAcquireLock" => return Answer::json(&self.locks.insert(key.to_owned()).into()),
            "releaseLock" => return Answer::json(&self.locks.remove(key).into()),
            "releaseAllLocks" => self.locks.clear(),
            "triggerSync" | "startSync" => {}
            _ => return self.recorded(name),
        }
        Answer::json(&Value::Null)
    }

    fn recorded(&self, name: &str) -> Answer {
        let value = match (self.mocks.nango.get(name), name) {
            (Some(recorded), _) => recorded.clone(),
            (None, "getConnection") => json!({
                "connection_id": CONNECTION,
                "connection_config": {},
                "credentials": {},
                "metadata": self.metadata,
            }),
            (None, "getWebhookURL" | "getEnvironmentVariables") => Value::Null,
            (None, _) => {
                let message =
                    format!("nango.{name} was not recorded: add `nango.{name}` to the file, with what it answers");
                return Answer::failed("not_recorded", message);
            }
        };
        Answer::json(&value)
    }
}

/// Merges objects deeply; everything else is replaced.
fn merge(record: &mut Value, patch: &Value) {
    match (record, patch) {
        (Value::Object(record), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(record.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (record, patch) => *record = patch.clone(),
    }
}
