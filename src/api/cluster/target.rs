//! Who answers a route where several processes share the connections, and where a request says whom it concerns.
//!
//! A request is read here without judging whether it is well made: whoever answers it does.

use super::across::{Across, MergedAnswer, merged};
use crate::cluster::spread::Spread;
use crate::engine::Engine;
use crate::engine::model::Cause;
use crate::http::query;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde_json::Value;

/// Who answers a route.
pub(in crate::api) enum RouteTarget {
    /// The process that is asked.
    Local,
    /// The owner of the connection that the request names.
    Connection(ConnectionTarget),
    /// The owner of the connection that the headers of the request name; its body is passed on as it comes.
    Passed(ConnectionNames),
    /// The owner that gave what is named in this parameter of the path its name, in which it stands.
    Named(&'static str, OwnerInName),
    /// All owners, and what they say is one answer.
    All(Gather),
    /// Nobody; what to do instead.
    Refused(&'static str),
    /// Nobody, since one process alone can do it; what to do instead.
    Alone(&'static str),
}

/// Reads the partition that a name holds.
pub(in crate::api) type OwnerInName = fn(&str) -> Option<u16>;

/// Asks owners and makes one answer of theirs.
pub(in crate::api) type Gather = fn(Across) -> BoxFuture<'static, Response>;

/// A route whose requests name a connection.
pub(in crate::api) struct ConnectionTarget {
    names: ConnectionNames,
    /// What to do instead where a request names connections of several partitions, if that has an answer of its own.
    several: Option<&'static str>,
    /// Who answers where no connection is named, or not enough of it to say whose it is.
    otherwise: Box<RouteTarget>,
}

/// Where requests name a connection and its source; the first place that says something counts.
#[derive(Clone, Copy)]
pub(in crate::api) struct ConnectionNames {
    pub source: &'static [NamedIn],
    pub connection: &'static [NamedIn],
}

/// A place of a request where a name stands.
#[derive(Clone, Copy)]
pub(in crate::api) enum NamedIn {
    Header(&'static str),
    /// Of the query, where it may be repeated.
    Query(&'static str),
    /// Of a body that is a JSON object: a text, or a list of them.
    Body(&'static str),
    /// A parameter of the path.
    Path(&'static str),
}

/// All of a request that says whom it concerns.
pub(super) struct RequestNames<'a> {
    pub head: &'a Parts,
    /// Parameters of the path, decoded.
    pub parameters: &'a [(String, String)],
    pub body: &'a [u8],
    pub environment: &'a str,
}

/// What is known of the connections of a cluster.
pub(super) struct ConnectionsKnown<'a> {
    pub spread: Spread,
    /// The source of a connection whose id is unique in its environment.
    pub only_source: &'a dyn Fn(&str) -> Option<String>,
}

/// Whom one request concerns.
pub(super) enum Destination {
    Local,
    /// The owner of a partition.
    Owner(i32),
    All(Gather),
    Refused(&'static str),
    Alone(&'static str),
}

/// Every process answers the same.
pub(in crate::api) fn local() -> RouteTarget {
    RouteTarget::Local
}

/// The owner of the connection that is named; see [`RouteTarget::or`].
pub(in crate::api) fn owner_of(names: ConnectionNames) -> RouteTarget {
    RouteTarget::Connection(ConnectionTarget { names, several: None, otherwise: Box::new(RouteTarget::Local) })
}

/// The owner of the connection that headers name, to whom the body is passed on as it comes.
pub(in crate::api) fn passed_to_owner_of(names: ConnectionNames) -> RouteTarget {
    RouteTarget::Passed(names)
}

/// The owner of the run whose id stands in this parameter of the path.
pub(in crate::api) fn owner_of_run(parameter: &'static str) -> RouteTarget {
    named_by_owner(parameter, |id| Cause::parse(id).map(|run| Engine::part_of(run.number)))
}

/// The owner that gave what is named in this parameter of the path its name.
pub(in crate::api) fn named_by_owner(parameter: &'static str, owner: OwnerInName) -> RouteTarget {
    RouteTarget::Named(parameter, owner)
}

/// All owners; their answers are merged.
pub(in crate::api) fn all_owners<T: MergedAnswer>() -> RouteTarget {
    RouteTarget::All(merged::<T>)
}

/// 400 `name_a_connection`, with what to do instead.
pub(in crate::api) fn refused(advice: &'static str) -> RouteTarget {
    RouteTarget::Refused(advice)
}

/// 501 `not_in_a_cluster`, with what to do instead.
pub(in crate::api) fn alone(advice: &'static str) -> RouteTarget {
    RouteTarget::Alone(advice)
}

impl RouteTarget {
    /// Who answers where no connection is named; any process, if nothing is said.
    pub(in crate::api) fn or(self, otherwise: RouteTarget) -> RouteTarget {
        match self {
            RouteTarget::Connection(of) => {
                RouteTarget::Connection(ConnectionTarget { otherwise: Box::new(otherwise), ..of })
            }
            other => other,
        }
    }

    /// The advice for requests that name connections of several partitions.
    pub(in crate::api) fn refuse_several(self, advice: &'static str) -> RouteTarget {
        match self {
            RouteTarget::Connection(of) => RouteTarget::Connection(ConnectionTarget { several: Some(advice), ..of }),
            other => other,
        }
    }

    /// Whom this request concerns.
    pub(super) fn resolve(&self, request: &RequestNames<'_>, known: &ConnectionsKnown<'_>) -> Destination {
        match self {
            RouteTarget::Local => Destination::Local,
            RouteTarget::All(gather) => Destination::All(*gather),
            RouteTarget::Refused(advice) => Destination::Refused(advice),
            RouteTarget::Alone(advice) => Destination::Alone(advice),
            RouteTarget::Named(parameter, owner) => {
                let owner = request.parameter(parameter).and_then(|id| owner(&id)).map(i32::from);
                // A name that nobody gave is unknown everywhere.
                owner.filter(|owner| *owner < known.spread.count).map_or(Destination::Local, Destination::Owner)
            }
            RouteTarget::Passed(names) => owner_of(*names).resolve(request, known),
            RouteTarget::Connection(of) => match of.owners(request, known).as_slice() {
                [] => of.otherwise.resolve(request, known),
                [first, rest @ ..] if rest.iter().all(|one| one == first) => Destination::Owner(*first),
                _ => match of.several {
                    Some(advice) => Destination::Refused(advice),
                    None => of.otherwise.resolve(request, known),
                },
            },
        }
    }
}

impl ConnectionTarget {
    /// The partitions of the connections that a request names.
    fn owners(&self, request: &RequestNames<'_>, known: &ConnectionsKnown<'_>) -> Vec<i32> {
        let source = request.named(self.names.source).into_iter().next();
        let connections = request.named(self.names.connection);
        let owner = |id: &String| {
            let source = source.clone().or_else(|| (known.only_source)(id))?;
            Some(known.spread.of(request.environment, &source, id))
        };
        connections.iter().map(owner).collect::<Option<_>>().unwrap_or_default()
    }
}

impl RequestNames<'_> {
    /// What the first place says that says something.
    fn named(&self, places: &[NamedIn]) -> Vec<String> {
        let said = places.iter().map(|place| self.at(*place));
        said.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
    }

    fn at(&self, place: NamedIn) -> Vec<String> {
        let mut names: Vec<String> = match place {
            NamedIn::Header(name) => query::header(&self.head.headers, name).into_iter().collect(),
            NamedIn::Path(name) => self.parameter(name).into_iter().collect(),
            NamedIn::Query(name) => {
                let pairs = url::form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes());
                pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.into_owned()).collect()
            }
            NamedIn::Body(name) => {
                match serde_json::from_slice::<Value>(self.body).ok().as_mut().map(|b| b[name].take()) {
                    Some(Value::String(text)) => vec![text],
                    Some(Value::Array(list)) => list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
                    _ => Vec::new(),
                }
            }
        };
        names.retain(|name| !name.is_empty());
        names
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}
