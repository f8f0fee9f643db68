//! The outside of a program that is killed: a provider whose list changes under way, and receivers that take deliveries well,
//! late or not at all. They outlive every death, so what they remember is what the program is held to.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

/// Items of a page.
const PAGE: usize = 5;

/// Everything outside of the program.
#[derive(Clone, Default)]
pub struct Outside {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    shelf: Mutex<Shelf>,
    received: Mutex<Received>,
    /// Nothing changes any more.
    frozen: AtomicBool,
}

/// What the provider has: id → version.
#[derive(Default)]
struct Shelf {
    items: BTreeMap<String, u64>,
    next: u64,
}

/// What the receivers got.
#[derive(Default)]
pub struct Received {
    /// Endpoint and id → body.
    pub bodies: BTreeMap<(String, String), String>,
    /// Ids that were refused once.
    refused: BTreeSet<String>,
}

impl Outside {
    /// Starts provider and receivers; the port.
    pub async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let router = Router::new()
            .route("/things", get(things))
            .route("/well", post(|s: State<Outside>, h: HeaderMap, b: String| s.0.take("well", h, b)))
            .route("/late", post(|s: State<Outside>, h: HeaderMap, b: String| s.0.take("late", h, b)))
            .route("/abort", post(|s: State<Outside>, h: HeaderMap, b: String| s.0.take("abort", h, b)))
            .route("/gone", post(|s: State<Outside>, h: HeaderMap, b: String| s.0.take("gone", h, b)))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// From now on the provider's list stays as it is.
    pub fn freeze(&self) {
        self.inner.frozen.store(true, Ordering::SeqCst);
    }

    /// What the provider has.
    pub fn items(&self) -> BTreeMap<String, u64> {
        lock(&self.inner.shelf).items.clone()
    }

    /// What the receivers got.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        lock(&self.inner.received)
    }

    async fn take(self, endpoint: &str, headers: HeaderMap, body: String) -> Response {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let mut received = self.received();
        if let Some(known) = received.bodies.insert((endpoint.to_owned(), id.clone()), body.clone()) {
            assert_eq!(known, body, "{id} came again to {endpoint} with another body");
        }
        match endpoint {
            // One in four, so that its lane does not fall behind.
            "late" if id.bytes().map(u64::from).sum::<u64>() % 4 == 0 && received.refused.insert(id) => {
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            "abort" => (StatusCode::BAD_REQUEST, [("webhook-delivery", "abort-message")]).into_response(),
            "gone" => StatusCode::GONE.into_response(),
            _ => StatusCode::OK.into_response(),
        }
    }
}

/// One page of the list. It changes before its first page is read and then stays until the first page is read again.
async fn things(State(outside): State<Outside>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let page: usize = query.get("page").and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut shelf = lock(&outside.inner.shelf);
    if page == 1 && !outside.inner.frozen.load(Ordering::SeqCst) {
        shelf.turn();
    }
    let all: Vec<Value> = shelf.items.iter().map(|(id, version)| json!({"id": id, "version": version})).collect();
    let items: Vec<&Value> = all.iter().skip((page - 1) * PAGE).take(PAGE).collect();
    Json(json!({"data": items, "total": all.len(), "pages": all.len().div_ceil(PAGE)}))
}

impl Shelf {
    /// Two items come, one changes, one goes.
    fn turn(&mut self) {
        for _ in 0..2 {
            self.next += 1;
            self.items.insert(format!("t{:04}", self.next), 0);
        }
        if let Some(version) = self.items.values_mut().next() {
            *version += 1;
        }
        if self.items.len() > 8 {
            let goes = self.items.keys().nth(3).cloned();
            goes.map(|id| self.items.remove(&id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
