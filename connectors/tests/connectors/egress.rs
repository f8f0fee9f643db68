//! Where requests may go, through the public door: hundreds of spellings of places nobody may be sent to, at three stages.
//!
//! Stages: *settings* (a URL is read or saved), *resolution* (a name stands for the address), *connection* (the client is
//! told to send). Listeners on this machine count who reaches them: nobody may.

use async_trait::async_trait;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions, Lookup, Outgoing, Url, Veil};
use syncline_engine::time::SystemClock;
use tokio::net::TcpListener;

/// Counts connections that reach this machine, on all of its own addresses.
pub(super) struct Canary {
    pub(super) port: u16,
    reached: Arc<AtomicUsize>,
}

impl Canary {
    pub(super) async fn start() -> Canary {
        let reached = Arc::new(AtomicUsize::new(0));
        let first = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let mut all = vec![first];
        // A machine without version 6 has nothing to be reached by it.
        all.extend(TcpListener::bind(("::1", port)).await.ok());
        for listener in all {
            let reached = reached.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    reached.fetch_add(1, Ordering::SeqCst);
                    drop(stream);
                }
            });
        }
        Canary { port, reached }
    }

    pub(super) fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

/// Gives what it was told for every name, in turn; the last for ever.
struct Told {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Told {
    fn new(answers: &[&[&str]]) -> Arc<Told> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().expect("an address")).collect();
        Arc::new(Told { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Lookup for Told {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("lock");
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

fn client(allow: &[&str], lookup: Arc<dyn Lookup>) -> Client {
    let egress = Egress::new(allow.iter().map(|text| text.parse().expect("an allowance")).collect());
    let connect_timeout = Duration::from_millis(500);
    let options = ClientOptions { allow_http: true, egress, connect_timeout, ..ClientOptions::default() };
    Client::with_lookup(options, Arc::new(SystemClock), lookup).expect("a client")
}

fn get(url: Url) -> Outgoing {
    Outgoing {
        method: "GET".parse().expect("a method"),
        url,
        headers: Default::default(),
        body: None,
        timeout: Duration::from_secs(5),
        max_response: 1 << 20,
        follow: true,
        veil: Veil::default(),
    }
}

/// An address in the ways that programs have read it.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let whole = u32::from(address);
    let mut all = vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}.{}", whole & 0x00ff_ffff),
        format!("{whole}"),
        format!("0x{whole:08x}"),
        format!("0X{whole:08X}"),
        format!("0{whole:011o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.0x{b:x}.0{c:o}.{d}"),
        format!("{a}%2E{b}%2e{c}%2E{d}"),
        format!("{a}。{b}．{c}｡{d}"),
    ];
    let percent: String = format!("{a}.{b}.{c}.{d}").bytes().map(|byte| format!("%{byte:02x}")).collect();
    all.push(percent);
    // Digits in circles, wide and mathematical ones are digits to a parser of hosts.
    for zero in ['０', '𝟎', '𝟘'] {
        let odd = |n: u8| {
            n.to_string()
                .chars()
                .map(|c| char::from_u32(zero as u32 + c as u32 - 48).expect("a digit"))
                .collect::<String>()
        };
        all.push(format!("{}.{}.{}.{}", odd(a), odd(b), odd(c), odd(d)));
    }
    let circled = |n: u8| {
        n.to_string()
            .chars()
            .map(|c| if c == '0' { '⓪' } else { char::from_u32('①' as u32 + c as u32 - 49).expect("a digit") })
            .collect::<String>()
    };
    all.push(format!("{}.{}.{}.{}", circled(a), circled(b), circled(c), circled(d)));
    // Inside of version 6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
    let (high, low) = (whole >> 16, whole & 0xffff);
    let (not_high, not_low) = (!high & 0xffff, !low & 0xffff);
    all.extend([
        format!("[::ffff:{a}.{b}.{c}.{d}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::FFFF:{a}.{b}.{c}.{d}]"),
        format!("[::{a}.{b}.{c}.{d}]"),
        format!("[::ffff:0:{a}.{b}.{c}.{d}]"),
        format!("[64:ff9b::{a}.{b}.{c}.{d}]"),
        format!("[64:ff9b:1::{high:x}:{low:x}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::1]"),
        format!("[2001::{not_high:x}:{not_low:x}]"),
        format!("[fe80::5efe:{a}.{b}.{c}.{d}]"),
        format!("[2606:4700::5efe:{a}.{b}.{c}.{d}]"),
        format!("[2606:4700::200:5efe:{high:x}:{low:x}]"),
    ]);
    all
}

/// One address of every range, both ends of those that matter most.
const V4: [&str; 30] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0.0.0.0",
    "0.0.0.1",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
];

const V6: [&str; 24] = [
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[fc00::1]",
    "[fd00::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fdff:ffff::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
    "[64:ff9b:1::1]",
    "[2002::1]",
    "[2001::1]",
];

const NAMES: [&str; 10] = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.",
    "a.localhost",
    "a.b.localhost.",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "%6cocalhost",
    "ｌｏｃａｌｈｏｓｔ",
    "local\u{ad}host",
];

/// Every spelling of a place nobody may be sent to.
pub(super) fn places() -> Vec<String> {
    let addresses = V4.iter().flat_map(|text| spellings(text.parse().expect("an address")));
    addresses.chain(V6.iter().chain(&NAMES).map(|text| text.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_place_inside_is_taken_at_any_stage() {
    let mut trial = syncline_ledger::Trial::of("egress");
    let canary = Canary::start().await;
    let port = canary.port;
    let places = places();
    assert!(places.iter().collect::<BTreeSet<_>>().len() >= 400, "{} spellings", places.len());
    let strict = Egress::default();
    let mut wrong = Vec::new();
    let mut addresses = BTreeSet::new();
    let real = client(&[], Arc::new(syncline_connectors::http::SystemLookup));
    for place in &places {
        for text in [
            format!("http://{place}:{port}/x"),
            format!("https://{place}/"),
            format!("http://public.example@{place}:{port}/"),
        ] {
            // What the parser takes for no host at all is dialled by nobody.
            let Ok(url) = Url::parse(&text) else { continue };
            if let Some(address) = url.host().and_then(|host| match host {
                url::Host::Ipv4(address) => Some(IpAddr::from(address)),
                url::Host::Ipv6(address) => Some(IpAddr::from(address)),
                url::Host::Domain(_) => None,
            }) {
                addresses.insert(address);
            }
            if strict.judge(&url).is_ok() {
                wrong.push(format!("settings: {text}"));
            }
            match real.send(get(url)).await {
                Err(why) if !why.retry && matches!(why.code, "egress_blocked" | "bad_url") => {}
                other => wrong.push(format!("connection: {text}: {other:?}")),
            }
        }
    }
    assert!(addresses.len() >= 300, "{} addresses", addresses.len());
    for address in &addresses {
        let lookup = Told::new(&[&[&address.to_string()]]);
        let through = client(&[], lookup.clone());
        let url = Url::parse(&format!("http://crm.example:{port}/")).expect("a URL");
        match through.send(get(url)).await {
            Err(why) if why.code == "egress_blocked" && !why.retry => {}
            other => wrong.push(format!("resolution: {address}: {other:?}")),
        }
        assert_eq!(lookup.asked.load(Ordering::SeqCst), 1, "looked up once: {address}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(canary.reached(), 0, "somebody came through");
    // Each spelling is judged as a setting and dialled; each address is what a name stands for.
    trial.add((2 * places.len() + addresses.len()) as u64);
    println!("{} spellings, {} addresses, 3 stages, 0 connections", places.len(), addresses.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_change_or_mix_reach_nobody() {
    let canary = Canary::start().await;
    let public = "93.184.216.34";
    // A public address to begin with; what follows is asked for again at each attempt, and judged again.
    let mixed: [&[&str]; 6] = [
        &[public, "127.0.0.1"],
        &["127.0.0.1", public],
        &[public, "::1"],
        &["2606:2800:220:1::1", "fd00::1"],
        &[public, "::ffff:127.0.0.1"],
        &[public, public, public, "169.254.169.254"],
    ];
    for answer in mixed {
        let lookup = Told::new(&[answer]);
        let url = Url::parse(&format!("http://crm.example:{}/", canary.port)).expect("a URL");
        let why = client(&[], lookup).send(get(url)).await.expect_err("refused");
        assert_eq!((why.code, why.retry), ("egress_blocked", false), "{answer:?}: {why:?}");
        assert!(why.message.contains("crm.example is "), "{why:?}");
    }
    assert_eq!(canary.reached(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_judged_at_each_connection_and_dialled_as_it_was_judged() {
    let canary = Canary::start().await;
    // The name is allowed on this machine's second address only; a name server then says the first.
    let answers: Vec<Vec<&str>> = (0..500).map(|n| vec![if n % 2 == 0 { "127.0.0.2" } else { "127.0.0.1" }]).collect();
    let answers: Vec<&[&str]> = answers.iter().map(Vec::as_slice).collect();
    let lookup = Told::new(&answers);
    let client = client(&["127.0.0.2"], lookup.clone());
    let url = Url::parse(&format!("http://crm.example:{}/", canary.port)).expect("a URL");
    let mut dialled = 0;
    for n in 0..500 {
        let before = canary.reached();
        let why = client.send(get(url.clone())).await.expect_err("the listener answers nothing");
        match n % 2 {
            // It hangs up, so the connection is not kept, and the next attempt looks the name up anew.
            0 => {
                assert_eq!(why.code, "network", "{n}: {why:?}");
                dialled += 1;
            }
            _ => {
                assert_eq!(why.code, "egress_blocked", "{n}: {why:?}");
                assert_eq!(canary.reached(), before, "{n}");
            }
        }
    }
    assert_eq!((dialled, lookup.asked.load(Ordering::SeqCst)), (250, 500), "one look-up a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_allowances_with_a_port_are_judged_like_everything_else() {
    use axum::response::Redirect;
    use axum::routing::get as route;
    let canary = Canary::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let to = format!("http://127.0.0.2:{}/", canary.port);
    let router = axum::Router::new()
        .route(
            "/away",
            route(move || {
                let to = to.clone();
                async move { Redirect::temporary(&to) }
            }),
        )
        .route("/near", route(|| async { Redirect::temporary("/here") }))
        .route("/here", route(|| async { "here" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let lookup = Told::new(&[&["127.0.0.1"]]);
    let client = client(&[&format!("127.0.0.1:{port}"), &format!("crm.example:{port}")], lookup);
    let ask = async |url: String| client.send(get(Url::parse(&url).expect("a URL"))).await;
    for host in ["127.0.0.1", "crm.example", "127.1", "other.example"] {
        let answer = ask(format!("http://{host}:{port}/near")).await.expect("allowed");
        assert_eq!(answer.body, "here", "{host}");
    }
    let why = ask(format!("http://127.0.0.1:{port}/away")).await.expect_err("another origin");
    assert_eq!(why.code, "other_origin");
    for host in ["127.0.0.1", "crm.example", "127.0.0.2"] {
        let why = ask(format!("http://{host}:{}/", canary.port)).await.expect_err("another port");
        assert_eq!(why.code, "egress_blocked", "{host}: {why:?}");
    }
    assert_eq!(canary.reached(), 0);
}
