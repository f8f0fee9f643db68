//! Hands oracle steps to an engine, and compares what readers of the engine see with what the oracle says.
//!
//! Payloads are compared by content (key order and number notation aside). Within the engine's own answers more is
//! asked: each `before` in the change stream is the previous `after` byte for byte.

use crate::oracle::{Action, Body, Dataset as Model, Entry, Row, Rule, Step, Tally, Window, Writer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use syncline_engine::Engine;
use syncline_engine::model::{self, Cause, Change, Counts, Cursor, DatasetId, Meta, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Filter, Mark, PageBuilder, WindowOp};

/// The cause a writer is for the engine.
pub fn cause(writer: Writer) -> Cause {
    match writer {
        Writer::Run(n) => Cause::run(n),
        Writer::Webhook(n) => Cause::webhook(n),
        Writer::Push(n) => Cause { via: model::Via::Push, number: n },
    }
}

/// The engine's word for a rule, with the fields it ignores.
pub fn spec(rule: Rule, ignore: &[String]) -> DatasetSpec {
    let strategy = match rule {
        Rule::Latest => Strategy::Latest,
        Rule::IgnoreIfModifiedAfter => Strategy::IgnoreIfModifiedAfter,
        Rule::Override => Strategy::Override,
    };
    DatasetSpec { strategy, ignore_in_diff: ignore.to_vec() }
}

/// A step as the engine takes it; `marks` go into the same commit.
pub fn batch(engine: &Engine, sets: &[Dataset], step: &Step, marks: Vec<Mark>) -> Batch {
    let window = |(set, op): &(usize, Window)| {
        let set = sets[*set].clone();
        match op {
            Window::Start => WindowOp::Start(set),
            Window::Restart => WindowOp::Restart(set),
            Window::Sweep => WindowOp::Sweep(set),
            Window::Abort => WindowOp::Abort(set),
        }
    };
    Batch {
        cause: Some(cause(step.writer)),
        open: step.open.iter().map(window).collect(),
        pages: step.pages.iter().map(|(set, rows)| page(engine, &sets[*set], rows)).collect(),
        close: step.close.iter().map(window).collect(),
        marks,
        end_run: Vec::new(),
    }
}

fn page(engine: &Engine, set: &Dataset, rows: &[Row]) -> PageBuilder {
    let mut page = engine.page(set);
    for row in rows {
        let (modified, observed) = (row.version.0.map(Timestamp), Timestamp(row.version.1));
        match &row.body {
            Body::Whole(value) => page.save(&row.id, modified, observed, value.to_string().as_bytes()),
            Body::Patch(value) => page.patch(&row.id, modified, observed, value.to_string().as_bytes()),
            Body::Gone(at) => page.delete(&row.id, modified, observed, at.map(Timestamp)),
        }
    }
    page
}

/// All records of a dataset, read page by page with a new cursor each time.
pub fn read_pages(engine: &Engine, set: &Dataset, filter: Filter, limit: usize) -> Result<Vec<(Meta, Value)>, Error> {
    let mut all = Vec::new();
    let mut after = Position::START;
    loop {
        let mut page = Vec::new();
        engine.records(set, after, filter, &mut |meta, payload| {
            page.push((meta.clone(), json(payload)));
            page.len() < limit
        })?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        assert!(page.len() <= limit, "a page of {} where {limit} were wanted", page.len());
        assert!(page[0].0.position > after, "a page begins at or before its cursor");
        after = last.position;
        all.extend(page);
    }
}

/// The change log of a dataset after `after`.
pub fn read_changes(engine: &Engine, set: &Dataset, after: Position) -> Result<Vec<Change>, Error> {
    let mut all = Vec::new();
    let cursor = Cursor { position: after, dataset: DatasetId(u32::MAX) };
    engine.changes(std::slice::from_ref(set), cursor, &mut |of, change| {
        assert_eq!(of.id, set.id, "a change of a dataset nobody asked for");
        all.push(change);
        true
    })?;
    Ok(all)
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|e| panic!("payload is not JSON ({e}): {}", String::from_utf8_lossy(bytes)))
}

fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("payload without text id: {value}")).to_string()
}

fn same(action: model::Action, expected: Action) -> bool {
    matches!(
        (action, expected),
        (model::Action::Added, Action::Added)
            | (model::Action::Updated, Action::Updated)
            | (model::Action::Deleted, Action::Deleted)
    )
}

/// Whether the engine's counts say what the oracle says; unchanged and skipped are one number.
pub fn tally(counts: &Counts) -> Tally {
    let Counts { added, updated, deleted, unchanged, skipped, ignored, .. } = *counts;
    Tally { added, updated, deleted, passed: unchanged + skipped, ignored }
}

/// How exactly times are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The oracle was told the commit times.
    Exact,
    /// It was not (after a crash); only their relations are checked.
    Related,
}

/// Compares all that readers see of a dataset: records by cursor, counts, windows, one by one, and the change log.
pub fn compare(engine: &Engine, set: &Dataset, model: &Model, times: Times) {
    let all = read_pages(engine, set, Filter::ALL, 3).expect("records");
    compare_records(engine, set, model, &all, times);
    compare_filters(engine, set, &all);
    assert_eq!(engine.live(set), model.live(), "live() of {}", set.name);
    assert_eq!(engine.window_open(set), model.window_open(), "window_open of {}", set.name);
    let changes = read_changes(engine, set, Position::START).expect("changes");
    compare_changes(set, model, &changes, &model.log, times);
    check_chain(&changes, &all, model);
}

fn compare_records(engine: &Engine, set: &Dataset, model: &Model, all: &[(Meta, Value)], times: Times) {
    let expected = model.records();
    assert!(all.windows(2).all(|w| w[0].0.position < w[1].0.position), "positions rise: {all:?}");
    let mut by_id = BTreeMap::new();
    for (meta, payload) in all {
        assert!(by_id.insert(id_of(payload), (meta, payload)).is_none(), "two entries of one record: {payload}");
    }
    let (found, wanted): (BTreeSet<&str>, BTreeSet<&str>) =
        (by_id.keys().map(String::as_str).collect(), expected.keys().copied().collect());
    assert_eq!(found, wanted, "ids of {}", set.name);
    for (id, record) in &expected {
        let (meta, payload) = by_id[*id];
        let what = format!("{}/{id}: engine {meta:?} {payload}, oracle {record:?}", set.name);
        assert!(same(meta.action, record.action), "action of {what}");
        assert_eq!(meta.cause, cause(record.writer), "cause of {what}");
        assert_eq!(meta.pruned_at.is_some(), record.payload.is_none(), "pruned_at of {what}");
        assert_eq!(meta.deleted_at.is_some(), record.deleted.is_some(), "deleted_at of {what}");
        assert!(meta.first_seen_at <= meta.last_modified_at, "times of {what}");
        match &record.payload {
            Some(_) => assert_eq!(model.content(payload), record.content, "content of {what}"),
            None => assert_eq!(payload.as_object().map(|o| o.len()), Some(1), "payload of a pruned record: {what}"),
        }
        if times == Times::Exact {
            assert_eq!(meta.first_seen_at.0, record.first_seen, "first_seen_at of {what}");
            assert_eq!(meta.last_modified_at.0, record.last_modified, "last_modified_at of {what}");
            assert_eq!(meta.deleted_at.map(|t| t.0), record.deleted, "deleted_at of {what}");
        }
        let by_place = engine.record_at(set, meta.position).expect("record_at").expect("the record at its position");
        assert_eq!((&by_place.meta, &json(&by_place.payload)), (meta, payload), "record_at of {what}");
    }
}

/// A filter is a set union over the last action, and cuts by time inclusively.
fn compare_filters(engine: &Engine, set: &Dataset, all: &[(Meta, Value)]) {
    for bits in 1..8u8 {
        let (added, updated, deleted) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let time = all.get(all.len() / 2).map(|(m, _)| m.last_modified_at).filter(|_| bits % 2 == 0);
        let filter = Filter { added, updated, deleted, modified_after: time };
        let wanted = |meta: &Meta| {
            let action = match meta.action {
                model::Action::Added => added,
                model::Action::Updated => updated,
                model::Action::Deleted => deleted,
            };
            action && time.is_none_or(|t| meta.last_modified_at.millis() >= t.millis())
        };
        let expected: Vec<_> = all.iter().filter(|(m, _)| wanted(m)).cloned().collect();
        assert_eq!(read_pages(engine, set, filter, 2).expect("records"), expected, "{filter:?} on {}", set.name);
    }
}

/// The change log against the oracle's, record by record: within one commit only the order per record is fixed.
pub fn compare_changes(set: &Dataset, model: &Model, changes: &[Change], log: &[Entry], times: Times) {
    assert!(changes.windows(2).all(|w| w[0].meta.position < w[1].meta.position), "positions of changes rise");
    let found = chains(changes);
    let mut wanted: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in log {
        wanted.entry(&entry.id).or_default().push(entry);
    }
    for (id, entries) in &wanted {
        let none = Vec::new();
        let chain = found.get(*id).unwrap_or(&none);
        let show = || format!("{}/{id}:\nengine {:#?}\noracle {:#?}", set.name, chain, entries);
        assert_eq!(chain.len(), entries.len(), "number of changes of {}", show());
        for (change, entry) in chain.iter().zip(entries) {
            assert!(same(change.meta.action, entry.action), "action in {}", show());
            assert_eq!(change.meta.cause, cause(entry.writer), "cause in {}", show());
            let content = |bytes: &Option<_>| bytes.as_ref().map(|b: &bytes::Bytes| model.content(&json(b)));
            assert_eq!(
                content(&change.before),
                entry.before.as_ref().map(|v| model.content(v)),
                "before in {}",
                show()
            );
            assert_eq!(change.meta.pruned_at.is_some(), entry.after.is_none(), "pruned_at in {}", show());
            let after = entry.after.as_ref().map_or_else(|| serde_json::json!({ "id": id }), Value::clone);
            assert_eq!(content(&change.after), Some(model.content(&after)), "after in {}", show());
            if times == Times::Exact {
                assert_eq!(change.meta.last_modified_at.0, entry.at, "time in {}", show());
            }
        }
    }
    let ghosts: Vec<_> = found.keys().filter(|id| !wanted.contains_key(id.as_str())).collect();
    assert!(ghosts.is_empty(), "changes nobody made: {ghosts:?}");
    if times == Times::Exact {
        let order = |at: &dyn Fn(usize) -> i64, n: usize| (1..n).all(|i| at(i - 1) <= at(i));
        assert!(order(&|i| changes[i].meta.last_modified_at.0, changes.len()), "changes in order of commit");
    }
}

fn chains(changes: &[Change]) -> BTreeMap<String, Vec<&Change>> {
    let mut found: BTreeMap<String, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        let after = change.after.as_ref().unwrap_or_else(|| panic!("a change of nothing: {change:?}"));
        found.entry(id_of(&json(after))).or_default().push(change);
    }
    found
}

/// Each record's changes form a chain that ends in what readers see, and none of them changes nothing.
pub fn check_chain(changes: &[Change], all: &[(Meta, Value)], model: &Model) {
    let chains = chains(changes);
    for (id, chain) in &chains {
        let mut before: Option<&Change> = None;
        for change in chain {
            let what = || format!("{id}: {before:#?} then {change:#?}");
            let was_live = before.is_some_and(|c| c.meta.action != model::Action::Deleted);
            assert_eq!(was_live, change.meta.action != model::Action::Added, "{}", what());
            if let (Some(before), true, Some(left)) = (before, was_live, &change.before) {
                assert_eq!(Some(left), before.after.as_ref(), "before is not the previous after: {}", what());
            }
            let pruned = change.meta.pruned_at.is_some();
            if let (model::Action::Updated, Some(l), Some(r), false) =
                (change.meta.action, &change.before, &change.after, pruned)
            {
                assert_ne!(
                    model.content(&json(l)),
                    model.content(&json(r)),
                    "an update that changes nothing: {}",
                    what()
                );
            }
            before = Some(change);
        }
    }
    for (meta, payload) in all {
        let Some(last) = chains.get(&id_of(payload)).and_then(|c| c.last()) else {
            panic!("no change made {payload}");
        };
        assert_eq!(last.meta.position, meta.position, "the last change of {payload} is at its position");
        assert_eq!(last.meta.action, meta.action);
        assert_eq!(last.meta.last_modified_at, meta.last_modified_at);
    }
}

/// Compares what an open window has not seen.
pub async fn compare_missing(engine: &Engine, set: &Dataset, model: &Model) {
    if !model.window_open() {
        return;
    }
    let missing = engine.missing(set).await.expect("missing");
    assert_eq!(missing.live, model.live(), "missing().live of {}", set.name);
    assert!(missing.positions.windows(2).all(|w| w[0] < w[1]), "missing positions rise");
    let mut ids = Vec::new();
    for at in missing.positions {
        let record = engine.record_at(set, at).expect("record_at").expect("a missing record is there");
        ids.push(id_of(&json(&record.payload)));
    }
    ids.sort();
    assert_eq!(ids, model.missing(), "missing records of {}", set.name);
}
