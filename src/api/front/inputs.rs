//! `POST /v1/inputs/{topic}/restart` of a whole installation: an input stops in one partition and goes on in others, so every
//! owner is asked, and those where nothing has stopped are no obstacle.
//!
//! Promises: it is refused as not found only if nothing has stopped anywhere; a partition that cannot be asked is a refusal,
//! and asking again restarts what is left.

use super::{Door, Told, Whole};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Answers for all partitions.
pub(super) async fn answer(door: &Door, whole: &Whole) -> Response {
    let mut said = Vec::new();
    for partition in 0..door.node.spread().count {
        match door.told(partition, whole).await {
            Ok(told) => said.push(told),
            Err(why) => return why.into_response(),
        }
    }
    together(said)
}

/// What was restarted in all; else the first refusal that is more than that nothing has stopped there.
fn together(said: Vec<Told>) -> Response {
    let mut all: Option<Value> = None;
    let mut nothing = None;
    for told in said {
        match told.json() {
            Some(value) => {
                let so_far = all.as_ref().and_then(|all| all["restarted"].as_u64()).unwrap_or(0);
                let restarted = so_far.saturating_add(value["restarted"].as_u64().unwrap_or(0));
                let all = all.get_or_insert(value);
                all["restarted"] = restarted.into();
            }
            None if told.head.status == StatusCode::NOT_FOUND => nothing = nothing.or(Some(told)),
            None => return told.into_response(),
        }
    }
    match (all, nothing) {
        (Some(all), _) => Json(all).into_response(),
        (None, Some(nothing)) => nothing.into_response(),
        (None, None) => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use super::*;
    use serde_json::json;

    async fn answered(said: Vec<Told>) -> (u16, Value) {
        let (head, body) = together(said).into_parts();
        let body = axum::body::to_bytes(body, 1_000).await.expect("a body");
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn an_input_begins_anew_where_it_has_stopped() {
        let nothing = || told(404, json!({"error": "nothing"}));
        let some = |n: u64| told(200, json!({"topic": "orders", "restarted": n}));
        let all = answered(vec![nothing(), some(1), nothing(), some(2)]).await;
        assert_eq!(all, (200, json!({"topic": "orders", "restarted": 3})));
        assert_eq!(answered(vec![nothing(), nothing()]).await, (404, json!({"error": "nothing"})));
        let forbidden = || told(403, json!({"error": "no"}));
        assert_eq!(answered(vec![forbidden(), forbidden()]).await.0, 403);
    }
}
