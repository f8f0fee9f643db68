//! Functions whose files change while a server runs.

use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use syncline_tests::salesforce::{Salesforce, lay_out};
use syncline_tests::serving::Serving;

const LIMIT: Duration = Duration::from_secs(60);

/// Names every contact as `NAME` says; saves the others when nobody waits any more.
const SYNC: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';
import { named } from '../helpers.js';

export default createSync({
    frequency: 'every hour',
    models: { Contact: z.object({ id: z.string(), name: z.string() }) },
    exec: async (nango) => {
        const { data }: any = await nango.get({ endpoint: '/services/data/v53.0/query', params: { q: 'all' } });
        await nango.batchSave(data.records.map((r: any) => ({ id: r.Id, name: named(r) })), 'Contact');
    },
});
"#;

const HELPERS: &str = "export const named = (r: any): string => `old ${r.LastName}`;\n";

async fn status(server: &Serving) -> Value {
    let response = server.get("/v1/functions", "salesforce", "acme").send().await.expect("an answer");
    response.json().await.expect("JSON")
}

/// Waits until the functions stand so.
async fn until(server: &Serving, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let now = status(server).await;
        if is_so(&now) {
            return now;
        }
        assert!(began.elapsed() < LIMIT, "{what}: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn name(server: &Serving) -> Value {
    server.trigger("salesforce", "acme", "contacts", true).await;
    let ended = server.settled("salesforce", "acme", "contacts", LIMIT).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    server.records("salesforce", "acme", "Contact").await[0]["name"].clone()
}

fn helpers(folder: &Path, text: &str) {
    std::fs::write(folder.join("functions/salesforce/helpers.ts"), text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_code_before_running_and_a_mended_one_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(10, Duration::ZERO).await;
    fake.fill(1);
    lay_out(folder.path(), "salesforce", &url, "contacts", SYNC);
    helpers(folder.path(), HELPERS);
    let more = json!({"functions": {"path": folder.path().join("functions"), "in_process": true}});
    let server = Serving::start_with(folder.path(), &folder.path().join("sources"), more).await;
    server.settled("salesforce", "acme", "contacts", LIMIT).await;
    let first = status(&server).await;
    assert_eq!(
        first["functions"],
        json!([{"source": "salesforce", "kind": "sync", "name": "contacts", "file": "salesforce/syncs/contacts.ts"}])
    );
    assert_eq!((&first["refused"], &first["reloaded_at"]), (&Value::Null, &Value::Null));

    helpers(folder.path(), "export const named = (r: any): string => ;\n");
    let broken = until(&server, "refused", |now| !now["refused"].is_null()).await;
    let complaint = broken["refused"]["complaints"][0].as_str().expect("a complaint");
    assert!(complaint.contains("functions/salesforce/helpers.ts:1:42 syntax "), "{complaint}");
    assert_eq!(broken["hash"], first["hash"]);
    assert_eq!(name(&server).await, "old Name 0", "the code before runs on");

    helpers(folder.path(), &HELPERS.replace("old", "new"));
    let mended = until(&server, "reloaded", |now| now["hash"] != first["hash"]).await;
    assert!(mended["refused"].is_null() && mended["reloaded_at"].is_string(), "{mended}");
    assert_eq!(name(&server).await, "new Name 0");

    // What the program has arranged for at its start stays as it is.
    let sync = folder.path().join("functions/salesforce/syncs/contacts.ts");
    std::fs::write(&sync, SYNC.replace("every hour", "every day")).expect("written");
    std::fs::write(sync.with_file_name("people.ts"), SYNC.replace("Contact", "Person")).expect("written");
    let refused = until(&server, "needs a restart", |now| !now["refused"].is_null()).await;
    let complaints = refused["refused"]["complaints"].as_array().expect("complaints");
    let told = |file: &str, why: &str| {
        let wanted = format!("{file}:1:1 needs_restart {why}: restart the server to take the changes");
        assert!(complaints.iter().any(|one| one.as_str().is_some_and(|one| one.ends_with(&wanted))), "{refused}");
    };
    told("syncs/contacts.ts", "`frequency` of the function changed");
    told("syncs/people.ts", "the function was not there at the start");
    assert_eq!(refused["hash"], mended["hash"]);
    assert_eq!(name(&server).await, "new Name 0");
    std::fs::remove_file(sync.with_file_name("people.ts")).expect("removed");
    std::fs::write(&sync, SYNC).expect("written");
    until(&server, "as it runs", |now| now["refused"].is_null()).await;
    server.stop().await;
}
