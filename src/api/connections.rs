//! `/connections`: the accounts of the caller's environment. Credentials are shown to admins only.

use super::auth::Caller;
use super::error::Refusal;
use super::query::Query;
use super::unbuilt::refuse;
use super::{Api, both};
use crate::connectors::rest::definition::AuthKind;
use crate::control::config::Role;
use crate::control::connections::Account;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Map, Value, json};

/// Most connections of a page.
pub(super) const LIMIT_MAX: u64 = 2_000;

/// Connections of a page if nothing is said.
pub(super) const LIMIT: u64 = 1_000;

pub(super) fn router() -> Router<Api> {
    ["/connections", "/connection"].iter().fold(Router::new(), |router, path| {
        let router = both(router, path, get(list).post(refuse));
        both(router, &format!("{path}/{{id}}"), get(show).patch(refuse).delete(refuse))
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
    let auth = api.app.definitions.get(&account.key.source).map(|d| &d.auth.kind);
    let credentials = credentials(auth.unwrap_or(&AuthKind::None), &account.connection.credentials);
    let shown = if caller.role >= Role::Admin { credentials } else { json!({"type": credentials["type"]}) };
    let now = api.app.engine.clock().now();
    Ok(Json(json!({
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
    }))
    .into_response())
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
