//! `/connections/metadata`: free JSON of the user, per connection. POST replaces it, PATCH merges its top level. Webhook
//! events that waited for a connection with such metadata are run again afterwards; the answer does not wait for them.
//!
//! What `base_url` of the source names decides where credentials are sent: only admins change it.

use crate::api::Api;
use crate::api::cluster::target::owner_of;
use crate::api::compat::connections::NAMED_IN_BODY;
use crate::api::routes::Routes;
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use crate::registry::connections::Refused;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

/// Most connections changed by one call.
const IDS_MAX: usize = 1_000;

/// What to do where connections of several partitions are changed: all or none cannot be kept over them.
const CHANGE_ONE: &str = "these connections belong to several shards, which cannot be changed together: send a call for \
                          each connection";

pub(super) fn routes() -> Routes {
    let owner = || owner_of(NAMED_IN_BODY).refuse_several(CHANGE_ONE);
    ["/connections/metadata", "/connection/metadata"]
        .iter()
        .fold(Routes::new(), |routes, path| routes.post(path, replace, owner()).patch(path, merge, owner()))
}

/// A checked body.
struct MetadataChange {
    ids: Vec<String>,
    /// `connection_id` as it came: one or a list.
    given: Value,
    source: String,
    metadata: Map<String, Value>,
}

async fn replace(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let ask = ask(&api, &caller, request).await?;
    let given = |key: &str| Some(ask.metadata.get(key).cloned());
    must_leave_base_url(&api, &caller, &ask, given)?;
    must_lead_outside(&api, &caller, &ask, |_| ask.metadata.clone())?;
    let done = api.app.connections.set_metadata(&caller.environment, &ask.source, &ask.ids, &ask.metadata).await;
    answer(&api, &caller, StatusCode::CREATED, ask, done)
}

async fn merge(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let ask = ask(&api, &caller, request).await?;
    let given = |key: &str| ask.metadata.get(key).cloned().map(Some);
    must_leave_base_url(&api, &caller, &ask, given)?;
    must_lead_outside(&api, &caller, &ask, |known| known.into_iter().chain(ask.metadata.clone()).collect())?;
    let done = api.app.connections.merge_metadata(&caller.environment, &ask.source, &ask.ids, &ask.metadata).await;
    answer(&api, &caller, StatusCode::OK, ask, done)
}

/// Refuses callers below admin who would change a key that `base_url` names. `given` is what becomes of a key: nothing if it
/// stays as it is.
fn must_leave_base_url(
    api: &Api,
    caller: &Caller,
    ask: &MetadataChange,
    given: impl Fn(&str) -> Option<Option<Value>>,
) -> Result<(), Refusal> {
    let definition = api.app.definitions.get(&ask.source).filter(|_| caller.role < Role::Admin);
    let Some(definition) = definition else { return Ok(()) };
    let named = definition.base_url.names();
    let keys = named.iter().filter_map(|name| name.strip_prefix("connection.metadata.")?.split('.').next());
    for key in keys {
        let Some(given) = given(key) else { continue };
        let changed = |id: &String| {
            let account = api.app.connections.get(&caller.environment, &ask.source, id);
            account.is_some_and(|account| account.connection.metadata.get(key) != given.as_ref())
        };
        if ask.ids.iter().any(changed) {
            let message = format!(
                "`base_url` of {} names `{key}` of the metadata, so it decides where credentials are sent: the role admin \
                 is needed to change it; leave it as it is, or use an admin key",
                ask.source
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
    }
    Ok(())
}

/// Refuses metadata that would send the source's requests to an address that is not the public internet. A name is judged each
/// time it is looked up. `after` is what becomes of a connection's metadata.
fn must_lead_outside(
    api: &Api,
    caller: &Caller,
    ask: &MetadataChange,
    after: impl Fn(Map<String, Value>) -> Map<String, Value>,
) -> Result<(), Refusal> {
    let Some(definition) = api.app.definitions.get(&ask.source) else { return Ok(()) };
    let Some(source) = api.app.sources.get(&ask.source) else { return Ok(()) };
    if !definition.base_url.names().iter().any(|name| name.starts_with("connection.metadata.")) {
        return Ok(());
    }
    for id in &ask.ids {
        let Some(account) = api.app.connections.get(&caller.environment, &ask.source, id) else { continue };
        let mut connection = (*account.connection).clone();
        let known = connection.metadata.as_object().cloned().unwrap_or_default();
        connection.metadata = Value::Object(after(known));
        if let Err(why) = source.permits(&connection)
            && why.code == "egress_blocked"
        {
            return Err(Refusal::bad("egress_blocked", format!("connection {id}: {}", why.message)));
        }
    }
    Ok(())
}

async fn ask(api: &Api, caller: &Caller, request: Request) -> Result<MetadataChange, Refusal> {
    caller.must_be(Role::Writer)?;
    let mut body = BodyFields::read(&api.http, request, &["connection_id", "provider_config_key", "metadata"]).await?;
    let given = body.take("connection_id").unwrap_or_default();
    let ids = ids(&given);
    if ids.is_none() {
        let message = format!("an id or a list of 1 to {IDS_MAX} ids is wanted");
        body.fault("invalid_type", &["connection_id"], message);
    }
    let source = body.demand("provider_config_key");
    let metadata = body.object("metadata");
    body.done()?;
    Ok(MetadataChange { ids: ids.unwrap_or_default(), given, source, metadata })
}

fn ids(given: &Value) -> Option<Vec<String>> {
    let list = match given {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let text = |id: &Value| id.as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let mut ids: Vec<String> = list.iter().map(text).collect::<Option<_>>()?;
    ids.sort();
    ids.dedup();
    (1..=IDS_MAX).contains(&ids.len()).then_some(ids)
}

fn answer(
    api: &Api,
    caller: &Caller,
    status: StatusCode,
    ask: MetadataChange,
    done: Result<(), Refused>,
) -> Result<Response, Refusal> {
    match done {
        Ok(()) => {
            api.app.hooks.connection_changed(&caller.environment, &ask.source);
            let echo = json!({"connection_id": ask.given, "provider_config_key": ask.source, "metadata": ask.metadata});
            Ok((status, Json(echo)).into_response())
        }
        Err(why) => Err(why.into()),
    }
}
