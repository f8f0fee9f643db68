//! Requests that code makes in the name of a connection: any method, any path of its provider.
//!
//! Promises: sign-in, budget, limits and what may be shown are those of every other request of the connection; nothing is signed
//! that leaves for a host the definition does not name. One attempt, but for credentials that were renewed meanwhile.

use super::RestSource;
use super::request::{Filling, base, refused, seal};
use crate::http::limits::RequestPriority;
use crate::http::paginate::Draft;
use crate::http::{Answer, Outgoing, Url, Veil};
use bytes::Bytes;
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure};

/// A request as code writes it.
#[derive(Clone, Debug, Default)]
pub struct ProxyRequest {
    /// `GET`, `POST`…
    pub method: String,
    /// A path below the base, or a whole address.
    pub endpoint: String,
    /// Of the query, in order, behind those of `endpoint`.
    pub params: Vec<(String, String)>,
    /// They replace those of the definition.
    pub headers: Vec<(String, String)>,
    /// As it is sent.
    pub body: Option<Bytes>,
    /// Instead of the connection's base.
    pub base: Option<String>,
    /// Without sign-in and budget, to any address that egress allows.
    pub bare: bool,
}

impl RestSource {
    /// Sends a request of code. Any status is an answer.
    pub async fn proxy(
        &self,
        connection: &Arc<Connection>,
        request: &ProxyRequest,
        lane: RequestPriority,
    ) -> Result<Answer, Failure> {
        if request.bare {
            let outgoing = self.bare(request)?;
            return self.client.send(outgoing).await;
        }
        let connection = self.signed(connection).await?;
        let answer = self.proxy_once(&connection, request, lane).await?;
        let judged = match answer.status {
            401 => Err(Failure { status: Some(401), ..refused("http_status", String::new()) }),
            _ => Ok(()),
        };
        match self.signed_again(&connection, &judged).await? {
            Some(connection) => self.proxy_once(&connection, request, lane).await,
            None => Ok(answer),
        }
    }

    /// A text of code as it may be kept and shown, line by line.
    pub fn veiled(&self, connection: &Connection, text: &str) -> String {
        let veil = self.veil(connection);
        text.lines().map(|line| veil.veiled(line)).collect::<Vec<_>>().join("\n")
    }

    /// JSON of code as programs may read it: without secrets, and otherwise as it is.
    pub fn masked(&self, connection: &Connection, json: &str) -> String {
        self.veil(connection).masked(json)
    }

    async fn proxy_once(
        &self,
        connection: &Connection,
        request: &ProxyRequest,
        lane: RequestPriority,
    ) -> Result<Answer, Failure> {
        let draft = self.proxy_draft(connection, request)?;
        let timeout = self.definition.limits.timeout;
        let exchange = self.exchange_with(connection, &draft, request.body.clone(), timeout, lane).await;
        exchange.map(|exchange| exchange.answer).map_err(|why| self.told(connection, why))
    }

    fn proxy_draft(&self, connection: &Connection, request: &ProxyRequest) -> Result<Draft, Failure> {
        let filling = Filling::new(connection, "base");
        let own = base(&self.definition.base_url, connection, &filling)?;
        let mut url = self.address(&own, request)?;
        let mut query: Vec<(String, String)> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        url.set_query(None);
        query.extend(request.params.iter().cloned());
        let mut headers = self.standing_headers(&filling)?;
        headers.retain(|(name, _)| !request.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
        headers.extend(request.headers.iter().cloned());
        Ok(Draft { method: request.method.clone(), url, query, headers, body: None, form: None })
    }

    /// Where a request goes: below the connection's base, or to a host that the definition names.
    fn address(&self, own: &Url, request: &ProxyRequest) -> Result<Url, Failure> {
        let bad = |text: &str, error| refused("bad_url", format!("«{text}» is neither path nor URL: {error}"));
        let whole = |text: &str| Url::parse(text).map_err(|error| bad(text, error));
        if request.endpoint.starts_with("https://") || request.endpoint.starts_with("http://") {
            return self.allowed(own, whole(&request.endpoint)?);
        }
        let below = match &request.base {
            Some(other) => self.allowed(own, whole(other)?)?,
            None => own.clone(),
        };
        whole(&format!("{}/{}", below.as_str().trim_end_matches('/'), request.endpoint.trim_start_matches('/')))
    }

    fn allowed(&self, own: &Url, url: Url) -> Result<Url, Failure> {
        let host = url.host_str().unwrap_or_default();
        let named = self.definition.functions.allows(host) || self.definition.proxy.allows(&url);
        if named || url.origin() == own.origin() {
            return Ok(url);
        }
        let source = &self.definition.source;
        let advice = format!(
            "add `functions: {{hosts: [\"{host}\"]}}` to the definition of `{source}`, if its sign-in may go there"
        );
        Err(refused("host_not_allowed", format!("requests to {host} are not allowed: {advice}")))
    }

    /// A request of nobody in particular.
    fn bare(&self, request: &ProxyRequest) -> Result<Outgoing, Failure> {
        let mut url = Url::parse(&request.endpoint)
            .map_err(|error| refused("bad_url", format!("«{}» is no URL: {error}", request.endpoint)))?;
        url.query_pairs_mut().extend_pairs(&request.params);
        if url.query() == Some("") {
            url.set_query(None);
        }
        let (method, headers) = (request.method.clone(), request.headers.clone());
        let draft = Draft { method, url, query: Vec::new(), headers, body: None, form: None };
        let limits = &self.definition.limits;
        let outgoing = seal(&draft, limits.timeout, limits.max_response)?;
        Ok(Outgoing { body: request.body.clone(), veil: Veil::default(), ..outgoing })
    }
}
