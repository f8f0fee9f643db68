//! A log and a changelog in memory that outlive the engines over them: what a broker is to the machines of an installation.

use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::log::{MemoryChangelog, MemoryLog};
use syncline_engine::pipeline::{BLOCK_LEAST, Batch, EntryProcessor, Error, LogFollower, Options, Receipt, Remote};
use syncline_engine::time::Clock;
use syncline_engine::views::Definition;

/// What lies elsewhere.
#[derive(Default)]
pub struct Elsewhere {
    /// Its log.
    pub log: Arc<MemoryLog>,
    /// Its changelog.
    pub changelog: MemoryChangelog,
    /// How often an engine was opened over it.
    pub openings: u64,
    /// What its engines derive.
    pub views: Option<Definition>,
    /// From so many contents on its engines store them in blocks, if not as engines do by themselves.
    pub block_least: Option<usize>,
}

const PLACE: &str = "log";

impl Elsewhere {
    /// Opens an engine over it and enters the log from where the changelog says, until the engine stops. Inside a runtime.
    pub fn open(&self, folder: &Path, workers: usize, clock: Arc<dyn Clock>) -> Result<Engine, Error> {
        let (data_dir, views) = (Some(folder.to_path_buf()), self.views.clone());
        let block_least = self.block_least.unwrap_or(BLOCK_LEAST);
        let options = Options { data_dir, workers, clock, views, block_least, ..Options::default() };
        let changelog = Arc::new(self.changelog.open());
        let engine = Engine::open_copy(options, Remote { log: self.log.clone(), changelog, secret: [7; 32], part: 0 })?;
        tokio::spawn(enter(engine.clone()));
        Ok(engine)
    }
}

/// Applies the log's entries in order until the engine has stopped.
pub async fn enter(engine: Engine) {
    let follower = LogFollower::open(engine, PLACE).expect("the place");
    // Whatever ends it, the test sees it by what it waits for.
    let _ = follower.run(&OnlyTheEngine, std::future::pending()).await;
}

/// Nobody else writes into the log.
struct OnlyTheEngine;

#[async_trait]
impl EntryProcessor for OnlyTheEngine {
    type Origin = ();

    async fn batch(&self, position: u64, _entry: &Bytes) -> Result<(Batch, ()), Error> {
        panic!("only the engine writes here, and entry {position} is not its own")
    }

    async fn refused(&self, _position: u64, _origin: Option<()>, _why: &str) -> Result<Batch, Error> {
        Ok(Batch::default())
    }

    async fn committed(&self, _position: u64, _origin: Option<()>, _receipt: Receipt) -> Result<(), Error> {
        Ok(())
    }
}
