//! Views through public doors: every operator over random histories, tenants, restarts, changed code, failing code.

use rand::{Rng, RngCore};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::harness::{Harness, Random, check_incremental};
use syncline_engine::model::{Cause, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, DatasetSpec, Options};
use syncline_engine::sink::{Announce, Notice, Owed, RunEnd};
use syncline_engine::time::SystemClock;
use syncline_engine::views::{ALL_CONNECTIONS, Definition, Row, SKEW, Views, average, count, sum, tumbling};
use syncline_ledger::Trial;

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Order {
    customer: Option<String>,
    cents: i64,
    status: String,
    #[row(default)]
    at: i64,
    #[row(modified_at)]
    modified: Option<Timestamp>,
}

/// Orders that all have a modified time.
#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Dated {
    #[row(modified_at)]
    at: Timestamp,
    cents: i64,
}

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Customer {
    region: String,
}

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Placed {
    region: Option<String>,
    cents: i64,
}

const MODELS: [Random; 2] =
    [Random::new("shop", "Order", 40, order).modified(placed_at), Random::new("crm", "Customer", 8, customer)];

fn order(id: &str, chance: &mut dyn RngCore) -> Value {
    let status = ["open", "paid", "gone"][chance.random_range(0..3)];
    let customer = chance.random_bool(0.8).then(|| chance.random_range(0..10).to_string());
    let at = chance.random_range(0..5_000_000);
    json!({"id": id, "customer": customer, "cents": chance.random_range(-50..500), "status": status, "at": at, "x": [1, {}]})
}

/// Some have none.
fn placed_at(order: &Value) -> Option<Timestamp> {
    order["at"].as_i64().filter(|at| at % 5 != 0).map(Timestamp)
}

fn customer(id: &str, chance: &mut dyn RngCore) -> Value {
    json!({"id": id, "region": format!("r{}", chance.random_range(0..3))})
}

fn everything(v: &mut Views<'_>) {
    let orders = v.model::<Order>("shop", "Order");
    let customers = v.model::<Customer>("crm", "Customer");
    let open = orders.filter(|_, o| o.status == "open");
    v.publish("Open", &open);
    let refers = |_: &String, o: &Order| o.customer.clone().unwrap_or_default();
    let placed = open.lookup(&customers, refers, |_, o, c| Placed { region: Some(c.region.clone()), cents: o.cents });
    v.publish("Placed", &placed);
    let all = orders
        .lookup_or_none(&customers, refers, |_, o, c| Placed { region: c.map(|c| c.region.clone()), cents: o.cents });
    v.publish("PlacedOrNot", &all);
    let by_region = placed.group_by(|_, p| p.region.clone());
    v.publish("Regions", &by_region.agg((count(), sum(|_, p: &Placed| p.cents), average(|_, p: &Placed| p.cents))));
    v.publish("Least", &by_region.min(|_, p| p.cents));
    v.publish("Greatest", &by_region.max(|_, p| p.cents));
    v.publish("Best", &orders.group_by(|_, o| o.status.clone()).top_k(2, |_, o| Reverse(o.cents)));
    let second = Duration::from_secs(1);
    v.publish("Seconds", &orders.group_by(move |_, o| tumbling(Timestamp(o.at), second).0).count());
    let modified = orders.filter_map(|_, o| o.modified);
    v.publish("Modified", &modified.group_by(move |_, at| tumbling(*at, second).0).count());
    let dated = v.model::<Dated>("shop", "Order");
    v.publish("Dated", &dated.group_by(move |_, o| tumbling(o.at, second)).sum(|_, o| o.cents));
    v.publish("Statuses", &orders.distinct(|_, o| o.status.clone()));
    let both = orders.join(&orders, |_, o| o.cents / 100, |_, o| o.cents / 100, |a, b| a.cents - b.cents);
    v.publish("Near", &both);
    let paid = orders.filter(|_, o| o.status == "paid").rekey(|id, _| format!("paid {id}"));
    v.publish("Some", &open.rekey(|id, _| format!("open {id}")).union(&paid));
    let everywhere = customers.across_connections();
    v.publish("Reach", &everywhere.group_by(|(connection, _), _| connection.clone()).count());
    let cents = orders.collection().map(|((tenant, _), o)| ((tenant, o.status), o.cents % 7)).reduce(|_, all, out| {
        out.push((all.iter().map(|(cents, n)| *cents * *n as i64).sum::<i64>(), 1));
    });
    v.publish_collection("Rest", &orders, cents);
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121)
}

/// Histories where nobody asks for more (`SYNCLINE_TEST_VIEWS`).
fn histories() -> u64 {
    std::env::var("SYNCLINE_TEST_VIEWS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

#[test]
fn what_is_kept_up_equals_what_is_made_from_scratch() {
    let mut trial = Trial::of("views");
    let seeds = seed()..seed() + histories();
    trial.seed(format!("{seeds:?}"));
    for seed in seeds {
        check_incremental(&Definition::new(everything), seed, &MODELS);
        trial.add(1);
    }
}

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Turned {
    value: i64,
}

fn turnover(v: &mut Views<'_>) {
    let orders = v.model::<Order>("shop", "Order");
    v.publish("Turnover", &orders.group_by(|_, o| o.status.clone()).sum(|_, o| o.cents));
}

fn save(harness: &mut Harness, connection: &str, id: &str, status: &str, cents: i64) {
    harness.save("shop", connection, "Order", json!({"id": id, "status": status, "cents": cents}));
}

#[test]
fn tenants_never_meet_unless_it_is_said() {
    let mut harness = Harness::new(Definition::new(|v| {
        turnover(v);
        let all = v.model::<Order>("shop", "Order").across_connections();
        v.publish("Total", &all.group_by(|_, o| o.status.clone()).sum(|_, o| o.cents));
    }));
    save(&mut harness, "one", "1", "open", 5);
    save(&mut harness, "two", "1", "open", 7);
    harness.commit();
    assert_eq!(harness.rows("shop", "one", "Turnover"), [json!({"id": "open", "value": 5})]);
    assert_eq!(harness.rows("shop", "two", "Turnover"), [json!({"id": "open", "value": 7})]);
    assert_eq!(harness.rows("shop", ALL_CONNECTIONS, "Total"), [json!({"id": "open", "value": 12})]);
    assert_eq!(harness.rows("shop", "one", "Total"), Vec::<Value>::new());
}

#[test]
fn new_code_makes_exactly_the_difference() {
    let mut harness = Harness::new(Definition::new(turnover));
    for (id, status, cents) in [("1", "open", 5), ("2", "paid", 7), ("3", "paid", 1)] {
        save(&mut harness, "one", id, status, cents);
    }
    harness.commit();
    assert_eq!(harness.changes("shop", "one", "Turnover").len(), 2);
    harness.restart(None);
    assert_eq!(harness.changes("shop", "one", "Turnover"), [], "a restart makes none");
    let other = Definition::new(|v| {
        let paid = v.model::<Order>("shop", "Order").filter(|_, o| o.status != "open");
        v.publish("Turnover", &paid.group_by(|_, o| o.status.clone()).sum(|_, o| o.cents));
        v.publish("Added", &paid.map(|_, o| o.cents));
    });
    harness.restart(Some(other));
    assert_eq!(harness.changes("shop", "one", "Turnover"), [("DELETED", json!({"id": "open", "value": 5}))]);
    let added = [("ADDED", json!({"id": "2", "value": 7})), ("ADDED", json!({"id": "3", "value": 1}))];
    assert_eq!(harness.changes("shop", "one", "Added"), added, "a new view begins with what there is");
}

fn none() -> Definition {
    Definition::new(|_| {})
}

#[test]
fn the_records_of_a_removed_view_go_on_request_and_come_back_with_it() {
    let mut harness = Harness::new(Definition::new(turnover));
    save(&mut harness, "one", "1", "open", 5);
    save(&mut harness, "one", "2", "paid", 7);
    save(&mut harness, "two", "1", "open", 3);
    harness.commit();
    assert_eq!(harness.retract("Turnover"), 0, "it is defined");
    assert_eq!(harness.changes("shop", "one", "Turnover").len(), 2);

    harness.restart(Some(none()));
    let removed = harness.engine().removed_views("test");
    let told: Vec<_> = removed.iter().map(|v| (v.name.as_str(), v.source.as_str(), v.records)).collect();
    assert_eq!(told, [("Turnover", "shop", 3)]);
    assert_eq!(harness.engine().removed_views("another"), [], "of another environment nothing is told");
    assert_eq!(harness.changes("shop", "one", "Turnover"), [], "nothing goes by itself");
    harness.restart(Some(none()));
    assert_eq!(harness.engine().removed_views("test"), removed, "nor with a restart");

    assert_eq!(harness.retract("Order"), 0, "a model is no view");
    assert_eq!(harness.retract("Turnover"), 3);
    let gone = harness.changes("shop", "one", "Turnover");
    let rows = [json!({"id": "open", "value": 5}), json!({"id": "paid", "value": 7})];
    let mut deleted: Vec<Value> = gone.iter().map(|(_, row)| row.clone()).collect();
    deleted.sort_by_key(ToString::to_string);
    assert_eq!((gone.iter().all(|(action, _)| *action == "DELETED"), deleted.as_slice()), (true, &rows[..]));
    assert_eq!(harness.rows("shop", "two", "Turnover"), Vec::<Value>::new());
    harness.restart(None);
    assert_eq!((harness.retract("Turnover"), harness.engine().removed_views("test")), (0, Vec::new()));
    let was = |environment, name| harness.engine().was_view(environment, name);
    assert!(was("test", "Turnover") && !was("another", "Turnover") && !was("test", "Order"), "it is known as gone");
    assert_eq!(harness.changes("shop", "one", "Turnover"), []);

    harness.restart(Some(Definition::new(turnover)));
    let back = harness.changes("shop", "one", "Turnover");
    assert_eq!(back, rows.map(|row| ("ADDED", row)), "defined again, it begins with what there is");
}

#[test]
fn a_name_that_a_view_left_can_be_a_models() {
    let mut harness = Harness::new(Definition::new(turnover));
    save(&mut harness, "one", "1", "open", 5);
    harness.restart(Some(none()));
    harness.save("shop", "one", "Turnover", json!({"id": "mine"}));
    harness.commit();
    assert_eq!(harness.retract("Turnover"), 0, "it is no view's any more");
    assert_eq!(harness.rows("shop", "one", "Turnover").len(), 2);
    harness.commit_listing("shop", "one", "Turnover");
    assert_eq!(harness.rows("shop", "one", "Turnover"), Vec::<Value>::new());
}

#[test]
fn what_a_view_holds_is_counted_and_a_key_with_very_many_rows_told_of() {
    for workers in [1, 2] {
        let mut harness = Harness::with_workers(
            Definition::new(|v| {
                let orders = v.model::<Order>("shop", "Order");
                let customers = v.model::<Customer>("shop", "Customer");
                let refers = |_: &String, o: &Order| o.customer.clone().unwrap_or_default();
                v.publish(
                    "Regions",
                    &orders.lookup(&customers, refers, |_, _, c| c.region.clone()).distinct(|_, r| r.clone()),
                );
                v.publish("Plain", &orders.filter(|_, o| o.cents > 1_000_000));
            }),
            workers,
        );
        let held =
            |harness: &Harness| harness.views().iter().map(|v| (v.health.rows, v.health.bytes)).collect::<Vec<_>>();
        assert_eq!(held(&harness), [(0, 0), (0, 0)]);
        harness.save("shop", "one", "Customer", json!({"id": "c", "region": "north"}));
        harness.save("shop", "one", "Order", json!({"id": "1", "status": "open", "cents": 1, "customer": "c"}));
        harness.commit();
        // The order, the customer, and the one value there is.
        let small = held(&harness);
        assert_eq!((small[0].0, small[1]), (3, (0, 0)));
        assert!((192..400).contains(&small[0].1), "{small:?}");
        assert_eq!(harness.views()[0].health.skews, []);
        let many = SKEW as usize + SKEW as usize / 10;
        for n in 2..many {
            let id = n.to_string();
            harness.save("shop", "one", "Order", json!({"id": id, "status": "open", "cents": 1, "customer": "c"}));
        }
        harness.commit();
        assert_eq!(held(&harness)[0].0 as usize, many + 1, "orders, a customer, a value");
        let skews = harness.views()[0].health.skews.clone();
        let told: Vec<_> =
            skews.iter().map(|s| (s.environment.as_str(), s.connection.as_str(), s.key.as_str())).collect();
        assert_eq!(told, [("test", "one", "\"c\"")], "once, by however many workers");
        assert!(skews[0].step.starts_with("lookup of model shop/Order"), "{skews:?}");
        harness.commit_listing("shop", "one", "Order");
        assert_eq!(held(&harness)[0].0, 1, "the customer is left");
    }
}

/// The sum over open orders; nothing if there are none.
fn open(harness: &Harness) -> Option<i64> {
    harness.rows("shop", "one", "Turnover").first().and_then(|row| row["value"].as_i64())
}

#[test]
fn windows_go_by_the_modified_time_of_the_last_change() {
    let mut harness = Harness::new(Definition::new(|v| {
        let dated = v.model::<Dated>("shop", "Order");
        v.publish("Hours", &dated.group_by(|_, o| tumbling(o.at, Duration::from_secs(3_600))).sum(|_, o| o.cents));
    }));
    let at = |text: &str| Timestamp::parse(text).expect("a time");
    let order = |id: &str, cents: i64| json!({"id": id, "cents": cents});
    let hours =
        |harness: &Harness| harness.rows("shop", "one", "Hours").iter().map(|row| row["value"].clone()).collect();
    harness.save_modified("shop", "one", "Order", order("1", 5), at("2026-03-01T10:10:00Z"));
    harness.save_modified("shop", "one", "Order", order("2", 7), at("2026-03-01T10:50:00Z"));
    harness.save_modified("shop", "one", "Order", order("3", 9), at("2026-03-01T11:00:00Z"));
    harness.save("shop", "one", "Order", order("4", 1_000));
    harness.commit();
    let sums: Vec<Value> = hours(&harness);
    assert_eq!(sums, [json!(12), json!(9)]);
    let views = harness.views();
    let why = views[0].health.complaints.iter().map(|c| format!("{} {}", c.key, c.what)).collect::<Vec<_>>();
    assert_eq!(why, ["4 modified_at: the record has none: its model declares none"]);
    // Another content takes it to another window; a newer time alone is no change, and is not seen.
    harness.save_modified("shop", "one", "Order", order("2", 8), at("2026-03-01T11:30:00Z"));
    harness.save_modified("shop", "one", "Order", order("1", 5), at("2026-03-01T11:40:00Z"));
    harness.commit();
    let sums: Vec<Value> = hours(&harness);
    assert_eq!(sums, [json!(5), json!(17)]);
    harness.restart(None);
    let sums: Vec<Value> = hours(&harness);
    assert_eq!(sums, [json!(5), json!(17)], "a restart sees the same times");
    harness.prune("shop", "one", "Order");
    assert_eq!(hours(&harness), Vec::<Value>::new(), "what is pruned leaves its window");
    harness.save_modified("shop", "one", "Order", order("1", 5), at("2026-03-01T12:00:00Z"));
    harness.commit();
    let sums: Vec<Value> = hours(&harness);
    assert_eq!(sums, [json!(5)], "it came back, as of its last change");
    harness.delete("shop", "one", "Order", "1");
    harness.commit();
    assert_eq!(hours(&harness), Vec::<Value>::new());
}

#[test]
fn records_that_are_swept_pruned_or_cleared_leave_the_views() {
    let mut harness = Harness::new(Definition::new(turnover));
    for (id, cents) in [("1", 1), ("2", 20), ("3", 300)] {
        save(&mut harness, "one", id, "open", cents);
    }
    harness.commit();
    assert_eq!(open(&harness), Some(321));
    save(&mut harness, "one", "1", "open", 1);
    save(&mut harness, "one", "2", "open", 20);
    harness.commit_listing("shop", "one", "Order");
    assert_eq!(open(&harness), Some(21), "a listing proved that 3 is gone");
    harness.prune("shop", "one", "Order");
    assert_eq!(open(&harness), None, "what is pruned has no content");
    save(&mut harness, "one", "1", "open", 1);
    harness.commit();
    assert_eq!(open(&harness), Some(1), "the same content came back");
    save(&mut harness, "one", "2", "open", 5);
    harness.commit();
    assert_eq!(open(&harness), Some(6), "other content came back");
    harness.prune("shop", "one", "Order");
    harness.delete("shop", "one", "Order", "1");
    harness.commit();
    harness.restart(None);
    assert_eq!(open(&harness), None);
    save(&mut harness, "one", "4", "open", 4);
    harness.commit();
    assert_eq!(open(&harness), Some(4));
    harness.clear("shop", "one", "Order");
    assert_eq!(open(&harness), None);
    save(&mut harness, "one", "4", "open", 4);
    harness.commit();
    assert_eq!(open(&harness), Some(4));
}

#[test]
fn one_engine_time_shows_in_all_views_together() {
    let mut harness = Harness::new(Definition::new(everything));
    save(&mut harness, "one", "1", "open", 150);
    harness.commit();
    let watermark = *harness.engine().watermark().borrow();
    for view in ["Open", "PlacedOrNot", "Statuses", "Best", "Near", "Some"] {
        assert_eq!(harness.rows("shop", "one", view).len(), 1, "{view} before {watermark:?}");
    }
}

#[test]
fn code_that_fails_leaves_out_its_row_and_says_which() {
    let mut harness = Harness::new(Definition::new(|v| {
        let orders = v.model::<Order>("shop", "Order");
        v.publish("Shares", &orders.map(|_, o| 100 / o.cents));
        turnover(v);
    }));
    save(&mut harness, "one", "1", "open", 5);
    save(&mut harness, "one", "2", "open", 0);
    harness.save("shop", "one", "Order", json!({"id": "3", "status": "open", "cents": "much"}));
    harness.commit();
    assert_eq!(harness.rows("shop", "one", "Shares"), [json!({"id": "1", "value": 20})]);
    assert_eq!(harness.rows("shop", "one", "Turnover"), [json!({"id": "open", "value": 5})], "others go on");
    let views = harness.views();
    let [shares, turnover] = views.as_slice() else { panic!("{views:?}") };
    assert_eq!((shares.health.failures, shares.health.misfits, turnover.health.misfits), (1, 1, 1));
    let told: Vec<_> = shares.health.complaints.iter().map(|c| format!("{}: {}: {}", c.step, c.key, c.what)).collect();
    assert!(told.iter().any(|t| t.contains("map of model shop/Order: \"2\": it panicked: attempt to divide by zero")));
    assert!(told.iter().any(|t| t.contains("model shop/Order: 3: cents: invalid type")), "{told:?}");
    // The record is mended, and the row comes.
    save(&mut harness, "one", "2", "open", 50);
    harness.commit();
    assert_eq!(harness.rows("shop", "one", "Shares").len(), 2);
    // What fails again and again is stopped; the other view is not.
    for n in 10..150 {
        save(&mut harness, "one", &n.to_string(), "open", 0);
    }
    harness.commit();
    save(&mut harness, "one", "5", "open", 1);
    harness.commit();
    let views = harness.views();
    assert!(views[0].health.stopped.as_deref().is_some_and(|why| why.contains("its code failed 100 times")));
    assert_eq!(harness.rows("shop", "one", "Shares").len(), 2, "it takes no more changes");
    assert_eq!(harness.rows("shop", "one", "Turnover"), [json!({"id": "open", "value": 56})]);
}

/// Keeps what is announced.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Announce for Told {
    fn announce(&self, notice: &Notice, _: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        let counts = (notice.counts.added, notice.counts.updated, notice.counts.deleted);
        self.0.lock().expect("lock").push(format!(
            "{} {counts:?} ended: {}",
            notice.dataset.model,
            notice.ended.is_some()
        ));
        Vec::new()
    }
}

#[tokio::test]
async fn what_a_run_changes_in_views_is_announced_with_its_end() {
    let told = Arc::new(Told::default());
    let options = Options {
        workers: 2,
        announce: Some(told.clone()),
        views: Some(Definition::new(turnover)),
        ..Options::default()
    };
    let engine = Engine::open(options).expect("opens");
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: Vec::new() };
    let orders = engine.dataset(&DatasetName::base("default", "shop", "one", "Order"), &spec).expect("a dataset");
    for (id, status, last) in [("1", "open", false), ("2", "paid", false), ("3", "paid", true)] {
        let mut page = engine.page(&orders);
        let order = json!({"id": id, "status": status, "cents": 5}).to_string();
        page.save(id, None, Timestamp(1), order.as_bytes());
        let end = RunEnd { sync: "orders".into(), kind: "INITIAL".into(), started_at: None, error: None };
        let end_run = last.then(|| (orders.clone(), end)).into_iter().collect();
        let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], end_run, ..Batch::default() };
        engine.commit(batch).await.expect("commits");
    }
    let said = std::mem::take(&mut *told.0.lock().expect("lock"));
    assert_eq!(said, ["Order (3, 0, 0) ended: true", "Turnover (2, 1, 0) ended: false"]);
    engine.stop().await.expect("stops");
}

#[test]
fn two_rows_under_one_key_stop_the_view_that_has_them() {
    let mut harness = Harness::new(Definition::new(|v| {
        let orders = v.model::<Order>("shop", "Order");
        v.publish("ByStatus", &orders.rekey(|_, o| o.status.clone()));
        turnover(v);
    }));
    save(&mut harness, "one", "1", "open", 1);
    harness.commit();
    assert_eq!(harness.rows("shop", "one", "ByStatus").len(), 1);
    save(&mut harness, "one", "2", "open", 2);
    harness.commit();
    let stopped = harness.views()[0].health.stopped.clone();
    assert_eq!(stopped.as_deref(), Some("more than one row has the key open"));
    assert_eq!(harness.rows("shop", "one", "Turnover"), [json!({"id": "open", "value": 3})]);
}

/// Code of differential's own operators takes its worker with it. Nobody may wait for that one: not the other, not who commits,
/// not who stops the engine.
#[tokio::test]
async fn a_worker_that_falls_ends_the_engine_and_nothing_waits() {
    let views = Definition::new(|v| {
        let orders = v.model::<Order>("shop", "Order");
        let cents = orders.collection().map(|((tenant, id), order)| {
            assert!(order.status != "bad", "as code may fail");
            ((tenant, id), order.cents)
        });
        v.publish_collection("Cents", &orders, cents);
    });
    let engine = Engine::open(Options { workers: 2, views: Some(views), ..Options::default() }).expect("opens");
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: Vec::new() };
    let orders = engine.dataset(&DatasetName::base("default", "shop", "one", "Order"), &spec).expect("a dataset");
    let commit = async |id: usize, status: &str| {
        let mut page = engine.page(&orders);
        let order = json!({"id": id.to_string(), "status": status, "cents": 5}).to_string();
        page.save(&id.to_string(), None, Timestamp(1), order.as_bytes());
        let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
        tokio::time::timeout(Duration::from_secs(30), engine.commit(batch)).await.expect("an answer")
    };
    for id in 0..10 {
        commit(id, "open").await.expect("commits");
    }
    for id in 10..60 {
        let refused = commit(id, "bad").await;
        assert!(refused.is_err(), "{refused:?}");
    }
    tokio::time::timeout(Duration::from_secs(30), engine.stop()).await.expect("it ends").expect("stops");
}

/// An id has no NUL, so two keys would be one record: one of them is told of, and the view goes on.
#[test]
fn a_key_that_is_no_id_is_left_out_and_stops_nothing() {
    let mut harness = Harness::new(Definition::new(|v| {
        let orders = v.model::<Order>("shop", "Order");
        v.publish("Statuses", &orders.group_by(|_, o| o.status.clone()).count());
    }));
    for (id, status) in [("1", "open"), ("2", "open\0"), ("3", "open")] {
        save(&mut harness, "one", id, status, 1);
    }
    harness.commit();
    let changes = harness.changes("shop", "one", "Statuses");
    assert_eq!(changes, [("ADDED", json!({"id": "open", "value": 2}))]);
    let health = &harness.views()[0].health;
    assert!(health.stopped.is_none() && health.complaints[0].what.contains("NUL"), "{health:?}");
}

#[test]
fn what_cannot_be_is_refused_at_the_start() {
    let refused = |views: Definition| {
        let (clock, views) = (Arc::new(SystemClock), Some(views));
        let options = Options { data_dir: None, workers: 1, clock, views, ..Options::default() };
        Engine::open(options).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let twice = refused(Definition::new(|v| {
        turnover(v);
        turnover(v);
    }));
    assert_eq!(twice, "bad_views: two views are named Turnover");
    let own = refused(Definition::new(|v| {
        let orders = v.model::<Order>("shop", "Order");
        v.publish("Order", &orders);
    }));
    assert!(own.contains("view Order has the name of a model"), "{own}");
    let later = refused(Definition::new(|v| {
        turnover(v);
        let turnover = v.model::<Turned>("shop", "Turnover");
        v.publish("Again", &turnover);
    }));
    assert!(later.contains("model shop/Turnover is a view"), "{later}");
}
