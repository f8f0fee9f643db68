//! Contacts as HubSpot answers them: a list by cursor, one by its id. A page may be held back after it was made, so that it is old
//! when it arrives.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Contacts of a page.
pub const PAGE: usize = 100;

/// A provider with contacts: their mail address by number.
#[derive(Default)]
pub struct Contacts {
    /// By number.
    pub emails: Mutex<BTreeMap<u32, String>>,
    /// Contacts that were asked for alone.
    pub asked: Mutex<Vec<u32>>,
    /// Pages that are made and held back.
    pub held: Mutex<usize>,
    /// The page that begins behind this contact is held back.
    pub holds: Mutex<Option<u32>>,
    release: Gate,
}

struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Gate {
        Gate(Semaphore::new(0))
    }
}

impl Contacts {
    /// One that listens, with so many contacts, and where.
    pub async fn start(count: u32) -> (Arc<Contacts>, String) {
        let fake = Arc::new(Contacts::default());
        fake.emails.lock().extend((1..=count).map(|n| (n, format!("{n}@example.com"))));
        let router = Router::new()
            .route("/crm/v3/objects/contacts", get(list))
            .route("/crm/v3/objects/contacts/{id}", get(one))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    /// Lets the page go that is held back.
    pub fn release(&self) {
        *self.holds.lock() = None;
        self.release.0.add_permits(1);
    }
}

fn shown(number: u32, email: &str) -> Value {
    let properties =
        json!({"email": email, "firstname": "F", "lastname": format!("L{number}"), "lifecyclestage": null});
    json!({"id": number.to_string(), "properties": properties})
}

async fn list(State(fake): State<Arc<Contacts>>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let after: u32 = query.get("after").and_then(|text| text.parse().ok()).unwrap_or(0);
    let page: Vec<(u32, String)> =
        fake.emails.lock().range(after + 1..).take(PAGE).map(|(n, email)| (*n, email.clone())).collect();
    let mut answer = json!({"results": page.iter().map(|(n, email)| shown(*n, email)).collect::<Vec<_>>()});
    if let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) {
        answer["paging"] = json!({"next": {"after": last.to_string()}});
    }
    if *fake.holds.lock() == Some(after) {
        *fake.held.lock() += 1;
        fake.release.0.acquire().await.expect("open").forget();
    }
    Json(answer)
}

async fn one(State(fake): State<Arc<Contacts>>, Path(id): Path<u32>) -> Response {
    fake.asked.lock().push(id);
    match fake.emails.lock().get(&id) {
        Some(email) => Json(shown(id, email)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Writes the definition of a source `hubspot` whose events come for portal 7, and the file of its sync.
pub fn lay_out(folder: &std::path::Path, url: &str) {
    let (sources, syncs) = (folder.join("sources"), folder.join("functions/hubspot/syncs"));
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::create_dir_all(&syncs).expect("a folder");
    std::fs::write(syncs.join("contacts.ts"), include_str!("../../runtime/tests/fixtures/realtime.ts"))
        .expect("written");
    let definition = json!({
        "source": "hubspot", "base_url": url, "auth": {"type": "none"},
        "webhooks": {"verify": {"scheme": "none"}, "events": ".[]", "route": ".portalId", "type": ".subscriptionType"},
        "connections": {"acme": {"metadata": {"portalId": 7}}},
    });
    std::fs::write(sources.join("hubspot.yaml"), definition.to_string()).expect("written");
}
