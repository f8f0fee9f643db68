//! `/v1/inputs`: topics that are read, and what becomes of those whose place is gone.

use super::auth::Caller;
use super::body::Fields;
use super::error::{Fault, Refusal};
use super::{Api, both};
use crate::config::Role;
use crate::connectors::kafka::input::Start;
use crate::ingest::topics::InputState;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/inputs", get(list));
    both(router, "/v1/inputs/{topic}/restart", post(restart))
}

/// How inputs stand.
async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<Value> {
    let states = api.app.inputs.as_ref().map(|inputs| inputs.states()).unwrap_or_default();
    let mine = states.iter().filter(|state| *state.environment == *caller.environment);
    Json(json!({"inputs": mine.map(describe).collect::<Vec<_>>()}))
}

/// Lets a stopped input begin anew: `{"start": "earliest"}` or `latest`.
async fn restart(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    let mut fields = Fields::read(&api, request, &["start"]).await?;
    let start = match fields.text("start").as_deref() {
        Some("earliest") => Start::Earliest,
        Some("latest") => Start::Latest,
        _ => {
            let fault = Fault::new("invalid_value", &["start"], "earliest or latest is wanted".to_owned());
            return Err(Refusal::invalid("body", vec![fault]));
        }
    };
    let restarted = api.app.inputs.as_ref().map_or(0, |inputs| inputs.restart(&caller.environment, &topic, start));
    if restarted == 0 {
        let message = format!("no input of topic `{topic}` has stopped for good; GET /v1/inputs tells how they stand");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    Ok(Json(json!({"topic": topic, "restarted": restarted})))
}

fn describe(state: &InputState) -> Value {
    let error = state.stopped.as_ref().map(|(code, message)| json!({"code": code, "message": message}));
    json!({"topic": state.topic, "input": state.name, "reading": state.reading, "stopped": state.is_final(), "error": error})
}
