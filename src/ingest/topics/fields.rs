//! One message of somebody else's topic (`streams[].topic`): its value is an item, no value is the delete of its key.

use super::group::TopicBatch;
use super::outcome::{MessageOutcome, Met};
use super::target::{Name, headers};
use super::task::TopicWork;
use crate::connectors::definition::Topic;
use crate::connectors::expr::Vars;
use crate::connectors::kafka::input::{Bad, Message, MessageKey};
use crate::connectors::mapping::SeenAt;
use crate::connectors::mapping::text::{Given, MappedRow, RowBody, refuse_text};
use crate::engine::model::{Timestamp, record_id};
use crate::engine::pipeline::Error;
use serde_json::Value;

/// The item of a message.
enum Item<'a> {
    /// The value as it came.
    Text(&'a str),
    Tree(Value),
    /// The record is gone.
    Gone,
    /// Not meant for the stream.
    Nothing,
}

impl TopicWork {
    /// Takes a message of a stream's topic into the group.
    pub fn record<'c>(
        &mut self,
        group: &mut TopicBatch<'c>,
        (stream, topic): (&str, &Topic),
        message: Message<'c>,
        at: Timestamp,
    ) -> Result<MessageOutcome, Error> {
        let (item, account) = match self.item(topic, message) {
            Ok(read) => read,
            Err(bad) => return Ok(MessageOutcome::Nobodys(bad)),
        };
        if matches!(item, Item::Nothing) {
            return Ok(MessageOutcome::Ignored);
        }
        let (environment, connection) = account;
        let name = Name { environment: &environment, connection: &connection, stream, variant: None };
        let target = match self.targets.find(&self.inner.parts, &self.spec, name)? {
            Ok(target) => target,
            Err(bad) => return Ok(MessageOutcome::stray(bad)),
        };
        match self.met(group, &connection, None, message)? {
            Met::New => {}
            Met::Before => return Ok(MessageOutcome::Duplicate),
            Met::Bad(bad) => return Ok(MessageOutcome::Dead(bad)),
        }
        if let Item::Gone = item {
            let id = self.targets.get(target).map_or_else(|| Err(String::new()), |target| id_of_key(message, target));
            let id = match id {
                Ok(id) => id,
                Err(why) => return Ok(MessageOutcome::Dead(Bad::new("bad_key", format!("a delete by key: {why}")))),
            };
            if let Some(target) = self.targets.get_mut(target) {
                group.release(target, &id);
                group.page(&self.inner.parts.engine, &target.dataset).delete(&id, None, at, None);
            }
            group.tally.records += 1;
            return Ok(MessageOutcome::Applied);
        }
        let taken = self.lay(group, target, &item, message, at);
        self.account(group, target, taken, (false, 0), message, at)?;
        Ok(MessageOutcome::Applied)
    }

    fn lay(
        &mut self,
        group: &mut TopicBatch<'_>,
        target: usize,
        item: &Item<'_>,
        message: Message<'_>,
        at: Timestamp,
    ) -> Result<String, crate::engine::source::Quarantined> {
        let stray = || refuse_text("bad_record", "no target".into(), None, "");
        let target = self.targets.get_mut(target).ok_or_else(stray)?;
        let seen = SeenAt { observed_at: at, answered_at: self.now };
        let row: MappedRow<'_> = match item {
            Item::Text(text) => {
                let mapper = target.mapper.clone();
                mapper.read_text(text, Given::default(), seen, &mut || target.vars(message)).map(own)?
            }
            Item::Tree(item) => target.mapper.read_value(item, Given::default(), seen, &target.vars(message))?,
            Item::Gone | Item::Nothing => return Err(stray()),
        };
        group.release(target, &row.id);
        let page = group.page(&self.inner.parts.engine, &target.dataset);
        match &row.body {
            RowBody::Whole(text) => page.save(&row.id, row.modified_at, at, text.as_bytes()),
            RowBody::Gone(deleted_at) => page.delete(&row.id, row.modified_at, at, *deleted_at),
        }
        Ok(row.id.into_owned())
    }

    /// The item, and environment and id of the connection it belongs to.
    fn item<'c>(&self, topic: &Topic, message: Message<'c>) -> Result<(Item<'c>, (String, String)), Bad> {
        let json = message.value().map(std::str::from_utf8).transpose();
        let json = json
            .map_err(|e| Bad::new("not_utf8", format!("the value is not UTF-8 text after byte {}", e.valid_up_to())))?;
        let not_json = |e: serde_json::Error| Bad::new("not_json", format!("the value is not JSON: {e}"));
        if topic.value.is_none() && topic.connection.is_none() {
            let Some(json) = json else { return Ok((Item::Gone, self.only()?)) };
            let raw: &serde_json::value::RawValue = serde_json::from_str(json).map_err(not_json)?;
            return match raw.get().as_bytes().first() {
                Some(b'{') => Ok((Item::Text(raw.get()), self.only()?)),
                Some(b'n') => Ok((Item::Gone, self.only()?)),
                _ => Err(Bad::new("not_an_object", "the value is no JSON object; `topic.value` may cut one out")),
            };
        }
        let value: Value = json.map_or(Ok(Value::Null), serde_json::from_str).map_err(not_json)?;
        let vars = Vars { h: headers(message), ..Vars::default() };
        let account = match &topic.connection {
            None => self.only()?,
            Some(expression) => {
                let named = expression.first(&value, &vars);
                let named = named.map_err(|e| Bad::new("bad_expression", format!("topic.connection: {e}")))?;
                self.named(&named)?
            }
        };
        if value.is_null() {
            return Ok((Item::Gone, account));
        }
        let Some(expression) = &topic.value else { return Ok((Item::Tree(value), account)) };
        let outputs = expression.all(&value, &vars);
        let outputs = outputs.map_err(|e| Bad::new("bad_expression", format!("topic.value: {e}")))?;
        Ok(match outputs.into_iter().next() {
            None => (Item::Nothing, account),
            Some(Value::Null) => (Item::Gone, account),
            Some(item) => (Item::Tree(item), account),
        })
    }

    /// The source's only connection.
    fn only(&self) -> Result<(String, String), Bad> {
        match self.accounts.as_slice() {
            [one] => Ok(one.clone()),
            all => {
                let source = &self.spec.definition.source;
                let message = format!(
                    "source {source} has {} connections: write `topic.connection`, which says whose",
                    all.len()
                );
                Err(Bad::new("unknown_connection", message))
            }
        }
    }

    fn named(&self, named: &Value) -> Result<(String, String), Bad> {
        let text = match named {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                let hint = "a message without a value can name it in a header: `$h.name`";
                return Err(Bad::new("unknown_connection", format!("`topic.connection` gives no text; {hint}")));
            }
        };
        let mut found = self.accounts.iter().filter(|(_, id)| *id == text);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => {
                let source = &self.spec.definition.source;
                let shown: String = text.chars().take(100).collect();
                Err(Bad::new("unknown_connection", format!("source {source} has no connection `{shown}`")))
            }
            _ => Err(Bad::new("ambiguous_connection", format!("connection `{text}` is in several environments"))),
        }
    }
}

fn own(row: MappedRow<'_>) -> MappedRow<'static> {
    let body = match row.body {
        RowBody::Whole(text) => RowBody::Whole(text.into_owned().into()),
        RowBody::Gone(at) => RowBody::Gone(at),
    };
    MappedRow { id: row.id.into_owned().into(), body, modified_at: row.modified_at, warning: row.warning }
}

/// The id in a message's key: a string, number or list of them as JSON; an object is read by the stream's `key`; any other
/// text is the id itself.
fn id_of_key(message: Message<'_>, target: &super::target::RecordTarget) -> Result<String, String> {
    let key = message.key().ok_or_else(|| "the message has no key".to_owned())?;
    if let Some(key) = MessageKey::of_bytes(key) {
        return key.id(target.stream().composite).map(|id| id.into_owned());
    }
    let text = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8 text".to_owned())?;
    match serde_json::from_str::<Value>(text) {
        Ok(item @ Value::Object(_)) => target.mapper.key(&item, &target.vars(message)),
        Ok(_) => Err(format!("the key {text} names no record")),
        Err(_) if target.stream().composite => Err("the key is no list of parts".to_owned()),
        Err(_) => record_id(&Value::from(text)).map_err(|e| e.to_string()),
    }
}
