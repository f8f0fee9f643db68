//! The compatible surface, at the root: one file per resource, in the words of that surface.
//!
//! | file | routes |
//! |---|---|
//! | `records` | `/records`, `/records/prune` |
//! | `sync` | `/sync/…` |
//! | `connections`, `metadata` | `/connections…`, the older `/connection…`, and `/v1/connections` |
//! | `unbuilt` | paths of the compatible surface this release does not serve |

mod connections;
mod metadata;
mod records;
mod sync;
mod unbuilt;

use super::routes::Routes;

/// Routes whose answers are written in one piece.
pub(super) fn whole() -> Routes {
    sync::routes().merge(connections::routes()).merge(metadata::routes()).merge(unbuilt::routes())
}

/// Pages, which count their own memory.
pub(super) fn paged() -> Routes {
    records::routes()
}
