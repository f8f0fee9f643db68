//! `syncline repair`: makes the best of a damaged data folder, and says what is lost.

use super::exit::{Fail, code};
use super::{CommonArgs, settings, show};
use crate::config::LogKind;
use crate::engine::pipeline::Error;
use crate::engine::store::{self, repair};
use std::process::ExitCode;

/// Arguments of `repair`.
#[derive(clap::Args)]
pub(crate) struct RepairArgs {
    /// Says what is damaged and what would be lost, and changes nothing
    #[arg(long)]
    dry_run: bool,
}

/// Repairs.
pub(crate) fn run(common: &CommonArgs, args: &RepairArgs) -> Result<ExitCode, Fail> {
    let settings = settings::load(common, &[], true)?;
    if settings.log == LogKind::Kafka {
        return Err(Fail::new(code::CONFIG, "the log is kept in Kafka (`log: kafka`), the data folder is a copy")
            .hint("a shard's folder that is damaged is rebuilt by itself at the next start"));
    }
    let done = repair(&settings.data_dir, args.dry_run).map_err(|error| match error.at(&settings.data_dir) {
        store::Error::Damaged(what) => Fail::new(code::DAMAGED, what).hint("nothing was changed; `syncline restore`"),
        store::Error::Disk(what) | store::Error::Io { what, .. } => Fail::new(code::FAILURE, what),
        other => Error::from(other).into(),
    })?;
    done.damages.iter().try_for_each(|what| show::line(&format!("damaged  {what}")))?;
    let is = if args.dry_run { "would be lost" } else { "lost" };
    done.lost.iter().try_for_each(|what| show::line(&format!("{is}  {what}")))?;
    match (&done.aside, done.damages.is_empty()) {
        (Some(aside), _) => show::line(&format!("repaired; what was there is in {} now", aside.display()))?,
        (None, true) => show::line("nothing is damaged, nothing was changed")?,
        (None, false) if done.lost.is_empty() => show::line("nothing would be lost; `syncline repair` repairs it")?,
        (None, false) => {
            show::line("nothing was changed; `syncline repair` repairs it, `syncline restore` puts back a backup")?
        }
    }
    Ok(ExitCode::SUCCESS)
}
