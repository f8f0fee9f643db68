//! Syncs in TypeScript, from the file to what readers see, against a fake of the provider they were written for.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline_tests::serving::Serving;

const PAGE: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-that-nobody-may-see";

/// Contacts as Salesforce answers them: by a query, a page at a time, oldest change first.
#[derive(Default)]
struct Salesforce {
    contacts: Mutex<BTreeMap<String, Contact>>,
    /// Requests so far, and those that were not signed in.
    seen: Mutex<(usize, usize)>,
    /// Answers 503 to the request of this number.
    fails: Mutex<Option<usize>>,
}

#[derive(Clone)]
struct Contact {
    last_name: String,
    modified: i64,
}

impl Salesforce {
    async fn start() -> (Arc<Salesforce>, String) {
        let fake = Arc::new(Salesforce::default());
        let router = Router::new()
            .route("/services/data/v53.0/query", get(query))
            .route("/services/data/v53.0/query/{place}", get(query_more))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    fn fill(&self, count: usize) {
        let mut contacts = self.contacts.lock();
        for n in 0..count {
            let contact = Contact { last_name: format!("Name {n}"), modified: n as i64 };
            contacts.insert(format!("003{n:08}"), contact);
        }
    }

    fn change(&self, id: &str, last_name: &str, modified: i64) {
        self.contacts.lock().insert(id.to_owned(), Contact { last_name: last_name.to_owned(), modified });
    }

    /// The contacts modified since, in the order of their changes.
    fn since(&self, since: i64) -> Vec<Value> {
        let mut found: Vec<_> = self
            .contacts
            .lock()
            .iter()
            .filter(|(_, c)| c.modified >= since)
            .map(|(id, c)| (id.clone(), c.clone()))
            .collect();
        found.sort_by(|a, b| (a.1.modified, &a.0).cmp(&(b.1.modified, &b.0)));
        let shown = |(id, contact): (String, Contact)| {
            json!({
                "attributes": {"type": "Contact"}, "Id": id, "FirstName": null, "LastName": contact.last_name,
                "Email": format!("{id}@example.com"), "AccountId": null, "LastModifiedDate": stamp(contact.modified),
            })
        };
        found.into_iter().map(shown).collect()
    }

    fn page(&self, headers: &HeaderMap, since: i64, from: usize) -> Response {
        let number = {
            let mut seen = self.seen.lock();
            seen.0 += 1;
            let signed = headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
            seen.1 += usize::from(!signed);
            seen.0
        };
        if self.fails.lock().take_if(|fails| *fails == number).is_some() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let all = self.since(since);
        let records: Vec<Value> = all.iter().skip(from).take(PAGE).cloned().collect();
        let done = from + records.len() >= all.len();
        let mut answer = json!({"totalSize": all.len(), "done": done, "records": records});
        if !done {
            answer["nextRecordsUrl"] = format!("/services/data/v53.0/query/{since}-{}", from + PAGE).into();
        }
        axum::Json(answer).into_response()
    }
}

fn stamp(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(1_700_000_000 + seconds).expect("in range");
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

async fn query(
    State(fake): State<Arc<Salesforce>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let text = query.get("q").cloned().unwrap_or_default();
    let since = text.split(">= ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<jiff::Timestamp>().ok());
    fake.page(&headers, since.map_or(0, |at| at.as_second() - 1_700_000_000), 0)
}

async fn query_more(
    State(fake): State<Arc<Salesforce>>,
    headers: HeaderMap,
    axum::extract::Path(place): axum::extract::Path<String>,
) -> Response {
    let (since, from) = place.split_once('-').expect("a place of ours");
    fake.page(&headers, since.parse().expect("a number"), from.parse().expect("a number"))
}

/// Writes the definition of a source without streams, and the file of one sync.
fn lay_out(folder: &Path, source: &str, url: &str, sync: &str, text: &str) {
    let syncs = folder.join("functions").join(source).join("syncs");
    fs::create_dir_all(&syncs).expect("made");
    fs::create_dir_all(folder.join("sources")).expect("made");
    fs::write(syncs.join(format!("{sync}.ts")), text).expect("written");
    let definition = format!(
        "source: {source}\nbase_url: {url}\nauth: {{type: bearer}}\nlimits: {{retry: {{backoff: 10ms..20ms}}}}\n\
         connections: {{acme: {{credentials: {{token: \"file:token\"}}}}}}\n"
    );
    fs::write(folder.join("sources/token"), TOKEN).expect("written");
    fs::write(folder.join("sources").join(format!("{source}.yaml")), definition).expect("written");
}

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
    let (fake, url) = Salesforce::start().await;
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
