//! The router of one process among several: each request is answered by who its route declares, here or forwarded.
//!
//! Promises: who asks any process gets what the owner answers; a request is forwarded at most once; what cannot be answered
//! for the moment (a partition between two owners) is a 503 that says when to ask again.
//!
//! | file | what |
//! |---|---|
//! | [`target`] | who answers a route, and where a request says whom it concerns |
//! | [`across`] | one request to all owners, their answers merged |
//! | [`forwarder`] | a request to the owner of a partition |
//! | `functions` | what functions of other processes ask; feature `functions` |
//! | `webhooks` | webhooks for connections that only an owner knows |

pub(super) mod across;
pub(super) mod forwarder;
#[cfg(feature = "functions")]
mod functions;
pub(super) mod target;
#[cfg(test)]
pub(super) mod tests;
mod webhooks;

use super::routes::both;
use super::{Budgeting, context_of, hooks, partition_router, routes};
use crate::admission::Address;
use crate::cluster::{ClusterMember, PROOF};
use crate::engine::source::Failure;
use crate::http::auth::Caller;
use crate::http::error::{Refusal, render};
use crate::http::request::{self, Numbers, RequestId};
use crate::http::{answers, sender};
use across::Across;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, any, on};
use forwarder::{BufferedRequest, CLIENT, FORWARDED, Forwarder};
use parking_lot::Mutex;
use std::sync::Arc;
use target::{ConnectionsKnown, Destination, RequestNames, RouteTarget};
use tokio_util::sync::CancellationToken;

/// Most bytes of a body that is forwarded.
const BODY_BYTES: usize = 4 << 20;

/// The routes of a process among several. Inside a runtime.
pub fn router(member: Arc<dyn ClusterMember>, stopping: CancellationToken) -> Result<Router, Failure> {
    let front = member.front().clone();
    let local = partition_router(front.clone(), stopping.clone(), front.bounds.clone(), Budgeting::Before);
    let numbers = Numbers::new(front.engine.clock());
    let http = context_of(&front, front.bounds.clone());
    let forwarder = Forwarder::new(member, http, local, stopping)?;
    tokio::spawn(forwarder.clone().release_closed());
    let declared = routes(&front.settings);
    let all = declared.iter().fold(Router::new(), |router, route| {
        let target = route.target.clone();
        let forward =
            move |State(forwarder): State<Forwarder>,
                  parameters: Result<RawPathParams, RawPathParamsRejection>,
                  request: Request| async move { answer(&forwarder, &target, parameters.ok(), request).await };
        let method = route.method.clone().and_then(|method| MethodFilter::try_from(method).ok());
        both(router, &route.path, method.map_or_else(|| any(forward.clone()), |method| on(method, forward.clone())))
    });
    // What is served nowhere gets the refusal of one process.
    let all = all.fallback(local_answer).method_not_allowed_fallback(local_answer);
    let all = all.layer(from_fn_with_state(forwarder.clone(), admit)).layer(from_fn(render));
    let all = all.layer(from_fn_with_state(numbers, request::number)).with_state(forwarder.clone());
    #[cfg(feature = "functions")]
    let all = all.merge(functions::router(forwarder.clone()));
    let hooks = hooks::router(front.hooks.clone()).layer(from_fn_with_state(forwarder, webhooks::forward));
    Ok(all.merge(hooks))
}

/// What every request goes through: it is counted, named, and answered at once if another process has forwarded it.
async fn admit(State(forwarder): State<Forwarder>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let partition = sent_by_member(&forwarder, &mut head);
    // What another process forwards was counted there.
    if partition.is_none()
        && let Err(refusal) = forwarder.http.spend(&mut head)
    {
        return refusal.into_response();
    }
    // Whoever it is forwarded to calls it by the same id.
    if let Some(id) = head.extensions.get::<RequestId>().and_then(|id| HeaderValue::from_str(&id.0).ok()) {
        head.headers.insert(request::HEADER, id);
    }
    let request = Request::from_parts(head, body);
    match partition.flatten() {
        Some(partition) => forwarder.forwarded(partition, request).await.unwrap_or_else(Refusal::into_response),
        None => next.run(request).await,
    }
}

/// Takes off what only processes of the cluster say to each other. `Some`: one of them sends this, for the partition within;
/// the client's address is put in the place of the process's.
fn sent_by_member(forwarder: &Forwarder, head: &mut Parts) -> Option<Option<i32>> {
    let [proof, partition, client] = [PROOF, FORWARDED, CLIENT].map(|name| head.headers.remove(name));
    let text = |value: Option<HeaderValue>| value.and_then(|value| value.to_str().ok().map(str::to_owned));
    text(proof).filter(|proof| forwarder.member.is_own(proof))?;
    if let Some(client) = text(client).and_then(|client| client.parse::<Address>().ok()) {
        head.extensions.insert(client);
    }
    Some(text(partition).and_then(|partition| partition.parse().ok()))
}

async fn local_answer(State(forwarder): State<Forwarder>, request: Request) -> Response {
    forwarder.local(request).await
}

/// Answers a request as its route declares.
async fn answer(
    forwarder: &Forwarder,
    target: &RouteTarget,
    parameters: Option<RawPathParams>,
    request: Request,
) -> Response {
    let http = &forwarder.http;
    let known = request.extensions().get::<Caller>().cloned();
    let caller = known.or_else(|| http.caller(request.headers()).ok());
    // Probes need no key; for the rest this process has the right refusal.
    let (false, Some(caller), Some(parameters)) = (matches!(target, RouteTarget::Local), caller, parameters) else {
        return forwarder.local(request).await;
    };
    if matches!(target, RouteTarget::Passed(_)) {
        return passed(forwarder, target, &caller, request).await;
    }
    let (mut head, body) = request.into_parts();
    // Held until the answer is there: the body may be asked with several times.
    let mut memory = http.bounds.bodies.share([caller.key, sender(&head.extensions).holder()]);
    let body = match http.body(body, BODY_BYTES, &mut memory).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    if head.method == Method::HEAD {
        // The router of this process leaves out the body.
        head.method = Method::GET;
    }
    let parameters: Vec<(String, String)> = parameters.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let destination = destination(forwarder, target, &caller, &head, &parameters, &body);
    let gathered = Arc::new(Mutex::new(http.bounds.answers.share(caller.holders())));
    let request = BufferedRequest { head, body, gathered: gathered.clone() };
    let answer = match destination {
        Destination::Local => return forwarder.local(request.whole()).await,
        Destination::Owner(partition) => {
            return forwarder.owner(partition, &request).await.unwrap_or_else(Refusal::into_response);
        }
        Destination::Refused(advice) => return Refusal::bad("name_a_connection", advice).into_response(),
        Destination::Alone(advice) => {
            return Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_in_a_cluster", advice).into_response();
        }
        Destination::All(gather) => gather(Across { forwarder: forwarder.clone(), request, caller, parameters }).await,
    };
    // What owners said is one answer now, which takes its own size of what they took.
    let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let memory = gathered.lock().split(size.unwrap_or_default());
    if memory.amount() > 0 { answers::with_memory(answer, memory).await } else { answer }
}

/// Whoever it concerns answers, and takes the body as it comes.
async fn passed(forwarder: &Forwarder, target: &RouteTarget, caller: &Caller, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let destination = destination(forwarder, target, caller, &head, &[], &[]);
    let request = Request::from_parts(head, body);
    match destination {
        Destination::Owner(partition) => {
            forwarder.passed(partition, request).await.unwrap_or_else(Refusal::into_response)
        }
        _ => forwarder.local(request).await,
    }
}

fn destination(
    forwarder: &Forwarder,
    target: &RouteTarget,
    caller: &Caller,
    head: &Parts,
    parameters: &[(String, String)],
    body: &[u8],
) -> Destination {
    let only_source = |connection: &str| {
        let all = forwarder.member.front().connections.list(&caller.environment);
        let mut found = all.iter().filter(|account| account.key.id == connection);
        found.next().filter(|_| found.next().is_none()).map(|account| account.key.source.clone())
    };
    let known = ConnectionsKnown { spread: forwarder.spread(), only_source: &only_source };
    target.resolve(&RequestNames { head, parameters, body, environment: &caller.environment }, &known)
}
