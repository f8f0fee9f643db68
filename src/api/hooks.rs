//! `POST /hooks/{source}/{token}` and fixed paths: reads the body within its bounds and hands the request to
//! [`Hooks`](crate::control::hooks::Hooks).
//!
//! No API key is asked for here: the signature proves the request. Refusals have constant bodies.

use crate::control::hooks::{Entrance, Hooks, Incoming, Reply};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;
use std::time::Duration;

/// For a whole body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// `router` with the paths of webhooks in front of it, so that a fixed path needs no route of its own.
pub fn with_hooks(router: Router, hooks: Hooks) -> Router {
    // The route makes sure that the layer sees these paths, whatever the router does with paths it does not know.
    router.route("/hooks/{*path}", any(unknown)).layer(from_fn_with_state(hooks, gate))
}

async fn unknown() -> Response {
    answer(Reply::refusal(404))
}

async fn gate(State(hooks): State<Hooks>, request: Request, next: Next) -> Response {
    match hooks.find(request.uri().path()) {
        Some(entrance) if request.method() == Method::POST => answer(take(&hooks, &entrance, request).await),
        Some(_) => answer(Reply { status: 405, body: "POST only".into(), headers: vec![("allow", "POST".into())] }),
        None => next.run(request).await,
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
        () = clock.sleep(BODY_TIME) => return Reply::refusal(408),
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
