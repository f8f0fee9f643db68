//! The command line: one file per verb.

/// Runs the program.
#[allow(clippy::todo)]
pub fn main() -> std::process::ExitCode {
    todo!()
}
