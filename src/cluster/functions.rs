//! What functions of a shard ask of connections of the other shards, brought to their owners.
//!
//! Promises: what was not begun is tried again while a shard is between two owners; an action whose owner was lost on the way is
//! not called twice, and its caller is told that it may have happened.

use super::node::ClusterContext;
use super::place::{FUNCTION_BYTES, FUNCTIONS, PROOF, ShardPlace};
use crate::app::shards::{FunctionShards, Outcome, ShardAnswer, ShardAsk};
use crate::connectors::actions::ActionFailure;
use crate::connectors::http::{Forward, HeaderMap, HeaderValue, Method, PassedBody, UNREACHABLE, Url};
use crate::engine::source::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Beyond the time in which a silent owner is noticed, for another to open its shard.
const OPENING: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// The way of one shard's functions to the other shards.
pub(super) struct FunctionsElsewhere {
    common: Arc<ClusterContext>,
    own: i32,
    forward: Forward,
}

/// One try.
enum Tried {
    Answered(Outcome),
    /// Nothing was begun.
    NotBegun(String),
    /// It may have been.
    Broken(String),
}

impl FunctionsElsewhere {
    pub fn new(common: &Arc<ClusterContext>, own: i32) -> Result<FunctionsElsewhere, Failure> {
        Ok(FunctionsElsewhere { common: common.clone(), own, forward: Forward::new()? })
    }

    async fn once(&self, shard: i32, ask: &ShardAsk, body: &Bytes) -> Tried {
        let answer = match self.common.place(shard) {
            ShardPlace::Here(app) => app.answer_shard(ask.clone()).await,
            ShardPlace::There(url) => match self.send(&url, shard, body).await {
                Ok(answer) => answer,
                Err(why) if why.code == UNREACHABLE => return Tried::NotBegun(why.message),
                Err(why) => return Tried::Broken(why.message),
            },
            ShardPlace::Nowhere => return Tried::NotBegun("nobody owns the shard".to_owned()),
        };
        match answer {
            ShardAnswer::Output(output) => Tried::Answered(Ok(output)),
            ShardAnswer::Failed(why) => Tried::Answered(Err(why.into())),
            ShardAnswer::NotHere => Tried::NotBegun("the shard is between two owners".to_owned()),
        }
    }

    async fn send(&self, url: &str, shard: i32, body: &Bytes) -> Result<ShardAnswer, Failure> {
        let unreachable = |why: String| Failure::passing(UNREACHABLE, why);
        let url = Url::parse(&format!("{url}{FUNCTIONS}/{shard}")).map_err(|e| unreachable(format!("{url}: {e}")))?;
        let proof = HeaderValue::from_str(&self.common.proof()).map_err(|e| unreachable(e.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(PROOF, proof);
        let passed = self.forward.send(Method::POST, url, &headers, PassedBody::Whole(body.clone())).await?;
        if !passed.status.is_success() {
            let status = passed.status;
            return Err(unreachable(format!("the owner of the shard refused the call: {status}")));
        }
        let said = passed.bytes().await?;
        serde_json::from_slice(&said).map_err(|why| {
            Failure::lasting(
                "process_silent",
                format!("an answer is not understood ({why}): run one version everywhere"),
            )
        })
    }
}

#[async_trait]
impl FunctionShards for FunctionsElsewhere {
    fn other(&self, environment: &str, source: &str, connection: &str) -> Option<i32> {
        Some(self.common.spread.of(environment, source, connection)).filter(|shard| *shard != self.own)
    }

    fn others(&self) -> Vec<i32> {
        (0..self.common.spread.count).filter(|shard| *shard != self.own).collect()
    }

    async fn ask(&self, shard: i32, ask: ShardAsk) -> Outcome {
        // An ask always serialises.
        let body = Bytes::from(serde_json::to_vec(&ask).unwrap_or_default());
        if body.len() > FUNCTION_BYTES {
            let message = format!("what is sent to another shard has at most {FUNCTION_BYTES} bytes");
            return Err(ActionFailure::new(ActionFailure::INPUT, message));
        }
        let clock = &self.common.clock;
        let until = clock.now().plus(self.common.settings.process.session + OPENING);
        loop {
            let why = match self.once(shard, &ask, &body).await {
                Tried::Answered(outcome) => return outcome,
                Tried::Broken(why) if !ask.repeats() => {
                    let message = format!(
                        "the process of the connection was lost ({why}): what the action does may have happened"
                    );
                    return Err(ActionFailure::new(ActionFailure::UNKNOWN_OUTCOME, message));
                }
                Tried::NotBegun(why) | Tried::Broken(why) => why,
            };
            if clock.now() >= until {
                let message =
                    format!("the owner of shard {shard} cannot be asked ({why}); nothing was begun: try again later");
                return Err(ActionFailure::new(ActionFailure::NO_OWNER, message));
            }
            clock.sleep(AGAIN).await;
        }
    }
}
