//! `POST /hooks/{source}/{token}` and fixed paths: reads the body within its bounds and hands the request to
//! [`Hooks`].
//!
//! No API key is asked for here: the signature proves the request. Refusals have constant bodies.

use super::body;
use crate::control::hooks::{Entrance, Hooks, Incoming, Reply};
use crate::control::metrics::told;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;

/// The routes of webhooks. Which paths there are is looked up at each request: connections come and go.
pub fn router(hooks: Hooks) -> Router {
    Router::new().route("/hooks/{*path}", post(receive).fallback(not_post)).with_state(hooks)
}

async fn receive(State(hooks): State<Hooks>, request: Request) -> Response {
    match hooks.find(request.uri().path()) {
        Some(entrance) => answer(take(&hooks, &entrance, request).await),
        None => {
            told::webhook_astray();
            answer(Reply::refusal(404))
        }
    }
}

async fn not_post(State(hooks): State<Hooks>, request: Request) -> Response {
    match hooks.find(request.uri().path()) {
        Some(_) => answer(Reply { status: 405, body: "POST only".into(), headers: vec![("allow", "POST".into())] }),
        None => answer(Reply::refusal(404)),
    }
}

async fn take(hooks: &Hooks, entrance: &Entrance, request: Request) -> Reply {
    let most = match hooks.admit(entrance, request.headers()) {
        Ok(most) => most,
        Err(reply) => return reply,
    };
    let Some(_room) = hooks.reserve(most) else { return Reply::refusal(503) };
    let (head, body) = request.into_parts();
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let clock = hooks.clock();
    let read = tokio::select! {
        read = axum::body::to_bytes(body, limit) => read,
        () = clock.sleep(body::TIME) => return Reply::refusal(408),
    };
    // A body that broke off has nobody left to read an answer; what else can fail is the limit.
    let Ok(body) = read else { return Reply::refusal(413) };
    let incoming = Incoming {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    hooks.receive(entrance, incoming).await
}

fn answer(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}
