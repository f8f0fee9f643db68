//! The proxy: every rule of its table, each as a request to the running program and what the provider got of it.

use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use syncline_tests::mirror::{Asked, Mirror, gzip, holding};
use syncline_tests::process;
use syncline_tests::serving::{KEY, Serving, client};
use syncline_tests::wire::{self, Answer};

const LIMIT: Duration = Duration::from_secs(60);
const READER: &str = "a-key-of-a-reader-of-32-characters-or-more";
/// The connection's secrets.
const TOKEN: &str = "a-token-that-nobody-may-see";
const KEY_IN_QUERY: &str = "a-key-that-stands-in-queries";
/// All that no stranger may see.
const SECRETS: [&str; 4] = [TOKEN, KEY_IN_QUERY, KEY, "a-standing-secret"];

/// The program with sources of different rules, and two providers: the one they name, and another one.
struct Bench {
    server: Serving,
    home: Mirror,
    other: Mirror,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, other) = (Mirror::start().await, Mirror::start().await);
        let sources = folder.path().join("sources");
        std::fs::create_dir_all(&sources).expect("a folder");
        lay_out(&sources, &home.url, &other.url);
        std::fs::write(folder.path().join("reader.key"), READER).expect("written");
        let keys = json!([
            {"name": "tests", "key": "env:TEST_KEY", "role": "writer"},
            {"name": "reader", "key": "file:reader.key", "role": "reader"},
        ]);
        let server = Serving::start_with(folder.path(), &sources, json!({"api_keys": keys})).await;
        Bench { server, home, other, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.server.url.trim_start_matches("http://").parse().expect("an address")
    }

    /// A request as a writer, to the source.
    async fn ask(&self, source: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask_as(KEY, source, method, target, headers, body).await
    }

    async fn ask_as(
        &self,
        key: &str,
        source: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let bearer = format!("Bearer {key}");
        let mut all = vec![
            ("authorization", bearer.as_str()),
            ("provider-config-key", source),
            ("connection-id", "acme"),
            ("base-url-override", ""),
        ];
        all.retain(|(name, _)| !headers.iter().any(|(own, _)| own == name));
        all.extend(headers);
        wire::send(self.address(), method, target, &all, body).await.expect("an answer")
    }

    /// What the provider got of the last request, which it answered.
    async fn got(&self, source: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Asked {
        self.home.forget();
        let answer = self.ask(source, method, target, headers, body).await;
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
        let mut asked = self.home.asked();
        assert_eq!(asked.len(), 1, "{method} {target}: {asked:?}");
        asked.remove(0)
    }

    /// Refused by us, and nobody was asked.
    async fn refused(&self, source: &str, target: &str, headers: &[(&str, &str)], status: u16, code: &str) {
        let before = (self.home.asked().len(), self.other.asked().len());
        let answer = self.ask(source, "GET", target, headers, b"").await;
        let said = (answer.status, answer.code());
        assert_eq!(said, (status, code.to_owned()), "{target} {headers:?}: {}", answer.text());
        assert_eq!(answer.header("syncline-origin"), Some("syncline"), "{target} {headers:?}");
        let after = (self.home.asked().len(), self.other.asked().len());
        assert_eq!(after, before, "{target} {headers:?}: somebody was asked");
    }
}

/// `plain` has no `proxy`, `open` allows all that can be allowed, `keyed` signs in by the query.
fn lay_out(sources: &Path, home: &str, other: &str) {
    std::fs::write(sources.join("token"), TOKEN).expect("written");
    std::fs::write(sources.join("key"), KEY_IN_QUERY).expect("written");
    let limits = "limits: {concurrency: 16, timeout: 2s, retry: {backoff: 5ms..20ms}}\n";
    let bearer = "auth: {type: bearer}\nconnections: {acme: {credentials: {token: \"file:token\"}}}\n";
    let plain =
        format!("source: plain\nbase_url: {home}/api\n{bearer}{limits}headers: {{X-Version: \"1\"}}\nproxy: {{}}\n");
    let open = format!(
        "source: open\nbase_url: {home}/api\n{bearer}{limits}headers: {{X-Standing: a-standing-secret}}\n\
         proxy: {{allow: [\"{other}\"], allow_authorization: true, readers: true, max: 64KiB}}\n"
    );
    let keyed = format!(
        "source: keyed\nbase_url: {home}\n{limits}auth: {{type: api_key, in: query, name: key}}\n\
         proxy: {{allow: [\"{other}\"]}}\nconnections: {{acme: {{credentials: {{key: \"file:key\"}}}}}}\n"
    );
    for (name, text) in [("plain", plain), ("open", open), ("keyed", keyed)] {
        std::fs::write(sources.join(format!("{name}.yaml")), text).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn path_and_query_go_as_they_came_or_are_refused() {
    let bench = Bench::start().await;
    for (target, expected) in [
        ("/proxy/echo", "/api/echo"),
        ("/proxy/echo/", "/api/echo/"),
        ("/proxy", "/api/"),
        ("/proxy/", "/api/"),
        ("/proxy/a%20b?x=%20+&y&z[]=1&x=2", "/api/a%20b?x=%20+&y&z[]=1&x=2"),
        ("/proxy/a?q='s'", "/api/a?q=%27s%27"),
        ("/proxy/a;b=1/c,d@e:f", "/api/a;b=1/c,d@e:f"),
        ("/proxy/a%2Fb%5Cc", "/api/a%2Fb%5Cc"),
        ("/proxy/a?to=https://x//y/../z", "/api/a?to=https://x//y/../z"),
        ("/proxy/proxy/...", "/api/proxy/..."),
    ] {
        assert_eq!(bench.got("plain", "GET", target, &[], b"").await.target, expected, "{target}");
    }
    let target = bench.got("keyed", "GET", "/proxy/a%20b?x=%20+&key=mine&y", &[], b"").await.target;
    assert_eq!(target, format!("/a%20b?x=%20+&y&key={KEY_IN_QUERY}"));
    for path in [
        "//a",
        "/a//b",
        "/a/",
        "/../a",
        "/a/../b",
        "/a/.",
        "/%2e%2e/a",
        "/a/.%2E/b",
        "/a/..%2fb",
        "/a\\b",
        "/..%5cb",
        "/a%00",
        "/a%0d%0aX: y",
    ] {
        let fine = path == "/a/";
        let target = format!("/proxy{}", path.replace(": ", ":%20"));
        match fine {
            true => drop(bench.got("plain", "GET", &target, &[], b"").await),
            false => bench.refused("plain", &target, &[], 400, "bad_path").await,
        }
    }
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_meant_for_the_provider_gets_there_signed_in() {
    let bench = Bench::start().await;
    let headers = [
        ("accept", "text/csv"),
        ("content-type", "text/plain"),
        ("cookie", "session=ours"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-other", "1"),
        ("user-agent", "a caller"),
        ("nango-activity-log-id", "7"),
        ("nango-proxy-x-trace", "trace"),
        ("nango-proxy-x-version", "2"),
    ];
    let asked = bench.got("plain", "POST", "/proxy/echo", &headers, b"a body").await;
    let expected = [
        ("accept", Some("text/csv")),
        ("content-type", Some("text/plain")),
        ("x-trace", Some("trace")),
        ("x-version", Some("2")),
        ("authorization", Some("Bearer a-token-that-nobody-may-see")),
        ("content-length", Some("6")),
        ("cookie", None),
        ("x-forwarded-for", None),
        ("x-other", None),
        ("connection-id", None),
        ("provider-config-key", None),
        ("base-url-override", None),
        ("nango-activity-log-id", None),
        ("nango-proxy-x-trace", None),
        ("x-request-id", None),
    ];
    for (name, value) in expected {
        assert_eq!(asked.header(name), value, "{name}: {asked:?}");
    }
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("syncline/")), "{asked:?}");
    assert_eq!((asked.body.as_slice(), asked.header("host")), (&b"a body"[..], bench.home.url.strip_prefix("http://")));
    assert_eq!(bench.got("plain", "GET", "/proxy/echo", &[], b"").await.header("x-version"), Some("1"));
    let own = [("nango-proxy-content-type", "a/b"), ("content-type", "c/d"), ("nango-proxy-user-agent", "mine")];
    let asked = bench.got("plain", "PUT", "/proxy/echo", &own, b"{}").await;
    assert_eq!((asked.header("content-type"), asked.header("user-agent")), (Some("a/b"), Some("mine")));
    for name in ["host", "cookie", "connection", "content-length", "transfer-encoding", "te", "authorization"] {
        let header = format!("nango-proxy-{name}");
        bench.refused("plain", "/proxy/echo", &[(&header, "1")], 400, "forbidden_header").await;
    }
    let asked = bench.got("open", "GET", "/proxy/echo", &[("nango-proxy-authorization", "Basic abc")], b"").await;
    assert_eq!(asked.header("authorization"), Some("Basic abc"));
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_passes_and_every_answer_comes_back() {
    let bench = Bench::start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "LOCK"] {
        let body: &[u8] = if method == "GET" { b"" } else { b"<a/>" };
        let asked = bench.got("plain", method, "/proxy/echo", &[], body).await;
        assert_eq!((asked.method.as_str(), asked.body.as_slice()), (method, body));
    }
    let request = client().head(format!("{}/proxy/status?code=200&h=x-size:7", bench.server.url)).bearer_auth(KEY);
    let request = request.header("provider-config-key", "plain").header("connection-id", "acme");
    let answer = request.send().await.expect("an answer");
    assert_eq!((answer.status(), answer.headers()["x-size"].to_str().ok()), (StatusCode::OK, Some("7")));
    assert_eq!(bench.home.asked().last().map(|asked| asked.method.as_str()), Some("HEAD"));
    for status in [200, 201, 202, 204, 304, 401, 404, 418, 422, 451] {
        let answer = bench.ask("plain", "GET", &format!("/proxy/status?code={status}"), &[], b"").await;
        assert_eq!((answer.status, answer.header("syncline-origin")), (status, None), "{}", answer.text());
    }
    let target = "/proxy/status?h=set-cookie:a&h=access-control-allow-origin:*&h=syncline-origin:syncline&h=x-own:1\
                  &h=link:1&h=link:2&h=connection:x-hop&h=x-hop:1&h=x-request-id:theirs&code=200";
    let answer = bench.ask("plain", "GET", target, &[], b"").await;
    for name in ["set-cookie", "access-control-allow-origin", "syncline-origin", "x-hop"] {
        assert_eq!(answer.header(name), None, "{:?}", answer.headers);
    }
    assert_eq!((answer.header("x-own"), answer.header("x-request-id")), (Some("1"), Some("theirs")));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "link").count(), 2);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_stays_so_unless_it_is_to_be_decompressed() {
    let bench = Bench::start().await;
    let gzip_wanted = [("accept-encoding", "gzip")];
    let answer = bench.ask("plain", "GET", "/proxy/gzip", &gzip_wanted, b"").await;
    assert_eq!((answer.header("content-encoding"), answer.body.as_slice()), (Some("gzip"), gzip(b"hello").as_slice()));
    assert_eq!(bench.home.asked()[0].header("accept-encoding"), Some("gzip"));
    bench.home.forget();
    let answer = bench.ask("plain", "GET", "/proxy/gzip", &[("decompress", "true")], b"").await;
    assert_eq!((answer.header("content-encoding"), answer.text()), (None, "hello".to_owned()));
    assert_eq!(bench.home.asked()[0].header("accept-encoding"), Some("gzip"), "asked for");
    bench.home.forget();
    bench.ask("plain", "GET", "/proxy/echo", &[], b"").await;
    assert_eq!(bench.home.asked()[0].header("accept-encoding"), None);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_repeated_is_repeated_as_often_as_is_asked_for() {
    let bench = Bench::start().await;
    let key: (&str, &str) = ("nango-proxy-idempotency-key", "1");
    let flaky = |code: u16, times: u32| format!("/proxy/flaky?code={code}&times={times}");
    let cases: [(&str, String, &[(&str, &str)], usize, u16); 19] = [
        ("GET", flaky(503, 2), &[], 1, 503),
        ("GET", flaky(503, 2), &[("retries", "2")], 3, 200),
        ("GET", flaky(503, 9), &[("retries", "2")], 3, 503),
        ("GET", flaky(500, 1), &[("retries", "1")], 2, 200),
        ("GET", flaky(599, 1), &[("retries", "1")], 2, 200),
        ("GET", flaky(429, 1), &[("retries", "1")], 2, 200),
        ("GET", flaky(404, 1), &[("retries", "1")], 1, 404),
        ("GET", flaky(404, 1), &[("retries", "1"), ("retry-on", "409,404")], 2, 200),
        ("PUT", flaky(500, 1), &[("retries", "1")], 2, 200),
        ("DELETE", flaky(500, 1), &[("retries", "1")], 2, 200),
        ("REPORT", flaky(500, 1), &[("retries", "1")], 2, 200),
        ("POST", flaky(500, 1), &[("retries", "1")], 1, 500),
        ("POST", flaky(409, 1), &[("retries", "1"), ("retry-on", "409")], 1, 409),
        ("POST", flaky(429, 1), &[("retries", "1")], 2, 200),
        ("POST", flaky(503, 1), &[("retries", "1")], 1, 503),
        ("POST", flaky(503, 1) + "&h=retry-after:0", &[("retries", "1")], 2, 200),
        ("PATCH", flaky(500, 1), &[("retries", "1")], 1, 500),
        ("POST", flaky(500, 1), &[("retries", "1"), key], 2, 200),
        ("LOCK", flaky(500, 1), &[("retries", "1")], 1, 500),
    ];
    for (method, target, headers, attempts, status) in cases {
        bench.home.forget();
        let body: &[u8] = if method == "GET" { b"" } else { b"a body" };
        let answer = bench.ask("plain", method, &target, headers, body).await;
        let asked = bench.home.asked();
        let said = format!("{method} {target} {headers:?}: {}", answer.text());
        assert_eq!((asked.len(), answer.status), (attempts, status), "{said}");
        assert!(asked.iter().all(|one| one.body == body && one.header("authorization").is_some()), "{said}");
    }
    let hang = [("retries", "1")];
    for (method, attempts) in [("GET", 2), ("POST", 1)] {
        bench.home.forget();
        let answer = bench.ask("plain", method, "/proxy/hang?ms=6000", &hang, b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (424, "provider_unreachable"), "{method}");
        assert_eq!(bench.home.asked().len(), attempts, "{method}: its answer was lost, so it may have had an effect");
    }
    for wrong in [("retries", "11"), ("retries", "-1"), ("retry-on", "often"), ("decompress", "maybe")] {
        bench.refused("plain", "/proxy/echo", &[wrong], 400, "invalid_headers").await;
    }
    let far = bench.ask("plain", "GET", "/proxy/status?code=429&h=retry-after:3600", &[("retries", "3")], b"").await;
    assert_eq!((far.status, far.header("retry-after"), far.header("syncline-origin")), (429, Some("3600"), None));
    let blocked = bench.ask("plain", "GET", "/proxy/echo", &[], b"").await;
    assert_eq!(
        (blocked.status, blocked.code().as_str()),
        (429, "too_many_requests"),
        "until the provider is to be asked"
    );
    let wait: u64 = blocked.header("retry-after").and_then(|text| text.parse().ok()).expect("a wait");
    assert!((3_500..=3_600).contains(&wait) && blocked.header("syncline-origin").is_some(), "{wait}");
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_base_is_one_that_the_definition_names() {
    let bench = Bench::start().await;
    let (home, other) = (bench.home.url.clone(), bench.other.url.clone());
    let at = format!("{home}/v2/");
    assert_eq!(bench.got("plain", "GET", "/proxy/echo", &[("base-url-override", &at)], b"").await.target, "/v2/echo");
    let answer = bench.ask("open", "GET", "/proxy/echo", &[("base-url-override", &other)], b"").await;
    assert_eq!((answer.status, bench.other.asked().len()), (200, 1));
    assert_eq!(bench.other.asked()[0].header("authorization"), Some("Bearer a-token-that-nobody-may-see"));
    bench.refused("plain", "/proxy/echo", &[("base-url-override", &other)], 403, "origin_not_allowed").await;
    let port = home.rsplit(':').next().expect("a port").to_owned();
    for strange in [
        "https://evil.example".to_owned(),
        format!("http://127.0.0.1.evil.example:{port}"),
        format!("http://localhost:{port}"),
        "https://127.0.0.1".to_owned(),
        "http://127.0.0.1:1".to_owned(),
        "http://169.254.169.254".to_owned(),
        "http://[::1]".to_owned(),
        "http://2130706433".to_owned(),
    ] {
        bench.refused("open", "/proxy/echo", &[("base-url-override", &strange)], 403, "origin_not_allowed").await;
    }
    for bad in [
        "evil.example".to_owned(),
        "ftp://127.0.0.1".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://".to_owned(),
        format!("http://user:secret@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}?x="),
        format!("http://127.0.0.1:{port}\\@evil.example"),
        format!("{home}#"),
    ] {
        bench.refused("open", "/proxy/echo", &[("base-url-override", &bad)], 400, "bad_base_url").await;
    }
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_where_they_may_lead_and_secrets_stay_at_home() {
    let bench = Bench::start().await;
    let (home, other) = (bench.home.url.clone(), bench.other.url.clone());
    let to = |code: u16, to: &str| format!("/proxy/redirect?code={code}&to={}", to.replace('&', "%26"));
    let headers = [("nango-proxy-x-secret", "a-standing-secret"), ("accept", "a/b")];
    for (source, forward, secrets) in [("open", "false", 0), ("keyed", "false", 0), ("open", "true", 2)] {
        bench.other.forget();
        let mut all = headers.to_vec();
        all.push(("forward-headers-on-redirect", forward));
        let answer = bench.ask(source, "GET", &to(302, &format!("{other}/echo?x=1")), &all, b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let asked = bench.other.asked();
        assert_eq!((asked.len(), asked[0].target.as_str(), asked[0].header("accept")), (1, "/echo?x=1", Some("a/b")));
        assert_eq!(holding(&asked, &SECRETS).len(), secrets, "{source} {forward}: {asked:?}");
    }
    bench.other.forget();
    bench.home.forget();
    // Back home nobody is told who asks either, for it was a stranger who led there.
    let there = format!("{other}/redirect?code=302%26to={home}/echo");
    let answer = bench.ask("open", "GET", &to(307, &there), &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let back = bench.home.asked().pop().expect("asked");
    assert_eq!((back.target.as_str(), back.header("authorization")), ("/echo", None), "{back:?}");
    for (code, method, body, expected) in [
        (301, "GET", "", "GET"),
        (302, "POST", "a", "GET"),
        (303, "PUT", "a", "GET"),
        (307, "POST", "a", "POST"),
        (308, "PATCH", "a", "PATCH"),
    ] {
        bench.home.forget();
        let answer = bench.ask("plain", method, &to(code, "/api/echo?x=%2520"), &[], body.as_bytes()).await;
        let last = bench.home.asked().pop().expect("asked");
        assert_eq!((answer.status, last.method.as_str(), last.target.as_str()), (200, expected, "/api/echo?x=%20"));
        assert_eq!(last.body.is_empty(), expected == "GET", "{code} {method}");
        assert_eq!(last.header("authorization"), Some("Bearer a-token-that-nobody-may-see"));
    }
    bench.home.forget();
    bench.other.forget();
    for strange in [other.as_str(), "http://169.254.169.254/latest", "//127.0.0.1:1/", "https://evil.example"] {
        let answer = bench.ask("plain", "GET", &to(302, strange), &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "origin_not_allowed"), "{strange}");
        assert!(answer.header("syncline-origin").is_some());
    }
    assert!(bench.other.asked().is_empty());
    let mut around = "/api/echo".to_owned();
    for _ in 0..6 {
        around = format!("/api/redirect?code=302&to={}", around.replace('%', "%25").replace('&', "%26"));
    }
    let answer = bench.ask("plain", "GET", &around.replacen("/api", "/proxy", 1), &[], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (424, "provider_unreachable"), "six are one too many");
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_ask_and_what_is_refused() {
    let bench = Bench::start().await;
    for (source, method, status) in [
        ("plain", "GET", 403),
        ("plain", "POST", 403),
        ("open", "GET", 200),
        ("open", "POST", 403),
        ("open", "PROPFIND", 403),
    ] {
        let answer = bench.ask_as(READER, source, method, "/proxy/echo", &[], b"").await;
        assert_eq!(answer.status, status, "{source} {method}: {}", answer.text());
    }
    let nobody = bench.ask_as("a-key-that-nobody-has-of-32-characters", "plain", "GET", "/proxy/echo", &[], b"").await;
    assert_eq!((nobody.status, nobody.header("syncline-origin")), (401, Some("syncline")));
    bench.refused("plain", "/proxy/echo", &[("connection-id", "nobody")], 400, "unknown_connection").await;
    bench.refused("none", "/proxy/echo", &[], 400, "unknown_connection").await;
    bench.refused("plain", "/proxy/echo", &[("connection-id", "")], 400, "invalid_headers").await;
    let large = vec![7; 100 << 10];
    let answer = bench.ask("open", "POST", "/proxy/echo", &[], &large).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert_eq!(bench.home.asked().iter().filter(|asked| asked.method == "POST").count(), 0);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_answers_pass_as_they_come() {
    let bench = Bench::start().await;
    let sent = vec![5; 1_500_000];
    let asked = bench.got("plain", "POST", "/proxy/echo", &[("retries", "3")], &sent).await;
    assert_eq!((asked.bytes, asked.header("content-length")), (1_500_000, Some("1500000")));
    bench.home.forget();
    let answer = bench.ask("plain", "PUT", "/proxy/flaky?code=500&times=1", &[("retries", "3")], &sent).await;
    assert_eq!((answer.status, bench.home.asked().len()), (500, 1), "what is too long to be kept is sent once");
    let answer = bench.ask("plain", "GET", "/proxy/bytes?count=3000000", &[], b"").await;
    assert_eq!(answer.body.len(), 3_000_000);
    assert!(answer.body.iter().enumerate().all(|(place, byte)| *byte == (place % (64 << 10)) as u8));
    // An answer that breaks off does not look whole.
    let url = format!("{}/proxy/cut", bench.server.url);
    let cut = client().get(url).bearer_auth(KEY).header("provider-config-key", "plain").header("connection-id", "acme");
    let cut = cut.send().await.expect("a head");
    assert_eq!(cut.status(), StatusCode::OK);
    assert!(cut.bytes().await.is_err());
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_a_running_sync_share_one_budget() {
    const PAGES: usize = 12;
    let folder = tempfile::tempdir().expect("a folder");
    let home = Mirror::start().await;
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(sources.join("token"), TOKEN).expect("written");
    let definition = format!(
        "source: plain\nbase_url: {}\nauth: {{type: bearer}}\nconnections: {{acme: {{credentials: {{token: \"file:token\"}}}}}}\n\
         limits: {{concurrency: 8, rate: [{{limit: 20, per: 1s, burst: 2}}]}}\npartitions:\n  page: {{values: [{}]}}\n\
         streams: [{{name: Thing, sync: things, key: .target, schedule: {{every: 1h}}, \
         list: {{get: \"/page/{{{{ partition.page }}}}\", items: \"[.]\"}}}}]\n",
        home.url,
        (0..PAGES).map(|n| format!("p{n}")).collect::<Vec<_>>().join(", ")
    );
    std::fs::write(sources.join("plain.yaml"), definition).expect("written");
    let server = Serving::start(folder.path(), &sources).await;
    server.settled("plain", "acme", "things", LIMIT).await;
    home.forget();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let url = format!("{}/proxy/called", server.url);
            tokio::spawn(async move {
                let mut answered = 0;
                let began = std::time::Instant::now();
                while began.elapsed() < Duration::from_secs(12) {
                    let request = client().get(&url).bearer_auth(KEY);
                    let request = request.header("provider-config-key", "plain").header("connection-id", "acme");
                    assert_eq!(request.send().await.expect("an answer").status(), 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let triggered = std::time::Instant::now();
    server.trigger("plain", "acme", "things", true).await;
    let status = server.settled("plain", "acme", "things", LIMIT).await;
    assert_eq!(status["status"], "SUCCESS", "{status}");
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("no panic");
    }
    let asked = home.asked();
    let of_run: Vec<&Asked> = asked.iter().filter(|one| one.target.starts_with("/page/")).collect();
    assert!(of_run.len() >= PAGES && asked.len() == of_run.len() + calls, "{} {calls}", of_run.len());
    // No second has more than its tokens and those that were saved.
    for (place, first) in asked.iter().enumerate() {
        let within = asked[place..].iter().take_while(|one| one.at - first.at < Duration::from_secs(1)).count();
        assert!(within <= 20 + 2 + 2, "{within} requests in a second");
    }
    // Eight callers flood it all the time, and the run gets on; how exactly turns are shared, the budget's own tests say.
    let took = of_run.iter().map(|one| one.at).max().expect("pages") - triggered;
    assert!(took < Duration::from_secs(10), "the run took {took:?}");
    server.stop().await;
}

#[cfg(target_os = "linux")]
/// Bytes of memory that a process holds.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a field");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number") << 10
}

/// `PROXY_MIB=1024` makes the answer so long.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_takes_no_memory() {
    let most: u64 = std::env::var("PROXY_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1_024) << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let home = Mirror::start().await;
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    lay_out(&sources, &home.url, &home.url);
    process::settle(folder.path(), json!({}));
    let program = process::Program::start(folder.path(), &[]);
    let request = |method: &str, path: &str| {
        let request = client().request(method.parse().expect("a method"), format!("{}/proxy{path}", program.url));
        let request = request.bearer_auth(KEY).header("provider-config-key", "plain").header("connection-id", "acme");
        request.timeout(Duration::from_secs(600))
    };
    let down = async |bytes: u64| {
        let answer = request("GET", &format!("/bytes?count={bytes}")).send().await.expect("an answer");
        let mut parts = answer.bytes_stream();
        let mut came = 0;
        while let Some(part) = parts.next().await {
            came += part.expect("a part").len() as u64;
        }
        assert_eq!(came, bytes);
    };
    let up = async |bytes: u64| {
        let part = bytes::Bytes::from(vec![7; 64 << 10]);
        let parts = stream::iter((0..bytes >> 16).map(move |_| Ok::<_, std::io::Error>(part.clone())));
        let sent = request("POST", "/echo").body(reqwest::Body::wrap_stream(parts)).send().await.expect("an answer");
        let told: Value = sent.json().await.expect("JSON");
        assert_eq!(told["bytes"], bytes);
    };
    down(16 << 20).await;
    up(16 << 20).await;
    let before = resident(program.id());
    let began = std::time::Instant::now();
    down(most).await;
    up(96 << 20).await;
    let growth = resident(program.id()).saturating_sub(before);
    println!("{} MiB down and 96 MiB up in {:?}: {} KiB more", most >> 20, began.elapsed(), growth >> 10);
    assert!(growth < 32 << 20, "{growth} bytes more");
}

/// What stands in the log is no secret, and each request has its line.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_answers_hold_no_secret() {
    let bench = Bench::start().await;
    let gone = bench.ask("plain", "GET", "/proxy/hang?ms=9000&x=1", &[], b"").await;
    let broken: Value = gone.json();
    assert_eq!(broken["error"]["code"], "provider_unreachable");
    let text = gone.text();
    assert!(SECRETS.iter().all(|secret| !text.contains(secret)) && !text.contains("x=1"), "{text}");
    bench.server.stop().await;
}
