//! What is said between a function and its host. The same types serve a sandbox in this process and one in a worker process.
//!
//! ```text
//! host ── Invocation ──► function          begins it
//! function ── Call ──► host                asks for something; what was written before travels with it
//! host ── Answer ──► function              to one call
//! function ── Ended ──► host               its end; what was written last travels with it
//! ```
//!
//! Promises: writes keep their order; a call is answered once; bytes of records and answers are never looked into on the way.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most bytes of records that a function writes before the host has to take them.
pub const STEP_BYTES: usize = 8 << 20;
/// Most records of the same.
pub const STEP_RECORDS: usize = 10_000;
/// Longest time of the same, in milliseconds.
pub const STEP_MILLIS: i64 = 20;

/// What begins: one function, for one connection, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invocation {
    /// The module of the function.
    pub file: String,
    /// JSON that the `nango` object is made of: `kind` (`exec`, `webhook`, `action`, `event`), `connectionId`,
    /// `providerConfigKey`, `environmentName`, `variant`, `syncName`, `lastSyncDate`, `checkpoint`, `input`, `paginate`.
    pub about: String,
    /// The models it may write. A write to another is an error of the function.
    pub models: Vec<String>,
    /// What it may use up.
    pub limits: Limits,
    /// The time it sees, in milliseconds since 1970; `None` for the host's as it goes.
    pub now: Option<i64>,
    /// Where its chance begins.
    pub seed: u64,
}

/// What one invocation may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of its heap.
    pub memory: usize,
    /// Bytes of its stack.
    pub stack: usize,
    /// Time on the processor between two calls of the host.
    pub cpu_step: Duration,
    /// Time on the processor in all.
    pub cpu: Duration,
    /// Requests in all.
    pub requests: u32,
    /// Calls that wait for an answer at one time.
    pub open: usize,
    /// Log lines; more are counted and left out.
    pub lines: u32,
    /// Bytes of one log line; the rest is cut.
    pub line: usize,
    /// Bytes of the output of an action.
    pub output: usize,
}

impl Limits {
    /// Of `exec` of a sync.
    pub const EXEC: Limits = Limits {
        memory: 128 << 20,
        stack: 512 << 10,
        cpu_step: Duration::from_secs(30),
        cpu: Duration::from_secs(600),
        requests: 100_000,
        open: 16,
        lines: 10_000,
        line: 64 << 10,
        output: 0,
    };

    /// Of `onWebhook` of a sync.
    pub const WEBHOOK: Limits = Limits {
        memory: 64 << 20,
        cpu_step: Duration::from_secs(10),
        cpu: Duration::from_secs(60),
        requests: 1_000,
        lines: 1_000,
        ..Limits::EXEC
    };

    /// Of actions and events.
    pub const ACTION: Limits = Limits { output: 2 << 20, ..Limits::WEBHOOK };
}

/// What a function asks its host for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Names the call within its invocation.
    pub id: u32,
    /// What was written before it.
    pub writes: Writes,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Take what was written. Answered with [`Answer::Done`] once there is room for more.
    Flush,
    /// A request to the provider. Answered with [`Answer::Response`].
    Request(Request),
    /// Ends the step: the checkpoint (JSON of a flat object; `None` clears it) is durable with what was written before it.
    Checkpoint(Option<String>),
    /// What was not seen since the window of a model was opened is gone. Answered with JSON: an array of ids.
    CloseWindow {
        /// The model.
        model: String,
    },
    /// Records by their ids, as JSON: an array of records.
    Records {
        /// The model.
        model: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// A page of records: `{"records": […], "next": "cursor" | null}`.
    List {
        /// The model.
        model: String,
        /// After which record; `None` from the beginning.
        after: Option<String>,
    },
    /// Answered with [`Answer::Done`] after so many milliseconds.
    Sleep {
        /// Milliseconds.
        millis: u64,
    },
    /// Another member of the `nango` object, with the JSON array of its arguments. Answered with JSON.
    Member {
        /// Its name.
        name: String,
        /// Its arguments.
        arguments: String,
    },
}

/// A request to the provider, before sign-in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// A path, or a whole address where the host allows it.
    pub endpoint: String,
    /// Of the query, in order.
    pub params: Vec<(String, String)>,
    /// With names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body as it is.
    #[serde(with = "serde_bytes")]
    pub body: Option<Vec<u8>>,
    /// Instead of the connection's base address.
    pub base: Option<String>,
    /// How often it is tried again.
    pub retries: Option<u32>,
    /// Statuses that are tried again beside the source's own.
    pub retry_on: Vec<u16>,
    /// Another source than the function's, with its connection.
    pub source: Option<String>,
    /// Another connection than the function's.
    pub connection: Option<String>,
    /// Without sign-in, to any public address.
    pub bare: bool,
}

/// What the host answers to one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done, and there is nothing to tell.
    Done,
    /// A value, as JSON.
    Json(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What the provider answered, whatever its status.
    Response {
        /// The status.
        status: u16,
        /// Names in small letters; of several equal ones the values are joined by `, `.
        headers: Vec<(String, String)>,
        /// The body, decompressed.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// It could not be done: the call throws.
    Failed {
        /// One of a fixed list.
        code: String,
        /// What went wrong, in a sentence.
        message: String,
        /// JSON of the payload where the error is an `ActionError`.
        payload: Option<String>,
    },
}

impl Answer {
    /// A value.
    pub fn json(value: &serde_json::Value) -> Answer {
        Answer::Json(value.to_string().into_bytes())
    }

    /// An error without a payload.
    pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Answer {
        Answer::Failed { code: code.into(), message: message.into(), payload: None }
    }
}

/// What was written since the last call, in order. All of it is one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Writes {
    /// Windows to open before the pages.
    pub windows: Vec<String>,
    /// The merging strategy of a model from here on.
    pub strategies: Vec<(String, String)>,
    /// Records.
    pub pages: Vec<Page>,
    /// Log lines.
    pub lines: Vec<Line>,
    /// A write was refused since the last call: the function threw, and may have caught it.
    pub refused: bool,
}

impl Writes {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Writes::default()
    }
}

/// What is done with the rows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageKind {
    /// Whole records: JSON whose first member is `id`, as text.
    Save,
    /// Some fields, to be merged deeply.
    Patch,
    /// They are gone. The JSON holds what was given beside the id.
    Gone,
}

/// Records of one model, packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The model.
    pub model: String,
    /// What is done with them.
    pub kind: PageKind,
    /// For each record its id, then its JSON, without anything in between.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Lengths of the two.
    pub rows: Vec<(u32, u32)>,
}

impl Page {
    /// Each row: its id, its JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut from = 0;
        self.rows.iter().filter_map(move |&(id, json)| {
            let (middle, end) = (from + id as usize, from + id as usize + json as usize);
            let row = (self.bytes.get(from..middle)?, self.bytes.get(middle..end)?);
            from = end;
            Some(row)
        })
    }
}

/// A line that a function logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// What it says.
    pub text: String,
    /// Milliseconds since 1970, as the function saw it.
    pub at: i64,
}

/// The end of an invocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// What was written since the last call.
    pub writes: Writes,
    /// The output as JSON, if there is one; or why it failed.
    pub result: Result<Option<String>, Fault>,
    /// Time on the processor.
    pub cpu: Duration,
}

/// Why an invocation failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// One of a fixed list: `script_error` unless something else is known.
    pub code: String,
    /// The error's name and message.
    pub message: String,
    /// Where it was thrown and from where that was called, in files of the folder, innermost first.
    pub frames: Vec<Frame>,
    /// Of an `ActionError`: its type and the JSON of its payload.
    pub payload: Option<Box<(String, String)>>,
    /// Of an answer that was not 2xx: its status and the JSON of its body.
    pub answer: Option<Box<(u16, String)>>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(first) = self.frames.first() {
            write!(f, "{}:{}:{} ", first.file, first.line, first.column)?;
        }
        write!(f, "{}", self.message)?;
        for frame in self.frames.iter().skip(1) {
            write!(f, "\n    at {}{}:{}:{}", frame.function_before(), frame.file, frame.line, frame.column)?;
        }
        Ok(())
    }
}

/// One place of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Path within the folder of functions.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// The function's name, if it has one.
    pub function: String,
}

impl Frame {
    fn function_before(&self) -> String {
        match self.function.as_str() {
            "" | "<anonymous>" => String::new(),
            name => format!("{name} "),
        }
    }
}
