//! `/v1/views`: what is derived from the records, and how it is doing; what views left behind that are defined no more. The
//! rows are read as those of any model.
//!
//! Promises: in a cluster what is told of a view is the sum over all partitions, and the worst where there is no sum.

mod retract;

use crate::api::Api;
use crate::api::cluster::across::{Across, MergedAnswer, answered, otherwise};
use crate::api::cluster::target::{RouteTarget, all_owners};
use crate::api::routes::Routes;
use crate::config::Role;
use crate::engine::pipeline::{RemovedView, ViewStatus};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Where the list is had.
const LIST: &str = "/v1/views";

pub(super) fn routes() -> Routes {
    Routes::new()
        .get(LIST, list, all_owners::<ViewList>())
        .get("/v1/views/{name}", show, RouteTarget::All(show_across))
        .delete("/v1/views/{name}", retract, RouteTarget::All(retract::across))
}

/// What is derived, and what was left behind.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ViewList {
    views: Vec<ViewReport>,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum ViewReport {
    /// It is kept up.
    Defined(DefinedView),
    /// It is defined no more, and its records are still there.
    Removed(LeftView),
}

/// How a view is doing that is kept up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DefinedView {
    name: String,
    source: String,
    across_connections: bool,
    misfits: u64,
    failures: u64,
    stopped: bool,
    rows: u64,
    bytes: u64,
    skewed: Vec<SkewedKey>,
    /// No.
    removed: bool,
}

/// A key that very many rows have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SkewedKey {
    step: String,
    connection: String,
    key: String,
}

/// What a view left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LeftView {
    name: String,
    source: String,
    /// Yes.
    removed: bool,
    records: u64,
}

/// What was deleted of a view.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RetractedView {
    view: String,
    deleted: u64,
}

impl<'de> Deserialize<'de> for ViewReport {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ViewReport, D::Error> {
        let value = Value::deserialize(from)?;
        let read = match value["removed"] == true {
            true => serde_json::from_value(value).map(ViewReport::Removed),
            false => serde_json::from_value(value).map(ViewReport::Defined),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl ViewReport {
    fn name(&self) -> &str {
        match self {
            ViewReport::Defined(view) => &view.name,
            ViewReport::Removed(view) => &view.name,
        }
    }

    /// Adds what another owner says of the same view; gives it back if it is another view.
    fn add(&mut self, other: ViewReport) -> Option<ViewReport> {
        match (self, other) {
            (ViewReport::Defined(all), ViewReport::Defined(one))
                if (&all.name, &all.source) == (&one.name, &one.source) =>
            {
                all.add(one);
                None
            }
            (ViewReport::Removed(all), ViewReport::Removed(one))
                if (&all.name, &all.source) == (&one.name, &one.source) =>
            {
                all.records = all.records.saturating_add(one.records);
                None
            }
            (_, other) => Some(other),
        }
    }
}

impl DefinedView {
    /// Sums; stopped in one partition is stopped.
    fn add(&mut self, one: DefinedView) {
        self.across_connections |= one.across_connections;
        self.misfits = self.misfits.saturating_add(one.misfits);
        self.failures = self.failures.saturating_add(one.failures);
        self.stopped |= one.stopped;
        self.rows = self.rows.saturating_add(one.rows);
        self.bytes = self.bytes.saturating_add(one.bytes);
        self.skewed.extend(one.skewed);
    }
}

impl MergedAnswer for ViewList {
    /// View by view: those that are defined first, each in the order in which they were met.
    fn merge(mut self, other: ViewList) -> ViewList {
        for one in other.views {
            let left = self.views.iter_mut().try_fold(one, |one, known| known.add(one).ok_or(()));
            self.views.extend(left);
        }
        self.views.sort_by_key(|view| matches!(view, ViewReport::Removed(_)));
        self
    }
}

async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<ViewList> {
    Json(all(&api, &caller))
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<ViewReport>, Refusal> {
    all(&api, &caller).named(&name).map(Json)
}

/// One view of all partitions.
fn show_across(across: Across) -> BoxFuture<'static, Response> {
    Box::pin(async move {
        let list = across.get(Uri::from_static(LIST)).merged::<ViewList>().await;
        answered(list.and_then(|list| list.named(across.parameter("name")).map_err(otherwise)))
    })
}

impl ViewList {
    fn named(self, name: &str) -> Result<ViewReport, Refusal> {
        self.views.into_iter().find(|view| view.name() == name).ok_or_else(|| unknown(name))
    }
}

/// Deletes the records of a view that is not defined any more. Asked again it deletes what is left, which may be nothing.
async fn retract(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<RetractedView>, Refusal> {
    caller.must_be(Role::Writer)?;
    let engine = &api.app.engine;
    if !engine.removed_views(&caller.environment).iter().any(|view| view.name == name) {
        if engine.views().iter().any(|view| view.name == name) {
            return Err(defined(&name));
        }
        if !engine.was_view(&caller.environment, &name) {
            return Err(unknown(&name));
        }
    }
    let deleted = engine.retract_view(&caller.environment, &name).await?;
    Ok(Json(RetractedView { view: name, deleted }))
}

/// No such view is defined, nor has one left records.
fn unknown(name: &str) -> Refusal {
    Refusal::not_found(format!("no view `{name}` is published here, nor left any records; GET /v1/views lists them"))
}

/// What is kept up is not deleted.
fn defined(name: &str) -> Refusal {
    let message = format!("`{name}` is defined and kept up; take it out of the program first");
    Refusal::new(StatusCode::CONFLICT, "conflict", message)
}

fn all(api: &Api, caller: &Caller) -> ViewList {
    let defined = api.app.engine.views();
    let removed = api.app.engine.removed_views(&caller.environment);
    let defined = defined.into_iter().map(|view| ViewReport::Defined(describe(view, caller)));
    ViewList { views: defined.chain(removed.into_iter().map(left_behind)).collect() }
}

/// Of rows that were left out there are counts alone, and of skewed keys those of the caller's environment: keys may be those
/// of another. They stand in the log.
fn describe(view: ViewStatus, caller: &Caller) -> DefinedView {
    let mine = view.health.skews.into_iter().filter(|skew| *skew.environment == *caller.environment);
    let skewed = mine.map(|skew| SkewedKey { step: skew.step, connection: skew.connection, key: skew.key });
    DefinedView {
        name: view.name,
        source: view.source,
        across_connections: view.across_connections,
        misfits: view.health.misfits,
        failures: view.health.failures,
        stopped: view.health.stopped.is_some(),
        rows: view.health.rows,
        bytes: view.health.bytes,
        skewed: skewed.collect(),
        removed: false,
    }
}

fn left_behind(view: RemovedView) -> ViewReport {
    ViewReport::Removed(LeftView { name: view.name, source: view.source, removed: true, records: view.records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_view_is_the_sum_over_partitions_and_stopped_where_one_is() {
        let view = |name: &str, rows: u64, stopped: bool, skewed: Value| json!({"name": name, "source": "crm", "across_connections": false, "misfits": 0, "failures": 0, "stopped": stopped, "rows": rows, "bytes": 0, "skewed": skewed, "removed": false});
        let gone = |records: u64| json!({"name": "Gone", "source": "crm", "removed": true, "records": records});
        let list = |views: Value| serde_json::from_value::<ViewList>(json!({"views": views})).expect("a list");
        let key = || json!([{"step": "join", "connection": "acme", "key": "x"}]);
        let all = list(json!([view("A", 2, false, json!([])), gone(7)]));
        let all = all.merge(list(json!([view("A", 3, true, key()), view("B", 1, false, json!([])), gone(1)])));
        let wanted = json!({"views": [view("A", 5, true, key()), view("B", 1, false, json!([])), gone(8)]});
        assert_eq!(serde_json::to_value(all).expect("JSON"), wanted);
    }
}
