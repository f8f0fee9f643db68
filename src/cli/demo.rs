//! `syncline demo`.

use super::exit::{Fail, code};
use std::process::ExitCode;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the demo.
pub(crate) fn run(_args: Args) -> ExitCode {
    Fail::new(code::FAILURE, "the demo is not part of this build").end()
}
