//! What an integration does: its streams, and its functions in TypeScript, as clients list functions. All of it stands in files.

use super::named;
use crate::api::Api;
use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::config::Role;
use crate::connectors::definition::{Stream, Tick};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::ingest::poll::plan::frequency_text;
use crate::registry::integrations::Integration;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

/// Most functions of a page, and those if nothing is said.
const LIMIT_MAX: u64 = 1_000;
const LIMIT: u64 = 100;

pub(super) fn routes() -> Routes {
    let one = "/integrations/{key}/functions/{name}";
    Routes::new()
        .get("/integrations/{key}/functions", list, local())
        .get(one, show, local())
        .delete(one, delete, local())
        .get("/integrations/{key}/functions/{name}/code", code, local())
        .get("/scripts/config", config, local())
        .get("/environment-variables", environment, local())
}

/// A function as it is listed, and where its code is.
struct ListedFunction {
    name: String,
    /// `sync`, `action` or `on-event`.
    kind: &'static str,
    about: Value,
    /// Its file, if it has one of its own; else it is a part of the definition.
    file: Option<String>,
}

impl ListedFunction {
    fn of_stream(stream: &Stream, integration: &Integration) -> ListedFunction {
        let runs = match &stream.schedule.tick {
            Tick::Every(every) => frequency_text(*every),
            Tick::Cron(cron) => cron.clone(),
        };
        let about = json!({
            "returns": [stream.name],
            "json_schema": stream.schema,
            "runs": runs,
            "auto_start": !stream.schedule.paused,
            "track_deletes": stream.deletes.from_full_list.is_some(),
        });
        ListedFunction::new(&stream.sync, "sync", about, None, integration)
    }

    fn new(name: &str, kind: &'static str, about: Value, file: Option<String>, of: &Integration) -> ListedFunction {
        let mut about = about;
        about["name"] = name.into();
        about["type"] = kind.into();
        about["id"] = 0.into();
        about["enabled"] = true.into();
        about["last_deployed"] = of.updated_at.to_string().into();
        about["source"] = "repo".into();
        ListedFunction { name: name.to_owned(), kind, about, file }
    }
}

/// Everything an integration does, by name.
fn all(api: &Api, integration: &Integration) -> Vec<ListedFunction> {
    let streams = integration.definition.streams.iter().filter(|stream| !stream.of_function);
    let mut all: Vec<_> = streams.map(|stream| ListedFunction::of_stream(stream, integration)).collect();
    all.extend(of_files(api, integration));
    all.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    all
}

/// Those in TypeScript.
#[cfg(feature = "functions")]
fn of_files(api: &Api, integration: &Integration) -> Vec<ListedFunction> {
    use crate::connectors::functions::runtime::compile::FunctionKind;
    let own = api.app.definitions.functions.all().iter().filter(|function| function.place.source == integration.key);
    let listed = own.map(|function| {
        let (place, said) = (&function.place, &function.definition);
        let mut about = json!({"description": said.description, "scopes": said.scopes});
        let kind = match place.kind {
            FunctionKind::Sync => {
                about["returns"] = said.models.keys().cloned().collect();
                about["json_schema"] = Value::Object(said.models.clone());
                about["runs"] = said.frequency.clone().into();
                about["auto_start"] = (said.auto_start != Some(false)).into();
                about["track_deletes"] = (said.track_deletes == Some(true)).into();
                "sync"
            }
            FunctionKind::Action => {
                about["returns"] = json!([]);
                about["input"] = said.input.clone().unwrap_or_default();
                about["json_schema"] = said.output.clone().unwrap_or_default();
                "action"
            }
            FunctionKind::OnEvent => {
                about["event"] = said.event.clone().into();
                "on-event"
            }
        };
        ListedFunction::new(&place.name, kind, about, Some(place.file.clone()), integration)
    });
    listed.collect()
}

#[cfg(not(feature = "functions"))]
fn of_files(_: &Api, _: &Integration) -> Vec<ListedFunction> {
    Vec::new()
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["type", "search", "page", "limit"]);
    let (kind, search) = (query.one("type"), query.one("search").unwrap_or_default().to_lowercase());
    let (limit, page) = (query.limit(LIMIT, LIMIT_MAX), query.number("page", 0, u64::from(u32::MAX)).unwrap_or(0));
    query.done()?;
    let mut found = all(&api, &named(&api, &caller, &key)?);
    found.retain(|one| kind.as_ref().is_none_or(|kind| kind == one.kind) && one.name.to_lowercase().contains(&search));
    let from = usize::try_from(page).unwrap_or(usize::MAX).saturating_mul(limit);
    let total = found.len();
    let data: Vec<Value> = found.into_iter().skip(from).take(limit).map(|one| one.about).collect();
    Ok(Json(json!({"data": data, "pagination": {"total": total, "page": page, "limit": limit}})))
}

/// The function that a path names; of several of one name the query says which kind.
fn one(api: &Api, caller: &Caller, key: &str, name: &str, query: Option<&str>) -> Result<ListedFunction, Refusal> {
    let mut query = QueryFields::read(query, &["type"]);
    let kind = query.one("type");
    query.done()?;
    let mut found = all(api, &named(api, caller, key)?);
    found.retain(|one| one.name == name && kind.as_ref().is_none_or(|kind| kind == one.kind));
    if found.len() > 1 {
        let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
        let message = format!("`{name}` is the name of several functions: add `type`, one of {}", kinds.join(", "));
        return Err(Refusal::new(StatusCode::CONFLICT, "ambiguous_function", message));
    }
    let unknown = || Refusal::not_found(format!("`{key}` has no function `{name}`; GET /integrations/{key}/functions"));
    found.pop().ok_or_else(unknown)
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((key, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({"data": one(&api, &caller, &key, &name, query.as_deref())?.about})))
}

async fn code(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((key, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    let function = one(&api, &caller, &key, &name, query.as_deref())?;
    let code = match &function.file {
        Some(file) => api.app.definitions.functions.text(file),
        None => Some(named(&api, &caller, &key)?.definition.text.to_string()),
    };
    let code = code.ok_or_else(|| Refusal::not_found(format!("the file of `{name}` cannot be read any more")))?;
    Ok(Json(json!({"type": function.kind, "code": code})))
}

/// Files are the owner's: nothing of them is deleted from here.
async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((key, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    one(&api, &caller, &key, &name, query.as_deref())?;
    let message = format!("`{name}` stands in a file: remove it there, and start again");
    Err(Refusal::new(StatusCode::CONFLICT, "defined_in_file", message))
}

/// All integrations with what they do, in one list.
async fn config(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["format"]);
    let format = query.one("format").unwrap_or_else(|| "nango".to_owned());
    if !["nango", "openai"].contains(&format.as_str()) {
        query.fault("invalid_value", &["format"], "`nango` or `openai` is wanted");
    }
    query.done()?;
    let integrations = api.app.integrations.list(&caller.environment);
    if format == "openai" {
        let tools = integrations.iter().flat_map(|integration| all(&api, integration).into_iter().filter_map(tool));
        return Ok(Json(json!({"data": tools.collect::<Vec<_>>()})));
    }
    let described = integrations.iter().map(|integration| {
        let functions = all(&api, integration);
        let of = |kind: &str| functions.iter().filter(|one| one.kind == kind).map(script).collect::<Vec<_>>();
        json!({
            "providerConfigKey": integration.key,
            "provider": integration.provider(),
            "syncs": of("sync"),
            "actions": of("action"),
            "on-events": of("on-event"),
        })
    });
    Ok(Json(Value::Array(described.collect())))
}

/// A function in the older form.
fn script(function: &ListedFunction) -> Value {
    let mut script = function.about.as_object().cloned().unwrap_or_default();
    script.entry("returns").or_insert_with(|| json!([]));
    for name in ["endpoints", "features"] {
        script.insert(name.to_owned(), json!([]));
    }
    script.insert("sdk_version".to_owned(), Value::Null);
    Value::Object(script)
}

/// An action as a tool that a language model may call.
fn tool(function: ListedFunction) -> Option<Value> {
    if function.kind != "action" {
        return None;
    }
    let input = function.about["input"].as_object().cloned().unwrap_or_default();
    let part = |name: &str, or: Value| input.get(name).cloned().unwrap_or(or);
    Some(json!({
        "name": function.name,
        "description": function.about["description"].as_str().unwrap_or(&function.name),
        "parameters": {
            "type": "object",
            "properties": part("properties", Value::Object(Map::new())),
            "required": part("required", json!([])),
        },
    }))
}

/// What functions are given by their definitions (`functions.env`).
async fn environment(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    QueryFields::read(query.as_deref(), &[]).done()?;
    let mut all = std::collections::BTreeMap::new();
    for integration in api.app.integrations.list(&caller.environment) {
        all.extend(integration.definition.functions.env.clone());
    }
    let rows = all.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
    Ok(Json(rows.collect()))
}
