//! One request to all owners, and one answer made of theirs.
//!
//! Promises: answers are merged as what they are, a type per answer, and JSON is made afterwards; an owner that cannot be
//! asked is a refusal that says so, never a shorter list or a smaller number; the first refusal is the answer.

use super::forwarder::{BufferedRequest, Forwarder, OwnerAnswer};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use axum::Json;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;

/// An answer that several owners give together.
pub(in crate::api) trait MergedAnswer: Serialize + DeserializeOwned + Send + 'static {
    /// What two owners say, as one of them would say it that had all.
    fn merge(self, other: Self) -> Self;

    /// Done once all are merged: a list is cut to what the query asks for.
    fn finish(self, _query: &str) -> Self {
        self
    }
}

/// An answer other than what was asked for. Boxed: it is large, and rare.
pub(in crate::api) type Otherwise = Box<Response>;

/// This as an answer.
pub(in crate::api) fn otherwise(what: impl IntoResponse) -> Otherwise {
    Box::new(what.into_response())
}

/// A request that concerns all owners.
#[derive(Clone)]
pub(in crate::api) struct Across {
    pub(super) forwarder: Forwarder,
    pub(super) request: BufferedRequest,
    /// Who asks.
    pub caller: Caller,
    /// Parameters of the path, decoded.
    pub(super) parameters: Vec<(String, String)>,
}

impl Across {
    /// All partitions.
    pub(in crate::api) fn partitions(&self) -> Range<i32> {
        0..self.forwarder.spread().count
    }

    /// Where it is asked.
    pub(in crate::api) fn uri(&self) -> &Uri {
        &self.request.head.uri
    }

    /// A parameter of the path.
    pub(in crate::api) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The same caller's GET of something else.
    pub(in crate::api) fn get(&self, uri: Uri) -> Across {
        let mut across = self.clone();
        (across.request.head.method, across.request.head.uri) = (Method::GET, uri);
        across
    }

    /// What the owner of a partition says, whatever that is.
    pub(in crate::api) async fn owner(&self, partition: i32) -> Result<OwnerAnswer, Refusal> {
        self.forwarder.owner_answer(partition, &self.request).await
    }

    /// What the owner of a partition says, if it is no refusal.
    pub(in crate::api) async fn read<T: DeserializeOwned>(&self, partition: i32) -> Result<T, Otherwise> {
        let answer = self.owner(partition).await.map_err(otherwise)?;
        if !answer.head.status.is_success() {
            return Err(otherwise(answer));
        }
        answer.read().map_err(otherwise)
    }

    /// What all owners say together.
    pub(in crate::api) async fn merged<T: MergedAnswer>(&self) -> Result<T, Otherwise> {
        let mut all: Option<T> = None;
        for partition in self.partitions() {
            let one = self.read(partition).await?;
            all = Some(match all {
                Some(all) => all.merge(one),
                None => one,
            });
        }
        let none = || otherwise(Refusal::internal("a cluster without partitions"));
        all.map(|all| all.finish(self.uri().query().unwrap_or_default())).ok_or_else(none)
    }
}

/// The answer to a request that concerns all owners alike.
pub(super) fn merged<T: MergedAnswer>(across: Across) -> BoxFuture<'static, Response> {
    Box::pin(async move { answered(across.merged::<T>().await) })
}

/// JSON, or what is said instead.
pub(in crate::api) fn answered<T: Serialize>(done: Result<T, Otherwise>) -> Response {
    match done {
        Ok(all) => Json(all).into_response(),
        Err(otherwise) => *otherwise,
    }
}
