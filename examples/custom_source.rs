//! Shows one change for each file of a folder: the program with a source of one's own, described by `folder.yaml`.
//!
//! `cargo run -p syncline-examples --example custom_source -- --sources examples/folder.yaml run folder`, or `serve`.

#![allow(dead_code)] // The test calls `run`, the program `main`.

use serde_json::json;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use syncline::config::Settings;
use syncline::engine::time::SystemClock;
use syncline::prelude::*;

/// Lists the files of the folder that a connection names.
pub struct Folder;

#[async_trait]
impl Source for Folder {
    async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
        let Some(path) = ask.connection.metadata["path"].as_str() else {
            return Err(Failure::lasting("no_path", "the connection has no `metadata: {path: …}`"));
        };
        let unread = |e: std::io::Error| Failure::passing("unread_folder", format!("{path}: {e}"));
        let mut files = Vec::new();
        for file in std::fs::read_dir(path).map_err(unread)? {
            let file = file.map_err(unread)?;
            let (name, bytes) =
                (file.file_name().to_string_lossy().into_owned(), file.metadata().map_err(unread)?.len());
            files.push(ask.seen(&name, json!({"id": name, "bytes": bytes})));
        }
        Ok(Page::last(files))
    }
}

/// What comes of a folder with two files.
pub async fn run(folder: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let files = folder.join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join("one"), "1")?;
    std::fs::write(files.join("three"), "333")?;
    let running =
        syncline::program().source("folder", Folder).start(settings(folder, &files)?, Arc::new(SystemClock)).await?;
    let changes = running.app().engine.follow(DatasetFilter::all(), Cursor::START);
    let shown = changes.map_ok(|next| next.change.to_string()).take(2).try_collect().await?;
    running.stop().await?;
    Ok(shown)
}

/// The definition with another folder in it, and a data folder beside it.
pub fn settings(folder: &Path, files: &Path) -> Result<Settings, Box<dyn Error>> {
    let definition = include_str!("folder.yaml").replace("path: examples", &format!("path: {}", files.display()));
    std::fs::write(folder.join("folder.yaml"), definition)?;
    let sources = vec![folder.join("folder.yaml").display().to_string()];
    Ok(Settings { data_dir: folder.join("data"), sources, ..Settings::default() })
}

fn main() -> std::process::ExitCode {
    syncline::program().source("folder", Folder).main()
}
