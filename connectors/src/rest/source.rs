//! [`RestSource`]: the engine's `Source` over a definition.
//!
//! One source serves all connections of its definition. It keeps, in memory, the budget of each connection and the keys of
//! listings being read; everything that must outlive the process travels in bookmarks and notes.

use super::SourceState;
use super::answer::{self, AnswerVerdict, judge};
use super::credentials::{AsBorne, Credentials, bearing};
use super::memory::{ListingKey, Memory};
use super::request::{Filling, base, draft, header_values, refused, seal};
use crate::definition::Definition;
use crate::http::conditional::Validator;
use crate::http::limits::{Budget, RequestPriority};
use crate::http::paginate::Draft;
use crate::http::{Answer, Client, Outgoing, Veil, auth};
use crate::mapping::Mapper;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::DatasetName;
use syncline_engine::source::{Ask, Connection, Failure, Page};
use syncline_engine::time::Clock;

/// Listings whose keys are kept in memory. One more makes another forget; that one reads its notes again.
const LISTINGS_MAX: usize = 4_096;

/// Connections whose budgets are kept. Budgets nobody uses go first.
const BUDGETS_MAX: usize = 100_000;

/// What a provider says to credentials it does not take.
const UNAUTHORIZED: u16 = 401;

/// What it says to requests that it would answer, or answer more of, if they were signed in.
const WHO_ASKS: [u16; 4] = [UNAUTHORIZED, 403, 404, 429];

/// A polled REST API as a definition describes it.
pub struct RestSource {
    pub(super) definition: Arc<Definition>,
    pub(super) client: Client,
    clock: Arc<dyn Clock>,
    notes: Arc<dyn SourceState>,
    credentials: Arc<dyn Credentials>,
    mappers: HashMap<String, Mapper>,
    budgets: Mutex<HashMap<(String, String), Arc<Budget>>>,
    listings: Mutex<HashMap<ListingKey, Memory>>,
}

/// An answer, and the budget that learns of it if the request has to be made again.
pub(super) struct Exchange {
    pub(super) answer: Answer,
    pub(super) budget: Arc<Budget>,
}

impl RestSource {
    /// A source over `definition`. Fails if a schema does not compile.
    pub fn new(
        definition: Arc<Definition>,
        client: Client,
        clock: Arc<dyn Clock>,
        notes: Arc<dyn SourceState>,
    ) -> Result<RestSource, Failure> {
        let mappers = definition.streams.iter().map(|stream| Ok((stream.name.clone(), Mapper::new(stream)?)));
        let mappers = mappers.collect::<Result<_, Failure>>()?;
        let (budgets, listings, credentials) = (Mutex::default(), Mutex::default(), Arc::new(AsBorne));
        Ok(RestSource { definition, client, clock, notes, credentials, mappers, budgets, listings })
    }

    /// The same, asking for credentials at each request.
    pub fn with_credentials(self, credentials: Arc<dyn Credentials>) -> RestSource {
        RestSource { credentials, ..self }
    }

    /// The connection with the credentials it has now.
    pub(super) async fn signed(&self, connection: &Arc<Connection>) -> Result<Arc<Connection>, Failure> {
        let now = self.credentials.current(&self.definition.source, connection).await?;
        Ok(now.map_or_else(|| connection.clone(), |now| bearing(connection, now)))
    }

    /// The connection with other credentials, if the provider has refused those it bears and there are any: then it is asked once
    /// more.
    pub(super) async fn signed_again<T>(
        &self,
        connection: &Arc<Connection>,
        answer: &Result<T, Failure>,
    ) -> Result<Option<Arc<Connection>>, Failure> {
        if !matches!(answer, Err(why) if why.status == Some(UNAUTHORIZED)) {
            return Ok(None);
        }
        let others = self.credentials.refused(&self.definition.source, connection).await?;
        Ok(others.map(|others| bearing(connection, others)))
    }

    /// What it was made of.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The mapper of a stream; webhooks use it for whole items.
    pub fn mapper(&self, stream: &str) -> Option<&Mapper> {
        self.mappers.get(stream)
    }

    /// The budget of a connection: one for everything that is asked in its name.
    pub fn budget(&self, connection: &Connection) -> Arc<Budget> {
        let mut budgets = lock(&self.budgets);
        if budgets.len() >= BUDGETS_MAX {
            budgets.retain(|_, budget| Arc::strong_count(budget) > 1);
        }
        let key = (connection.environment.clone(), connection.id.clone());
        let fresh = || Budget::new(&self.definition.limits, Arc::clone(&self.clock));
        Arc::clone(budgets.entry(key).or_insert_with(fresh))
    }

    pub(super) async fn tested(&self, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        self.test(connection).await.map_err(|why| self.told(connection, why))
    }

    async fn test(&self, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        let unsigned = self.definition.auth.goes_without(&connection.credentials).is_some();
        let Some(request) = self.definition.auth.test.as_ref().filter(|_| !unsigned) else { return Ok(None) };
        let filling = Filling::new(connection, "base");
        let base = base(&self.definition.base_url, connection, &filling)?;
        let draft = draft(request, &base, &filling)?;
        let exchange = self.exchange(connection, &draft, request.timeout, RequestPriority::Fetch, None).await?;
        let vars = answer::vars(connection, &Value::Null, &exchange.answer);
        let (verdict, faults) = judge(&self.definition, request, &exchange.answer, &exchange.budget, &vars)?;
        answer::readable(&self.definition, &exchange.answer, &faults, &[])?;
        let body = match verdict {
            AnswerVerdict::Page(body) | AnswerVerdict::Part(Some(body)) => body,
            _ => Value::Null,
        };
        let mut fields = Map::new();
        for (name, expression) in &self.definition.auth.connection_fields {
            let value = expression.first(&body, &vars);
            let value = value.map_err(|e| refused("bad_expression", format!("auth.connection_fields.{name}: {e}")))?;
            fields.insert(name.clone(), value);
        }
        Ok(Some(fields))
    }

    /// One request in the name of a connection: budget, sign-in, answer, and what it says about the budget.
    pub(super) async fn exchange(
        &self,
        connection: &Connection,
        draft: &Draft,
        timeout: Duration,
        lane: RequestPriority,
        validator: Option<&Validator>,
    ) -> Result<Exchange, Failure> {
        let mut outgoing = seal(draft, timeout, self.definition.limits.max_response)?;
        if let Some(validator) = validator {
            validator.lay(&mut outgoing.headers);
        }
        self.send(connection, outgoing, lane).await
    }

    /// The same with a body as it is.
    pub(super) async fn exchange_with(
        &self,
        connection: &Connection,
        draft: &Draft,
        body: Option<Bytes>,
        timeout: Duration,
        lane: RequestPriority,
    ) -> Result<Exchange, Failure> {
        let outgoing = seal(draft, timeout, self.definition.limits.max_response)?;
        self.send(connection, Outgoing { body, ..outgoing }, lane).await
    }

    async fn send(
        &self,
        connection: &Connection,
        mut outgoing: Outgoing,
        lane: RequestPriority,
    ) -> Result<Exchange, Failure> {
        let limits = &self.definition.limits;
        auth::sign_in(&self.definition.auth, connection, &mut outgoing)?;
        let mut veil = self.veil(connection);
        auth::veil_request(&mut veil, &outgoing);
        outgoing.veil = veil;
        let budget = self.budget(connection);
        let permit = budget.enter(outgoing.method.as_str(), outgoing.url.path(), lane).await?;
        let sent = self.client.send(outgoing).await;
        drop(permit);
        let answer =
            sent.map_err(|failure| Failure { retry: failure.retry && limits.retry_status.network, ..failure })?;
        let busy = matches!(answer.status, 429 | 503) || limits.retry_status.has(answer.status);
        budget.learn(&limits.headers, &answer, busy);
        Ok(Exchange { answer, budget })
    }

    /// The headers that the definition lays on every request.
    pub(super) fn standing_headers(&self, filling: &Filling) -> Result<Vec<(String, String)>, Failure> {
        let set = self.definition.headers.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        header_values(set, filling)
    }

    /// What of a connection must not be shown.
    pub(crate) fn veil(&self, connection: &Connection) -> Veil {
        auth::veil(&self.definition.auth.kind, connection)
    }

    /// A failure as it may be kept and shown: whatever quotes the provider passes here. Where the provider may only have wanted
    /// to know who asks, it says that nobody was signed in.
    pub(super) fn told(&self, connection: &Connection, why: Failure) -> Failure {
        let mut message = self.veil(connection).veiled(&why.message);
        let field = self.definition.auth.goes_without(&connection.credentials);
        if let Some(field) = field.filter(|_| why.status.is_some_and(|status| WHO_ASKS.contains(&status))) {
            let id = &connection.id;
            message.push_str(&format!(
                "; connection «{id}» has no {field}, so the request was not signed in: if the provider wants one, set \
                 `{field}: \"env:NAME\"` on the connection"
            ));
        }
        Failure { message, ..why }
    }

    /// A page whose complaints may be kept and shown; its records are the provider's own.
    pub(super) fn page(&self, connection: &Connection, page: Result<Page, Failure>) -> Result<Page, Failure> {
        let mut page = page.map_err(|why| self.told(connection, why))?;
        let doubts = page.end.iter_mut().flat_map(|end| &mut end.doubts);
        let kept = page.quarantined.iter_mut().chain(&mut page.warnings).map(|what| &mut what.message);
        let mut said = doubts.chain(kept).peekable();
        if said.peek().is_some() {
            let veil = self.veil(connection);
            said.for_each(|text| *text = veil.veiled(text));
        }
        Ok(page)
    }

    pub(super) fn notes(&self) -> &Arc<dyn SourceState> {
        &self.notes
    }

    pub(super) fn note(&self, ask: &Ask, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.notes.note(&self.dataset(ask), key)
    }

    pub(super) fn dataset(&self, ask: &Ask) -> DatasetName {
        let connection = &ask.connection;
        let base = DatasetName::base(&connection.environment, &self.definition.source, &connection.id, &ask.stream);
        DatasetName { variant: ask.variant.as_str().into(), ..base }
    }

    /// The listings being read. When there are too many, an arbitrary one forgets and reads its notes when it goes on.
    pub(super) fn listings(&self) -> MutexGuard<'_, HashMap<ListingKey, Memory>> {
        let mut listings = lock(&self.listings);
        if listings.len() > LISTINGS_MAX {
            let one = listings.keys().next().cloned();
            one.and_then(|key| listings.remove(&key));
        }
        listings
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept under these locks can be read again; a panic elsewhere does not make it wrong.
    mutex.lock()
}
