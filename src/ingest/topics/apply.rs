//! One message of an input topic: whose it is, whether it is new, what it says.

use super::group::TopicBatch;
use super::outcome::{MessageOutcome, Met};
use super::repeats::Numbered;
use super::target::Name;
use super::task::TopicWork;
use crate::connectors::kafka::input::{Bad, Message, MessageRecord, Op, ParsedMessage, glance, message};
use crate::connectors::mapping::SeenAt;
use crate::connectors::mapping::text::{Given, RowBody, refuse_text};
use crate::engine::model::Timestamp;
use crate::engine::pipeline::Error;
use crate::engine::source::Quarantined;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// How long ids of messages are remembered.
const REMEMBERED: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// Longest name of a producer, bytes.
const PRODUCER_BYTES: usize = 255;
/// Times our text form can show; others are refused.
const TIMES: [i64; 2] = [-377_705_023_201_000_000, 253_402_207_200_000_000];
/// Field no record may have.
const RESERVED: &str = "_nango_metadata";

impl TopicWork {
    /// Takes a message of an input topic into the group.
    pub fn message<'c>(
        &mut self,
        group: &mut TopicBatch<'c>,
        message: Message<'c>,
        at: Timestamp,
    ) -> Result<MessageOutcome, Error> {
        let input = match message.value() {
            Some(value) => message::parse(value),
            None => message::parse_gone(message.key()),
        };
        let input = match input {
            Ok(input) => input,
            Err(bad) if self.is_own(message) => return Ok(MessageOutcome::Dead(bad)),
            Err(bad) => return Ok(MessageOutcome::Nobodys(bad)),
        };
        let environment = self.spec.environment.clone();
        let name = Name {
            environment: &environment,
            connection: &input.connection,
            stream: &input.stream,
            variant: input.variant.as_deref(),
        };
        let target = match self.targets.find(&self.inner.parts, &self.spec, name)? {
            Ok(target) => target,
            Err(bad) => return Ok(MessageOutcome::stray(bad)),
        };
        if let Some(bad) = self.listing_refused(target, &input) {
            return Ok(MessageOutcome::Dead(bad));
        }
        if self.begins_listing(target, &input) && !group.is_blank() {
            return Ok(MessageOutcome::Later);
        }
        match self.met(group, &input.connection, input.id.as_deref(), message)? {
            Met::New => {}
            Met::Before => return Ok(MessageOutcome::Duplicate),
            Met::Bad(bad) => return Ok(MessageOutcome::Dead(bad)),
        }
        self.enter_listing(group, target, &input, message)?;
        let listed = input.listing.is_some();
        group.entries = input.entries.len() as u64;
        for (n, entry) in input.entries.iter().enumerate() {
            let at = at.plus(Duration::from_micros(n as u64));
            let taken = self.entry(group, target, entry, message, at);
            self.account(group, target, taken, (listed, n), message, at)?;
        }
        self.leave_listing(group, target, &input, message);
        Ok(MessageOutcome::Applied)
    }

    /// Whether a message that cannot be read is this part's all the same: the others pass it by.
    fn is_own(&self, message: Message<'_>) -> bool {
        let (environment, source) = (&self.spec.environment, &self.spec.definition.source);
        let whose = message.value().and_then(glance::connection);
        whose.is_some_and(|id| self.inner.parts.connections.get(environment, source, id).is_some())
    }

    /// Whether the message was met, by its id or its producer's number; takes both up if not.
    pub fn met<'c>(
        &mut self,
        group: &mut TopicBatch<'c>,
        connection: &str,
        id: Option<&str>,
        message: Message<'c>,
    ) -> Result<Met, Error> {
        let numbered = match numbered(message, connection) {
            Ok(numbered) => numbered,
            Err(bad) => return Ok(Met::Bad(bad)),
        };
        let engine = &self.inner.parts.engine;
        if let Some(id) = id {
            let source = self.spec.definition.source.clone();
            let key = [self.spec.environment.clone(), source, connection.to_owned(), format!("kafka:{id}")];
            if !group.reserved.reserve(engine, key, self.now.plus(REMEMBERED), self.now)? {
                return Ok(Met::Before);
            }
        }
        if let Some((by, number)) = numbered {
            if !self.sequences.reserved(engine, &self.spec, &by, number)? {
                return Ok(Met::Before);
            }
            group.number(by, number);
        }
        Ok(Met::New)
    }

    /// One entry: the id it is about, or why it cannot be taken.
    fn entry(
        &mut self,
        group: &mut TopicBatch<'_>,
        at: usize,
        entry: &MessageRecord<'_>,
        message: Message<'_>,
        when: Timestamp,
    ) -> Result<String, Quarantined> {
        let stray = || Quarantined { code: "bad_record", message: "no target".into(), id: None, item: String::new() };
        let target = self.targets.get_mut(at).ok_or_else(stray)?;
        let composite = target.stream().composite;
        let item = match entry.op {
            Op::Upsert(text) | Op::Patch(text) => text,
            Op::Delete => "",
        };
        let id = entry.key.map(|key| key.id(composite)).transpose();
        let id = id.map_err(|why| refuse_text("bad_key", format!("key: {why}"), None, item))?;
        if entry.modified_at.is_some_and(|at| !(TIMES[0]..=TIMES[1]).contains(&at.0)) {
            let id = id.map(Cow::into_owned);
            return Err(refuse_text(
                "bad_time",
                "modified_at lies outside of the years -9999 to 9999".into(),
                id,
                item,
            ));
        }
        let seen = SeenAt { observed_at: when, answered_at: self.now };
        let engine = &self.inner.parts.engine;
        match (entry.op, id) {
            (Op::Upsert(text), id) => {
                let given = Given { id, modified_at: entry.modified_at };
                let row = target.mapper.read_text(text, given, seen, &mut || target.vars(message))?;
                group.release(target, &row.id);
                let page = group.page(engine, &target.dataset);
                match &row.body {
                    RowBody::Whole(text) => page.save(&row.id, row.modified_at, when, text.as_bytes()),
                    RowBody::Gone(deleted_at) => page.delete(&row.id, row.modified_at, when, *deleted_at),
                }
                if row.warning.is_some() {
                    metrics::counter!("syncline_kafka_records_total", "outcome" => "warned").increment(1);
                }
                Ok(row.id.into_owned())
            }
            (Op::Patch(text), Some(id)) => {
                let patch = patch(text, &id)?;
                let page = group.page(engine, &target.dataset);
                page.patch(&id, entry.modified_at, when, patch.as_bytes());
                Ok(id.into_owned())
            }
            (Op::Delete, Some(id)) => {
                group.page(engine, &target.dataset).delete(&id, entry.modified_at, when, None);
                Ok(id.into_owned())
            }
            (Op::Patch(_) | Op::Delete, None) => Err(refuse_text("bad_key", "the key is missing".into(), None, item)),
        }
    }

    /// Notes what became of an entry.
    pub fn account<'c>(
        &mut self,
        group: &mut TopicBatch<'c>,
        target: usize,
        taken: Result<String, Quarantined>,
        (listed, n): (bool, usize),
        message: Message<'c>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let Some(target) = self.targets.get_mut(target) else { return Ok(()) };
        match taken {
            Ok(id) => {
                group.tally.records += 1;
                if listed {
                    self.listings.see(target.dataset.id, &id);
                }
            }
            Err(what) => {
                if listed {
                    self.listings.doubt(target.dataset.id, &format!("a record was quarantined: {}", what.code));
                }
                if !group.keep(&self.inner.parts.engine, target, &what, n, message.offset(), at)? {
                    // Where no more are kept, the message itself is: nothing is lost.
                    let why = format!("record {n}: {}: {}; too many are quarantined already", what.code, what.message);
                    group.dead.push((message, Bad::new("quarantine_full", why)));
                }
            }
        }
        Ok(())
    }

    /// Lists are for streams that nobody polls in full.
    fn listing_refused(&self, target: usize, input: &ParsedMessage<'_>) -> Option<Bad> {
        let target = self.targets.get(target)?;
        let both = input.listing.is_some() && target.stream().list.is_some();
        both.then(|| {
            let message = format!(
                "stream `{}` has a `list` of its own: two full lists would delete each other's records",
                input.stream
            );
            Bad::new("listing_not_allowed", message)
        })
    }

    fn begins_listing(&self, target: usize, input: &ParsedMessage<'_>) -> bool {
        match (&input.listing, self.targets.get(target)) {
            (Some(page), Some(target)) => self.listings.begins(&target.dataset, page),
            _ => false,
        }
    }

    fn enter_listing(
        &mut self,
        group: &mut TopicBatch<'_>,
        target: usize,
        input: &ParsedMessage<'_>,
        message: Message<'_>,
    ) -> Result<(), Error> {
        let (Some(page), Some(target)) = (&input.listing, self.targets.get(target)) else { return Ok(()) };
        if self.listings.begins(&target.dataset, page) {
            let place = (message.partition(), message.offset());
            let (open, marks) = self.listings.begin(&self.inner.parts.engine, &target.dataset, page, place)?;
            group.open.push(open);
            group.marks.extend(marks);
        }
        Ok(())
    }

    fn leave_listing(
        &mut self,
        group: &mut TopicBatch<'_>,
        target: usize,
        input: &ParsedMessage<'_>,
        message: Message<'_>,
    ) {
        let (Some(page), Some(target)) = (&input.listing, self.targets.get(target)) else { return };
        let dataset = target.dataset.id;
        group.listings.insert(dataset);
        if self.listings.page(dataset, page, message.partition(), message.offset()) {
            group.ended.push(dataset);
        }
    }

    /// Notes the keys of a message that has had its effects before a restart, for the list it is a page of.
    pub fn recount(&mut self, message: Message<'_>) -> Result<(), Error> {
        let Some(Ok(input)) = message.value().map(message::parse) else { return Ok(()) };
        let Some(page) = &input.listing else { return Ok(()) };
        let environment = self.spec.environment.clone();
        let name = Name {
            environment: &environment,
            connection: &input.connection,
            stream: &input.stream,
            variant: input.variant.as_deref(),
        };
        let Ok(at) = self.targets.find(&self.inner.parts, &self.spec, name)? else { return Ok(()) };
        let Some(target) = self.targets.get(at).filter(|target| !self.listings.begins(&target.dataset, page)) else {
            return Ok(());
        };
        let seen = SeenAt { observed_at: self.now, answered_at: self.now };
        for entry in &input.entries {
            let Ok(id) = entry.key.map(|key| key.id(target.stream().composite)).transpose() else { continue };
            let id = match (entry.op, id) {
                (Op::Upsert(text), id) => {
                    let given = Given { id, modified_at: entry.modified_at };
                    let vars = &mut || target.vars(message);
                    target.mapper.read_text(text, given, seen, vars).ok().map(|row| row.id.into_owned())
                }
                (_, id) => id.map(Cow::into_owned),
            };
            if let Some(id) = id {
                self.listings.see(target.dataset.id, &id);
            }
        }
        Ok(())
    }
}

/// A patch without what it must not touch.
fn patch(text: &str, id: &str) -> Result<String, Quarantined> {
    let bad = |code, why: String| refuse_text(code, why, Some(id.to_owned()), text);
    let mut patch: Value =
        serde_json::from_str(text).map_err(|e| bad("bad_record", format!("the patch cannot be read: {e}")))?;
    let fields = patch.as_object_mut().ok_or_else(|| bad("not_an_object", "the patch is no object".into()))?;
    if fields.contains_key(RESERVED) {
        return Err(bad("reserved_field", format!("«{RESERVED}» is reserved; leave it out")));
    }
    fields.remove("id");
    Ok(patch.to_string())
}

/// Who numbered the message, and its number.
fn numbered(message: Message<'_>, connection: &str) -> Result<Option<(Numbered, i64)>, Bad> {
    if !message.has_headers() {
        return Ok(None);
    }
    let text = |name: &str| message.header(name).map(|bytes| std::str::from_utf8(bytes).unwrap_or_default());
    let (Some(producer), Some(number)) = (text("syncline-producer"), text("syncline-seq")) else {
        let alone = message.header("syncline-producer").is_some() || message.header("syncline-seq").is_some();
        let message = "`syncline-producer` and `syncline-seq` go together";
        return if alone { Err(Bad::new("bad_header", message)) } else { Ok(None) };
    };
    if producer.is_empty() || producer.len() > PRODUCER_BYTES {
        let message = format!("`syncline-producer` has to have 1 to {PRODUCER_BYTES} bytes of text");
        return Err(Bad::new("bad_header", message));
    }
    let number = number.parse().map_err(|_| Bad::new("bad_header", "`syncline-seq` is no whole number in digits"))?;
    Ok(Some(((message.partition(), connection.to_owned(), producer.to_owned()), number)))
}
