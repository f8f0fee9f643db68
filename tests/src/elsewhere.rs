//! A log and a changelog in memory that outlive the engines over them: what a broker is to the machines of an installation.

use std::path::Path;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::log::{Log, MemoryChangelog, MemoryLog};
use syncline_engine::pipeline::{BLOCK_LEAST, Error, Mark, Options, Remote, Table, is_own};
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

const PLACE: [&str; 1] = ["log"];

impl Elsewhere {
    /// Opens an engine over it and enters the log from where the changelog says, until the engine stops. Inside a runtime.
    pub fn open(&self, folder: &Path, workers: usize, clock: Arc<dyn Clock>) -> Result<Engine, Error> {
        let (data_dir, views) = (Some(folder.to_path_buf()), self.views.clone());
        let block_least = self.block_least.unwrap_or(BLOCK_LEAST);
        let options = Options { data_dir, workers, clock, views, block_least, ..Options::default() };
        let changelog = Arc::new(self.changelog.open());
        let engine = Engine::open_copy(options, Remote { log: self.log.clone(), changelog, secret: [7; 32], part: 0 })?;
        tokio::spawn(enter(engine.clone(), self.log.clone()));
        Ok(engine)
    }
}

/// Enters the log's entries in order until the engine has stopped.
pub async fn enter(engine: Engine, log: Arc<dyn Log>) {
    let mut end = log.end();
    let stored = engine.mark(Table::Place, &PLACE).expect("the place");
    let mut place: u64 = stored.map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse().expect("a number"));
    loop {
        for (position, entry) in log.read(place, 100).expect("entries") {
            assert!(is_own(&entry), "only the engine writes here");
            let marks = vec![Mark::put(Table::Place, &PLACE, position.to_string())];
            match engine.apply_logged(&entry, marks.clone()).await {
                Ok(underway) => match underway.receipt().await {
                    // A refused batch has no effect; the place is behind it all the same.
                    Err(Error::NoWindow(_)) => drop(engine.put_marks(marks).await),
                    Err(_) => return,
                    Ok(_) => {}
                },
                Err(_) => return,
            }
            place = position;
        }
        if end.changed().await.is_err() {
            return;
        }
    }
}
