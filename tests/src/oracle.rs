//! The oracle: an independent, naive, single-threaded model of `docs/semantics.md`, used to judge the engine.
//!
//! It promises to be obvious rather than fast: `BTreeMap`s, whole values, no hashes, no clocks, no engine types. Under
//! `latest` it keeps the newest whole observation and all newer patches and folds them again for every row, where the
//! engine keeps field clocks; delete windows keep the set of ids seen, where the engine keeps generations.
//!
//! Under `latest` histories given to it must not contain two different observations of one record with exactly equal
//! versions: the engine decides those by content hash, which is its own affair (a dedicated test checks that it decides at all).

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Who wrote: a run, a webhook or a caller of the library, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A run.
    Run(u64),
    /// A webhook.
    Webhook(u64),
    /// The library's caller.
    Push(u64),
}

/// Who wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The greatest version.
    Latest,
    /// The later in the log, but a polled row loses against another writer's newer one, and what states a time of its own
    /// loses against what states a later one or was asked for well after it.
    IgnoreIfModifiedAfter,
    /// The later in the log.
    Override,
}

/// (modified by the source, observed by us). Without a modified time the observation counts as that new.
pub type Version = (Option<i64>, i64);

/// So far, in microseconds, a source's clock may stand from ours.
const APART: i64 = 60_000_000;

/// What was seen of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// All of it.
    Whole(Value),
    /// Some fields.
    Patch(Value),
    /// It is gone, since the given time if known.
    Gone(Option<i64>),
}

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The record's id.
    pub id: String,
    /// Its version.
    pub version: Version,
    /// What was seen.
    pub body: Body,
}

/// What happens to a delete-tracking window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Begin unless open.
    Start,
    /// Begin afresh.
    Restart,
    /// Delete what was not seen; close.
    Sweep,
    /// Close.
    Abort,
}

/// One batch. Datasets are named by number.
#[derive(Clone, Debug)]
pub struct Step {
    /// Who wrote it.
    pub writer: Writer,
    /// Window operations before the pages.
    pub open: Vec<(usize, Window)>,
    /// Rows by dataset.
    pub pages: Vec<(usize, Vec<Row>)>,
    /// Window operations after the pages.
    pub close: Vec<(usize, Window)>,
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// New or live again.
    Added,
    /// Other content.
    Updated,
    /// Gone.
    Deleted,
}

/// One entry of the change log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The record.
    pub id: String,
    /// What happened.
    pub action: Action,
    /// Content before, unless added or pruned.
    pub before: Option<Value>,
    /// Content after; for a delete the last content, unless pruned.
    pub after: Option<Value>,
    /// Who did it.
    pub writer: Writer,
    /// Commit time.
    pub at: i64,
}

/// A record as readers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its last change.
    pub action: Action,
    /// Its payload, unless pruned.
    pub payload: Option<Value>,
    /// Its content in canonical form, kept over a prune.
    pub content: String,
    /// Commit time of the change that added it.
    pub first_seen: i64,
    /// Commit time of its last change.
    pub last_modified: i64,
    /// When it was deleted.
    pub deleted: Option<i64>,
    /// Who made the last change.
    pub writer: Writer,
}

impl Record {
    /// Whether it is there.
    pub fn live(&self) -> bool {
        self.action != Action::Deleted
    }
}

/// How the rows of a batch fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// New or live again.
    pub added: u64,
    /// Other content.
    pub updated: u64,
    /// Gone.
    pub deleted: u64,
    /// Unchanged, or skipped by merging.
    pub passed: u64,
    /// Patches and deletes of ids unknown or deleted, and patches of pruned records.
    pub ignored: u64,
}

impl Tally {
    fn of(&mut self, action: Action) -> &mut u64 {
        match action {
            Action::Added => &mut self.added,
            Action::Updated => &mut self.updated,
            Action::Deleted => &mut self.deleted,
        }
    }
}

/// What the newest whole observation said.
#[derive(Clone, Debug, PartialEq)]
enum Base {
    Whole(Value),
    Gone,
}

/// All that is known of one id, seen or unseen by readers.
#[derive(Clone, Debug, Default)]
struct Known {
    /// What readers see.
    shown: Option<Record>,
    /// `ignore_if_modified_after`: commit time and writer of the last change, a hidden tombstone included.
    changed: Option<(i64, Writer)>,
    /// `latest`: newest whole or gone observation.
    base: Option<(Version, Base)>,
    /// `latest`: patches newer than the base.
    patches: Vec<(Version, Value)>,
    /// `ignore_if_modified_after`: the latest time that anybody stated of the whole record.
    stated: Option<i64>,
    /// `ignore_if_modified_after`: when a page that has the record was last asked for.
    asked: Option<i64>,
    /// `ignore_if_modified_after`: the content under the dated patches, and those, in order of their times.
    dated: Option<(Value, Vec<(i64, Value)>)>,
}

/// One dataset.
#[derive(Clone, Debug)]
pub struct Dataset {
    rule: Rule,
    ignore: Vec<String>,
    known: BTreeMap<String, Known>,
    /// The open window: when it began, and the ids seen since.
    window: Option<(i64, BTreeSet<String>)>,
    /// Its change log.
    pub log: Vec<Entry>,
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Datasets by number.
    pub sets: Vec<Dataset>,
}

impl Oracle {
    /// A model of datasets with these rules and ignored fields.
    pub fn new(specs: &[(Rule, Vec<String>)]) -> Self {
        let set = |(rule, ignore): &(Rule, Vec<String>)| Dataset {
            rule: *rule,
            ignore: ignore.clone(),
            known: BTreeMap::new(),
            window: None,
            log: Vec::new(),
        };
        Oracle { sets: specs.iter().map(set).collect() }
    }

    /// Whether the engine must accept this step: a window is only ended when it is open.
    pub fn accepts(&self, step: &Step) -> bool {
        let mut open: Vec<bool> = self.sets.iter().map(Dataset::window_open).collect();
        step.open.iter().chain(&step.close).all(|(set, op)| {
            let was = std::mem::replace(&mut open[*set], matches!(op, Window::Start | Window::Restart));
            was || *op != Window::Sweep
        })
    }

    /// Applies a step committed at `at`; returns how its rows fared, by dataset.
    pub fn apply(&mut self, step: &Step, at: i64) -> BTreeMap<usize, Tally> {
        let mut tallies = BTreeMap::new();
        for (set, op) in &step.open {
            let tally = tallies.entry(*set).or_default();
            self.sets[*set].window(*op, step.writer, at, tally);
        }
        for (set, rows) in &step.pages {
            for row in rows {
                let tally = tallies.entry(*set).or_default();
                self.sets[*set].row(row, step.writer, at, tally);
            }
        }
        for (set, op) in &step.close {
            let tally = tallies.entry(*set).or_default();
            self.sets[*set].window(*op, step.writer, at, tally);
        }
        tallies
    }
}

/// What a row, once merged, says the record is.
enum Outcome {
    /// It is there with this content.
    Is(Value),
    /// It is gone.
    Gone(Option<i64>),
    /// A newer observation stands.
    Skipped,
    /// There is nothing to patch.
    Ignored,
}

impl Dataset {
    /// Records readers see, by id.
    pub fn records(&self) -> BTreeMap<&str, &Record> {
        self.known.iter().filter_map(|(id, k)| Some((id.as_str(), k.shown.as_ref()?))).collect()
    }

    /// Number of live records.
    pub fn live(&self) -> u64 {
        self.records().values().filter(|r| r.live()).count() as u64
    }

    /// Whether a window is open.
    pub fn window_open(&self) -> bool {
        self.window.is_some()
    }

    /// Live records an open window has not seen.
    pub fn missing(&self) -> Vec<String> {
        let Some((_, seen)) = &self.window else { return Vec::new() };
        let live = self.records().into_iter().filter(|(_, r)| r.live());
        live.map(|(id, _)| id.to_string()).filter(|id| !seen.contains(id)).collect()
    }

    /// Content in canonical form, without what does not count.
    pub fn content(&self, value: &Value) -> String {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("_nango_metadata");
        }
        for path in &self.ignore {
            let parts: Vec<&str> = path.split('.').collect();
            remove(&mut value, &parts);
        }
        canonical(&value)
    }

    /// Drops the payloads of these records.
    pub fn prune(&mut self, ids: &[String]) {
        for id in ids {
            let Some(known) = self.known.get_mut(id) else { continue };
            known.undate();
            let Some(shown) = &mut known.shown else { continue };
            shown.payload = None;
            let mut entries = self.log.iter_mut().rev().filter(|entry| entry.id == *id);
            let Some(last) = entries.next() else { continue };
            last.after = None;
            if last.action == Action::Deleted {
                // What was deleted is what the change before had brought.
                last.before = None;
                entries.next().into_iter().for_each(|entry| entry.after = None);
            }
        }
    }

    /// Forgets everything, windows included.
    pub fn clear(&mut self) {
        self.known.clear();
        self.log.clear();
        self.window = None;
    }

    fn window(&mut self, op: Window, writer: Writer, at: i64, tally: &mut Tally) {
        match op {
            Window::Start => _ = self.window.get_or_insert_with(|| (at, BTreeSet::new())),
            Window::Restart => self.window = Some((at, BTreeSet::new())),
            Window::Abort => self.window = None,
            Window::Sweep => {
                let began = self.window.as_ref().map_or(at, |(began, _)| *began);
                for id in self.missing() {
                    let known = self.known.entry(id.clone()).or_default();
                    known.swept(began);
                    known.undate();
                    known.asked = Some(began.max(known.asked.map_or(i64::MIN, |asked| asked + 1)));
                    self.show(&id, Outcome::Gone(None), None, writer, at, tally);
                }
                self.window = None;
            }
        }
    }

    fn row(&mut self, row: &Row, writer: Writer, at: i64, tally: &mut Tally) {
        if let Some((_, seen)) = &mut self.window {
            seen.insert(row.id.clone());
        }
        let shown = self.known.get(&row.id).and_then(|k| k.shown.as_ref()).filter(|r| r.live());
        let same = matches!((&row.body, shown), (Body::Whole(value), Some(r)) if r.content == self.content(value));
        let known = self.known.entry(row.id.clone()).or_default();
        let outcome = match self.rule {
            Rule::Latest => known.latest(row),
            Rule::IgnoreIfModifiedAfter => known.ignoring(row, writer, same),
            Rule::Override => known.later(row),
        };
        if known.changed.is_none() && matches!(outcome, Outcome::Gone(_)) {
            known.changed = Some((at, writer));
        }
        self.show(&row.id, outcome, Some(&row.body), writer, at, tally);
    }

    /// Shows the outcome to readers: the table «What counts as a change».
    fn show(&mut self, id: &str, outcome: Outcome, body: Option<&Body>, writer: Writer, at: i64, tally: &mut Tally) {
        let old = self.known.get(id).and_then(|k| k.shown.clone());
        let live = old.as_ref().is_some_and(Record::live);
        let before = old.as_ref().filter(|r| r.live()).and_then(|r| r.payload.clone());
        let (action, payload, deleted) = match outcome {
            Outcome::Skipped => return tally.passed += 1,
            Outcome::Ignored => return tally.ignored += 1,
            Outcome::Gone(_) if !live => return tally.ignored += 1,
            Outcome::Gone(deleted) => (Action::Deleted, before.clone(), Some(deleted.unwrap_or(at))),
            Outcome::Is(value) if !live => (Action::Added, Some(value), None),
            Outcome::Is(value) if old.as_ref().is_some_and(|r| r.content == self.content(&value)) => {
                tally.passed += 1;
                return self.restore(id, body);
            }
            Outcome::Is(value) => (Action::Updated, Some(value), None),
        };
        *tally.of(action) += 1;
        let content = match (&payload, action, &old) {
            (_, Action::Deleted, Some(old)) => old.content.clone(),
            (Some(value), ..) => self.content(value),
            _ => String::new(),
        };
        let first_seen = old.as_ref().filter(|_| action != Action::Added).map_or(at, |r| r.first_seen);
        let after = payload.clone();
        self.log.push(Entry { id: id.to_string(), action, before, after, writer, at });
        let shown = Record { action, payload, content, first_seen, last_modified: at, deleted, writer };
        let known = self.known.entry(id.to_string()).or_default();
        (known.shown, known.changed) = (Some(shown), Some((at, writer)));
    }

    /// Seen again whole with equal content: a pruned payload returns, nothing else moves.
    fn restore(&mut self, id: &str, body: Option<&Body>) {
        let Some(Body::Whole(value)) = body else { return };
        let content = self.content(value);
        let shown = self.known.get_mut(id).and_then(|k| k.shown.as_mut());
        if let Some(shown) = shown.filter(|r| r.payload.is_none() && r.content == content) {
            shown.payload = Some(value.clone());
            let last = self.log.iter_mut().rev().find(|entry| entry.id == *id);
            last.into_iter().for_each(|entry| entry.after = Some(value.clone()));
        }
    }
}

impl Known {
    /// `ignore_if_modified_after`: a polled row loses if another writer changed the record after the page was requested.
    fn overtaken(&self, row: &Row, writer: Writer) -> bool {
        let effective =
            !matches!(self.later(row), Outcome::Ignored) && (self.live() || !matches!(row.body, Body::Gone(_)));
        effective
            && matches!(writer, Writer::Run(_))
            && self.changed.is_some_and(|(at, by)| by != writer && at > row.version.1)
    }

    /// `ignore_if_modified_after`: the later in the log, unless it was overtaken or says itself that it is older.
    fn ignoring(&mut self, row: &Row, writer: Writer, same: bool) -> Outcome {
        let polled = matches!(writer, Writer::Run(_));
        let own = row.version.0.filter(|_| !polled);
        let asked = Some(row.version.1).filter(|_| polled);
        let before = |at: Option<i64>| own.is_some_and(|own| at.is_some_and(|at| own < at));
        let late = before(self.stated) || before(self.asked.map(|at| at - APART)) || self.overtaken(row, writer);
        if same && self.dated.is_none() {
            (self.stated, self.asked) = (self.stated.max(row.version.0), self.asked.max(asked));
            return self.later(row);
        }
        match &row.body {
            Body::Patch(_) if !self.live() || self.pruned() => Outcome::Ignored,
            Body::Gone(at) if !self.live() => {
                (self.stated, self.asked) = (self.stated.max(row.version.0), self.asked.max(asked));
                Outcome::Gone(*at)
            }
            Body::Gone(_) if late || before(self.newest()) => Outcome::Skipped,
            _ if late => Outcome::Skipped,
            Body::Patch(patch) if own.is_some() || self.dated.is_some() => self.date(own, row.version.0, patch),
            Body::Patch(_) => self.later(row),
            Body::Whole(value) => {
                let newer = self.dated.take().map(|(_, patches)| patches).unwrap_or_default();
                let newest = newer.last().map(|(at, _)| *at);
                let (newer, behind): (Vec<_>, Option<i64>) = match own {
                    Some(own) => (newer.into_iter().filter(|(at, _)| *at > own).collect(), None),
                    None => (Vec::new(), newest),
                };
                self.stated = self.stated.max(behind).max(row.version.0);
                self.asked = self.asked.max(asked);
                let content = newer.iter().fold(value.clone(), |value, (_, patch)| merged(&value, patch));
                self.dated = (!newer.is_empty()).then(|| (value.clone(), newer));
                Outcome::Is(content)
            }
            Body::Gone(at) => {
                self.undate();
                (self.stated, self.asked) = (self.stated.max(row.version.0), self.asked.max(asked));
                Outcome::Gone(*at)
            }
        }
    }

    /// Takes a patch in by its own time, or behind all others: then the time it bears may only put it further behind.
    fn date(&mut self, own: Option<i64>, bears: Option<i64>, patch: &Value) -> Outcome {
        let shown = self.shown.as_ref().and_then(|r| r.payload.clone()).unwrap_or_default();
        let at = own.or(self.newest().max(bears)).unwrap_or(i64::MIN);
        let nothing = patch.as_object().is_some_and(Map::is_empty);
        if nothing {
            return Outcome::Is(shown);
        }
        let (base, patches) = self.dated.get_or_insert_with(|| (shown, Vec::new()));
        patches.insert(patches.partition_point(|(other, _)| *other <= at), (at, patch.clone()));
        Outcome::Is(patches.iter().fold(base.clone(), |value, (_, patch)| merged(&value, patch)))
    }

    /// The latest time that anybody stated of any field.
    fn newest(&self) -> Option<i64> {
        self.stated.max(self.dated.as_ref().and_then(|(_, patches)| patches.last()).map(|(at, _)| *at))
    }

    /// What comes now speaks for all fields; the latest time that was stated stays the record's.
    fn undate(&mut self) {
        self.stated = self.newest();
        self.dated = None;
    }

    /// A sweep says: as it was known, but gone since the window began, and in any case after it was last observed.
    fn swept(&mut self, began: i64) {
        if let Some(((modified, observed), _)) = self.base {
            self.rebase((modified, began.max(observed + 1)), Base::Gone);
        }
    }

    /// The later in the log wins.
    fn later(&self, row: &Row) -> Outcome {
        let live = self.shown.as_ref().filter(|r| r.live());
        match (&row.body, live) {
            (Body::Whole(value), _) => Outcome::Is(value.clone()),
            (Body::Gone(at), _) => Outcome::Gone(*at),
            (Body::Patch(patch), Some(Record { payload: Some(payload), .. })) => Outcome::Is(merged(payload, patch)),
            (Body::Patch(_), _) => Outcome::Ignored,
        }
    }

    /// The greatest version wins, field by field.
    fn latest(&mut self, row: &Row) -> Outcome {
        if self.live() && self.pruned() && matches!(row.body, Body::Patch(_)) {
            return Outcome::Ignored;
        }
        let version = (Some(row.version.0.unwrap_or(row.version.1)), row.version.1);
        let newer = self.base.as_ref().is_none_or(|(base, _)| version > *base);
        match (&row.body, newer) {
            (Body::Whole(value), true) => self.rebase(version, Base::Whole(value.clone())),
            (Body::Gone(_), true) => self.rebase(version, Base::Gone),
            (Body::Patch(patch), true) => self.patches.push((version, patch.clone())),
            (_, false) => {}
        }
        self.patches.sort_by_key(|(version, patch)| (*version, canonical(patch)));
        let live = self.live();
        match (&self.base, &row.body) {
            (_, Body::Patch(_)) if !live => Outcome::Ignored,
            (Some((_, Base::Whole(base))), body) if live || matches!(body, Body::Whole(_)) => {
                Outcome::Is(self.patches.iter().fold(base.clone(), |value, (_, patch)| merged(&value, patch)))
            }
            (Some((_, Base::Gone)), Body::Gone(at)) => Outcome::Gone(*at),
            (_, Body::Gone(_)) => Outcome::Ignored,
            _ => Outcome::Skipped,
        }
    }

    fn live(&self) -> bool {
        self.shown.as_ref().is_some_and(Record::live)
    }

    fn pruned(&self) -> bool {
        self.shown.as_ref().is_some_and(|r| r.payload.is_none())
    }

    fn rebase(&mut self, version: Version, base: Base) {
        self.patches.retain(|(patch, _)| *patch > version);
        self.base = Some((version, base));
    }
}

/// `patch` merged into `value`: objects deeply, all else replaced.
pub fn merged(value: &Value, patch: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (value, patch) else { return patch.clone() };
    let mut out: Map<String, Value> = old.clone();
    for (key, new) in new {
        let value = old.get(key).map_or_else(|| new.clone(), |old| merged(old, new));
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

/// Canonical JSON: sorted keys, numbers as shortest exact decimals.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Number(n) => number(&n.to_string()),
        Value::Array(list) => format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields = sorted.into_iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// `-?digits` without trailing zeros, then `e` and the power of ten.
fn number(text: &str) -> String {
    let lower = text.to_lowercase();
    let (digits, power) = lower.split_once('e').unwrap_or((&lower, "0"));
    let mut power: i64 = power.parse().expect("a power of ten");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    power -= fraction.len() as i64;
    let all = format!("{whole}{fraction}");
    let kept = all.trim_start_matches('0').trim_end_matches('0');
    if kept.is_empty() {
        return "0".into();
    }
    power += (all.len() - all.trim_end_matches('0').len()) as i64;
    format!("{sign}{kept}e{power}")
}

fn remove(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Object(fields), [last]) => _ = fields.shift_remove(*last),
        (Value::Object(fields), [first, rest @ ..]) => fields.get_mut(*first).into_iter().for_each(|v| remove(v, rest)),
        _ => {}
    }
}
