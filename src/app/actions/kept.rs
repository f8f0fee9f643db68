//! Calls that nobody waits for, as they are stored: from before they are answered until a day after their end.
//!
//! Promises: a call is on the disk before it has an id; that it may have had effects is on the disk before it has any; a result
//! stays as it is until it is forgotten.

use crate::connectors::actions::ActionFailure;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::engine::time::entropy;
use crate::keyspaces::ACTION;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Calls of an environment that have not ended.
pub(super) const OPEN_MAX: usize = 1_000;
/// Results of an environment that are kept; of more the oldest are forgotten before their time.
const RESULTS_MAX: usize = 100_000;
/// How long a result is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Most results that are forgotten by one commit.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// What an id begins with.
const PREFIX: &str = "act_";
/// Letters for the shard.
const SHARD_LETTERS: usize = 4;
/// Random bytes of an id.
const RANDOM_BYTES: usize = 16;

/// A call as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub source: String,
    pub connection: String,
    pub action: String,
    pub input: Option<Value>,
    /// How often it may be tried again.
    pub retries: u32,
    pub made_at: Timestamp,
    pub stage: Stage,
}

/// How far a call is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// It has done nothing that cannot be taken back.
    Waiting,
    /// It may have.
    Acting,
    /// It gave this output (JSON).
    Output(String, Timestamp),
    /// It failed.
    Failed(FailedAction, Timestamp),
}

/// Why a call failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedAction {
    code: String,
    message: String,
    payload: Option<Value>,
}

impl From<ActionFailure> for FailedAction {
    fn from(why: ActionFailure) -> FailedAction {
        FailedAction { code: why.code.to_owned(), message: why.message, payload: why.payload }
    }
}

impl From<FailedAction> for ActionFailure {
    fn from(why: FailedAction) -> ActionFailure {
        ActionFailure { code: ActionFailure::code_of(&why.code), message: why.message, payload: why.payload }
    }
}

/// A call's name.
pub(super) type CallKey = (String, String);

/// All calls that are stored.
pub(super) struct Kept {
    engine: Engine,
    shard: u16,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: BTreeSet<CallKey>,
    /// By environment, in the order of their ends.
    results: BTreeMap<String, BTreeSet<(Timestamp, String)>>,
}

impl Kept {
    /// Reads what is stored; the second part is what has not ended.
    pub(super) fn open(engine: Engine, shard: u16) -> Result<(Kept, Vec<CallKey>), Error> {
        let mut table = Table::default();
        engine.marks_after(ACTION, &[], &[], &mut |key, value| {
            let Ok([environment, id]) = <[String; 2]>::try_from(key) else { return true };
            match serde_json::from_slice::<Call>(value).map(|call| call.stage) {
                Ok(Stage::Output(_, at) | Stage::Failed(_, at)) => table.ended(environment, id, at),
                Ok(_) => drop(table.open.insert((environment, id))),
                Err(error) => tracing::error!(environment, id, %error, "a stored action cannot be read"),
            }
            true
        })?;
        let open = table.open.iter().cloned().collect();
        Ok((Kept { engine, shard, table: Mutex::new(table) }, open))
    }

    /// Stores a call; its name. `None`: too many of the environment have not ended.
    pub(super) async fn add(&self, environment: &str, call: &Call) -> Result<Option<CallKey>, Error> {
        let key = (environment.to_owned(), id_of(self.shard));
        {
            let mut table = self.table.lock();
            if table.open.iter().filter(|(of, _)| of == environment).count() >= OPEN_MAX {
                return Ok(None);
            }
            table.open.insert(key.clone());
        }
        let stored = self.store(&key, call).await;
        if stored.is_err() {
            self.table.lock().open.remove(&key);
        }
        stored.map(|()| Some(key))
    }

    /// A call. Blocks.
    pub(super) fn get(&self, environment: &str, id: &str) -> Result<Option<Call>, Error> {
        let stored = self.engine.mark(ACTION, &[environment, id])?;
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|error| Error::Storage(error.to_string()));
        stored.map(read).transpose()
    }

    /// Stores how far a call is.
    pub(super) async fn set(&self, key: &CallKey, call: &Call) -> Result<(), Error> {
        self.store(key, call).await?;
        if let Stage::Output(_, at) | Stage::Failed(_, at) = call.stage {
            let mut table = self.table.lock();
            table.open.remove(key);
            table.ended(key.0.clone(), key.1.clone(), at);
        }
        Ok(())
    }

    async fn store(&self, (environment, id): &CallKey, call: &Call) -> Result<(), Error> {
        let value = serde_json::to_vec(call).map_err(|error| Error::BadBatch(error.to_string()))?;
        self.engine.put_marks(vec![Mark::put(ACTION, &[environment, id], value)]).await
    }

    /// Forgets results that are too old or too many; when to look again.
    pub(super) async fn forget(&self, now: Timestamp) -> Result<Timestamp, Error> {
        loop {
            let due = self.table.lock().due(now);
            if due.is_empty() {
                return Ok(self.table.lock().next_due().unwrap_or(now.plus(KEPT_FOR)));
            }
            let marks = due.iter().map(|(environment, _, id)| Mark::delete(ACTION, &[environment, id])).collect();
            self.engine.put_marks(marks).await?;
            let mut table = self.table.lock();
            for (environment, at, id) in due {
                if let Some(results) = table.results.get_mut(&environment) {
                    results.remove(&(at, id));
                }
            }
        }
    }
}

impl Table {
    fn ended(&mut self, environment: String, id: String, at: Timestamp) {
        self.results.entry(environment).or_default().insert((at, id));
    }

    /// Results whose time is over, or that are too many.
    fn due(&self, now: Timestamp) -> Vec<(String, Timestamp, String)> {
        let mut due = Vec::new();
        for (environment, results) in &self.results {
            let over = results.len().saturating_sub(RESULTS_MAX);
            let gone = results.iter().enumerate().take_while(|(n, (at, _))| *n < over || at.plus(KEPT_FOR) <= now);
            due.extend(gone.map(|(_, (at, id))| (environment.clone(), *at, id.clone())));
        }
        due.truncate(FORGOTTEN_AT_ONCE);
        due
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.results.values().filter_map(|results| Some(results.first()?.0.plus(KEPT_FOR))).min()
    }
}

/// An id of a call that is not stored.
pub(super) fn fresh_id() -> String {
    id_of(0)
}

fn id_of(shard: u16) -> String {
    let random = hex::encode(entropy().get(..RANDOM_BYTES).unwrap_or_default());
    format!("{PREFIX}{shard:04x}{random}")
}

/// The shard that an id names. One that nobody gave names any.
pub fn shard_of(id: &str) -> Option<u16> {
    let rest = id.strip_prefix(PREFIX)?;
    let whole = rest.len() == SHARD_LETTERS + 2 * RANDOM_BYTES && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(rest.get(..SHARD_LETTERS).filter(|_| whole)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pipeline::Options;

    fn call(at: i64, stage: Stage) -> Call {
        let [source, connection, action] = ["shop", "acme", "order"].map(str::to_owned);
        Call { source, connection, action, input: None, retries: 0, made_at: Timestamp::from_seconds(at), stage }
    }

    #[tokio::test]
    async fn a_result_is_kept_for_a_day_and_a_call_that_has_not_ended_for_as_long_as_it_takes() {
        let engine = Engine::open(Options::temporary()).expect("an engine");
        let (kept, open) = Kept::open(engine.clone(), 3).expect("reads");
        assert!(open.is_empty());
        let at = |second| Timestamp::from_seconds(second);
        let mut keys = Vec::new();
        for second in [10, 20] {
            let key = kept.add("default", &call(second, Stage::Waiting)).await.expect("stores").expect("there is room");
            assert_eq!(shard_of(&key.1), Some(3));
            kept.set(&key, &call(second, Stage::Output("1".into(), at(second)))).await.expect("stores");
            keys.push(key);
        }
        let waiting = kept.add("default", &call(0, Stage::Acting)).await.expect("stores").expect("there is room");
        // The same from what is stored.
        for kept in [kept, Kept::open(engine.clone(), 3).expect("reads").0] {
            let day = 24 * 3_600;
            assert_eq!(kept.forget(at(9 + day)).await.expect("works"), at(10 + day));
            assert!(kept.get("default", &keys[0].1).expect("reads").is_some());
        }
        let (kept, open) = Kept::open(engine, 3).expect("reads");
        assert_eq!(open, std::slice::from_ref(&waiting));
        let day = 24 * 3_600;
        assert_eq!(kept.forget(at(10 + day)).await.expect("works"), at(20 + day));
        let there = |id: &str| kept.get("default", id).expect("reads").is_some();
        assert_eq!([&keys[0].1, &keys[1].1, &waiting.1].map(|id| there(id)), [false, true, true]);
        kept.forget(at(20 + 9 * day)).await.expect("works");
        assert_eq!([&keys[1].1, &waiting.1].map(|id| there(id)), [false, true]);
    }

    #[tokio::test]
    async fn an_environment_has_a_bound_of_calls_that_have_not_ended() {
        let engine = Engine::open(Options::temporary()).expect("an engine");
        let (kept, _) = Kept::open(engine, 0).expect("reads");
        let mut first = None;
        for _ in 0..OPEN_MAX {
            let key = kept.add("default", &call(0, Stage::Waiting)).await.expect("stores");
            first = first.or(Some(key.expect("there is room")));
        }
        assert_eq!(kept.add("default", &call(0, Stage::Waiting)).await.expect("stores"), None);
        assert!(kept.add("other", &call(0, Stage::Waiting)).await.expect("stores").is_some());
        let output = Stage::Output("1".into(), Timestamp::from_seconds(1));
        kept.set(&first.expect("one"), &call(0, output)).await.expect("stores");
        assert!(kept.add("default", &call(0, Stage::Waiting)).await.expect("stores").is_some());
    }
}
