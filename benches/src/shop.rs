//! Orders and customers of W7: small records, made from their number and version and from nothing else.

/// Regions customers are spread over.
pub const REGIONS: u64 = 100;
/// Updates of orders, one after the other.
pub const UPDATES: u64 = 2_000;
/// Updates behind them, a thousand at a time.
pub const MORE: u64 = 20_000;

/// An order: whose, and how much.
pub struct Order {
    /// Its number, from 1.
    pub id: u64,
    /// Number of the customer.
    pub customer: u64,
    /// Its worth.
    pub cents: i64,
}

impl Order {
    /// Version `version` of an order of a shop with so many customers. Each version is another customer's.
    pub fn new(id: u64, version: u64, customers: u64) -> Order {
        let chance = mix(id ^ version << 40);
        Order { id, customer: chance % customers.max(1) + 1, cents: (chance >> 40) as i64 % 100_000 }
    }

    /// Its JSON, about 170 bytes.
    pub fn json(&self) -> String {
        let Order { id, customer, cents } = self;
        format!(
            r#"{{"id":"{id}","customer":"{customer}","cents":{cents},"status":"open","channel":"web","lines":[{{"sku":"A-{}","n":1}},{{"sku":"B-{}","n":2}}],"note":"leave it with the neighbours"}}"#,
            id % 977,
            id % 331,
        )
    }
}

/// The region of a customer.
pub fn region_of(customer: u64) -> u64 {
    mix(customer ^ 0x5bd1_e995) % REGIONS
}

/// A customer's JSON, about 130 bytes.
pub fn customer(id: u64) -> String {
    let region = region_of(id);
    format!(
        r#"{{"id":"{id}","name":"Customer {id}","region":"r{region}","street":"{} High Street","mail":"customer.{id}@example.com","since":"2026-01-01"}}"#,
        id % 211,
    )
}

/// Mixes bits; the finaliser of splitmix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
