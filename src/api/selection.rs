//! What `/v1/records` and `/v1/changes` are asked for: streams and views, of which source and connections.

use super::Api;
use super::cluster::target::{ConnectionNames, NamedIn};
use crate::http::auth::Caller;
use crate::http::query::QueryFields;
use crate::registry::scope::Selection;
use std::collections::BTreeSet;

/// Most names of one kind in a selection.
const NAMES_MAX: usize = 100;

/// The names of a query that make a selection.
pub(super) const NAMES: [&str; 5] = ["source", "stream", "view", "connection", "variant"];

/// Where a selection names its connection.
pub(super) const SELECTED: ConnectionNames =
    ConnectionNames { source: &[NamedIn::Query("source")], connection: &[NamedIn::Query("connection")] };

/// What to do where connections of several partitions are followed.
pub(super) const FOLLOW_ONE: &str = "connections are spread over several processes: follow each with \
                                     `source=SOURCE&connection=ID`, or all of them in their Kafka topic";

/// Most names that are told of those there are.
const TOLD_MAX: usize = 20;

/// Reads a selection. A source, stream or view that nobody has ever heard of is a fault: it would be waited for in vain. A
/// connection may come later.
pub(super) fn selection(api: &Api, caller: &Caller, query: &mut QueryFields) -> Selection {
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
    check_streams(api, caller, &selection, query);
    // How views are doing comes along with their names: not asked for by those who want none.
    let known = if names.is_empty() { Vec::new() } else { api.app.engine.views() };
    let mut views = Vec::new();
    for name in names {
        match known.iter().find(|view| view.name == name) {
            Some(view) => views.push((view.source.clone(), name)),
            None => {
                let message = format!("this program publishes no view `{name}`; GET /v1/views lists them");
                query.fault("unknown_view", &["view"], message);
            }
        }
    }
    Selection { views, ..selection }
}

/// Source and streams have to be in a definition, or have records from when they were.
fn check_streams(api: &Api, caller: &Caller, selection: &Selection, query: &mut QueryFields) {
    let definitions = api.app.definitions.all();
    let of_source = |source: &str| selection.source.as_deref().is_none_or(|wanted| wanted == source);
    let defined = |stream: &String| {
        definitions.iter().any(|(source, definition)| of_source(source) && definition.stream(stream).is_some())
    };
    let source_is_defined = selection.source.as_ref().is_none_or(|source| definitions.contains_key(source));
    if source_is_defined && selection.streams.iter().all(defined) {
        return;
    }
    let datasets = api.app.engine.datasets(&caller.environment);
    if let Some(source) = &selection.source
        && !source_is_defined
        && !datasets.iter().any(|dataset| of_source(&dataset.name.source))
    {
        let known = list(definitions.keys().map(String::as_str));
        return query.fault(
            "unknown_source",
            &["source"],
            format!("no source `{source}` is defined; there is {known}"),
        );
    }
    let recorded = |stream: &str| datasets.iter().any(|d| of_source(&d.name.source) && *d.name.model == *stream);
    let mut unknown: Vec<&String> = selection.streams.iter().filter(|s| !defined(s) && !recorded(s)).collect();
    if unknown.is_empty() {
        return;
    }
    // A view is read as a stream as well, and may have no rows yet.
    let views = api.app.engine.views();
    unknown.retain(|stream| !views.iter().any(|view| of_source(&view.source) && view.name == **stream));
    let of_those = definitions.iter().filter(|(source, _)| of_source(source));
    let known = list(of_those.flat_map(|(_, definition)| definition.streams.iter().map(|s| s.name.as_str())));
    for stream in unknown {
        query.fault("unknown_stream", &["stream"], format!("no stream `{stream}` is defined; there is {known}"));
    }
}

/// Names as text, the first of them if there are many.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    let told: Vec<&str> = names.iter().copied().take(TOLD_MAX).collect();
    match (told.len(), names.len() - told.len()) {
        (0, _) => "none".to_owned(),
        (_, 0) => told.join(", "),
        (_, more) => format!("{} and {more} more", told.join(", ")),
    }
}
