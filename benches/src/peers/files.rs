//! The records of W1, W2, W3 and W7 in files, for systems that read files: all the same, from one generator, made before any
//! clock runs.
//!
//! `w1-0` … `w1-9` and `w2-0` … `w2-9` for the connections, `w3` for all: `id TAB modified TAB json`. `w7-customers`,
//! `w7-orders`, `w7-updates` and `w7-more`: JSON alone.

use crate::poll::{self, CONNECTIONS, connection_of};
use crate::shop::{MORE, Order, UPDATES, customer, region_of};
use crate::{Args, Fault};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use syncline_provider::Generator;

/// Version of the updates of W3: above those of the other works.
pub const PACED: u32 = 10;

/// Where the files lie, and what must come of them.
pub struct Files {
    /// Their folder.
    pub folder: PathBuf,
    /// W2: records that have changed.
    pub changed: u64,
    /// W2: records that are gone.
    pub missing: u64,
    /// W7: worth of all orders in the end, each times the number of its region, from 1.
    pub worth: i64,
}

impl Files {
    /// Writes them.
    pub fn write(args: &Args, folder: PathBuf) -> Result<Files, Fault> {
        std::fs::create_dir_all(&folder)?;
        let records = args.records;
        listing(&folder, "w1", records, |_| Some(1))?;
        listing(&folder, "w2", records, poll::version)?;
        let mut paced = BufWriter::new(File::create(folder.join("w3"))?);
        (0..args.paced()).try_for_each(|n| line(&mut paced, poll::updated(n, records), PACED))?;
        paced.flush()?;
        let worth = shop(&folder, args.view_records)?;
        let (changed, missing) = changed_and_missing(records);
        Ok(Files { folder, changed, missing, worth })
    }
}

/// W2: how many of so many records have changed, and how many are gone.
pub fn changed_and_missing(records: u64) -> (u64, u64) {
    let count = |version| (1..=records).filter(|id| poll::version(*id) == version).count() as u64;
    (count(Some(2)), count(None))
}

fn listing(folder: &Path, work: &str, records: u64, version: fn(u64) -> Option<u32>) -> Result<(), Fault> {
    let open = |n| File::create(folder.join(format!("{work}-{n}"))).map(BufWriter::new);
    let mut files = (0..CONNECTIONS).map(open).collect::<Result<Vec<_>, _>>()?;
    for id in 1..=records {
        if let (Some(version), Some(file)) = (version(id), files.get_mut(connection_of(id))) {
            line(file, id, version)?;
        }
    }
    Ok(files.iter_mut().try_for_each(Write::flush)?)
}

fn line(file: &mut impl Write, id: u64, version: u32) -> Result<(), Fault> {
    let generator = Generator::new(1);
    let mut text = format!("{id}\t{}\t", generator.modified_at(id, version)).into_bytes();
    generator.record(&mut text, id, version);
    text.push(b'\n');
    Ok(file.write_all(&text)?)
}

/// The files of W7, and what the orders are worth in the end.
fn shop(folder: &Path, size: u64) -> Result<i64, Fault> {
    let open = |name: &str| File::create(folder.join(name)).map(BufWriter::new);
    let (mut customers, mut orders) = (open("w7-customers")?, open("w7-orders")?);
    let (mut updates, mut more) = (open("w7-updates")?, open("w7-more")?);
    let mut last = Vec::with_capacity(size as usize);
    for id in 1..=size {
        writeln!(customers, "{}", customer(id))?;
        let order = Order::new(id, 0, size);
        writeln!(orders, "{}", order.json())?;
        last.push(order);
    }
    for n in 0..UPDATES + MORE {
        let order = Order::new(poll::updated(n, size), n / size + 1, size);
        writeln!(if n < UPDATES { &mut updates } else { &mut more }, "{}", order.json())?;
        let id = order.id as usize;
        last[id - 1] = order;
    }
    [&mut customers, &mut orders, &mut updates, &mut more].into_iter().try_for_each(Write::flush)?;
    Ok(last.iter().map(|order| order.cents * (region_of(order.customer) as i64 + 1)).sum())
}
