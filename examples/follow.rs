//! Following: a reader keeps its own place, sleeps until something is committed, and never misses or repeats a change.

use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Options};

/// Writes `n` records one by one while a reader follows; gives what the reader met.
pub async fn run(n: i64) -> Result<Vec<i64>, Error> {
    let engine = Engine::open(Options { workers: 2, ..Options::temporary() })?;
    let spec = DatasetSpec::of(Strategy::Override);
    let ticks = engine.dataset(&DatasetName::base("default", "clock", "wall", "Tick"), &spec)?;
    let reader = tokio::spawn(follow(engine.clone(), ticks.clone(), n as usize));
    for tick in 0..n {
        let mut page = engine.page(&ticks);
        let json = format!(r#"{{"id":"{tick}","n":{tick}}}"#);
        page.save(&tick.to_string(), None, Timestamp(tick), json.as_bytes());
        engine
            .commit(Batch { cause: Some(Cause::webhook(tick as u64)), pages: vec![page], ..Batch::default() })
            .await?;
    }
    reader.await.map_err(|_| Error::Stopped)?
}

async fn follow(engine: Engine, dataset: Dataset, wanted: usize) -> Result<Vec<i64>, Error> {
    let mut place = Cursor::START;
    let mut committed = engine.watermark();
    let mut met = Vec::new();
    loop {
        committed.borrow_and_update();
        engine.changes(std::slice::from_ref(&dataset), place, &mut |dataset, change| {
            place = Cursor { position: change.meta.position, dataset: dataset.id };
            let record: serde_json::Value =
                serde_json::from_slice(&change.after.unwrap_or_default()).unwrap_or_default();
            met.extend(record["n"].as_i64());
            true
        })?;
        if met.len() >= wanted {
            return Ok(met);
        }
        committed.changed().await.map_err(|_| Error::Stopped)?;
    }
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{:?}", run(20).await?);
    Ok(())
}
