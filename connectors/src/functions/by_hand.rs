//! What a person sets who runs a function by hand: its clock, its chance, and that it is written down.

use crate::http::Veil;
use crate::rest::RestSource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use syncline_engine::model::Timestamp;
use syncline_engine::model::secret::MASK;
use syncline_engine::source::{Connection, Failure};
use syncline_runtime::mocks::Recorder;
use syncline_runtime::wire::{Answer, Invocation, Request, Writes};

/// What is otherwise than in a run by schedule. By default nothing.
#[derive(Clone, Default)]
pub struct ByHand {
    /// The time that the code sees, which stands still then.
    pub now: Option<Timestamp>,
    /// Where its chance begins.
    pub seed: Option<u64>,
    /// Where the first execution is written down.
    pub recording: Option<Arc<Recording>>,
}

impl std::fmt::Debug for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByHand").field("now", &self.now).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// An execution, written down without the secrets of its connections.
#[derive(Default)]
pub struct Recording {
    recorder: Recorder,
    veil: Mutex<Veil>,
}

impl Recording {
    /// The file, once the execution has ended: what `mocks` read. An error is that it cannot be written without secrets.
    pub fn file(&self) -> Result<Value, Failure> {
        let file = self.recorder.file().ok_or_else(|| {
            Failure::lasting(
                "not_recorded",
                "nothing has run, or its answers are larger than 64 MiB: nothing is written",
            )
        })?;
        let whole = self.masked(&file.to_string());
        serde_json::from_str(&whole).map_err(|_| {
            let message =
                "a secret of the connection stands in an answer as a number, so the run cannot be written down";
            Failure::lasting("secret_number", message)
        })
    }

    pub(super) fn begin(&self, invocation: &Invocation, source: &RestSource, connection: &Connection) -> bool {
        let begun = self.recorder.begin(invocation, connection.metadata.clone());
        if begun {
            self.hide(source, connection);
            // Whether they were references to secrets nobody can tell any more.
            let mut veil = self.veil.lock();
            source.definition().functions.env.values().for_each(|value| veil.add(value));
        }
        begun
    }

    pub(super) fn forget(&self) {
        self.recorder.forget();
    }

    pub(super) fn asked(&self, request: &Request, source: &RestSource, connection: &Connection) -> usize {
        self.hide(source, connection);
        self.recorder.asked(request)
    }

    pub(super) fn answered(&self, number: usize, answer: &Answer) {
        let answer = match answer {
            Answer::Response { status, headers, body } => {
                let headers = headers.iter().map(|(name, value)| (name.clone(), self.masked(value))).collect();
                let body = match std::str::from_utf8(body) {
                    Ok(text) => self.masked(text).into_bytes(),
                    // Where a secret stands among bytes, it is not known how long the rest has to be.
                    Err(_) if self.masked(&String::from_utf8_lossy(body)).contains(MASK) => MASK.as_bytes().to_vec(),
                    Err(_) => body.clone(),
                };
                Answer::Response { status: *status, headers, body }
            }
            other => other.clone(),
        };
        self.recorder.answered(number, answer);
    }

    pub(super) fn member(&self, name: &str, answer: &Answer) {
        match (name, answer) {
            // Also those that are too short to be masked everywhere.
            ("getEnvironmentVariables", Answer::Json(json)) => {
                let mut all: Value = serde_json::from_slice(json).unwrap_or_default();
                for one in all.as_array_mut().into_iter().flatten() {
                    one["value"] = json!(MASK);
                }
                self.recorder.member(name, &Answer::json(&all));
            }
            _ => self.recorder.member(name, answer),
        }
    }

    pub(super) fn wrote(&self, writes: &Writes) {
        self.recorder.wrote(writes);
    }

    pub(super) fn ended(&self, output: Option<&str>) {
        self.recorder.ended(output);
    }

    fn hide(&self, source: &RestSource, connection: &Connection) {
        self.veil.lock().and(&source.veil(connection));
    }

    fn masked(&self, text: &str) -> String {
        self.veil.lock().masked(text)
    }
}
