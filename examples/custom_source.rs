//! A source of your own: one attempt at one page, and the run driver does the rest.
//!
//! The source lists the lines of a text; what disappears from it is deleted once the listing is proven complete.

use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use syncline_engine::Engine;
use syncline_engine::model::{DatasetName, Strategy};
use syncline_engine::pipeline::run::{Halt, Order, run as drive};
use syncline_engine::pipeline::{DatasetSpec, Error, Options};
use syncline_engine::source::*;

struct Lines(Mutex<String>);

#[async_trait]
impl Source for Lines {
    async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = |line: &str| Observation {
            id: line.to_owned(),
            modified_at: None,
            observed_at: ask.started_at,
            body: Body::Whole(serde_json::json!({"id": line, "length": line.len()}).to_string()),
        };
        Ok(Page::last(text.lines().map(seen).collect()))
    }
}

/// (added, deleted) of two runs, between which a line disappears and one appears.
pub async fn run() -> Result<[(u64, u64); 2], Error> {
    let engine = Engine::open(Options::temporary())?;
    let spec = DatasetSpec::of(Strategy::IgnoreIfModifiedAfter);
    let dataset = engine.dataset(&DatasetName::base("default", "text", "me", "Line"), &spec)?;
    let source = Arc::new(Lines(Mutex::new("one\ntwo\nthree".to_owned())));
    let mut counts = [(0, 0); 2];
    for (n, text) in ["one\ntwo\nthree", "one\nthree\nfour"].into_iter().enumerate() {
        *source.0.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
        let connection = Connection { id: "me".to_owned(), ..Connection::default() };
        let order = Order::full(&dataset, connection);
        let (_keep, halt) = tokio::sync::watch::channel(Halt::No);
        let report = drive(&engine, source.clone(), order, halt, &|_, _| {}).await?;
        counts[n] = (report.record.counts.added, report.record.counts.deleted);
    }
    Ok(counts)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    run().await?.iter().for_each(|(added, deleted)| println!("{added} added, {deleted} deleted"));
    Ok(())
}
