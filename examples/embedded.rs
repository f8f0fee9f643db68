//! Shows five changes of two listings, told by a sink that fails once: a source and a sink of one's own around an engine.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{sync::Arc, time::Duration};
use syncline::prelude::*;
use tokio::sync::mpsc;

/// Thermometers: what they show at each listing.
struct Thermometers(AtomicUsize);

const LISTINGS: [&[(&str, i64)]; 2] = [&[("hall", 20), ("oven", 180)], &[("hall", 21), ("yard", -3)]];

#[async_trait]
impl Source for Thermometers {
    async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
        let shown = LISTINGS.get(self.0.fetch_add(1, Relaxed)).copied().unwrap_or_default();
        let seen = |(id, degrees): &(&str, i64)| ask.seen(*id, serde_json::json!({"id": id, "degrees": degrees}));
        Ok(Page::last(shown.iter().map(seen).collect()))
    }
}

/// Tells what it is told, once the first attempt has failed.
struct Loudspeaker(mpsc::UnboundedSender<String>, AtomicBool);

#[async_trait]
impl Sink for Loudspeaker {
    async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
        if !self.1.swap(true, Relaxed) {
            return Err(Failure::passing("busy", "somebody else is speaking"));
        }
        for change in &batch.changes {
            let line = format!("{} {}", change.meta.action, change.id());
            self.0.send(line).map_err(|_| Failure::lasting("gone", "nobody listens any more"))?;
        }
        Ok(())
    }

    fn retry(&self) -> Retry {
        Retry { from: Duration::from_millis(1), ..Retry::default() }
    }
}

/// What the sink was told of two listings.
pub async fn run() -> Result<Vec<String>, syncline::Error> {
    let engine = Engine::open(Options::temporary())?;
    let name = DatasetName::base("default", "house", "mine", "Thermometer");
    let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::IgnoreIfModifiedAfter))?;
    let (told, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(engine.feed("speaker", Loudspeaker(told, AtomicBool::new(false)), std::future::pending()));

    let source = Arc::new(Thermometers(AtomicUsize::new(0)));
    for _ in LISTINGS {
        engine.sync(source.clone()).full(&dataset).run().await?;
    }
    let mut lines = Vec::new();
    while lines.len() < 5 && heard.recv_many(&mut lines, 5).await > 0 {}
    engine.stop().await?; // the feed ends with it
    Ok(lines)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), syncline::Error> {
    run().await.map(|lines| lines.iter().for_each(|line| println!("{line}")))
}
