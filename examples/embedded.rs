//! An engine inside a program of one's own: a source of its own is polled, and what changed is handed to a sink of its own,
//! which fails once and still gets every change exactly once.

use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{sync::Arc, time::Duration};
use syncline::engine::model::{DatasetName, Strategy};
use syncline::engine::pipeline::run::{Halt, Order, run as poll};
use syncline::engine::pipeline::{DatasetSpec, Error, Feed, Options, feed};
use syncline::engine::sink::{ChangeBatch, Sink};
use syncline::engine::source::{Ask, Body, Bookmark, Connection, Failure, Observation, Page, Retry, Source};
use syncline::engine::{Engine, model::Timestamp};
use tokio::sync::{mpsc, watch};

/// Thermometers: what they show at each listing.
struct Thermometers(AtomicUsize);

const LISTINGS: [&[(&str, i64)]; 2] = [&[("hall", 20), ("oven", 180)], &[("hall", 21), ("yard", -3)]];

#[async_trait]
impl Source for Thermometers {
    async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
        let shown = LISTINGS.get(self.0.fetch_add(1, Relaxed)).copied().unwrap_or_default();
        Ok(Page::last(shown.iter().map(|(id, degrees)| seen(id, *degrees, ask.started_at)).collect()))
    }
}

fn seen(id: &str, degrees: i64, at: Timestamp) -> Observation {
    let body = Body::Whole(serde_json::json!({"id": id, "degrees": degrees}).to_string());
    Observation { id: id.to_owned(), modified_at: None, observed_at: at, body }
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
            let line = format!("{} {}", change.meta.action.as_str(), change.id());
            self.0.send(line).map_err(|_| Failure::lasting("gone", "nobody listens any more"))?;
        }
        Ok(())
    }
}

/// What the sink was told of two listings.
pub async fn run() -> Result<Vec<String>, Error> {
    let engine = Engine::open(Options::temporary())?;
    let name = DatasetName::base("default", "house", "mine", "Thermometer");
    let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::IgnoreIfModifiedAfter))?;
    let (stop, halt) = watch::channel(Halt::No);

    let (told, mut heard) = mpsc::unbounded_channel();
    let sink = Loudspeaker(told, AtomicBool::new(false));
    let retry = Retry { from: Duration::from_millis(1), ..Retry::default() };
    let what = Feed { name: "speaker".to_owned(), datasets: vec![dataset.clone()], retry };
    let feeding = tokio::spawn(feed(engine.clone(), sink, what, halt.clone()));

    let source = Arc::new(Thermometers(AtomicUsize::new(0)));
    for _ in LISTINGS {
        let order = Order::full(&dataset, Connection { id: "mine".to_owned(), ..Connection::default() });
        poll(&engine, source.clone(), order, halt.clone(), &|_, _| {}).await?;
    }
    let mut lines = Vec::new();
    while lines.len() < 5 && heard.recv_many(&mut lines, 5).await > 0 {}
    stop.send_replace(Halt::Stop);
    feeding.await.map_err(|_| Error::Stopped)??;
    engine.stop().await?;
    Ok(lines)
}

#[allow(dead_code)]
#[tokio::main]
async fn main() -> Result<(), Error> {
    run().await.map(|lines| lines.iter().for_each(|line| println!("{line}")))
}
