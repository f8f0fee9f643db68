//! Views and the catalog: every dataset that views read brings the datasets that they write.

use super::engine::Catalog;
use super::{Batch, Dataset, DatasetSpec, Engine, Error, WindowOp};
use crate::dataflow::Derived;
use crate::dataflow::views::{Definition, Health, Registry};
use crate::model::{Cause, DatasetId, DatasetName, Strategy, Via};
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A view and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// Its name: the model its records are of.
    pub name: String,
    /// The source its records are of.
    pub source: String,
    /// Whether it reaches over all connections; its records then are those of connection
    /// [`ALL_CONNECTIONS`](crate::views::ALL_CONNECTIONS).
    pub across_connections: bool,
    /// How it is doing.
    pub health: Health,
}

/// A view that is not defined any more, and whose records are still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedView {
    /// Its name.
    pub name: String,
    /// The source its records are of.
    pub source: String,
    /// How many records there are, in all connections.
    pub records: u64,
}

impl Engine {
    /// Views that an earlier program defined in this environment, and that have records.
    pub fn removed_views(&self, environment: &str) -> Vec<RemovedView> {
        let mut removed: BTreeMap<(String, String), u64> = BTreeMap::new();
        for dataset in self.left_by_views(environment) {
            let of = (dataset.name.model.to_string(), dataset.name.source.to_string());
            *removed.entry(of).or_default() += self.live(&dataset);
        }
        let there = removed.into_iter().filter(|(_, records)| *records > 0);
        there.map(|((name, source), records)| RemovedView { name, source, records }).collect()
    }

    /// Whether a view of this name was defined in this environment by an earlier program and is not any more, whether or not
    /// it has records left.
    pub fn was_view(&self, environment: &str, name: &str) -> bool {
        self.left_by_views(environment).iter().any(|dataset| &*dataset.name.model == name)
    }

    /// Deletes all records of a view that is not defined any more: each connection's in one engine time, as changes that every
    /// reader meets. Returns how many there were. What a crash leaves behind is deleted when it is asked for again; the view
    /// itself may be defined again at any time.
    ///
    /// ```
    /// # use syncline_engine::{harness::Harness, views::{Definition, Row}};
    /// # use serde_json::json;
    /// # #[derive(Row, Clone)] #[row(crate = syncline_engine)] struct Note { text: String }
    /// let texts = Definition::new(|v| {
    ///     let notes = v.model::<Note>("desk", "Note");
    ///     v.publish("Texts", &notes.map(|_, note| note.text.clone()));
    /// });
    /// let mut desk = Harness::new(texts);
    /// desk.save("desk", "me", "Note", json!({"id": "1", "text": "a"}));
    /// desk.restart(Some(Definition::new(|_| {})));
    /// assert_eq!(desk.rows("desk", "me", "Texts").len(), 1, "they stay");
    /// assert_eq!(desk.retract("Texts"), 1);
    /// assert_eq!(desk.rows("desk", "me", "Texts").len(), 0);
    /// assert_eq!(desk.changes("desk", "me", "Texts").last(), Some(&("DELETED", json!({"id": "1", "value": "a"}))));
    /// ```
    pub async fn retract_view(&self, environment: &str, name: &str) -> Result<u64, Error> {
        let mut deleted = 0;
        for dataset in self.left_by_views(environment).into_iter().filter(|d| &*d.name.model == name) {
            if self.live(&dataset) > 0 {
                deleted += self.retract_left(&dataset).await?;
            }
        }
        Ok(deleted)
    }

    /// Deletes what a view has left in a dataset, unless that has become somebody else's meanwhile; how much.
    async fn retract_left(&self, dataset: &Dataset) -> Result<u64, Error> {
        let cause = Some(Cause { via: Via::View, number: u64::from(dataset.id.0) });
        // A window in which nothing is seen.
        let (open, close) = (vec![WindowOp::Restart(dataset.clone())], vec![WindowOp::Sweep(dataset.clone())]);
        match self.hand_over_for_view(dataset, Batch { cause, open, close, ..Batch::default() }).await? {
            Some(underway) => Ok(underway.receipt().await?.counts_of(dataset).deleted),
            None => Ok(0),
        }
    }
}

/// What a definition makes of an engine that begins at epoch `first`.
pub(super) fn derived(definition: Option<Definition>, first: u64) -> Result<Option<Derived>, Error> {
    let Some(definition) = definition else { return Ok(None) };
    let plan = definition.plan().map_err(Error::BadViews)?;
    Ok(Some(Derived { definition, registry: Arc::new(Registry::new(plan)), first }))
}

/// How a dataset of a view is treated: what comes later counts.
fn spec() -> DatasetSpec {
    DatasetSpec::of(Strategy::Override)
}

/// Makes the datasets that views write for a dataset they read, where they are missing, and lets the views see it. Returns
/// what is new.
pub(super) fn enroll(
    registry: &Registry,
    catalog: &mut Catalog,
    store: &Store,
    name: &DatasetName,
    dataset: DatasetId,
) -> Result<Vec<(DatasetId, Arc<DatasetName>)>, Error> {
    let mut new = Vec::new();
    for (view, output) in registry.outputs_for(name) {
        let known = catalog.by_name.get(&output).map(|(dataset, _)| dataset.id);
        let id = match known.filter(|id| catalog.of_views.contains(id)) {
            Some(known) => known,
            None => {
                let made = catalog.add(store, &output, &spec(), true)?;
                new.extend(known.is_none().then(|| (made.id, made.name.clone())));
                made.id
            }
        };
        registry.writes(view, &output, id);
    }
    registry.reads(name, dataset);
    Ok(new)
}

/// All views in the order they were published in.
pub(super) fn statuses(registry: &Registry) -> Vec<ViewStatus> {
    let status = |view: &crate::dataflow::views::View| ViewStatus {
        name: view.name.clone(),
        source: view.source.clone(),
        across_connections: view.across,
        health: registry.ward.of(&view.name),
    };
    registry.plan.views.iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::pipeline::Options;
    use crate::time::SystemClock;

    #[derive(syncline_derive::Row, Clone)]
    #[row(crate = crate)]
    struct Note {
        text: String,
    }

    /// A stream may take over the name of a removed view while the view's records are being deleted.
    #[tokio::test]
    async fn records_of_a_stream_that_took_over_the_name_of_a_removed_view_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |views| {
            let options = Options { workers: 1, clock: Arc::new(SystemClock), views, ..Options::default() };
            Engine::open(Options { data_dir: Some(folder.path().to_owned()), ..options }).expect("opens")
        };
        let save = async |engine: &Engine, model: &str, id: &str| {
            let dataset = engine.dataset(&DatasetName::base("e", "desk", "one", model), &spec()).expect("a dataset");
            let mut page = engine.page(&dataset);
            page.save(id, None, Timestamp(1), format!(r#"{{"id":"{id}","text":"a"}}"#).as_bytes());
            let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
            engine.commit(batch).await.expect("commits");
        };
        let engine = open(Some(Definition::new(|v| {
            let notes = v.model::<Note>("desk", "Note");
            v.publish("Texts", &notes.map(|_, note| note.text.clone()));
        })));
        save(&engine, "Note", "1").await;
        engine.stop().await.expect("stops");
        drop(engine);

        let engine = open(None);
        let left = engine.left_by_views("e");
        assert_eq!(left.iter().map(|left| engine.live(left)).collect::<Vec<_>>(), [1]);
        save(&engine, "Texts", "2").await;
        assert_eq!(engine.retract_left(&left[0]).await.expect("an answer"), 0, "it is a stream's by now");
        assert_eq!(engine.live(&left[0]), 2);
        engine.stop().await.expect("stops");
    }

    /// Views read all contents at the start. One that cannot be read must end the opening, not leave it waiting.
    #[tokio::test]
    async fn contents_that_cannot_be_read_are_said_at_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let views = Definition::new(|v| {
            let notes = v.model::<Note>("desk", "Note");
            v.publish("Texts", &notes.map(|_, note| note.text.clone()));
        });
        let open = || {
            let (data_dir, views) = (Some(folder.path().to_owned()), Some(views.clone()));
            Engine::open(Options { data_dir, workers: 1, clock: Arc::new(SystemClock), views, ..Options::default() })
        };
        let engine = open().expect("opens");
        let notes = engine.dataset(&DatasetName::base("e", "desk", "one", "Note"), &spec()).expect("a dataset");
        let mut page = engine.page(&notes);
        page.save("1", None, Timestamp(1), br#"{"id":"1","text":"a"}"#);
        let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
        engine.commit(batch).await.expect("commits");
        engine.stop().await.expect("stops");
        drop(engine);
        Store::open(folder.path(), None, Some(0)).expect("opens").lose_payloads(notes.id).expect("lost");
        let refused = open().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("is missing; restore a backup"), "{refused}");
    }
}
