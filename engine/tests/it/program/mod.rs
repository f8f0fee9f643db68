//! Programs through their public door, over scripts and a real engine, with a clock that stands still until it is turned.

mod events;
mod kills;
mod steps;
mod strategies;
mod windows;

use async_trait::async_trait;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::*;
use syncline_engine::pipeline::run::*;
use syncline_engine::pipeline::*;
use syncline_engine::sink::{Announce, Notice, Owed};
use syncline_engine::source::program::*;
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::{Clock, ManualClock};
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);
const CONTACT: &str = "Contact";
const COMPANY: &str = "Company";

/// What a script does next.
#[derive(Clone, Debug)]
enum Act {
    Save(&'static str, &'static str, u32),
    Gone(&'static str, &'static str),
    /// A text that is no object.
    Bad(&'static str, &'static str),
    Refused(&'static str),
    Start(&'static str),
    /// Ends a window; the ids that went are kept.
    End(&'static str),
    /// Turns the clock, and sends a request.
    Request,
    RequestFailed,
    /// Saves the place behind this act.
    Checkpoint,
    Clear,
    Barrier,
    Wins(&'static str, Strategy),
    /// Somebody else pushes this into the dataset, now.
    Push(&'static str, &'static str, u32),
    Warn(&'static str),
    Fail,
    /// Waits for ever.
    Hang,
}
use Act::*;

/// A program that does what its script says: first what it does in every execution, then the rest behind its checkpoint.
struct Script {
    head: Vec<Act>,
    body: Vec<Act>,
    /// Hangs in place of this act …
    hangs_at: Option<usize>,
    /// … when it has let others work so many times.
    patience: usize,
    hanging: watch::Sender<bool>,
    pushes: Option<(Engine, Arc<ManualClock>)>,
    clock: Arc<ManualClock>,
    asked: Mutex<Vec<ProgramAsk>>,
    ended: Mutex<Vec<Result<Vec<String>, Failure>>>,
    first_wins: Mutex<Vec<bool>>,
}

impl Script {
    async fn act(&self, at: usize, act: &Act, out: &mut Outlet) -> Result<(), Failure> {
        match act {
            Save(model, id, n) => out.save(model, id, json(id, *n).as_bytes()).await,
            Gone(model, id) => out.gone(model, id, None).await,
            Bad(model, id) => out.save(model, id, b"[1]").await,
            Refused(model) => out.refused(model, 1),
            Start(model) => out.window_start(model).await,
            End(model) => {
                let mut ended = out.window_end(model).await;
                ended.iter_mut().for_each(|ids| ids.sort());
                self.ended.lock().expect("lock").push(ended);
                Ok(())
            }
            Request => {
                self.clock.advance(SECOND);
                out.request(self.clock.now()).await?;
                yield_often(ANSWERED).await;
                Ok(())
            }
            RequestFailed => {
                out.request_failed();
                Ok(())
            }
            Checkpoint => out.save_checkpoint(Some((at + 1).to_string().into())).await,
            Clear => out.save_checkpoint(None).await,
            Barrier => out.barrier().await,
            Wins(model, strategy) => {
                let first = out.strategy(model, *strategy).await?;
                self.first_wins.lock().expect("lock").push(first);
                Ok(())
            }
            Push(model, id, n) => {
                let (engine, clock) = self.pushes.as_ref().expect("an engine");
                clock.advance(SECOND);
                push(engine, model, id, *n).await;
                Ok(())
            }
            Warn(line) => out.log(LogLevel::Warn, *line).await,
            Fail => Err(Failure::lasting("thrown", "no")),
            Hang => self.hang().await,
        }
    }

    async fn hang(&self) -> Result<(), Failure> {
        yield_often(self.patience).await;
        self.hanging.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl Program for Script {
    async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        self.asked.lock().expect("lock").push(ask.clone());
        for act in &self.head {
            self.act(0, act, out).await?;
        }
        let place = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).parse().expect("a place");
        for at in ask.checkpoint.as_ref().map_or(0, place)..self.body.len() {
            if self.hangs_at == Some(at) {
                self.hang().await?;
            }
            self.act(at, &self.body[at], out).await?;
        }
        Ok(())
    }
}

/// Others may work so many times until a request is answered.
const ANSWERED: usize = 3;

async fn yield_often(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

fn json(id: &str, n: u32) -> String {
    format!("{{\"id\":\"{id}\",\"n\":{n}}}")
}

fn name(model: &str) -> DatasetName {
    DatasetName::base("default", "crm", "acme", model)
}

async fn push(engine: &Engine, model: &str, id: &str, n: u32) {
    let dataset = engine.find(&name(model)).expect("registered");
    let record = serde_json::json!({"id": id, "n": n});
    engine.write(&dataset).upsert(record).by(Cause::webhook(1)).commit().await.expect("commits");
}

/// Runs whose end was announced, with their models.
#[derive(Default)]
struct Announced(Mutex<Vec<(String, Counts)>>);

impl Announce for Announced {
    fn announce(&self, notice: &Notice, _: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        if notice.ended.is_some() {
            self.0.lock().expect("lock").push((notice.dataset.model.to_string(), notice.counts));
        }
        Vec::new()
    }
}

struct Bench {
    engine: Engine,
    clock: Arc<ManualClock>,
    announced: Arc<Announced>,
    guard: Option<DeleteGuard>,
    track_deletes: bool,
    fresh: bool,
    lines: Mutex<Vec<String>>,
}

impl Bench {
    fn new() -> Bench {
        Bench::open(None, Strategy::Override)
    }

    fn open(folder: Option<&Path>, strategy: Strategy) -> Bench {
        let (clock, announced) = (Arc::new(ManualClock::new(Timestamp::from_seconds(1_000))), Arc::default());
        let announce = Some(Arc::clone(&announced) as Arc<dyn Announce>);
        let data_dir = folder.map(Into::into);
        let options = Options { data_dir, workers: 2, clock: clock.clone(), announce, ..Options::default() };
        let engine = Engine::open(options).expect("opens");
        for model in [CONTACT, COMPANY] {
            engine.dataset(&name(model), &DatasetSpec::of(strategy)).expect("registers");
        }
        let (guard, track_deletes, fresh) = (None, false, false);
        Bench { engine, clock, announced, guard, track_deletes, fresh, lines: Mutex::default() }
    }

    fn dataset(&self, model: &str) -> Dataset {
        self.engine.find(&name(model)).expect("registered")
    }

    fn script(&self, body: Vec<Act>) -> Script {
        Script {
            head: Vec::new(),
            body,
            hangs_at: None,
            patience: 0,
            hanging: watch::Sender::new(false),
            pushes: Some((self.engine.clone(), self.clock.clone())),
            clock: self.clock.clone(),
            asked: Mutex::default(),
            ended: Mutex::default(),
            first_wins: Mutex::default(),
        }
    }

    fn order(&self) -> ProgramOrder {
        let connection = Connection { id: "acme".into(), ..Connection::default() };
        let order = ProgramOrder::new("everyone", &[self.dataset(CONTACT), self.dataset(COMPANY)], connection);
        ProgramOrder { guard: self.guard, track_deletes: self.track_deletes, fresh: self.fresh, ..order }
    }

    async fn run(&self, body: Vec<Act>) -> RunEndReport {
        self.execute(Arc::new(self.script(body))).await
    }

    async fn execute(&self, script: Arc<Script>) -> RunEndReport {
        let (_never, halt) = watch::channel(Halt::No);
        self.drive(script, halt).await
    }

    async fn drive(&self, script: Arc<Script>, halt: watch::Receiver<Halt>) -> RunEndReport {
        self.clock.advance(SECOND);
        let tell = |told: Told<'_>| {
            if let Told::Line(line) = told {
                self.lines.lock().expect("lock").push(line.text.clone());
            }
        };
        program(&self.engine, script, self.order(), halt, &tell).await.expect("the engine works")
    }

    /// Runs until the script hangs, and then halts.
    async fn halted(&self, script: Arc<Script>, how: Halt) -> RunEndReport {
        let (tell, halt) = watch::channel(Halt::No);
        let mut hanging = script.hanging.subscribe();
        let stop = async {
            hanging.wait_for(|hanging| *hanging).await.expect("open");
            tell.send_replace(how);
        };
        tokio::join!(self.drive(script, halt), stop).0
    }

    /// Runs until the script hangs, and then drops everything as a process does that ends.
    async fn killed(&self, script: Arc<Script>) {
        let mut hanging = script.hanging.subscribe();
        let (_never, halt) = watch::channel(Halt::No);
        tokio::select! {
            biased;
            _ = hanging.wait_for(|hanging| *hanging) => {}
            report = self.drive(script, halt) => panic!("it hangs before its end: {report:?}"),
        }
    }

    /// Live records, as they are.
    fn records(&self, model: &str) -> Vec<String> {
        let live = Filter { added: true, updated: true, deleted: false, modified_after: None };
        let mut found = Vec::new();
        let mut each = |_: &Meta, payload: &[u8]| {
            found.push(String::from_utf8_lossy(payload).into_owned());
            true
        };
        self.engine.records(&self.dataset(model), Position::START, live, &mut each).expect("reads");
        found.sort();
        found
    }

    fn ids(&self, model: &str) -> Vec<String> {
        self.records(model).iter().map(|json| id_of(json.as_bytes()).expect("an id").into_owned()).collect()
    }

    /// Changes of a model: what, of whom, at which engine time.
    fn changes(&self, model: &str) -> Vec<(Action, String, u64)> {
        let mut found = Vec::new();
        let mut each = |_: &Dataset, change: Change| {
            found.push((change.meta.action, change.id().into_owned(), change.meta.position.epoch()));
            true
        };
        self.engine.changes(&[self.dataset(model)], Cursor::START, &mut each).expect("reads");
        found
    }

    fn checkpoint(&self) -> Option<String> {
        let stored = syncline_engine::pipeline::run::program::checkpoint(&self.engine, &self.order().sync);
        stored.expect("reads").map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn stored_run(&self, report: &RunEndReport) -> RunRecord {
        let key = ["default", "crm", "everyone", report.record.id.as_str()];
        let bytes = self.engine.mark(Keyspace::RUN, &key).expect("reads").expect("stored");
        serde_json::from_slice(&bytes).expect("a run record")
    }
}
