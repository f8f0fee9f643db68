//! The program that is killed while it deletes a removed view.
//!
//! Usage: `retract_child FOLDER WORKERS`. Lines: `open`, `time N` whenever another engine time is committed, `retracted N` at
//! the end; then it waits to be killed.

use std::io::Write;
use std::path::Path;
use syncline_tests::retraction::{ENVIRONMENT, VIEW, open};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, workers] = &arguments[..] else { panic!("usage: retract_child FOLDER WORKERS") };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let engine = open(Path::new(folder), workers.parse().expect("a number"), None).expect("opens");
        let mut watermark = engine.watermark();
        watermark.mark_unchanged();
        tokio::spawn(async move {
            while watermark.changed().await.is_ok() {
                say(&format!("time {}", watermark.borrow_and_update().0));
            }
        });
        say("open");
        let deleted = engine.retract_view(ENVIRONMENT, VIEW).await.expect("retracts");
        say(&format!("retracted {deleted}"));
        std::future::pending::<()>().await;
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then there is nobody to tell and nothing to do.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
