//! Requests that are passed on: with credentials that are renewed in between, and to hundreds of places where nobody may be sent.

use crate::definitions::lookup;
use crate::egress::{Canary, places};
use crate::provider::{Provider, Reply};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::definition::{Definition, parse};
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions, Method, PassedBody, Url};
use syncline_connectors::rest::notes::Forgetful;
use syncline_connectors::rest::relay::{RelayRequest, Relayed};
use syncline_connectors::rest::{Credentials, RestSource};
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::SystemClock;

fn client(allow: &[String]) -> Client {
    let egress = Egress::new(allow.iter().map(|text| text.parse().expect("an allowance")).collect());
    let connect_timeout = Duration::from_millis(500);
    let options = ClientOptions { allow_http: true, egress, connect_timeout, ..ClientOptions::default() };
    Client::new(options, Arc::new(SystemClock)).expect("a client")
}

fn define(text: &str) -> Definition {
    parse("f.yaml", text, &lookup).unwrap_or_else(|why| panic!("{why:?}")).0
}

fn source(definition: Definition, client: &Client) -> RestSource {
    let notes = Arc::new(Forgetful);
    RestSource::new(Arc::new(definition), client.clone(), Arc::new(SystemClock), notes).expect("a source")
}

fn connection(base_url: Option<String>, metadata: Value) -> Arc<Connection> {
    let credentials = Map::from_iter([("token".to_owned(), json!("old"))]);
    let (environment, id) = ("default".to_owned(), "me".to_owned());
    Arc::new(Connection { environment, id, base_url, metadata, credentials, ..Connection::default() })
}

fn get(path: &str) -> RelayRequest {
    RelayRequest { method: Method::GET, path: path.to_owned(), ..RelayRequest::default() }
}

/// One token after the other.
struct Tokens {
    current: Mutex<&'static str>,
    refusals: AtomicUsize,
}

fn bearing(token: &str) -> Option<Map<String, Value>> {
    Some(Map::from_iter([("token".to_owned(), token.into())]))
}

#[async_trait::async_trait]
impl Credentials for Tokens {
    async fn current(&self, _: &str, _: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        Ok(bearing(*self.current.lock().expect("lock")))
    }

    async fn refused(&self, _: &str, _: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        *self.current.lock().expect("lock") = "good";
        Ok(bearing("good"))
    }
}

#[tokio::test]
async fn what_can_be_sent_again_is_sent_with_credentials_that_were_renewed() {
    let provider = Provider::start(|asked| match asked.header("authorization").as_deref() {
        Some("Bearer good") => Reply::text(200, "in"),
        _ => Reply::text(401, "who are you?"),
    });
    let provider = provider.await;
    let address = provider.base().trim_start_matches("http://").to_owned();
    let client = client(&[address]);
    let text = format!("source: acme\nbase_url: {}\nauth: {{type: bearer}}\n", provider.base());
    let bodies: [(fn() -> PassedBody, u16, usize); 3] = [
        (|| PassedBody::None, 200, 2),
        (|| PassedBody::Whole("body".into()), 200, 2),
        (|| PassedBody::Passing(Box::pin(futures_util::stream::iter([Ok("body".into())])), Some(4)), 401, 1),
    ];
    for (body, status, requests) in bodies {
        let before = provider.asked().len();
        let tokens = Arc::new(Tokens { current: Mutex::new("old"), refusals: AtomicUsize::new(0) });
        let source = source(define(&text), &client).with_credentials(tokens.clone());
        let request = RelayRequest { method: Method::POST, ..get("/a") };
        let relayed: Relayed = source.relay(&connection(None, json!({})), request, body()).await.expect("an answer");
        assert_eq!((relayed.status, provider.asked().len() - before), (status, requests));
        assert_eq!(tokens.refusals.load(Ordering::SeqCst), requests - 1);
    }
}

/// Refused before anybody is connected to.
fn is_refused(outcome: &Result<Relayed, Failure>, codes: &[&str]) -> bool {
    matches!(outcome, Err(why) if codes.contains(&why.code))
}

#[tokio::test(flavor = "multi_thread")]
async fn ssrf_no_spelling_of_a_place_inside_is_reached_by_any_way_through_the_proxy() {
    let canary = Canary::start().await;
    let home = Provider::start(|asked| match asked.query.get("to") {
        Some(to) => Reply::text(302, "").with("location", to),
        None => Reply::text(200, "home"),
    });
    let home = home.await;
    let client = client(&[home.base().trim_start_matches("http://").to_owned()]);
    let port = canary.port;
    let plain = define(&format!("source: acme\nbase_url: {}\nauth: {{type: bearer}}\n", home.base()));
    let by_field = define("source: acme\nbase_url: \"http://{{ connection.metadata.host }}/\"\nauth: {type: bearer}\n");
    let mut wrong = Vec::new();
    let mut tried = 0;
    for place in places() {
        for url in [format!("http://{place}:{port}"), format!("https://{place}"), format!("http://a@{place}:{port}")] {
            // The definition itself names the place, which no definition should: egress is the last word.
            let mut naive = plain.clone();
            naive.proxy.allow.extend(Url::parse(&url).ok().map(|url| url.origin()));
            let (strict, naive, by_field) =
                (source(plain.clone(), &client), source(naive, &client), source(by_field.clone(), &client));
            let own = connection(None, json!({"host": format!("{place}:{port}")}));
            let whole = connection(None, json!({"host": place}));
            let based = RelayRequest { base: Some(url.clone()), ..get("/x") };
            let led = || {
                let to = url::form_urlencoded::byte_serialize(url.as_bytes()).collect::<String>();
                RelayRequest { query: Some(format!("to={to}")), ..get("/x") }
            };
            let named = ["origin_not_allowed", "bad_base_url", "bad_url", "egress_blocked"];
            let led_codes = ["origin_not_allowed", "bad_url", "egress_blocked", "provider_unreachable"];
            let body = || PassedBody::None;
            let ways = [
                ("strict override", strict.relay(&own, based, body()).await, &named[..2]),
                (
                    "override",
                    naive.relay(&own, RelayRequest { base: Some(url.clone()), ..get("/x") }, body()).await,
                    &named[..],
                ),
                ("strict redirect", strict.relay(&own, led(), body()).await, &led_codes[..]),
                ("redirect", naive.relay(&own, led(), body()).await, &led_codes[..]),
                ("field", by_field.relay(&own, get("/x"), body()).await, &["bad_host", "bad_url"][..]),
                (
                    "whole field",
                    by_field.relay(&whole, get("/x"), body()).await,
                    &["bad_host", "bad_url", "egress_blocked"][..],
                ),
                (
                    "base of the connection",
                    strict.relay(&connection(Some(url.clone()), json!({})), get("/x"), body()).await,
                    &["bad_url", "egress_blocked"][..],
                ),
            ];
            for (way, outcome, codes) in ways {
                tried += 1;
                if !is_refused(&outcome, codes) {
                    wrong.push(format!("{way}: {url}: {:?}", outcome.map(|relayed| relayed.status)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(canary.reached(), 0, "somebody came through");
    println!("{tried} attempts, 0 connections");
}
