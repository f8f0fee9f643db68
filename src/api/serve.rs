//! The listening side of HTTP: accepts connections, bounds them, and drains them when the program stops.
//!
//! Promises: a slow or silent client holds one of [`CONNECTIONS_MAX`] places for a bounded time and nothing else; a request
//! in progress at a stop is answered if that takes no longer than [`DRAIN`]. Routes are [`router`](super::router)'s.

use crate::engine::time::{Clock, SystemClock};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Open connections; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Time for a request's head, from its first byte, and for the next request of a kept connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Header fields of a request.
pub const HEAD_FIELDS: usize = 100;

/// Time for requests in progress when the program stops.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Wait after a failed accept (no file descriptors, as a rule): trying at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Listens on `listen`; port 0 takes a free one.
pub async fn bind(listen: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => BindError::InUse(listen.to_owned()),
        _ => BindError::Address(listen.to_owned(), error),
    })
}

/// Serves `router` until `stop` is cancelled and its connections are drained.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        // A place is taken before accepting, so that the bound holds for accepted sockets too.
        let accepting = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            Some(accepted) = accepting => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, peer, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                SystemClock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = SystemClock.sleep(DRAIN) => tracing::warn!(open = connections.len(), "connections were cut at the stop"),
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Small answers should not wait for more to fill a segment.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move {
            let Ok(answer) = router.oneshot(request).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn started(router: Router) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop, task)
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
        let began = Arc::new(std::sync::Mutex::new(Some(began)));
        let router = Router::new().route(
            "/slow",
            get(move || {
                let (began, mut gone) = (began.clone(), gone.clone());
                async move {
                    if let Some(began) = began.lock().ok().and_then(|mut b| b.take()) {
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
