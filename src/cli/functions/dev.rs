//! `syncline functions dev`: compiles functions whenever their files change, and runs one of them if it is named.

use super::super::exit::{Fail, code};
use super::super::signals::Signals;
use super::super::{CommonArgs, settings, show};
use super::run::{RunArgs, live};
use super::{Folder, counted};
use crate::config::{FunctionSettings, Settings};
use crate::engine::time::{Clock, SystemClock};
use crate::registry::reload::FolderFiles;
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks at the files. Those that changed are compiled once they have stood still for as long.
const LOOK: Duration = Duration::from_millis(250);

/// Arguments of `dev`.
#[derive(clap::Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    folder: Folder,
    /// Also runs this function by hand after each change that compiles, as `functions run` does: SOURCE/NAME, or NAME
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The connection it runs for; not needed where there is one
    #[arg(long, value_name = "ID", requires = "name")]
    connection: Option<String>,
}

/// Watches until a signal.
pub(super) async fn run(common: &CommonArgs, args: &DevArgs) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    let folder = &args.folder;
    folder.must_be_there()?;
    let by_hand = match &args.name {
        Some(name) => {
            let path = folder.path.clone();
            let loaded = settings::load(common, &[], true)?;
            let in_process = loaded.functions.as_ref().is_some_and(|set| set.in_process);
            let functions = Some(FunctionSettings { path, named: true, in_process });
            Some((Settings { functions, ..loaded }, RunArgs::of(name, args.connection.as_deref())))
        }
        None => None,
    };
    loop {
        // Before they are read: what changes meanwhile is compiled again.
        let mut files = FolderFiles::new(&folder.path);
        if compile(folder)?
            && let Some((settings, args)) = &by_hand
            && let Err(fail) = live::run(common, settings.clone(), args).await
        {
            told(&fail)?;
        }
        loop {
            tokio::select! {
                // First, since a run by hand has heard it as well.
                biased;
                code = signals.wait() => return Ok(ExitCode::from(code)),
                () = SystemClock.sleep(LOOK) => {}
            }
            if files.changed() {
                break;
            }
        }
        show::line("")?;
    }
}

/// Says what is wrong with the files, or how many functions there are; whether nothing is wrong.
fn compile(folder: &Folder) -> Result<bool, Fail> {
    match folder.load() {
        Ok(functions) => {
            show::line(&format!("ok, {}", counted(functions.all.len(), "function")))?;
            Ok(true)
        }
        Err(fail) if fail.code == code::CONFIG => told(&fail).map(|()| false),
        Err(fail) => Err(fail),
    }
}

fn told(fail: &Fail) -> Result<(), Fail> {
    show::line(&fail.cause)?;
    fail.hint.iter().try_for_each(|hint| show::line(&format!("hint: {hint}")))
}
