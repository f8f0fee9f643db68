//! Shows two changes of four writes: a record comes, a webhook changes it; what is unchanged or older makes no change.

use serde_json::json;
use syncline::engine::model::Cause;
use syncline::prelude::*;

/// The changes a reader meets, one line each.
pub async fn run() -> Result<Vec<String>, syncline::Error> {
    let engine = Engine::open(Options::temporary())?;
    let name = DatasetName::base("default", "crm", "acme", "Contact");
    let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;

    let (ada, moved) =
        (json!({"id": "1", "name": "Ada", "email": "a@x"}), json!({"id": "1", "name": "Ada", "email": "b@x"}));
    let at = Timestamp::from_seconds;
    engine.write(&contacts).upsert(&ada).at(at(10)).by(Cause::run(1)).commit().await?;
    engine.write(&contacts).upsert(&ada).at(at(20)).by(Cause::run(2)).commit().await?; // unchanged: hardly any work
    engine.write(&contacts).upsert(&moved).at(at(40)).by(Cause::webhook(7)).commit().await?;
    engine.write(&contacts).upsert(&ada).at(at(30)).by(Cause::run(3)).commit().await?; // older than the webhook: loses

    let page = engine.changes_page(&[contacts], Cursor::START, 10)?;
    Ok(page.changes.iter().map(|(_, change)| format!("{change} by {}", change.meta.cause)).collect())
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), syncline::Error> {
    run().await?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
