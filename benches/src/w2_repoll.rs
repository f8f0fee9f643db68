//! W2: how much work is a record that is seen again, and are the changes found exactly?

use crate::feed::{expect, runs, submit, windows};
use crate::gauge::{self, Watch};
use crate::poll::version;
use crate::report::Report;
use crate::{Bench, Fault};
use syncline_engine::model::Counts;
use syncline_engine::pipeline::WindowOp;

/// Lists everything again in a delete-tracking window and ends it.
pub async fn run(bench: &Bench, report: &mut Report) -> Result<(), Fault> {
    let runs = runs(&bench.engine, &bench.datasets)?;
    let (mut watch, mut counts) = (Watch::default(), Counts::default());
    gauge::forget_peak();
    watch.start();
    counts.add(&windows(&bench.engine, &bench.datasets, &runs, WindowOp::Start, false).await?);
    watch.stop();
    for (from, to) in bench.feed.chunks() {
        let pages = bench.feed.pages(from, to, version);
        watch.start();
        counts.add(&submit(&bench.engine, &bench.datasets, &runs, pages).await?);
        watch.stop();
    }
    let mut sweep = Watch::default();
    watch.start();
    sweep.start();
    counts.add(&windows(&bench.engine, &bench.datasets, &runs, WindowOp::Sweep, true).await?);
    sweep.stop();
    watch.stop();

    let n = bench.feed.records();
    let missing = (1..=n).filter(|id| version(*id).is_none()).count() as u64;
    let changed = (1..=n).filter(|id| version(*id) == Some(2)).count() as u64;
    expect("W2 updated", counts.updated, changed)?;
    expect("W2 deleted", counts.deleted, missing)?;
    expect("W2 unchanged", counts.unchanged, n - changed - missing)?;
    expect("W2 added, skipped, ignored", counts.added + counts.skipped + counts.ignored, 0)?;
    let (_, peak) = gauge::memory();
    report.add("W2", "records a second", watch.rate(n), "/s");
    report.add("W2", "CPU a record", watch.cpu_us(n), "us");
    report.add("W2", "deletes found at the end, wall", sweep.wall.as_secs_f64() * 1e3, "ms");
    report.add("W2", "memory, peak", peak as f64 / 1e6, "MB");
    report.add("W2", "disk", gauge::disk(&bench.dir) as f64 / 1e6, "MB");
    report.add("W2", "updated (exact)", counts.updated as f64, "");
    report.add("W2", "deleted (exact)", counts.deleted as f64, "");
    report.add("W2", "unchanged (exact)", counts.unchanged as f64, "");
    Ok(())
}
