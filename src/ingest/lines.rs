//! What programs log: their lines stand in the program's log, with the sync they belong to.

use crate::engine::source::program::{LogLevel, LogLine};
use std::fmt::Display;

/// Writes a line of a sync.
pub(super) fn logged(sync: &dyn Display, line: &LogLine) {
    let text = &line.text;
    match line.level {
        LogLevel::Error => tracing::error!(%sync, line = text, "function"),
        LogLevel::Warn => tracing::warn!(%sync, line = text, "function"),
        LogLevel::Info => tracing::info!(%sync, line = text, "function"),
        LogLevel::Debug => tracing::debug!(%sync, line = text, "function"),
    }
}
