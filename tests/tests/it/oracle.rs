//! The engine against the oracle: random histories, every order of arrival, and the regressions they found.
//!
//! `SYNCLINE_CASES=n` sets the number of random histories, `SEED=n` the seed. A failure prints the shrunken history.

use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::{DatasetName, Position, Timestamp};
use syncline_engine::pipeline::{BLOCK_LEAST, Dataset, Error, Filter, Options, Receipt, TABLE_BYTES};
use syncline_engine::time::{Clock, ManualClock};
use syncline_tests::compare::{self, Times, batch, compare, compare_missing, read_pages, tally};
use syncline_tests::elsewhere::Elsewhere;
use syncline_tests::ledger::Trial;
use syncline_tests::oracle::{Body, Oracle, Row, Rule, Step, Window, Writer};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Commit times begin here (microseconds); each operation turns the clock by one second.
const BEGIN: i64 = 1_700_000_000_000_000;

// ---- random histories -------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    /// One batch.
    Write(Write),
    /// Several batches handed over at once, one of them followed by something else.
    Together(Vec<Write>, Option<(Index, Extra)>),
    /// Stop, and open again with this many workers.
    Reopen(usize),
    /// Something else on its own.
    Extra(Extra),
}

#[derive(Clone, Copy, Debug)]
enum Extra {
    /// Drop the payloads of the first part of a dataset's records.
    Prune(usize, Index),
    /// Forget a dataset.
    Clear(usize),
}

#[derive(Clone, Debug)]
struct Write {
    writer: u8,
    pages: Vec<(usize, Vec<Seed>)>,
    open: Option<Window>,
    close: Option<Window>,
}

/// What a row is made of; its version gets a unique last part when it is made.
#[derive(Clone, Debug)]
struct Seed {
    id: u8,
    kind: u8,
    modified: Option<i64>,
    late: i64,
    value: Value,
    deleted: bool,
    again: Option<Index>,
}

fn value() -> impl Strategy<Value = Value> {
    let scalars = || {
        select(vec![
            json!(null),
            json!(1),
            exact("1.0"),
            exact("12345678901234567890123"),
            exact("0.10"),
            exact("1e-1"),
            json!("x"),
            json!([1, 2]),
            json!([]),
            json!({}),
            json!({"y": 1}),
        ])
    };
    let field = select(vec!["a", "b", "noise", "o", "_nango_metadata"]);
    let inner = prop::collection::vec((select(vec!["x", "y", "noise"]), scalars()), 0..3)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()));
    prop::collection::vec((field, prop_oneof![2 => scalars(), 1 => inner]), 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()))
}

/// A number as it is written.
fn exact(text: &str) -> Value {
    serde_json::from_str(text).expect("a number")
}

fn seed(ids: u8) -> impl Strategy<Value = Seed> {
    // Some times lie so far back that no page requested since can be in doubt about them.
    let modified = prop_oneof![3 => (0..12i64).prop_map(Some), 1 => (-45..-20i64).prop_map(Some), 1 => Just(None)];
    let again = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (0..ids, 0..10u8, modified, -3..8i64, value(), any::<bool>(), again).prop_map(
        |(id, kind, modified, late, value, deleted, again)| Seed { id, kind, modified, late, value, deleted, again },
    )
}

fn write(ids: u8) -> impl Strategy<Value = Write> {
    let pages = prop::collection::vec((0..SETS, prop::collection::vec(seed(ids), 0..6)), 1..3);
    let open = prop_oneof![6 => Just(None), 2 => Just(Some(Window::Start)), 1 => Just(Some(Window::Restart))];
    let close = prop_oneof![6 => Just(None), 2 => Just(Some(Window::Sweep)), 1 => Just(Some(Window::Abort))];
    (0..6u8, pages, open, close).prop_map(|(writer, pages, open, close)| Write { writer, pages, open, close })
}

fn op(ids: u8) -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => write(ids).prop_map(Op::Write),
        4 => (prop::collection::vec(write(ids), 2..5), prop::option::of((any::<Index>(), extra())))
            .prop_map(|(writes, extra)| Op::Together(writes, extra)),
        2 => (1..=2usize).prop_map(Op::Reopen),
        2 => extra().prop_map(Op::Extra),
    ]
}

fn extra() -> impl Strategy<Value = Extra> {
    prop_oneof![
        2 => (0..SETS, any::<Index>()).prop_map(|(set, upto)| Extra::Prune(set, upto)),
        1 => (0..SETS).prop_map(Extra::Clear),
    ]
}

const SETS: usize = 4;

fn specs() -> Vec<(Rule, Vec<String>)> {
    vec![
        (Rule::Latest, vec![]),
        (Rule::IgnoreIfModifiedAfter, vec![]),
        (Rule::Override, vec!["noise".into(), "o.noise".into()]),
        (Rule::Latest, vec!["noise".into(), "o.noise".into()]),
    ]
}

/// So many histories, or a part of them where each costs more, from a seed that is said and written down.
fn histories(trial: &mut Trial, part: u64) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let cases = number("SYNCLINE_CASES").unwrap_or(40).div_ceil(part) as u32;
    let max_shrink_iters = number("SYNCLINE_SHRINKS").unwrap_or(200) as u32;
    let seed = number("SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("SEED={seed}");
    trial.seed(seed);
    let (rng_seed, failure_persistence) = (RngSeed::Fixed(seed), None);
    ProptestConfig { cases, max_shrink_iters, rng_seed, failure_persistence, ..ProptestConfig::default() }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    (1..12u8).prop_flat_map(|ids| prop::collection::vec(op(ids), 1..25))
}

#[test]
fn any_history_gives_what_the_oracle_says() {
    let mut trial = Trial::of("histories");
    let config = histories(&mut trial, 1);
    proptest!(config.clone(), |(workers in 1..=2usize, blocks in blocks(), ops in ops())| {
        let mut bench = Bench::new(&specs(), workers, blocks);
        for op in ops {
            bench.op(op);
        }
        bench.op(Op::Reopen(3 - workers));
    });
    trial.add(config.cases.into());
}

#[test]
fn datasets_too_large_for_memory_give_the_same() {
    let mut trial = Trial::of("histories");
    let config = histories(&mut trial, 1);
    let table_bytes = || select(vec![0, 3_000, 60_000_usize]);
    proptest!(config.clone(), |(workers in 1..=2usize, blocks in blocks(), bytes in table_bytes(), ops in ops())| {
        let mut bench = Bench::spilling(&specs(), workers, blocks, bytes);
        for op in ops {
            bench.op(op);
        }
        bench.op(Op::Reopen(3 - workers));
    });
    trial.add(config.cases.into());
}

/// Each move opens another store: these histories cost more than the others.
#[test]
fn an_engine_that_moves_from_machine_to_machine_stays_the_same() {
    let mut trial = Trial::of("histories");
    let config = histories(&mut trial, 3);
    proptest!(config.clone(), |(workers in 1..=2usize, blocks in blocks(), ops in ops())| {
        let mut bench = Bench::moving(&specs(), workers, blocks);
        for op in ops {
            bench.op(op);
        }
        bench.op(Op::Reopen(3 - workers));
        bench.op(Op::Reopen(workers));
    });
    trial.add(config.cases.into());
}

#[test]
fn latest_ends_alike_whatever_the_order_of_arrival() {
    let mut trial = Trial::of("histories");
    let config = histories(&mut trial, 1);
    proptest!(config.clone(), |(seeds in prop::collection::vec(seed(1), 2..=5), doubled in any::<Index>())| {
        let mut rows: Vec<Row> = Vec::new();
        for seed in seeds {
            let row = row(&seed, 0, rows.len() as i64, &rows);
            rows.push(row);
        }
        rows.truncate(4);
        rows.push(rows[doubled.index(rows.len())].clone());
        every_order(&rows);
    });
    trial.add(config.cases.into());
}

/// Feeds every order of `rows` to a dataset of its own, and compares what readers see in the end.
fn every_order(rows: &[Row]) {
    let bench = Bench::new(&[], 2, BLOCK_LEAST);
    let mut ends: Vec<(Vec<usize>, Option<String>)> = Vec::new();
    for (n, order) in orders(rows.len()).into_iter().enumerate() {
        let set = bench.dataset(&format!("Order{n}"), Rule::Latest, &[]);
        let mut oracle = Oracle::new(&[(Rule::Latest, vec![])]);
        let rows: Vec<Row> = order.iter().map(|at| rows[*at].clone()).collect();
        // Half of the orders come row by row, half in one batch.
        let steps: Vec<Vec<Row>> =
            if n % 2 == 0 { vec![rows] } else { rows.into_iter().map(|row| vec![row]).collect() };
        for rows in steps {
            let step = Step { writer: Writer::Push(1), open: vec![], pages: vec![(0, rows)], close: vec![] };
            let receipt =
                bench.run(bench.engine().commit(batch(bench.engine(), std::slice::from_ref(&set), &step, vec![])));
            oracle.apply(&step, receipt.expect("commit").at.0);
        }
        compare(bench.engine(), &set, &oracle.sets[0], Times::Exact);
        let live = oracle.sets[0].records().into_values().find(|r| r.live()).map(|r| r.content.clone());
        ends.push((order, live));
    }
    for (order, end) in &ends {
        assert_eq!(end, &ends[0].1, "order {order:?} ends unlike {:?}; rows {rows:#?}", ends[0].0);
    }
}

fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = orders(n - 1);
    shorter
        .iter()
        .flat_map(|o| {
            (0..n).map(move |at| {
                let mut o = o.clone();
                o.insert(at, n - 1);
                o
            })
        })
        .collect()
}

fn row(seed: &Seed, now: i64, unique: i64, sent: &[Row]) -> Row {
    if let Some(again) = seed.again.filter(|_| !sent.is_empty()) {
        return again.get(sent).clone();
    }
    let id = format!("id/{}", seed.id);
    let observed = BEGIN + (now - seed.late) * 1_000_000 + unique;
    let modified = seed.modified.map(|m| BEGIN + m * 2_000_000);
    let body = match seed.kind {
        0..5 => {
            let mut value = seed.value.clone();
            value["id"] = json!(id);
            Body::Whole(value)
        }
        5..8 => {
            let mut value = seed.value.clone();
            value.as_object_mut().expect("an object").shift_remove("_nango_metadata");
            Body::Patch(value)
        }
        _ => Body::Gone(seed.deleted.then_some(BEGIN - 77)),
    };
    Row { id, version: (modified, observed), body }
}

/// From how many contents on they are stored in blocks: always, nearly always, as the program does.
fn blocks() -> impl Strategy<Value = usize> {
    select(vec![1, 2, BLOCK_LEAST])
}

/// An engine and the oracle beside it.
struct Bench {
    folder: TempDir,
    block_least: usize,
    table_bytes: usize,
    /// Set where the engine is a copy of what lies elsewhere.
    elsewhere: Option<Elsewhere>,
    runtime: Runtime,
    clock: Arc<ManualClock>,
    engine: Option<Engine>,
    sets: Vec<Dataset>,
    specs: Vec<(Rule, Vec<String>)>,
    oracle: Oracle,
    now: i64,
    sent: Vec<Row>,
    by_set: Vec<Vec<Row>>,
    patched: Vec<bool>,
    end: Position,
}

impl Bench {
    fn new(specs: &[(Rule, Vec<String>)], workers: usize, blocks: usize) -> Self {
        Bench::spilling(specs, workers, blocks, TABLE_BYTES)
    }

    /// Whose engine keeps no more of records in memory than that.
    fn spilling(specs: &[(Rule, Vec<String>)], workers: usize, blocks: usize, table_bytes: usize) -> Self {
        Bench::at(None, specs, workers, (blocks, table_bytes))
    }

    /// Whose engine moves to another machine at every opening: an empty one, or one that it had left earlier.
    fn moving(specs: &[(Rule, Vec<String>)], workers: usize, blocks: usize) -> Self {
        let elsewhere = Elsewhere { block_least: Some(blocks), ..Elsewhere::default() };
        Bench::at(Some(elsewhere), specs, workers, (blocks, TABLE_BYTES))
    }

    fn at(
        elsewhere: Option<Elsewhere>,
        specs: &[(Rule, Vec<String>)],
        workers: usize,
        (block_least, table_bytes): (usize, usize),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(Timestamp(BEGIN)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut bench = Bench {
            folder,
            block_least,
            table_bytes,
            elsewhere,
            runtime,
            clock,
            engine: None,
            sets: vec![],
            specs: specs.to_vec(),
            oracle: Oracle::new(specs),
            now: 0,
            sent: vec![],
            by_set: vec![vec![]; specs.len()],
            patched: vec![false; specs.len()],
            end: Position::START,
        };
        bench.open(workers);
        bench
    }

    fn open(&mut self, workers: usize) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let opened = match &mut self.elsewhere {
            None => {
                let (block_least, table_bytes) = (self.block_least, self.table_bytes);
                let limits = Options { block_least, table_bytes, ..Options::default() };
                let data_dir = Some(self.folder.path().to_path_buf());
                Engine::open(Options { data_dir, workers, clock, ..limits }).expect("opens")
            }
            Some(elsewhere) => {
                elsewhere.openings += 1;
                // Three machines, one of which is always new.
                let machine = self.folder.path().join((elsewhere.openings % 3).to_string());
                if elsewhere.openings % 3 == 0 {
                    let _ = std::fs::remove_dir_all(&machine);
                }
                if elsewhere.openings % 2 == 0 {
                    elsewhere.changelog.compact();
                }
                let _inside = self.runtime.enter();
                let engine = elsewhere.open(&machine, workers, clock).expect("opens");
                let claim = self.runtime.block_on(engine.acquire_term("bench"));
                assert_eq!(claim.expect("a claim"), elsewhere.openings);
                engine
            }
        };
        self.engine = Some(opened);
        let specs = self.specs.iter().enumerate();
        self.sets = specs.map(|(n, (rule, ignore))| self.dataset(&format!("Model{n}"), *rule, ignore)).collect();
    }

    fn dataset(&self, model: &str, rule: Rule, ignore: &[String]) -> Dataset {
        let name = DatasetName::base("dev", "crm", "acme", model);
        self.engine().dataset(&name, &compare::spec(rule, ignore)).expect("dataset")
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open")
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), future).await.expect("the engine answers")
        })
    }

    fn op(&mut self, op: Op) {
        self.now += 1;
        self.clock.advance(Duration::from_secs(1));
        match op {
            Op::Write(write) => {
                let step = self.step(&write);
                self.write(vec![step], None);
            }
            Op::Together(writes, extra) => {
                let steps: Vec<Step> = writes.iter().map(|write| self.step(write)).collect();
                if self.elsewhere.is_some() {
                    // Runs go through the log and others do not: what is handed over at once has no order there.
                    steps.into_iter().for_each(|step| self.write(vec![step], None));
                    return self.check();
                }
                self.write(steps, extra.map(|(at, extra)| (at.index(writes.len()), extra)));
            }
            Op::Reopen(workers) => {
                self.run(self.engine().stop()).expect("stops");
                self.engine = None;
                self.open(workers);
            }
            Op::Extra(extra) => self.write(vec![], Some((0, extra))),
        }
        self.check();
    }

    fn check(&self) {
        for (set, model) in self.sets.iter().zip(&self.oracle.sets) {
            compare(self.engine(), set, model, Times::Exact);
            self.run(compare_missing(self.engine(), set, model));
        }
    }

    fn step(&mut self, write: &Write) -> Step {
        let writer = match write.writer {
            n @ 0..3 => Writer::Run(1 + u64::from(n)),
            n @ 3..5 => Writer::Webhook(1 + u64::from(n)),
            n => Writer::Push(u64::from(n)),
        };
        let mut pages = Vec::new();
        for (set, seeds) in &write.pages {
            let mut rows = Vec::new();
            for seed in seeds {
                let row = row(seed, self.now, self.sent.len() as i64 + 1, &self.by_set[*set]);
                self.patched[*set] |= matches!(row.body, Body::Patch(_));
                self.sent.push(row.clone());
                self.by_set[*set].push(row.clone());
                rows.push(row);
            }
            pages.push((*set, rows));
        }
        let set = write.pages[0].0;
        let window = |op: Option<Window>| op.map(|op| (set, op)).into_iter().collect();
        Step { writer, open: window(write.open), pages, close: window(write.close) }
    }

    /// Commits the steps at once, with `extra` behind the one of that number; steps the oracle does not accept must be
    /// refused whole.
    fn write(&mut self, steps: Vec<Step>, extra: Option<(usize, Extra)>) {
        let engine = self.engine().clone();
        if std::env::var_os("SYNCLINE_TRACE").is_some() {
            println!("{steps:?} {extra:?}");
        }
        let doomed = extra.and_then(|(_, extra)| self.doomed(extra));
        let mut calls: Vec<BoxFuture<'_, Result<Option<Receipt>, Error>>> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            let commit = engine.commit(batch(&engine, &self.sets, step, vec![]));
            // A question closes the epoch, so that several epochs are on their way at once.
            let question = n % 2 == 0 && steps.len() > 2 && extra.is_none();
            let ask = question.then(|| engine.record(&self.sets[0], "id/0"));
            let ask = futures_util::future::OptionFuture::from(ask);
            calls.push(futures_util::future::join(commit, ask).map(|(receipt, _)| receipt.map(Some)).boxed());
            calls.extend(extra.filter(|(at, _)| *at == n).and_then(|(_, extra)| self.call(&engine, extra, &doomed)));
        }
        if steps.is_empty() {
            calls.extend(extra.and_then(|(_, extra)| self.call(&engine, extra, &doomed)));
        }
        let mut answers = self.run(futures_util::future::join_all(calls)).into_iter();
        for (n, step) in steps.iter().enumerate() {
            self.judge(step, answers.next().expect("an answer"));
            if let Some((_, extra)) = extra.filter(|(at, _)| *at == n) {
                self.apply(extra, doomed.as_ref(), &mut answers);
            }
        }
        if let Some((_, extra)) = extra.filter(|_| steps.is_empty()) {
            self.apply(extra, doomed.as_ref(), &mut answers);
        }
    }

    fn judge(&mut self, step: &Step, answer: Result<Option<Receipt>, Error>) {
        if !self.oracle.accepts(step) {
            assert!(matches!(answer, Err(Error::NoWindow(_))), "{step:?} gave {answer:?}");
            return;
        }
        let receipt = answer.unwrap_or_else(|e| panic!("{e}: {step:#?}")).expect("a receipt");
        assert!(receipt.end >= self.end, "ends rise: {receipt:?} after {:?}", self.end);
        self.end = receipt.end;
        let before = self.oracle.clone();
        let tallies = self.oracle.apply(step, receipt.at.0);
        for (set, expected) in tallies {
            let counts: Vec<_> = receipt.counts.iter().filter(|(id, _)| *id == self.sets[set].id).collect();
            assert!(counts.len() <= 1, "counts once per dataset: {receipt:?}");
            let found = counts.first().map(|(_, counts)| tally(counts)).unwrap_or_default();
            assert_eq!(found, expected, "counts of {step:?} in dataset {set}; before it {:?}", before.sets[set]);
        }
        assert!(*self.engine().watermark().borrow() >= receipt.end, "visible when answered");
    }

    /// Records a prune would reach now: until which position, and each id with the number of its changes.
    fn doomed(&self, extra: Extra) -> Option<(Position, Vec<(String, usize)>)> {
        let Extra::Prune(set, upto) = extra else { return None };
        let all = read_pages(self.engine(), &self.sets[set], Filter::ALL, 100).expect("records");
        // What a pruned record with unseen patches does is not comparable: the oracle forgets nothing.
        if all.is_empty() || self.patched[set] && self.specs[set].0 == Rule::Latest {
            return None;
        }
        let doomed = &all[..=upto.index(all.len())];
        let until = doomed.last().map_or(Position::START, |(meta, _)| meta.position);
        let fresh = doomed.iter().filter(|(meta, _)| meta.pruned_at.is_none());
        let ids = fresh.filter_map(|(_, p)| p["id"].as_str()).map(|id| (id.to_string(), self.changes(set, id)));
        Some((until, ids.collect()))
    }

    fn changes(&self, set: usize, id: &str) -> usize {
        self.oracle.sets[set].log.iter().filter(|entry| entry.id == id).count()
    }

    fn call<'a>(
        &'a self,
        engine: &'a Engine,
        extra: Extra,
        doomed: &Option<(Position, Vec<(String, usize)>)>,
    ) -> Option<BoxFuture<'a, Result<Option<Receipt>, Error>>> {
        match (extra, doomed) {
            (Extra::Clear(set), _) => Some(engine.clear(&self.sets[set]).map_ok(|()| None).boxed()),
            (Extra::Prune(set, _), Some((until, _))) => {
                Some(engine.prune(&self.sets[set], *until, 1_000).map_ok(|_| None).boxed())
            }
            (Extra::Prune(..), None) => None,
        }
    }

    fn apply(
        &mut self,
        extra: Extra,
        doomed: Option<&(Position, Vec<(String, usize)>)>,
        answers: &mut impl Iterator<Item = Result<Option<Receipt>, Error>>,
    ) {
        match (extra, doomed) {
            (Extra::Clear(set), _) => {
                answers.next().expect("an answer").expect("clears");
                self.oracle.sets[set].clear();
            }
            (Extra::Prune(set, _), Some((_, ids))) => {
                answers.next().expect("an answer").expect("prunes");
                // A record that changed in between is not the one that was to be pruned.
                let still = ids.iter().filter(|(id, changes)| self.changes(set, id) == *changes);
                let ids: Vec<String> = still.map(|(id, _)| id.clone()).collect();
                self.oracle.sets[set].prune(&ids);
            }
            (Extra::Prune(..), None) => {}
        }
    }
}
