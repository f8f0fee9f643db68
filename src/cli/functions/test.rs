//! `syncline functions test`: each function against the answers recorded in `SOURCE/tests/NAME.test.json`.
//!
//! A test is equal or it differs; the first difference of each model is told. What is saved here is saved nowhere.

use super::super::{exit::Fail, exit::code, show};
use super::{Folder, counted};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use syncline_runtime::mocks::{self, Mocks, Replay};
use syncline_runtime::{Complaint, Function, Functions};

/// The end of the name of a recording.
const ENDING: &str = ".test.json";

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only functions whose SOURCE/NAME holds this text
    filter: Option<String>,
    #[command(flatten)]
    folder: Folder,
}

/// What became of a test.
enum Verdict {
    Equal(Replay),
    Differs(Vec<String>),
    /// There is no recording.
    Absent,
}

/// Tests.
pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Fail> {
    let functions = args.folder.load()?;
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|filter| name.contains(filter));
    let (mut equal, mut differ, mut absent) = (0, 0, 0);
    for function in functions.all.iter().filter(|function| wanted(&name(function))) {
        match verdict(&args.folder, &functions, function)? {
            Verdict::Equal(replay) => {
                equal += 1;
                show::line(&format!("ok       {}: {}", name(function), told(&replay)))?;
            }
            Verdict::Differs(differences) => {
                differ += 1;
                show::line(&format!("differs  {}", name(function)))?;
                for difference in differences {
                    show::line(&format!("         {}", difference.replace('\n', "\n         ")))?;
                }
            }
            Verdict::Absent => absent += 1,
        }
    }
    for file in orphans(&args.folder, &functions)?.iter().filter(|file| wanted(file)) {
        differ += 1;
        show::line(&format!("differs  {}: there is no function of this name", args.folder.shown(file)))?;
    }
    if equal + differ + absent == 0 {
        return Err(Fail::new(code::USAGE, "no function has this text in its name")
            .hint("`syncline functions list` shows their sources and names; the text is part of SOURCE/NAME"));
    }
    show::line(&format!("{equal} ok, {differ} differ, {absent} without a recording"))?;
    Ok(if differ == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::FAILURE) })
}

fn name(function: &Function) -> String {
    format!("{}/{}", function.place.source, function.place.name)
}

/// The recording of a function, within the folder.
fn recording(function: &Function) -> String {
    format!("{}/tests/{}{ENDING}", function.place.source, function.place.name)
}

fn verdict(folder: &Folder, functions: &Functions, function: &Function) -> Result<Verdict, Fail> {
    let name = recording(function);
    let text = match fs::read_to_string(folder.file(&name)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Verdict::Absent),
        Err(error) => return Err(folder.refused(&[Complaint::of_file(&name, "unreadable", error.to_string())])),
    };
    let mocks = match Mocks::parse(&name, &text) {
        Ok(mocks) => mocks,
        Err(complaint) => return Ok(Verdict::Differs(vec![folder.line(&complaint)])),
    };
    let invocation = mocks.invocation(&function.place, &function.definition);
    let replay = match mocks::run(functions.modules.clone(), invocation, &mocks) {
        Ok(replay) => replay,
        Err(fault) => return Ok(Verdict::Differs(vec![fault.to_string()])),
    };
    let differences = mocks.differences(&replay);
    match differences.is_empty() {
        true => Ok(Verdict::Equal(replay)),
        false => Ok(Verdict::Differs(differences)),
    }
}

/// What a function did, and the requests whose failure it took in its stride.
fn told(replay: &Replay) -> String {
    let count = |rows: &std::collections::BTreeMap<String, Vec<serde_json::Value>>| rows.values().map(Vec::len).sum();
    let mut parts = vec![counted(replay.requests, "request")];
    for (rows, what) in [(&replay.saved, "saved"), (&replay.patched, "patched"), (&replay.deleted, "deleted")] {
        let rows: usize = count(rows);
        if rows > 0 {
            parts.push(format!("{rows} {what}"));
        }
    }
    parts.extend(replay.unmatched.first().map(|first| format!("and went on although {first}")));
    parts.join(", ")
}

/// Recordings without a function: it was renamed or removed.
fn orphans(folder: &Folder, functions: &Functions) -> Result<Vec<String>, Fail> {
    let known: BTreeSet<String> = functions.all.iter().map(recording).collect();
    let mut orphans = Vec::new();
    for source in functions.sources() {
        let tests = format!("{source}/tests");
        let unreadable =
            |error: std::io::Error| folder.refused(&[Complaint::of_file(&tests, "unreadable", error.to_string())]);
        let entries = match fs::read_dir(folder.file(&tests)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        for entry in entries {
            let entry = entry.map_err(unreadable)?.file_name();
            let file = format!("{tests}/{}", entry.to_string_lossy());
            if file.ends_with(ENDING) && !known.contains(&file) {
                orphans.push(file);
            }
        }
    }
    orphans.sort();
    Ok(orphans)
}
