//! W7: orders ⋈ customers, number and sum per region, kept up by the circuit.

use crate::{Delta, Fault, path, shares, threads};
use dbsp::operator::Update;
use dbsp::typed_batch::IndexedZSetReader;
use dbsp::utils::Tup2;
use dbsp::{DBSPHandle, MapHandle, OutputHandle, Runtime};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Instant;

/// Records of one step, of each input.
const STEP: usize = 10_000;
/// Updates of one step, where many come at a time.
const AT_ONCE: usize = 1_000;

type Order = Tup2<u64, i64>;
type Regions = Delta<String, Tup2<i64, i64>>;

#[derive(Deserialize)]
struct OrderText<'a> {
    id: &'a str,
    customer: &'a str,
    cents: i64,
}

#[derive(Deserialize)]
struct CustomerText<'a> {
    id: &'a str,
    region: &'a str,
}

pub struct Shop {
    circuit: DBSPHandle,
    orders: MapHandle<u64, Order, Order>,
    customers: MapHandle<u64, String, String>,
    output: OutputHandle<Regions>,
    waiting_orders: Vec<Tup2<u64, Update<Order, Order>>>,
    waiting_customers: Vec<Tup2<u64, Update<String, String>>>,
    /// Number and sum of each region, as they were read last.
    regions: BTreeMap<String, (i64, i64)>,
}

impl Shop {
    pub fn open() -> Result<Shop, Fault> {
        let (circuit, (orders, customers, output)) = Runtime::init_circuit(threads(), |circuit| {
            let (all, orders) = circuit.add_input_map::<u64, Order, Order, _>(|old, new| *old = *new);
            let (buyers, customers) = circuit.add_input_map::<u64, String, String, _>(|old, new| old.clone_from(new));
            let by_customer = all.map_index(|(_, Tup2(customer, cents))| (*customer, *cents));
            let by_region = by_customer.join_index(&buyers, |_, cents, region| Some((region.clone(), *cents)));
            let regions = by_region.aggregate_linear(|cents| Tup2(1_i64, *cents));
            Ok((orders, customers, regions.accumulate_output()))
        })?;
        let (waiting_orders, waiting_customers) = (Vec::new(), Vec::new());
        Ok(Shop { circuit, orders, customers, output, waiting_orders, waiting_customers, regions: BTreeMap::new() })
    }

    /// Parses the records.
    pub fn read(&mut self) -> Result<String, Fault> {
        for line in BufReader::with_capacity(1 << 20, File::open(path("w7-customers"))?).lines() {
            let line = line?;
            let customer: CustomerText<'_> = serde_json::from_str(&line)?;
            self.waiting_customers.push(Tup2(customer.id.parse()?, Update::Insert(customer.region.to_owned())));
        }
        self.read_orders("w7-orders")
    }

    /// Feeds what was read, as many of both at a time.
    pub fn load(&mut self) -> Result<String, Fault> {
        let (orders, customers) =
            (std::mem::take(&mut self.waiting_orders), std::mem::take(&mut self.waiting_customers));
        for (orders, customers) in orders.chunks(STEP).zip(customers.chunks(STEP)) {
            self.orders.append(&mut orders.to_vec());
            self.customers.append(&mut customers.to_vec());
            self.step()?;
        }
        Ok("{}".to_owned())
    }

    /// One order after the other; each is over when the rows of all regions it concerns are read.
    pub fn update(&mut self) -> Result<String, Fault> {
        let lines: Vec<String> = BufReader::new(File::open(path("w7-updates"))?).lines().collect::<Result<_, _>>()?;
        let mut delays = Vec::with_capacity(lines.len());
        for line in &lines {
            let began = Instant::now();
            let Tup2(id, update) = order(line)?;
            self.orders.push(id, update);
            self.step()?;
            delays.push(began.elapsed());
        }
        Ok(format!("{{{}}}", shares(delays)))
    }

    /// Parses further updates.
    pub fn read_more(&mut self) -> Result<String, Fault> {
        self.read_orders("w7-more")
    }

    fn read_orders(&mut self, file: &str) -> Result<String, Fault> {
        for line in BufReader::with_capacity(1 << 20, File::open(path(file))?).lines() {
            self.waiting_orders.push(order(&line?)?);
        }
        Ok("{}".to_owned())
    }

    /// Feeds them, a thousand at a time; a step is over when its rows are read.
    pub fn more(&mut self) -> Result<String, Fault> {
        for orders in std::mem::take(&mut self.waiting_orders).chunks(AT_ONCE) {
            self.orders.append(&mut orders.to_vec());
            self.step()?;
        }
        Ok("{}".to_owned())
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.circuit.transaction()?;
        for (region, Tup2(orders, cents), weight) in self.output.concat().iter() {
            if weight > 0 {
                self.regions.insert(region, (orders, cents));
            }
        }
        Ok(())
    }

    /// All orders, and what they are worth, each times the number of its region, from 1.
    pub fn count(&self) -> String {
        let number = |region: &str| region.get(1..).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) + 1;
        let orders: i64 = self.regions.values().map(|(orders, _)| orders).sum();
        let worth: i64 = self.regions.iter().map(|(region, (_, cents))| cents * number(region)).sum();
        format!(r#"{{"orders":{orders},"worth":{worth}}}"#)
    }
}

fn order(line: &str) -> Result<Tup2<u64, Update<Order, Order>>, Fault> {
    let order: OrderText<'_> = serde_json::from_str(line)?;
    Ok(Tup2(order.id.parse()?, Update::Insert(Tup2(order.customer.parse()?, order.cents))))
}
