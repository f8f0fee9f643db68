//! The command line: one file per verb.
//!
//! Data goes to stdout, everything else to stderr; exit codes are those of [`exit`]. Verbs that read work on the data folder
//! when no server holds it, and ask the server otherwise (see [`access`]).

mod access;
mod backup;
mod changes;
mod check;
mod connections;
mod decide;
mod deliveries;
mod demo;
pub mod exit;
#[cfg(feature = "functions")]
mod functions;
mod init;
mod logs;
pub(crate) mod program;
mod quarantine;
mod records;
mod repair;
mod run;
mod runs;
mod schema;
mod serve;
#[cfg(feature = "kafka")]
mod serve_cluster;
mod settings;
mod show;
mod signals;
mod validate;
mod webhook;

use crate::config::Extensions;
use clap::{Args, Parser, Subcommand};
use exit::{Fail, code};
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// Polled APIs and webhooks become one exact change stream.
#[derive(Parser)]
#[command(name = "syncline", version, about, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags every verb takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct CommonArgs {
    /// Settings file [default: ./syncline.yaml, then the user's, then the system's]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Data folder
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Folder or files of definitions; may be repeated
    #[arg(long, value_name = "PATH", global = true)]
    sources: Vec<PathBuf>,
    /// Isolation scope
    #[arg(long, value_name = "NAME", default_value = "default", global = true)]
    environment: String,
    /// How log lines look [default: as set, else auto]
    #[arg(long, value_enum, global = true)]
    log_format: Option<logs::Format>,
    /// Which log lines are shown: error, warn, info, debug, trace [default: as set; warn for foreground verbs]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// What the program's own code brings.
    #[arg(skip)]
    extensions: Extensions,
}

#[derive(Subcommand)]
enum Verb {
    /// Show it at work: a fake provider, webhooks and the engine in one process; no account, no network, no files left
    Demo(demo::DemoArgs),
    /// Write a first definition and settings
    Init(init::InitArgs),
    /// Check definitions and settings without any request
    Validate(validate::ValidateArgs),
    /// Print the JSON Schema of definition files, for editors
    Schema,
    /// Sign in at a source and read one page of each stream
    Check(check::CheckArgs),
    /// One run in the foreground
    Run(run::Args),
    /// Serve the API, run syncs on schedule, take webhooks
    Serve(serve::ServeArgs),
    /// Read the change stream
    Changes(changes::ChangesArgs),
    /// Read records
    #[command(subcommand)]
    Records(records::RecordsCommand),
    /// Look at runs
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Look at what could not be taken, try it again, drop it
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Look at outgoing webhooks, send again or drop those given up
    #[command(subcommand)]
    Deliveries(deliveries::DeliveriesCommand),
    /// Apply deletes that a run holds
    Approve(decide::DecideArgs),
    /// Keep the records a run wanted to delete
    Reject(decide::DecideArgs),
    /// Look at connections
    #[command(subcommand)]
    Connections(connections::ConnectionsCommand),
    /// Inbound webhooks
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Functions in TypeScript: write, check, test
    #[cfg(feature = "functions")]
    #[command(subcommand)]
    Functions(functions::FunctionsCommand),
    /// Write a checked backup of the data folder, also while a server runs
    Backup(backup::BackupArgs),
    /// Put a backup into the data folder
    Restore(backup::RestoreArgs),
    /// Make the best of a damaged data folder, and say what is lost
    Repair(repair::RepairArgs),
}

/// Runs the command line of this process with what its code brings; `wrong` is what is wrong with that.
pub(crate) fn main(extensions: Extensions, wrong: &[String]) -> ExitCode {
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no failures; clap knows which is which.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { code::USAGE } else { 0 });
        }
    };
    // What this program writes is nobody else's business on the machine.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    cli.common.extensions = extensions;
    if !wrong.is_empty() {
        return Fail::new(code::CONFIG, wrong.join("\n")).end();
    }
    match cli.verb {
        Verb::Demo(args) => demo::run(args),
        verb => ended(dispatch(&cli.common, verb)),
    }
}

fn dispatch(common: &CommonArgs, verb: Verb) -> Result<ExitCode, Fail> {
    match verb {
        Verb::Demo(args) => Ok(demo::run(args)),
        Verb::Init(args) => init::run(&args),
        Verb::Validate(args) => validate::run(common, &args),
        Verb::Schema => schema::run(),
        Verb::Check(args) => block_on(check::run(common, &args)),
        Verb::Run(args) => block_on(run::run(common, &args)),
        Verb::Serve(args) => block_on(serve::run(common, &args)),
        Verb::Changes(args) => block_on(changes::run(common, &args)),
        Verb::Records(verb) => block_on(records::run(common, &verb)),
        Verb::Runs(verb) => block_on(runs::run(common, &verb)),
        Verb::Quarantine(verb) => block_on(quarantine::run(common, &verb)),
        Verb::Deliveries(verb) => block_on(deliveries::run(common, &verb)),
        Verb::Approve(args) => block_on(decide::run(common, &args, true)),
        Verb::Reject(args) => block_on(decide::run(common, &args, false)),
        Verb::Connections(verb) => block_on(connections::run(common, &verb)),
        Verb::Webhook(verb) => block_on(webhook::run(common, &verb)),
        #[cfg(feature = "functions")]
        Verb::Functions(command) => functions::run(common, &command),
        Verb::Backup(args) => block_on(backup::run(common, &args)),
        Verb::Restore(args) => backup::run_restore(common, &args),
        Verb::Repair(args) => repair::run(common, &args),
    }
}

fn ended(result: Result<ExitCode, Fail>) -> ExitCode {
    result.unwrap_or_else(|fail| fail.end())
}

fn block_on(work: impl Future<Output = Result<ExitCode, Fail>>) -> Result<ExitCode, Fail> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Fail::new(code::INTERNAL, format!("the runtime could not be started: {e}")))?
        .block_on(work)
}
