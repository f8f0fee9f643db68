//! Connection and stream of a message: looked up once, used for all that follow.

use super::InputsParts;
use super::spec::InputSpec;
use crate::connectors::definition::Stream;
use crate::connectors::expr::Vars;
use crate::connectors::kafka::input::{Bad, Message};
use crate::connectors::mapping::{self, Mapper};
use crate::engine::model::DatasetName;
use crate::engine::pipeline::{Dataset, DatasetSpec, Error, Quarantine, QuarantineWriter};
use crate::registry::connections::Account;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The variant every stream has.
const BASE: &str = "base";

/// Where records of a message go.
pub(super) struct RecordTarget {
    pub dataset: Dataset,
    pub mapper: Arc<Mapper>,
    pub account: Arc<Account>,
    /// What is kept aside of its stream.
    pub quarantine: Quarantine,
}

impl RecordTarget {
    pub fn stream(&self) -> &Stream {
        self.mapper.stream()
    }

    /// Variables of expressions about an item that came in `message`.
    pub fn vars(&self, message: Message<'_>) -> Vars {
        Vars { h: headers(message), ..mapping::vars(&self.account.connection, &Value::Null) }
    }
}

/// Headers as expressions see them: names in lower case, text only.
pub(super) fn headers(message: Message<'_>) -> Value {
    let mut headers = Map::new();
    for (name, value) in message.headers() {
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        headers.insert(name.to_ascii_lowercase(), text.map_or(Value::Null, Value::from));
    }
    Value::Object(headers)
}

/// Targets by (environment, connection, stream, variant).
#[derive(Default)]
pub(super) struct Targets {
    known: Vec<RecordTarget>,
    by_name: HashMap<String, usize>,
    mappers: HashMap<String, Arc<Mapper>>,
    name: String,
}

/// Which target.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub environment: &'a str,
    pub connection: &'a str,
    pub stream: &'a str,
    pub variant: Option<&'a str>,
}

/// Code of messages for connections of other parts: no fault, and nothing to do here.
pub(super) const ELSEWHERE: &str = "elsewhere";

impl Targets {
    pub fn get(&self, at: usize) -> Option<&RecordTarget> {
        self.known.get(at)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut RecordTarget> {
        self.known.get_mut(at)
    }

    /// Takes up what changed of the accounts.
    pub fn refresh(&mut self, parts: &InputsParts) {
        for target in &mut self.known {
            let key = &target.account.key;
            if let Some(account) = parts.connections.get(&key.environment, &key.source, &key.id) {
                target.account = account;
            }
        }
    }

    /// The place of a target, found by name; or why there is none.
    pub fn find(&mut self, parts: &InputsParts, spec: &InputSpec, name: Name<'_>) -> Result<Result<usize, Bad>, Error> {
        self.name.clear();
        for part in [name.environment, name.connection, name.stream, name.variant.unwrap_or(BASE)] {
            self.name.push_str(part);
            self.name.push('\0');
        }
        if let Some(at) = self.by_name.get(&self.name) {
            return Ok(Ok(*at));
        }
        match self.make(parts, spec, name)? {
            Ok(target) => {
                self.known.push(target);
                self.by_name.insert(self.name.clone(), self.known.len() - 1);
                Ok(Ok(self.known.len() - 1))
            }
            Err(bad) => Ok(Err(bad)),
        }
    }

    fn make(
        &mut self,
        parts: &InputsParts,
        spec: &InputSpec,
        name: Name<'_>,
    ) -> Result<Result<RecordTarget, Bad>, Error> {
        let source = &spec.definition.source;
        let Some(account) = parts.connections.get(name.environment, source, name.connection) else {
            let others = parts.other_shards.as_ref().map(|n| n.of_source(source)).unwrap_or_default();
            if others.iter().any(|(of, id)| of == name.environment && id == name.connection) {
                return Ok(Err(Bad::new(ELSEWHERE, "the connection belongs to another shard")));
            }
            let hint = "declare it under `connections`";
            let message = format!("source {source} has no connection `{}`; {hint}", name.connection);
            return Ok(Err(Bad::new("unknown_connection", message)));
        };
        let stream = spec.definition.stream(name.stream);
        let taken = account.streams.as_ref().is_none_or(|only| only.iter().any(|s| s == name.stream));
        let Some(stream) = stream.filter(|_| taken) else {
            let whose =
                if stream.is_some() { format!("connection `{}`", name.connection) } else { format!("source {source}") };
            return Ok(Err(Bad::new("unknown_stream", format!("{whose} has no stream `{}`", name.stream))));
        };
        let mut dataset = DatasetName::base(name.environment, source, name.connection, &stream.name);
        if let Some(variant) = name.variant {
            dataset.variant = variant.into();
        }
        let spec = DatasetSpec { strategy: stream.merge, ignore_in_diff: stream.ignore_in_diff.clone() };
        let dataset = match parts.engine.find(&dataset) {
            Some(dataset) => dataset,
            None if &*dataset.variant == BASE => parts.engine.dataset(&dataset, &spec)?,
            None => {
                let message =
                    format!("stream `{}` has no variant `{}` for this connection", stream.name, dataset.variant);
                return Ok(Err(Bad::new("unknown_variant", message)));
            }
        };
        let mapper = match self.mappers.get(&stream.name) {
            Some(mapper) => mapper.clone(),
            None => {
                let made = Mapper::new(stream).map_err(|failure| Error::BadBatch(failure.to_string()))?;
                self.mappers.entry(stream.name.clone()).or_insert(Arc::new(made)).clone()
            }
        };
        let place = [name.environment, source, name.connection, &stream.name];
        let quarantine = Quarantine::load(&parts.engine, place, QuarantineWriter::Topic)?;
        Ok(Ok(RecordTarget { dataset, mapper, account, quarantine }))
    }
}
