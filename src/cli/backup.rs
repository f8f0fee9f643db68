//! `syncline backup DIR` and `syncline restore DIR`.
//!
//! While a server holds the data folder, it makes the checkpoint and this process copies it: so it runs on the server's machine,
//! as a user who may read the folder.

use super::access::Access;
use super::exit::{Fail, code};
use super::{CommonArgs, settings, show};
use crate::config::{LogKind, Settings};
use crate::engine::pipeline::Error;
use crate::engine::store::{self, back_up, checkpoint, restore};
use crate::engine::time::{Clock, SystemClock};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `backup`.
#[derive(clap::Args)]
pub(crate) struct BackupArgs {
    /// Folder of backups; each is a folder in it, named by its time
    dir: PathBuf,
    /// Removes all but the youngest N once the new one is complete
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
}

/// Arguments of `restore`.
#[derive(clap::Args)]
pub(crate) struct RestoreArgs {
    /// A backup, or a folder of backups of which the youngest is taken
    dir: PathBuf,
    /// Sets aside what the data folder holds already
    #[arg(long)]
    replace: bool,
}

/// Backs up.
pub(crate) async fn run(common: &CommonArgs, args: &BackupArgs) -> Result<ExitCode, Fail> {
    let settings = settings::load(common, &[], true)?;
    must_be_kept_here(&settings)?;
    let folder = settings.data_dir.clone();
    match checkpoint(&folder).map_err(|error| Error::from(error.at(&folder))) {
        Ok(()) => {}
        Err(locked @ Error::Locked(_)) => {
            let access = Access::server(&settings, locked.into())?;
            access.post("/v1/checkpoint", None).await?;
        }
        Err(other) => return Err(other.into()),
    }
    let taken = SystemClock.now().to_string();
    let name: String = taken.chars().filter(|c| !matches!(c, ':' | '.')).collect();
    let keep = args.keep.map(usize::from);
    let held = back_up(&folder, &args.dir, &name, taken, keep).map_err(|error| failed(error.at(&args.dir)))?;
    let at = args.dir.join(name);
    show::line(&format!("{}: {} bytes, complete up to write {}", at.display(), held.bytes(), held.sequence))?;
    Ok(ExitCode::SUCCESS)
}

/// Restores.
pub(crate) fn run_restore(common: &CommonArgs, args: &RestoreArgs) -> Result<ExitCode, Fail> {
    let settings = settings::load(common, &[], true)?;
    must_be_kept_here(&settings)?;
    let done = restore(&args.dir, &settings.data_dir, args.replace);
    let done = done.map_err(|error| failed(error.at(&settings.data_dir)))?;
    let (from, to, taken) = (done.from.display(), settings.data_dir.display(), &done.held.taken);
    show::line(&format!("{from}, taken {taken}, is restored to {to}"))?;
    if let Some(aside) = done.aside {
        show::line(&format!("what was there is in {} now; remove it when it is not needed", aside.display()))?;
    }
    show::line(
        "sources go on at their bookmarks of that time; webhooks that came since are gone: list their sources in full",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// With the log in Kafka the folder is a copy of what lies there.
fn must_be_kept_here(settings: &Settings) -> Result<(), Fail> {
    match settings.log {
        LogKind::Kafka => {
            Err(Fail::new(code::CONFIG, "the log is kept in Kafka (`log: kafka`), the data folder is a copy")
                .hint("keep the topics; a folder that is lost or damaged is rebuilt from them by itself"))
        }
        _ => Ok(()),
    }
}

fn failed(error: store::Error) -> Fail {
    match error {
        store::Error::Damaged(what) => Fail::new(code::DAMAGED, what)
            .hint("nothing was put in place of anything; an earlier backup is named by its own folder"),
        store::Error::Disk(what) | store::Error::Io { what, .. } => Fail::new(code::FAILURE, what),
        other => Error::from(other).into(),
    }
}
