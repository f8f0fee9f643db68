//! Requests to the owners of partitions, which are here or in other processes.
//!
//! Promises: a request is forwarded at most once; one to a partition that has no owner for the moment is a 503 that says when
//! to ask again; what owners answer is read within the memory of answers.

use crate::admission::{Address, Share};
use crate::api::{Budgeting, partition_router};
use crate::app::App;
use crate::cluster::spread::Spread;
use crate::cluster::{ClusterMember, PROOF, ShardPlace};
use crate::connectors::http::{Forward, Method, PassedBody, Url};
use crate::engine::source::Failure;
use crate::http::HttpContext;
use crate::http::answers::Starved;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::header;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, response};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use parking_lot::{Mutex, MutexGuard};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What an owner says takes so many times its size while it is merged with what others say.
const VALUE_COPIES: usize = 4;
/// The partition for which a request was forwarded: it goes no further.
pub(super) const FORWARDED: &str = "syncline-handed-on";
/// The address of the client whose request is forwarded.
pub(super) const CLIENT: &str = "syncline-client";

/// Forwards requests to owners. Cheap to clone.
#[derive(Clone)]
pub(in crate::api) struct Forwarder {
    pub(super) member: Arc<dyn ClusterMember>,
    /// What requests and answers need of this process.
    pub(super) http: HttpContext,
    /// The routes of this process, which answers them with what is configured.
    local: Router,
    /// Partitions that are open here, as far as they were asked for.
    open: Arc<Mutex<BTreeMap<i32, OpenPartition>>>,
    forward: Forward,
    stopping: CancellationToken,
}

/// A partition that is open here.
struct OpenPartition {
    app: Arc<App>,
    router: Router,
    /// Ends answers that wait for changes of it.
    closing: CancellationToken,
}

/// A request with its whole body, to be asked more than once.
#[derive(Clone)]
pub(in crate::api) struct BufferedRequest {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    /// Memory of what owners answered.
    pub(super) gathered: Arc<Mutex<Share>>,
}

/// What an owner answered.
pub(in crate::api) struct OwnerAnswer {
    /// Status and headers.
    pub head: response::Parts,
    /// The whole body.
    pub body: Bytes,
}

impl Forwarder {
    /// Of this process, until it stops.
    pub(super) fn new(
        member: Arc<dyn ClusterMember>,
        http: HttpContext,
        local: Router,
        stopping: CancellationToken,
    ) -> Result<Forwarder, Failure> {
        Ok(Forwarder { member, http, local, open: Arc::default(), forward: Forward::new()?, stopping })
    }

    pub(super) fn spread(&self) -> Spread {
        self.member.spread()
    }

    /// This process answers.
    pub(super) async fn local(&self, request: Request) -> Response {
        pass(&self.local, request).await
    }

    /// The owner of a partition answers.
    pub(super) async fn owner(&self, partition: i32, request: &BufferedRequest) -> Result<Response, Refusal> {
        match self.member.place(partition) {
            ShardPlace::Here(app) => Ok(pass(&self.router_of(partition, app), request.whole()).await),
            ShardPlace::There(url) => {
                self.forward(&url, partition, &request.head, PassedBody::Whole(request.body.clone())).await
            }
            ShardPlace::Nowhere => Err(moving(partition)),
        }
    }

    /// The owner of a partition answers a request whose body is still to come.
    pub(super) async fn passed(&self, partition: i32, request: Request) -> Result<Response, Refusal> {
        match self.member.place(partition) {
            ShardPlace::Here(app) => Ok(pass(&self.router_of(partition, app), request).await),
            ShardPlace::There(url) => {
                let (head, body) = request.into_parts();
                let length = header(&head.headers, "content-length").and_then(|text| text.parse().ok());
                let body = match body.is_end_stream() {
                    true => PassedBody::None,
                    false => PassedBody::Passing(
                        TryStreamExt::map_err(body.into_data_stream(), io::Error::other).boxed(),
                        length,
                    ),
                };
                self.forward(&url, partition, &head, body).await
            }
            ShardPlace::Nowhere => Err(moving(partition)),
        }
    }

    /// A request that another process has forwarded here.
    pub(super) async fn forwarded(&self, partition: i32, request: Request) -> Result<Response, Refusal> {
        match self.member.place(partition) {
            ShardPlace::Here(app) => Ok(pass(&self.router_of(partition, app), request).await),
            ShardPlace::There(_) | ShardPlace::Nowhere => Err(moving(partition)),
        }
    }

    /// The owner of a partition answers, and its whole answer is read.
    pub(super) async fn owner_answer(&self, partition: i32, request: &BufferedRequest) -> Result<OwnerAnswer, Refusal> {
        let (head, mut body) = self.owner(partition, request).await?.into_parts();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| Refusal::busy("owner_unreachable", "an answer broke off; ask again");
            let data = frame.map_err(broken)?.into_data().unwrap_or_default();
            if !request.gather(data.len()) {
                return Err(Starved.into());
            }
            whole.extend_from_slice(&data);
        }
        Ok(OwnerAnswer { head, body: whole.into() })
    }

    /// Forgets partitions that are not open here any more: as long as somebody holds one, its folder cannot be opened again
    /// when it comes back.
    pub(super) async fn release_closed(self) {
        let mut moved = self.member.moved();
        while tokio::select! {
            moved = moved.changed() => moved.is_ok(),
            () = self.stopping.cancelled() => false,
        } {
            self.open().retain(|partition, open| {
                let here = self.is_here(*partition, &open.app);
                if !here {
                    open.closing.cancel();
                }
                here
            });
        }
    }

    fn router_of(&self, partition: i32, app: Arc<App>) -> Router {
        let mut open = self.open();
        if let Some(known) = open.get(&partition).filter(|known| Arc::ptr_eq(&known.app, &app)) {
            return known.router.clone();
        }
        let closing = self.stopping.child_token();
        let bounds = self.http.bounds.clone();
        let router = partition_router(app.clone(), closing.clone(), bounds, Budgeting::Before);
        // One that was closed in between is not kept: nobody would forget it.
        if self.is_here(partition, &app) {
            open.insert(partition, OpenPartition { app, router: router.clone(), closing });
        }
        router
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<i32, OpenPartition>> {
        self.open.lock()
    }

    /// Whether this is what is open of the partition.
    fn is_here(&self, partition: i32, app: &Arc<App>) -> bool {
        matches!(self.member.place(partition), ShardPlace::Here(now) if Arc::ptr_eq(&now, app))
    }

    async fn forward(&self, url: &str, partition: i32, head: &Parts, body: PassedBody) -> Result<Response, Refusal> {
        let unreachable = |why: String| Refusal::busy("owner_unreachable", why);
        let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let url = Url::parse(&format!("{url}{target}")).map_err(|e| unreachable(format!("{url}: {e}")))?;
        let mut headers = head.headers.clone();
        headers.insert(FORWARDED, HeaderValue::from(partition));
        let proof = HeaderValue::from_str(&self.member.proof()).map_err(|e| unreachable(e.to_string()))?;
        headers.insert(PROOF, proof);
        if let Some(client) = head.extensions.get::<Address>() {
            let client = HeaderValue::from_str(&client.to_string()).map_err(|e| unreachable(e.to_string()))?;
            headers.insert(CLIENT, client);
        }
        let method = Method::from_bytes(head.method.as_str().as_bytes()).unwrap_or(Method::GET);
        let passed = self.forward.send(method, url, &headers, body).await;
        let passed = passed.map_err(|e| unreachable(format!("the owner of the shard cannot be asked: {e}")))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = passed.status;
        *response.headers_mut() = passed.headers.clone();
        *response.body_mut() = Body::from_stream(passed.stream());
        Ok(response)
    }
}

fn moving(partition: i32) -> Refusal {
    // The other process sent it here, or nobody has it: between two owners for a moment.
    Refusal::busy("partition_moving", format!("shard {partition} has no owner yet; ask again"))
}

/// Hands a request to another router of this process, with what is known of its caller. What the first router noted of its own
/// match is left out: the other would add its own to it.
async fn pass(router: &Router, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let mut known = Extensions::new();
    if let Some(caller) = head.extensions.remove::<Caller>() {
        known.insert(caller);
    }
    if let Some(address) = head.extensions.remove::<Address>() {
        known.insert(address);
    }
    head.extensions = known;
    let Ok(response) = router.clone().oneshot(Request::from_parts(head, body)).await;
    response
}

impl BufferedRequest {
    /// The request itself, once more.
    pub(super) fn whole(&self) -> Request {
        Request::from_parts(self.head.clone(), Body::from(self.body.clone()))
    }

    /// Memory for so many bytes more of what owners answer.
    fn gather(&self, bytes: usize) -> bool {
        let mut gathered = self.gathered.lock();
        let wanted = gathered.amount() + VALUE_COPIES * bytes;
        gathered.grow_to(wanted)
    }
}

impl OwnerAnswer {
    /// What it says, as its type.
    pub(in crate::api) fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|why| {
            let message = format!("an owner answers what is not understood here ({why}): run one version everywhere");
            Refusal::busy("owner_unreachable", message)
        })
    }
}

impl IntoResponse for OwnerAnswer {
    fn into_response(self) -> Response {
        Response::from_parts(self.head, Body::from(self.body))
    }
}
