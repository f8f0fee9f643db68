//! `syncline serve` as a process of its own with two tenants, one of whom is attacked (or attacks); the other is asked all
//! the while how it is served.

use crate::wire::{self, Answer};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Key of the tenant who is attacked or attacks.
pub const ATTACKER: &str = "attacker-0123456789abcdef012345678";
/// Key of the other.
pub const VICTIM: &str = "victim-0123456789abcdef0123456789a";
/// Path of the webhooks that are attacked; everybody knows it.
pub const KNOWN_PATH: &str = "/hooks/shop-in";
/// Path of the other tenant's webhooks.
pub const OTHER_PATH: &str = "/hooks/desk-in";
/// A reverse proxy that the settings name: the last part of its address.
pub const PROXY: u8 = 200;
/// What webhooks are signed with.
const SECRET: &str = "s3cret";
/// Between two requests of the other tenant.
const PAUSE: Duration = Duration::from_millis(10);
/// A single request of the other tenant is given up after this.
const PATIENCE: Duration = Duration::from_secs(30);

/// The definition of one source, whose only connection is of one environment.
fn definition(source: &str, environment: &str, path: &str) -> String {
    format!(
        r#"
source: {source}
base_url: http://127.0.0.1:9
auth: {{type: none}}
streams:
  - name: Order
    key: .id
    schedule: {{every: 12h}}
    list: {{get: /orders}}
webhooks:
  path: {path}
  verify: {{scheme: hmac, algorithm: sha256, signature: {{header: X-Sig, format: raw, encoding: hex}}, content: [body], secret: "env:SECRET"}}
  route: .team
  dedupe: .event
  map:
    - {{stream: Order, record: .record}}
connections:
  acme: {{environment: {environment}, metadata: {{team: 7}}}}
"#
    )
}

/// The program.
pub struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    /// Starts it with these `ingress` settings.
    pub fn start(program: &str, folder: &Path, ingress: Value) -> Program {
        let sources = folder.join("sources");
        std::fs::create_dir(&sources).expect("a folder");
        for (source, environment, path) in [("shop", "default", KNOWN_PATH), ("desk", "other", OTHER_PATH)] {
            let text = definition(source, environment, path);
            std::fs::write(sources.join(format!("{source}.yaml")), text).expect("a definition");
        }
        let settings = json!({
            "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": sources, "workers": 1,
            "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]}, "ingress": ingress,
            "trusted_proxies": [here(PROXY)], "metrics": {"open": true},
            "api_keys": [
                {"name": "attacker", "key": "env:ATTACKER", "role": "reader"},
                {"name": "victim", "key": "env:VICTIM", "role": "reader", "environment": "other"},
            ],
        });
        std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
        let mut child = Command::new(program)
            .arg("serve")
            .current_dir(folder)
            .envs([("ATTACKER", ATTACKER), ("VICTIM", VICTIM), ("SECRET", SECRET)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("listening on http://")?.1.parse().ok());
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, address: address.expect("it listens") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of its memory: now, and at most so far.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux tells");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number")
        };
        (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
    }

    /// Files it has open.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// A figure of `/metrics`, summed over labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = send(here(250), self.address, "GET", "/metrics", &[], b"").await.expect("an answer");
        let text = answer.text();
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labelled = |line: &str| labels.trim_end_matches('}').split(',').all(|label| line.contains(label));
        let lines = text.lines().filter(|line| line.starts_with(name) && labelled(line));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By its id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the addresses of this machine: all of 127.0.0.0/8 are.
pub fn here(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// A connection from an address; with a small window of what it takes unread.
pub async fn connect(from: IpAddr, to: SocketAddr, window: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// One request from an address, and its whole answer.
pub async fn send(
    from: IpAddr,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = connect(from, to, None).await?;
    stream.write_all(&wire::head(to, method, path, headers, body.len())).await?;
    stream.write_all(body).await?;
    wire::whole(stream).await
}

/// The signature of a webhook's body.
pub fn signature(body: &[u8]) -> String {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(SECRET.as_bytes()).expect("any length will do");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signed webhook with a record of about `size` bytes.
pub fn webhook(n: u64, size: usize) -> (String, String) {
    let record = json!({"id": format!("r{n}"), "n": n, "text": "x".repeat(size)});
    let body = json!({"event": format!("e{n}"), "team": 7, "record": record}).to_string();
    (signature(body.as_bytes()), body)
}

/// How the other tenant was served: the time of each request, and what went wrong.
#[derive(Debug, Default)]
pub struct Served {
    /// Milliseconds from connecting to the whole answer, sorted.
    pub took: Vec<f64>,
    /// Anything but 200.
    pub failed: Vec<String>,
}

impl Served {
    /// The time within which `share` of the requests were answered.
    pub fn within(&self, share: f64) -> f64 {
        let at = (self.took.len() as f64 * share) as usize;
        self.took.get(at.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// The other tenant posts webhooks and reads records from an address of his own, each on a new connection, for a while.
///
/// He has a thread of his own: what an attack costs the attacker is not measured.
pub async fn be_served(to: SocketAddr, span: Duration) -> Served {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::spawn_blocking(move || runtime.block_on(ask_in_turn(to, span))).await.expect("no panic")
}

async fn ask_in_turn(to: SocketAddr, span: Duration) -> Served {
    let bearer = format!("Bearer {VICTIM}");
    let reads = [("authorization", bearer.as_str()), ("provider-config-key", "desk"), ("connection-id", "acme")];
    let (mut served, began, mut n) = (Served::default(), Instant::now(), 0);
    while began.elapsed() < span {
        n += 1;
        let (signature, body) = webhook(began.elapsed().as_nanos() as u64, 200);
        let post = [("x-sig", signature.as_str())];
        let (method, path, headers, body) = match n % 2 {
            0 => ("POST", OTHER_PATH, &post[..], body.as_bytes()),
            _ => ("GET", "/records?model=Order&limit=10", &reads[..], &b""[..]),
        };
        let asked = Instant::now();
        match tokio::time::timeout(PATIENCE, send(here(77), to, method, path, headers, body)).await {
            Ok(Ok(answer)) if answer.status == 200 => {}
            Ok(Ok(answer)) => served.failed.push(format!("{method}: {} {}", answer.status, answer.text())),
            Ok(Err(error)) => served.failed.push(format!("{method}: {error}")),
            Err(_) => served.failed.push(format!("{method}: nothing within {PATIENCE:?}")),
        }
        served.took.push(asked.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    served.took.sort_by(f64::total_cmp);
    served
}
