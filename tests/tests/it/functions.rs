//! Syncs in TypeScript, from the file to what readers see, against a fake of the provider they were written for.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use syncline_tests::salesforce::{Salesforce, lay_out, stamp};
use syncline_tests::serving::Serving;

const LIMIT: Duration = Duration::from_secs(60);

async fn serve(folder: &Path) -> Serving {
    let more = json!({"functions": {"path": folder.join("functions"), "in_process": true}});
    Serving::start_with(folder, &folder.join("sources"), more).await
}

fn names(rows: &[Value]) -> BTreeMap<String, String> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(row, "id"), text(row, "last_name"))).collect()
}

/// The documents' first example: an incremental sync of contacts, unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn contacts_of_salesforce_come_from_an_unchanged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(1_000, Duration::ZERO).await;
    fake.fill(25_000);
    *fake.fails.lock() = Some(7);
    lay_out(folder.path(), "salesforce", &url, "contacts", include_str!("../../../runtime/tests/fixtures/contacts.ts"));
    let server = serve(folder.path()).await;
    let ended = server.settled("salesforce", "acme", "contacts", LIMIT).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    let rows = server.records("salesforce", "acme", "Contact").await;
    assert_eq!(rows.len(), 25_000);
    assert_eq!(rows[7]["_nango_metadata"]["last_action"], "ADDED");
    assert_eq!(names(&rows)["00300024999"], "Name 24999");
    assert_eq!(*fake.seen.lock(), (26, 0), "a page failed once, and all were signed in");

    // What changed since, and nothing else.
    fake.change("00300000003", "Changed", 30_000);
    fake.change("00300025000", "New", 30_001);
    server.trigger("salesforce", "acme", "contacts", false).await;
    let ended = server.settled("salesforce", "acme", "contacts", LIMIT).await;
    assert_eq!((&ended["status"], &ended["type"]), (&json!("SUCCESS"), &json!("INCREMENTAL")), "{ended}");
    assert_eq!(ended["checkpoint"]["lastModifiedISO"], stamp(30_001), "{ended}");
    let changes = server.changes("salesforce", "acme", "Contact").await;
    let actions: Vec<_> = changes.iter().skip(25_000).map(|change| change["action"].clone()).collect();
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert_eq!(server.records("salesforce", "acme", "Contact").await.len(), 25_001, "nothing was deleted");
    server.stop().await;
}
