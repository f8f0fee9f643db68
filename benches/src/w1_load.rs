//! W1: how much work is a new record?

use crate::feed::{expect, runs, submit};
use crate::gauge::{self, Watch};
use crate::report::Report;
use crate::{Bench, Fault};
use syncline_engine::model::Counts;

/// Loads all records; all must be ADDED.
pub async fn run(bench: &Bench, report: &mut Report) -> Result<(), Fault> {
    let runs = runs(&bench.engine, &bench.datasets)?;
    let (mut watch, mut counts) = (Watch::default(), Counts::default());
    let (before, _) = gauge::memory();
    gauge::forget_peak();
    for (from, to) in bench.feed.chunks() {
        let pages = bench.feed.pages(from, to, |_| Some(1));
        watch.start();
        counts.add(&submit(&bench.engine, &bench.datasets, &runs, pages).await?);
        watch.stop();
    }
    let n = bench.feed.records();
    expect("W1 added", counts.added, n)?;
    let (now, peak) = gauge::memory();
    report.add("W1", "records a second", watch.rate(n), "/s");
    report.add("W1", "CPU a record", watch.cpu_us(n), "us");
    report.add("W1", "memory, peak", peak as f64 / 1e6, "MB");
    report.add("W1", "memory a record, above the start", now.saturating_sub(before) as f64 / n as f64, "B");
    report.add("W1", "disk", gauge::disk(&bench.dir) as f64 / 1e6, "MB");
    report.add("W1", "disk a record", gauge::disk(&bench.dir) as f64 / n as f64, "B");
    Ok(())
}
