//! `/` as a socket: a browser that opened the provider's sign-in in another window hears on it what came of it.

use super::NOT_YET;
use crate::api::Api;
use crate::api::cluster::target::alone;
use crate::api::routes::Routes;
use crate::app::connect::sockets::{LASTS, Listening, SocketNotice};
use crate::http::error::Refusal;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

/// Largest message of a browser, which has nothing to say.
const MESSAGE_MAX: usize = 4 * 1_024;

pub(super) fn routes() -> Routes {
    Routes::new().get("/", open, alone(NOT_YET))
}

async fn open(
    State(api): State<Api>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| {
        Refusal::not_found("this is a socket, on which browsers wait for a sign-in: the API is at other paths")
    })?;
    if !api.knows_origin(&headers) {
        let message = "pages of this origin may not wait here: add it to `connect.origins`";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden_origin", message));
    }
    let full = || Refusal::busy("too_many_sockets", "too many browsers wait at this moment");
    let listening = api.app.connect.sockets.open().ok_or_else(full)?;
    let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    Ok(upgrade.on_upgrade(move |socket| wait(api, socket, listening)))
}

impl Api {
    /// Whether a page of the request's origin may ask: our own, and those of `connect.origins`. Programs that are no browsers name
    /// none.
    fn knows_origin(&self, headers: &HeaderMap) -> bool {
        let settings = &self.app.settings;
        let own = settings.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
        let own = own.map(|url| url.origin().ascii_serialization());
        headers.get(ORIGIN).is_none_or(|origin| {
            let mut known = settings.connect_origins.iter().chain(&own);
            known.any(|known| known.as_bytes() == origin.as_bytes())
        })
    }
}

/// Tells the browser its name, and then what came of its sign-in.
async fn wait(api: Api, mut socket: WebSocket, mut listening: Listening) {
    let clock = api.app.engine.clock();
    let until = clock.now().plus(LASTS);
    let named = json!({"message_type": "connection_ack", "ws_client_id": listening.id});
    if send(&mut socket, named).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            notice = listening.told() => {
                // Whoever is gone asks the server about its session.
                let _ = send(&mut socket, told(notice)).await;
                break;
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            () = clock.sleep_until(until) => break,
            () = api.stopping.cancelled() => break,
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

async fn send(socket: &mut WebSocket, message: Value) -> Result<(), axum::Error> {
    socket.send(Message::Text(message.to_string().into())).await
}

fn told(notice: Option<SocketNotice>) -> Value {
    match notice {
        Some(SocketNotice::Connected { integration, connection }) => json!({
            "message_type": "success",
            "provider_config_key": integration,
            "connection_id": connection,
            "is_pending": false,
        }),
        Some(SocketNotice::Failed { code, message }) => {
            json!({"message_type": "error", "error_type": code, "error_desc": message})
        }
        None => json!({"message_type": "error", "error_type": "server_error", "error_desc": "the server stops"}),
    }
}
