//! One attempt of a passed request: to its place, and on where the provider leads, as far as that is allowed.

use super::{Received, RelayCall, UNREACHABLE, headers};
use crate::http::limits::RequestPriority;
use crate::http::{
    Answer, HeaderMap, HeaderName, HeaderValue, Method, Outgoing, PassedBody, StreamedRequest, Unanswered, Url, auth,
};
use crate::rest::request::{Filling, refused};
use std::time::Duration;
use syncline_engine::source::Failure;
use url::form_urlencoded;

/// Redirects followed in one attempt.
const REDIRECTS_MAX: usize = 5;
/// Longest wait for the connection's limits.
const TURN_MAX: Duration = Duration::from_secs(30);

/// One request of an attempt.
struct Hop {
    method: Method,
    url: Url,
    query: Option<String>,
    body: PassedBody,
    /// It may say who asks.
    home: bool,
    /// It was one with a body, and is none any more.
    bared: bool,
}

impl RelayCall<'_> {
    pub(super) async fn attempt(&self, body: PassedBody) -> Result<Received, Unanswered> {
        let (method, url) = (self.request.method.clone(), self.start.clone());
        let mut hop = Hop { method, url, query: self.request.query.clone(), body, home: true, bared: false };
        for _ in 0..=REDIRECTS_MAX {
            let (method, again, home) = (hop.method.clone(), hop.body.again(), hop.home);
            let received = self.hop(hop).await?;
            match self.led(&received.answer.head, method, again, home)? {
                Some(next) => hop = next,
                None => return Ok(received),
            }
        }
        let place = self.start.origin().ascii_serialization();
        Err(unsent(refused(UNREACHABLE, format!("{place} redirected more than {REDIRECTS_MAX} times"))))
    }

    /// Where an answer leads; `None`: it is the answer.
    fn led(
        &self,
        answer: &Answer,
        method: Method,
        body: Option<PassedBody>,
        home: bool,
    ) -> Result<Option<Hop>, Unanswered> {
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        // Not always ASCII, as it should be.
        let target = answer.headers.get("location").and_then(|target| std::str::from_utf8(target.as_bytes()).ok());
        let Some(target) = target else { return Ok(None) };
        let keeps = match answer.status {
            303 => method == Method::GET || method == Method::HEAD,
            301 | 302 => method != Method::POST,
            _ => true,
        };
        let (method, body) = if keeps { (method, body) } else { (Method::GET, Some(PassedBody::None)) };
        let bared = !keeps;
        // What cannot be sent again is answered with the redirect itself.
        let Some(body) = body else { return Ok(None) };
        let url = answer.url.join(target);
        let mut url = url.map_err(|error| {
            unsent(refused(UNREACHABLE, format!("the provider redirected to something that is no URL: {error}")))
        })?;
        url.set_fragment(None);
        self.source.may_go(&self.connection, &url).map_err(unsent)?;
        // Once it has left, it does not come home again: where it goes there would be a stranger's choice.
        let home = self.request.forward || home && url.origin() == self.start.origin();
        let query = url.query().map(str::to_owned);
        url.set_query(None);
        Ok(Some(Hop { method, url, query, body, home, bared }))
    }

    async fn hop(&self, hop: Hop) -> Result<Received, Unanswered> {
        let source = self.source;
        let limits = &source.definition.limits;
        let (signed, body) = self.signed(hop).map_err(unsent)?;
        let Outgoing { method, url, headers, veil, .. } = signed;
        let budget = source.budget(&self.connection);
        let until = Some(source.client.clock().now().plus(TURN_MAX));
        let turn = budget.enter_by(method.as_str(), url.path(), RequestPriority::Call, until).await;
        let permit = turn.map_err(unsent)?;
        let (silence, decode) = (limits.timeout, self.request.decompress);
        let sent = source.client.stream(StreamedRequest { method, url, headers, body, silence, decode, veil }).await;
        let answer = sent.map_err(|Unanswered { why, sent }| Unanswered { why: unreachable(why), sent })?;
        let status = answer.head.status;
        let busy = matches!(status, 429 | 503) || limits.retry_status.has(status);
        let wait = budget.learn(&limits.headers, &answer.head, busy);
        Ok(Received { answer, permit, wait })
    }

    /// The request with all that says who asks, or with nothing of it.
    fn signed(&self, hop: Hop) -> Result<(Outgoing, PassedBody), Failure> {
        let (source, own) = (self.source, &self.request.headers);
        let Hop { method, url, query, body, home, bared } = hop;
        let mut outgoing = Outgoing {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            timeout: source.definition.limits.timeout,
            max_response: 0,
            follow: false,
            veil: source.veil(&self.connection),
        };
        if home {
            outgoing.headers = self.standing()?;
            lay(&mut outgoing.headers, own);
            auth::sign_in(&source.definition.auth, &self.connection, &mut outgoing)?;
            // Its own, where the definition lets a caller bring one.
            if let Some(value) = own.get("authorization") {
                outgoing.headers.insert("authorization", value.clone());
            }
        } else {
            outgoing.headers = headers::plain(own);
        }
        if bared {
            outgoing.headers.remove("content-type");
        }
        if self.request.decompress {
            // Asked for, and undone, by whoever sends.
            outgoing.headers.remove("accept-encoding");
        }
        let query = joined(query, outgoing.url.query());
        outgoing.url.set_query(query.as_deref());
        let mut veil = std::mem::take(&mut outgoing.veil);
        auth::veil_request(&mut veil, &outgoing);
        Ok((Outgoing { veil, ..outgoing }, body))
    }

    /// The definition's headers.
    fn standing(&self) -> Result<HeaderMap, Failure> {
        let filling = Filling::new(&self.connection, "base");
        let mut headers = HeaderMap::new();
        for (name, value) in self.source.standing_headers(&filling)? {
            let bad = || refused("bad_header", format!("header «{name}» of the definition cannot be sent"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.insert(name, HeaderValue::from_str(&value).map_err(|_| bad())?);
        }
        Ok(headers)
    }
}

/// Lays headers over others of the same name.
fn lay(headers: &mut HeaderMap, own: &HeaderMap) {
    own.keys().for_each(|name| drop(headers.remove(name)));
    for (name, value) in own {
        headers.append(name.clone(), value.clone());
    }
}

/// The caller's query byte for byte, and the sign-in's behind it. A parameter that signs in is not the caller's to give.
fn joined(own: Option<String>, signed: Option<&str>) -> Option<String> {
    let Some(signed) = signed else { return own };
    let names: Vec<_> = form_urlencoded::parse(signed.as_bytes()).map(|(name, _)| name).collect();
    let name = |pair: &str| form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
    let own = own.unwrap_or_default();
    let kept = own.split('&').filter(|pair| !name(pair).is_some_and(|name| names.iter().any(|one| *one == name)));
    Some(kept.filter(|pair| !pair.is_empty()).chain([signed]).collect::<Vec<_>>().join("&"))
}

/// What was not answered, as a caller is told of it.
fn unreachable(why: Failure) -> Failure {
    let code = if matches!(why.code, "network" | "timeout") { UNREACHABLE } else { why.code };
    Failure { code, ..why }
}

fn unsent(why: Failure) -> Unanswered {
    Unanswered { why, sent: false }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn a_query_stays_as_it_was_but_for_what_signs_in() {
        let join = |own: Option<&str>, signed| joined(own.map(str::to_owned), signed);
        assert_eq!(join(Some("a=%20b+c&flag&x[]=1"), None).as_deref(), Some("a=%20b+c&flag&x[]=1"));
        assert_eq!(join(Some("a=%20b&flag"), Some("key=s")).as_deref(), Some("a=%20b&flag&key=s"));
        assert_eq!(join(Some("key=mine&a=1&k%65y=mine"), Some("key=s")).as_deref(), Some("a=1&key=s"));
        assert_eq!(join(None, Some("key=s")).as_deref(), Some("key=s"));
        assert_eq!(join(Some(""), None).as_deref(), Some(""));
    }
}
