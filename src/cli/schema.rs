//! `syncline schema`: what a definition file may say, for editors and other tools.

use super::exit::Fail;
use super::show;
use crate::connectors::definition::SCHEMA;
use std::process::ExitCode;

/// Prints.
pub(crate) fn run() -> Result<ExitCode, Fail> {
    show::line(SCHEMA.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
