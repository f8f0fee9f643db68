//! Where settings come from on the command line: flags, environment, files; and what verbs without a server need of them.

use super::CommonArgs;
use super::exit::{Fail, code};
use super::logs;
use crate::app::{App, OpenError};
use crate::config::{self, LoadedSettings, LogFormat, Origin, Settings};
use crate::engine::Engine;
use crate::engine::pipeline::Options;
use crate::engine::time::SystemClock;
use crate::registry::definitions::{self, Definitions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The settings file beside the working directory.
pub(crate) const FILE: &str = "syncline.yaml";

/// Settings in force for this command, with logging begun. `quiet` verbs log warnings only, unless told otherwise.
pub(crate) fn load(common: &CommonArgs, flags: &[(&str, &str)], quiet: bool) -> Result<Settings, Fail> {
    let LoadedSettings { settings, warnings, .. } = read(common, flags)?;
    let format = common.log_format.unwrap_or(match settings.logs.format {
        LogFormat::Auto => logs::Format::Auto,
        LogFormat::Pretty => logs::Format::Pretty,
        LogFormat::Json => logs::Format::Json,
    });
    let level = match &common.log_level {
        Some(level) => level.as_str(),
        None if quiet => "warn",
        None => settings.logs.level.as_str(),
    };
    logs::begin(format, level)?;
    for warning in warnings {
        tracing::warn!("{}", warning.line());
    }
    Ok(settings)
}

/// The same without logging.
pub(crate) fn read(common: &CommonArgs, flags: &[(&str, &str)]) -> Result<LoadedSettings, Fail> {
    let mut all: Vec<(String, String)> = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    if let Some(dir) = &common.data_dir {
        all.push(("data_dir".into(), dir.display().to_string()));
    }
    let origin = Origin { flags: all, env: environment(), files: files(common)? };
    let mut loaded = config::load(&origin).map_err(|complaints| Fail::new(code::CONFIG, complaints.to_string()))?;
    if !common.sources.is_empty() {
        loaded.settings.sources = common.sources.iter().map(|p| p.display().to_string()).collect();
    }
    loaded.settings.extensions = common.extensions.clone();
    Ok(loaded)
}

/// Opens the data folder. One that is in use is a failure with code 75.
pub(crate) async fn open(settings: Settings) -> Result<Arc<App>, Fail> {
    App::open(settings, Arc::new(SystemClock)).await.map_err(Fail::from)
}

/// An app over a temporary folder that goes with it: for checks and dry runs.
pub(crate) async fn scratch(settings: Settings) -> Result<Arc<App>, Fail> {
    let definitions = definitions::load(&settings).map_err(OpenError::from)?;
    scratch_of(settings, definitions).await
}

/// The same with definitions that are loaded.
pub(crate) async fn scratch_of(settings: Settings, definitions: Definitions) -> Result<Arc<App>, Fail> {
    let options = Options::default();
    let engine = tokio::task::spawn_blocking(move || Engine::open(options))
        .await
        .map_err(|e| Fail::new(code::INTERNAL, format!("the engine could not be opened: {e}")))??;
    App::with(engine, settings, definitions).await.map_err(Fail::from)
}

/// Variables of the environment that are text; others cannot be named in a file.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Settings files that count, highest rank first.
fn files(common: &CommonArgs) -> Result<Vec<PathBuf>, Fail> {
    if let Some(file) = &common.config {
        if !file.is_file() {
            return Err(Fail::new(code::CONFIG, format!("the settings file {} does not exist", file.display()))
                .hint("`syncline init` writes one"));
        }
        return Ok(vec![file.clone()]);
    }
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let mut all = vec![PathBuf::from(FILE)];
    all.extend(home.map(|dir| dir.join("syncline/config.yaml")));
    all.push(PathBuf::from("/etc/syncline/syncline.yaml"));
    all.retain(|file| file.is_file());
    Ok(all)
}
