//! Shows `19900 cents by 15 consumers`: each goes on from the cursor of the one before, and not a cent is lost or doubled.
//!
//! What a consumer has summed up and its cursor lie in one file, written in one piece: it may stop anywhere.

use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use syncline::prelude::*;

/// What the consumer's cursors are bound to.
const SCOPE: &[u8] = b"totals of payments";

/// Adds up payments by consumers that end after `pages` pages each; the sum, and how many consumers there were.
pub async fn run(payments: i64, pages: usize) -> Result<(i64, usize), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (data, file) = (folder.path().join("data"), folder.path().join("consumer"));
    let engine = Engine::open(Options::in_folder(&data))?;
    let name = DatasetName::base("default", "bank", "mine", "Payment");
    let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::Override))?;
    let mut lives = 0;
    for id in 0..payments {
        // Payments go on while consumers come and go.
        engine.write(&dataset).upsert(json!({"id": id, "cents": id})).commit().await?;
        if id >= payments / 2 && id % 7 == 0 {
            consume(&engine, &dataset, &file, pages)?;
            lives += 1;
        }
    }
    // The engine may stop as well: cursors stay good.
    engine.stop().await?;
    drop(engine);
    Ok((consume(&Engine::open(Options::in_folder(&data))?, &dataset, &file, usize::MAX)?, lives + 1))
}

/// One life: begins where the file says, reads at most `pages` pages of three changes, gives the sum so far.
fn consume(engine: &Engine, dataset: &Dataset, file: &Path, pages: usize) -> Result<i64, Box<dyn Error>> {
    let key = engine.cursor_key();
    let (mut sum, mut place) = match std::fs::read_to_string(file).unwrap_or_default().split_once(' ') {
        Some((sum, cursor)) => (sum.parse()?, key.decode(SCOPE, cursor)?),
        None => (0, Cursor::START),
    };
    for _ in 0..pages {
        let page = engine.changes_page(std::slice::from_ref(dataset), place, 3)?;
        for (_, change) in &page.changes {
            sum += change.record::<Value>()?["cents"].as_i64().unwrap_or(0);
        }
        place = page.next;
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{sum} {}", key.encode(SCOPE, place)))?;
        std::fs::rename(&new, file)?;
        if page.up_to_date {
            break;
        }
    }
    Ok(sum)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (sum, lives) = run(200, 2).await?;
    println!("{sum} cents by {lives} consumers");
    Ok(())
}
