//! Credentials as code sees them: handles that its requests turn back into secrets, or the values themselves where the definition
//! says so.
//!
//! A handle is of one execution. It is put back in a header, parameter or body of a request that is signed in, and nowhere else.

use crate::definition::FunctionRules;
use serde_json::{Map, Value};
use syncline_engine::source::Connection;
use syncline_engine::time::Chance;

/// What a handle begins with.
const MARK: &str = "secret-handle:";

/// The handles of one execution.
pub(super) struct Handles {
    /// Handle and secret.
    known: Vec<(String, String)>,
    shown: Map<String, Value>,
}

impl Handles {
    pub(super) fn new(rules: &FunctionRules, connection: &Connection, chance: &mut Chance) -> Handles {
        if rules.visible {
            return Handles { known: Vec::new(), shown: connection.credentials.clone() };
        }
        let mut known = Vec::new();
        let mut shown = Map::new();
        for (name, value) in &connection.credentials {
            let secret = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let handle = format!("{MARK}{name}:{:016x}", chance.number());
            known.push((handle.clone(), secret));
            shown.insert(name.clone(), handle.into());
        }
        Handles { known, shown }
    }

    /// The credentials as the code sees them.
    pub(super) fn shown(&self) -> &Map<String, Value> {
        &self.shown
    }

    /// A text of a request with the secrets in their places.
    pub(super) fn reveal(&self, text: String) -> String {
        if !text.contains(MARK) {
            return text;
        }
        self.known.iter().fold(text, |text, (handle, secret)| text.replace(handle, secret))
    }

    /// The same for a body; one that is no text holds no handles.
    pub(super) fn reveal_bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match String::from_utf8(bytes) {
            Ok(text) => self.reveal(text).into_bytes(),
            Err(bytes) => bytes.into_bytes(),
        }
    }
}
