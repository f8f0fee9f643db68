//! A function against recorded answers: no network, no source file, and the same lines on every machine.

use super::super::super::exit::{Fail, code};
use super::super::super::show;
use super::super::counted;
use super::{RunArgs, folder, name, refused};
use crate::config::Settings;
use crate::registry::functions;
use std::path::Path;
use std::process::ExitCode;
use syncline_runtime::compile::FunctionKind;
use syncline_runtime::mocks::{self, Mocks, Replay};
use syncline_runtime::wire::{Fault, Line};
use syncline_runtime::{Complaint, Function};

pub(super) fn run(settings: &Settings, args: &RunArgs, file: &Path) -> Result<ExitCode, Fail> {
    let folder = folder(settings)?;
    let refused_at = |complaints: &[Complaint]| {
        let lines: Vec<String> = complaints.iter().map(|complaint| functions::line(&folder, complaint)).collect();
        Fail::new(code::CONFIG, lines.join("\n"))
    };
    let functions = functions::load(&folder).map_err(|complaints| refused_at(&complaints))?;
    let fitting: Vec<&Function> = functions.all.iter().filter(|function| args.fits(function)).collect();
    let found = fitting.iter().filter(|function| args.names(function)).map(|function| (name(function), *function));
    let function = args.one(found.collect(), fitting.iter().map(|function| name(function)).collect())?;
    let text = std::fs::read_to_string(file)
        .map_err(|error| Fail::new(code::CONFIG, format!("{} cannot be read: {error}", file.display())))?;
    let mocks = Mocks::parse(&file.display().to_string(), &text)
        .map_err(|complaint| Fail::new(code::CONFIG, functions::line(Path::new(""), &complaint)))?
        .with(args.given());
    let invocation = mocks.invocation(&function.place, &function.definition);
    let replay = mocks::run(functions.modules.clone(), invocation, &mocks)
        .map_err(|fault| Fail::new(code::FAILURE, fault.to_string()))?;
    replay.lines.iter().for_each(|line| logged(function, line));
    replay.unmatched.iter().for_each(|why| tracing::warn!("{why}"));
    match function.place.kind {
        FunctionKind::Action | FunctionKind::OnEvent => called(&replay),
        FunctionKind::Sync => sync(args, function, &replay),
    }
}

fn called(replay: &Replay) -> Result<ExitCode, Fail> {
    match &replay.ended.result {
        Ok(output) => {
            show::line(output.as_deref().unwrap_or("null"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            let payload = fault.payload.as_deref().map(|(_, json)| serde_json::from_str(json).unwrap_or_default());
            refused(word(fault), &fault.to_string(), payload)
        }
    }
}

/// What a server would call it.
fn word(fault: &Fault) -> &str {
    fault.payload.as_deref().map_or(fault.code.as_str(), |(kind, _)| kind)
}

fn sync(args: &RunArgs, function: &Function, replay: &Replay) -> Result<ExitCode, Fail> {
    for model in function.definition.models.keys() {
        let records = replay.records.get(model);
        show::line(&format!("{model} {}", records.map_or(0, |records| records.len())))?;
        let first = records.into_iter().flat_map(|records| records.values()).take(args.records);
        first.into_iter().try_for_each(|record| show::line(&format!("  {record}")))?;
    }
    if let Some(checkpoint) = &replay.checkpoint {
        show::line(&format!("checkpoint {checkpoint}"))?;
    }
    let rows = |rows: &std::collections::BTreeMap<String, Vec<_>>| -> usize { rows.values().map(Vec::len).sum() };
    let how = if replay.ended.result.is_ok() { "complete" } else { "FAILED" };
    show::line(&format!(
        "{}: {how} (recorded answers, nothing kept), {} saved, {} patched, {} deleted; {}",
        name(function),
        rows(&replay.saved),
        rows(&replay.patched),
        rows(&replay.deleted),
        counted(replay.requests, "request"),
    ))?;
    let Err(fault) = &replay.ended.result else { return Ok(ExitCode::SUCCESS) };
    show::line(&format!("  {}: {}", fault.code, fault.to_string().replace('\n', "\n  ")))?;
    Ok(ExitCode::from(code::FAILED_STREAMS))
}

fn logged(function: &Function, line: &Line) {
    let (sync, line, level) = (name(function), &line.text, line.level.as_str());
    match level {
        "error" => tracing::error!(sync, line, "function"),
        "warn" => tracing::warn!(sync, line, "function"),
        "debug" => tracing::debug!(sync, line, "function"),
        _ => tracing::info!(sync, line, "function"),
    }
}
