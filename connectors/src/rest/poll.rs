//! [`RestSource`] as the engine asks it: a page, single records, a test of the credentials; each once more after a 401 where other
//! credentials are known by then.

use super::RestSource;
use super::fetch;
use super::listing::Listing;
use super::request::{Filling, base};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;
use syncline_engine::model::Timestamp;
use syncline_engine::source::{Ask, Bookmark, Connection, Failure, Page, Retry, Source};

impl RestSource {
    async fn polled(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        let page = match Listing::of(self, ask) {
            Ok(listing) => listing.page(after).await,
            Err(why) => Err(why),
        };
        self.page(&ask.connection, page)
    }
}

#[async_trait]
impl Source for RestSource {
    async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        let ask = Ask { connection: self.signed(&ask.connection).await?, ..ask.clone() };
        let page = self.polled(&ask, after).await;
        match self.signed_again(&ask.connection, &page).await? {
            Some(connection) => self.polled(&Ask { connection, ..ask }, after).await,
            None => page,
        }
    }

    /// While `ask.part` is [`Part::Full`](syncline_engine::source::Part::Full) a missing key is being confirmed: then 404
    /// and 410 always are a delete. Otherwise the stream's `fetch.not_found` decides.
    async fn fetch(&self, ask: &Ask, keys: &[String]) -> Result<Page, Failure> {
        let ask = Ask { connection: self.signed(&ask.connection).await?, ..ask.clone() };
        let page = self.page(&ask.connection, fetch::fetch(self, &ask, keys).await);
        match self.signed_again(&ask.connection, &page).await? {
            Some(connection) => {
                let ask = Ask { connection, ..ask };
                self.page(&ask.connection, fetch::fetch(self, &ask, keys).await)
            }
            None => page,
        }
    }

    /// Proves that a connection can sign in, by the definition's `auth.test`, and reads its `connection_fields`.
    /// `None` where the definition has no test, or the connection brings no credentials and need not.
    async fn check(&self, connection: &Arc<Connection>) -> Result<Option<Map<String, Value>>, Failure> {
        let connection = self.signed(connection).await?;
        let fields = self.tested(&connection).await;
        match self.signed_again(&connection, &fields).await? {
            Some(connection) => self.tested(&connection).await,
            None => fields,
        }
    }

    /// Whether requests in the name of a connection may go where its base URL leads, as far as that can be said without a
    /// request.
    fn permits(&self, connection: &Connection) -> Result<(), Failure> {
        let base = base(&self.definition.base_url, connection, &Filling::new(connection, "base"))?;
        self.client.permits(&base).map_err(|why| self.told(connection, why))
    }

    fn waits_until(&self, connection: &Connection) -> Option<Timestamp> {
        self.budget(connection).waits_until()
    }

    fn retry(&self) -> Retry {
        self.definition.limits.retry
    }
}
