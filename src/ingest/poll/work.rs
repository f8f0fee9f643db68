//! What a sync does: read a stream as its definition says, or run a function that writes several.

use crate::connectors::definition::{Definition, FunctionSync, Schedule, Stream};
use crate::registry::connections::Account;

/// What stands behind a sync.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A stream; the sync is kept under its name.
    Stream(Box<Stream>),
    /// A function; the sync is kept under the function's name, its records under those of its models.
    Function(FunctionSync),
}

impl Work {
    /// What is kept under this name.
    pub(super) fn find(definition: &Definition, name: &str) -> Option<Work> {
        let function = definition.function_sync(name).cloned().map(Work::Function);
        function.or_else(|| {
            let stream = definition.stream(name).filter(|stream| !stream.of_function)?;
            Some(Work::Stream(Box::new(stream.clone())))
        })
    }

    /// All that a definition has.
    pub(super) fn all(definition: &Definition) -> impl Iterator<Item = Work> {
        let streams = definition.streams.iter().filter(|stream| !stream.of_function);
        let streams = streams.map(|stream| Work::Stream(Box::new(stream.clone())));
        streams.chain(definition.function_syncs.iter().cloned().map(Work::Function))
    }

    /// The name it is kept under.
    pub(super) fn name(&self) -> &str {
        match self {
            Work::Stream(stream) => &stream.name,
            Work::Function(function) => &function.name,
        }
    }

    /// Name of the sync on the wire.
    pub(super) fn sync(&self) -> &str {
        match self {
            Work::Stream(stream) => &stream.sync,
            Work::Function(function) => &function.name,
        }
    }

    /// The streams its records belong to.
    pub(super) fn models(&self) -> Vec<&str> {
        match self {
            Work::Stream(stream) => vec![&stream.name],
            Work::Function(function) => function.models.iter().map(String::as_str).collect(),
        }
    }

    /// When it runs for this connection.
    pub(super) fn schedule(&self, account: &Account) -> Schedule {
        let usual = match self {
            Work::Stream(stream) => &stream.schedule,
            Work::Function(function) => &function.schedule,
        };
        account.schedule.get(self.name()).unwrap_or(usual).clone()
    }

    /// Whether it can be asked for records. What cannot is fed.
    pub(super) fn polled(&self) -> bool {
        match self {
            Work::Stream(stream) => stream.polled(),
            Work::Function(function) => function.polled,
        }
    }

    /// Whether this connection takes part.
    pub(super) fn is_taken(&self, account: &Account) -> bool {
        match self {
            Work::Stream(stream) => account.takes_stream(&stream.name),
            Work::Function(function) => account.takes(function),
        }
    }
}
