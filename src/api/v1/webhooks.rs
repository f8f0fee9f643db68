//! `/v1/webhooks`: where providers post to. For admins: the URLs are hard to guess on purpose, and secrets stand beside them.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::{all_owners, owner_of};
use crate::api::routes::Routes;
use crate::api::selection::SELECTED;
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::ingest::webhooks::{Entrance, HookUrl};
use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/webhooks", list, owner_of(SELECTED).or(all_owners::<WebhookList>()))
}

/// The URLs to give to providers.
#[derive(Serialize, Deserialize)]
struct WebhookList {
    webhooks: Vec<WebhookUrl>,
}

/// Where a provider posts to.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct WebhookUrl {
    source: String,
    environment: String,
    connection: Option<String>,
    url: String,
    secret: Option<String>,
    whose: String,
}

impl MergedAnswer for WebhookList {
    /// A URL that stands for all connections of a source is known to every owner.
    fn merge(mut self, other: Self) -> Self {
        for url in other.webhooks {
            if url.connection.is_some() || !self.webhooks.contains(&url) {
                self.webhooks.push(url);
            }
        }
        self
    }

    fn finish(mut self, _query: &str) -> Self {
        self.webhooks.sort_by(|a, b| (&a.source, &a.connection).cmp(&(&b.source, &b.connection)));
        self
    }
}

/// Those of one source or all, and of a connection those that are also its own.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<WebhookList>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["source", "connection"]);
    let (source, connection) = (query.one("source"), query.one("connection"));
    query.done()?;
    caller.must_be(Role::Admin)?;
    known(&api, &caller, source.as_deref(), connection.as_deref())?;
    let wanted = |of: &Entrance| {
        let its_own = of.connection.is_none() || connection.is_none() || of.connection == connection;
        *of.environment == *caller.environment && its_own
    };
    let all = api.app.hooks.hook_urls(source.as_deref());
    let webhooks = all.into_iter().filter(|hook| wanted(&hook.entrance)).map(WebhookUrl::from).collect();
    Ok(Json(WebhookList { webhooks }))
}

/// Refuses a source that is not defined and a connection that is not there.
fn known(api: &Api, caller: &Caller, source: Option<&str>, connection: Option<&str>) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::not_found(message));
    if let Some(source) = source.filter(|source| api.app.definitions.get(source).is_none()) {
        let all = api.app.definitions.all();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        return refuse(format!("no source `{source}` is defined; defined are: {}", names.join(", ")));
    }
    let accounts = api.app.connections.list(&caller.environment);
    let fits = |id: &str| accounts.iter().any(|a| a.key.id == id && source.is_none_or(|source| a.key.source == source));
    match connection {
        Some(id) if !fits(id) => refuse(format!(
            "no connection `{id}` in `{}`; create it (POST /connections) or add it to the definition of its source",
            caller.environment
        )),
        _ => Ok(()),
    }
}

impl From<HookUrl> for WebhookUrl {
    fn from(hook: HookUrl) -> Self {
        let whose = hook.entrance.to_string();
        let Entrance { environment, source, connection } = hook.entrance;
        WebhookUrl { source, environment, connection, url: hook.url, secret: hook.secret, whose }
    }
}
