//! What an answer costs in memory: measured, alone in its process, over a real connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions, Outgoing, Room, Url, Veil};
use syncline_engine::time::SystemClock;

const BOUND: u64 = 48 << 20;

/// Serves one connection after another: what `send` writes.
fn serve(send: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            send(&mut stream);
        }
    });
    Url::parse(&url).expect("a URL")
}

fn client(room: Room) -> Client {
    let options = ClientOptions { allow_http: true, egress: Egress::loopback(), room, ..ClientOptions::default() };
    Client::new(options, Arc::new(SystemClock)).expect("a client")
}

fn get(url: &Url) -> Outgoing {
    Outgoing {
        method: "GET".parse().expect("a method"),
        url: url.clone(),
        headers: Default::default(),
        body: None,
        timeout: Duration::from_secs(60),
        max_response: BOUND,
        follow: false,
        veil: Veil::default(),
    }
}

/// Bytes of memory of this process, now or at most since it was reset.
fn resident(peak: bool) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let name = if peak { "VmHWM:" } else { "VmRSS:" };
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// Forgets the peak so far.
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("the kernel forgets the peak");
}

fn chunks(stream: &mut std::net::TcpStream, bytes: u64) {
    let part = vec![b'x'; 64 << 10];
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..bytes / part.len() as u64 {
        let sent = write!(stream, "{:x}\r\n", part.len()).and_then(|()| stream.write_all(&part));
        if sent.and_then(|()| stream.write_all(b"\r\n")).is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
}

// One test, so that nothing else of this process takes memory meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_takes_little_more_than_its_length_and_one_too_large_is_refused_by_its_announcement() {
    // Warm up what every request needs.
    let client = client(Room::default());
    let small = serve(|stream| chunks(stream, 1 << 20));
    client.send(get(&small)).await.expect("a small answer");

    let whole = serve(|stream| chunks(stream, BOUND));
    let before = resident(false);
    reset_peak();
    let answer = client.send(get(&whole)).await.expect("as large as may be");
    let taken = resident(true) - before;
    println!("{} bytes of an answer took {taken} bytes of memory", answer.body.len());
    assert_eq!(answer.body.len() as u64, BOUND);
    assert!(taken <= BOUND + BOUND / 4, "{taken} bytes for {BOUND}");
    drop(answer);

    let announced = serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
        let part = vec![b'x'; 64 << 10];
        while stream.write_all(&part).is_ok() {}
    });
    let before = resident(false);
    reset_peak();
    let why = client.send(get(&announced)).await.expect_err("too large");
    assert_eq!(why.code, "response_too_large", "{why:?}");
    let taken = resident(true).saturating_sub(before);
    println!("10 GiB that were announced took {taken} bytes");
    assert!(taken <= 8 << 20, "{taken} bytes");

    // The same without a word about its length: refused where the bound is passed.
    let endless = serve(|stream| chunks(stream, BOUND * 4));
    reset_peak();
    let before = resident(false);
    let why = client.send(get(&endless)).await.expect_err("too large");
    assert!(why.message.contains("limits.max_response"), "{why:?}");
    assert!(resident(true).saturating_sub(before) <= BOUND + BOUND / 4);

    // A room that is smaller than what a definition allows bounds it all the same, and says so.
    let narrow = self::client(Room::new(32 << 20));
    let why = narrow.send(get(&whole)).await.expect_err("too large");
    assert!(why.message.contains("egress.answers_mb"), "{why:?}");
}
