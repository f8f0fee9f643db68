//! Probes: `/healthz` says the process answers, `/readyz` that log and store are open. No key is needed.
//!
//! A disk that is too full for anything new does not make the server unready: reads go on, so whoever sends them here should go
//! on too. A store that has failed does: only a restart helps.

use super::Api;
use super::cluster::target::local;
use super::routes::Routes;
use crate::engine::pipeline::{Error, Keyspace};
use crate::http::error::Refusal;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) fn routes() -> Routes {
    Routes::new().get("/healthz", alive, local()).get("/readyz", ready, local())
}

async fn alive() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn ready(State(api): State<Api>) -> Result<Response, Refusal> {
    let engine = api.app.engine.clone();
    if let Some(why) = engine.failed() {
        return Err(Error::Poisoned(why).into());
    }
    let refusing = engine.refusing();
    let probe = api.read(move || {
        engine.mark(Keyspace::PLACE, &["readyz"])?;
        Ok(engine.log().read(u64::MAX - 1, 1))
    });
    match probe.await {
        Ok(Ok(_)) => Ok(Json(match refusing {
            None => json!({"status": "ready"}),
            Some(why) => json!({"status": "ready", "refusing": {"code": "disk_full", "message": why}}),
        })
        .into_response()),
        Ok(Err(log)) => Err(log.into()),
        Err(_) => Err(Refusal::busy("not_ready", "the store cannot be read; see the server's log")),
    }
}
