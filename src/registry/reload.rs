//! Functions whose files change while the program runs: the next execution has the new code.
//!
//! Promises: all files compile and can be taken, or the set before runs on, and that is told; an execution ends with the code it
//! began with. Does not: add or remove functions, or change what they declare. Streams, schedules and routes stand on these, so
//! they need a restart.

use crate::connectors::functions::Code;
use crate::connectors::functions::runtime::compile::{FILES, FunctionKind};
use crate::connectors::functions::runtime::{Complaint, Function, Functions};
use crate::engine::model::Timestamp;
use crate::engine::time::Clock;
use crate::registry::functions::{line, load};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between two looks at the folder. Files that changed are read once they have stood still for as long.
pub const LOOK: Duration = Duration::from_secs(2);
/// Endings of files that functions are made of.
const ENDINGS: [&str; 3] = ["ts", "js", "json"];

/// The functions of a folder, and the code of theirs that is in force.
pub struct Reload {
    folder: PathBuf,
    /// As they were at the start.
    declared: Arc<Functions>,
    code: Arc<Code>,
    files: Mutex<FolderFiles>,
    status: Mutex<ReloadStatus>,
    asked: Notify,
    /// One looks at a time: in a cluster several apps have the same functions.
    turn: tokio::sync::Mutex<()>,
}

/// How the functions of a folder stand.
#[derive(Clone, Debug, Default)]
pub struct ReloadStatus {
    /// When the code in force was taken; `None` at the start.
    pub reloaded_at: Option<Timestamp>,
    /// Why the files of the folder are not in force, one complaint a line.
    pub refused: Option<Refused>,
}

/// Files that were not taken.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When.
    pub at: Timestamp,
    /// `file:line:col code message`.
    pub complaints: Vec<String>,
}

impl Reload {
    /// Of functions that are in force; `files` is how the folder was before they were read.
    pub(super) fn new(folder: &Path, declared: Arc<Functions>, files: FolderFiles) -> Reload {
        Reload {
            folder: folder.to_owned(),
            code: Arc::new(Code::new(declared.modules.clone())),
            declared,
            files: Mutex::new(files),
            status: Mutex::default(),
            asked: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The code in force.
    pub fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// The functions, as they were at the start: their names and what they declare stay.
    pub fn functions(&self) -> &[Function] {
        &self.declared.all
    }

    /// How it stands.
    pub fn status(&self) -> ReloadStatus {
        self.status.lock().clone()
    }

    /// Has the files read again, whether they changed or not.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Reads the files whenever they change, or somebody asks, until `stop` is cancelled.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let _turn = tokio::select! {
            turn = self.turn.lock() => turn,
            () = stop.cancelled() => return,
        };
        loop {
            let asked = tokio::select! {
                () = clock.sleep(LOOK) => false,
                () = self.asked.notified() => true,
                () = stop.cancelled() => return,
            };
            let (own, now) = (self.clone(), clock.now());
            let look = move || {
                let changed = own.files.lock().changed();
                if changed || asked {
                    own.read(now);
                }
            };
            if let Err(died) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%died, "looking for changed functions failed");
            }
        }
    }

    /// Takes the files as they are, or says why not.
    fn read(&self, now: Timestamp) {
        let read = load(&self.folder).and_then(|functions| match self.needs_restart(&functions) {
            none if none.is_empty() => Ok(functions),
            complaints => Err(complaints),
        });
        match read {
            Ok(functions) => self.take(functions, now),
            Err(complaints) => self.refuse(&complaints, now),
        }
    }

    fn take(&self, functions: Functions, now: Timestamp) {
        let mut status = self.status.lock();
        let refused = status.refused.take();
        if functions.modules.hash == self.code.current().hash {
            if refused.is_some() {
                tracing::info!("the files of the functions are again as they run");
            }
            return;
        }
        functions.warnings.iter().for_each(|warning| tracing::warn!("{}", line(&self.folder, warning)));
        self.code.replace(functions.modules);
        status.reloaded_at = Some(now);
        tracing::info!(functions = functions.all.len(), "functions reloaded: the next executions have the new code");
    }

    fn refuse(&self, complaints: &[Complaint], now: Timestamp) {
        let complaints: Vec<String> = complaints.iter().map(|complaint| line(&self.folder, complaint)).collect();
        tracing::error!("functions are not reloaded, those before run on: {}", complaints.join("\n"));
        self.status.lock().refused = Some(Refused { at: now, complaints });
    }

    /// What cannot be taken while the program runs.
    fn needs_restart(&self, functions: &Functions) -> Vec<Complaint> {
        let complain = |file: &str, why: String| {
            Complaint::of_file(file, "needs_restart", format!("{why}: restart the server to take the changes"))
        };
        let (before, after) = (by_place(&self.declared), by_place(functions));
        let gone = before.iter().filter(|(place, _)| !after.contains_key(*place));
        let gone = gone.map(|(_, one)| complain(&one.place.file, "the function was there at the start".to_owned()));
        let other = after.iter().filter_map(|(place, now)| match before.get(place) {
            None => Some(complain(&now.place.file, "the function was not there at the start".to_owned())),
            Some(then) => {
                let changed = changed(then, now);
                let told = || complain(&now.place.file, format!("{} of the function changed", changed.join(", ")));
                (!changed.is_empty()).then(told)
            }
        });
        gone.chain(other).collect()
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("folder", &self.folder).finish_non_exhaustive()
    }
}

type Place<'a> = (&'a str, FunctionKind, &'a str);

fn by_place(functions: &Functions) -> BTreeMap<Place<'_>, &Function> {
    let mut all = BTreeMap::new();
    for one in &functions.all {
        all.insert((one.place.source.as_str(), one.place.kind, one.place.name.as_str()), one);
    }
    all
}

/// What a function declares otherwise, of that which the program has arranged for it.
fn changed(then: &Function, now: &Function) -> Vec<&'static str> {
    let (a, b) = (&then.definition, &now.definition);
    let same = [
        ("the file", then.place.file == now.place.file),
        ("`models`", a.models == b.models),
        ("`frequency`", a.frequency == b.frequency),
        ("`autoStart`", a.auto_start == b.auto_start),
        ("`trackDeletes`", a.track_deletes == b.track_deletes),
        ("`webhookSubscriptions`", a.webhook_subscriptions == b.webhook_subscriptions),
        ("`event`", a.event == b.event),
        ("whether there is `exec`", a.exec == b.exec),
        ("whether there is `onWebhook`", a.on_webhook == b.on_webhook),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
}

/// The files of a folder, by when they were changed and how long they are.
#[derive(Debug)]
pub struct FolderFiles {
    folder: PathBuf,
    seen: Files,
    /// They changed, and may go on changing.
    moving: Option<Files>,
}

type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

impl FolderFiles {
    /// As they are.
    pub fn new(folder: &Path) -> FolderFiles {
        FolderFiles { folder: folder.to_owned(), seen: files(folder), moving: None }
    }

    /// Whether they have changed, and stood still since the last look.
    pub fn changed(&mut self) -> bool {
        let now = files(&self.folder);
        if now == self.seen {
            self.moving = None;
            return false;
        }
        if self.moving.as_ref() == Some(&now) {
            (self.seen, self.moving) = (now, None);
            return true;
        }
        self.moving = Some(now);
        false
    }
}

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What cannot be read is said by whoever compiles it.
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") || name == "node_modules" || found.len() >= FILES {
                continue;
            }
            let ours = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() && ours => drop(found.insert(path, (meta.modified().ok(), meta.len()))),
                // A link may lead back up.
                Ok(meta) if meta.is_dir() && entry.file_type().is_ok_and(|kind| kind.is_dir()) => folders.push(path),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_they_stand_still() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("shop/syncs/a.ts", "1");
        let mut files = FolderFiles::new(dir.path());
        assert!(!files.changed());
        write("shop/helpers.ts", "12");
        assert!(!files.changed(), "it may not be whole yet");
        write("shop/helpers.ts", "123");
        assert!(!files.changed(), "it was not");
        assert!(files.changed());
        assert!(!files.changed(), "once");
        write("node_modules/zod/index.js", "");
        write("shop/notes.txt", "");
        assert!(!files.changed() && !files.changed(), "of others");
        fs::remove_file(dir.path().join("shop/helpers.ts")).expect("removed");
        assert!(!files.changed() && files.changed());
    }
}
