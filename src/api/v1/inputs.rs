//! `/v1/inputs`: topics that are read, and what becomes of those whose place is gone.
//!
//! In a cluster an input stops in one partition and goes on in others: the list shows the worst of all, and a restart asks
//! every owner. It is refused as not found only if nothing has stopped anywhere; asked again it restarts what is left.

use crate::api::Api;
use crate::api::cluster::across::{Across, MergedAnswer, Otherwise, answered, otherwise};
use crate::api::cluster::forwarder::OwnerAnswer;
use crate::api::cluster::target::{RouteTarget, all_owners};
use crate::api::routes::Routes;
use crate::config::Role;
use crate::connectors::kafka::input::StartOffset;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::{CodedMessage, InputFault, Refusal};
use crate::ingest::topics::InputState;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

pub(super) fn routes() -> Routes {
    let restart_all = RouteTarget::All(|across| Box::pin(async move { answered(restart_everywhere(&across).await) }));
    Routes::new().get("/v1/inputs", list, all_owners::<InputList>()).post(
        "/v1/inputs/{topic}/restart",
        restart,
        restart_all,
    )
}

/// How inputs stand.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct InputList {
    inputs: Vec<InputReport>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InputReport {
    topic: String,
    input: String,
    reading: bool,
    stopped: bool,
    error: Option<CodedMessage>,
}

/// Inputs of a topic that begin anew.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RestartedInputs {
    topic: String,
    restarted: u64,
}

impl MergedAnswer for InputList {
    /// An input is one in the whole installation, and it has stopped where one partition has.
    fn merge(mut self, other: InputList) -> InputList {
        for one in other.inputs {
            let same = |known: &&mut InputReport| known.topic == one.topic && known.input == one.input;
            match self.inputs.iter_mut().find(same) {
                Some(known) => {
                    known.reading &= one.reading;
                    known.stopped |= one.stopped;
                    known.error = known.error.take().or(one.error);
                }
                None => self.inputs.push(one),
            }
        }
        self
    }
}

/// How inputs stand.
async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<InputList> {
    let states = api.app.topics.inputs.as_ref().map(|inputs| inputs.states()).unwrap_or_default();
    let mine = states.into_iter().filter(|state| *state.environment == *caller.environment);
    Json(InputList { inputs: mine.map(describe).collect() })
}

/// Lets a stopped input begin anew: `{"start": "earliest"}` or `latest`.
async fn restart(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<Json<RestartedInputs>, Refusal> {
    caller.must_be(Role::Admin)?;
    let mut fields = BodyFields::read(&api.http, request, &["start"]).await?;
    let start = match fields.text("start").as_deref() {
        Some("earliest") => StartOffset::Earliest,
        Some("latest") => StartOffset::Latest,
        _ => {
            let fault = InputFault::new("invalid_value", &["start"], "earliest or latest is wanted".to_owned());
            return Err(Refusal::invalid("body", vec![fault]));
        }
    };
    let restarted =
        api.app.topics.inputs.as_ref().map_or(0, |inputs| inputs.restart(&caller.environment, &topic, start));
    if restarted == 0 {
        let message =
            format!("no input of topic `{topic}` has stopped for good; GET /v1/inputs shows the state of each");
        return Err(Refusal::not_found(message));
    }
    Ok(Json(RestartedInputs { topic, restarted: restarted as u64 }))
}

/// Restarts in all partitions.
async fn restart_everywhere(across: &Across) -> Result<RestartedInputs, Otherwise> {
    let mut answers = Vec::new();
    for partition in across.partitions() {
        answers.push(across.owner(partition).await.map_err(otherwise)?);
    }
    restarted(answers)
}

/// What was restarted in all; else the first refusal that is more than that nothing has stopped there.
fn restarted(answers: Vec<OwnerAnswer>) -> Result<RestartedInputs, Otherwise> {
    let mut all: Option<RestartedInputs> = None;
    let mut nothing = None;
    for answer in answers {
        match answer.head.status {
            status if status.is_success() => {
                let one: RestartedInputs = answer.read().map_err(otherwise)?;
                let so_far = all.map_or(0, |all| all.restarted);
                all = Some(RestartedInputs { restarted: so_far.saturating_add(one.restarted), ..one });
            }
            StatusCode::NOT_FOUND => nothing = nothing.or(Some(answer)),
            _ => return Err(otherwise(answer)),
        }
    }
    all.ok_or_else(|| nothing.map_or_else(|| otherwise(StatusCode::NOT_FOUND), otherwise))
}

fn describe(state: InputState) -> InputReport {
    InputReport {
        stopped: state.is_final(),
        topic: state.topic,
        input: state.name,
        reading: state.reading,
        error: state.stopped.map(|(code, message)| CodedMessage { code, message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cluster::tests::owner_answer;
    use serde_json::{Value, json};

    async fn answered(answers: Vec<OwnerAnswer>) -> (u16, Value) {
        let (head, body) = super::answered(restarted(answers)).into_parts();
        let body = axum::body::to_bytes(body, 1_000).await.expect("a body");
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn an_input_begins_anew_where_it_has_stopped() {
        let nothing = || owner_answer(404, json!({"error": "nothing"}));
        let some = |n: u64| owner_answer(200, json!({"topic": "orders", "restarted": n}));
        let all = answered(vec![nothing(), some(1), nothing(), some(2)]).await;
        assert_eq!(all, (200, json!({"topic": "orders", "restarted": 3})));
        assert_eq!(answered(vec![nothing(), nothing()]).await, (404, json!({"error": "nothing"})));
        let forbidden = || owner_answer(403, json!({"error": "no"}));
        assert_eq!(answered(vec![forbidden(), forbidden()]).await.0, 403);
    }

    #[test]
    fn an_input_that_one_partition_has_stopped_is_stopped() {
        let input = |name: &str, why: Option<&str>| InputReport {
            topic: "orders".to_owned(),
            input: name.to_owned(),
            reading: why.is_none(),
            stopped: why.is_some(),
            error: why.map(|why| CodedMessage { code: why.to_owned(), message: String::new() }),
        };
        let list = |inputs: [InputReport; 2]| InputList { inputs: inputs.into() };
        let all = list([input("a", None), input("b", None)]).merge(list([input("a", Some("gone")), input("b", None)]));
        assert_eq!(all, list([input("a", Some("gone")), input("b", None)]));
    }
}
