//! A shop that takes orders: slow on request, and it counts what it is asked.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The token that signs in.
const TOKEN: &str = "a-token-that-nobody-may-see";

/// A provider that takes orders.
#[derive(Default)]
pub struct Shop {
    /// What was ordered, in order.
    pub orders: Mutex<Vec<Value>>,
    /// Before an order is answered. It is taken before.
    pub pause: Mutex<Duration>,
    /// Before a list is answered.
    pub list_pause: Mutex<Duration>,
    /// Answers this to the next order, and does not take it.
    pub refuses: Mutex<Option<(u16, Value)>>,
    /// Requests so far, those that were not signed in, and the most at one time.
    pub seen: Mutex<Seen>,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Orders, taken or not.
    pub orders: usize,
    /// Lists.
    pub lists: usize,
    /// Not signed in.
    pub strangers: usize,
    /// At this moment.
    pub open: usize,
    /// At one time.
    pub most_open: usize,
}

impl Shop {
    /// One that listens, and where.
    pub async fn start() -> (Arc<Shop>, String) {
        let shop = Arc::new(Shop::default());
        let router = Router::new().fallback(serve).with_state(shop.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (shop, url)
    }

    /// Writes the definition of the source `shop`, with more keys of its own, and its functions: paths below its folder, texts.
    pub fn lay_out(folder: &Path, url: &str, more: &str, functions: &[(&str, &str)]) {
        for (path, text) in functions {
            let file = folder.join("functions/shop").join(path);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(file, text).expect("written");
        }
        std::fs::create_dir_all(folder.join("sources")).expect("made");
        std::fs::write(folder.join("sources/token"), TOKEN).expect("written");
        let definition = format!(
            "source: shop\nbase_url: {url}\nauth: {{type: bearer}}\n\
             connections: {{acme: {{credentials: {{token: \"file:token\"}}}}}}\n{more}"
        );
        std::fs::write(folder.join("sources/shop.yaml"), definition).expect("written");
    }

    fn take(&self, order: Value) -> Response {
        if let Some((status, body)) = self.refuses.lock().take() {
            let status = StatusCode::from_u16(status).expect("a status");
            return (status, Json(body)).into_response();
        }
        let mut orders = self.orders.lock();
        let id = orders.len() + 1;
        orders.push(order.clone());
        (StatusCode::CREATED, Json(json!({"id": id, "item": order["item"], "owner": TOKEN}))).into_response()
    }
}

/// A request that is open, until it is answered or given up.
struct Open(Arc<Shop>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.seen.lock().open -= 1;
    }
}

async fn serve(State(shop): State<Arc<Shop>>, method: Method, headers: HeaderMap, request: Request) -> Response {
    let is_order = method == Method::POST;
    {
        let mut seen = shop.seen.lock();
        seen.orders += usize::from(is_order);
        seen.lists += usize::from(!is_order);
        let signed = headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
        seen.strangers += usize::from(!signed);
        seen.open += 1;
        seen.most_open = seen.most_open.max(seen.open);
    }
    let _open = Open(shop.clone());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let answer = if is_order {
        shop.take(serde_json::from_slice(&body).unwrap_or_default())
    } else {
        let order = |(n, order): (usize, &Value)| json!({"id": n + 1, "item": order["item"]});
        let orders: Vec<Value> = shop.orders.lock().iter().enumerate().map(order).collect();
        Json(json!({"orders": orders})).into_response()
    };
    let pause = if is_order { *shop.pause.lock() } else { *shop.list_pause.lock() };
    tokio::time::sleep(pause).await;
    answer
}
