//! `/providers`: the presets, which integrations are made from.

use crate::api::Api;
use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::connectors::definition::{Definition, ShippedPreset, shipped};
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// They are part of the program.
static SHIPPED: LazyLock<Vec<ShippedPreset>> = LazyLock::new(shipped);

pub(super) fn routes() -> Routes {
    Routes::new().get("/providers", list, local()).get("/providers/{name}", show, local()).get(
        "/providers/{name}/templates",
        templates,
        local(),
    )
}

async fn list(State(_): State<Api>, RawQuery(query): RawQuery) -> Result<Json<Value>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["search"]);
    let search = query.one("search").unwrap_or_default().to_lowercase();
    query.done()?;
    let fits = |preset: &&ShippedPreset| {
        let title = preset.definition.title.as_deref().unwrap_or_default().to_lowercase();
        let named = preset.name.contains(&search) || title.contains(&search);
        named || preset.definition.about.categories.contains(&search)
    };
    let found: Vec<Value> = SHIPPED.iter().filter(fits).map(described).collect();
    Ok(Json(json!({"data": found})))
}

async fn show(Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({"data": described(named(&name)?)})))
}

/// A preset brings its streams whole: there is nothing beside to be copied.
async fn templates(Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    named(&name)?;
    Ok(Json(json!({"data": []})))
}

fn named(name: &str) -> Result<&'static ShippedPreset, Refusal> {
    let unknown = || Refusal::not_found(format!("there is no preset `{name}`; GET /providers lists them"));
    SHIPPED.iter().find(|preset| preset.name == name).ok_or_else(unknown)
}

fn described(preset: &ShippedPreset) -> Value {
    let Definition { title, auth, about, .. } = &preset.definition;
    json!({
        "name": preset.name,
        "display_name": title.as_deref().unwrap_or(preset.name),
        "auth_mode": auth.kind.mode(),
        "categories": about.categories,
        "docs": about.docs.as_deref().unwrap_or_default(),
        "logo_url": "",
    })
}
