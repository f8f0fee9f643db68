//! Why an action gave no output: a stable word, a message, and what the provider or the code said.

use serde_json::Value;
use syncline_engine::source::Failure;

/// Faults of code that have a word of their own; every other is a `script_error`.
const FAULTS: [&str; 12] = [
    "cpu_time",
    "output_too_large",
    "host_not_allowed",
    "invalid_metadata",
    "killed",
    "no_thread",
    "no_window",
    "out_of_memory",
    "request_failed",
    "stuck",
    "too_many_requests",
    "unsupported",
];

/// Why an action gave no output.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFailure {
    /// A stable word.
    pub code: &'static str,
    /// Where and why.
    pub message: String,
    /// Of an `ActionError` what it carries, of an answer of the provider its body.
    pub payload: Option<Value>,
}

impl ActionFailure {
    /// It threw an `ActionError`.
    pub const THROWN: &str = "action_script_runtime_error";
    /// The input does not fit its schema.
    pub const INPUT: &str = "invalid_action_input";
    /// The output does not fit its schema.
    pub const OUTPUT: &str = "invalid_action_output";
    /// The output is larger than one may be.
    pub const TOO_LARGE: &str = "output_too_large";
    /// The provider answered something else than 2xx, and it was not caught.
    pub const ANSWERED: &str = "script_http_error";
    /// The provider answered an error to a described action.
    pub const PROVIDER: &str = "provider_error";
    /// It took too long.
    pub const TIMEOUT: &str = "timeout";
    /// It was cut off and may have had effects.
    pub const UNKNOWN_OUTCOME: &str = "unknown_outcome";
    /// Actions within actions.
    pub const TOO_DEEP: &str = "too_deep";
    /// There is no such connection.
    pub const NO_CONNECTION: &str = "unknown_connection";
    /// There is no such action.
    pub const NO_ACTION: &str = "unknown_action";
    /// There are too many.
    pub const BUSY: &str = "too_many_actions";
    /// There is no such sync.
    pub const NO_SYNC: &str = "unknown_sync";
    /// The process that owns a connection cannot be asked.
    pub const NO_OWNER: &str = "owner_unreachable";
    /// A request was not answered, or could not be made: the message says why.
    pub const REQUEST: &str = "request_failed";

    /// Words that only actions have; runs have the others.
    const CODES: [&str; 13] = [
        Self::THROWN,
        Self::INPUT,
        Self::OUTPUT,
        Self::ANSWERED,
        Self::PROVIDER,
        Self::TIMEOUT,
        Self::UNKNOWN_OUTCOME,
        Self::TOO_DEEP,
        Self::NO_CONNECTION,
        Self::NO_ACTION,
        Self::BUSY,
        Self::NO_SYNC,
        Self::NO_OWNER,
    ];

    /// A word as it was stored.
    pub fn code_of(text: &str) -> &'static str {
        Self::CODES.iter().find(|known| **known == text).copied().unwrap_or_else(|| known(text))
    }

    /// Without a payload.
    pub fn new(code: &'static str, message: impl Into<String>) -> ActionFailure {
        ActionFailure { code, message: message.into(), payload: None }
    }
}

impl From<Failure> for ActionFailure {
    fn from(why: Failure) -> ActionFailure {
        ActionFailure::new(why.code, why.message)
    }
}

/// The word for what code threw.
pub(crate) fn known(code: &str) -> &'static str {
    FAULTS.iter().find(|known| **known == code).copied().unwrap_or("script_error")
}
