//! Accounts that are connected by what is entered: keys, passwords, an app's own credentials, or nothing at all.

use super::{NOT_YET, Visitor, token_of};
use crate::api::Api;
use crate::api::cluster::target::alone;
use crate::api::compat::credentials_by_name;
use crate::api::routes::Routes;
use crate::app::connect::EnteredAccount;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::http::sender;
use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Fields of a connection in a query.
const PARAMS: &str = "params[";
/// Largest body, in bytes.
const BODY_MAX: usize = 64 * 1_024;

pub(super) fn routes() -> Routes {
    Routes::new()
        .post("/api-auth/api-key/{key}", api_key, alone(NOT_YET))
        .post("/api-auth/basic/{key}", basic, alone(NOT_YET))
        .post("/auth/unauthenticated/{key}", nothing, alone(NOT_YET))
        .post("/oauth2/auth/{key}", client, alone(NOT_YET))
        .post("/auth/two-step/{key}", two_step, alone(NOT_YET))
        .post("/auth/jwt/{key}", jwt, alone(NOT_YET))
}

/// Where an account of an integration is connected that signs in this way.
pub(super) fn way(mode: &str, key: &str) -> String {
    let path = match mode {
        "API_KEY" => "/api-auth/api-key/",
        "BASIC" => "/api-auth/basic/",
        "OAUTH2_CC" => "/oauth2/auth/",
        "TWO_STEP" => "/auth/two-step/",
        "JWT" => "/auth/jwt/",
        "OAUTH2" => "/oauth/connect/",
        _ => "/auth/unauthenticated/",
    };
    format!("{path}{key}")
}

/// A connection that was made, as clients are told of it.
type Connected = Result<Json<Value>, Refusal>;

async fn api_key(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "API_KEY", request).await
}

async fn basic(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "BASIC", request).await
}

async fn nothing(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "NONE", request).await
}

async fn client(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "OAUTH2_CC", request).await
}

async fn two_step(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "TWO_STEP", request).await
}

async fn jwt(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Connected {
    connect(&api, &key, "JWT", request).await
}

/// Connects an account of an integration that signs in this way.
async fn connect(api: &Api, key: &str, mode: &str, request: Request) -> Connected {
    let query = FormQuery::read(request.uri().query())?;
    let (from, token) = (sender(request.extensions()), token_of(query.token, request.headers()));
    let Visitor { token, session } = api.visitor(from, token).await?;
    let integration = api.app.integrations.get(&session.environment, key);
    let definition = integration.map(|integration| integration.definition);
    let auth = definition.as_ref().map(|definition| &definition.auth.kind);
    if let Some(auth) = auth
        && auth.mode() != mode
    {
        let message = format!("accounts of `{key}` are connected by {}, not by {mode}", auth.mode());
        return Err(Refusal::bad("invalid_auth_mode", message));
    }
    let given = entered(api, request).await?;
    let credentials = auth.map(|auth| credentials_by_name(auth, given)).unwrap_or_default();
    let entered = EnteredAccount { credentials, fields: query.fields };
    let connected = api.app.connect_entered(&token, key, entered).await?;
    Ok(Json(json!({"connectionId": connected.id, "providerConfigKey": connected.source})))
}

/// What the query of a form says.
struct FormQuery {
    token: Option<String>,
    fields: Map<String, Value>,
}

impl FormQuery {
    fn read(raw: Option<&str>) -> Result<FormQuery, Refusal> {
        let known = |name: &str| name == "connect_session_token" || field(name).is_some();
        let mut query = QueryFields::read_with(raw, known);
        let token = query.one("connect_session_token");
        let params = query.family(PARAMS).into_iter();
        let fields = params.filter_map(|(name, value)| Some((field(&name)?.to_owned(), Value::from(value)))).collect();
        query.done()?;
        Ok(FormQuery { token, fields })
    }
}

/// The name inside `params[name]`.
fn field(name: &str) -> Option<&str> {
    name.strip_prefix(PARAMS)?.strip_suffix(']').filter(|name| !name.is_empty())
}

/// The fields of a form; none where nothing is sent.
async fn entered(api: &Api, request: Request) -> Result<Map<String, Value>, Refusal> {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Map::new());
    }
    let from = sender(&head.extensions).holder();
    let mut memory = api.http.bounds.bodies.share([from, from]);
    let bytes = api.http.body(Body::new(body), BODY_MAX, &mut memory).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", "a JSON object is wanted")),
    }
}
