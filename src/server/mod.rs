//! The listening side of HTTP: accepts connections, bounds them, and drains them when the program stops.
//!
//! Promises: a slow or silent client holds one of a bounded number of places, of which its address has a part, and gives it
//! up when somebody else comes; a client that takes nothing of its answer is cut; a request in progress at a stop is answered
//! if that takes no longer than [`DRAIN`]. Routes are [`router`](crate::api::router)'s.
//!
//! | file | what |
//! |---|---|
//! | `peers` | open connections, and which goes when one more comes |
//! | `exchange` | whose turn it is while a request is worked on |
//! | `paced` | a socket whose client has to keep up |

mod exchange;
mod paced;
mod peers;

use crate::admission::Ingress;
use crate::engine::time::{Clock, SystemClock};
use crate::telemetry::record;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use exchange::ServedRequest;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use paced::Paced;
use peers::{ConnectionPlace, NoPlace, Peers};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections the kernel holds for us until we accept them. It takes less where `net.core.somaxconn` says so.
const BACKLOG: u32 = 4_096;

/// What the kernel holds of answers on one connection; by itself it would go up to megabytes for a client that reads nothing.
const SEND_BUFFER: u32 = 128 * 1024;

/// What the kernel holds of requests on one connection, likewise: the largest body still comes within its time from far away.
const RECEIVE_BUFFER: u32 = 256 * 1024;

/// Files kept back for the store, outgoing connections and logs.
const FILES_KEPT: u64 = 1_024;

/// Time for a request's head, from its first byte, and for the next request of a kept connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Header fields of a request.
pub const HEAD_FIELDS: usize = 100;

/// Time for requests in progress when the program stops.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Wait after a failed accept, if no connection could be closed instead: trying at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who was answered 429 is not read from for so long, nor who sends many requests ahead: asking faster gets nobody further.
const REST: Duration = Duration::from_millis(250);

/// Why the address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("port_in_use: another program listens on {0}")]
    InUse(String),
    /// Not an address, not ours, or not allowed.
    #[error("cannot listen on {0}: {1}")]
    Address(String, std::io::Error),
}

/// Listens on `listen`; port 0 takes a free one. Of several addresses of a name the first that can be had.
pub async fn bind(listen: &str) -> Result<TcpListener, BindError> {
    let wrong = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => BindError::InUse(listen.to_owned()),
        _ => BindError::Address(listen.to_owned(), error),
    };
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(listen).await.map_err(wrong)? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(wrong(last))
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit both.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` until `stop` is cancelled and its connections are drained, within the bounds that hold if nothing is set.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve_within(listener, router, stop, Ingress::default()).await;
}

/// The same within bounds.
pub async fn serve_within(listener: TcpListener, router: Router, stop: CancellationToken, ingress: Ingress) {
    let most = within_files(ingress.connections);
    accept(listener, router, stop, Peers::new(ingress, most, Arc::new(SystemClock))).await;
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken, peers: Peers) {
    let connections = TaskTracker::new();
    loop {
        let accepting = async {
            peers.settled().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = stop.cancelled() => break,
        };
        let seated = match accepted {
            Ok((stream, peer)) => tokio::select! {
                place = seat(&peers, peer) => place.map(|place| (stream, peer, place)),
                () = stop.cancelled() => break,
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                if !peers.make_room() {
                    SystemClock.sleep(ACCEPT_PAUSE).await;
                }
                None
            }
        };
        if let Some((stream, peer, place)) = seated {
            let door = ServeContext { router: router.clone(), peers: peers.clone(), stop: stop.clone() };
            connections.spawn(connection(stream, peer, door, place));
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = SystemClock.sleep(DRAIN) => tracing::warn!(open = connections.len(), "connections were cut at the stop"),
    }
}

/// As many connections as there may be files, less those the store needs. Asks for as many files as may be had.
fn within_files(connections: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(files) = files else { return connections };
    // A limit too low for anything is halved, so that the program still answers.
    let left = files.saturating_sub(FILES_KEPT).max(files / 2);
    let most = connections.min(usize::try_from(left).unwrap_or(usize::MAX));
    if most < connections {
        tracing::warn!(
            connections = most,
            wanted = connections,
            files,
            "fewer connections: raise the limit of open files"
        );
    }
    most
}

/// A place for a connection; `None` if its address has all of its own. Where all are being worked on it waits for one.
async fn seat(peers: &Peers, peer: SocketAddr) -> Option<ConnectionPlace> {
    loop {
        // Listened to before looking, so that one that goes in between is not missed.
        let mut gone = std::pin::pin!(peers.one_gone());
        let _ = futures_util::poll!(gone.as_mut());
        match peers.seat(peer.ip()) {
            Ok(place) => return Some(place),
            Err(NoPlace::Address) => {
                record::connection_cut("address_full");
                return None;
            }
            Err(NoPlace::All) => {}
        }
        tokio::select! {
            () = gone => {}
            // One may also begin to wait for its client.
            () = SystemClock.sleep(ACCEPT_PAUSE) => {}
        }
    }
}

/// What every connection needs.
struct ServeContext {
    router: Router,
    peers: Peers,
    stop: CancellationToken,
}

async fn connection(stream: TcpStream, address: SocketAddr, door: ServeContext, place: ConnectionPlace) {
    let ServeContext { router, peers, stop } = door;
    let clock = peers.clock().clone();
    // Small answers should not wait for more to fill a segment.
    let _ = stream.set_nodelay(true);
    let stream = Paced::new(stream, place.peer().clone(), clock.clone(), peers.ingress().send_timeout);
    let peer = place.peer().clone();
    // On a proxy's connection the next request is somebody else's.
    let is_shared = peers.ingress().proxies.has(address.ip());
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let exchange = ServedRequest::begin(peer.clone());
        let client = peers.ingress().proxies.client(address.ip(), request.headers());
        let mut request = request.map(|body| exchange.arriving(body));
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(client);
        let (router, peer, clock) = (router.clone(), peer.clone(), clock.clone());
        async move {
            exchange.in_turn(&*clock).await;
            let Ok(answer) = router.oneshot(request).await;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS && !is_shared {
                peer.rests_until(clock.now().plus(REST));
            }
            Ok::<_, Infallible>(answer.map(|body| exchange.leaving(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = place.peer().told_to_go() => {
            record::connection_cut("oldest_idle");
            Ok(())
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = %address, %error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::Timestamp;
    use crate::engine::time::ManualClock;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn started(router: Router) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop, task)
    }

    /// A server of a few places whose clock is turned by hand.
    async fn by_hand(router: Router, connections: usize) -> (SocketAddr, Arc<ManualClock>) {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let ingress = Ingress { connections, connections_per_address: connections, ..Ingress::default() };
        let peers = Peers::new(ingress, connections, clock.clone());
        tokio::spawn(accept(listener, router, CancellationToken::new(), peers));
        (address, clock)
    }

    /// Turns the clock second by second until `done`, for nobody says when a socket is full; how long it took by that clock.
    async fn turned_until(clock: &ManualClock, mut done: impl FnMut() -> bool) -> Duration {
        let (second, mut turned) = (Duration::from_secs(1), Duration::ZERO);
        while !done() {
            assert!(turned < 10 * Ingress::default().send_timeout, "it is never done");
            clock.advance(second);
            turned += second;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        turned
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_and_the_answer_is_gone() {
        struct Held(Vec<u8>, #[expect(dead_code, reason = "dropped with it")] Option<Arc<()>>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let held = Arc::new(());
        let left = Arc::downgrade(&held);
        let held = Arc::new(parking_lot::Mutex::new(Some(held)));
        let large = move || {
            let held = held.lock().take();
            async move { axum::body::Bytes::from_owner(Held(vec![b'x'; 32 << 20], held)) }
        };
        let (address, clock) = by_hand(Router::new().route("/large", get(large)), 4).await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        stream.read_exact(&mut [0; 16]).await.expect("the answer begins");
        let waited = turned_until(&clock, || left.strong_count() == 0).await;
        assert!(waited >= Ingress::default().send_timeout, "{waited:?}");
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err(), "reset: nobody takes it for whole");
    }

    #[tokio::test]
    async fn a_client_that_asks_and_asks_and_reads_nothing_is_cut() {
        let (address, clock) = by_hand(Router::new().route("/", get(async || "x".repeat(4_000))), 4).await;
        let stream = TcpStream::connect(address).await.expect("connects");
        let asks = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
        let cut = || loop {
            match stream.try_write(asks.as_bytes()) {
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        turned_until(&clock, cut).await;
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room_for_a_new_one() {
        let (address, clock) = by_hand(Router::new().route("/", get(async || "here")), 3).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            stream.read_exact(&mut [0; 16]).await.expect("an answer");
            clock.advance(Duration::from_secs(1));
            idle.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.expect("connects");
        assert!(ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ends_with("here"));
        idle[0].read_to_end(&mut Vec::new()).await.expect("closed, in order");
        assert_eq!(idle[2].try_read(&mut [0; 1]).ok(), Some(1), "the newest is still there, with its answer unread");
    }

    #[tokio::test]
    async fn who_was_told_to_slow_down_is_read_again_after_a_rest() {
        let (address, clock) = by_hand(Router::new().route("/", get(async || StatusCode::TOO_MANY_REQUESTS)), 3).await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        for round in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            let mut answer = [0; 12];
            if round == 1 {
                let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut answer)).await;
                assert!(early.is_err(), "it is answered before its rest is over");
                clock.advance(REST);
            }
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 429");
            // The rest of the head; the body is empty.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("more"));
            }
        }
    }

    async fn ask(stream: &mut TcpStream, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn a_request_in_progress_is_answered_at_a_stop_and_new_ones_are_refused() {
        let (began, begun) = tokio::sync::oneshot::channel::<()>();
        let (go, gone) = tokio::sync::watch::channel(false);
        let began = Arc::new(parking_lot::Mutex::new(Some(began)));
        let router = Router::new().route(
            "/slow",
            get(move || {
                let (began, mut gone) = (began.clone(), gone.clone());
                async move {
                    if let Some(began) = began.lock().take() {
                        let _ = began.send(());
                    }
                    let _ = gone.wait_for(|go| *go).await;
                    "done"
                }
            }),
        );
        let (address, stop, task) = started(router).await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let asking = tokio::spawn(async move { ask(&mut stream, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await });
        begun.await.expect("the request arrived");
        stop.cancel();
        go.send_replace(true);
        assert!(asking.await.expect("no panic").ends_with("done"));
        task.await.expect("drained");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let address = first.local_addr().expect("bound").to_string();
        let error = bind(&address).await.expect_err("taken");
        assert!(matches!(&error, BindError::InUse(at) if *at == address), "{error}");
    }

    #[tokio::test]
    async fn too_many_header_fields_are_refused() {
        let (address, _stop, _task) = started(Router::new()).await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let fields: String = (0..=HEAD_FIELDS).map(|n| format!("x-{n}: y\r\n")).collect();
        let answer = ask(&mut stream, &format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
