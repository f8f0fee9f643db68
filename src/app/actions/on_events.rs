//! Functions on events of connections: one was created, is to be deleted, or asks to be let in.
//!
//! Promises: what is to be done for a new connection is a mark of the connection's own commit, and goes only in the commit that says
//! how it ended; so it is executed at least once. A function that fails is tried three times, and what failed for a new connection
//! is in quarantine then. What is to be done before a deletion holds it up for [`BEFORE_DELETION`] at most. Functions of one
//! connection and event run one after the other.

use super::{Actions, ActionsInner, NotCalled, WALL, WALL_LATER};
use crate::app::connections::ConnectionError;
use crate::connectors::actions::{ActionFailure, Chain};
use crate::connectors::functions::{ActionAsk, FunctionAction};
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark, Quarantine, QuarantineEntry, QuarantineRow, QuarantineWriter};
use crate::engine::pipeline::{quarantine_entry, remove_from_quarantine};
use crate::engine::source::{Connection, Quarantined};
use crate::ingest::webhooks::{Retried, WAITS};
use crate::keyspaces::CREATION;
use crate::registry::connections::{AccountKey, Refused, creation_mark};
use crate::registry::functions::ConnectionEvent;
use crate::telemetry::record;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long functions may hold up a deletion, all together.
pub const BEFORE_DELETION: Duration = Duration::from_secs(60);

/// How an execution ended, if there was one.
type Ended = Result<Result<(), ActionFailure>, NotCalled>;

impl Actions {
    /// Begins what is stored as to be done for new connections.
    pub(super) fn resume_creations(&self) -> Result<(), Error> {
        let mut keys = BTreeSet::new();
        self.inner.engine.marks_after(CREATION, &[], &[], &mut |key, _| {
            if let [environment, source, id, _] = key.as_slice() {
                keys.insert(AccountKey::new(environment, source, id));
            }
            true
        })?;
        keys.iter().for_each(|key| self.created(key));
        Ok(())
    }

    /// Begins what is to be done for a connection that was created. It is stored.
    pub fn created(&self, key: &AccountKey) {
        let mut creations = self.inner.creations.lock();
        if creations.get(key).is_some_and(|task| !task.is_finished()) {
            // It looks for more before it ends.
            return;
        }
        let (inner, own) = (self.inner.clone(), key.clone());
        let task = self.inner.tasks.spawn(async move {
            tokio::select! {
                () = inner.all_of_creation(&own) => {}
                () = inner.cut.cancelled() => {}
            }
        });
        creations.insert(key.clone(), task);
    }

    /// Lets the functions of a source say whether a connection may be as it is drafted. It is not stored, and is asked for with
    /// what it bears.
    pub async fn validate(&self, source: &str, draft: Arc<Connection>) -> Result<(), ConnectionError> {
        let functions = self.inner.on(source, ConnectionEvent::Validation);
        if functions.is_empty() {
            return Ok(());
        }
        let until = self.inner.clock.now().plus(WALL);
        let ended = self.unless_stopped(async move |inner: Arc<ActionsInner>| {
            for function in &functions {
                let ended = inner.execute(function, &draft, until).await?;
                if ended.is_err() {
                    return Ok(ended);
                }
            }
            Ok(Ok(()))
        });
        ended.await?.map_err(ConnectionError::from)
    }

    /// Runs one of the functions on events once, as if its event had come.
    pub async fn on_event(&self, key: &AccountKey, name: &str) -> Ended {
        let all = self.inner.on_events.iter().filter(|((source, _), _)| *source == key.source);
        let function = all.flat_map(|(_, functions)| functions).find(|function| function.name == name);
        let function =
            function.ok_or_else(|| NotCalled::Action(name.to_owned(), "nor a function on an event".to_owned()))?;
        let account = self.inner.connections.get(&key.environment, &key.source, &key.id);
        let account = account.ok_or_else(|| NotCalled::Connection(key.id.clone()))?;
        self.inner.execute(function, &account.connection, self.inner.clock.now().plus(WALL_LATER)).await
    }

    /// Does what is to be done before a connection is deleted, whatever comes of it. What is still to be done for its creation
    /// is not begun any more.
    pub async fn before_deletion(&self, key: &AccountKey) -> Result<(), ConnectionError> {
        let creation = self.inner.creations.lock().remove(key);
        if let Some(task) = creation {
            task.abort();
            // It was ended, and says so.
            let _ = task.await;
        }
        let functions = self.inner.on(&key.source, ConnectionEvent::Deletion);
        if functions.is_empty() {
            return Ok(());
        }
        let (key, until) = (key.clone(), self.inner.clock.now().plus(BEFORE_DELETION));
        let ended = self.unless_stopped(async move |inner: Arc<ActionsInner>| {
            for function in &functions {
                if let Err(why) = inner.attempts(function, &key, until).await? {
                    let (AccountKey { environment, source, id: connection }, name) = (&key, &function.name);
                    let (code, message) = (why.code, why.message);
                    tracing::error!(
                        environment,
                        source,
                        connection,
                        function = name,
                        code,
                        "a function failed before a deletion, which goes on: {message}"
                    );
                }
            }
            Ok(Ok(()))
        });
        ended.await?.map_err(ConnectionError::from)
    }

    /// Puts a new connection before the function again that has failed for it.
    pub async fn retry(&self, environment: &str, row: &QuarantineRow) -> Result<Retried, Error> {
        let [source, connection, function] = &row.place;
        let (inner, key) = (&self.inner, AccountKey::new(environment, source, connection));
        if inner.connections.get(environment, source, connection).is_none() {
            return Ok(Retried::Impossible("its connection is not there any more: drop it"));
        }
        if quarantine_entry(&inner.engine, environment, row)?.is_some() {
            let marks = vec![remove_from_quarantine(environment, row), creation_mark(&key, function)];
            inner.engine.put_marks(marks).await?;
            self.created(&key);
        }
        Ok(Retried::Taken)
    }

    /// Runs to its end what whoever asked for it may not wait for, unless the program stops.
    async fn unless_stopped<F>(&self, work: impl FnOnce(Arc<ActionsInner>) -> F) -> Ended
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let inner = self.inner.clone();
        if inner.stopping.is_cancelled() {
            return Err(NotCalled::Stopping);
        }
        let work = work(inner.clone());
        self.spawned(async move {
            tokio::select! {
                ended = work => ended,
                () = inner.cut.cancelled() => Err(NotCalled::Stopping),
            }
        })
        .await
    }
}

impl ActionsInner {
    fn on(&self, source: &str, event: ConnectionEvent) -> Vec<Arc<FunctionAction>> {
        self.on_events.get(&(source.to_owned(), event)).cloned().unwrap_or_default()
    }

    /// Does all that is to be done for a new connection.
    async fn all_of_creation(&self, key: &AccountKey) {
        let mut begun = self.begun.subscribe();
        tokio::select! {
            _ = begun.wait_for(|begun| *begun) => {}
            () = self.stopping.cancelled() => {}
        }
        while let Some(name) = self.next_of_creation(key) {
            if let Err(error) = self.of_creation(key, &name).await {
                let AccountKey { environment, source, id: connection } = key;
                tracing::error!(environment, source, connection, name, %error, "a function is left as it is stored");
                self.creations.lock().remove(key);
                return;
            }
        }
    }

    /// The function that is to run next for a new connection; with none, whoever runs them is done. In one piece, so that a mark
    /// that joins is seen by him or by the next.
    fn next_of_creation(&self, key: &AccountKey) -> Option<String> {
        let mut creations = self.creations.lock();
        let marks = self.engine.marks(CREATION, &key.parts()).unwrap_or_else(|error| {
            tracing::error!(%error, "what is to be done for new connections cannot be read");
            Vec::new()
        });
        // Marks are in order of the length of their names first.
        let next = marks.into_iter().filter_map(|(rest, _)| rest.into_iter().next()).min();
        let there = self.connections.get(&key.environment, &key.source, &key.id).is_some();
        let next = next.filter(|_| there && !self.stopping.is_cancelled());
        if next.is_none() {
            creations.remove(key);
        }
        next
    }

    /// Runs a function for a new connection, and takes its mark away.
    async fn of_creation(&self, key: &AccountKey, name: &str) -> Result<(), Error> {
        let functions = self.on(&key.source, ConnectionEvent::Creation);
        let ended = match functions.iter().find(|function| function.name == name) {
            Some(function) => match self.attempts(function, key, self.clock.now().plus(WALL_LATER)).await {
                Ok(ended) => ended,
                // It is gone, or waits for the next start.
                Err(_) => return Ok(()),
            },
            None => {
                let message = format!("there is no function {}/{name} on this event any more", key.source);
                Err(ActionFailure::new("unknown_function", message))
            }
        };
        let [environment, source, connection] = key.parts();
        let place = [environment, source, connection, name];
        let mut marks = vec![Mark::delete(CREATION, &place)];
        if let Err(why) = ended {
            let code = why.code;
            tracing::error!(
                environment,
                source,
                connection,
                function = name,
                code,
                "a function failed for a new connection, and is in quarantine: {}",
                why.message
            );
            marks.push(self.kept_aside(place, why)?);
        }
        self.engine.put_marks(marks).await
    }

    /// The mark that shows what failed for a new connection.
    fn kept_aside(&self, place: [&str; 4], why: ActionFailure) -> Result<Mark, Error> {
        let event = ConnectionEvent::Creation.name();
        let what = Quarantined { code: why.code, message: why.message, id: None, item: String::new() };
        let entry = QuarantineEntry::new(&what, event, self.clock.now());
        let mut quarantine = Quarantine::load(&self.engine, place, QuarantineWriter::Function)?;
        record::kept_aside(place[0], place[1], place[3]);
        quarantine.keep(&self.engine, event, &entry).map(|(mark, _)| mark)
    }

    /// Runs a function until it has come to its end, or has failed too often, or until then.
    async fn attempts(&self, function: &FunctionAction, key: &AccountKey, until: Timestamp) -> Ended {
        let AccountKey { environment, source, id } = key;
        let mut waits = WAITS.iter();
        loop {
            let account = self.connections.get(environment, source, id);
            let account = account.ok_or_else(|| NotCalled::Connection(id.clone()))?;
            let Err(why) = self.execute(function, &account.connection, until).await? else { return Ok(Ok(())) };
            let now = self.clock.now();
            let Some(wait) = waits.next().filter(|wait| now.plus(**wait) < until) else { return Ok(Err(why)) };
            let (name, code, message) = (&function.name, why.code, why.message);
            tracing::warn!(
                environment,
                source,
                connection = id,
                function = name,
                code,
                "a function failed, and is tried again: {message}"
            );
            tokio::select! {
                () = self.clock.sleep(*wait) => {}
                () = self.stopping.cancelled() => return Err(NotCalled::Stopping),
            }
        }
    }

    /// Runs a function once, when there is a place for it.
    async fn execute(&self, function: &FunctionAction, connection: &Arc<Connection>, until: Timestamp) -> Ended {
        let source = &function.runner.source.definition().source;
        let key = AccountKey::new(&connection.environment, source, &connection.id);
        let _place = tokio::select! {
            place = self.places.later(&key) => place,
            () = self.clock.sleep_until(until) => {
                let message = format!("there was no time left for {source}/{}: it was not begun", function.name);
                return Ok(Err(ActionFailure::new(ActionFailure::TIMEOUT, message)));
            }
            () = self.stopping.cancelled() => return Err(NotCalled::Stopping),
        };
        let (connection, wall) = (connection.clone(), until.since(self.clock.now()));
        let ask = ActionAsk { connection, input: None, chain: Chain::default(), wall };
        Ok(function.call(ask).await.map(drop))
    }
}

impl From<ActionFailure> for ConnectionError {
    fn from(why: ActionFailure) -> Self {
        let message = match why.code {
            ActionFailure::THROWN => why.message,
            code => format!("{code}: {}", why.message),
        };
        ConnectionError::Validation { message, payload: why.payload }
    }
}

impl From<NotCalled> for ConnectionError {
    fn from(why: NotCalled) -> Self {
        match why {
            NotCalled::Engine(error) => error.into(),
            // Somebody else has deleted it meanwhile.
            NotCalled::Connection(id) => Refused::Unknown(id).into(),
            _ => ConnectionError::Stopping,
        }
    }
}
