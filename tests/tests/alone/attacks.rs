//! `syncline serve` under attack by who has no key or signature, or only a key to read: another tenant's webhooks and reads go
//! on, memory stays bounded, and whoever does not keep up is cut.
//!
//! Each attack is at least twice the size of one that once stopped the program. What is asserted does not depend on the speed
//! of the machine. `ATTACK_SECONDS=n` makes each attack last so long, and `ATTACK_WITHIN=2` demands that the other tenant's p99
//! is at most twice what it is in quiet times.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use syncline_ledger::Trial;
use syncline_tests::attacker::{
    ATTACKER, KNOWN_PATH, PROXY, Program, be_served, connect, here, send, signature, webhook,
};
use syncline_tests::wire;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

/// The program stays below this whatever happens.
const MEMORY: u64 = 512 << 20;
/// A client that takes nothing is cut after this in these tests.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// What has to happen on a slow machine too.
const IN_THE_END: Duration = Duration::from_secs(60);
/// Something in place of a signature, of the right form.
const FORGED: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

/// The program, and a turn: attacks come one after the other, so that they can be measured and need no more files at a time.
async fn started(ingress: Value) -> (MutexGuard<'static, ()>, TempDir, Program) {
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let program = Program::start(env!("CARGO_BIN_EXE_program"), folder.path(), ingress);
    (turn, folder, program)
}

fn seconds() -> Option<Duration> {
    std::env::var("ATTACK_SECONDS").ok()?.parse().ok().map(Duration::from_secs)
}

/// Lets the other tenant be served while `attack` goes on, and compares with quiet times.
async fn under<T>(name: &str, program: &Program, span: Duration, attack: impl Future<Output = T>) -> T {
    let span = seconds().unwrap_or(span);
    let mut trial = Trial::of("attacks");
    let quiet = be_served(program.address(), span / 2).await;
    assert_eq!(quiet.failed, [""; 0], "{name}: in quiet times");
    let other = tokio::spawn(be_served(program.address(), span));
    // An attacker has a machine of its own. On this one what it does comes last (on Linux, for this thread alone).
    let _ = rustix::process::nice(19);
    let result = attack.await;
    let attacked = other.await.expect("no panic");
    let (memory, most) = program.memory();
    println!(
        "{name}: p50 {:.1} ms quiet, {:.1} ms attacked; p99 {:.1} ms quiet, {:.1} ms attacked ({} requests); memory {} MiB, \
         at most {} MiB",
        quiet.within(0.5),
        attacked.within(0.5),
        quiet.within(0.99),
        attacked.within(0.99),
        attacked.took.len(),
        memory >> 20,
        most >> 20,
    );
    assert_eq!(attacked.failed, [""; 0], "{name}: under attack");
    assert!(most < MEMORY, "{name}: {most} bytes");
    if let Some(factor) = std::env::var("ATTACK_WITHIN").ok().and_then(|factor| factor.parse::<f64>().ok()) {
        assert!(attacked.within(0.99) <= factor * quiet.within(0.99).max(1.0), "{name}: p99");
    }
    trial.add(1);
    result
}

/// Reads and throws away until the other side closes; whether it did within a bounded time.
async fn is_cut(mut stream: TcpStream) -> bool {
    let mut taken = vec![0; 64 << 10];
    let reading = async { while matches!(stream.read(&mut taken).await, Ok(1..)) {} };
    tokio::time::timeout(IN_THE_END, reading).await.is_ok()
}

/// Waits for the program to get rid of its connections, all but a few.
async fn few_files(program: &Program, few: usize) {
    let began = Instant::now();
    while program.files() > few {
        assert!(began.elapsed() < IN_THE_END, "{} files are still open", program.files());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Posts with this head and the beginning of a body, which never ends.
async fn begun(to: SocketAddr, from: u8, announced: usize, sent: usize) -> std::io::Result<TcpStream> {
    let mut stream = connect(here(from), to, None).await?;
    stream.write_all(&wire::head(to, "POST", KNOWN_PATH, &[("x-sig", FORGED)], announced)).await?;
    // What is refused early is not read to its end.
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&vec![b'{'; sent])).await;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_announced_and_do_not_come_take_nothing_from_others() {
    let (_turn, _folder, program) = started(json!({})).await;
    let to = program.address();
    let streams = under("announced bodies", &program, Duration::from_secs(4), async {
        let mut streams = Vec::new();
        for n in 0..80 {
            streams.push(begun(to, 10 + n % 4, 5_000_000, 1).await.expect("it listens"));
        }
        // The provider at the attacked path itself.
        let (signature, body) = webhook(1, 900_000);
        let answer = send(here(99), to, "POST", KNOWN_PATH, &[("x-sig", &signature)], body.as_bytes()).await;
        assert_eq!(answer.expect("an answer").status, 200);
        streams
    })
    .await;
    for stream in streams {
        assert!(is_cut(stream).await, "a body that does not come is waited for within bounds");
    }
    // Bodies that come almost whole, 400 MB of them.
    let streams = under("bodies without an end", &program, Duration::from_secs(6), async {
        let mut all = JoinSet::new();
        (0..80).for_each(|n| drop(all.spawn(begun(to, 10 + n % 4, 5_000_000, 4_999_000))));
        all.join_all().await
    })
    .await;
    let (signature, body) = webhook(2, 100_000);
    let answer = send(here(99), to, "POST", KNOWN_PATH, &[("x-sig", &signature)], body.as_bytes()).await;
    assert_eq!(answer.expect("an answer").status, 200, "another sender at the same path");
    drop(streams);
    assert_eq!(program.metric("syncline_webhooks_received_total{source=\"shop\",outcome=\"accepted\"}").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_new_ones() {
    let (_turn, _folder, program) = started(json!({})).await;
    let to = program.address();
    raise_files();
    // From one address, then from eight others: more than all places.
    for (name, addresses) in [("8,800 idle of one address", 1), ("8,800 idle of eight addresses", 8)] {
        let idle = under(name, &program, Duration::from_secs(6), async {
            let mut idle = Vec::new();
            for n in 0..8_800_u32 {
                let from = here(20 + (n % addresses) as u8);
                match tokio::time::timeout(Duration::from_secs(20), connect(from, to, None)).await {
                    Ok(Ok(stream)) => idle.push(stream),
                    Ok(Err(error)) => panic!("{n}: {error}"),
                    Err(_) => panic!("connection {n} waits in the kernel"),
                }
            }
            idle
        })
        .await;
        assert!(program.files() < 4_096 + 1_024, "{} files", program.files());
        let healthy = send(here(30), to, "GET", "/healthz", &[], b"").await.expect("an answer");
        assert_eq!((healthy.status, idle.len()), (200, 8_800));
        drop(idle);
        few_files(&program, 600).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_an_end_take_bounded_memory() {
    let (_turn, _folder, program) = started(json!({})).await;
    let to = program.address();
    raise_files();
    let heads = under("8,000 heads without an end", &program, Duration::from_secs(6), async {
        let mut heads = Vec::new();
        for n in 0..8_000 {
            let mut stream = connect(here(20 + (n % 8) as u8), to, None).await.expect("it listens");
            let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(30_000));
            // It may be closed already, to make room for the next.
            let _ = stream.write_all(head.as_bytes()).await;
            heads.push(stream);
        }
        heads
    })
    .await;
    drop(heads);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_key_leave_places_for_others() {
    let (_turn, _folder, program) = started(json!({"connections": 64, "connections_per_address": 64})).await;
    let to = program.address();
    let bearer = format!("Bearer {ATTACKER}");
    let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    let (streams, refused) = under("streams", &program, Duration::from_secs(3), async {
        let (mut streams, mut refused) = (Vec::new(), 0);
        for n in 0..100 {
            let mut stream = connect(here(10 + n % 4), to, None).await.expect("it listens");
            stream.write_all(&wire::head(to, "GET", "/v1/changes", &headers, 0)).await.expect("sent");
            let mut status = [0; 12];
            match stream.read_exact(&mut status).await {
                Ok(_) if &status == b"HTTP/1.1 200" => streams.push(stream),
                Ok(_) => {
                    assert_eq!(&status, b"HTTP/1.1 503");
                    refused += 1;
                }
                Err(error) => panic!("stream {n}: {error}"),
            }
        }
        (streams, refused)
    })
    .await;
    assert_eq!((streams.len(), refused), (16, 84), "of 64 places half are for streams, of these half for one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_proxy_says_who_the_client_is_and_nobody_else_does() {
    let (_turn, _folder, program) = started(json!({"wrong_keys_per_address": 1})).await;
    let to = program.address();
    let guess = async |peer: u8, client: String| {
        let headers = [("authorization", "Bearer 0123456789abcdef0123456789abcdef"), ("x-forwarded-for", &client)];
        let answer = send(here(peer), to, "GET", "/v1/runs", &headers, b"").await.expect("an answer");
        assert!(answer.status == 401 || answer.header("retry-after").is_some(), "{}", answer.text());
        answer.status
    };
    // Ten at once, whatever address the client makes up.
    let mut statuses = Vec::new();
    for n in 0..40 {
        statuses.push(guess(90, format!("203.0.113.{n}")).await);
    }
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 20, "{statuses:?}");
    for n in 0..40 {
        assert_eq!(guess(PROXY, format!("10.1.1.1, 203.0.113.{n}")).await, 401, "each client has its own");
    }
    let mut statuses = Vec::new();
    for n in 0..40 {
        statuses.push(guess(PROXY, format!("10.1.1.{n}, 203.0.113.7")).await);
    }
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 20, "{statuses:?}");
}

fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("up to the hard limit");
    assert!(most.is_none_or(|most| most >= 10_000), "this test needs 10,000 files, the limit is {most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_reads_nothing_is_cut() {
    let (_turn, _folder, program) = started(json!({"send_timeout": "2s"})).await;
    let to = program.address();
    let streams = under("pipelining without reading", &program, SEND_TIMEOUT + Duration::from_secs(2), async {
        let mut all = JoinSet::new();
        (0..60).for_each(|n| drop(all.spawn(pipelined(to, 40 + n % 4))));
        all.join_all().await
    })
    .await;
    assert_eq!(streams, [true; 60]);
}

/// Asks again and again without reading; whether it is cut.
async fn pipelined(to: SocketAddr, from: u8) -> bool {
    let mut stream = connect(here(from), to, Some(4_096)).await.expect("it listens");
    let asks = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let asking = async { while stream.write_all(asks.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(IN_THE_END, asking).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_read_nothing_share_one_memory_and_are_cut() {
    let (_turn, _folder, program) = started(json!({"send_timeout": "2s", "answers_mb": 64})).await;
    let to = program.address();
    for n in 0..40 {
        let (signature, body) = webhook(n, 450_000);
        let answer = send(here(99), to, "POST", KNOWN_PATH, &[("x-sig", &signature)], body.as_bytes()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let bearer = format!("Bearer {ATTACKER}");
    let reads = [("authorization", bearer.as_str()), ("provider-config-key", "shop"), ("connection-id", "acme")];
    let began = Instant::now();
    while all_rows(to, &reads).await < 40 {
        assert!(began.elapsed() < IN_THE_END, "the webhooks are not processed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, _) = program.memory();
    for path in [
        "/records?model=Order&limit=10000",
        "/v1/records?limit=10000",
        "/v1/changes?limit=10000",
        "/v1/records?consistent=true",
    ] {
        let streams = under(path, &program, Duration::from_secs(3), async {
            let mut streams = Vec::new();
            for n in 0..120 {
                let mut stream = connect(here(50 + n % 4), to, Some(4_096)).await.expect("it listens");
                stream.write_all(&wire::head(to, "GET", path, &reads, 0)).await.expect("sent");
                streams.push(stream);
            }
            assert_eq!(all_rows(to, &reads).await, 40, "{path}: who reads on with the same key gets all there is");
            streams
        })
        .await;
        let (held, _) = program.memory();
        assert!(held < before.max(128 << 20) + (128 << 20), "{path}: {held} bytes after {before}");
        let cut = streams.into_iter().map(is_cut).collect::<Vec<_>>();
        for cut in cut {
            assert!(cut.await, "{path}: it is held for ever");
        }
    }
    let began = Instant::now();
    while program.metric("syncline_answers_memory_bytes").await > 0.0 {
        assert!(began.elapsed() < IN_THE_END, "memory was not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads page after page to the end, each of which may be cut where memory is short, or refused for a while; how many rows.
async fn all_rows(to: SocketAddr, headers: &[(&str, &str)]) -> usize {
    let (mut ids, mut cursor, began) = (BTreeSet::new(), String::new(), Instant::now());
    while began.elapsed() < IN_THE_END {
        let path = format!("/records?model=Order&limit=10000{cursor}");
        let answer = send(here(50), to, "GET", &path, headers, b"").await.expect("an answer");
        if answer.status == 503 {
            assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("overloaded", Some("5")));
            continue;
        }
        let page = answer.json();
        ids.extend(page["records"].as_array().expect("a page").iter().map(|row| row["id"].to_string()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_are_told_to_slow_down() {
    let (_turn, _folder, program) = started(json!({"webhooks_per_sender": 50, "webhooks_per_path": 200})).await;
    let to = program.address();
    let span = seconds().unwrap_or(Duration::from_secs(4));
    let body = webhook(1, 1_000).1;
    let good = signature(body.as_bytes());
    for (name, sign, most_good) in [("forged webhooks", FORGED, 0), ("valid webhooks", good.as_str(), 10_000)] {
        let statuses = under(name, &program, span, async {
            let mut all = JoinSet::new();
            (0..64).for_each(|n| drop(all.spawn(flood(to, 60 + n % 2, sign.to_owned(), body.clone(), span))));
            all.join_all().await.concat()
        })
        .await;
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        println!(
            "{name}: {} answers, {} of them 429, {} 401, {} 200",
            statuses.len(),
            count(429),
            count(401),
            count(200)
        );
        assert!(count(429) > 0 && count(200) <= most_good && count(401) + count(200) < 10_000);
        assert_eq!(count(429) + count(401) + count(200), statuses.len(), "nothing else is said");
    }
    let (signature, body) = webhook(7, 100);
    let answer = send(here(99), to, "POST", KNOWN_PATH, &[("x-sig", &signature)], body.as_bytes()).await;
    assert_eq!(answer.expect("an answer").status, 200, "another sender at the same path");
}

/// Posts one after the other on one connection as fast as answers come, until the time is over.
async fn flood(to: SocketAddr, from: u8, signature: String, body: String, span: Duration) -> Vec<u16> {
    let (mut statuses, began) = (Vec::new(), Instant::now());
    let request = format!(
        "POST {KNOWN_PATH} HTTP/1.1\r\nhost: x\r\nx-sig: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    while began.elapsed() < span {
        let mut stream = connect(here(from), to, None).await.expect("it listens");
        while began.elapsed() < span {
            let Ok(status) = asked(&mut stream, request.as_bytes()).await else { break };
            statuses.push(status);
        }
    }
    statuses
}

/// The status of one answer on a connection that is kept.
async fn asked(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<u16> {
    stream.write_all(request).await?;
    let mut raw = Vec::new();
    let ended = |raw: &[u8]| raw.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let head = loop {
        if let Some(end) = ended(&raw) {
            break end;
        }
        if stream.read_buf(&mut raw).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&raw[..head]).to_lowercase();
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let length = text.lines().find_map(|line| number(line.strip_prefix("content-length:")?)).unwrap_or(0);
    let mut rest = vec![0; (head + length).saturating_sub(raw.len())];
    stream.read_exact(&mut rest).await?;
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_cannot_be_guessed_by_the_thousand() {
    let (_turn, _folder, program) = started(json!({})).await;
    let to = program.address();
    let span = Duration::from_secs(3);
    let statuses = under("guessed keys", &program, span, async {
        let mut all = JoinSet::new();
        (0..32).for_each(|n| drop(all.spawn(guesses(to, n, seconds().unwrap_or(span)))));
        all.join_all().await.concat()
    })
    .await;
    let refused = statuses.iter().filter(|status| **status == 401).count();
    let slowed = statuses.iter().filter(|status| **status == 429).count();
    println!("guessed keys: {} answers, {refused} of them 401, {slowed} 429", statuses.len());
    assert!(slowed > 0 && refused + slowed == statuses.len());
    // A hundred at once and ten a second: whatever the machine, far from thousands.
    assert!(refused < 2_000, "{refused} guesses were looked at");
    let bearer = format!("Bearer {ATTACKER}");
    let right = async |from| {
        send(here(from), to, "GET", "/v1/runs", &[("authorization", &bearer)], b"").await.expect("an answer").status
    };
    assert_eq!(right(71).await, 200, "another address");
}

async fn guesses(to: SocketAddr, guesser: u64, span: Duration) -> Vec<u16> {
    let (mut statuses, began) = (Vec::new(), Instant::now());
    let mut stream = connect(here(70), to, None).await.expect("it listens");
    while began.elapsed() < span {
        let n = statuses.len();
        let request = format!("GET /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {guesser:016}{n:016}\r\n\r\n");
        match asked(&mut stream, request.as_bytes()).await {
            Ok(status) => statuses.push(status),
            Err(_) => stream = connect(here(70), to, None).await.expect("it listens"),
        }
    }
    statuses
}
