//! `syncline functions …`: functions in TypeScript, from the first file to a tested one. Only `run` asks a provider.

mod compile;
mod dev;
mod init;
mod list;
mod run;
mod test;

use super::CommonArgs;
use super::exit::{Fail, code};
use crate::registry::functions;
use std::path::PathBuf;
use std::process::ExitCode;
use syncline_runtime::{Complaint, Functions};

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum FunctionsCommand {
    /// Compile and load all functions, and print every complaint
    Compile(Folder),
    /// Compile whenever files change, and run one of them if it is named, until Ctrl-C
    Dev(dev::DevArgs),
    /// What functions there are
    List(list::ListArgs),
    /// Write a first function, its test, and what editors need
    Init(init::InitArgs),
    /// Run one by hand, against its provider or recorded answers, and keep nothing
    Run(run::RunArgs),
    /// Run functions against recorded answers
    Test(test::TestArgs),
}

/// Where functions are.
#[derive(clap::Args)]
pub(crate) struct Folder {
    /// Folder of functions
    #[arg(long, value_name = "DIR", default_value = "./functions")]
    path: PathBuf,
}

/// Runs one of them.
pub(crate) fn run(common: &CommonArgs, command: &FunctionsCommand) -> Result<ExitCode, Fail> {
    match command {
        FunctionsCommand::Compile(folder) => compile::run(folder),
        FunctionsCommand::Dev(args) => super::block_on(dev::run(common, args)),
        FunctionsCommand::List(args) => list::run(args),
        FunctionsCommand::Init(args) => init::run(args),
        FunctionsCommand::Run(args) => super::block_on(run::run(common, args)),
        FunctionsCommand::Test(args) => test::run(args),
    }
}

impl Folder {
    fn must_be_there(&self) -> Result<(), Fail> {
        match self.path.is_dir() {
            true => Ok(()),
            false => Err(Fail::new(code::CONFIG, format!("there is no folder of functions at {}", self.shown("")))
                .hint("`syncline functions init SOURCE` writes a first one; --path names another folder")),
        }
    }

    /// All functions of the folder; every complaint is a line that begins with its place.
    fn load(&self) -> Result<Functions, Fail> {
        self.must_be_there()?;
        let functions = functions::load(&self.path).map_err(|complaints| self.refused(&complaints))?;
        functions.warnings.iter().for_each(|warning| eprintln!("warning: {}", self.line(warning)));
        if functions.all.is_empty() {
            return Err(Fail::new(code::CONFIG, format!("there are no functions in {}", self.shown(""))).hint(
                "functions are in SOURCE/syncs/, SOURCE/actions/ and SOURCE/on-events/; \
                 `syncline functions init SOURCE` writes a first one",
            ));
        }
        Ok(functions)
    }

    fn refused(&self, complaints: &[Complaint]) -> Fail {
        let lines: Vec<String> = complaints.iter().map(|complaint| self.line(complaint)).collect();
        Fail::new(code::CONFIG, lines.join("\n"))
    }

    fn line(&self, complaint: &Complaint) -> String {
        functions::line(&self.path, complaint)
    }

    /// A file of the folder as seen from here.
    fn shown(&self, file: &str) -> String {
        functions::shown(&self.path, file)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// `4 functions`, `1 function`.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
