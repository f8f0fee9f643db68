//! Reads bodies within bounds of size and time. A JSON body is read strictly: an object, unknown names are faults, and all
//! faults are told at once.

use super::auth::Caller;
use super::error::{InputFault, Refusal};
use super::{HttpContext, sender};
use crate::admission::Share;
use crate::engine::fault::{self, pass};
use crate::engine::time::Clock;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use std::time::Duration;

/// For a whole body, webhooks' included: who sends slower holds a connection no longer.
const TIME: Duration = Duration::from_secs(30);

/// Before a body has to come at [`BYTES_A_SECOND`].
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Slowest body.
pub(super) const BYTES_A_SECOND: u64 = 1_024;

/// Memory that is taken first.
const STEP: usize = 4 * 1_024;

/// Largest body of an API call.
const MAX_BYTES: usize = 1024 * 1024;

/// Longest name or id in a body.
const MAX_TEXT: usize = 1_024;

/// Why a body is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Larger than allowed.
    TooLarge,
    /// Not within [`TIME`], or slower than [`BYTES_A_SECOND`].
    TooSlow,
    /// No memory for it.
    NoMemory,
    /// The sender is gone.
    CutOff,
}

/// A whole body of at most `most` bytes. Memory is taken as it arrives, whatever was announced.
pub(crate) async fn read(mut body: Body, most: usize, memory: &mut Share, clock: &dyn Clock) -> Result<Bytes, Unread> {
    let began = clock.now();
    let mut whole: Vec<u8> = Vec::new();
    loop {
        let earned = Duration::from_millis(whole.len() as u64 * 1_000 / BYTES_A_SECOND);
        let until = began.plus((GRACE + earned).min(TIME));
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = clock.sleep_until(until) => return Err(Unread::TooSlow),
        };
        let data = match frame {
            None => return Ok(whole.into()),
            Some(Err(_)) => return Err(Unread::CutOff),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let needed = whole.len() + data.len();
        if needed > most {
            if fault::planted("body_cut_at_the_limit") {
                whole.extend_from_slice(&data[..most - whole.len()]);
                return Ok(whole.into());
            }
            return Err(Unread::TooLarge);
        }
        if needed > whole.capacity() {
            let wanted = (2 * whole.capacity()).max(STEP).min(most).max(needed);
            let had = [wanted, needed].into_iter().find(|bytes| memory.grow_to(*bytes)).ok_or(Unread::NoMemory)?;
            whole.reserve_exact(had - whole.len());
        }
        // Copied: a piece of what the socket brought would keep all of it.
        whole.extend_from_slice(&data);
        pass("in.body_half");
    }
}

impl HttpContext {
    /// As [`read`], with the refusal of an API call.
    pub(crate) async fn body(&self, body: Body, most: usize, memory: &mut Share) -> Result<Bytes, Refusal> {
        read(body, most, memory, &*self.clock).await.map_err(|why| refusal(why, most as u64))
    }
}

/// As the sender is told.
pub(crate) fn refusal(why: Unread, most: u64) -> Refusal {
    match why {
        Unread::TooSlow => {
            let message = format!(
                "the body did not come within {} s, or slower than {BYTES_A_SECOND} bytes a second",
                TIME.as_secs()
            );
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
        }
        Unread::NoMemory => {
            Refusal::busy("overloaded", "there is no memory left for more bodies at this moment; send it again")
        }
        Unread::TooLarge | Unread::CutOff => {
            let message = format!("the body is larger than {most} bytes or was cut off");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        }
    }
}

/// A body being read; fields are taken out one by one.
pub(crate) struct BodyFields {
    map: Map<String, Value>,
    faults: Vec<InputFault>,
}

impl BodyFields {
    /// Reads the body; names not in `known` are faults.
    pub(crate) async fn read(http: &HttpContext, request: Request, known: &[&str]) -> Result<Self, Refusal> {
        let plain = request.headers().get(CONTENT_ENCODING).is_none_or(|v| v == "identity");
        if !plain {
            let message = "send the body without Content-Encoding";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message));
        }
        let from = sender(request.extensions()).holder();
        let key = request.extensions().get::<Caller>().map_or(from, |caller| caller.key);
        let mut memory = http.bounds.bodies.share([key, from]);
        let bytes = http.body(request.into_body(), MAX_BYTES, &mut memory).await?;
        Self::parse(&bytes, known)
    }

    fn parse(bytes: &[u8], known: &[&str]) -> Result<Self, Refusal> {
        let wrong = |message: String| Refusal::invalid("body", vec![InputFault::new("invalid_type", &[], message)]);
        let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(format!("the body is not JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(wrong("a JSON object is wanted".into()));
        };
        let unknown = map.keys().filter(|name| !known.contains(&name.as_str()));
        let faults =
            unknown.map(|n| InputFault::new("unrecognized_key", &[n], format!("`{n}` is not known here"))).collect();
        Ok(BodyFields { map, faults })
    }

    /// A value as it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }

    /// A text that may be left out, but not be empty.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.map.remove(name) {
            None => None,
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_TEXT => Some(text),
            Some(_) => {
                self.fault("invalid_type", &[name], format!("text of 1 to {MAX_TEXT} bytes is wanted"));
                None
            }
        }
    }

    /// A text that must be there. Empty when it is not: the fault is noted.
    pub(crate) fn demand(&mut self, name: &str) -> String {
        if !self.map.contains_key(name) {
            self.fault("invalid_type", &[name], "is missing");
            return String::new();
        }
        self.text(name).unwrap_or_default()
    }

    /// A whole number within bounds that may be left out.
    pub(crate) fn number(&mut self, name: &str, from: u64, to: u64) -> Option<u64> {
        let value = self.map.remove(name)?;
        let number = value.as_u64().filter(|n| (from..=to).contains(n));
        if number.is_none() {
            self.fault("invalid_number", &[name], format!("a whole number from {from} to {to} is wanted"));
        }
        number
    }

    /// `true` or `false`, that may be left out.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.map.remove(name)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.fault("invalid_type", &[name], "true or false is wanted");
                None
            }
        }
    }

    /// An object that must be there.
    pub(crate) fn object(&mut self, name: &str) -> Map<String, Value> {
        match self.map.remove(name) {
            Some(Value::Object(map)) => map,
            _ => {
                self.fault("invalid_type", &[name], "a JSON object is wanted");
                Map::new()
            }
        }
    }

    /// Whether a name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, code: &'static str, path: &[&str], message: impl Into<String>) {
        self.faults.push(InputFault::new(code, path, message));
    }

    /// Refuses if there were faults.
    pub(crate) fn done(self) -> Result<(), Refusal> {
        if self.faults.is_empty() { Ok(()) } else { Err(Refusal::invalid("body", self.faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Bounds, Holder, Ingress, Pool};
    use crate::engine::model::Timestamp;
    use crate::engine::time::ManualClock;
    use axum::response::IntoResponse;
    use futures_util::{poll, stream};
    use std::convert::Infallible;
    use std::sync::Arc;

    fn memory() -> Share {
        Pool::new(1 << 20, 1 << 10).share([Holder::of("test", 1); 2])
    }

    /// A body that never comes, as somebody sends it who only wants to hold a place.
    fn never() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_waited_for_within_bounds() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let http = HttpContext::new(Arc::new(Bounds::new(Ingress::default())), &[], clock.clone());
        let (mut memory, mut more) = (memory(), memory());
        let mut waiting = std::pin::pin!(http.body(never(), MAX_BYTES, &mut memory));
        assert!(poll!(waiting.as_mut()).is_pending());
        clock.advance(TIME);
        let refusal = waiting.await.expect_err("no body came");
        assert_eq!(refusal.into_response().status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(http.body(Body::from("{}"), MAX_BYTES, &mut more).await.expect("a body"), "{}");
    }

    #[test]
    fn faults_come_all_at_once() {
        let mut body = BodyFields::parse(br#"{"a": 1, "b": "", "n": 11}"#, &["b", "n", "m"]).expect("object");
        assert_eq!(body.text("b"), None);
        assert_eq!(body.number("n", 1, 10), None);
        assert_eq!(body.demand("m"), "");
        let paths: Vec<_> = body.faults.iter().map(|f| f.path.join(".")).collect();
        assert_eq!(paths, ["a", "b", "n", "m"]);
    }

    #[test]
    fn only_objects() {
        assert!(BodyFields::parse(b"[]", &[]).is_err());
        assert!(BodyFields::parse(b"", &[]).is_err());
        assert!(BodyFields::parse(b"{}", &[]).is_ok());
    }
}
