//! `/v1/views` of a whole installation: each owner knows its own partitions, here they become one answer.
//!
//! Promises: what is told of a view is the sum over all partitions, and the worst where there is no sum; a partition that
//! cannot be asked is a refusal that says so, never a smaller number. Nothing is deleted before all owners have said that
//! they do not define the view. A partition that cannot be reached after that is named, and asking again deletes what is left
//! and nothing twice.

use super::super::auth::Caller;
use super::super::error::Refusal;
use super::super::views::{defined, unknown};
use super::{Door, Told, Whole, pass};
use crate::config::Role;
use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// Where the list is had.
const LIST: &str = "/v1/views";

/// An answer other than what was asked for. Boxed: it is large, and rare.
type Otherwise = Box<Response>;

fn otherwise(what: impl IntoResponse) -> Otherwise {
    Box::new(what.into_response())
}

/// Answers for all partitions.
pub(super) async fn answer(door: &Door, caller: &Caller, whole: &Whole) -> Result<Response, Otherwise> {
    let path = whole.head.uri.path();
    let name = path.trim_end_matches('/').strip_prefix("/v1/views/");
    let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    match (&whole.head.method, name) {
        (&Method::GET | &Method::HEAD, None) => Ok(Json(json!({"views": list(door, whole).await?})).into_response()),
        (&Method::GET | &Method::HEAD, Some(name)) => {
            let found = list(door, whole).await?.into_iter().find(|view| view["name"] == name.as_str());
            found.map(|view| Json(view).into_response()).ok_or_else(|| otherwise(unknown(&name)))
        }
        (&Method::DELETE, Some(name)) => {
            caller.must_be(Role::Writer).map_err(otherwise)?;
            may_go(&name, &list(door, whole).await?).map_err(otherwise)?;
            retract(door, &name, whole).await
        }
        // Nothing is served so; the front has the right refusal.
        _ => Ok(pass(&door.front, whole.request()).await),
    }
}

/// All views of all partitions.
async fn list(door: &Door, whole: &Whole) -> Result<Vec<Value>, Otherwise> {
    listed(door, whole, LIST, "views").await
}

/// The list that is had at a path, of all partitions.
pub(super) async fn listed(
    door: &Door,
    whole: &Whole,
    path: &'static str,
    field: &str,
) -> Result<Vec<Value>, Otherwise> {
    let mut head = whole.head.clone();
    (head.method, head.uri) = (Method::GET, Uri::from_static(path));
    let whole = whole.headed(head);
    let mut said = Vec::new();
    for partition in 0..door.node.spread().count {
        let told = door.told(partition, &whole).await.map_err(otherwise)?;
        match told.json() {
            Some(mut value) => said.extend(value[field].as_array_mut().map(std::mem::take).unwrap_or_default()),
            None => return Err(otherwise(told)),
        }
    }
    Ok(together(said))
}

/// What partitions say, view by view (or endpoint by endpoint): those that are defined first, each in the order in which they were met.
fn together(said: Vec<Value>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for view in said {
        let same = |known: &&mut Value| ["name", "source", "removed"].iter().all(|field| known[*field] == view[*field]);
        match all.iter_mut().find(same) {
            Some(known) => *known = sum(known.take(), view),
            None => all.push(view),
        }
    }
    all.sort_by_key(|view| view["removed"] == true);
    all
}

/// Numbers are added, lists put together; what is true of one is true of all: stopped in one partition is stopped. What one
/// does not know another may.
fn sum(all: Value, more: Value) -> Value {
    match (all, more) {
        (Value::Number(all), Value::Number(more)) => {
            all.as_u64().unwrap_or(0).saturating_add(more.as_u64().unwrap_or(0)).into()
        }
        (Value::Bool(all), Value::Bool(more)) => Value::Bool(all || more),
        (Value::Array(all), Value::Array(more)) => all.into_iter().chain(more).collect(),
        (Value::Object(mut all), Value::Object(more)) => {
            for (name, value) in more {
                let known = all.remove(&name);
                all.insert(name, known.map_or(value.clone(), |known| sum(known, value)));
            }
            Value::Object(all)
        }
        (Value::Null, more) => more,
        (all, _) => all,
    }
}

/// Processes may run programs of two releases: as long as one of them defines a view, no other deletes it.
fn may_go(name: &str, views: &[Value]) -> Result<(), Refusal> {
    let of_name = || views.iter().filter(|view| view["name"] == name);
    let kept_up = |source: &Value| of_name().any(|view| view["removed"] == false && view["source"] == *source);
    let mut removed = of_name().filter(|view| view["removed"] == true).map(|view| &view["source"]).peekable();
    let clash = match removed.peek() {
        Some(_) => removed.any(kept_up),
        None => of_name().next().is_some(),
    };
    if clash { Err(defined(name)) } else { Ok(()) }
}

/// Deletes in every partition, and goes on where one fails.
async fn retract(door: &Door, name: &str, whole: &Whole) -> Result<Response, Otherwise> {
    let mut done = Deleted::default();
    for partition in 0..door.node.spread().count {
        match door.told(partition, whole).await {
            Ok(told) => done.add(partition, &told),
            Err(why) => done.missed.push((partition, why.message().to_owned())),
        }
    }
    done.answer(name).map(|all| Json(all).into_response()).map_err(otherwise)
}

/// What became of a view in the partitions.
#[derive(Default)]
struct Deleted {
    /// Records deleted.
    records: u64,
    /// Whether any partition has ever known the view.
    known: bool,
    /// Partitions of which it is not known what they did, and why.
    missed: Vec<(i32, String)>,
}

impl Deleted {
    fn add(&mut self, partition: i32, told: &Told) {
        match told.json() {
            Some(value) => {
                self.known = true;
                self.records += value["deleted"].as_u64().unwrap_or(0);
            }
            // It has nothing of it.
            None if told.head.status == StatusCode::NOT_FOUND => {}
            None => {
                let body: Value = serde_json::from_slice(&told.body).unwrap_or_default();
                let said = body["error"]["message"].as_str().or_else(|| body["detail"].as_str());
                let said = said.map_or_else(|| told.head.status.to_string(), str::to_owned);
                self.missed.push((partition, said));
            }
        }
    }

    fn answer(self, name: &str) -> Result<Value, Refusal> {
        if let Some((_, why)) = self.missed.first() {
            let numbers: Vec<String> = self.missed.iter().map(|(partition, _)| partition.to_string()).collect();
            let message = format!(
                "{} records of `{name}` are deleted; it is not known what became of those in partition {}: {why}. Ask \
                 again: what is left is deleted then, and nothing twice",
                self.records,
                numbers.join(", "),
            );
            return Err(Refusal::busy("partly_deleted", message));
        }
        if !self.known {
            return Err(unknown(name));
        }
        Ok(json!({"view": name, "deleted": self.records}))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use super::*;

    #[test]
    fn a_view_is_the_sum_over_partitions_and_stopped_where_one_is() {
        let view = |name: &str, rows: u64, stopped: bool, skewed: Value| json!({"name": name, "source": "crm", "rows": rows, "stopped": stopped, "skewed": skewed, "removed": false});
        let gone = |records: u64| json!({"name": "Gone", "source": "crm", "removed": true, "records": records});
        let said = vec![
            view("A", 2, false, json!([])),
            gone(7),
            view("A", 3, true, json!([{"key": "x"}])),
            view("B", 1, false, json!([])),
            gone(1),
        ];
        let all = [view("A", 5, true, json!([{"key": "x"}])), view("B", 1, false, json!([])), gone(8)];
        assert_eq!(together(said), all);
    }

    #[test]
    fn an_endpoint_is_disabled_where_one_partition_was_told_so() {
        let endpoint = |name: &str, at: Option<&str>| json!({"name": name, "host": "example.com", "disabled": at.is_some(), "disabled_at": at});
        let at = Some("2026-04-14T18:46:03.000000Z");
        let said = vec![endpoint("a", None), endpoint("b", None), endpoint("a", at), endpoint("b", None)];
        assert_eq!(together(said), [endpoint("a", at), endpoint("b", None)]);
    }

    #[test]
    fn a_view_that_one_process_still_defines_stays() {
        let view = |source: &str, removed: bool| json!({"name": "A", "source": source, "removed": removed});
        let may_go = |views: &[Value]| may_go("A", views).is_ok();
        assert!(may_go(&[]), "the owners say whether there ever was one");
        assert!(may_go(&[view("crm", true)]));
        assert!(!may_go(&[view("crm", false)]));
        assert!(!may_go(&[view("crm", false), view("crm", true)]), "two programs");
        assert!(may_go(&[view("desk", false), view("crm", true)]), "it has moved to another source");
    }

    #[test]
    fn what_was_not_reached_is_named() {
        let mut done = Deleted::default();
        done.add(0, &told(200, json!({"view": "A", "deleted": 3})));
        done.add(1, &told(404, json!({"error": {"message": "nothing"}})));
        assert_eq!(done.answer("A").expect("done"), json!({"view": "A", "deleted": 3}));

        let mut partly = Deleted::default();
        partly.add(0, &told(200, json!({"view": "A", "deleted": 3})));
        partly.add(4, &told(503, json!({"error": {"message": "the server is stopping"}})));
        let refused = partly.answer("A").expect_err("not all of it");
        let said = refused.message().to_owned();
        assert!(said.contains("3 records") && said.contains("partition 4: the server is stopping"), "{said}");
        assert_eq!(refused.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);

        let mut nothing = Deleted::default();
        nothing.add(0, &told(404, Value::Null));
        assert_eq!(nothing.answer("A").expect_err("unknown").into_response().status(), StatusCode::NOT_FOUND);
    }
}
