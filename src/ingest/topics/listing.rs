//! Full lists that come as messages: what each has seen, and what becomes of what it has not.
//!
//! Promises: a list deletes only if it ended with the number of keys that were seen, without a doubt; what it would delete goes
//! through the stream's guard, and is held for approval where that says so. The list's state is a mark in the commits of its
//! pages; the keys it has seen are read again from the topic after a crash.

use super::place::PartitionPlace;
use super::spec::InputSpec;
use crate::connectors::definition::Stream;
use crate::connectors::kafka::input::ListPage as Page;
use crate::engine::Engine;
use crate::engine::model::{DatasetId, DatasetName};
use crate::engine::pipeline::run::{self as driver, DeleteGuard, Hold};
use crate::engine::pipeline::{Batch, Dataset, Error, Keyspace, Mark, WindowOp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// First key part of the marks.
const LISTING: &str = "kafka listing";
/// Version of the stored form.
const FORMAT: u32 = 1;
/// Most keys of a list: 8 bytes each are in memory until it ends.
const KEYS_MAX: usize = 8 << 20;
/// Most doubts kept.
const DOUBTS_MAX: usize = 5;

/// What is stored of an open list.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ListState {
    format: u32,
    id: String,
    /// Partition of the topic its messages come from.
    partition: i32,
    /// Offset of its first message: from there its keys are read again.
    first: i64,
    /// Offset of its last message so far.
    last: i64,
    doubts: Vec<String>,
    /// Set with the last page: nothing but the settlement is missing.
    ended: bool,
}

/// An open list.
struct OpenList {
    dataset: Dataset,
    state: ListState,
    seen: HashSet<u64>,
}

/// All open lists of an input: one per dataset.
#[derive(Default)]
pub(super) struct OpenLists(HashMap<DatasetId, OpenList>);

/// How a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Proven,
    Held,
    Aborted,
}

impl OpenLists {
    /// What was open when the program stopped.
    pub fn load(engine: &Engine, spec: &InputSpec) -> Result<OpenLists, Error> {
        let mut open = HashMap::new();
        for (rest, value) in engine.marks(Keyspace::PLACE, &[LISTING, &spec.name])? {
            let state = serde_json::from_slice::<ListState>(&value).ok().filter(|state| state.format == FORMAT);
            let [environment, connection, stream, variant] = rest.as_slice() else { continue };
            let mut name = DatasetName::base(environment, &spec.definition.source, connection, stream);
            name.variant = variant.as_str().into();
            if let (Some(state), Some(dataset)) = (state, engine.find(&name)) {
                open.insert(dataset.id, OpenList { dataset, state, seen: HashSet::new() });
            }
        }
        Ok(OpenLists(open))
    }

    /// Where each partition has to be read again from, so that the keys of its open lists are known.
    pub fn rewinds(&self) -> BTreeMap<i32, i64> {
        let mut rewinds = BTreeMap::new();
        for open in self.0.values().filter(|open| !open.state.ended && open.state.doubts.is_empty()) {
            let first = rewinds.entry(open.state.partition).or_insert(open.state.first);
            *first = open.state.first.min(*first);
        }
        rewinds
    }

    /// The keys of open lists cannot be read again: none of them can be proven.
    pub fn lose_keys(&mut self) {
        for open in self.0.values_mut().filter(|open| !open.state.ended) {
            open.doubt("its first messages are gone, so its keys cannot be counted after a restart");
        }
    }

    /// Marks that give all open lists up: their topic is not what it was.
    pub fn give_up(&mut self, spec: &InputSpec) -> Vec<Mark> {
        let open = std::mem::take(&mut self.0);
        open.values().map(|open| Mark::delete(Keyspace::PLACE, &key(spec, &open.dataset.name))).collect()
    }

    /// Lists whose last page was committed, but not their settlement.
    pub fn unsettled(&self) -> Vec<DatasetId> {
        self.0.values().filter(|open| open.state.ended).map(|open| open.dataset.id).collect()
    }

    /// The model of an open list.
    pub fn model(&self, dataset: DatasetId) -> Option<String> {
        self.0.get(&dataset).map(|open| open.dataset.name.model.to_string())
    }

    /// Whether a page of this list begins it.
    pub fn begins(&self, dataset: &Dataset, page: &Page<'_>) -> bool {
        self.0.get(&dataset.id).is_none_or(|open| open.state.id != page.id)
    }

    /// Begins a list: what must be in the commit of its first page. An open one with another id is given up.
    pub fn begin(
        &mut self,
        engine: &Engine,
        dataset: &Dataset,
        page: &Page<'_>,
        (partition, offset): (i32, i64),
    ) -> Result<(WindowOp, Vec<Mark>), Error> {
        let state = ListState {
            format: FORMAT,
            id: page.id.to_string(),
            partition,
            first: offset,
            last: offset,
            doubts: Vec::new(),
            ended: false,
        };
        let open = OpenList { dataset: dataset.clone(), state, seen: HashSet::new() };
        if let Some(older) = self.0.insert(dataset.id, open) {
            tracing::warn!(dataset = %dataset.name, older = older.state.id, newer = %page.id, "a list is given up for a newer one");
            count(Ended::Aborted);
        }
        // What an earlier list found missing is no longer the question.
        let held = driver::held(engine, &dataset.name)?;
        let name = &dataset.name;
        let lift =
            |hold: &Hold| Mark::delete(Keyspace::HELD, &[&name.environment, &name.source, &name.model, &hold.run]);
        Ok((WindowOp::Restart(dataset.clone()), held.iter().map(lift).collect()))
    }

    /// Something of a page could not be taken.
    pub fn doubt(&mut self, dataset: DatasetId, why: &str) {
        if let Some(open) = self.0.get_mut(&dataset) {
            open.doubt(why);
        }
    }

    /// A key of a page.
    pub fn see(&mut self, dataset: DatasetId, id: &str) {
        let Some(open) = self.0.get_mut(&dataset) else { return };
        if open.seen.len() >= KEYS_MAX {
            return open.doubt(&format!("it has more than {KEYS_MAX} keys"));
        }
        let mut hash = DefaultHasher::new();
        id.hash(&mut hash);
        open.seen.insert(hash.finish());
    }

    /// A page has been read to its end. True if it was the last.
    pub fn page(&mut self, dataset: DatasetId, page: &Page<'_>, partition: i32, offset: i64) -> bool {
        let Some(open) = self.0.get_mut(&dataset) else { return false };
        open.state.last = offset;
        if open.state.partition != partition {
            open.doubt("its messages have several keys, so that their order is not known");
        }
        if page.partition.is_some() {
            open.doubt("it is a list of one `partition` only");
        }
        let Some(total) = page.end else { return false };
        if open.seen.len() as u64 != total {
            let seen = open.seen.len();
            open.doubt(&format!("it ends with total {total}, but has {seen} keys"));
        }
        open.state.ended = true;
        true
    }

    /// The mark of a list as it stands.
    pub fn mark(&self, spec: &InputSpec, dataset: DatasetId) -> Option<Mark> {
        let open = self.0.get(&dataset)?;
        let value = serde_json::to_vec(&open.state).unwrap_or_default();
        Some(Mark::put(Keyspace::PLACE, &key(spec, &open.dataset.name), value))
    }

    /// Settles a list that has ended, in one commit.
    pub async fn settle(
        &mut self,
        engine: &Engine,
        spec: &InputSpec,
        dataset: DatasetId,
        stream: &Stream,
        places: &BTreeMap<i32, PartitionPlace>,
    ) -> Result<Option<Ended>, Error> {
        let Some(open) = self.0.remove(&dataset) else { return Ok(None) };
        let (dataset, state) = (open.dataset, open.state);
        let cause = places.get(&state.partition).map(|place| place.cause(state.last));
        let mut marks = vec![Mark::delete(Keyspace::PLACE, &key(spec, &dataset.name))];
        let window = engine.window_open(&dataset);
        let missing = engine.missing(&dataset).await?;
        let count = missing.positions.len() as u64;
        let guard = stream.deletes.guard.map(|g| DeleteGuard { max_fraction: g.max_fraction, min_count: g.min_count });
        let (ended, close) = if !state.doubts.is_empty() || !window {
            let doubts = state.doubts.join("; ");
            tracing::warn!(dataset = %dataset.name, listing = state.id, doubts, "a list deletes nothing: it is not proven complete");
            (Ended::Aborted, if window { vec![WindowOp::Abort(dataset.clone())] } else { Vec::new() })
        } else if count > 0 && guard.is_some_and(|guard| guard.holds(missing.live, count)) {
            let run = cause.map(|cause| cause.to_string()).unwrap_or_default();
            tracing::warn!(dataset = %dataset.name, run, missing = count, "deletes are held: `syncline approve` or `syncline reject` decides");
            marks.push(hold(&dataset, run, (missing.live, count), engine));
            (Ended::Held, Vec::new())
        } else {
            (Ended::Proven, vec![WindowOp::Sweep(dataset.clone())])
        };
        engine.commit(Batch { cause, close, marks, ..Batch::default() }).await?;
        self::count(ended);
        Ok(Some(ended))
    }
}

impl OpenList {
    fn doubt(&mut self, why: &str) {
        let doubts = &mut self.state.doubts;
        if doubts.len() < DOUBTS_MAX && !doubts.iter().any(|known| known == why) {
            doubts.push(why.to_owned());
        }
    }
}

fn hold(dataset: &Dataset, run: String, (live, missing): (u64, u64), engine: &Engine) -> Mark {
    let name = &dataset.name;
    let (connection, variant) = (name.connection.to_string(), name.variant.to_string());
    let (at, window) = (engine.clock().now(), engine.window_opened(dataset));
    let hold = Hold { run: run.clone(), connection, variant, live, missing, at, window, sync: None };
    let value = serde_json::to_vec(&hold).unwrap_or_default();
    Mark::put(Keyspace::HELD, &[&name.environment, &name.source, &name.model, &run], value)
}

fn key<'a>(spec: &'a InputSpec, name: &'a DatasetName) -> [&'a str; 6] {
    [LISTING, &spec.name, &name.environment, &name.connection, &name.model, &name.variant]
}

fn count(ended: Ended) {
    let outcome = match ended {
        Ended::Proven => "proven",
        Ended::Held => "held",
        Ended::Aborted => "aborted",
    };
    metrics::counter!("syncline_kafka_listings_total", "outcome" => outcome).increment(1);
}
