//! REST: one file per resource.
//!
//! The compatible surface stands at the root, our own under `/v1`, webhooks under `/hooks`; each path answers with and
//! without a trailing slash. Promises: query and body are strict (an unknown name is refused, not ignored); checks run in the
//! order query, headers, body, connection; what belongs to another environment answers exactly as what does not exist; every
//! answer carries `X-Request-Id`; every refusal has the body described in [`error`].
//!
//! | file | routes |
//! |---|---|
//! | `records` | `/records`, `/records/prune` |
//! | `current` | `/v1/records` |
//! | `changes` | `/v1/changes` |
//! | `runs` | `/v1/runs`, `/v1/deletes` |
//! | `quarantine` | `/v1/quarantine` |
//! | `deliveries` | `/v1/deliveries` |
//! | `schemas` | `/v1/schemas` |
//! | `input_schema` | `/v1/schemas/input` |
//! | `inputs` | `/v1/inputs` |
//! | `views` | `/v1/views` |
//! | `endpoints` | `/v1/endpoints` |
//! | `checkpoint` | `/v1/checkpoint` |
//! | `webhooks` | `/v1/webhooks` |
//! | `sync` | `/sync/…` |
//! | `connections`, `metadata` | `/connections…` and the older `/connection…` |
//! | [`hooks`] | `/hooks/…`, without a key: the signature proves the request |
//! | `metrics` | `/metrics` |
//! | [`front`] | all of them, where several processes share the connections |
//! | `health` | `/healthz`, `/readyz` |
//! | `unbuilt` | paths of the compatible surface this release does not serve |
//!
//! `budget` refuses who asks too often, `auth` finds the caller, `room` refuses what is new while the disk is full, `request` numbers
//! requests, `query` and `body` read strictly, `selection` says of which streams and views, `answers` bounds the memory of what is
//! told, `rows` and `stamp` write fast.

mod answers;
mod auth;
mod body;
mod budget;
mod changes;
mod checkpoint;
mod connections;
mod current;
mod deliveries;
mod endpoints;
mod error;
mod feed;
mod health;
mod input_schema;
mod inputs;
mod metadata;
mod metrics;
mod quarantine;
mod query;
mod records;
mod request;
mod room;
mod rows;
mod runs;
mod schemas;
mod selection;
mod stamp;
mod sync;
mod unbuilt;
mod views;
mod webhooks;

pub mod front;
pub mod hooks;
pub mod inside;

use crate::admission::Bounds;
use crate::app::App;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Reads of the store at one time; more wait for their turn.
const READS: usize = 64;

/// What every route can reach. Cheap to clone.
#[derive(Clone)]
struct Api {
    app: Arc<App>,
    reads: Arc<Semaphore>,
    /// What outsiders may use up, in the whole process.
    bounds: Arc<Bounds>,
    /// Ends answers that wait for changes.
    stopping: CancellationToken,
}

/// All routes of the program: compatible paths at the root, our own under `/v1`, webhooks under `/hooks`.
pub fn router(app: Arc<App>) -> Router {
    router_until(app, CancellationToken::new())
}

/// As [`router`]; answers that wait for changes end when `stopping` is cancelled, so that a server can stop at once.
pub fn router_until(app: Arc<App>, stopping: CancellationToken) -> Router {
    let bounds = app.bounds.clone();
    routes(app, stopping, bounds, Budgeting::Here)
}

/// Where it is judged whether somebody asks too often.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Budgeting {
    /// Here.
    Here,
    /// Before requests come here.
    Before,
}

fn routes(app: Arc<App>, stopping: CancellationToken, bounds: Arc<Bounds>, budgeting: Budgeting) -> Router {
    // Merged last: none of what surrounds the API's routes concerns webhooks.
    let hooks = hooks::router(app.hooks.clone());
    let reads = Arc::new(Semaphore::new(READS));
    let numbers = request::Numbers::new(app.engine.clock());
    let api = Api { app, reads, bounds, stopping };
    let open = api.app.settings.metrics.open;
    let for_some = if open { Router::new() } else { metrics::router() };
    let for_all = if open { health::router().merge(metrics::router()) } else { health::router() };
    let lists = Router::new()
        .merge(for_some)
        .merge(inputs::router())
        .merge(runs::router())
        .merge(quarantine::router())
        .merge(deliveries::router())
        .merge(schemas::router())
        .merge(views::router())
        .merge(endpoints::router())
        .merge(checkpoint::router())
        .merge(webhooks::router())
        .merge(input_schema::router())
        .merge(sync::router())
        .merge(connections::router())
        .merge(metadata::router())
        .merge(unbuilt::router())
        .route_layer(from_fn_with_state(api.clone(), answers::count));
    let keyed = lists
        .merge(records::router())
        .merge(current::router())
        .merge(changes::router())
        .route_layer(from_fn_with_state(api.clone(), room::demand))
        .route_layer(from_fn_with_state(api.clone(), auth::demand));
    let all = keyed.merge(for_all).fallback(error::unknown_path).method_not_allowed_fallback(error::unknown_method);
    let all = match budgeting {
        Budgeting::Here => all.layer(from_fn_with_state(api.clone(), budget::keep)),
        Budgeting::Before => all,
    };
    all.layer(from_fn(error::render))
        .layer(from_fn_with_state(numbers, request::number))
        .layer(from_fn_with_state(api.clone(), metrics::time))
        .with_state(api)
        .merge(hooks)
}

/// A route with and without a trailing slash.
fn both(router: Router<Api>, path: &str, methods: MethodRouter<Api>) -> Router<Api> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}

impl Api {
    /// Runs a read of the store where it may block, at most [`READS`] at a time.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, crate::engine::pipeline::Error> + Send + 'static,
    ) -> Result<T, error::Refusal> {
        let turn = self.reads.clone().acquire_owned().await.map_err(|_| error::Refusal::stopping())?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(result) => result.map_err(error::Refusal::from),
            Err(died) => Err(error::Refusal::internal(&format!("a read ended early: {died}"))),
        }
    }
}
