//! `/sync`: trigger, start and pause syncs, ask how they stand, change how often they run, make variants of them.

mod status;

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::{ConnectionNames, NamedIn, all_owners, owner_of};
use crate::api::compat::connections::NAMED_IN_BODY;
use crate::api::routes::Routes;
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::{InputFault, Refusal};
use crate::http::query::{header, is_name};
use crate::ingest::poll::{SyncError, SyncKey, SyncName, TriggerOptions, Unresolved};
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most syncs one call may name.
const NAMES_MAX: usize = 1_000;

/// A trigger may name its connection in headers as well.
const TRIGGERED: ConnectionNames = ConnectionNames {
    source: &[NamedIn::Body("provider_config_key"), NamedIn::Header("provider-config-key")],
    connection: &[NamedIn::Body("connection_id"), NamedIn::Header("connection-id")],
};

const ASKED_FOR: ConnectionNames = ConnectionNames {
    source: &[NamedIn::Query("provider_config_key")],
    connection: &[NamedIn::Query("connection_id")],
};

pub(super) fn routes() -> Routes {
    // Where no connection is named, all of the source are meant.
    let of = |names| owner_of(names).or(all_owners::<Success>());
    Routes::new()
        .post("/sync/trigger", trigger, of(TRIGGERED))
        .post("/sync/start", start, of(NAMED_IN_BODY))
        .post("/sync/pause", pause, of(NAMED_IN_BODY))
        .get("/sync/status", status::show, owner_of(ASKED_FOR).or(all_owners::<status::SyncList>()))
        .put("/sync/update-connection-frequency", frequency, owner_of(NAMED_IN_BODY))
        .post("/sync/{name}/variant/{variant}", add_variant, owner_of(NAMED_IN_BODY))
        .delete("/sync/{name}/variant/{variant}", remove_variant, owner_of(NAMED_IN_BODY))
}

/// It is done.
#[derive(Serialize, Deserialize)]
struct Success {
    success: bool,
}

impl MergedAnswer for Success {
    fn merge(self, other: Success) -> Success {
        Success { success: self.success && other.success }
    }
}

async fn trigger(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    const KNOWN: [&str; 6] = ["syncs", "provider_config_key", "connection_id", "opts", "sync_mode", "full_resync"];
    let mut body = BodyFields::read(&api.http, request, &KNOWN).await?;
    let names = names(&mut body);
    let source = body.text("provider_config_key").or_else(|| header(&headers, "provider-config-key"));
    let connection = body.text("connection_id").or_else(|| header(&headers, "connection-id"));
    let options = options(&mut body);
    body.done()?;
    let source = source.ok_or_else(Refusal::missing_source)?;
    for key in resolve(&api, &caller, &source, connection.as_deref(), &names)? {
        api.app.syncs.trigger(&key, options)?;
    }
    Ok(success())
}

/// `opts`, or one of the older ways to say the same.
fn options(body: &mut BodyFields) -> TriggerOptions {
    let older = body.has("sync_mode") || body.has("full_resync");
    if body.has("opts") && older {
        body.fault("invalid_type", &["opts"], "may not stand beside sync_mode or full_resync");
    }
    let plain = TriggerOptions::default();
    match body.take("opts") {
        None => older_options(body),
        Some(Value::Object(opts)) => {
            let mut read = |name: &str| match opts.get(name) {
                None => false,
                Some(Value::Bool(flag)) => *flag,
                Some(_) => {
                    body.fault("invalid_type", &["opts", name], "true or false is wanted");
                    false
                }
            };
            let (reset, empty) = (read("reset"), read("emptyCache"));
            for name in opts.keys().filter(|n| *n != "reset" && *n != "emptyCache") {
                body.fault("unrecognized_key", &["opts", name], format!("`{name}` is not known here"));
            }
            TriggerOptions { reset, empty_cache: reset && empty, ..plain }
        }
        Some(_) => {
            body.fault("invalid_type", &["opts"], "an object with reset and emptyCache is wanted");
            plain
        }
    }
}

fn older_options(body: &mut BodyFields) -> TriggerOptions {
    let plain = TriggerOptions::default();
    let resync = body.flag("full_resync").unwrap_or(false);
    match body.text("sync_mode").as_deref() {
        None => TriggerOptions { reset: resync, ..plain },
        Some("incremental") => plain,
        Some("full_refresh") => TriggerOptions { reset: true, ..plain },
        Some("full_refresh_and_clear_cache") => TriggerOptions { reset: true, empty_cache: true, ..plain },
        Some(_) => {
            let message = "incremental, full_refresh or full_refresh_and_clear_cache is wanted";
            body.fault("invalid_string", &["sync_mode"], message);
            plain
        }
    }
}

async fn start(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    for key in named(&api, &caller, request).await? {
        api.app.syncs.start(&key).await?;
    }
    Ok(success())
}

async fn pause(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    for key in named(&api, &caller, request).await? {
        api.app.syncs.pause(&key).await?;
    }
    Ok(success())
}

/// The syncs a body of `start` or `pause` names.
async fn named(api: &Api, caller: &Caller, request: Request) -> Result<Vec<SyncKey>, Refusal> {
    caller.must_be(Role::Writer)?;
    let mut body = BodyFields::read(&api.http, request, &["syncs", "provider_config_key", "connection_id"]).await?;
    let names = names(&mut body);
    let source = body.text("provider_config_key");
    let connection = body.text("connection_id");
    body.done()?;
    let source = source.ok_or_else(Refusal::missing_source)?;
    resolve(api, caller, &source, connection.as_deref(), &names)
}

async fn frequency(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Writer)?;
    const KNOWN: [&str; 5] = ["sync_name", "sync_variant", "provider_config_key", "connection_id", "frequency"];
    let mut body = BodyFields::read(&api.http, request, &KNOWN).await?;
    let name = SyncName { name: body.demand("sync_name"), variant: body.text("sync_variant") };
    let source = body.text("provider_config_key");
    let connection = body.demand("connection_id");
    let wanted = body.take("frequency");
    if !matches!(wanted, Some(Value::String(_) | Value::Null)) {
        body.fault("invalid_type", &["frequency"], "text such as `every 5m` is wanted, or null for the usual one");
    }
    body.done()?;
    let source = source.ok_or_else(Refusal::missing_source)?;
    let keys = resolve(&api, &caller, &source, Some(&connection), &[name])?;
    let mut frequency = String::new();
    for key in keys {
        frequency = api.app.syncs.set_frequency(&key, wanted.as_ref().and_then(Value::as_str)).await?;
    }
    Ok(Json(json!({"frequency": frequency})).into_response())
}

async fn add_variant(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((name, variant)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (source, connection) = variant_body(&api, &caller, request).await?;
    if variant == "base" || !is_name(&variant) {
        let message = "1 to 255 letters, digits, _ and - are wanted; `base` is reserved";
        return Err(Refusal::bad("invalid_variant", message));
    }
    let base = SyncName { name: name.clone(), variant: None };
    let keys = resolve(&api, &caller, &source, Some(&connection), &[base])?;
    let key = keys.first().ok_or_else(|| unknown_sync(&name))?;
    let wanted = SyncKey { variant: variant.clone(), ..key.clone() };
    if !api.app.syncs.status(std::slice::from_ref(&wanted)).is_empty() {
        return Err(Refusal::bad("sync_variant_already_exists", format!("the variant `{variant}` exists")));
    }
    let made = api.app.syncs.add_variant(key, &variant).await?;
    Ok(Json(json!({"id": made.id(), "name": name, "variant": variant})).into_response())
}

async fn remove_variant(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((name, variant)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (source, connection) = variant_body(&api, &caller, request).await?;
    if variant == "base" {
        return Err(Refusal::bad("invalid_variant", "`base` is reserved"));
    }
    let wanted = SyncName { name, variant: Some(variant) };
    for key in resolve(&api, &caller, &source, Some(&connection), &[wanted])? {
        api.app.syncs.remove_variant(&key).await?;
    }
    Ok(success())
}

async fn variant_body(api: &Api, caller: &Caller, request: Request) -> Result<(String, String), Refusal> {
    caller.must_be(Role::Writer)?;
    let mut body = BodyFields::read(&api.http, request, &["provider_config_key", "connection_id"]).await?;
    let source = body.text("provider_config_key");
    let connection = body.demand("connection_id");
    body.done()?;
    Ok((source.ok_or_else(Refusal::missing_source)?, connection))
}

/// `syncs`: names, or objects of name and variant.
fn names(body: &mut BodyFields) -> Vec<SyncName> {
    let Some(Value::Array(list)) = body.take("syncs") else {
        body.fault("invalid_type", &["syncs"], "a list of sync names is wanted; an empty list means all");
        return Vec::new();
    };
    if list.len() > NAMES_MAX {
        body.fault("too_big", &["syncs"], format!("at most {NAMES_MAX} syncs are allowed"));
    }
    let mut names = Vec::with_capacity(list.len().min(NAMES_MAX));
    for (at, value) in list.iter().take(NAMES_MAX).enumerate() {
        match sync_name(value) {
            Some(name) => names.push(name),
            None => body.fault("invalid_type", &["syncs", &at.to_string()], "a name or {name, variant} is wanted"),
        }
    }
    names
}

fn sync_name(value: &Value) -> Option<SyncName> {
    match value {
        Value::String(text) if !text.is_empty() => Some(SyncName::parse(text)),
        Value::Object(map) if map.keys().all(|k| k == "name" || k == "variant") => {
            let name = map.get("name")?.as_str()?.to_owned();
            let variant = match map.get("variant") {
                None => None,
                Some(variant) => Some(variant.as_str()?.to_owned()),
            };
            Some(SyncName { name, variant })
        }
        _ => None,
    }
}

fn resolve(
    api: &Api,
    caller: &Caller,
    source: &str,
    connection: Option<&str>,
    names: &[SyncName],
) -> Result<Vec<SyncKey>, Refusal> {
    api.app.syncs.resolve(&caller.environment, source, connection, names).map_err(|error| match error {
        Unresolved::Source(_) => Refusal::bad("unknown_provider_config", error.to_string()),
        Unresolved::Connection(id) => Refusal::unknown_connection(&id),
        Unresolved::Sync(name) => unknown_sync(&name),
    })
}

fn unknown_sync(name: &str) -> Refusal {
    Refusal::bad("unknown_sync", format!("no sync `{name}` here; GET /sync/status?syncs=* lists them"))
}

impl From<SyncError> for Refusal {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Unknown(key) => unknown_sync(&key.stream),
            SyncError::Schedule(why) => {
                Refusal::invalid("body", vec![InputFault::new("invalid_string", &["frequency"], why.to_string())])
            }
            SyncError::Variant(why) => Refusal::bad("invalid_variant", why),
            SyncError::Engine(error) => error.into(),
        }
    }
}

fn success() -> Response {
    Json(Success { success: true }).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_as_text_or_objects() {
        let read = |value: Value| sync_name(&value).map(|n| (n.name, n.variant));
        assert_eq!(read(json!("a")), Some(("a".into(), None)));
        assert_eq!(read(json!("a::v")), Some(("a".into(), Some("v".into()))));
        assert_eq!(read(json!({"name": "a", "variant": "v"})), Some(("a".into(), Some("v".into()))));
        assert_eq!(read(json!({"name": "a", "x": 1})), None);
        assert_eq!(read(json!({"variant": "v"})), None);
        assert_eq!(read(json!(1)), None);
    }
}
