//! Programs: syncs whose code is in control of its own run.
//!
//! A [`Source`](super::Source) answers with the page after a bookmark, and the driver does the rest. A [`Program`] holds the loop
//! itself: it asks the outside in its own way, and hands over what it found, of several models, through an [`Outlet`].
//!
//! ```text
//! Program ── small calls ──► Outlet ── steps, calls ──► Inlet ──► the driver (`pipeline::run::program`): one step, one commit
//! ```
//!
//! What is written between two requests is one [`Step`] and becomes visible as one. Promises: steps take effect in the order in
//! which they were handed over; a checkpoint becomes durable together with the step that it ends, never ahead of a record that
//! was saved before it. At most [`STEPS_ON_THEIR_WAY`] steps are on their way; then the closing call waits.
//! Does not: check what a record is. Ids and objects are the caller's to check, a row that is no record is refused by the engine.

mod inlet;
mod outlet;
mod step;

pub use inlet::{Answer, Call, Handed, HandedStep, Inlet, StepRoom, channel};
pub use outlet::{Outlet, RecordPage};
pub use step::{
    CHECKPOINT_BYTES_MAX, LogLevel, LogLine, Requests, STEP_AGE, STEP_BYTES, STEP_RECORDS, STEPS_ON_THEIR_WAY, Step,
    StepBody, StepModel, StepRecord,
};

use super::{Connection, Failure};
use crate::model::Timestamp;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::sync::Arc;

/// Code that is in control of its own run, and hands over what it found step by step.
///
/// It may be dropped at any await: the process stops, or somebody cancels the run. What was handed over stays; the next execution
/// begins at the last checkpoint. An answer of the outlet that is an error is to be returned, unless the program knows better:
/// after a failure of the engine every further call fails alike.
///
/// ```
/// use syncline_engine::source::{Failure, program::*};
///
/// /// Counts on, ten numbers a step.
/// struct Numbers;
///
/// #[async_trait::async_trait]
/// impl Program for Numbers {
///     async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
///         let known = ask.checkpoint.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
///         for n in known.unwrap_or(0)..20 {
///             out.save("Number", &n.to_string(), format!("{{\"id\":\"{n}\"}}").as_bytes()).await?;
///             if n % 10 == 9 {
///                 out.save_checkpoint(Some((n + 1).to_string().into())).await?;
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Program: Send + Sync + 'static {
    /// One execution, from the checkpoint to the end. An error ends the run as failed; what was handed over before it stays.
    async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure>;

    /// A name of what it is at present, for the record of a run: a hash of its code, for example. Nothing by default.
    fn version(&self) -> String {
        String::new()
    }

    /// Takes an event that the outside pushed. All it writes is one commit together with the event's end; an error leaves nothing
    /// of it, and the event is tried again. It has a checkpoint of its own, no window of deletes, and may run beside [`run`](Program::run).
    async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        let _ = out;
        Err(Failure::lasting("unsupported", format!("the sync {} takes no events", ask.sync)))
    }
}

/// A program that is shared is a program.
#[async_trait]
impl<P: Program + ?Sized> Program for Arc<P> {
    async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        (**self).run(ask, out).await
    }

    fn version(&self) -> String {
        (**self).version()
    }

    async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        (**self).event(ask, out).await
    }
}

/// What a program is told when it begins.
#[derive(Clone, Debug)]
pub struct ProgramAsk {
    /// Name of the sync.
    pub sync: String,
    /// Models it may write, by name.
    pub models: Vec<String>,
    /// The account it works for.
    pub connection: Arc<Connection>,
    /// `base` or another configuration of the same sync.
    pub variant: String,
    /// What kind of run it is.
    pub kind: RunKind,
    /// Number of the run; it stays the same when an interrupted run is executed again.
    pub run: u64,
    /// When the run began, by our clock.
    pub started_at: Timestamp,
    /// Start of the last run that came to its end, if there was one.
    pub last_success: Option<Timestamp>,
    /// What was saved last; `None` begins anew.
    pub checkpoint: Option<Bytes>,
}

/// What a program is told of an event.
#[derive(Clone, Debug)]
pub struct EventAsk {
    /// Name of the sync.
    pub sync: String,
    /// Models it may write, by name.
    pub models: Vec<String>,
    /// The account it works for.
    pub connection: Arc<Connection>,
    /// `base` or another configuration of the same sync.
    pub variant: String,
    /// The event, as whoever drives the program keeps it.
    pub event: Bytes,
    /// Number of the request that brought it; the same when it is executed again.
    pub number: u64,
    /// When it came, by our clock.
    pub received_at: Timestamp,
    /// What an earlier event saved last.
    pub checkpoint: Option<Bytes>,
}

/// What kind of run it is, for notices and for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunKind {
    /// The first that comes to its end.
    Initial,
    /// It has a checkpoint to begin at.
    Incremental,
    /// From the beginning once more.
    Full,
}

impl RunKind {
    /// `INITIAL`, `INCREMENTAL`, `FULL`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunKind::Initial => "INITIAL",
            RunKind::Incremental => "INCREMENTAL",
            RunKind::Full => "FULL",
        }
    }
}

impl FromStr for RunKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [RunKind::Initial, RunKind::Incremental, RunKind::Full];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| format!("{text:?} is no kind of run; kinds are INITIAL, INCREMENTAL and FULL"))
    }
}
