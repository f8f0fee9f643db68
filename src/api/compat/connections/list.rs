//! `GET /connections`: those of one process, and of a whole cluster, where each owner knows its own and here they become one
//! list, the newest first.
//!
//! Promises: a page holds what it would hold with one process; a partition that cannot be asked is a refusal that says so,
//! never a shorter list.

use crate::api::Api;
use crate::api::cluster::across::{Across, Otherwise, answered};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::registry::connections::{Account, AccountError};
use crate::registry::end_user::EndUser;
use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most connections of a page.
const LIMIT_MAX: u64 = 2_000;

/// Connections of a page if nothing is said.
const LIMIT: u64 = 1_000;

/// A page of connections.
#[derive(Serialize, Deserialize)]
pub(super) struct ConnectionList {
    connections: Vec<ConnectionBrief>,
}

/// A connection in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ConnectionBrief {
    id: u64,
    connection_id: String,
    provider_config_key: String,
    provider: String,
    created: String,
    metadata: Value,
    errors: Vec<AccountError>,
    end_user: Option<EndUser>,
    tags: Map<String, Value>,
}

/// What is looked for.
#[derive(Default)]
struct ConnectionSearch {
    id: Option<String>,
    search: Option<String>,
    sources: Vec<String>,
    tags: Vec<(String, String)>,
    end_user: Option<String>,
    organization: Option<String>,
    limit: usize,
    page: usize,
}

/// Those of this process.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<ConnectionList>, Refusal> {
    let ask = ask(query.as_deref())?;
    let mut found = api.app.connections.list(&caller.environment);
    found.retain(|account| ask.wants(account));
    // The newest first; the number decides among those of one start.
    found.sort_by_key(|account| std::cmp::Reverse((account.created_at, account.number)));
    let from = ask.page.saturating_mul(ask.limit);
    let connections = found.iter().skip(from).take(ask.limit).map(|account| brief(account)).collect();
    Ok(Json(ConnectionList { connections }))
}

fn ask(raw: Option<&str>) -> Result<ConnectionSearch, Refusal> {
    const KNOWN: [&str; 7] =
        ["connectionId", "search", "endUserId", "endUserOrganizationId", "integrationId", "limit", "page"];
    let mut query = QueryFields::read_with(raw, |name| KNOWN.contains(&name) || tag(name).is_some());
    let sources = query.one("integrationId").map(|text| text.split(',').map(|s| s.trim().to_owned()).collect());
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let page = query.number("page", 0, u64::from(u32::MAX)).unwrap_or(0);
    let tags = query.family("tags[").into_iter().filter_map(|(name, value)| Some((tag(&name)?.to_owned(), value)));
    let ask = ConnectionSearch {
        tags: tags.collect(),
        sources: sources.unwrap_or_default(),
        id: query.one("connectionId"),
        search: query.one("search").map(|text| text.to_lowercase()),
        end_user: query.one("endUserId"),
        organization: query.one("endUserOrganizationId"),
        limit,
        page: usize::try_from(page).unwrap_or(usize::MAX),
    };
    query.done()?;
    Ok(ask)
}

/// The name inside `tags[name]`.
fn tag(name: &str) -> Option<&str> {
    name.strip_prefix("tags[")?.strip_suffix(']').filter(|name| !name.is_empty())
}

impl ConnectionSearch {
    fn is_of(&self, user: Option<&EndUser>) -> bool {
        let organization = user.and_then(|user| user.organization.as_ref());
        let is = |wanted: &Option<String>, id: Option<&String>| wanted.as_ref().is_none_or(|wanted| Some(wanted) == id);
        is(&self.end_user, user.map(|user| &user.id)) && is(&self.organization, organization.map(|of| &of.id))
    }

    fn wants(&self, account: &Account) -> bool {
        let tags = &account.connection.tags;
        self.is_of(account.end_user.as_ref())
            && self.id.as_ref().is_none_or(|id| *id == account.key.id)
            && self.search.as_ref().is_none_or(|part| account.key.id.to_lowercase().contains(part))
            && (self.sources.is_empty() || self.sources.contains(&account.key.source))
            && self.tags.iter().all(|(name, value)| {
                tags.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v.as_str() == Some(value))
            })
    }
}

/// A connection in a list.
fn brief(account: &Account) -> ConnectionBrief {
    ConnectionBrief {
        id: account.number,
        connection_id: account.key.id.clone(),
        provider_config_key: account.key.source.clone(),
        provider: account.provider.clone(),
        created: account.created_at.with_offset(),
        metadata: account.connection.metadata.clone(),
        errors: account.errors.clone(),
        end_user: account.end_user.clone(),
        tags: account.connection.tags.clone(),
    }
}

/// What the query says of paging, and the rest of it.
struct PagedSearch {
    path: String,
    rest: Vec<(String, String)>,
    limit: u64,
    page: u64,
}

/// Those of all owners.
pub(super) fn across(across: Across) -> BoxFuture<'static, Response> {
    Box::pin(async move {
        match PagedSearch::read(across.uri()) {
            Some(asked) => answered(page(&across, &asked).await),
            // Its owner has the right refusal.
            None => answered(across.read::<ConnectionList>(0).await),
        }
    })
}

async fn page(across: &Across, asked: &PagedSearch) -> Result<ConnectionList, Otherwise> {
    let mut all = Vec::new();
    for partition in across.partitions() {
        for page in 0.. {
            let one: ConnectionList = across.get(asked.uri(page)).read(partition).await?;
            let full = one.connections.len() as u64 >= LIMIT_MAX;
            all.extend(one.connections);
            if !full {
                break;
            }
        }
    }
    Ok(ConnectionList { connections: asked.page_of(all) })
}

impl PagedSearch {
    /// Nothing where the owner would refuse.
    fn read(uri: &Uri) -> Option<PagedSearch> {
        let mut asked = PagedSearch { path: uri.path().to_owned(), rest: Vec::new(), limit: LIMIT, page: 0 };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned() {
            match name.as_str() {
                "limit" => asked.limit = value.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n))?,
                "page" => asked.page = u64::from(value.parse::<u32>().ok()?),
                _ => asked.rest.push((name, value)),
            }
        }
        Some(asked)
    }

    /// Where an owner is asked for its own.
    fn uri(&self, page: u64) -> Uri {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.rest);
        query.append_pair("limit", &LIMIT_MAX.to_string()).append_pair("page", &page.to_string());
        format!("{}?{}", self.path, query.finish()).parse().unwrap_or_default()
    }

    /// The newest first; among those of one time the order in which they were met.
    fn page_of(&self, mut all: Vec<ConnectionBrief>) -> Vec<ConnectionBrief> {
        all.sort_by(|a, b| b.created.cmp(&a.created));
        let size = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let from = usize::try_from(self.page).unwrap_or(usize::MAX).saturating_mul(size);
        all.into_iter().skip(from).take(size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &'static str) -> Option<PagedSearch> {
        PagedSearch::read(&Uri::from_static(uri))
    }

    #[test]
    fn owners_are_asked_for_all_of_theirs() {
        let asked = asked("/connections?search=a%26b&limit=2&page=1&tags%5Bteam%5D=red").expect("good");
        let uri = asked.uri(3).to_string();
        assert_eq!(uri, "/connections?search=a%26b&tags%5Bteam%5D=red&limit=2000&page=3");
    }

    #[test]
    fn a_page_is_cut_from_what_all_owners_say() {
        let created = |day: u8| ConnectionBrief {
            id: u64::from(day),
            connection_id: "acme".to_owned(),
            provider_config_key: "crm".to_owned(),
            provider: "crm".to_owned(),
            created: format!("2026-01-0{day}T00:00:00.000000+00:00"),
            metadata: Value::Null,
            errors: Vec::new(),
            end_user: None,
            tags: Map::new(),
        };
        let all = vec![created(4), created(1), created(5), created(2), created(3)];
        let page = |uri| asked(uri).expect("good").page_of(all.clone());
        assert_eq!(page("/connections?limit=2"), [created(5), created(4)]);
        assert_eq!(page("/connections?limit=2&page=2"), [created(1)]);
        assert_eq!(page("/connections").len(), 5);
    }

    #[test]
    fn what_an_owner_would_refuse_is_left_to_it() {
        for wrong in ["/connections?limit=0", "/connections?limit=2001", "/connections?page=x"] {
            assert!(asked(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn queries_are_strict() {
        assert!(ask(Some("tags[a]=1&limit=2000&page=0&integrationId=a,b")).is_ok());
        assert!(ask(Some("limit=2001")).is_err());
        assert!(ask(Some("tags=1")).is_err());
        assert!(ask(Some("connection_id=a")).is_err());
    }
}
