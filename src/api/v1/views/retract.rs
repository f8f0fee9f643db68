//! `DELETE /v1/views/{name}` of a whole cluster.
//!
//! Promises: nothing is deleted before all owners have said that they do not define the view; a partition that cannot be
//! reached after that is named, and asking again deletes what is left and nothing twice.

use super::{LIST, RetractedView, ViewList, ViewReport, defined, unknown};
use crate::api::cluster::across::{Across, Otherwise, answered, otherwise};
use crate::api::cluster::forwarder::OwnerAnswer;
use crate::config::Role;
use crate::http::error::Refusal;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde_json::Value;

/// Deletes in all partitions.
pub(super) fn across(across: Across) -> BoxFuture<'static, Response> {
    Box::pin(async move { answered(retract(&across).await) })
}

async fn retract(across: &Across) -> Result<RetractedView, Otherwise> {
    across.caller.must_be(Role::Writer).map_err(otherwise)?;
    let name = across.parameter("name");
    let known: ViewList = across.get(Uri::from_static(LIST)).merged().await?;
    may_go(name, &known).map_err(otherwise)?;
    delete(across, name).await.map_err(otherwise)
}

/// Processes may run programs of two releases: as long as one of them defines a view, no other deletes it.
fn may_go(name: &str, known: &ViewList) -> Result<(), Refusal> {
    let (mut kept_up, mut removed) = (Vec::new(), Vec::new());
    for view in known.views.iter().filter(|view| view.name() == name) {
        match view {
            ViewReport::Defined(view) => kept_up.push(&view.source),
            ViewReport::Removed(view) => removed.push(&view.source),
        }
    }
    let clash = match removed.as_slice() {
        [] => !kept_up.is_empty(),
        removed => removed.iter().any(|source| kept_up.contains(source)),
    };
    if clash { Err(defined(name)) } else { Ok(()) }
}

/// Deletes in every partition, and goes on where one fails.
async fn delete(across: &Across, name: &str) -> Result<RetractedView, Refusal> {
    let mut done = Deleted::default();
    for partition in across.partitions() {
        match across.owner(partition).await {
            Ok(answer) => done.add(partition, &answer),
            Err(why) => done.missed.push((partition, why.message().to_owned())),
        }
    }
    done.answer(name)
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
    fn add(&mut self, partition: i32, answer: &OwnerAnswer) {
        match answer.head.status {
            status if status.is_success() => match answer.read::<RetractedView>() {
                Ok(deleted) => {
                    self.known = true;
                    self.records = self.records.saturating_add(deleted.deleted);
                }
                Err(why) => self.missed.push((partition, why.message().to_owned())),
            },
            // It has nothing of it.
            StatusCode::NOT_FOUND => {}
            status => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let said = body["error"]["message"].as_str().or_else(|| body["detail"].as_str());
                self.missed.push((partition, said.map_or_else(|| status.to_string(), str::to_owned)));
            }
        }
    }

    fn answer(self, name: &str) -> Result<RetractedView, Refusal> {
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
        Ok(RetractedView { view: name.to_owned(), deleted: self.records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cluster::tests::owner_answer;
    use axum::response::IntoResponse;
    use serde_json::json;

    #[test]
    fn a_view_that_one_process_still_defines_stays() {
        let view = |source: &str, removed: bool| match removed {
            true => json!({"name": "A", "source": source, "removed": true, "records": 1}),
            false => {
                json!({"name": "A", "source": source, "across_connections": false, "misfits": 0, "failures": 0, "stopped": false, "rows": 0, "bytes": 0, "skewed": [], "removed": false})
            }
        };
        let may_go =
            |views: &[Value]| may_go("A", &serde_json::from_value(json!({"views": views})).expect("a list")).is_ok();
        assert!(may_go(&[]), "the owners say whether there ever was one");
        assert!(may_go(&[view("crm", true)]));
        assert!(!may_go(&[view("crm", false)]));
        assert!(!may_go(&[view("crm", false), view("crm", true)]), "two programs");
        assert!(may_go(&[view("desk", false), view("crm", true)]), "it has moved to another source");
    }

    #[test]
    fn what_was_not_reached_is_named() {
        let mut done = Deleted::default();
        done.add(0, &owner_answer(200, json!({"view": "A", "deleted": 3})));
        done.add(1, &owner_answer(404, json!({"error": {"message": "nothing"}})));
        assert_eq!(done.answer("A").expect("done"), RetractedView { view: "A".to_owned(), deleted: 3 });

        let mut partly = Deleted::default();
        partly.add(0, &owner_answer(200, json!({"view": "A", "deleted": 3})));
        partly.add(4, &owner_answer(503, json!({"error": {"message": "the server is stopping"}})));
        let refused = partly.answer("A").expect_err("not all of it");
        let said = refused.message().to_owned();
        assert!(said.contains("3 records") && said.contains("partition 4: the server is stopping"), "{said}");
        assert_eq!(refused.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);

        let mut nothing = Deleted::default();
        nothing.add(0, &owner_answer(404, Value::Null));
        assert_eq!(nothing.answer("A").expect_err("unknown").into_response().status(), StatusCode::NOT_FOUND);
    }
}
