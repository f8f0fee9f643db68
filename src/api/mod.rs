//! REST: one file per resource.

pub mod hooks;

use crate::control::App;
use std::sync::Arc;

/// All routes of the program: compatible paths at the root, our own under `/v1`, webhooks under `/hooks`.
#[allow(clippy::todo, unused_variables)]
pub fn router(app: Arc<App>) -> axum::Router {
    todo!()
}
