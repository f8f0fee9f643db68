//! What functions of another process ask of a shard that is open here.
//!
//! Promises: nobody but a process of the installation is answered. The answer is JSON; blanks go before it while it is being
//! made, so that whoever waits knows that somebody works on it.

use super::forwarder::Forwarder;
use super::sent_by_member;
use crate::app::shards::{ShardAnswer, ShardAsk};
use crate::cluster::{FUNCTION_BYTES, FUNCTIONS, ShardPlace};
use crate::http::error::{Refusal, render};
use crate::http::sender;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use std::convert::Infallible;
use std::time::Duration;

/// Between two blanks.
const BLANK: Duration = Duration::from_secs(15);

pub(super) fn router(forwarder: Forwarder) -> Router {
    let routes = Router::new().route(&format!("{FUNCTIONS}/{{shard}}"), post(answer));
    routes.layer(from_fn(render)).with_state(forwarder)
}

async fn answer(State(forwarder): State<Forwarder>, Path(shard): Path<i32>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    if sent_by_member(&forwarder, &mut head).is_none() {
        return forwarder.local(Request::from_parts(head, body)).await;
    }
    let holder = sender(&head.extensions).holder();
    let mut memory = forwarder.http.bounds.bodies.share([holder, holder]);
    let body = match forwarder.http.body(body, FUNCTION_BYTES, &mut memory).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let ask: ShardAsk = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(why) => {
            let message = format!("what is asked is not understood ({why}): run one version everywhere");
            return Refusal::bad("bad_request", message).into_response();
        }
    };
    let clock = forwarder.member.front().engine.clock();
    let work = async move {
        let _memory = memory;
        let answer = match forwarder.member.place(shard) {
            ShardPlace::Here(app) => app.answer_shard(ask).await,
            ShardPlace::There(_) | ShardPlace::Nowhere => ShardAnswer::NotHere,
        };
        // An answer always serialises.
        Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
    };
    let parts = stream::unfold(Some(Box::pin(work)), move |work| {
        let clock = clock.clone();
        async move {
            let mut work = work?;
            tokio::select! {
                answer = &mut work => Some((Ok::<_, Infallible>(answer), None)),
                () = clock.sleep(BLANK) => Some((Ok(Bytes::from_static(b" ")), Some(work))),
            }
        }
    });
    Response::new(Body::from_stream(parts))
}
