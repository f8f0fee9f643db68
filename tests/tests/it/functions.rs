//! Syncs in TypeScript, from the file to what readers see, against a fake of the provider they were written for.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use syncline_connectors::definition::OnInvalid;
use syncline_tests::contacts::{self, Contacts};
use syncline_tests::salesforce::{Salesforce, lay_out, stamp};
use syncline_tests::serving::{KEY, Serving};

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

/// A complete listing into one model, and a count into another.
const LISTING: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

const Contact = z.object({ id: z.string(), last_name: z.string() });
const Total = z.object({ id: z.string(), count: z.number() });

export default createSync({
    frequency: 'every hour',
    models: { Contact, Total },
    exec: async (nango) => {
        await nango.trackDeletesStart('Contact');
        let endpoint: string | undefined = '/services/data/v53.0/query?q=everything';
        let count = 0;
        while (endpoint) {
            const { data }: any = await nango.get({ endpoint });
            count += data.records.length;
            endpoint = data.nextRecordsUrl;
            await nango.batchSave(data.records.map((r: any) => ({ id: r.Id, last_name: r.LastName })), 'Contact');
            await nango.batchSave([{ id: 'all', count }], 'Total');
        }
        const { deletedKeys } = await nango.trackDeletesEnd('Contact');
        const { runs = 0 } = await nango.getMetadata<any>();
        await nango.updateMetadata({ runs: runs + 1, deleted: deletedKeys.sort() });
        const found = await nango.getRecordsByIds<string, any>(['all', 'none'], 'Total');
        if (found.size !== 1 || found.get('all').count !== count) {
            throw new Error(`read ${JSON.stringify([...found])}`);
        }
    },
});
"#;

/// What a listing does not name is deleted in one commit; the models of a step become visible together.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_deletes_what_is_absent_and_its_models_move_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(10, Duration::ZERO).await;
    fake.fill(35);
    lay_out(folder.path(), "salesforce", &url, "everything", LISTING);
    let server = serve(folder.path()).await;
    let ended = server.settled("salesforce", "acme", "everything", LIMIT).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(server.records("salesforce", "acme", "Contact").await.len(), 35);
    let at = |change: &Value| change["committed_at"].as_str().unwrap_or_else(|| panic!("{change}")).to_owned();
    let mut of_totals: Vec<String> = server.changes("salesforce", "acme", "Total").await.iter().map(at).collect();
    let mut of_contacts: Vec<String> = server.changes("salesforce", "acme", "Contact").await.iter().map(at).collect();
    of_totals.dedup();
    of_contacts.dedup();
    assert_eq!(of_contacts, of_totals, "a page and its count are one commit");

    fake.remove("00300000004");
    fake.remove("00300000033");
    server.trigger("salesforce", "acme", "everything", false).await;
    server.settled("salesforce", "acme", "everything", LIMIT).await;
    let changes = server.changes("salesforce", "acme", "Contact").await;
    let deleted: Vec<&Value> = changes.iter().skip(35).collect();
    assert_eq!(deleted.len(), 2, "{deleted:?}");
    assert!(deleted.iter().all(|change| change["action"] == "DELETED" || change["action"] == "deleted"), "{deleted:?}");
    assert_eq!(at(deleted[0]), at(deleted[1]));
    let connection = server.app().connections.get("default", "salesforce", "acme").expect("there");
    let metadata = &connection.connection.metadata;
    assert_eq!(*metadata, json!({"runs": 2, "deleted": ["00300000004", "00300000033"]}));
    server.stop().await;
}

/// The documents' second example: webhooks change records at once, a listing goes on beside them, and the older of the two never wins.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_in_real_time_comes_from_an_unchanged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Contacts::start(1_050).await;
    contacts::lay_out(folder.path(), &url);
    let server = serve(folder.path()).await;
    let ended = server.settled("hubspot", "acme", "contacts", LIMIT).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    let at = ["hubspot", "acme", "Contact"];
    assert_eq!(server.changes_of(at, 1_050, LIMIT).await.len(), 1_050);

    // One field of an event, without a request; another event, which says only whose it is.
    let event = |kind: &str, id: u32, more: Value| {
        let mut event = json!({"portalId": 7, "subscriptionType": kind, "objectId": id, "eventId": id});
        event.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        event
    };
    let mail = |id: u32, value: &str| {
        event("contact.propertyChange", id, json!({"propertyName": "email", "propertyValue": value}))
    };
    fake.emails.lock().insert(2_000, "new@example.com".into());
    post(&server, json!([mail(5, "five@example.com"), event("contact.creation", 2_000, json!({}))])).await;
    let changes = server.changes_of(at, 1_052, LIMIT).await;
    let last: Vec<_> = changes.iter().skip(1_050).map(|c| (c["key"].as_str(), c["action"].as_str())).collect();
    assert_eq!(last, [(Some("5"), Some("UPDATED")), (Some("2000"), Some("ADDED"))]);
    assert_eq!(*fake.asked.lock(), [2_000]);
    fake.emails.lock().insert(5, "five@example.com".into());

    // A page that was made before an event and arrives after it: the first one, and the last of many.
    let mut count = 1_052;
    for (after, number) in [(0, 7), (1_000, 1_007)] {
        *fake.holds.lock() = Some(after);
        let held = *fake.held.lock();
        server.trigger("hubspot", "acme", "contacts", false).await;
        let began = std::time::Instant::now();
        while *fake.held.lock() == held {
            assert!(began.elapsed() < LIMIT, "the page is asked for");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (id, email) = (number.to_string(), format!("newer-{number}@example.com"));
        fake.emails.lock().insert(number, email.clone());
        post(&server, json!([mail(number, &email)])).await;
        count += 1;
        assert_eq!(server.changes_of(at, count, LIMIT).await.len(), count);
        fake.release();
        let ended = server.settled("hubspot", "acme", "contacts", LIMIT).await;
        assert_eq!(ended["status"], "SUCCESS", "{ended}");
        let rows = server.records("hubspot", "acme", "Contact").await;
        let row = rows.iter().find(|row| row["id"] == id).expect("there");
        assert_eq!(row["email"], email, "an older page does not undo it");
    }
    assert_eq!(server.changes_of(at, count, LIMIT).await.len(), count, "nothing went back and forth");
    server.stop().await;
}

async fn post(server: &Serving, events: Value) {
    let sent = syncline_tests::serving::client().post(server.hook_url("hubspot")).json(&events).send().await;
    assert!(sent.expect("an answer").status().is_success());
}

/// A definition may name what functions bring: their models in `webhooks.map`, the functions in what a connection says.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_names_functions_and_their_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sources, syncs) = (folder.path().join("sources"), folder.path().join("functions/crm/syncs"));
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::create_dir_all(&syncs).expect("a folder");
    let sync = |model: &str| {
        format!(
            "import {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';\nconst {model} = z.object({{ id: z.string(), \
             name: z.string() }});\nexport default createSync({{ frequency: 'every hour', models: {{ {model} }}, \
             exec: async (nango) => {{ await nango.batchSave([{{ id: '1', name: 'polled' }}], '{model}'); }} }});\n"
        )
    };
    std::fs::write(syncs.join("people.ts"), sync("Person")).expect("written");
    std::fs::write(syncs.join("firms.ts"), sync("Firm")).expect("written");
    let definition = |connection: Value| {
        json!({
            "source": "crm", "base_url": "http://127.0.0.1:9", "auth": {"type": "none"},
            "webhooks": {
                "verify": {"scheme": "none"}, "events": ".[]", "route": ".portal", "type": ".kind",
                "map": [{"when": "$type == \"person\"", "stream": "Person", "record": ".person"}],
            },
            "connections": {"acme": connection},
        })
        .to_string()
    };
    let path = sources.join("crm.yaml");
    let about = json!({"metadata": {"portal": 7}, "streams": ["people"], "schedule": {"people": "5m"}});
    std::fs::write(&path, definition(about)).expect("written");
    let server = serve(folder.path()).await;
    let ended = server.settled("crm", "acme", "people", LIMIT).await;
    assert_eq!((&ended["status"], &ended["frequency"]), (&json!("SUCCESS"), &json!("every 5m")), "{ended}");
    let url = server.hook_url("crm");
    let events = json!([{"portal": 7, "kind": "person", "person": {"id": "2", "name": "told"}}]);
    let sent = syncline_tests::serving::client().post(url).json(&events).send().await;
    assert!(sent.expect("an answer").status().is_success());
    let changes = server.changes_of(["crm", "acme", "Person"], 2, LIMIT).await;
    assert_eq!(changes.iter().map(|c| c["key"].as_str()).collect::<Vec<_>>(), [Some("1"), Some("2")]);
    let app = server.app();
    let taken = app.connections.get("default", "crm", "acme").expect("there");
    let definition_of = app.definitions.get("crm").expect("there");
    let takes = |name: &str| taken.takes(definition_of.function_sync(name).expect("a function"));
    assert_eq!((takes("people"), takes("firms")), (true, false));
    server.stop().await;

    // A model has the schedule of its function, and what is not there is told with its place.
    let about = json!({"streams": ["persons"], "schedule": {"Firm": "5m"}});
    std::fs::write(&path, definition(about)).expect("written");
    let origin = syncline::config::Origin {
        files: vec![folder.path().join("syncline.yaml")],
        env: vec![("TEST_KEY".into(), KEY.into())],
        flags: Vec::new(),
    };
    let settings = syncline::config::load(&origin).expect("settings").settings;
    let complaints = syncline::registry::definitions::load(&settings).expect_err("wrong").to_string();
    assert!(complaints.contains("unknown_stream there is no stream `persons`"), "{complaints}");
    assert!(complaints.contains("conflict `Firm` is a model of a function, which has the schedule"), "{complaints}");
    assert!(complaints.contains("name the function: firms, people"), "{complaints}");
}

/// Records that do not fit their model are saved, told of, or refused, as the source says.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_held_against_their_models_where_the_source_asks() {
    let sync = "import { createSync } from 'nango';\nimport { z } from 'zod';\nconst Person = z.object({ id: z.string(), \
                name: z.string() });\nexport default createSync({ frequency: 'every hour', models: { Person }, \
                exec: async (nango) => { await nango.batchSave([{ id: '1', name: 'Ada' }] as any[], 'Person'); \
                await nango.getRecordsByIds(['1'], 'Person'); \
                await nango.batchSave([{ id: '2', name: 'Bo' }, { id: '3', name: 3 }] as any[], 'Person'); } });\n";
    for (validate, status, ids) in
        [("off", "SUCCESS", &["1", "2", "3"][..]), ("warn", "SUCCESS", &["1", "2", "3"]), ("reject", "ERROR", &["1"])]
    {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path(), "crm", "http://127.0.0.1:9", "people", sync);
        let file = folder.path().join("sources/crm.yaml");
        let definition = std::fs::read_to_string(&file).expect("a definition");
        std::fs::write(&file, format!("{definition}functions: {{validate: {validate}}}\n")).expect("written");
        let server = serve(folder.path()).await;
        let ended = server.settled("crm", "acme", "people", LIMIT).await;
        assert_eq!(ended["status"], status, "{validate}: {ended}");
        let rows = server.records("crm", "acme", "Person").await;
        assert_eq!(rows.iter().filter_map(|row| row["id"].as_str()).collect::<Vec<_>>(), ids, "{validate}");
        if validate == "reject" {
            let app = server.app();
            let definition = app.definitions.get("crm").expect("there");
            assert_eq!(definition.stream("Person").map(|s| s.on_invalid), Some(OnInvalid::Quarantine));
        }
        server.stop().await;
    }
}
