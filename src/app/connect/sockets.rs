//! Browsers that wait on a socket for what comes of their sign-in at a provider.
//!
//! Promises: each is told once, and only what belongs to the id it was given, which nobody can guess.

use crate::engine::time::entropy;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Sockets at one time.
pub const OPEN_MAX: usize = 1_000;
/// How long one is kept open.
pub const LASTS: Duration = Duration::from_secs(15 * 60);

/// What a browser is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketNotice {
    /// There is a connection.
    Connected {
        /// Of this integration.
        integration: String,
        /// Its id.
        connection: String,
    },
    /// There is none.
    Failed {
        /// A stable word.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

type Waiting = Mutex<BTreeMap<String, oneshot::Sender<SocketNotice>>>;

/// All of them.
#[derive(Default)]
pub struct Sockets {
    waiting: Arc<Waiting>,
}

/// A browser that waits, until this is dropped.
pub struct Listening {
    /// The name it was given.
    pub id: String,
    told: oneshot::Receiver<SocketNotice>,
    waiting: Arc<Waiting>,
}

impl Sockets {
    /// One more; none where there are too many.
    pub fn open(&self) -> Option<Listening> {
        let id = hex::encode(entropy());
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= OPEN_MAX {
            return None;
        }
        waiting.insert(id.clone(), tell);
        Some(Listening { id, told, waiting: self.waiting.clone() })
    }

    /// Tells the browser of this name, if it still waits.
    pub fn tell(&self, id: &str, notice: SocketNotice) {
        if let Some(tell) = self.waiting.lock().remove(id) {
            // Gone in this moment: it asks the server about its session instead.
            let _ = tell.send(notice);
        }
    }
}

impl Listening {
    /// What it is told.
    pub async fn told(&mut self) -> Option<SocketNotice> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_is_told_once_and_what_is_its_own() {
        let sockets = Sockets::default();
        let (mut one, other) = (sockets.open().expect("a place"), sockets.open().expect("a place"));
        let notice = |code: &str| SocketNotice::Failed { code: code.into(), message: String::new() };
        sockets.tell(&one.id, notice("first"));
        sockets.tell(&one.id, notice("second"));
        sockets.tell("nobody", notice("third"));
        assert_eq!(one.told().await, Some(notice("first")));
        drop(other);
        assert!(sockets.waiting.lock().is_empty());
        let all: Vec<_> = (0..OPEN_MAX).map_while(|_| sockets.open()).collect();
        assert!(all.len() == OPEN_MAX && sockets.open().is_none());
    }
}
