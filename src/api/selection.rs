//! What `/v1/records` and `/v1/changes` are asked for: streams and views, of which source and connections.

use super::Api;
use super::query::Query;
use crate::control::scope::Selection;

/// Most names of one kind in a selection.
const NAMES_MAX: usize = 100;

/// The names of a query that make a selection.
pub(super) const NAMES: [&str; 5] = ["source", "stream", "view", "connection", "variant"];

/// Reads a selection. Names of views have to be those of this program; of streams nothing is known.
pub(super) fn selection(api: &Api, query: &mut Query) -> Selection {
    let names = query.all("view");
    let selection = Selection {
        source: query.one("source"),
        streams: query.all("stream"),
        views: Vec::new(),
        connections: query.all("connection"),
        variant: query.one("variant"),
    };
    for (name, list) in [("stream", &selection.streams), ("view", &names), ("connection", &selection.connections)] {
        if list.len() > NAMES_MAX {
            query.fault("too_big", &[name], format!("may be repeated at most {NAMES_MAX} times"));
        }
    }
    // How views are doing comes along with their names: not asked for by those who want none.
    let known = if names.is_empty() { Vec::new() } else { api.app.engine.views() };
    let mut views = Vec::new();
    for name in names {
        match known.iter().find(|view| view.name == name) {
            Some(view) => views.push((view.source.clone(), name)),
            None => {
                let message = format!("this program publishes no view `{name}`; GET /v1/views tells which there are");
                query.fault("unknown_view", &["view"], message);
            }
        }
    }
    Selection { views, ..selection }
}
