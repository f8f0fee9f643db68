//! `syncline functions run NAME`: one function by hand, with nothing kept.
//!
//! | file | what |
//! |---|---|
//! | `given` | what the command line gives it: time, chance, checkpoint, input, … |
//! | `live` | against its provider: as on a server, on a store that is thrown away |
//! | `replay` | against recorded answers |
//!
//! Always dry: a second process must not open the data folder of a running server.

mod given;
pub(super) mod live;
mod replay;

use super::super::CommonArgs;
use super::super::exit::{Fail, code};
use super::super::{settings, show};
use crate::config::Settings;
use crate::engine::model::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use syncline_runtime::Function;
use syncline_runtime::compile::FunctionKind;

/// Records printed of each model, unless told otherwise.
const RECORDS: usize = 5;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// SOURCE/NAME, or NAME where only one source has it
    name: String,
    /// The connection it runs for; not needed where there is one
    #[arg(long, value_name = "ID", conflicts_with = "mocks")]
    connection: Option<String>,
    /// Records printed of each model
    #[arg(long, value_name = "COUNT", default_value_t = RECORDS)]
    records: usize,
    /// Answers requests from a file of recorded answers (as SOURCE/tests/NAME.test.json) instead of the provider
    #[arg(long, value_name = "FILE")]
    mocks: Option<PathBuf>,
    /// Writes requests, answers and records to a new file of recorded answers, without secrets
    #[arg(long, value_name = "FILE", conflicts_with = "mocks")]
    record: Option<PathBuf>,
    /// The time it sees, which stands still (RFC 3339) [default: the time, or that of the recording]
    #[arg(long, value_name = "TIME", value_parser = given::time)]
    now: Option<Timestamp>,
    /// Where its chance begins [default: anywhere, or that of the recording]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The checkpoint it begins at, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = given::object)]
    checkpoint: Option<Value>,
    /// The metadata of the connection, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = given::object)]
    metadata: Option<Value>,
    /// What an action is given: a file of JSON, or JSON
    #[arg(long, value_name = "FILE|JSON", value_parser = given::input, conflicts_with = "webhook")]
    input: Option<Value>,
    /// Runs `onWebhook` of a sync with the event in this file of JSON, instead of `exec`
    #[arg(long, value_name = "FILE", value_parser = given::file)]
    webhook: Option<Value>,
}

/// Runs it.
pub(super) async fn run(common: &CommonArgs, args: &RunArgs) -> Result<ExitCode, Fail> {
    let settings = settings::load(common, &[], true)?;
    match &args.mocks {
        Some(file) => replay::run(&settings, args, file),
        None => live::run(common, settings, args).await,
    }
}

impl RunArgs {
    /// This function, and nothing given to it.
    pub(super) fn of(name: &str, connection: Option<&str>) -> RunArgs {
        RunArgs {
            name: name.to_owned(),
            connection: connection.map(str::to_owned),
            records: RECORDS,
            mocks: None,
            record: None,
            now: None,
            seed: None,
            checkpoint: None,
            metadata: None,
            input: None,
            webhook: None,
        }
    }

    /// Whether this name is meant.
    fn names(&self, function: &Function) -> bool {
        let place = &function.place;
        match self.name.split_once('/') {
            Some((source, name)) => (source, name) == (place.source.as_str(), place.name.as_str()),
            None => self.name == place.name,
        }
    }

    /// Whether a function can do what is asked of it.
    fn fits(&self, function: &Function) -> bool {
        match function.place.kind {
            FunctionKind::Sync if self.webhook.is_some() => function.definition.on_webhook,
            FunctionKind::Sync => self.input.is_none() && function.definition.exec,
            FunctionKind::Action => self.webhook.is_none(),
            FunctionKind::OnEvent => self.input.is_none() && self.webhook.is_none(),
        }
    }

    /// What kind of function is asked for.
    fn wanted(&self) -> &'static str {
        match (&self.input, &self.webhook) {
            (Some(_), _) => "action",
            (_, Some(_)) => "sync with `onWebhook`",
            _ => "sync with `exec`, action or function on an event",
        }
    }

    /// The one that is meant among those that fit, each with how it is told.
    fn one<T>(&self, mut found: Vec<(String, T)>, others: Vec<String>) -> Result<T, Fail> {
        if found.len() > 1 {
            let told: Vec<String> = found.into_iter().map(|(told, _)| told).collect();
            let cause = format!("`{}` is not one function: {}", self.name, told.join(", "));
            return Err(Fail::new(code::USAGE, cause).hint("write SOURCE/NAME and --connection ID"));
        }
        found.pop().map(|(_, one)| one).ok_or_else(|| {
            let hint = match others.is_empty() {
                true => "`syncline functions list` shows all functions".to_owned(),
                false => format!("there are: {}", others.join(", ")),
            };
            Fail::new(code::USAGE, format!("there is no {} `{}` to run", self.wanted(), self.name)).hint(hint)
        })
    }
}

/// `SOURCE/NAME`.
fn name(function: &Function) -> String {
    format!("{}/{}", function.place.source, function.place.name)
}

/// Prints why an action gave no output, in the form in which the API tells it; and the exit code for that.
fn refused(code: &str, message: &str, payload: Option<Value>) -> Result<ExitCode, Fail> {
    let mut error = json!({"code": code, "message": message});
    if let (Some(error), Some(payload)) = (error.as_object_mut(), payload) {
        error.insert("payload".to_owned(), payload);
    }
    show::line(&json!({"error": error}).to_string())?;
    Ok(ExitCode::from(code::FAILED_STREAMS))
}

/// The folder of functions, which has to be there.
fn folder(settings: &Settings) -> Result<PathBuf, Fail> {
    let folder = settings.functions.as_ref().map(|set| set.path.clone()).filter(|path| path.is_dir());
    folder.ok_or_else(|| {
        Fail::new(code::CONFIG, "there is no folder of functions")
            .hint("`syncline functions init SOURCE` writes a first one; `functions: {path: DIR}` in the settings names another")
    })
}
