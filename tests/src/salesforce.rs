//! Contacts as Salesforce answers them: by a query, a page at a time, oldest change first.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The token that signs in.
pub const TOKEN: &str = "a-token-that-nobody-may-see";

/// A provider with contacts.
pub struct Salesforce {
    /// Contacts of a page.
    page: usize,
    /// Before a page is answered.
    pause: Duration,
    contacts: Mutex<BTreeMap<String, Contact>>,
    /// Requests so far, and those that were not signed in.
    pub seen: Mutex<(usize, usize)>,
    /// Answers 503 to the request of this number.
    pub fails: Mutex<Option<usize>>,
}

#[derive(Clone)]
struct Contact {
    last_name: String,
    modified: i64,
}

impl Salesforce {
    /// One that listens, with so many contacts of a page, and where.
    pub async fn start(page: usize, pause: Duration) -> (Arc<Salesforce>, String) {
        let fake = Arc::new(Salesforce {
            page,
            pause,
            contacts: Mutex::default(),
            seen: Mutex::default(),
            fails: Mutex::default(),
        });
        let router = Router::new()
            .route("/services/data/v53.0/query", get(query))
            .route("/services/data/v53.0/query/{place}", get(query_more))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    /// Adds contacts, each modified a second after the one before.
    pub fn fill(&self, count: usize) {
        let mut contacts = self.contacts.lock();
        for n in 0..count {
            let contact = Contact { last_name: format!("Name {n}"), modified: n as i64 };
            contacts.insert(format!("003{n:08}"), contact);
        }
    }

    /// Changes a contact, or adds it.
    pub fn change(&self, id: &str, last_name: &str, modified: i64) {
        self.contacts.lock().insert(id.to_owned(), Contact { last_name: last_name.to_owned(), modified });
    }

    /// Takes a contact away; no query tells of it.
    pub fn remove(&self, id: &str) {
        self.contacts.lock().remove(id);
    }

    /// The contacts modified since, in the order of their changes.
    pub fn since(&self, since: i64) -> Vec<Value> {
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
        let records: Vec<Value> = all.iter().skip(from).take(self.page).cloned().collect();
        let done = from + records.len() >= all.len();
        let mut answer = json!({"totalSize": all.len(), "done": done, "records": records});
        if !done {
            answer["nextRecordsUrl"] = format!("/services/data/v53.0/query/{since}-{}", from + self.page).into();
        }
        axum::Json(answer).into_response()
    }
}

/// The time so many seconds after the first contact was modified.
pub fn stamp(seconds: i64) -> String {
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
    tokio::time::sleep(fake.pause).await;
    fake.page(&headers, since.map_or(0, |at| at.as_second() - 1_700_000_000), 0)
}

async fn query_more(State(fake): State<Arc<Salesforce>>, headers: HeaderMap, Path(place): Path<String>) -> Response {
    let (since, from) = place.split_once('-').expect("a place of ours");
    tokio::time::sleep(fake.pause).await;
    fake.page(&headers, since.parse().expect("a number"), from.parse().expect("a number"))
}

/// Writes the definition of a source without streams, and the file of one sync.
pub fn lay_out(folder: &std::path::Path, source: &str, url: &str, sync: &str, text: &str) {
    let syncs = folder.join("functions").join(source).join("syncs");
    std::fs::create_dir_all(&syncs).expect("made");
    std::fs::create_dir_all(folder.join("sources")).expect("made");
    std::fs::write(syncs.join(format!("{sync}.ts")), text).expect("written");
    std::fs::write(folder.join("sources/token"), TOKEN).expect("written");
    let definition = format!(
        "source: {source}\nbase_url: {url}\nauth: {{type: bearer}}\nlimits: {{retry: {{backoff: 10ms..20ms}}}}\n\
         connections: {{acme: {{credentials: {{token: \"file:token\"}}}}}}\n"
    );
    std::fs::write(folder.join("sources").join(format!("{source}.yaml")), definition).expect("written");
}
