//! A program that gets killed within the commits of its steps: what it does, and what it has left. The child that dies and the
//! test that judges it both run it.

use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::{Change, Cursor, DatasetName, Failure, Meta, Position, Strategy, Timestamp};
use syncline_engine::pipeline::run::program::checkpoint;
use syncline_engine::pipeline::run::{Halt, ProgramOrder, RunEndReport, program};
use syncline_engine::pipeline::{Dataset, DatasetSpec, Error, Filter, Options};
use syncline_engine::source::Connection;
use syncline_engine::source::program::{Outlet, Program, ProgramAsk};
use syncline_engine::time::{Clock, ManualClock};
use tokio::sync::watch;

use Act::{Barrier, Checkpoint, Gone, Request, Save};

/// The model of the window, and the other one.
pub const MODELS: [&str; 2] = ["Contact", "Company"];
const CONTACT: &str = MODELS[0];
const COMPANY: &str = MODELS[1];
const SYNC: &str = "everyone";

/// What the program does next.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Saves a record of a model: its id, and its field `n`.
    Save(&'static str, &'static str, u32),
    /// Says that a record is gone.
    Gone(&'static str, &'static str),
    /// Sends a request, which ends the step before.
    Request,
    /// Saves the place behind this act.
    Checkpoint,
    /// Waits until all before is committed.
    Barrier,
}

/// What was there before: of these contacts two are not named again.
pub const BEFORE: &[Act] = &[
    Save(CONTACT, "1", 1),
    Save(CONTACT, "2", 1),
    Save(CONTACT, "8", 1),
    Save(CONTACT, "9", 1),
    Save(COMPANY, "z", 1),
];

/// A listing of contacts, with companies beside them: steps of one and of two models, with a checkpoint and without. It says each
/// thing once, so that saying it again is no change.
pub const LISTING: &[Act] = &[
    Request,
    Save(CONTACT, "1", 2),
    Save(COMPANY, "a", 2),
    Checkpoint,
    Request,
    Save(CONTACT, "2", 2),
    Request,
    Save(COMPANY, "b", 2),
    Checkpoint,
    Request,
    Save(CONTACT, "3", 2),
    Barrier,
    Checkpoint,
    Gone(COMPANY, "z"),
    Save(CONTACT, "4", 2),
    Checkpoint,
    Request,
    Save(CONTACT, "5", 2),
];

/// Its acts, from the checkpoint on, in a window of contacts or without.
struct Script {
    acts: &'static [Act],
    window: bool,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Program for Script {
    async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        if self.window {
            out.window_start(CONTACT).await?;
        }
        for at in place(ask.checkpoint.as_deref())..self.acts.len() {
            match self.acts[at] {
                Save(model, id, n) => out.save(model, id, json(id, n).as_bytes()).await?,
                Gone(model, id) => out.gone(model, id, None).await?,
                Request => {
                    self.clock.advance(Duration::from_secs(1));
                    out.request(self.clock.now()).await?;
                }
                Checkpoint => out.save_checkpoint(Some((at + 1).to_string().into())).await?,
                Barrier => out.barrier().await?,
            }
        }
        if self.window {
            out.window_end(CONTACT).await?;
        }
        out.save_checkpoint(None).await
    }
}

/// A record as it is stored.
pub fn json(id: &str, n: u32) -> String {
    format!("{{\"id\":\"{id}\",\"n\":{n}}}")
}

fn place(checkpoint: Option<&[u8]>) -> usize {
    checkpoint.map_or(0, |bytes| String::from_utf8_lossy(bytes).parse().expect("a place"))
}

/// The engine that runs it.
pub struct Bench {
    engine: Engine,
    order: ProgramOrder,
    datasets: [Dataset; 2],
    clock: Arc<ManualClock>,
}

impl Bench {
    /// Opens a folder at this second.
    pub fn open(folder: &Path, second: i64) -> Result<Bench, Error> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(second)));
        let data_dir = Some(folder.to_owned());
        let engine = Engine::open(Options { data_dir, workers: 1, clock: clock.clone(), ..Options::default() })?;
        let spec = DatasetSpec::of(Strategy::Override);
        let of = |model| engine.dataset(&DatasetName::base("default", "crm", "acme", model), &spec);
        let datasets = [of(CONTACT)?, of(COMPANY)?];
        let order = ProgramOrder::new(SYNC, &datasets, Connection { id: "acme".into(), ..Connection::default() });
        Ok(Bench { engine, order, datasets, clock })
    }

    /// One run of these acts.
    pub async fn run(&self, acts: &'static [Act], window: bool) -> Result<RunEndReport, Error> {
        let script = Script { acts, window, clock: self.clock.clone() };
        let (_never, halt) = watch::channel(Halt::No);
        program(&self.engine, Arc::new(script), self.order.clone(), halt, &|_| {}).await
    }

    /// Closes it as a server does.
    pub async fn close(self) {
        self.engine.stop().await.expect("stops");
    }

    /// The place that is stored.
    pub fn place(&self) -> usize {
        let stored = checkpoint(&self.engine, &self.order.sync).expect("reads");
        place(stored.as_ref().map(|(bytes, _)| &**bytes))
    }

    /// Records that are there, of each model.
    pub fn records(&self) -> [Vec<String>; 2] {
        self.datasets.each_ref().map(|dataset| {
            let live = Filter { added: true, updated: true, deleted: false, modified_after: None };
            let mut found = Vec::new();
            let mut each = |_: &Meta, payload: &[u8]| {
                found.push(String::from_utf8_lossy(payload).into_owned());
                true
            };
            self.engine.records(dataset, Position::START, live, &mut each).expect("reads");
            found.sort();
            found
        })
    }

    /// Changes of each model, in order: what, and the record.
    pub fn changes(&self) -> [Vec<String>; 2] {
        self.datasets.each_ref().map(|dataset| {
            let mut found = Vec::new();
            let mut each = |_: &Dataset, change: Change| {
                let record = change.after.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                found.push(format!("{:?} {record}", change.meta.action));
                true
            };
            self.engine.changes(std::slice::from_ref(dataset), Cursor::START, &mut each).expect("reads");
            found
        })
    }
}
