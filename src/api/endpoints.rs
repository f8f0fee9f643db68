//! `/v1/endpoints`: who is told by outgoing webhooks, who of them said that it is gone, and the way back for it.

use super::auth::Caller;
use super::error::Refusal;
use super::query::Query;
use super::{Api, both};
use crate::config::Role;
use crate::sinks::deliveries::EndpointStatus;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/endpoints", get(list));
    both(router, "/v1/endpoints/{name}/enable", post(enable))
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    Query::read(query.as_deref(), &[]).done()?;
    let all = api.app.outbox.endpoints(&caller.environment);
    Ok(Json(json!({"endpoints": all.iter().map(describe).collect::<Vec<_>>()})))
}

/// Delivers again, from the first undelivered on. One that is not disabled stays as it is.
async fn enable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    if !api.app.outbox.has(&name, &caller.environment) {
        let message = format!("no endpoint `{name}`; GET /v1/endpoints tells which there are");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    api.app.outbox.enable(&name).await?;
    Ok(Json(json!({"endpoint": name, "disabled": false})))
}

fn describe(endpoint: &EndpointStatus) -> Value {
    json!({
        "name": endpoint.name,
        "host": endpoint.host,
        "disabled": endpoint.disabled_at.is_some(),
        "disabled_at": endpoint.disabled_at.map(|at| at.to_string()),
    })
}
