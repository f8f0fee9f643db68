//! `/connect/session`: what a session may connect, what came of it, and its end.

use super::{NOT_YET, token_of};
use crate::api::Api;
use crate::api::cluster::target::{alone, local};
use crate::api::routes::Routes;
use crate::app::connect::sessions::ConnectOutcome;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::http::sender;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

pub(super) fn routes() -> Routes {
    Routes::new().get("/connect/session", show, alone(NOT_YET)).delete("/connect/session", end, alone(NOT_YET)).post(
        "/connect/telemetry",
        nothing_told,
        local(),
    )
}

fn token(request: &Request) -> Result<Option<String>, Refusal> {
    let mut query = QueryFields::read(request.uri().query(), &["connect_session_token"]);
    let given = query.one("connect_session_token");
    query.done()?;
    Ok(token_of(given, request.headers()))
}

async fn show(State(api): State<Api>, request: Request) -> Result<Json<Value>, Refusal> {
    let (from, token) = (sender(request.extensions()), token(&request)?);
    drop(request);
    let session = api.visitor(from, token).await?.session;
    let outcomes: Map<String, Value> =
        session.outcomes.iter().map(|(key, outcome)| (key.clone(), told(outcome))).collect();
    Ok(Json(json!({"data": {
        "endUser": session.end_user,
        "tags": session.tags,
        "allowed_integrations": session.allowed,
        "integrations_config_defaults": session.defaults,
        "isReconnecting": session.reconnect.is_some(),
        "connectUISettings": {"showWatermark": false, "defaultTheme": "system"},
        "expires_at": session.expires_at.to_string(),
        "outcomes": outcomes,
    }})))
}

fn told(outcome: &ConnectOutcome) -> Value {
    match outcome {
        ConnectOutcome::Connected(id) => json!({"connection_id": id}),
        ConnectOutcome::Failed(code, message) => json!({"error": {"code": code, "message": message}}),
    }
}

async fn end(State(api): State<Api>, request: Request) -> Result<StatusCode, Refusal> {
    let (from, token) = (sender(request.extensions()), token(&request)?);
    drop(request);
    let visitor = api.visitor(from, token).await?;
    api.app.connect.sessions.delete(&visitor.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What people do on the page is nobody's business: it is taken, and forgotten.
async fn nothing_told() -> StatusCode {
    StatusCode::NO_CONTENT
}
