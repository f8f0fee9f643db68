//! `/v1/deliveries`: outgoing webhooks that are owed, and those that were given up.

use super::auth::Caller;
use super::body::Fields;
use super::error::Refusal;
use super::query::Query;
use super::{Api, both};
use crate::config::Role;
use crate::engine::sink::Delivery;
use crate::sinks::deliveries::DeadLetter;
use axum::extract::{RawQuery, Request, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

/// Most deliveries of one answer.
pub(super) const LIMIT_MAX: u64 = 1_000;

/// Deliveries of one answer if nothing is said.
pub(super) const LIMIT: u64 = 100;

pub(super) fn router() -> Router<Api> {
    let router = both(Router::new(), "/v1/deliveries", get(list));
    let router = both(router, "/v1/deliveries/retry", post(retry));
    both(router, "/v1/deliveries/drop", post(drop_letters))
}

/// The oldest first.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let mut query = Query::read(query.as_deref(), &["state", "endpoint", "limit", "cursor"]);
    let state = query.one("state").unwrap_or_else(|| "owed".to_owned());
    if !["owed", "dead"].contains(&state.as_str()) {
        query.fault("invalid_value", &["state"], "owed or dead is wanted");
    }
    let (endpoint, cursor) = (query.one("endpoint"), query.one("cursor"));
    let limit = usize::try_from(query.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    if cursor.as_ref().is_some_and(|cursor| !cursor.starts_with("msg_")) {
        query.fault("invalid_cursor", &["cursor"], "a cursor of an earlier answer is wanted");
    }
    query.done()?;
    let (outbox, environment) = (api.app.outbox.clone(), caller.environment.clone());
    let read = move || {
        let (endpoint, cursor) = (endpoint.as_deref(), cursor.as_deref());
        match state.as_str() {
            "dead" => {
                let (letters, more) = outbox.dead_letters(&environment, endpoint, cursor, limit)?;
                Ok((letters.iter().map(dead).collect::<Vec<_>>(), more))
            }
            _ => {
                let (deliveries, more) = outbox.owed(&environment, endpoint, cursor, limit)?;
                Ok((deliveries.iter().map(|delivery| describe(delivery, "owed")).collect(), more))
            }
        }
    };
    let (deliveries, more) = api.read(read).await?;
    let cursor = deliveries.last().filter(|_| more).map(|last| last["id"].clone());
    Ok(Json(json!({"deliveries": deliveries, "cursor": cursor})))
}

/// Sends dead letters again: the named ones, or all of an endpoint.
async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let (letters, more) = meant(&api, &caller, request).await?;
    let retried = letters.len();
    api.app.outbox.send_again(letters).await?;
    Ok(Json(json!({"retried": retried, "more": more})))
}

/// Drops dead letters: the named ones, or all of an endpoint.
async fn drop_letters(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Writer)?;
    let (letters, more) = meant(&api, &caller, request).await?;
    let dropped = letters.len();
    api.app.outbox.drop_letters(letters).await?;
    Ok(Json(json!({"dropped": dropped, "more": more})))
}

/// The dead letters that a body names, at most [`LIMIT_MAX`]; whether an endpoint has more.
async fn meant(api: &Api, caller: &Caller, request: Request) -> Result<(Vec<DeadLetter>, bool), Refusal> {
    let mut body = Fields::read(api, request, &["ids", "endpoint"]).await?;
    let (named, endpoint) = (body.has("ids"), body.text("endpoint"));
    let ids: Vec<String> = match body.take("ids") {
        Some(Value::Array(list)) if list.len() as u64 <= LIMIT_MAX => {
            list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
        }
        Some(_) => {
            body.fault("invalid_type", &["ids"], format!("a list of at most {LIMIT_MAX} ids is wanted"));
            Vec::new()
        }
        None => Vec::new(),
    };
    if named == endpoint.is_some() {
        body.fault("invalid_type", &["ids"], "either `ids` or `endpoint` is wanted");
    }
    body.done()?;
    let (outbox, environment) = (api.app.outbox.clone(), caller.environment.clone());
    let read = move || match endpoint {
        Some(endpoint) => outbox.dead_letters(&environment, Some(&endpoint), None, LIMIT_MAX as usize),
        None => Ok((outbox.named_letters(&environment, &ids)?, false)),
    };
    api.read(read).await
}

fn describe(delivery: &Delivery, state: &str) -> Value {
    let body = serde_json::from_str::<Value>(&delivery.body).unwrap_or_else(|_| Value::from(delivery.body.as_str()));
    json!({
        "id": delivery.id, "endpoint": delivery.endpoint, "state": state, "tries": delivery.tries,
        "created_at": delivery.created_at.to_string(), "next_at": delivery.next_at.to_string(),
        "last_error": delivery.last_error, "body": body,
    })
}

fn dead(letter: &DeadLetter) -> Value {
    let mut described = describe(&letter.delivery, "dead");
    described["reason"] = letter.reason.as_str().into();
    described["dead_at"] = letter.at.to_string().into();
    described["next_at"] = Value::Null;
    described
}
