//! Shows a file with one line for each change: the program with a sink of one's own, which is fed from where it stopped.
//!
//! `cargo run -p syncline-examples --example custom_sink -- --sources examples/folder.yaml serve`, then look at `changes.txt`.

#![allow(dead_code)] // The test calls `run`, the program `main`.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use syncline::engine::time::SystemClock;
use syncline::prelude::*;

#[path = "custom_source.rs"]
pub mod custom_source;

/// Appends changes to a file. After a crash the last set may come once more: each line has the engine time to know it by.
struct Lines(PathBuf);

#[async_trait]
impl Sink for Lines {
    async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
        let lines: String = batch.changes.iter().map(|change| format!("{} {change}\n", batch.epoch)).collect();
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        let written = file.and_then(|mut file| file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()));
        written.map_err(|e| Failure::passing("unwritten", format!("{}: {e}", self.0.display())))
    }

    fn takes(&self, dataset: &DatasetName) -> bool {
        &*dataset.source == "folder"
    }
}

fn program(lines: PathBuf) -> syncline::Program {
    syncline::program().source("folder", custom_source::Folder).sink("lines", Lines(lines))
}

/// What the file says once a folder with one file was listed.
pub async fn run(folder: &Path) -> Result<String, Box<dyn Error>> {
    let (files, lines) = (folder.join("files"), folder.join("changes.txt"));
    std::fs::create_dir(&files)?;
    std::fs::write(files.join("one"), "1")?;
    let settings = custom_source::settings(folder, &files)?;
    let running = program(lines.clone()).start(settings, Arc::new(SystemClock)).await?;
    let written = async {
        while !std::fs::read_to_string(&lines).is_ok_and(|told| told.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await?;
    running.stop().await?;
    Ok(std::fs::read_to_string(&lines)?)
}

fn main() -> std::process::ExitCode {
    program("changes.txt".into()).main()
}
