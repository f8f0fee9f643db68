//! How a command ends: exit codes, and the one form of a complaint on the screen.
//!
//! Promises: a failure is one line with the cause and, where something can be done, one line with the next step. Codes are
//! those of `docs/cli.md`; scripts may rely on them.

use crate::app::OpenError;
use crate::engine::pipeline::Error;
use crate::ingest::poll::{RunError, SyncError};
use crate::server::BindError;
use std::io::Write;
use std::process::ExitCode;

/// Exit codes beside 0.
pub mod code {
    /// Something failed.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// A run ended with failed streams.
    pub const FAILED_STREAMS: u8 = 10;
    /// Deletes are held and need approval.
    pub const HELD: u8 = 11;
    /// Something this program depends on is not there (port, server).
    pub const UNAVAILABLE: u8 = 69;
    /// A bug.
    pub const INTERNAL: u8 = 70;
    /// The disk failed or has no room: what is acknowledged is kept, a restart reads it again.
    pub const DISK: u8 = 71;
    /// Files of the data folder are missing or damaged.
    pub const DAMAGED: u8 = 74;
    /// Try again later: the data folder is in use.
    pub const TEMPORARY: u8 = 75;
    /// A key or token was refused.
    pub const DENIED: u8 = 77;
    /// Bad settings or definition, newer data format.
    pub const CONFIG: u8 = 78;
    /// SIGINT.
    pub const INTERRUPTED: u8 = 130;
    /// SIGTERM.
    pub const TERMINATED: u8 = 143;
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// The exit code.
    pub code: u8,
    /// What went wrong; complaints about files have one line each.
    pub cause: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Fail {
    /// A failure with this code.
    pub fn new(code: u8, cause: impl Into<String>) -> Self {
        Fail { code, cause: cause.into(), hint: None }
    }

    /// With the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it to stderr and gives its code.
    pub fn end(&self) -> ExitCode {
        // Complaints about files begin with their place, so that editors can jump to it.
        let placed = self.cause.contains('\n') || self.code == code::CONFIG && looks_placed(&self.cause);
        let error = if placed { "" } else { "error: " };
        let hint = self.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        // Where this cannot be written, the code still says it.
        let _ = write!(std::io::stderr(), "{error}{}\n{hint}", self.cause);
        ExitCode::from(self.code)
    }
}

/// `file:line:col …`
fn looks_placed(text: &str) -> bool {
    let place = text.split_whitespace().next().unwrap_or_default();
    let mut parts = place.rsplit(':');
    let mut number = || parts.next().is_some_and(|p| p.parse::<u32>().is_ok());
    number() && number()
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let cause = error.to_string();
        match error {
            Error::Locked(_) => Fail::new(code::TEMPORARY, cause),
            Error::NewerFormat { .. } => Fail::new(code::CONFIG, cause),
            Error::Damaged(_) => Fail::new(code::DAMAGED, cause).hint(
                "nothing was changed. `syncline repair --dry-run` says what can be saved and what is lost, \
                 `syncline restore` puts back a backup",
            ),
            Error::Storage(_) | Error::Io { .. } | Error::Log(_) => Fail::new(code::FAILURE, cause)
                .hint("look at the disk that holds the data folder: space, rights, health"),
            Error::Poisoned(_) => Fail::new(code::DISK, cause)
                .hint("look at the disk that holds the data folder, then start again: everything acknowledged is kept"),
            Error::Full(_) => Fail::new(code::DISK, cause).hint(
                "free space on the disk that holds the data folder, then start again: everything acknowledged is kept",
            ),
            Error::Stopped => Fail::new(code::TEMPORARY, cause),
            _ => Fail::new(code::INTERNAL, cause),
        }
    }
}

impl From<SyncError> for Fail {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Engine(error) => error.into(),
            SyncError::Schedule(error) => Fail::new(code::CONFIG, error.to_string()),
            other => Fail::new(code::FAILURE, other.to_string()),
        }
    }
}

impl From<RunError> for Fail {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Engine(error) => error.into(),
            RunError::Busy(_) | RunError::Stopping => Fail::new(code::TEMPORARY, error.to_string()),
            other => Fail::new(code::FAILURE, other.to_string()),
        }
    }
}

impl From<OpenError> for Fail {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Program(why) => Fail::new(code::CONFIG, why),
            OpenError::Definitions(complaints) => Fail::new(code::CONFIG, complaints.to_string()),
            OpenError::Source(failure) => Fail::new(code::CONFIG, failure.to_string()),
            OpenError::Engine(error) => error.into(),
            OpenError::Syncs(error) => error.into(),
        }
    }
}

impl From<BindError> for Fail {
    fn from(error: BindError) -> Self {
        Fail::new(code::UNAVAILABLE, error.to_string())
            .hint("stop the other program, or set another address with --listen or `listen` in syncline.yaml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_failures_have_the_promised_codes() {
        assert_eq!(Fail::from(Error::Locked("/d".into())).code, 75);
        assert_eq!(Fail::from(Error::Damaged("x".into())).code, 74);
        assert_eq!(Fail::from(Error::NewerFormat { found: 2, known: 1 }).code, 78);
        assert_eq!(Fail::from(Error::Poisoned("EIO".into())).code, 71);
        assert_eq!(Fail::from(Error::Full("ENOSPC".into())).code, 71);
        assert_eq!(Fail::from(BindError::InUse("127.0.0.1:1".into())).code, 69);
    }

    #[test]
    fn places_are_recognised() {
        assert!(looks_placed("sources/a.yaml:3:7 unknown_key"));
        assert!(!looks_placed("port_in_use: another program listens on 127.0.0.1:80"));
    }
}
