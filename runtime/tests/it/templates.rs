//! The hold-out: functions that others wrote, against the answers that they recorded.
//!
//! `SYNCLINE_TEMPLATES` names a folder of sources (`NAME/syncs/*.ts`, `NAME/actions/*.ts`, `NAME/tests/*.test.json`); it is not
//! run without. Each function is loaded alone, so that one which cannot be hides no other. What is not equal is listed
//! with its cause: `SYNCLINE_TEMPLATES=… cargo test -p syncline-runtime --test runtime -- templates --ignored --nocapture`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use syncline_runtime::compile::{FunctionKind, Place};
use syncline_runtime::mocks::{Mocks, run};
use syncline_runtime::{Complaint, Functions};

/// Of a thousand functions that are recorded, so many are equal at least.
const EQUAL: usize = 980;

/// How the providers of functions that lean on it page: what a user writes as `functions.paginate` of the source.
const PAGINATE: [(&str, &str); 6] = [
    (
        "asana",
        r#"{"type": "cursor", "cursor_path_in_response": "next_page.offset", "cursor_name_in_request": "offset",
            "response_path": "data", "limit_name_in_request": "limit"}"#,
    ),
    ("github", r#"{"type": "link", "link_rel_in_response_header": "next", "limit_name_in_request": "per_page"}"#),
    // As their recordings ask; its documentation says `pageSize`.
    ("google-drive", r#"{"type": "cursor", "limit_name_in_request": "maxSize"}"#),
    (
        "hubspot",
        r#"{"type": "cursor", "cursor_path_in_response": "paging.next.after", "cursor_name_in_request": "after",
            "response_path": "results", "limit_name_in_request": "limit"}"#,
    ),
    (
        "pipedrive",
        r#"{"type": "offset", "offset_name_in_request": "start", "response_path": "data", "limit_name_in_request": "limit"}"#,
    ),
    ("zendesk", r#"{"type": "link", "link_path_in_response_body": "next_page", "limit_name_in_request": "per_page"}"#),
];

/// What a connection of a source has to have, and where a recorded request shows it instead of the `?`: recordings say
/// nothing of their connection.
const CONNECTIONS: [(&str, &str, Shown); 6] = [
    ("highlevel", r#"{"connection_config": {"locationId": "?"}}"#, Shown::Parameter("locationId")),
    ("jira", r#"{"connection_config": {"cloudId": "?"}}"#, Shown::Behind("/ex/jira/")),
    ("millionverifier", r#"{"credentials": {"type": "API_KEY", "apiKey": "?"}}"#, Shown::Parameter("key")),
    ("quickbooks", r#"{"connection_config": {"realmId": "?"}}"#, Shown::Behind("/v3/company/")),
    ("twilio", r#"{"credentials": {"type": "BASIC", "username": "?", "password": ""}}"#, Shown::Behind("/Accounts/")),
    ("xero", r#"{"connection_config": {"tenant_id": "?"}}"#, Shown::Header("xero-tenant-id")),
];

/// What shows a part of a connection.
enum Shown {
    /// The piece of an endpoint that follows this.
    Behind(&'static str),
    Header(&'static str),
    Parameter(&'static str),
}

impl Shown {
    /// In the recorded requests `{method: {endpoint: answers}}`.
    fn find(&self, api: &Value) -> Option<String> {
        let requests = api.as_object()?.values().filter_map(Value::as_object).flatten();
        requests.into_iter().find_map(|(endpoint, answers)| {
            let answer = answers.get(0).unwrap_or(answers);
            let member = |of: &str, name: &str| {
                let members = answer.get("request")?.get(of)?.as_object()?.iter();
                members.into_iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?.1.as_str().map(str::to_owned)
            };
            match self {
                Shown::Behind(start) => endpoint.split_once(start)?.1.split('/').next().map(str::to_owned),
                Shown::Header(name) => member("headers", name),
                Shown::Parameter(name) => member("params", name),
            }
        })
    }
}

/// What became of the functions of one kind.
#[derive(Debug, Default)]
struct Tally {
    loaded: usize,
    refused: usize,
    equal: usize,
    differ: usize,
}

#[test]
#[ignore = "needs SYNCLINE_TEMPLATES, a folder of functions that others wrote"]
fn functions_of_others_give_what_they_recorded() {
    let templates =
        std::env::var_os("SYNCLINE_TEMPLATES").map(PathBuf::from).expect("SYNCLINE_TEMPLATES names a folder");
    let mut tallies: BTreeMap<FunctionKind, Tally> = BTreeMap::new();
    for source in names(&templates) {
        let copy = tempfile::tempdir().expect("a folder");
        copy_code(&templates.join(&source), &copy.path().join(&source));
        for kind in [FunctionKind::Sync, FunctionKind::Action, FunctionKind::OnEvent] {
            let folder = format!("{source}/{}", kind.folder());
            for place in
                names(&templates.join(&folder)).iter().filter_map(|name| Place::of(&format!("{folder}/{name}")))
            {
                let tally = tallies.entry(kind).or_default();
                match alone(copy.path(), &place) {
                    Ok(functions) => {
                        tally.loaded += 1;
                        test(&templates, &functions, tally);
                    }
                    Err(complaints) => {
                        tally.refused += 1;
                        complaints.iter().for_each(|complaint| println!("refused  {complaint}"));
                    }
                }
            }
        }
    }
    println!("{tallies:#?}");
    assert!(!tallies.is_empty(), "no functions in {}", templates.display());
    for (kind, tally) in tallies {
        let recorded = tally.equal + tally.differ;
        assert!(tally.equal * 1_000 >= recorded * EQUAL, "{}: {tally:?}", kind.folder());
    }
}

/// The folder with one function in it.
fn alone(folder: &Path, place: &Place) -> Result<Functions, Vec<Complaint>> {
    fs::write(folder.join("index.ts"), format!("import './{}';\n", place.file)).expect("written");
    Functions::load(folder)
}

fn test(templates: &Path, functions: &Functions, tally: &mut Tally) {
    for function in &functions.all {
        let file = format!("{}/tests/{}.test.json", function.place.source, function.place.name);
        let Ok(text) = fs::read_to_string(templates.join(&file)) else { continue };
        let differences = Mocks::parse(&file, &with_connection(&text, &function.place.source))
            .map_err(|complaint| vec![complaint.to_string()])
            .and_then(|mocks| {
                let mut invocation = mocks.invocation(&function.place, &function.definition);
                invocation.about = with_paging(&invocation.about, &function.place.source);
                let replay =
                    run(functions.modules.clone(), invocation, &mocks).map_err(|fault| vec![fault.to_string()])?;
                Ok(mocks.differences(&replay))
            });
        let differences = differences.unwrap_or_else(|causes| causes);
        match differences.first() {
            None => tally.equal += 1,
            Some(first) => {
                tally.differ += 1;
                println!("differs  {}: {first}", function.place.file);
            }
        }
    }
}

/// Recordings with the connection that they were made with, where they do not have it.
fn with_connection(text: &str, source: &str) -> String {
    let Some((_, connection, shown)) = CONNECTIONS.iter().find(|(name, ..)| *name == source) else {
        return text.to_owned();
    };
    let mut file: Value = serde_json::from_str(text).expect("JSON");
    let recorded = file.pointer("/nango/getConnection").and_then(Value::as_object);
    if let (Some(found), true) = (shown.find(&file["api"]), recorded.is_none_or(Map::is_empty)) {
        file["nango"]["getConnection"] = serde_json::from_str(&connection.replace('?', &found)).expect("JSON");
    }
    file.to_string()
}

/// What a function is told of its invocation, with the paging of its provider.
fn with_paging(about: &str, source: &str) -> String {
    let Some((_, paging)) = PAGINATE.iter().find(|(name, _)| *name == source) else { return about.to_owned() };
    let mut about: Value = serde_json::from_str(about).expect("JSON");
    about["paginate"] = serde_json::from_str(paging).expect("JSON");
    about.to_string()
}

/// Names in a folder, in order; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Copies code, and not what was recorded.
fn copy_code(from: &Path, to: &Path) {
    for name in names(from).iter().filter(|name| !["tests", "mocks", "node_modules"].contains(&name.as_str())) {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_dir() {
            copy_code(&from, &to);
        } else if [".ts", ".js", ".json"].iter().any(|ending| name.ends_with(ending)) {
            fs::create_dir_all(to.parent().unwrap_or(&to)).expect("made");
            fs::copy(from, to).expect("copied");
        }
    }
}
