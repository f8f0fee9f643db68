//! A consumer that stops anywhere and goes on from its cursor: what it kept and the cursor lie in one file, written in one
//! piece, so nothing is lost and nothing doubled.

use std::path::Path;
use syncline::Engine;
use syncline::engine::model::{Cause, Cursor, DatasetName, Strategy, Timestamp};
use syncline::engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Options};

/// What the consumer's cursors are bound to.
const SCOPE: &[u8] = b"totals of payments";

/// Adds up payments: three lives of a consumer, which ends after `pages` pages each time; then the sum it has.
pub async fn run(payments: i64, pages: usize) -> Result<(i64, usize), Error> {
    let folder = tempfile::tempdir().map_err(|e| Error::Storage(e.to_string()))?;
    let file = folder.path().join("consumer");
    let engine = Engine::open(Options::in_folder(folder.path().join("data")))?;
    let name = DatasetName::base("default", "bank", "mine", "Payment");
    let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::Override))?;
    for id in 0..payments / 2 {
        pay(&engine, &dataset, id).await?;
    }
    let mut lives = 0;
    for id in payments / 2..payments {
        // Payments go on while consumers come and go.
        pay(&engine, &dataset, id).await?;
        if id % 7 == 0 {
            consume(&engine, &dataset, &file, pages)?;
            lives += 1;
        }
    }
    // The engine may stop as well: cursors stay good.
    engine.stop().await?;
    drop(engine);
    let engine = Engine::open(Options::in_folder(folder.path().join("data")))?;
    Ok((consume(&engine, &dataset, &file, usize::MAX)?, lives + 1))
}

async fn pay(engine: &Engine, dataset: &Dataset, id: i64) -> Result<(), Error> {
    let mut page = engine.page(dataset);
    page.save(&id.to_string(), None, Timestamp(id), format!(r#"{{"id":"{id}","cents":{id}}}"#).as_bytes());
    engine.commit(Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }).await.map(drop)
}

/// One life: begins where the file says, reads at most `pages` pages of three changes, gives the sum so far.
fn consume(engine: &Engine, dataset: &Dataset, file: &Path, pages: usize) -> Result<i64, Error> {
    let key = engine.cursor_key();
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    let (mut sum, mut place) = match kept.split_once(' ') {
        Some((sum, cursor)) => (
            sum.parse().unwrap_or(0),
            key.decode(SCOPE, cursor).map_err(|e| Error::Storage(format!("{}: {e}", file.display())))?,
        ),
        None => (0, Cursor::START),
    };
    for _ in 0..pages {
        let page = engine.changes_page(std::slice::from_ref(dataset), place, 3)?;
        for (_, change) in &page.changes {
            let payment: serde_json::Value = serde_json::from_slice(change.after.as_deref().unwrap_or(b"null"))
                .map_err(|e| Error::Storage(format!("payment {}: {e}", change.id())))?;
            sum += payment["cents"].as_i64().unwrap_or(0);
        }
        place = page.next;
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{sum} {}", key.encode(SCOPE, place)))
            .and_then(|()| std::fs::rename(&new, file))
            .map_err(|e| Error::Storage(e.to_string()))?;
        if page.up_to_date {
            break;
        }
    }
    Ok(sum)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    let (sum, lives) = run(200, 2).await?;
    println!("{sum} cents by {lives} consumers");
    Ok(())
}
