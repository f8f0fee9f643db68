//! A source of your own: one attempt at one page, and the run driver does the rest.
//!
//! The source lists the lines of a text; what disappears from it is deleted once the listing is proven complete.

use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use syncline_engine::model::{DatasetName, Strategy};
use syncline_engine::pipeline::run::{Halt, Order, run as drive};
use syncline_engine::pipeline::{DatasetSpec, Error, Options};
use syncline_engine::source::*;
use syncline_engine::{Engine, time::SystemClock};

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
        let end = Some(End { doubts: Vec::new(), confirm: Confirm::None });
        Ok(Page { observations: text.lines().map(seen).collect(), end, ..Page::default() })
    }

    async fn fetch(&self, _ask: &Ask, _keys: &[String]) -> Result<Page, Failure> {
        Ok(Page::default())
    }

    fn retry(&self) -> Retry {
        Retry { max: 3, from: Duration::from_secs(1), to: Duration::from_secs(60), jitter: true }
    }
}

/// (added, deleted) of two runs, between which a line disappears and one appears.
pub async fn run() -> Result<[(u64, u64); 2], Error> {
    let options = Options::default();
    let engine = Engine::open(options)?;
    let spec = DatasetSpec { strategy: Strategy::IgnoreIfModifiedAfter, ignore_in_diff: Vec::new() };
    let dataset = engine.dataset(&DatasetName::base("default", "text", "me", "Line"), &spec)?;
    let source = Arc::new(Lines(Mutex::new("one\ntwo\nthree".to_owned())));
    let mut counts = [(0, 0); 2];
    for (n, text) in ["one\ntwo\nthree", "one\nthree\nfour"].into_iter().enumerate() {
        *source.0.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
        let order = Order {
            dataset: dataset.clone(),
            sync: "lines".to_owned(),
            definition: String::new(),
            connection: Arc::new(Connection { id: "me".to_owned(), ..Connection::default() }),
            part: Part::Full,
            deletes: Vec::new(),
            guard: None,
            timeout: Duration::from_secs(60),
            fresh: false,
            seed: n as u64,
        };
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
