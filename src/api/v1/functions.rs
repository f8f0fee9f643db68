//! `/v1/functions`: the functions of this process, and whether their files are the code in force.

use crate::api::Api;
use crate::api::cluster::target::local;
use crate::api::routes::Routes;
use crate::connectors::functions::runtime::Function;
use crate::connectors::functions::runtime::compile::FunctionKind;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::registry::reload::Refused;
use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;

pub(super) fn routes() -> Routes {
    // Each process reads files of its own.
    Routes::new().get("/v1/functions", list, local())
}

/// Functions, and the code that is in force.
#[derive(Default, Serialize)]
struct FunctionList {
    functions: Vec<FunctionReport>,
    hash: Option<String>,
    reloaded_at: Option<String>,
    refused: Option<RefusedReport>,
}

#[derive(Serialize)]
struct FunctionReport {
    source: String,
    kind: FunctionKind,
    name: String,
    file: String,
}

/// Files that were not taken: the code before runs on.
#[derive(Serialize)]
struct RefusedReport {
    at: String,
    complaints: Vec<String>,
}

async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Json<FunctionList>, Refusal> {
    QueryFields::read(query.as_deref(), &[]).done()?;
    let Some(reload) = &api.app.definitions.functions.reload else { return Ok(Json(FunctionList::default())) };
    let status = reload.status();
    Ok(Json(FunctionList {
        functions: reload.functions().iter().map(described).collect(),
        hash: Some(reload.code().current().hash.clone()),
        reloaded_at: status.reloaded_at.map(|at| at.to_string()),
        refused: status.refused.map(|Refused { at, complaints }| RefusedReport { at: at.to_string(), complaints }),
    }))
}

fn described(Function { place, .. }: &Function) -> FunctionReport {
    let (source, kind) = (place.source.clone(), place.kind);
    FunctionReport { source, kind, name: place.name.clone(), file: place.file.clone() }
}
