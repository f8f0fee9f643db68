//! `POST /connect/sessions`: the customer's app opens a session for one of its users, and gives them the link.

use super::NOT_YET;
use crate::api::Api;
use crate::api::cluster::target::alone;
use crate::api::routes::Routes;
use crate::app::connect::sessions::{LASTS, Session, SessionDefaults};
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use crate::registry::connections::AccountKey;
use crate::registry::end_user::{EndUser, Organization};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most integrations that a session names, and labels.
const NAMED_MAX: usize = 1_000;
const TAGS_MAX: usize = 64;

/// What a body may say of every session.
const SAID: [&str; 8] = [
    "end_user",
    "organization",
    "tags",
    "integrations_config_defaults",
    "overrides",
    "webhook_url_override",
    "allowed_integrations",
    "connection_id",
];

pub(super) fn routes() -> Routes {
    Routes::new().post("/connect/sessions", open, alone(NOT_YET)).post(
        "/connect/sessions/reconnect",
        reopen,
        alone(NOT_YET),
    )
}

async fn open(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    let mut body = BodyFields::read(&api.http, request, &SAID[..7]).await?;
    let mut session = said(&api, &caller, &mut body);
    session.allowed = typed(&mut body, "allowed_integrations", "a list of integrations");
    if session.end_user.is_none() && session.tags.is_empty() {
        body.fault("invalid_type", &["end_user"], "`end_user` or `tags` has to say whose connection it will be");
    }
    let named = session.allowed.iter().flatten().chain(session.defaults.keys());
    for key in named.take(NAMED_MAX) {
        if api.app.integrations.get(&caller.environment, key).is_none() {
            body.fault("invalid_value", &["allowed_integrations"], format!("there is no integration `{key}`"));
        }
    }
    body.done()?;
    opened(&api, session).await
}

/// A session that signs a connection in again.
async fn reopen(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    let known: Vec<&str> =
        SAID.into_iter().filter(|name| *name != "allowed_integrations").chain(["integration_id"]).collect();
    let mut body = BodyFields::read(&api.http, request, &known).await?;
    let (id, source) = (body.demand("connection_id"), body.demand("integration_id"));
    let mut session = said(&api, &caller, &mut body);
    body.done()?;
    let account = api.app.connections.get(&caller.environment, &source, &id);
    let account = account.ok_or_else(|| Refusal::unknown_connection(&id).with_status(StatusCode::NOT_FOUND))?;
    session.end_user = session.end_user.or_else(|| account.end_user.clone());
    session.allowed = Some(vec![source.clone()]);
    session.reconnect = Some(AccountKey::new(&caller.environment, &source, &id));
    opened(&api, session).await
}

async fn opened(api: &Api, session: Session) -> Result<Response, Refusal> {
    let expires_at = session.expires_at.to_string();
    let token = api.app.open_session(&session).await?;
    let base = api.app.settings.public_url.as_deref().unwrap_or_default();
    let link = format!("{base}/connect/?session_token={token}");
    let data = json!({"token": token, "connect_link": link, "expires_at": expires_at});
    Ok((StatusCode::CREATED, Json(json!({"data": data}))).into_response())
}

/// What a body says of any session.
fn said(api: &Api, caller: &Caller, body: &mut BodyFields) -> Session {
    let mut end_user = body.take("end_user").filter(|said| !said.is_null()).and_then(|said| {
        let user = EndUser::read(said);
        user.inspect_err(|why| body.fault("invalid_type", &["end_user"], why.as_str())).ok()
    });
    let organization: Option<Organization> = typed(body, "organization", "`id` and `display_name`");
    match (&mut end_user, organization) {
        (Some(user), Some(organization)) => user.organization = Some(organization),
        (None, Some(_)) => body.fault("invalid_value", &["organization"], "it belongs to an `end_user`: add one"),
        _ => {}
    }
    let tags: BTreeMap<String, String> = typed(body, "tags", "an object of texts").unwrap_or_default();
    if tags.len() > TAGS_MAX {
        body.fault("invalid_value", &["tags"], format!("at most {TAGS_MAX} are kept"));
    }
    let defaults: BTreeMap<String, SessionDefaults> =
        typed(body, "integrations_config_defaults", "scopes, parameters and fields by integration").unwrap_or_default();
    // Links to documentation of the customer's: the page shows none.
    body.take("overrides");
    Session {
        environment: caller.environment.to_string(),
        end_user,
        tags,
        allowed: None,
        defaults,
        webhook_url_override: body.text("webhook_url_override"),
        reconnect: None,
        expires_at: api.app.engine.clock().now().plus(LASTS),
        outcomes: BTreeMap::new(),
    }
}

/// A field of a certain form that may be left out; what does not fit is a fault.
fn typed<T: DeserializeOwned>(body: &mut BodyFields, name: &str, wanted: &str) -> Option<T> {
    let value = body.take(name).filter(|value: &Value| !value.is_null())?;
    let read = serde_json::from_value(value);
    read.inspect_err(|why| body.fault("invalid_type", &[name], format!("{wanted}: {why}"))).ok()
}
