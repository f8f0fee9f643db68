//! W5: how long until it is ready again, with one record in a thousand still waiting in the log?

use crate::feed::connection_of;
use crate::gauge::{self, Watch};
use crate::report::Report;
use crate::{Bench, Fault};
use syncline_engine::model::Cause;
use syncline_engine::pipeline::{Batch, Keyspace, Mark};

/// Appends, stops, opens, catches up.
pub async fn run(bench: Bench, report: &mut Report) -> Result<(), Fault> {
    let n = bench.feed.records();
    let begin = *bench.engine.log().end().borrow();
    let waiting = n.div_ceil(1_000);
    let mut entries = Vec::new();
    for id in 1..=waiting {
        let mut bytes = id.to_be_bytes().to_vec();
        bench.feed.generator().record(&mut bytes, id, 1_000);
        entries.push(bytes);
    }
    bench.engine.log().append(entries).await?;
    bench.engine.stop().await?;
    let (args, dir) = (bench.args.clone(), bench.dir.clone());
    // The store is closed with the last handle to it.
    drop(bench);

    gauge::forget_peak();
    let (mut open, mut ready) = (Watch::default(), Watch::default());
    open.start();
    ready.start();
    let bench = Bench::open(&args, &dir)?;
    open.stop();
    catch_up(&bench, begin).await?;
    ready.stop();
    let (_, peak) = gauge::memory();
    report.add("W5", "open", open.wall.as_secs_f64() * 1e3, "ms");
    report.add("W5", "ready, waiting log entries committed", ready.wall.as_secs_f64() * 1e3, "ms");
    report.add("W5", "ready, a record", ready.wall.as_secs_f64() * 1e6 / n as f64, "us");
    report.add("W5", "ready, CPU a record", ready.cpu_us(n), "us");
    report.add("W5", "memory, peak since the restart", peak as f64 / 1e6, "MB");
    bench.engine.stop().await?;
    Ok(())
}

async fn catch_up(bench: &Bench, begin: u64) -> Result<(), Fault> {
    let mut place = begin;
    loop {
        let entries = bench.engine.log().read(place, 1_000)?;
        let Some((last, _)) = entries.last() else { return Ok(()) };
        let mut pages: Vec<_> = bench.datasets.iter().map(|d| bench.engine.page(d)).collect();
        for (_, bytes) in &entries {
            let (head, payload) = bytes.split_at_checked(8).ok_or("a short entry")?;
            let id = u64::from_be_bytes(head.try_into()?);
            let modified_at = bench.feed.generator().modified_at(id, 1_000);
            if let Some(page) = pages.get_mut(connection_of(id)) {
                page.save(&id.to_string(), Some(modified_at), bench.engine.clock().now(), payload);
            }
        }
        place = *last;
        let marks = vec![Mark::put(Keyspace::PLACE, &["bench"], place.to_be_bytes())];
        let cause = Some(Cause::webhook(place));
        bench.engine.commit(Batch { cause, pages, marks, ..Batch::default() }).await?;
    }
}
