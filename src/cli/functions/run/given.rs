//! What the command line gives a function.

use super::RunArgs;
use crate::engine::model::Timestamp;
use serde_json::Value;
use std::path::Path;
use syncline_runtime::mocks::Given;

/// Most bytes of a file that is given.
const BYTES: u64 = 16 << 20;

impl RunArgs {
    /// What replaces that of a recording.
    pub(super) fn given(&self) -> Given {
        Given {
            now: self.now.map(|now| now.0 / 1_000),
            seed: self.seed,
            checkpoint: self.checkpoint.clone(),
            metadata: self.metadata.clone(),
            input: self.input.clone(),
            webhook: self.webhook.clone(),
        }
    }
}

pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "write a time such as 2026-04-14T18:46:03Z".into())
}

pub(super) fn object(text: &str) -> Result<Value, String> {
    let value = json(text)?;
    if value.is_object() { Ok(value) } else { Err("write a JSON object such as {\"since\": \"2026-01-01\"}".into()) }
}

/// A file if there is one of this name, else JSON.
pub(super) fn input(text: &str) -> Result<Value, String> {
    if Path::new(text).is_file() {
        return file(text);
    }
    json(text).map_err(|why| format!("there is no such file, and it is no JSON: {why}"))
}

pub(super) fn file(name: &str) -> Result<Value, String> {
    let length = std::fs::metadata(name).map_err(|why| format!("it cannot be read: {why}"))?.len();
    if length > BYTES {
        return Err(format!("it has {length} bytes; at most {BYTES} are read"));
    }
    let text = std::fs::read_to_string(name).map_err(|why| format!("it cannot be read: {why}"))?;
    json(&text).map_err(|why| format!("it holds no JSON: {why}"))
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|why| why.to_string())
}
