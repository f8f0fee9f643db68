//! The door of one process among several: each request is answered by the owner of its connection's partition, here or
//! handed on.
//!
//! Promises: who asks any process gets what the owner answers; a request is handed on at most once; what cannot be answered
//! for the moment (a partition between two owners) is a 503 that says when to ask again. Webhooks are taken by every process.
//!
//! | request | who answers |
//! |---|---|
//! | `/hooks/…`, probes, what is configured | this process |
//! | names a connection: headers, query, path or body | the owner of its partition |
//! | names a list of connections in its body | the owner of their partition, if they have one: else 400 `name_a_connection` |
//! | names a run | the part that gave it its number |
//! | `GET /sync/status`, `/v1/runs`, `/v1/deletes`, `/v1/inputs` of all connections | all owners, lists put together |
//! | `GET /connections` | all owners, put together and paged here (`connections`) |
//! | `POST /sync/…` for all connections | all owners |
//! | `/v1/views…` | all owners, put together view by view (`views`) |
//! | `/v1/endpoints…` | all owners: one that is disabled for some of them is disabled |
//! | `POST /v1/inputs/…` | all owners, each for what has stopped there (`inputs`) |
//! | `/v1/quarantine…`, `/v1/deliveries…` | all owners: their pages are one page, their counts are added (`paged`) |
//! | `/v1/changes`, `/v1/records` of several connections | nobody: 400 `name_a_connection` |

mod connections;
mod inputs;
mod paged;
mod views;

use super::Budgeting;
use super::answers::{self, Starved};
use super::auth::{self, Caller};
use super::body;
use super::budget;
use super::error::{Refusal, render};
use super::request::{self, Numbers, RequestId};
use crate::admission::{Address, Share};
use crate::app::App;
use crate::cluster::spread::Spread;
use crate::cluster::{Node, PROOF, Place};
use crate::connectors::http::{Forward, Method, Url};
use crate::engine::Engine;
use crate::engine::model::Cause;
use crate::engine::source::Failure;
use crate::engine::time::Clock;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Most bytes of a body that is handed on.
const BODY_BYTES: usize = 4 << 20;
/// What an owner says takes so many times its size while it is put together with what others say.
const VALUE_COPIES: usize = 4;
/// The partition for which a request was handed on: it goes no further.
const HANDED_ON: &str = "syncline-handed-on";

/// The routes of a process among several. Inside a runtime.
pub fn router(node: Arc<Node>, stopping: CancellationToken) -> Result<Router, Failure> {
    let bounds = node.front().bounds.clone();
    let front = super::routes(node.front().clone(), stopping.clone(), bounds, Budgeting::Before);
    let numbers = Numbers::new(node.front().engine.clock());
    let door = Door { node, front, parts: Arc::default(), forward: Forward::new()?, stopping };
    tokio::spawn(let_go(door.clone()));
    let router = Router::new().fallback(answer).layer(from_fn(render));
    Ok(router.layer(from_fn_with_state(numbers, request::number)).with_state(door))
}

#[derive(Clone)]
struct Door {
    node: Arc<Node>,
    front: Router,
    /// Partitions that are open here, as far as they were asked for.
    parts: Arc<Mutex<BTreeMap<i32, Opened>>>,
    forward: Forward,
    stopping: CancellationToken,
}

/// A partition that is open here.
struct Opened {
    app: Arc<App>,
    router: Router,
    /// Ends answers that wait for changes of it.
    closing: CancellationToken,
}

/// Forgets partitions that are not open here any more: as long as somebody holds one, its folder cannot be opened again when
/// it comes back.
async fn let_go(door: Door) {
    let mut moved = door.node.moved();
    while tokio::select! {
        moved = moved.changed() => moved.is_ok(),
        () = door.stopping.cancelled() => false,
    } {
        door.parts().retain(|partition, opened| {
            let here = door.is_here(*partition, &opened.app);
            if !here {
                opened.closing.cancel();
            }
            here
        });
    }
}

/// Whom a request concerns.
enum Concern {
    /// Whoever takes it.
    Anybody,
    /// The owner of one partition.
    One(i32),
    /// All owners.
    All,
    /// All owners, and what they say of a view is one answer.
    Views,
    /// All owners, and what they say of an endpoint is one answer.
    Endpoints,
    /// All owners, and their connections are one list.
    Connections,
    /// All owners, and their pages are one page.
    Paged(paged::PagedList),
    /// All owners, and what they count is added.
    Counted,
    /// All owners, as far as an input has stopped there.
    Restart,
    /// Several connections, where only one can be asked for; what to do instead.
    Several(&'static str),
}

/// What to do where connections of several partitions are followed.
const FOLLOW_ONE: &str = "connections are spread over several processes: follow each with `connections=ID`, or all of them \
                          in their Kafka topic";
/// What to do where connections of several partitions are changed: all or none cannot be kept over them.
const CHANGE_ONE: &str = "these connections belong to several partitions, which cannot be changed together: send a call for \
                          each connection";

/// What to do where a connection is made: the id says whose it is.
const NAME_IT: &str = "connections are spread over several processes by their ids: name `connection_id`";

async fn answer(State(door): State<Door>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    // What another process hands on was counted there; hooks count for themselves.
    let own = super::query::header(&head.headers, PROOF).is_some_and(|proof| door.node.is_own(&proof));
    let front = door.node.front();
    if !own
        && !head.uri.path().starts_with("/hooks/")
        && let Err(refusal) = budget::check(&front.bounds, &front.settings.api_keys, &mut head, door.clock().now())
    {
        return refusal.into_response();
    }
    head.headers.remove(PROOF);
    let known = head.extensions.get::<Caller>().cloned();
    let Some(caller) = known.or_else(|| auth::find(&head.headers, &front.settings.api_keys).ok()) else {
        // Hooks and probes need no key; for the rest the front has the right refusal.
        return pass(&door.front, Request::from_parts(head, body)).await;
    };
    if is_for_anybody(head.uri.path()) {
        return pass(&door.front, Request::from_parts(head, body)).await;
    }
    // Whoever it is handed on to calls it by the same id.
    if let Some(id) = head.extensions.get::<RequestId>().and_then(|id| HeaderValue::from_str(&id.0).ok()) {
        head.headers.insert(request::HEADER, id);
    }
    let from = head.extensions.get::<Address>().copied().unwrap_or(Address::UNKNOWN);
    // Held until the answer is there: the body may be asked with several times.
    let mut memory = front.bounds.bodies.share([caller.key, from.holder()]);
    let body = match body::whole(body, BODY_BYTES, &mut memory, &*door.clock()).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let meant = head.headers.remove(HANDED_ON).and_then(|value| value.to_str().ok()?.parse::<i32>().ok());
    let only_source = |connection: &str| only_source(&door, &caller.environment, connection);
    let concern = concern(door.node.spread(), only_source, &caller.environment, &head, &body);
    let gathered = Arc::new(Mutex::new(front.bounds.answers.share(caller.holders())));
    let whole = Whole { head, body, gathered: gathered.clone() };
    if let Some(partition) = meant {
        return door.ask(partition, &whole, true).await.unwrap_or_else(Refusal::into_response);
    }
    let answer = match concern {
        Concern::Anybody => pass(&door.front, whole.request()).await,
        Concern::One(partition) => door.ask(partition, &whole, false).await.unwrap_or_else(Refusal::into_response),
        Concern::All => door.ask_all(&whole).await,
        Concern::Views => views::answer(&door, &caller, &whole).await.unwrap_or_else(|why| *why),
        Concern::Endpoints => match views::listed(&door, &whole, "/v1/endpoints", "endpoints").await {
            Ok(endpoints) => axum::Json(json!({"endpoints": endpoints})).into_response(),
            Err(why) => *why,
        },
        Concern::Connections => connections::answer(&door, &whole).await.unwrap_or_else(|why| *why),
        Concern::Paged(list) => paged::list(&door, list, &whole).await.unwrap_or_else(|why| *why),
        Concern::Counted => paged::change(&door, &whole).await.unwrap_or_else(|why| *why),
        Concern::Restart => inputs::answer(&door, &whole).await,
        Concern::Several(message) => Refusal::bad("name_a_connection", message).into_response(),
    };
    // What owners said is one answer now, which takes its own size of what they took.
    let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let memory = gathered.lock().unwrap_or_else(PoisonError::into_inner).split(size.unwrap_or_default());
    drop(whole);
    if memory.amount() > 0 { answers::with_memory(answer, memory).await } else { answer }
}

/// A request with its whole body, to be asked more than once.
struct Whole {
    head: axum::http::request::Parts,
    body: Bytes,
    /// Memory of what owners answered.
    gathered: Arc<Mutex<Share>>,
}

impl Whole {
    /// The same with another head.
    fn headed(&self, head: axum::http::request::Parts) -> Whole {
        Whole { head, body: self.body.clone(), gathered: self.gathered.clone() }
    }

    /// Memory for so many bytes more of what owners answer.
    fn gather(&self, bytes: usize) -> bool {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = gathered.amount() + VALUE_COPIES * bytes;
        gathered.grow_to(wanted)
    }

    fn request(&self) -> Request {
        Request::from_parts(self.head.clone(), Body::from(self.body.clone()))
    }
}

async fn pass(router: &Router, request: Request) -> Response {
    let Ok(response) = router.clone().oneshot(request).await;
    response
}

fn is_for_anybody(path: &str) -> bool {
    ["/hooks/", "/healthz", "/readyz", "/metrics", "/v1/schemas"].iter().any(|known| path.starts_with(known))
}

/// Reads whom a request concerns, without judging whether it is well made: the owner does.
fn concern(
    spread: Spread,
    only_source: impl Fn(&str) -> Option<String>,
    environment: &str,
    head: &axum::http::request::Parts,
    body: &[u8],
) -> Concern {
    let path = head.uri.path().trim_end_matches('/');
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    // Whatever connection is named beside it: a view is one in the whole installation.
    if path == "/v1/views" || path.starts_with("/v1/views/") {
        return Concern::Views;
    }
    // Each owner delivers for its own connections, and each may have been told that the endpoint is gone.
    if path == "/v1/endpoints" && [Method::GET, Method::HEAD].contains(&head.method) {
        return Concern::Endpoints;
    }
    if path == "/v1/endpoints" || path.starts_with("/v1/endpoints/") {
        return Concern::All;
    }
    let of_connections = matches!(path, "/connections" | "/connection" | "/v1/connections");
    if of_connections && head.method == Method::GET {
        return Concern::Connections;
    }
    if let Some(list) = paged::PagedList::at(path) {
        return Concern::Paged(list);
    }
    if path.starts_with("/v1/quarantine/") || path.starts_with("/v1/deliveries/") {
        return Concern::Counted;
    }
    if path.starts_with("/v1/inputs/") && head.method == Method::POST {
        return Concern::Restart;
    }
    if let Some(id) = path.strip_prefix("/v1/runs/").or_else(|| path.strip_prefix("/v1/deletes/")) {
        let run = id.split('/').next().and_then(Cause::parse);
        return run.map_or(Concern::Anybody, |run| Concern::One(i32::from(Engine::part_of(run.number))));
    }
    let header = |name: &str| super::query::header(&head.headers, name);
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = |names: &[&str]| {
        let query = names.iter().find_map(|name| query.get(*name).filter(|v| !v.is_empty()).cloned());
        let field = || names.iter().find_map(|name| body.get(*name)?.as_str().map(str::to_owned));
        query.or_else(field)
    };
    let listed: Vec<&str> = match body.get("connection_id") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let in_path = ["/connections/", "/connection/", "/v1/connections/"].into_iter().find_map(|p| path.strip_prefix(p));
    let in_path = in_path.filter(|rest| !rest.is_empty() && !rest.contains('/') && *rest != "metadata");
    let connection = in_path
        .map(str::to_owned)
        .or_else(|| said(&["connection_id", "connections", "connection"]))
        .or_else(|| listed.first().map(|id| id.to_string()))
        .or_else(|| header("connection-id"));
    let source = said(&["provider_config_key", "source", "integration_id"]).or_else(|| header("provider-config-key"));
    match (source, connection) {
        (Some(source), Some(_)) if listed.len() > 1 => {
            let mut partitions = listed.iter().map(|id| spread.of(environment, &source, id));
            let first = partitions.next().unwrap_or_default();
            if partitions.all(|one| one == first) { Concern::One(first) } else { Concern::Several(CHANGE_ONE) }
        }
        (Some(source), Some(one)) if !one.contains(',') => Concern::One(spread.of(environment, &source, &one)),
        (None, Some(one)) if !one.contains(',') => match only_source(&one) {
            Some(source) => Concern::One(spread.of(environment, &source, &one)),
            None => Concern::Anybody,
        },
        _ if of_connections => Concern::Several(NAME_IT),
        _ if path == "/v1/changes" || path == "/v1/records" => Concern::Several(FOLLOW_ONE),
        _ => match path {
            "/sync/status" | "/sync/trigger" | "/sync/start" | "/sync/pause" | "/v1/runs" | "/v1/deletes"
            | "/v1/inputs" => Concern::All,
            _ => Concern::Anybody,
        },
    }
}

/// The source of a connection whose id is unique in its environment.
fn only_source(door: &Door, environment: &str, connection: &str) -> Option<String> {
    let all = door.node.front().connections.list(environment);
    let mut found = all.iter().filter(|account| account.key.id == connection);
    found.next().filter(|_| found.next().is_none()).map(|account| account.key.source.clone())
}

impl Door {
    fn clock(&self) -> Arc<dyn Clock> {
        self.node.front().engine.clock()
    }

    /// Asks the owner of a partition.
    async fn ask(&self, partition: i32, whole: &Whole, handed_on: bool) -> Result<Response, Refusal> {
        match self.node.place(partition) {
            Place::Here(app) => Ok(pass(&self.router_of(partition, app), whole.request()).await),
            Place::There(url) if !handed_on => self.hand_on(&url, partition, whole).await,
            // The other process sent it here, or nobody has it: between two owners for a moment.
            Place::There(_) | Place::Nowhere => {
                Err(Refusal::busy("partition_moving", format!("partition {partition} has no owner yet; ask again")))
            }
        }
    }

    fn router_of(&self, partition: i32, app: Arc<App>) -> Router {
        let mut parts = self.parts();
        if let Some(known) = parts.get(&partition).filter(|known| Arc::ptr_eq(&known.app, &app)) {
            return known.router.clone();
        }
        let closing = self.stopping.child_token();
        let bounds = self.node.front().bounds.clone();
        let router = super::routes(app.clone(), closing.clone(), bounds, Budgeting::Before);
        // One that was closed in between is not kept: nobody would forget it.
        if self.is_here(partition, &app) {
            parts.insert(partition, Opened { app, router: router.clone(), closing });
        }
        router
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<i32, Opened>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is what is open of the partition.
    fn is_here(&self, partition: i32, app: &Arc<App>) -> bool {
        matches!(self.node.place(partition), Place::Here(now) if Arc::ptr_eq(&now, app))
    }

    async fn hand_on(&self, url: &str, partition: i32, whole: &Whole) -> Result<Response, Refusal> {
        let unreachable = |why: String| Refusal::busy("owner_unreachable", why);
        let target = whole.head.uri.path_and_query().map_or("/", |p| p.as_str());
        let url = Url::parse(&format!("{url}{target}")).map_err(|e| unreachable(format!("{url}: {e}")))?;
        let mut headers = whole.head.headers.clone();
        headers.insert(HANDED_ON, HeaderValue::from(partition));
        let proof = HeaderValue::from_str(&self.node.proof()).map_err(|e| unreachable(e.to_string()))?;
        headers.insert(PROOF, proof);
        let method = Method::from_bytes(whole.head.method.as_str().as_bytes()).unwrap_or(Method::GET);
        let passed = self.forward.send(method, url, &headers, whole.body.clone()).await;
        let passed = passed.map_err(|e| unreachable(format!("the owner of the partition cannot be asked: {e}")))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = passed.status;
        *response.headers_mut() = passed.headers.clone();
        *response.body_mut() = Body::from_stream(passed.stream());
        Ok(response)
    }

    /// Asks all owners; their lists are put together, and the first refusal is the answer.
    async fn ask_all(&self, whole: &Whole) -> Response {
        let mut all: Option<Value> = None;
        for partition in 0..self.node.spread().count {
            let told = match self.told(partition, whole).await {
                Ok(told) => told,
                Err(refusal) => return refusal.into_response(),
            };
            match told.json() {
                Some(value) => all = Some(all.map_or(value.clone(), |all| together(all, value))),
                None => return told.into_response(),
            }
        }
        axum::Json(all.unwrap_or_default()).into_response()
    }

    /// Asks the owner of a partition and reads its whole answer.
    async fn told(&self, partition: i32, whole: &Whole) -> Result<Told, Refusal> {
        let (head, mut body) = self.ask(partition, whole, false).await?.into_parts();
        let mut told = Vec::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| Refusal::busy("owner_unreachable", "an answer broke off; ask again");
            let data = frame.map_err(broken)?.into_data().unwrap_or_default();
            if !whole.gather(data.len()) {
                return Err(Starved.into());
            }
            told.extend_from_slice(&data);
        }
        Ok(Told { head, body: told.into() })
    }
}

/// What an owner answered.
struct Told {
    head: axum::http::response::Parts,
    body: Bytes,
}

impl Told {
    /// What it says, if it is no refusal.
    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(|_| self.head.status.is_success())
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        Response::from_parts(self.head, Body::from(self.body))
    }
}

/// Two answers of the same form as one: lists one after the other, the rest as the first says.
fn together(all: Value, more: Value) -> Value {
    match (all, more) {
        (Value::Array(all), Value::Array(more)) => Value::Array(all.into_iter().chain(more).collect()),
        (Value::Object(mut all), Value::Object(more)) => {
            for (name, value) in more {
                let joined = match all.remove(&name) {
                    Some(known) => together(known, value),
                    None => value,
                };
                all.insert(name, joined);
            }
            Value::Object(all)
        }
        (all, _) => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Holder, Pool};
    use crate::engine::model::Timestamp;
    use crate::engine::time::ManualClock;
    use axum::http::StatusCode;
    use futures_util::{poll, stream};
    use serde_json::json;
    use std::convert::Infallible;

    /// What an owner answered.
    pub(super) fn told(status: u16, body: Value) -> Told {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).expect("a status");
        Told { head, body: body.to_string().into() }
    }

    fn memory() -> Share {
        Pool::new(1 << 20, 1 << 10).share([Holder::of("test", 1); 2])
    }

    /// A body that never comes, as somebody sends it who only wants to hold a place.
    fn never() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_waited_for_within_bounds() {
        let clock = ManualClock::new(Timestamp(0));
        let (mut memory, mut more) = (memory(), memory());
        let mut waiting = std::pin::pin!(body::whole(never(), BODY_BYTES, &mut memory, &clock));
        assert!(poll!(waiting.as_mut()).is_pending());
        clock.advance(body::TIME);
        let refusal = waiting.await.expect_err("no body came");
        assert_eq!(refusal.into_response().status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(body::whole(Body::from("{}"), BODY_BYTES, &mut more, &clock).await.expect("a body"), "{}");
    }

    /// Whom a request of the environment `default` concerns, in six partitions: the only source is `crm`.
    fn concerns(method: &str, path: &str, body: Value) -> Concern {
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let only_source = |_: &str| Some("crm".to_owned());
        concern(Spread { count: 6 }, only_source, "default", &request.into_parts().0, body.to_string().as_bytes())
    }

    #[test]
    fn lists_of_connections_are_their_owners() {
        let metadata = |ids: Value| {
            let body = json!({"connection_id": ids, "provider_config_key": "crm", "metadata": {}});
            concerns("POST", "/connections/metadata", body)
        };
        // `zenith` and `b` are of partition 0, `acme` of 4.
        assert!(matches!(metadata(json!("acme")), Concern::One(4)));
        assert!(matches!(metadata(json!(["acme"])), Concern::One(4)), "a list of one is that one");
        assert!(matches!(metadata(json!(["zenith", "b"])), Concern::One(0)));
        assert!(matches!(metadata(json!(["zenith", "acme"])), Concern::Several(CHANGE_ONE)));
        assert!(matches!(metadata(json!([])), Concern::Anybody), "any process refuses that");
    }

    #[test]
    fn what_only_owners_know_is_asked_of_all() {
        assert!(matches!(concerns("GET", "/connections?search=a", Value::Null), Concern::Connections));
        assert!(matches!(concerns("GET", "/connection/", Value::Null), Concern::Connections));
        for path in ["/connections/acme", "/v1/connections/acme"] {
            assert!(matches!(concerns("GET", path, Value::Null), Concern::One(4)));
            let deletes = format!("{path}?provider_config_key=crm");
            assert!(matches!(concerns("DELETE", &deletes, Value::Null), Concern::One(4)));
        }
        let named = json!({"connection_id": "acme", "provider_config_key": "crm"});
        assert!(matches!(concerns("POST", "/connections", named), Concern::One(4)));
        let unnamed = json!({"provider_config_key": "crm"});
        assert!(matches!(concerns("POST", "/v1/connections", unnamed), Concern::Several(NAME_IT)));
        assert!(matches!(concerns("GET", "/v1/inputs", Value::Null), Concern::All));
        let quarantine = concerns("GET", "/v1/quarantine?source=crm&connection=acme", Value::Null);
        assert!(matches!(quarantine, Concern::Paged(paged::PagedList::Quarantine)));
        assert!(matches!(concerns("POST", "/v1/deliveries/retry", json!({"endpoint": "a"})), Concern::Counted));
        let start = json!({"start": "earliest"});
        assert!(matches!(concerns("POST", "/v1/inputs/orders/restart", start), Concern::Restart));
        assert!(matches!(concerns("GET", "/v1/changes", Value::Null), Concern::Several(FOLLOW_ONE)));
    }

    #[test]
    fn lists_of_several_owners_are_one_list() {
        let all = together(json!({"syncs": [1], "x": true}), json!({"syncs": [2, 3], "x": true, "y": null}));
        assert_eq!(all, json!({"syncs": [1, 2, 3], "x": true, "y": null}));
    }
}
