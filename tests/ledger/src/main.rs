//! `make ledger`: adds what the last test runs wrote down to the project's ledger, and makes the page of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let run = syncline_ledger::file();
    match syncline_ledger::add(&run) {
        Ok(0) => {
            println!("ledger: no test has written to {}; the page was made anew", run.display());
            ExitCode::SUCCESS
        }
        Ok(lines) => {
            println!("ledger: {lines} lines of {} were added", run.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("ledger: {why}");
            ExitCode::FAILURE
        }
    }
}
