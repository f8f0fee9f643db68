//! `syncline functions run`, as a person types it: against a provider, and against what was recorded of it.

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use syncline_tests::salesforce::{Salesforce, TOKEN, lay_out, stamp};

/// `functions …` in the folder: exit code, stdout, stderr.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let settings = json!({
        "data_dir": folder.join("data"), "sources": folder.join("sources"), "encryption": "off",
        "functions": {"path": folder.join("functions")},
        "egress": {"allow_http": true, "allow": ["127.0.0.0/8"]},
    });
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_program"));
    let output = command.args(["functions"]).args(args).current_dir(folder).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn done(folder: &Path, args: &[&str]) -> String {
    let (code, said, warned) = run(folder, args);
    assert_eq!(code, Some(0), "{said}{warned}");
    said
}

/// A worker process, a real provider, and nothing that stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_run_by_hand_and_nothing_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(2, Duration::ZERO).await;
    fake.fill(3);
    lay_out(folder.path(), "salesforce", &url, "contacts", include_str!("../../../runtime/tests/fixtures/contacts.ts"));
    let (code, said, warned) = run(folder.path(), &["run", "contacts", "--records", "1"]);
    assert_eq!(code, Some(0), "{said}{warned}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "Contact 3", "{said}");
    assert!(lines[1].starts_with(r#"  {"id":"00300000000","#), "{said}");
    assert_eq!(lines[2], format!(r#"checkpoint {{"lastModifiedISO":"{}"}}"#, stamp(2)));
    assert!(
        lines[3].starts_with("salesforce/acme/contacts: initial complete (dry run, nothing kept), 3 added"),
        "{said}"
    );
    assert!(!folder.path().join("data").exists());

    // What went wrong is told with its line, and by the exit code.
    let broken = include_str!("../../../runtime/tests/fixtures/contacts.ts")
        .replace("records.map(mapContact)", "(records as any).mop()");
    lay_out(folder.path(), "salesforce", &url, "contacts", &broken);
    let (code, said, _) = run(folder.path(), &["run", "salesforce/contacts"]);
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("script_error: salesforce/syncs/contacts.ts:56:"), "{said}");
    let (code, _, warned) = run(folder.path(), &["run", "orders"]);
    assert_eq!(code, Some(2), "{warned}");
    assert!(
        warned.contains(
            "there is no sync with `exec`, action or function on an event `orders` to run\nhint: there are: salesforce/contacts for acme"
        ),
        "{warned}"
    );
}

/// What a replay has to repeat: records, clock, chance, checkpoint, metadata, the token's handle and the name of the connection.
const ODD: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

const Contact = z.object({ id: z.string(), name: z.string() });

export default createSync({
    frequency: 'every hour',
    models: { Contact },
    checkpoint: z.object({ since: z.string() }),
    webhookSubscriptions: ['contact'],
    exec: async (nango) => {
        const since = (await nango.getCheckpoint())?.since ?? '2023-01-01T00:00:00.000Z';
        const { region = 'none' } = await nango.getMetadata<any>();
        const token = await nango.getToken();
        const { data }: any = await nango.get({
            endpoint: '/services/data/v53.0/query',
            params: { q: `SELECT x WHERE LastModifiedDate >= ${since} ORDER`, region, token, luck: Math.random() },
        });
        const seen = new Date().toISOString();
        await nango.batchSave(
            data.records.map((r: any) => ({ id: r.Id, name: r.LastName, region, seen, of: nango.connectionId })),
            'Contact',
        );
        await nango.saveCheckpoint({ since: seen });
    },
    onWebhook: async (nango, event: any) => {
        const { told = 0 } = (await nango.getCheckpoint()) ?? {};
        await nango.batchSave([{ id: event.id, name: `${event.name} ${told}` }], 'Contact');
        await nango.saveCheckpoint({ since: event.id });
    },
});
"#;

const RENAME: &str = r#"
import { createAction, ActionError } from 'nango';
import { z } from 'zod';

export default createAction({
    description: 'Renames nobody',
    input: z.object({ id: z.string() }),
    output: z.object({ id: z.string(), name: z.string(), at: z.string() }),
    exec: async (nango, { id }) => {
        if (id === 'none') {
            throw new ActionError({ type: 'not_found', id });
        }
        const { data }: any = await nango.get({ endpoint: '/services/data/v53.0/query', params: { q: 'all' } });
        return { id, name: data.records[0].LastName, at: new Date().toISOString() };
    },
});
"#;

async fn laid_out() -> (tempfile::TempDir, std::sync::Arc<Salesforce>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(10, Duration::ZERO).await;
    fake.fill(3);
    // A provider that repeats what signed the request in.
    fake.change("00300000001", &format!("called {TOKEN}"), 1);
    lay_out(folder.path(), "salesforce", &url, "odd", ODD);
    let actions = folder.path().join("functions/salesforce/actions");
    std::fs::create_dir_all(&actions).expect("made");
    std::fs::write(actions.join("rename.ts"), RENAME).expect("written");
    (folder, fake)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_replays_with_equal_records_and_holds_no_secret() {
    let (folder, fake) = laid_out().await;
    let here = folder.path();
    let file = "functions/salesforce/tests/odd.test.json";
    std::fs::create_dir_all(here.join("functions/salesforce/tests")).expect("made");
    let live = done(here, &["run", "odd", "--record", file, "--metadata", r#"{"region": "north"}"#]);
    let text = std::fs::read_to_string(here.join(file)).expect("recorded");
    assert!(!text.contains(TOKEN), "{text}");
    assert!(text.contains(r#""LastName": "called "#) && text.contains("secret-handle:token:"), "{text}");
    let (seen, _) = *fake.seen.lock();

    let replay = done(here, &["run", "odd", "--mocks", file]);
    let records = |said: &str| said.lines().take(5).map(str::to_owned).collect::<Vec<_>>();
    assert!(live.contains(r#""region":"north","seen":""#) && live.contains(r#""of":"acme""#), "{live}");
    let mask = |said: &str| records(&said.replace(TOKEN, "•"));
    let written: Value = serde_json::from_str(&text).expect("JSON");
    let masked = written["nango"]["batchSave"]["Contact"][1]["name"].as_str().expect("a name").replace("called ", "");
    assert_eq!(mask(&live), records(&replay.replace(&masked, "•")));
    assert_eq!(fake.seen.lock().0, seen, "a replay asks nobody");
    assert!(
        replay.ends_with(
            "salesforce/odd: complete (recorded answers, nothing kept), 3 saved, 0 patched, 0 deleted; 1 request\n"
        ),
        "{replay}"
    );
    // It is a test like one that was written.
    assert!(done(here, &["test", "odd"]).contains("ok       salesforce/odd: 1 request, 3 saved"));

    // Never over something, and not with other chance: the request differs then.
    let (code, _, warned) = run(here, &["run", "odd", "--record", file]);
    assert!(code == Some(1) && warned.contains("exists and is left as it is"), "{warned}");
    let (code, said, _) = run(here, &["run", "odd", "--mocks", file, "--seed", "1"]);
    assert!(code == Some(10) && said.contains("was not recorded; nearest"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_time_chance_and_answers_give_the_same_bytes() {
    let (folder, _) = laid_out().await;
    let any = json!({"api": {"get": {"/services/data/v53.0/query": {"response": {"records": [{"Id": 7, "LastName": "Ada"}]}}}},
        "nango": {"getToken": "t"}});
    std::fs::write(folder.path().join("any.json"), any.to_string()).expect("written");
    let with =
        |now: &str| done(folder.path(), &["run", "salesforce/odd", "--mocks", "any.json", "--now", now, "--seed", "7"]);
    let first = with("2026-03-01T10:00:00.123Z");
    assert_eq!(first, with("2026-03-01T10:00:00.123Z"));
    assert!(first.contains(r#"checkpoint {"since":"2026-03-01T10:00:00.123Z"}"#), "{first}");
    assert_ne!(first, with("2026-03-01T10:00:00.124Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_given_is_where_it_begins() {
    let (folder, _) = laid_out().await;
    let checkpoint = json!({"since": stamp(1)}).to_string();
    let now = stamp(100);
    let said = done(folder.path(), &["run", "odd", "--checkpoint", &checkpoint, "--now", &now, "--seed", "3"]);
    assert!(said.starts_with("Contact 2\n"), "{said}");
    assert!(said.contains(&format!(r#"checkpoint {{"since":"{now}"}}"#)), "{said}");
    assert!(said.contains("salesforce/acme/odd: initial complete (dry run, nothing kept), 2 added"), "{said}");
    assert!(!folder.path().join("data").exists());
    let (code, _, warned) = run(folder.path(), &["run", "odd", "--checkpoint", "7"]);
    assert!(code == Some(2) && warned.contains("write a JSON object"), "{warned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_and_the_input_of_an_action_are_given_by_hand() {
    let (folder, _) = laid_out().await;
    let here = folder.path();
    std::fs::write(here.join("event.json"), r#"{"type": "contact", "id": "9", "name": "Grace"}"#).expect("written");
    let said = done(here, &["run", "odd", "--webhook", "event.json", "--record", "event.test.json"]);
    let wanted = "Contact 1\n  {\"id\":\"9\",\"name\":\"Grace 0\"}\ncheckpoint {\"since\":\"9\"}\n\
                  salesforce/acme/odd: event taken (dry run, nothing kept)\n";
    assert_eq!(said, wanted);
    let replay = done(here, &["run", "odd", "--mocks", "event.test.json"]);
    assert_eq!(
        replay.lines().next_back(),
        Some("salesforce/odd: complete (recorded answers, nothing kept), 1 saved, 0 patched, 0 deleted; 0 requests")
    );
    let at = done(here, &["run", "odd", "--webhook", "event.json", "--checkpoint", r#"{"told": 4}"#]);
    assert!(at.contains("Grace 4"), "{at}");

    let now = ["--now", "2026-03-01T10:00:00Z"];
    let live =
        done(here, &[&["run", "rename", "--input", r#"{"id": "7"}"#, "--record", "rename.json"], &now[..]].concat());
    assert_eq!(live, "{\"id\":\"7\",\"name\":\"Name 0\",\"at\":\"2026-03-01T10:00:00.000Z\"}\n");
    assert_eq!(done(here, &["run", "rename", "--mocks", "rename.json"]), live);
    std::fs::write(here.join("input.json"), r#"{"id": "none"}"#).expect("written");
    for more in [&[][..], &["--mocks", "rename.json"]] {
        let (code, said, _) = run(here, &[&["run", "rename", "--input", "input.json"], more].concat());
        assert_eq!(code, Some(10), "{said}");
        let error: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(error["error"]["code"], "action_script_runtime_error", "{said}");
        assert_eq!(error["error"]["payload"], json!({"type": "not_found", "id": "none"}), "{said}");
    }
    let (code, said, _) = run(here, &["run", "rename", "--input", "7"]);
    assert!(code == Some(10) && said.contains("invalid_action_input"), "{said}");
}
