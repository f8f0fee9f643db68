//! Real webhooks: GitHub's recorded payloads, signed by Octokit's own library, through the shipped GitHub definition.
//!
//! The records that result are those the payloads ask for; kinds nobody maps are acknowledged and change nothing; a body that
//! was changed after signing is refused.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use syncline_tests::serving::Serving;
use syncline_tests::tools::{install_npm, node, run, source};

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "what GitHub signs with and we check";
/// Source, connection, stream.
const AT: [&str; 3] = ["github", "me", "Issue"];
/// The issue of the webhook sent last.
const LAST: &str = "1";

#[tokio::test(flavor = "multi_thread")]
async fn recorded_webhooks_become_the_issues_they_tell_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let syncline = Serving::start(folder.path(), &definition(folder.path())).await;
    let url = syncline.hook_url(AT[0]);
    let sent = tokio::task::spawn_blocking(move || send(&url)).await.expect("it ran");

    for one in &sent {
        assert_eq!(one.status, if one.tampered { 401 } else { 200 }, "{} {}", one.kind, one.payload["action"]);
    }
    let rows = rows_with_last(&syncline).await;
    let expected = expected(&sent);
    assert!(
        expected.len() > 2 && expected.values().any(Option::is_none),
        "the recordings tell of too little: {expected:?}"
    );
    for (id, issue) in &expected {
        let row = rows.get(id).unwrap_or_else(|| panic!("issue {id} is missing"));
        match issue {
            None => assert_eq!(row["_nango_metadata"]["last_action"], "DELETED", "issue {id}"),
            Some(issue) => same_issue(row, issue),
        }
    }
    assert_eq!(rows.len(), expected.len(), "issues nobody told of: {:?}", rows.keys());
    syncline.stop().await;
}

/// One webhook as it was sent and answered.
struct Sent {
    kind: String,
    tampered: bool,
    status: u64,
    payload: Value,
}

fn send(url: &str) -> Vec<Sent> {
    let project = install_npm("interop/octokit", "octokit").unwrap_or_else(|why| panic!("{why}"));
    let (node, _) = node().unwrap_or_else(|why| panic!("{why}"));
    let mut command = Command::new(node);
    command.current_dir(&project).args(["send.mjs", url, SECRET]);
    let said = run(&mut command, &project.join("send.log"), PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    said.lines()
        .map(|line| {
            let mut one: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
            let kind = one["kind"].as_str().unwrap_or_default().to_owned();
            let (tampered, status) = (one["tampered"] == true, one["status"].as_u64().unwrap_or_default());
            Sent { kind, tampered, status, payload: one["payload"].take() }
        })
        .collect()
}

/// Issues by id as the accepted payloads leave them: the latest `updated_at`, among equals the one sent last; `None` where the
/// issue was deleted or moved away. A delete has no time of its own but that of its arrival, later than all recorded ones; one
/// of an issue never seen leaves nothing to see.
fn expected(sent: &[Sent]) -> BTreeMap<String, Option<Value>> {
    let mut issues: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for one in sent.iter().filter(|one| one.kind == "issues" && !one.tampered) {
        let issue = &one.payload["issue"];
        let id = issue["id"].to_string();
        let gone = matches!(one.payload["action"].as_str(), Some("deleted" | "transferred"));
        match issues.get(&id) {
            None if gone => {}
            Some(Some(known)) if !gone && known["updated_at"].as_str() > issue["updated_at"].as_str() => {}
            Some(None) => {}
            _ => {
                issues.insert(id, (!gone).then(|| issue.clone()));
            }
        }
    }
    issues
}

fn same_issue(row: &Value, issue: &Value) {
    for name in ["number", "title", "state", "body", "updated_at"] {
        assert_eq!(row[name], issue[name], "{name} of issue {}", issue["id"]);
    }
    assert_eq!(row["user"], issue["user"]["login"], "user of issue {}", issue["id"]);
    let labels: Vec<_> = issue["labels"].as_array().into_iter().flatten().map(|label| label["name"].clone()).collect();
    assert_eq!(row["labels"], json!(labels), "labels of issue {}", issue["id"]);
}

/// All rows by id, once the webhook sent last has been worked through.
async fn rows_with_last(syncline: &Serving) -> BTreeMap<String, Value> {
    let began = Instant::now();
    loop {
        let rows = syncline.records(AT[0], AT[1], AT[2]).await;
        let rows: BTreeMap<_, _> =
            rows.into_iter().map(|r| (r["id"].as_str().unwrap_or_default().to_owned(), r)).collect();
        if rows.contains_key(LAST) {
            return rows;
        }
        assert!(began.elapsed() < PATIENCE, "the last webhook has no effect; issues so far: {:?}", rows.keys());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn definition(folder: &Path) -> std::path::PathBuf {
    let sources = folder.join("sources");
    fs::create_dir_all(&sources).expect("a folder for definitions");
    fs::copy(source("interop/octokit/github.yaml"), sources.join("github.yaml")).expect("copied");
    fs::write(sources.join("token"), "a token nobody asks for").expect("written");
    fs::write(sources.join("webhook_secret"), SECRET).expect("written");
    sources
}
