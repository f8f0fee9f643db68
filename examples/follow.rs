//! Shows the numbers from 0 to 19 in order: a follower sleeps until something is committed, and meets every change once.

use serde_json::{Value, json};
use syncline::prelude::*;

/// Writes `n` records one by one while a reader follows; gives what the reader met.
pub async fn run(n: i64) -> Result<Vec<Value>, syncline::Error> {
    let engine = Engine::open(Options { workers: 2, ..Options::temporary() })?;
    let name = DatasetName::base("default", "clock", "wall", "Tick");
    let ticks = engine.dataset(&name, &DatasetSpec::of(Strategy::Override))?;
    let mut changes = engine.follow(&ticks, Cursor::START);
    let reader = async {
        let mut met = Vec::new();
        while met.len() < n as usize {
            let Some(next) = changes.try_next().await? else { break };
            met.push(next.change.record::<Value>().unwrap_or_default()["n"].take());
        }
        Ok(met)
    };
    let writer = async {
        for tick in 0..n {
            engine.write(&ticks).upsert(json!({"id": tick, "n": tick})).commit().await?;
        }
        Ok(())
    };
    tokio::try_join!(reader, writer).map(|(met, ())| met)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), syncline::Error> {
    run(20).await?.iter().for_each(|n| println!("{n}"));
    Ok(())
}
