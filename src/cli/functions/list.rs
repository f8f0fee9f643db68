//! `syncline functions list`: what functions there are, and what they declare.

use super::super::{exit::Fail, show};
use super::Folder;
use serde_json::json;
use std::process::ExitCode;
use syncline_runtime::Function;
use syncline_runtime::compile::FunctionKind;

/// Arguments of `list`.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object a line, with all that a function declares
    #[arg(long)]
    json: bool,
}

/// Lists.
pub(super) fn run(args: &ListArgs) -> Result<ExitCode, Fail> {
    let functions = args.folder.load()?;
    if args.json {
        for Function { place, definition } in &functions.all {
            show::line(&json!({"source": place.source, "kind": kind(place.kind), "name": place.name, "file": place.file, "definition": definition}).to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = functions.all.iter().map(|function| row(&args.folder, function)).collect();
    show::table(&["SOURCE", "KIND", "NAME", "FREQUENCY", "MODELS", "FILE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(folder: &Folder, Function { place, definition }: &Function) -> Vec<String> {
    let models: Vec<&str> = definition.models.keys().map(String::as_str).collect();
    vec![
        place.source.clone(),
        kind(place.kind).to_owned(),
        place.name.clone(),
        definition.frequency.clone().unwrap_or_default(),
        models.join(", "),
        folder.shown(&place.file),
    ]
}

/// As people say it.
fn kind(kind: FunctionKind) -> &'static str {
    match kind {
        FunctionKind::Sync => "sync",
        FunctionKind::Action => "action",
        FunctionKind::OnEvent => "event",
    }
}
