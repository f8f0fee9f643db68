//! `/connections` and `/v1/connections`: the connections of the caller's environment. Credentials are shown to admins only, and
//! admins make, change and delete connections.

mod list;

use crate::api::Api;
use crate::api::cluster::target::{ConnectionNames, NamedIn, RouteTarget, owner_of, refused};
use crate::api::routes::Routes;
use crate::app::connections::ConnectionError;
use crate::config::Role;
use crate::connectors::definition::{Auth, AuthKind, Complaint, Grant};
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::{InputFault, Refusal};
use crate::http::query::QueryFields;
use crate::registry::connections::{Account, AccountKey, Refused};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

/// Where a body names its connection, or several.
pub(super) const NAMED_IN_BODY: ConnectionNames =
    ConnectionNames { source: &[NamedIn::Body("provider_config_key")], connection: &[NamedIn::Body("connection_id")] };

/// Where a request for one connection names it.
const NAMED_IN_PATH: ConnectionNames =
    ConnectionNames { source: &[NamedIn::Query("provider_config_key")], connection: &[NamedIn::Path("id")] };

/// What to do where a connection is made: the id says whose it is.
const NAME_IT: &str = "connections are spread over several processes by their ids: name `connection_id`";

pub(super) fn routes() -> Routes {
    ["/connections", "/connection", "/v1/connections"].iter().fold(Routes::new(), |routes, path| {
        let one = format!("{path}/{{id}}");
        routes
            .get(path, list::list, RouteTarget::All(list::across))
            .post(path, create, owner_of(NAMED_IN_BODY).or(refused(NAME_IT)))
            .get(&one, show, owner_of(NAMED_IN_PATH))
            .patch(&one, change, owner_of(NAMED_IN_PATH))
            .delete(&one, delete, owner_of(NAMED_IN_PATH))
    })
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    const FLAGS: [&str; 3] = ["force_refresh", "refresh_token", "refresh_github_app_jwt_token"];
    let mut query = QueryFields::read_with(query.as_deref(), |n| n == "provider_config_key" || FLAGS.contains(&n));
    let source = query.one("provider_config_key").filter(|s| !s.is_empty());
    // Nothing is refreshed: the ways to sign in of this release do not expire.
    FLAGS.iter().for_each(|name| {
        query.flag(name);
    });
    query.done()?;
    let source = source.ok_or_else(Refusal::missing_source)?;
    let account =
        api.app.connections.get(&caller.environment, &source, &id).ok_or_else(|| Refusal::unknown_connection(&id))?;
    Ok(Json(whole(&api, &caller, &account)).into_response())
}

/// A connection with all that a caller may see of it.
fn whole(api: &Api, caller: &Caller, account: &Account) -> Value {
    let definition = api.app.definitions.get(&account.key.source);
    let credentials = definition.map_or_else(
        || json!({"type": "NONE"}),
        |definition| credentials(&definition.auth, &account.connection.credentials),
    );
    let shown = if caller.role >= Role::Admin { credentials } else { json!({"type": credentials["type"]}) };
    let now = api.app.engine.clock().now();
    json!({
        "id": account.number,
        "connection_id": account.key.id,
        "provider_config_key": account.key.source,
        "provider": account.provider,
        "connection_config": account.connection.fields,
        "webhook_url_override": account.webhook_url_override,
        "created_at": account.created_at.with_offset(),
        "updated_at": account.updated_at.with_offset(),
        "last_fetched_at": now.with_offset(),
        "metadata": account.connection.metadata,
        "errors": account.errors,
        "end_user": account.end_user,
        "tags": account.connection.tags,
        "credentials": shown,
    })
}

/// Makes a connection; its syncs begin at once.
async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Admin)?;
    let mut body = BodyFields::read(&api.http, request, &CREATED).await?;
    let source = body.demand("provider_config_key");
    let id = body.text("connection_id").unwrap_or_else(|| api.app.connection_id());
    let fields = if body.has("connection_config") { body.object("connection_config") } else { Map::new() };
    let definition = api.app.definitions.get(&source);
    let said = said(&mut body, definition.as_ref().map_or(&AuthKind::None, |definition| &definition.auth.kind));
    body.done()?;
    let key = AccountKey::new(&caller.environment, &source, &id);
    let mut said = Value::Object(said);
    said["environment"] = Value::from(&*caller.environment);
    let account = api.app.create_connection(&key, said, fields).await?;
    Ok((StatusCode::CREATED, Json(whole(&api, &caller, &account))).into_response())
}

/// Changes a connection that was made here.
async fn change(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    let key = named(&caller, query.as_deref(), &id)?;
    let mut body = BodyFields::read(&api.http, request, &CREATED[3..]).await?;
    let definition = api.app.definitions.get(&key.source);
    let changes = said(&mut body, definition.as_ref().map_or(&AuthKind::None, |definition| &definition.auth.kind));
    body.done()?;
    api.app.update_connection(&key, &changes).await?;
    Ok(Json(json!({"success": true})))
}

/// Deletes a connection that was made here, with its records.
async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    api.app.delete_connection(&named(&caller, query.as_deref(), &id)?).await?;
    Ok(Json(json!({"success": true})))
}

fn named(caller: &Caller, query: Option<&str>, id: &str) -> Result<AccountKey, Refusal> {
    let mut query = QueryFields::read(query, &["provider_config_key"]);
    let source = query.one("provider_config_key").filter(|source| !source.is_empty());
    query.done()?;
    Ok(AccountKey::new(&caller.environment, &source.ok_or_else(Refusal::missing_source)?, id))
}

/// What a body may say of a new connection; of one that is there, all but the first three.
const CREATED: [&str; 12] = [
    "connection_id",
    "provider_config_key",
    "connection_config",
    "credentials",
    "metadata",
    "tags",
    "webhook_url_override",
    "streams",
    "schedule",
    "partitions",
    "base_url",
    "end_user",
];

/// A body as a definition file would say it.
fn said(body: &mut BodyFields, auth: &AuthKind) -> Map<String, Value> {
    let mut said = Map::new();
    for name in ["metadata", "webhook_url_override", "streams", "schedule", "partitions", "base_url", "end_user"] {
        said.extend(body.take(name).map(|value| (name.to_owned(), value)));
    }
    match body.take("credentials") {
        None => {}
        Some(Value::Object(given)) => {
            said.insert("credentials".to_owned(), Value::Object(credentials_by_name(auth, given)));
        }
        Some(_) => body.fault("invalid_type", &["credentials"], "an object is wanted"),
    }
    match body.take("tags") {
        None => {}
        Some(Value::Object(tags)) if tags.values().all(Value::is_string) => {
            let tag = |(name, value): (String, Value)| format!("{name}={}", value.as_str().unwrap_or_default());
            said.insert("tags".to_owned(), tags.into_iter().map(tag).collect());
        }
        Some(_) => body.fault("invalid_type", &["tags"], "an object of texts is wanted"),
    }
    said
}

/// Credentials of the wire by the names that `auth` has for them; what has none stays as it is, and is refused if it means
/// nothing.
pub(in crate::api) fn credentials_by_name(auth: &AuthKind, mut given: Map<String, Value>) -> Map<String, Value> {
    given.remove("type");
    if let Some(key) = given.remove("apiKey") {
        let name = if matches!(auth, AuthKind::Bearer { .. }) { "token" } else { "key" };
        given.insert(name.to_owned(), key);
    }
    given
}

impl From<ConnectionError> for Refusal {
    fn from(why: ConnectionError) -> Self {
        match why {
            ConnectionError::Refused(refused) => refused.into(),
            ConnectionError::Test(ref failure) => {
                Refusal::bad("connection_test_failed", format!("{}: {why}", failure.code))
            }
            ConnectionError::Validation { message, payload } => {
                Refusal::bad("connection_validation_failed", message).with_payload(payload)
            }
            ConnectionError::Stopping => Refusal::stopping(),
            ConnectionError::Syncs(error) => error.into(),
        }
    }
}

impl From<Refused> for Refusal {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Unknown(id) => Refusal::unknown_connection(&id).with_status(StatusCode::NOT_FOUND),
            Refused::Exists(_) => Refusal::new(StatusCode::CONFLICT, "connection_exists", why.to_string()),
            Refused::InFile(_) => Refusal::new(StatusCode::CONFLICT, "defined_in_file", why.to_string()),
            Refused::UnknownSource(_) => Refusal::bad("unknown_provider_config", why.to_string()),
            Refused::EndUser(why) => {
                Refusal::invalid("body", vec![InputFault::new("invalid_type", &["end_user"], why)])
            }
            Refused::TooMany => Refusal::new(StatusCode::CONFLICT, "too_many_connections", why.to_string()),
            Refused::Wrong(complaints) => {
                let fault = |c: &Complaint| {
                    let hint = c.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                    InputFault::new(c.code, &[], format!("{}{hint}", c.message))
                };
                Refusal::invalid("body", complaints.iter().map(fault).collect())
            }
            Refused::Engine(error) => error.into(),
        }
    }
}

/// The credentials in the form of the wire; the definition's own where the connection has none.
fn credentials(auth: &Auth, own: &Map<String, Value>) -> Value {
    let field = |name: &str, or: &Option<String>| own.get(name).cloned().or(or.clone().map(Value::String));
    match &auth.kind {
        _ if auth.goes_without(own).is_some() => json!({"type": "NONE"}),
        AuthKind::None => json!({"type": "NONE"}),
        AuthKind::Bearer { token } => json!({"type": "API_KEY", "apiKey": field("token", token)}),
        AuthKind::ApiKey { key, .. } => json!({"type": "API_KEY", "apiKey": field("key", key)}),
        AuthKind::Basic { username, password } => json!({
            "type": "BASIC",
            "username": field("username", username),
            "password": field("password", password),
        }),
        AuthKind::Tokens(tokens) => tokens_of_wire(&tokens.grant, own),
    }
}

/// Tokens that expire, in the form of the wire.
fn tokens_of_wire(grant: &Grant, own: &Map<String, Value>) -> Value {
    let field = |name: &str| own.get(name).cloned().unwrap_or_default();
    let (token, expires_at, raw) = (field("access_token"), field("expires_at"), field("raw"));
    match grant {
        Grant::Code(_) => json!({
            "type": "OAUTH2",
            "access_token": token,
            "refresh_token": field("refresh_token"),
            "expires_at": expires_at,
            "raw": raw,
        }),
        Grant::Client => json!({
            "type": "OAUTH2_CC",
            "token": token,
            "expires_at": expires_at,
            "client_id": field("client_id"),
            "client_secret": field("client_secret"),
            "raw": raw,
        }),
        Grant::Login(_) => json!({"type": "TWO_STEP", "token": token, "expires_at": expires_at, "raw": raw}),
        Grant::Assertion => json!({"type": "JWT", "token": token, "expires_at": expires_at}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_the_form_of_the_wire() {
        let own = json!({"token": "t1", "username": "u"});
        let own = own.as_object().expect("object");
        let of = |kind, optional| Auth { kind, optional, ..Auth::default() };
        let bearer = of(AuthKind::Bearer { token: Some("default".into()) }, false);
        assert_eq!(credentials(&bearer, own), json!({"type": "API_KEY", "apiKey": "t1"}));
        assert_eq!(credentials(&bearer, &Map::new()), json!({"type": "API_KEY", "apiKey": "default"}));
        let basic = of(AuthKind::Basic { username: None, password: Some("p".into()) }, false);
        assert_eq!(credentials(&basic, own), json!({"type": "BASIC", "username": "u", "password": "p"}));
        let free = of(AuthKind::Bearer { token: None }, true);
        assert_eq!(credentials(&free, &Map::new()), json!({"type": "NONE"}));
        assert_eq!(credentials(&free, own), json!({"type": "API_KEY", "apiKey": "t1"}));
    }
}
