//! What the program that gets killed while it deletes a removed view and the test that kills it agree on.

use std::path::Path;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::model::Timestamp;
use syncline_engine::pipeline::{Error, Options, TABLE_BYTES};
use syncline_engine::time::ManualClock;
use syncline_engine::views::{Definition, Row};

/// The environment of all records.
pub const ENVIRONMENT: &str = "default";
/// The view that is removed.
pub const VIEW: &str = "Doubled";

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Contact {
    n: u64,
}

/// The program before the view was removed.
pub fn before() -> Definition {
    Definition::new(|v| {
        let contacts = v.model::<Contact>("crm", "Contact");
        v.publish(VIEW, &contacts.map(|_, contact| 2 * contact.n));
    })
}

/// Opens the engine with these views.
pub fn open(folder: &Path, workers: usize, views: Option<Definition>) -> Result<Engine, Error> {
    Engine::open(Options {
        data_dir: Some(folder.to_path_buf()),
        workers,
        clock: Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000))),
        views,
        // What begins with two workers is too large for memory.
        table_bytes: if workers == 2 { 2_000 } else { TABLE_BYTES },
        ..Options::default()
    })
}
