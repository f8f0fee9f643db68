//! The compatible surface, at the root: one file per resource, in the words of that surface.
//!
//! | file | routes |
//! |---|---|
//! | `records` | `/records`, `/records/prune` |
//! | `sync` | `/sync/…` |
//! | `connections`, `metadata` | `/connections…`, the older `/connection…`, and `/v1/connections` |
//! | `integrations` | `/integrations…`, `/providers…`, `/scripts/config`, `/environment-variables` |
//! | `actions` | `/action/…`; not in a program without the feature `functions` |
//! | `proxy` | `/proxy/…` |
//! | `unbuilt` | paths of the compatible surface this release does not serve |

#[cfg(feature = "functions")]
mod actions;
mod connections;
mod integrations;
mod metadata;
mod proxy;
mod records;
mod sync;
mod unbuilt;

pub(super) use connections::credentials_by_name;

use super::routes::Routes;

/// Routes whose answers are written in one piece.
pub(super) fn whole() -> Routes {
    let all = sync::routes()
        .merge(connections::routes())
        .merge(metadata::routes())
        .merge(integrations::routes())
        .merge(unbuilt::routes());
    #[cfg(feature = "functions")]
    let all = all.merge(actions::routes());
    all
}

/// Pages, which count their own memory, and what is passed on as it comes.
pub(super) fn paged() -> Routes {
    records::routes().merge(proxy::routes())
}
