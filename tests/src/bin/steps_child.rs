//! The program that is killed within the commits of its steps.
//!
//! Usage: `steps_child FOLDER SECOND`. Ends with 0 when its run was complete.

use std::path::Path;
use std::process::ExitCode;
use syncline_engine::pipeline::run::Outcome;
use syncline_tests::steps::{Bench, LISTING};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, second] = &arguments[..] else { panic!("usage: steps_child FOLDER SECOND") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::open(Path::new(folder), second.parse().expect("a number")).expect("opens");
        let report = bench.run(LISTING, true).await;
        match report.map(|report| (report.record.status, report.record.error)) {
            Ok((Outcome::Complete, _)) => ExitCode::SUCCESS,
            other => {
                eprintln!("{other:?}");
                ExitCode::FAILURE
            }
        }
    })
}
