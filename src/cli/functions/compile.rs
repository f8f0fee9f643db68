//! `syncline functions compile`: files only, no request. All complaints at once, each as `file:line:col code message`.

use super::super::{exit::Fail, show};
use super::{Folder, counted};
use std::process::ExitCode;
use std::time::Instant;

/// Compiles and loads.
pub(super) fn run(folder: &Folder) -> Result<ExitCode, Fail> {
    let began = Instant::now();
    let functions = folder.load()?;
    let (all, sources) = (counted(functions.all.len(), "function"), counted(functions.sources().len(), "source"));
    show::line(&format!("{all} of {sources} in {} ms", began.elapsed().as_millis()))?;
    Ok(ExitCode::SUCCESS)
}
