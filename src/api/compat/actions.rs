//! `/action`: functions that are called. With `X-Async` the answer is an id, and the output is asked for later.

use crate::api::Api;
use crate::api::cluster::target::{ConnectionNames, NamedIn, named_by_owner, owner_of};
use crate::api::routes::Routes;
use crate::app::actions::{ActionCall, NotCalled, Outcome, RETRIES_MAX, shard_of};
use crate::config::Role;
use crate::connectors::actions::ActionFailure;
use crate::http::answers::JSON;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::{InputFault, Refusal};
use crate::http::query::{account_headers, header};
use crate::registry::connections::AccountKey;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

/// Seconds after which a call may find a place.
const BUSY_SECONDS: u64 = 5;

/// Both headers are demanded.
const NAMED: ConnectionNames = ConnectionNames {
    source: &[NamedIn::Header("provider-config-key")],
    connection: &[NamedIn::Header("connection-id")],
};

pub(super) fn routes() -> Routes {
    Routes::new().post("/action/trigger", trigger, owner_of(NAMED)).get(
        "/action/{id}",
        result,
        named_by_owner("id", shard_of),
    )
}

async fn trigger(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    let (source, connection) = account_headers(&headers)?;
    let (later, retries) = wishes(&headers)?;
    let mut body = BodyFields::read(&api.http, request, &["action_name", "input"]).await?;
    let action = body.demand("action_name");
    let input = body.take("input");
    body.done()?;
    let key = AccountKey::new(&caller.environment, &source, &connection);
    let call = ActionCall::new(key, action, input, retries);
    if !later {
        return answer(api.app.actions.call(call).await?);
    }
    let id = api.app.actions.call_later(call).await?;
    let place = format!("/action/{id}");
    let location = HeaderValue::try_from(&place).map_err(|why| Refusal::internal(&why.to_string()))?;
    let told = Json(json!({"id": id, "statusUrl": place}));
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], told).into_response())
}

async fn result(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    let (actions, environment, asked) = (api.app.actions.clone(), caller.environment.clone(), id.clone());
    let outcome = api.read(move || actions.outcome(&environment, &asked)).await?;
    let unknown =
        || Refusal::not_found(format!("the action `{id}` has not ended, or nobody has called it in the last 24 hours"));
    answer(outcome.ok_or_else(unknown)?)
}

/// `X-Async`, and `X-Max-Retries`.
fn wishes(headers: &HeaderMap) -> Result<(bool, u32), Refusal> {
    let mut faults = Vec::new();
    let later = match header(headers, "x-async").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            faults.push(InputFault::new("invalid_type", &["x-async"], "true or false is wanted"));
            false
        }
    };
    let retries = header(headers, "x-max-retries").map_or(Some(0), |text| text.parse().ok());
    let retries = retries.filter(|retries| *retries <= RETRIES_MAX);
    if retries.is_none() {
        let message = format!("a whole number from 0 to {RETRIES_MAX} is wanted");
        faults.push(InputFault::new("invalid_number", &["x-max-retries"], message));
    }
    if faults.is_empty() { Ok((later, retries.unwrap_or_default())) } else { Err(Refusal::invalid("headers", faults)) }
}

/// An output as it is, or why there is none.
fn answer(outcome: Outcome) -> Result<Response, Refusal> {
    let output = outcome.map_err(Refusal::from)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(JSON))], output).into_response())
}

impl From<ActionFailure> for Refusal {
    fn from(why: ActionFailure) -> Self {
        let status = match why.code {
            ActionFailure::INPUT => StatusCode::BAD_REQUEST,
            _ => StatusCode::FAILED_DEPENDENCY,
        };
        Refusal::new(status, why.code, why.message).with_payload(why.payload)
    }
}

impl From<NotCalled> for Refusal {
    fn from(why: NotCalled) -> Self {
        match why {
            NotCalled::Connection(id) => Refusal::unknown_connection(&id),
            NotCalled::Action(..) => Refusal::new(StatusCode::NOT_FOUND, ActionFailure::NO_ACTION, why.to_string()),
            NotCalled::Busy(message) => Refusal::too_many(BUSY_SECONDS, message),
            NotCalled::Stopping => Refusal::stopping(),
            NotCalled::Engine(error) => error.into(),
        }
    }
}
