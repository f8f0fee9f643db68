//! W4: how fast is the change log read from the start, by cursor in pages of 1,000?

use crate::gauge::Watch;
use crate::report::Report;
use crate::{Bench, Fault};
use syncline_engine::model::Position;
use syncline_engine::pipeline::Filter;

const PAGE: usize = 1_000;

/// Reads every dataset to its end.
pub async fn run(bench: &Bench, report: &mut Report) -> Result<(), Fault> {
    let mut watch = Watch::default();
    watch.start();
    let (rows, bytes) = tokio::task::spawn_blocking({
        let (engine, datasets) = (bench.engine.clone(), bench.datasets.clone());
        move || {
            let (mut rows, mut bytes) = (0u64, 0u64);
            for dataset in &datasets {
                let mut place = Position::START;
                loop {
                    let mut found = 0;
                    engine.records(dataset, place, Filter::ALL, &mut |meta, payload| {
                        found += 1;
                        bytes += payload.len() as u64;
                        place = meta.position;
                        found < PAGE
                    })?;
                    rows += found as u64;
                    if found < PAGE {
                        break;
                    }
                }
            }
            Ok::<_, syncline_engine::pipeline::Error>((rows, bytes))
        }
    })
    .await??;
    watch.stop();
    report.add("W4", "from the store, records a second", watch.rate(rows), "/s");
    report.add("W4", "from the store, CPU a record", watch.cpu_us(rows), "us");
    report.add("W4", "from the store, payload", watch.rate(bytes) / 1e6, "MB/s");
    Ok(())
}
