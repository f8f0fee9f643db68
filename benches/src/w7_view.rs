//! W7: what does it cost to keep a view up, and does one update's cost grow with the data?
//!
//! Orders ⋈ customers, number and sum per region, through the library as a program uses it. Every size is measured in a
//! process of its own, once with the view and once without: the difference is the view's, the rest is what saving the
//! records costs anyway. An update gives an order another customer and another worth, and is over when the rows of all
//! regions it concerns have been read from the view's change log; then many are made at a time.

use crate::feed::expect;
use crate::gauge::{self, Watch};
use crate::poll::updated;
use crate::report::Report;
use crate::shop::{MORE, Order, REGIONS, UPDATES, customer, region_of};
use crate::{Args, Fault};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline::prelude::*;
use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetId, DatasetName, Position, Strategy};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Filter, Options};
use syncline_engine::time::SystemClock;

/// Updates in a commit, where many are made at a time.
const AT_ONCE: u64 = 1_000;
/// Orders made at once while the clock stands still, and as many customers.
const CHUNK: u64 = 25_000;
/// Pages on their way at once.
const LANES: usize = 10;

#[derive(Row, Clone)]
struct OrderRow {
    customer: String,
    cents: i64,
}

#[derive(Row, Clone)]
struct CustomerRow {
    region: String,
}

#[derive(Row, Clone)]
struct Placed {
    region: String,
    cents: i64,
}

#[derive(Row, Clone)]
struct Turnover {
    orders: u64,
    cents: i64,
}

fn views(v: &mut Views<'_>) {
    let (orders, customers) = (v.model::<OrderRow>("shop", "Order"), v.model::<CustomerRow>("shop", "Customer"));
    let placed = orders.lookup(
        &customers,
        |_, order| order.customer.clone(),
        |_, order, customer| Placed { region: customer.region.clone(), cents: order.cents },
    );
    let of_region = placed.group_by(|_, p| p.region.clone()).agg((count(), sum(|_, p: &Placed| p.cents)));
    v.publish("Turnover", &of_region.map(|_, (orders, cents)| Turnover { orders: *orders, cents: *cents }));
}

/// Measures every size, each in a process of its own.
pub fn run(args: &Args, report: &mut Report) -> Result<(), Fault> {
    for size in &args.view_sizes {
        let plain = child(args, *size, false)?;
        let view = child(args, *size, true)?;
        for (name, unit) in FIGURES {
            let of = |figures: &Value| figures.get(name).and_then(Value::as_f64).unwrap_or_default();
            let what = format!("{size} + {size}: {name}");
            report.add("W7", &what, of(&view), unit);
            if !name.contains("second") {
                report.add("W7", &format!("{what}, without the view"), of(&plain), unit);
            }
        }
    }
    Ok(())
}

/// What a child tells, and in which units.
const FIGURES: [(&str, &str); 7] = [
    ("load, records a second", "/s"),
    ("load, CPU a record", "us"),
    ("memory a record", "B"),
    ("one update, p50", "ms"),
    ("one update, p99", "ms"),
    ("one update, CPU", "us"),
    ("one update of a thousand at a time, CPU", "us"),
];

fn child(args: &Args, size: u64, view: bool) -> Result<Value, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--view-child", &size.to_string(), "--workers", &args.workers.to_string()]);
    command.args(["--block-least", &args.block_least.to_string()]);
    if !view {
        command.arg("--no-view");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(format!("W7 with {size} + {size} records failed; see above").into()),
    }
}

/// The child: one size, in `dir`; prints its figures.
pub async fn one(args: &Args, size: u64, dir: &Path) -> Result<(), Fault> {
    let (before, _) = gauge::memory();
    let shop = Shop::open(args, size, dir)?;
    let load = shop.load().await?;
    let (after, _) = gauge::memory();
    let (mut delays, updates) = shop.update().await?;
    let batched = shop.update_many().await?;
    shop.check().await?;
    shop.engine.stop().await?;
    delays.sort_unstable();
    let at = |share: usize| delays.get(delays.len() * share / 100).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    let memory = after.saturating_sub(before) as f64 / (2 * size) as f64;
    let values = [
        load.rate(2 * size),
        load.cpu_us(2 * size),
        memory,
        at(50),
        at(99),
        updates.cpu_us(delays.len() as u64),
        batched.cpu_us(MORE),
    ];
    let figures: serde_json::Map<String, Value> =
        FIGURES.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), json!(value))).collect();
    println!("{}", Value::Object(figures));
    Ok(())
}

struct Shop {
    engine: Engine,
    size: u64,
    orders: Dataset,
    customers: Dataset,
    view: bool,
}

impl Shop {
    fn open(args: &Args, size: u64, dir: &Path) -> Result<Shop, Fault> {
        let view = !args.no_view;
        let engine = Engine::open(Options {
            data_dir: Some(dir.to_owned()),
            workers: args.workers,
            clock: Arc::new(SystemClock),
            views: view.then(|| Definition::new(views)),
            block_least: args.block_least,
            ..Options::default()
        })?;
        let spec = DatasetSpec::of(Strategy::Override);
        let orders = engine.dataset(&name("Order"), &spec)?;
        let customers = engine.dataset(&name("Customer"), &spec)?;
        Ok(Shop { engine, size, orders, customers, view })
    }

    /// All customers and orders, in pages of 1,000.
    async fn load(&self) -> Result<Watch, Fault> {
        let mut watch = Watch::default();
        for first in (1..=self.size).step_by(CHUNK as usize) {
            let ids: Vec<u64> = (first..(first + CHUNK).min(self.size + 1)).collect();
            let customers = ids.chunks(1_000).map(|ids| (&self.customers, texts(ids, customer)));
            let orders =
                ids.chunks(1_000).map(|ids| (&self.orders, texts(ids, |id| Order::new(id, 0, self.size).json())));
            let pages: Vec<(&Dataset, Vec<(u64, String)>)> = customers.chain(orders).collect();
            watch.start();
            let lanes = pages.chunks(pages.len().div_ceil(LANES)).map(|lane| self.commit_all(lane));
            try_join_all(lanes).await?;
            watch.stop();
        }
        Ok(watch)
    }

    async fn commit_all(&self, pages: &[(&Dataset, Vec<(u64, String)>)]) -> Result<(), Fault> {
        for (dataset, records) in pages {
            self.commit(dataset, records).await?;
        }
        Ok(())
    }

    async fn commit(&self, dataset: &Dataset, records: &[(u64, String)]) -> Result<(), Fault> {
        let mut page = self.engine.page(dataset);
        let now = self.engine.clock().now();
        records.iter().for_each(|(id, json)| page.save(&id.to_string(), None, now, json.as_bytes()));
        self.engine.commit(Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }).await?;
        Ok(())
    }

    /// One order after the other gets another customer and worth: from before it is saved until all rows are read.
    async fn update(&self) -> Result<(Vec<Duration>, Watch), Fault> {
        let out = self.out()?;
        let (mut delays, mut watch) = (Vec::with_capacity(UPDATES as usize), Watch::default());
        let mut place = Cursor { position: *self.engine.watermark().borrow(), dataset: DatasetId(0) };
        for n in 1..=UPDATES {
            let (old, new) = self.step(n);
            let record = [(new.id, new.json())];
            let wanted = 1 + u64::from(self.view && region_of(old.customer) != region_of(new.customer));
            watch.start();
            let began = Instant::now();
            self.commit(&self.orders, &record).await?;
            let seen = self.read_on(&out, &mut place)?;
            delays.push(began.elapsed());
            watch.stop();
            expect("W7 rows changed by one update", seen, wanted)?;
        }
        Ok((delays, watch))
    }

    /// Further updates, many in a commit: until all rows of the view are read. Without the view nothing is read: the changes
    /// of the orders, with what they were before, are no part of what a view costs.
    async fn update_many(&self) -> Result<Watch, Fault> {
        let (out, mut watch) = (self.out()?, Watch::default());
        let mut place = Cursor { position: *self.engine.watermark().borrow(), dataset: DatasetId(0) };
        for first in (UPDATES + 1..=UPDATES + MORE).step_by(AT_ONCE as usize) {
            let orders = (first..first + AT_ONCE).map(|n| self.step(n).1);
            let records: Vec<(u64, String)> = orders.map(|order| (order.id, order.json())).collect();
            watch.start();
            self.commit(&self.orders, &records).await?;
            let mut seen = 0;
            if self.view {
                seen = self.read_on(&out, &mut place)?;
            }
            watch.stop();
            expect("W7: views that updates at once have changed", u64::from(seen > 0), u64::from(self.view))?;
        }
        Ok(watch)
    }

    /// Reads what has changed since `place`; how much.
    fn read_on(&self, out: &Dataset, place: &mut Cursor) -> Result<u64, Fault> {
        let mut seen = 0;
        self.engine.changes(std::slice::from_ref(out), *place, &mut |dataset, change| {
            *place = Cursor { position: change.meta.position, dataset: dataset.id };
            seen += 1;
            true
        })?;
        Ok(seen)
    }

    /// Where updates are read: the view, or the orders without it.
    fn out(&self) -> Result<Dataset, Fault> {
        match self.view {
            true => Ok(self.engine.find(&name("Turnover")).ok_or("the view has no dataset")?),
            false => Ok(self.orders.clone()),
        }
    }

    /// An order before and after the update of this number: orders all over, and again where there are few.
    fn step(&self, n: u64) -> (Order, Order) {
        let (id, version) = (updated(n - 1, self.size), (n - 1) / self.size);
        (Order::new(id, version, self.size), Order::new(id, version + 1, self.size))
    }

    /// The view must be what the orders as they now are make of it.
    async fn check(&self) -> Result<(), Fault> {
        let Some(view) = self.engine.find(&name("Turnover")).filter(|_| self.view) else { return Ok(()) };
        let mut versions: Vec<u64> = vec![0; self.size as usize + 1];
        (1..=UPDATES + MORE).for_each(|n| versions[self.step(n).1.id as usize] = (n - 1) / self.size + 1);
        let mut wanted = vec![(0_u64, 0_i64); REGIONS as usize];
        for (id, version) in versions.iter().enumerate().skip(1) {
            let order = Order::new(id as u64, *version, self.size);
            let of_region = &mut wanted[region_of(order.customer) as usize];
            *of_region = (of_region.0 + 1, of_region.1 + order.cents);
        }
        let mut found = vec![(0_u64, 0_i64); REGIONS as usize];
        let live = Filter { deleted: false, ..Filter::ALL };
        self.engine.records(&view, Position::START, live, &mut |_, payload| {
            let row: Value = serde_json::from_slice(payload).unwrap_or_default();
            let region = row["id"].as_str().and_then(|id| id.strip_prefix('r')?.parse::<usize>().ok());
            if let Some(of_region) = region.and_then(|region| found.get_mut(region)) {
                *of_region = (row["orders"].as_u64().unwrap_or_default(), row["cents"].as_i64().unwrap_or_default());
            }
            true
        })?;
        match found == wanted {
            true => Ok(()),
            false => Err("W7: the view is not what the orders make".into()),
        }
    }
}

fn name(model: &str) -> DatasetName {
    DatasetName::base("default", "shop", "one", model)
}

fn texts(ids: &[u64], text: impl Fn(u64) -> String) -> Vec<(u64, String)> {
    ids.iter().map(|id| (*id, text(*id))).collect()
}
