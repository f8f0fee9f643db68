//! `/v1/deliveries`: outgoing webhooks that are owed, and those that were given up.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::all_owners;
use crate::api::entries::{self, Dropped, EntryList};
use crate::api::routes::Routes;
use crate::app::App;
use crate::engine::pipeline::Error;
use crate::engine::sink::Delivery;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use crate::http::pages::{MergedPage, part_of_order};
use crate::http::query::{QueryFields, limit_of};
use crate::sinks::deliveries::DeadLetter;
use axum::extract::{RawQuery, Request, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most deliveries of one answer.
const LIMIT_MAX: u64 = 1_000;

/// Deliveries of one answer if nothing is said.
const LIMIT: u64 = 100;

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/v1/deliveries", list, all_owners::<DeliveryPage>())
        .post("/v1/deliveries/retry", retry, all_owners::<RetriedLetters>())
        .post("/v1/deliveries/drop", drop_letters, all_owners::<Dropped>())
}

/// Deliveries, the oldest first.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct DeliveryPage {
    deliveries: Vec<DeliveryReport>,
    cursor: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DeliveryReport {
    id: String,
    endpoint: String,
    state: String,
    tries: u32,
    created_at: String,
    next_at: Option<String>,
    last_error: Option<String>,
    body: Value,
    /// Of those that were given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead_at: Option<String>,
}

/// How many dead letters are sent again.
#[derive(Serialize, Deserialize)]
struct RetriedLetters {
    retried: u64,
    more: bool,
}

impl MergedAnswer for DeliveryPage {
    fn merge(mut self, other: DeliveryPage) -> DeliveryPage {
        self.deliveries.extend(other.deliveries);
        self.cursor = self.cursor.or(other.cursor);
        self
    }

    fn finish(mut self, query: &str) -> DeliveryPage {
        let ids = self.deliveries.iter().map(|delivery| delivery.id.as_str());
        let order = |id: &str| vec![part_of_order(id)];
        let page = MergedPage::of(ids, order, limit_of(query, LIMIT, LIMIT_MAX), self.cursor.is_some());
        page.cut(&mut self.deliveries, |delivery| &delivery.id);
        DeliveryPage { cursor: page.cursor, ..self }
    }
}

impl MergedAnswer for RetriedLetters {
    fn merge(self, other: RetriedLetters) -> RetriedLetters {
        RetriedLetters { retried: self.retried.saturating_add(other.retried), more: self.more || other.more }
    }
}

/// The oldest first.
async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeliveryPage>, Refusal> {
    let mut query = QueryFields::read(query.as_deref(), &["state", "endpoint", "limit", "cursor"]);
    let state = query.one("state").unwrap_or_else(|| "owed".to_owned());
    if !["owed", "dead"].contains(&state.as_str()) {
        query.fault("invalid_value", &["state"], "owed or dead is wanted");
    }
    let endpoint = query.one("endpoint");
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let cursor = query.cursor(|text| text.starts_with("msg_").then(|| text.to_owned()));
    query.done()?;
    let (outbox, environment) = (api.app.outbox.clone(), caller.environment.clone());
    let read = move || {
        let (endpoint, cursor) = (endpoint.as_deref(), cursor.as_deref());
        match state.as_str() {
            "dead" => {
                let (letters, more) = outbox.dead_letters(&environment, endpoint, cursor, limit)?;
                Ok((letters.into_iter().map(dead).collect::<Vec<_>>(), more))
            }
            _ => {
                let (deliveries, more) = outbox.owed(&environment, endpoint, cursor, limit)?;
                Ok((deliveries.into_iter().map(|delivery| describe(delivery, "owed")).collect(), more))
            }
        }
    };
    let (deliveries, more) = api.read(read).await?;
    let cursor = deliveries.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(DeliveryPage { deliveries, cursor }))
}

/// Sends dead letters again: the named ones, or all of an endpoint.
async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<RetriedLetters>, Refusal> {
    entries::change::<DeadLetters, _, _>(&api, &caller, request, async |letters, more| {
        let retried = letters.len() as u64;
        api.app.outbox.send_again(letters).await?;
        Ok(RetriedLetters { retried, more })
    })
    .await
}

/// Drops dead letters: the named ones, or all of an endpoint.
async fn drop_letters(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Dropped>, Refusal> {
    entries::change::<DeadLetters, _, _>(&api, &caller, request, async |letters, more| {
        let dropped = letters.len() as u64;
        api.app.outbox.drop_letters(letters).await?;
        Ok(Dropped { dropped, more })
    })
    .await
}

/// Deliveries that were given up, as a list that people change.
struct DeadLetters;

impl EntryList for DeadLetters {
    type Entry = DeadLetter;
    type Id = String;
    /// All of an endpoint.
    type Selection = String;
    const NAMES: &'static [&'static str] = &["ids", "endpoint"];
    const MOST: usize = LIMIT_MAX as usize;
    const WANTED: &'static str = "either `ids` or `endpoint` is wanted";

    fn id(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn selection(body: &mut BodyFields) -> Option<String> {
        body.text("endpoint")
    }

    fn named(app: &App, environment: &str, ids: &[String]) -> Result<Vec<DeadLetter>, Error> {
        app.outbox.named_letters(environment, ids)
    }

    fn selected(app: &App, environment: &str, endpoint: &String) -> Result<(Vec<DeadLetter>, bool), Error> {
        app.outbox.dead_letters(environment, Some(endpoint), None, Self::MOST)
    }
}

fn describe(delivery: Delivery, state: &str) -> DeliveryReport {
    let body = serde_json::from_str::<Value>(&delivery.body).unwrap_or_else(|_| Value::from(delivery.body.as_str()));
    DeliveryReport {
        id: delivery.id,
        endpoint: delivery.endpoint,
        state: state.to_owned(),
        tries: delivery.tries,
        created_at: delivery.created_at.to_string(),
        next_at: Some(delivery.next_at.to_string()),
        last_error: delivery.last_error,
        body,
        reason: None,
        dead_at: None,
    }
}

fn dead(letter: DeadLetter) -> DeliveryReport {
    let (reason, dead_at) = (Some(letter.reason), Some(letter.at.to_string()));
    DeliveryReport { reason, dead_at, next_at: None, ..describe(letter.delivery, "dead") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(ids: &[&str], cursor: Value) -> DeliveryPage {
        let delivery = |id: &&str| {
            json!({"id": id, "endpoint": "a", "state": "owed", "tries": 0, "created_at": "", "next_at": "",
                   "last_error": null, "body": {"n": 1.50}})
        };
        let deliveries: Vec<Value> = ids.iter().map(delivery).collect();
        serde_json::from_value(json!({"deliveries": deliveries, "cursor": cursor})).expect("a page")
    }

    #[test]
    fn a_page_is_cut_from_what_all_owners_say() {
        let page = owner(&["msg_1", "msg_4"], json!("msg_4")).merge(owner(&["msg_2", "msg_3"], Value::Null));
        let wanted = owner(&["msg_1", "msg_2", "msg_3"], json!("msg_3"));
        assert_eq!(page.finish("limit=3"), wanted, "msg_4 comes on the next page");
        let page = owner(&["msg_1"], Value::Null).merge(owner(&[], Value::Null));
        assert_eq!(page.finish("limit=3"), owner(&["msg_1"], Value::Null));
    }

    #[test]
    fn limits_are_those_of_one_process() {
        assert_eq!([limit_of("", LIMIT, LIMIT_MAX), limit_of("a=b&limit=7", LIMIT, LIMIT_MAX)], [100, 7]);
        assert_eq!(limit_of("limit=9999", LIMIT, LIMIT_MAX), 1_000);
    }
}
