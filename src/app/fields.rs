//! What providers tell of their accounts (`connection_fields`): asked for while the program serves, and stored.
//!
//! Promises: a connection is asked until all fields that its definition names are stored, and not again; webhooks that
//! waited for a field are run again once it is there.

use crate::app::App;
use crate::registry::connections::Account;
use futures_util::StreamExt;
use futures_util::stream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Runs wait so long for the first round at most, because their requests may name fields.
pub const FIRST_ROUND: Duration = Duration::from_secs(10);
/// Pause before connections are asked again that did not answer well.
pub const AGAIN: Duration = Duration::from_secs(5 * 60);
/// Connections asked at one time.
const AT_ONCE: usize = 4;

/// Asks until nothing is missing or `stop` is cancelled. `asked` is told after the first round.
pub(super) async fn ask_all(app: &App, asked: &Notify, stop: &CancellationToken) {
    let clock = app.engine.clock();
    loop {
        let complete = tokio::select! {
            complete = round(app) => complete,
            () = stop.cancelled() => return,
        };
        asked.notify_one();
        if complete {
            return;
        }
        tokio::select! {
            () = clock.sleep(AGAIN) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Asks once for each connection that lacks fields; whether none lacks any afterwards.
async fn round(app: &App) -> bool {
    let asking = stream::iter(lacking(app)).map(|account| async move { ask(app, &account).await });
    // All of them, also behind one that fails.
    asking.buffer_unordered(AT_ONCE).fold(true, async |all, known| all & known).await
}

fn lacking(app: &App) -> Vec<Arc<Account>> {
    let lacks = |account: &Arc<Account>| {
        let definition = app.definitions.get(&account.key.source);
        let named = definition.iter().flat_map(|definition| &definition.auth.connection_fields);
        named.into_iter().any(|(name, _)| !account.connection.fields.contains_key(name))
    };
    app.connections.all().into_iter().filter(lacks).collect()
}

/// Asks for one connection; false if it has to be asked again.
async fn ask(app: &App, account: &Account) -> bool {
    let key = &account.key;
    let (environment, source, connection) = (key.environment.as_str(), key.source.as_str(), key.id.as_str());
    let Some(asked) = app.sources.get(source) else { return true };
    let fields = match asked.check(&account.connection).await {
        Ok(Some(fields)) => fields,
        // Fields without a `test`, or without credentials to be tested, have no answer to be read from.
        Ok(None) => return true,
        Err(why) => {
            tracing::warn!(environment, source, connection, code = why.code, %why, "connection_fields could not be read");
            return false;
        }
    };
    if let Err(why) = app.connections.set_fields(key, &fields).await {
        tracing::warn!(environment, source, connection, %why, "connection_fields could not be stored");
        return false;
    }
    app.hooks.connection_changed(environment, source);
    true
}
