//! The whole program under a name that tests can start and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    syncline::cli::main()
}
