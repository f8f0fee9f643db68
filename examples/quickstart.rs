//! Quickstart: observations in, exact changes out.
//!
//! A record is saved, saved again unchanged, changed by a webhook, and then a stale page tries to undo that.

use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Options};

/// The changes a reader meets, one line each.
pub async fn run() -> Result<Vec<String>, Error> {
    let engine = Engine::open(Options::temporary())?;
    let spec = DatasetSpec::of(Strategy::Latest);
    let contacts = engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec)?;

    let ada = r#"{"id":"1","name":"Ada","email":"a@x"}"#;
    save(&engine, &contacts, Cause::run(1), 10, ada).await?;
    save(&engine, &contacts, Cause::run(2), 20, ada).await?; // unchanged: no change, hardly any work
    save(&engine, &contacts, Cause::webhook(7), 40, r#"{"id":"1","name":"Ada","email":"b@x"}"#).await?;
    save(&engine, &contacts, Cause::run(3), 30, ada).await?; // older than the webhook: loses

    let mut lines = Vec::new();
    let start = Cursor::START;
    engine.changes(&[contacts], start, &mut |_, change| {
        let after = String::from_utf8_lossy(change.after.as_deref().unwrap_or_default()).into_owned();
        lines.push(format!("{} {} by {}", change.meta.action.as_str(), after, change.meta.cause));
        true
    })?;
    engine.stop().await?;
    Ok(lines)
}

async fn save(engine: &Engine, dataset: &Dataset, cause: Cause, second: i64, json: &str) -> Result<(), Error> {
    let at = Timestamp::from_seconds(second);
    let mut page = engine.page(dataset);
    page.save("1", Some(at), at, json.as_bytes());
    engine.commit(Batch { cause: Some(cause), pages: vec![page], ..Batch::default() }).await.map(drop)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    run().await?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
