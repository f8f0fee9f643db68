//! REST: one folder per surface, one file per resource.
//!
//! The compatible surface stands at the root, our own under `/v1`, webhooks under `/hooks`; each path answers with and
//! without a trailing slash. Promises: query and body are strict (an unknown name is refused, not ignored); checks run in the
//! order query, headers, body, connection; what belongs to another environment answers exactly as what does not exist; every
//! answer carries `X-Request-Id`; every refusal has the body described in [`error`].
//!
//! | where | routes |
//! |---|---|
//! | `v1` | `/v1/…`, our own surface: one file per resource |
//! | `compat` | the compatible surface: `/records`, `/sync/…`, `/connections…` and their like |
//! | `connect` | `/connect/…`, `/auth/…`: people who connect their accounts |
//! | [`hooks`] | `/hooks/…`, without a key: the signature proves the request |
//! | `metrics` | `/metrics` |
//! | `health` | `/healthz`, `/readyz` |
//! | [`cluster`] | all of them, where several processes share the connections |
//!
//! Each file declares its `routes` once, with who answers them in a cluster. What needs no route (who calls, reading queries
//! and bodies, the memory of answers, refusals) is a room below: [`http`](crate::http). Here is what several routes share and
//! asks an app: `selection` says of which streams and views, `entries` which entries a call changes, `feed` reads the change
//! stream.

mod compat;
mod connect;
mod entries;
mod feed;
mod health;
mod metrics;
mod routes;
mod selection;
mod v1;

pub mod cluster;
pub mod hooks;
pub mod inside;

use crate::admission::Bounds;
use crate::app::App;
use crate::config::Settings;
use crate::engine::pipeline::Error;
use crate::http::error::{self, Refusal};
use crate::http::{HttpContext, answers, auth, budget, request, space, timing};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use routes::Routes;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Reads of the store at one time; more wait for their turn.
const READS: usize = 64;

/// What every route can reach. Cheap to clone.
#[derive(Clone)]
struct Api {
    app: Arc<App>,
    /// What reading requests and writing answers needs.
    http: HttpContext,
    reads: Arc<Semaphore>,
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
    partition_router(app, stopping, bounds, Budgeting::Here)
}

/// Where it is judged whether somebody asks too often.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Budgeting {
    /// Here.
    Here,
    /// Before requests come here.
    Before,
}

/// All that is served with a key, in one piece or page by page, and to everybody: each with who answers it.
struct RouteSets {
    /// Answers that are written in one piece.
    whole: Routes,
    /// Pages and streams, which count their own memory.
    paged: Routes,
    /// Without a key.
    open: Routes,
    /// With the token of a connect session, by browsers.
    browser: Routes,
}

fn route_sets(settings: &Settings) -> RouteSets {
    let whole = v1::whole().merge(compat::whole()).merge(connect::keyed());
    let paged = v1::paged().merge(compat::paged());
    let (whole, open) = match settings.metrics.open {
        true => (whole, health::routes().merge(metrics::routes())),
        false => (whole.merge(metrics::routes()), health::routes()),
    };
    RouteSets { whole, paged, open, browser: connect::browser() }
}

/// Everything that is declared.
fn routes(settings: &Settings) -> Routes {
    let RouteSets { whole, paged, open, browser } = route_sets(settings);
    whole.merge(paged).merge(open).merge(browser)
}

/// The routes of an app: of the only one, or of a partition's.
fn partition_router(app: Arc<App>, stopping: CancellationToken, bounds: Arc<Bounds>, budgeting: Budgeting) -> Router {
    // Merged last: none of what surrounds the API's routes concerns webhooks.
    let hooks = hooks::router(app.hooks.clone());
    let reads = Arc::new(Semaphore::new(READS));
    let (engine, http) = (app.engine.clone(), context_of(&app, bounds));
    let numbers = request::Numbers::new(engine.clock());
    let api = Api { app, http: http.clone(), reads, stopping };
    let RouteSets { whole, paged, open, browser } = route_sets(&api.app.settings);
    // Its own fallback comes first: a preflight is no wrong method.
    let browser = browser.router().method_not_allowed_fallback(error::unknown_method);
    let browser = browser.layer(from_fn(connect::private)).layer(connect::cors(&api.app.settings));
    let keyed = whole
        .router()
        .route_layer(from_fn_with_state(http.clone(), answers::count))
        .merge(paged.router())
        .route_layer(from_fn_with_state(engine.clone(), space::demand))
        .route_layer(from_fn_with_state(http.clone(), auth::demand));
    let all = keyed.merge(open.router()).merge(browser);
    let all = all.fallback(error::unknown_path).method_not_allowed_fallback(error::unknown_method);
    let all = match budgeting {
        Budgeting::Here => all.layer(from_fn_with_state(http, budget::keep)),
        Budgeting::Before => all,
    };
    all.layer(from_fn(error::render))
        .layer(from_fn_with_state(numbers, request::number))
        .layer(from_fn_with_state(engine.clock(), timing::time))
        .with_state(api)
        .merge(hooks)
}

/// What requests and answers need of an app.
fn context_of(app: &App, bounds: Arc<Bounds>) -> HttpContext {
    HttpContext::new(bounds, &app.settings.api_keys, app.engine.clock())
}

impl Api {
    /// Runs a read of the store where it may block, at most [`READS`] at a time.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = self.reads.clone().acquire_owned().await.map_err(|_| Refusal::stopping())?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(result) => result.map_err(Refusal::from),
            Err(died) => Err(Refusal::internal(&format!("a read ended early: {died}"))),
        }
    }
}
