//! SIGINT and SIGTERM: the first one asks for a clean stop, the second one ends the program at once. SIGHUP has a server read its
//! functions again.

use super::exit::{Fail, code};
#[cfg(feature = "functions")]
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Does something at each SIGHUP. At a terminal this signal says that the terminal is gone, and ends the program as usual.
#[cfg(feature = "functions")]
pub(crate) fn at_hangup(act: impl Fn() + Send + 'static) -> Result<(), Fail> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    let hangup = signal(SignalKind::hangup());
    let mut hangup = hangup.map_err(|e| Fail::new(code::INTERNAL, format!("no signals: {e}")))?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            act();
        }
    });
    Ok(())
}

/// Signals to wait for; from its making on they no longer kill the program.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen.
    pub fn new() -> Result<Self, Fail> {
        let listen = |kind| signal(kind).map_err(|e| Fail::new(code::INTERNAL, format!("no signals: {e}")));
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for a signal and gives the exit code it calls for.
    pub async fn wait(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => code::INTERRUPTED,
            _ = self.terminate.recv() => code::TERMINATED,
        }
    }

    /// Makes the next signal end the program at once: someone does not want to wait for the clean stop.
    pub fn hard(mut self) {
        tokio::spawn(async move {
            let code = self.wait().await;
            std::process::exit(i32::from(code));
        });
    }
}
