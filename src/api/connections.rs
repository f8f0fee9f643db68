//! `/connections` and `/v1/connections`: the accounts of the caller's environment. Credentials are shown to admins only, and
//! admins make, change and delete connections.

use super::auth::Caller;
use super::body::Fields;
use super::error::{Fault, Refusal};
use super::query::Query;
use super::{Api, both};
use crate::app::connections::ConnectionError;
use crate::config::Role;
use crate::connectors::definition::{AuthKind, Complaint};
use crate::registry::connections::{Account, AccountKey, Refused};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Map, Value, json};

/// Most connections of a page.
pub(super) const LIMIT_MAX: u64 = 2_000;

/// Connections of a page if nothing is said.
pub(super) const LIMIT: u64 = 1_000;

pub(super) fn router() -> Router<Api> {
    ["/connections", "/connection", "/v1/connections"].iter().fold(Router::new(), |router, path| {
        let router = both(router, path, get(list).post(create));
        both(router, &format!("{path}/{{id}}"), get(show).patch(change).delete(delete))
    })
}

/// What is looked for.
#[derive(Default)]
struct Ask {
    id: Option<String>,
    search: Option<String>,
    sources: Vec<String>,
    tags: Vec<(String, String)>,
    /// End users are not kept in this release, so asking for one finds nobody.
    nobody: bool,
    limit: usize,
    page: usize,
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let ask = ask(query.as_deref())?;
    let mut found = api.app.connections.list(&caller.environment);
    found.retain(|account| ask.wants(account));
    // The newest first; the number decides among those of one start.
    found.sort_by_key(|account| std::cmp::Reverse((account.created_at, account.number)));
    let from = ask.page.saturating_mul(ask.limit);
    let connections: Vec<Value> = found.iter().skip(from).take(ask.limit).map(|a| brief(a)).collect();
    Ok(Json(json!({"connections": connections})).into_response())
}

fn ask(raw: Option<&str>) -> Result<Ask, Refusal> {
    const KNOWN: [&str; 7] =
        ["connectionId", "search", "endUserId", "endUserOrganizationId", "integrationId", "limit", "page"];
    let mut query = Query::read_with(raw, |name| KNOWN.contains(&name) || tag(name).is_some());
    let sources = query.one("integrationId").map(|text| text.split(',').map(|s| s.trim().to_owned()).collect());
    let size = |number: Option<u64>, or: u64| usize::try_from(number.unwrap_or(or)).unwrap_or(usize::MAX);
    let limit = query.number("limit", 1, LIMIT_MAX);
    let page = query.number("page", 0, u64::from(u32::MAX));
    let tags = query.family("tags[").into_iter().filter_map(|(name, value)| Some((tag(&name)?.to_owned(), value)));
    let ask = Ask {
        tags: tags.collect(),
        sources: sources.unwrap_or_default(),
        id: query.one("connectionId"),
        search: query.one("search").map(|text| text.to_lowercase()),
        nobody: query.one("endUserId").or(query.one("endUserOrganizationId")).is_some(),
        limit: size(limit, LIMIT),
        page: size(page, 0),
    };
    query.done()?;
    Ok(ask)
}

/// The name inside `tags[name]`.
fn tag(name: &str) -> Option<&str> {
    name.strip_prefix("tags[")?.strip_suffix(']').filter(|name| !name.is_empty())
}

impl Ask {
    fn wants(&self, account: &Account) -> bool {
        let tags = &account.connection.tags;
        !self.nobody
            && self.id.as_ref().is_none_or(|id| *id == account.key.id)
            && self.search.as_ref().is_none_or(|part| account.key.id.to_lowercase().contains(part))
            && (self.sources.is_empty() || self.sources.contains(&account.key.source))
            && self.tags.iter().all(|(name, value)| {
                tags.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v.as_str() == Some(value))
            })
    }
}

/// A connection in a list.
fn brief(account: &Account) -> Value {
    json!({
        "id": account.number,
        "connection_id": account.key.id,
        "provider_config_key": account.key.source,
        "provider": account.provider,
        "created": account.created_at.with_offset(),
        "metadata": account.connection.metadata,
        "errors": account.errors,
        "end_user": null,
        "tags": account.connection.tags,
    })
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    const FLAGS: [&str; 3] = ["force_refresh", "refresh_token", "refresh_github_app_jwt_token"];
    let mut query = Query::read_with(query.as_deref(), |n| n == "provider_config_key" || FLAGS.contains(&n));
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
    let auth = api.app.definitions.get(&account.key.source).map(|d| &d.auth.kind);
    let credentials = credentials(auth.unwrap_or(&AuthKind::None), &account.connection.credentials);
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
        "end_user": null,
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
    let mut body = Fields::read(&api, request, &CREATED).await?;
    let source = body.demand("provider_config_key");
    let id = body.text("connection_id").unwrap_or_else(|| api.app.connection_id());
    let fields = if body.has("connection_config") { body.object("connection_config") } else { Map::new() };
    let auth = api.app.definitions.get(&source).map_or(&AuthKind::None, |definition| &definition.auth.kind);
    let said = said(&mut body, auth);
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
    let mut body = Fields::read(&api, request, &CREATED[3..]).await?;
    let auth = api.app.definitions.get(&key.source).map_or(&AuthKind::None, |definition| &definition.auth.kind);
    let changes = said(&mut body, auth);
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
    let mut query = Query::read(query, &["provider_config_key"]);
    let source = query.one("provider_config_key").filter(|source| !source.is_empty());
    query.done()?;
    Ok(AccountKey::new(&caller.environment, &source.ok_or_else(Refusal::missing_source)?, id))
}

/// What a body may say of a new connection; of one that is there, all but the first three.
const CREATED: [&str; 11] = [
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
];

/// A body as a definition file would say it.
fn said(body: &mut Fields, auth: &AuthKind) -> Map<String, Value> {
    let mut said = Map::new();
    for name in ["metadata", "webhook_url_override", "streams", "schedule", "partitions", "base_url"] {
        said.extend(body.take(name).map(|value| (name.to_owned(), value)));
    }
    match body.take("credentials") {
        None => {}
        Some(Value::Object(given)) => {
            said.insert("credentials".to_owned(), Value::Object(fields_of(auth, given)));
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
fn fields_of(auth: &AuthKind, mut given: Map<String, Value>) -> Map<String, Value> {
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
            ConnectionError::Shared(_) => Refusal::new(StatusCode::CONFLICT, "several_processes", why.to_string()),
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
            Refused::TooMany => Refusal::new(StatusCode::CONFLICT, "too_many_connections", why.to_string()),
            Refused::Wrong(complaints) => {
                let fault = |c: &Complaint| {
                    let hint = c.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                    Fault::new(c.code, &[], format!("{}{hint}", c.message))
                };
                Refusal::invalid("body", complaints.iter().map(fault).collect())
            }
            Refused::Engine(error) => error.into(),
        }
    }
}

/// The credentials in the form of the wire; the definition's own where the connection has none.
fn credentials(auth: &AuthKind, own: &Map<String, Value>) -> Value {
    let field = |name: &str, or: &Option<String>| own.get(name).cloned().or(or.clone().map(Value::String));
    match auth {
        AuthKind::None => json!({"type": "NONE"}),
        AuthKind::Bearer { token } => json!({"type": "API_KEY", "apiKey": field("token", token)}),
        AuthKind::ApiKey { key, .. } => json!({"type": "API_KEY", "apiKey": field("key", key)}),
        AuthKind::Basic { username, password } => json!({
            "type": "BASIC",
            "username": field("username", username),
            "password": field("password", password),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_the_form_of_the_wire() {
        let own = json!({"token": "t1", "username": "u"});
        let own = own.as_object().expect("object");
        let bearer = AuthKind::Bearer { token: Some("default".into()) };
        assert_eq!(credentials(&bearer, own), json!({"type": "API_KEY", "apiKey": "t1"}));
        assert_eq!(credentials(&bearer, &Map::new()), json!({"type": "API_KEY", "apiKey": "default"}));
        let basic = AuthKind::Basic { username: None, password: Some("p".into()) };
        assert_eq!(credentials(&basic, own), json!({"type": "BASIC", "username": "u", "password": "p"}));
    }

    #[test]
    fn queries_are_strict() {
        assert!(ask(Some("tags[a]=1&limit=2000&page=0&integrationId=a,b")).is_ok());
        assert!(ask(Some("limit=2001")).is_err());
        assert!(ask(Some("tags=1")).is_err());
        assert!(ask(Some("connection_id=a")).is_err());
    }
}
