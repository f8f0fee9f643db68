//! Whose event it is: the connection the path names, or those whose stored field equals a value of the event.
//!
//! An event nobody owns is never sent to everybody.

use crate::definition::{Route, Webhooks};
use crate::expr::Vars;
use serde_json::Value;
use std::sync::Arc;
use syncline_engine::source::Connection;

/// The connections of one source in one environment.
pub trait SourceConnections {
    /// The connection of this id.
    fn by_id(&self, id: &str) -> Option<Arc<Connection>>;
    /// Connections whose `field` reads as `text`; see [`owns`].
    fn by_field(&self, field: &str, text: &str) -> Vec<Arc<Connection>>;
}

impl SourceConnections for Vec<Arc<Connection>> {
    fn by_id(&self, id: &str) -> Option<Arc<Connection>> {
        self.iter().find(|c| c.id == id).cloned()
    }

    fn by_field(&self, field: &str, text: &str) -> Vec<Arc<Connection>> {
        self.iter().filter(|c| owns(c, field, text)).cloned().collect()
    }
}

/// Whether the connection's `field` (of `fields`, then `metadata`, dotted) reads as `text`; a list owns each of its values.
pub fn owns(connection: &Connection, field: &str, text: &str) -> bool {
    let value = connection
        .fields
        .get(field)
        .or_else(|| field.split('.').try_fold(&connection.metadata, |value, key| value.get(key)));
    match value {
        Some(Value::Array(list)) => list.iter().any(|v| plain(v).as_deref() == Some(text)),
        Some(value) => plain(value).as_deref() == Some(text),
        None => false,
    }
}

/// Numbers and strings that read alike are alike: `62515` owns `"62515"`.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Where an event goes.
pub(super) enum EventRoute {
    To(Vec<Arc<Connection>>),
    Nobody { field: String, value: String },
    Contradicts(String),
}

pub(super) fn route(
    webhooks: &Webhooks,
    path_connection: Option<&str>,
    event: &Value,
    vars: &Vars,
    accounts: &dyn SourceConnections,
) -> EventRoute {
    let value = webhooks.route.as_ref().and_then(|rule| value_of(rule, event, vars));
    if let Some(id) = path_connection {
        return on_path(webhooks, id, value, accounts);
    }
    let field = webhooks.route.as_ref().map(|r| r.field.clone()).unwrap_or_default();
    let Some(value) = value else { return EventRoute::Nobody { field, value: String::new() } };
    let owners = accounts.by_field(&field, &value);
    if owners.is_empty() { EventRoute::Nobody { field, value } } else { EventRoute::To(owners) }
}

/// The path says whose it is; a body that says otherwise is refused.
fn on_path(webhooks: &Webhooks, id: &str, value: Option<String>, accounts: &dyn SourceConnections) -> EventRoute {
    let Some(connection) = accounts.by_id(id) else {
        return EventRoute::Nobody { field: "id".to_owned(), value: id.to_owned() };
    };
    match (&webhooks.route, value) {
        (Some(rule), Some(value)) if !owns(&connection, &rule.field, &value) => EventRoute::Contradicts(format!(
            "the event is of {} {value}, but it came on the path of connection {id}",
            rule.field
        )),
        _ => EventRoute::To(vec![connection]),
    }
}

fn value_of(rule: &Route, event: &Value, vars: &Vars) -> Option<String> {
    plain(&rule.value.first(event, vars).ok()?)
}
