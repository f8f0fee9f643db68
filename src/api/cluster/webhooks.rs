//! Webhooks in a cluster. Every process takes those of connections it knows; a request for a connection that only the owner of
//! its shard knows is forwarded to that owner, named by the token of its URL.
//!
//! Promises: nothing is forwarded whose token this installation did not make; a request is forwarded within the same budgets
//! and the same size as one that is taken here, and at most once; the owner counts it for the client, not for the process.

use super::forwarder::{BufferedRequest, Forwarder};
use super::sent_by_member;
use crate::api::hooks;
use crate::ingest::webhooks::Reply;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use std::sync::Arc;

/// Around the routes of webhooks.
pub(super) async fn forward(State(forwarder): State<Forwarder>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    if let Some(Some(shard)) = sent_by_member(&forwarder, &mut head) {
        let answer = forwarder.forwarded(shard, Request::from_parts(head, body)).await;
        return answer.unwrap_or_else(|_| hooks::answer(Reply::refusal(503)));
    }
    let webhooks = &forwarder.member.front().hooks;
    let path = head.uri.path();
    let shard = if webhooks.find(path).is_some() { None } else { webhooks.shard_of(path) };
    let request = Request::from_parts(head, body);
    match shard {
        Some(shard) => to_owner(&forwarder, i32::from(shard), request).await,
        None => next.run(request).await,
    }
}

async fn to_owner(forwarder: &Forwarder, shard: i32, request: Request) -> Response {
    let front = forwarder.member.front();
    let read = hooks::unproven(&front.hooks, request).await;
    let (head, body, memory) = match read {
        Ok(read) => read,
        Err(reply) => return hooks::answer(reply),
    };
    // Webhooks are answered in a few words: nothing is gathered.
    let gathered = Arc::new(Mutex::new(memory));
    let request = BufferedRequest { head, body, gathered };
    forwarder.owner(shard, &request).await.unwrap_or_else(|_| hooks::answer(Reply::refusal(503)))
}
