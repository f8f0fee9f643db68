//! Calls that change what stands on a list: entries that their ids name, or a selection of them.
//!
//! Promises: only writers change something; a call acts on a bounded number of entries, and says whether a selection has more.

use super::Api;
use super::cluster::across::MergedAnswer;
use crate::app::App;
use crate::config::Role;
use crate::engine::pipeline::Error;
use crate::http::auth::Caller;
use crate::http::body::BodyFields;
use crate::http::error::Refusal;
use axum::Json;
use axum::extract::Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A list whose entries people change.
pub(super) trait EntryList {
    /// What it holds.
    type Entry: Send + 'static;
    /// What an id names.
    type Id: Send + 'static;
    /// What selects entries.
    type Selection: Send + 'static;
    /// Names of a body.
    const NAMES: &'static [&'static str];
    /// What a body has to say.
    const WANTED: &'static str;
    /// Most entries of one call.
    const MOST: usize;

    /// Reads an id.
    fn id(text: &str) -> Option<Self::Id>;
    /// Reads a selection; nothing if the body has none.
    fn selection(body: &mut BodyFields) -> Option<Self::Selection>;
    /// Finds entries of an environment that are named. Blocks.
    fn named(app: &App, environment: &str, ids: &[Self::Id]) -> Result<Vec<Self::Entry>, Error>;
    /// Finds entries of an environment that are selected, and whether there are more than [`MOST`](Self::MOST). Blocks.
    fn selected(app: &App, environment: &str, of: &Self::Selection) -> Result<(Vec<Self::Entry>, bool), Error>;
}

/// How many entries a call dropped, and whether its selection has more.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Dropped {
    pub dropped: u64,
    pub more: bool,
}

impl MergedAnswer for Dropped {
    fn merge(self, other: Dropped) -> Dropped {
        Dropped { dropped: self.dropped.saturating_add(other.dropped), more: self.more || other.more }
    }
}

/// Does something with the entries that a request means; `act` is told whether there are more.
pub(super) async fn change<L: EntryList, T, F: Future<Output = Result<T, Error>>>(
    api: &Api,
    caller: &Caller,
    request: Request,
    act: impl FnOnce(Vec<L::Entry>, bool) -> F,
) -> Result<Json<T>, Refusal> {
    caller.must_be(Role::Writer)?;
    let mut body = BodyFields::read(&api.http, request, L::NAMES).await?;
    let ids = body.has("ids").then(|| ids::<L>(&mut body));
    let selection = L::selection(&mut body);
    if ids.is_some() == selection.is_some() {
        body.fault("invalid_type", &["ids"], L::WANTED);
    }
    body.done()?;
    let (app, environment) = (api.app.clone(), caller.environment.clone());
    let read = move || match (ids, selection) {
        (Some(ids), _) => Ok((L::named(&app, &environment, &ids)?, false)),
        (None, Some(selection)) => L::selected(&app, &environment, &selection),
        (None, None) => Ok((Vec::new(), false)),
    };
    let (entries, more) = api.read(read).await?;
    Ok(Json(act(entries, more).await?))
}

fn ids<L: EntryList>(body: &mut BodyFields) -> Vec<L::Id> {
    let Some(Value::Array(list)) = body.take("ids") else {
        body.fault("invalid_type", &["ids"], "a list of ids is wanted");
        return Vec::new();
    };
    if list.len() > L::MOST {
        body.fault("too_big", &["ids"], format!("at most {} ids are allowed", L::MOST));
        return Vec::new();
    }
    let read: Option<Vec<L::Id>> = list.iter().map(|id| L::id(id.as_str()?)).collect();
    read.unwrap_or_else(|| {
        body.fault("invalid_string", &["ids"], "ids of the list are wanted");
        Vec::new()
    })
}
