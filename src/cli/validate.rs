//! `syncline validate`: files only, no request. All complaints at once, each as `file:line:col code message`.

use super::exit::Fail;
use super::{CommonArgs, settings, show};
use crate::registry::definitions;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `validate`.
#[derive(clap::Args)]
pub(crate) struct ValidateArgs {
    /// Definition files [default: the settings and all definitions they name]
    files: Vec<PathBuf>,
}

/// Checks.
pub(crate) fn run(common: &CommonArgs, args: &ValidateArgs) -> Result<ExitCode, Fail> {
    let mut settings = settings::read(common, &[])?.settings;
    let found = if args.files.is_empty() {
        definitions::load(&settings)
    } else {
        settings.sources = args.files.iter().map(|file| file.display().to_string()).collect();
        definitions::load_some(&settings)
    };
    let found = found.map_err(crate::app::OpenError::from)?;
    for (name, definition) in found.all().iter() {
        let streams: Vec<&str> = definition.streams.iter().map(|s| s.name.as_str()).collect();
        let connections = definition.connections.len();
        show::line(&format!("{name}: ok; streams {}; {connections} connection(s)", streams.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
