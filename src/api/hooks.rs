//! `POST /hooks/{source}/{token}` and fixed paths: reads the body within its bounds and hands the request to
//! [`Hooks`].
//!
//! No API key is asked for here: the signature proves the request. Refusals have constant bodies.

use crate::admission::{Address, Share};
use crate::engine::fault::pass;
use crate::http::body::{self, Unread};
use crate::ingest::webhooks::{Admitted, Entrance, Hooks, Incoming, Reply};
use crate::telemetry::record;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;

/// The routes of webhooks. Which paths there are is looked up at each request: connections come and go.
pub fn router(hooks: Hooks) -> Router {
    let routes = Router::new().route("/hooks/{*path}", post(receive).fallback(not_post));
    routes.layer(from_fn_with_state(hooks.clone(), budget)).with_state(hooks)
}

/// What an address may ask in all, whatever it asks.
async fn budget(State(hooks): State<Hooks>, request: Request, next: Next) -> Response {
    match within_budget(&hooks, &request) {
        Ok(()) => next.run(request).await,
        Err(reply) => answer(reply),
    }
}

fn within_budget(hooks: &Hooks, request: &Request) -> Result<(), Reply> {
    let from = sender(request).unwrap_or(Address::UNKNOWN);
    hooks.bounds().request(from, hooks.clock().now()).map_err(|why| {
        record::over_budget(why.budget);
        let headers = vec![("retry-after", why.seconds().to_string())];
        Reply { headers, ..Reply::refusal(429) }
    })
}

async fn receive(State(hooks): State<Hooks>, request: Request) -> Response {
    pass("in.accepted");
    match hooks.find(request.uri().path()) {
        Some(entrance) => answer(take(&hooks, &entrance, request).await),
        None => {
            record::webhook_astray();
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
    let (incoming, body) = incoming(request);
    let mut admitted = match hooks.admit(entrance, &incoming) {
        Ok(admitted) => admitted,
        Err(reply) => return reply,
    };
    pass("in.headers");
    // The memory is given back once the answer is there: until then the body is in it.
    match read(hooks, entrance, &mut admitted, body).await {
        Ok(body) => {
            pass("in.body_full");
            let reply = hooks.receive(entrance, Incoming { body, ..incoming }).await;
            pass("ack.before");
            reply
        }
        Err(reply) => reply,
    }
}

/// A request whose proof another process asks for: its head, its body and the memory of it, within the budgets of its path.
pub(super) async fn unproven(hooks: &Hooks, request: Request) -> Result<(Parts, Bytes, Share), Reply> {
    within_budget(hooks, &request)?;
    let (head, body) = request.into_parts();
    let (incoming, body) = incoming(Request::from_parts(head.clone(), body));
    let (entrance, mut admitted) = hooks.admit_for_owner(&incoming)?;
    let body = read(hooks, &entrance, &mut admitted, body).await?;
    Ok((head, body, admitted.memory))
}

fn incoming(request: Request) -> (Incoming, Body) {
    let from = sender(&request);
    let (head, body) = request.into_parts();
    let incoming = Incoming {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: Bytes::new(),
        from,
    };
    (incoming, body)
}

async fn read(hooks: &Hooks, entrance: &Entrance, admitted: &mut Admitted, body: Body) -> Result<Bytes, Reply> {
    let most = usize::try_from(admitted.most).unwrap_or(usize::MAX);
    let read = body::read(body, most, &mut admitted.memory, &*hooks.clock()).await;
    read.map_err(|why| hooks.turned_away(entrance, status(why)))
}

fn status(why: Unread) -> u16 {
    match why {
        Unread::TooLarge => 413,
        Unread::TooSlow => 408,
        Unread::NoMemory => 503,
        // Nobody is left to read it.
        Unread::CutOff => 400,
    }
}

fn sender(request: &Request) -> Option<Address> {
    request.extensions().get::<Address>().copied()
}

/// A reply as it is sent.
pub(super) fn answer(reply: Reply) -> Response {
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
