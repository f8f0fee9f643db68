//! `/integrations`: the sources of the installation, and what the app is known by at their providers. Those of definition files are
//! shown; others are made here from a preset, changed and deleted.
//!
//! | file | routes |
//! |---|---|
//! | `functions` | `/integrations/{key}/functions…`, `/scripts/config`, `/environment-variables` |
//! | `providers` | `/providers…`: the presets |

mod functions;
mod providers;

use crate::api::Api;
use crate::api::cluster::target::{alone, local};
use crate::api::routes::Routes;
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::{InputFault, Refusal};
use crate::http::query::{QueryFields, is_name};
use crate::registry::integrations::{Integration, IntegrationRefused, MadeIntegration};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

/// Most scopes of an integration.
const SCOPES_MAX: usize = 200;

/// Where several processes share the connections, each reads its definitions from files.
const IN_FILES: &str = "several processes share the connections: describe the integration in a definition file of each";

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/integrations", list, local())
        .post("/integrations", create, alone(IN_FILES))
        .post("/integrations/quickstart", quickstart, local())
        .get("/integrations/{key}", show, local())
        .patch("/integrations/{key}", change, alone(IN_FILES))
        .delete("/integrations/{key}", delete, alone(IN_FILES))
        .merge(functions::routes())
        .merge(providers::routes())
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    QueryFields::read(query.as_deref(), &[]).done()?;
    let all = api.app.integrations.list(&caller.environment);
    Ok(Json(json!({"data": all.iter().map(brief).collect::<Vec<_>>()})))
}

/// What beside the usual is shown of an integration.
#[derive(Default)]
struct Included {
    webhook: bool,
    credentials: bool,
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["include"]);
    let mut included = Included::default();
    for word in query.all("include") {
        match word.as_str() {
            "webhook" => included.webhook = true,
            "credentials" => included.credentials = true,
            _ => query.fault("invalid_value", &["include"], "`webhook` or `credentials` is wanted"),
        }
    }
    query.done()?;
    if included.credentials {
        caller.must_be(Role::Admin)?;
    }
    let integration = named(&api, &caller, &key)?;
    let mut shown = brief(&integration);
    if included.webhook {
        shown["webhook_url"] = webhook_url(&api, &caller, &key).into();
    }
    if included.credentials {
        shown["credentials"] = credentials(&integration);
    }
    Ok(Json(json!({"data": shown})))
}

async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    let mut body = BodyFields::read(&api.http, request, &SAID).await?;
    let (key, provider) = (body.demand("unique_key"), body.demand("provider"));
    if !key.is_empty() && !is_name(&key) {
        body.fault("invalid_value", &["unique_key"], "letters, digits, `-`, `_` and `.` are wanted");
    }
    let mut made = MadeIntegration::new(&caller.environment, &provider);
    let said = Said::read(&mut body);
    body.done()?;
    said.lay_over(&mut made);
    api.app.create_integration(&key, made).await?;
    Ok(Json(json!({"data": brief(&named(&api, &caller, &key)?)})))
}

async fn change(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    let mut body = BodyFields::read(&api.http, request, &SAID).await?;
    for (name, why) in [
        ("unique_key", "records and connections are kept under the name: make another integration"),
        ("provider", "what a source is cannot be changed: make another integration"),
    ] {
        if body.take(name).is_some_and(|given| name == "provider" || given.as_str() != Some(&key)) {
            body.fault("invalid_value", &[name], why);
        }
    }
    let said = Said::read(&mut body);
    body.done()?;
    api.app.update_integration(&caller.environment, &key, |made| said.lay_over(made)).await?;
    Ok(Json(json!({"data": brief(&named(&api, &caller, &key)?)})))
}

async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
) -> Result<Json<Value>, Refusal> {
    caller.must_be(Role::Admin)?;
    api.app.delete_integration(&caller.environment, &key).await?;
    Ok(Json(json!({"success": true})))
}

/// Apps that are shared by everybody's installations are no part of this.
async fn quickstart() -> Refusal {
    let message =
        "there are no shared developer apps: register your own at the provider, and POST /integrations with it";
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_supported", message)
}

fn named(api: &Api, caller: &Caller, key: &str) -> Result<Integration, Refusal> {
    let found = api.app.integrations.get(&caller.environment, key);
    found.ok_or_else(|| IntegrationRefused::Unknown(key.to_owned()).into())
}

/// An integration as everybody sees it.
fn brief(integration: &Integration) -> Value {
    let made = integration.made.as_ref();
    json!({
        "unique_key": integration.key,
        "provider": integration.provider(),
        "display_name": integration.display_name(),
        "logo": "",
        "forward_webhooks": made.is_some_and(|made| made.forward_webhooks),
        "created_at": integration.created_at.to_string(),
        "updated_at": integration.updated_at.to_string(),
    })
}

/// The URL for webhooks of all its connections; null where each connection has its own.
fn webhook_url(api: &Api, caller: &Caller, key: &str) -> Option<String> {
    let all = api.app.hooks.hook_urls(Some(key)).into_iter();
    let mut shared =
        all.filter(|hook| hook.entrance.connection.is_none() && hook.entrance.environment == *caller.environment);
    shared.next().map(|hook| hook.url)
}

/// The app's own credentials, of an integration that was made here. Those of files stand there.
fn credentials(integration: &Integration) -> Value {
    let Some(made) = &integration.made else { return Value::Null };
    json!({
        "type": integration.definition.auth.kind.mode(),
        "client_id": made.client_id,
        "client_secret": made.client_secret,
        "scopes": made.scopes.as_ref().map(|scopes| scopes.join(",")),
        "webhook_secret": made.webhook_secret,
    })
}

/// What a body may say.
const SAID: [&str; 7] =
    ["provider", "unique_key", "display_name", "credentials", "forward_webhooks", "integration_config", "custom"];

/// What a body says of an integration, beside its name and provider.
#[derive(Default)]
struct Said {
    display_name: Option<String>,
    forward_webhooks: Option<bool>,
    custom: Option<Map<String, Value>>,
    credentials: Option<SaidCredentials>,
}

/// What it says of the app.
struct SaidCredentials {
    client_id: Option<String>,
    client_secret: Option<String>,
    scopes: Option<Vec<String>>,
    webhook_secret: Option<String>,
}

impl Said {
    fn read(body: &mut BodyFields) -> Said {
        let (display_name, forward_webhooks) = (body.text("display_name"), body.flag("forward_webhooks"));
        let custom = body.has("custom").then(|| body.object("custom"));
        let config = if body.has("integration_config") { body.object("integration_config") } else { Map::new() };
        if let Some(name) = config.keys().next() {
            let message = "presets ask for no configuration: describe the source in a definition file";
            body.fault("unrecognized_key", &["integration_config", name], message);
        }
        let credentials = body.has("credentials").then(|| {
            let given = body.object("credentials");
            SaidCredentials::read(given, body)
        });
        Said { display_name, forward_webhooks, custom, credentials }
    }

    fn lay_over(self, made: &mut MadeIntegration) {
        made.display_name = self.display_name.or(made.display_name.take());
        made.forward_webhooks = self.forward_webhooks.unwrap_or(made.forward_webhooks);
        made.custom = self.custom.unwrap_or_else(|| std::mem::take(&mut made.custom));
        let Some(given) = self.credentials else { return };
        made.client_id = given.client_id.or(made.client_id.take());
        made.client_secret = given.client_secret.or(made.client_secret.take());
        made.scopes = given.scopes.or(made.scopes.take());
        made.webhook_secret = given.webhook_secret.or(made.webhook_secret.take());
    }
}

impl SaidCredentials {
    fn read(mut given: Map<String, Value>, body: &mut BodyFields) -> SaidCredentials {
        // The preset says how its apps sign in.
        given.remove("type");
        let mut text = |name: &str| match given.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                body.fault("invalid_type", &["credentials", name], "a text is wanted");
                None
            }
        };
        let (client_id, client_secret) = (text("client_id"), text("client_secret"));
        let (scopes, webhook_secret) = (text("scopes"), text("webhook_secret"));
        let scopes = scopes.map(|scopes| {
            let words = scopes.split([',', ' ']).filter(|word| !word.is_empty());
            words.map(str::to_owned).take(SCOPES_MAX).collect()
        });
        for name in given.keys() {
            body.fault("unrecognized_key", &["credentials", name], "is not known here");
        }
        SaidCredentials { client_id, client_secret, scopes, webhook_secret }
    }
}

impl From<IntegrationRefused> for Refusal {
    fn from(why: IntegrationRefused) -> Self {
        let message = why.to_string();
        match why {
            IntegrationRefused::Unknown(_) => Refusal::not_found(message),
            IntegrationRefused::Exists(_) => Refusal::new(StatusCode::CONFLICT, "integration_exists", message),
            IntegrationRefused::InFile(_) => Refusal::new(StatusCode::CONFLICT, "defined_in_file", message),
            IntegrationRefused::UnknownProvider(..) => Refusal::bad("unknown_provider", message),
            IntegrationRefused::InUse(..) => Refusal::new(StatusCode::CONFLICT, "in_use", message),
            IntegrationRefused::TooMany => Refusal::new(StatusCode::CONFLICT, "too_many_integrations", message),
            IntegrationRefused::Wrong(complaints) => {
                let faults = complaints.iter().map(|complaint| {
                    let hint = complaint.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                    InputFault::new(complaint.code, &[], format!("{}{hint}", complaint.message))
                });
                Refusal::invalid("body", faults.collect())
            }
            IntegrationRefused::Syncs(_) => Refusal::internal(&message),
            IntegrationRefused::Source(failure) => Refusal::bad("invalid_integration", failure.to_string()),
            IntegrationRefused::Engine(error) => error.into(),
        }
    }
}
