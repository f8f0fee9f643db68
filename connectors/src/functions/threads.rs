//! Executions on threads of this process, each with one of its own: for embedding, tests, and code that is trusted.

use std::sync::Arc;
use std::sync::mpsc as plain;
use syncline_runtime::Modules;
use syncline_runtime::sandbox::{Said, Sandbox};
use syncline_runtime::wire::{Answer, Ended, Fault, Invocation, Writes};
use tokio::sync::mpsc;

/// Stack of a thread: the engine of the sandbox counts its own limit within it.
const STACK_BYTES: usize = 8 << 20;

/// An execution under way. Dropping it ends the code at its next call.
pub struct Execution {
    said: mpsc::UnboundedReceiver<Said>,
    answers: plain::Sender<(u32, Answer)>,
}

impl Execution {
    /// Begins it.
    pub fn begin(modules: Arc<Modules>, invocation: Invocation) -> Execution {
        // Unbounded, and never long: at most as many calls are out as an invocation may have open.
        let (to, said) = mpsc::unbounded_channel();
        let (answers, given) = plain::channel();
        let failed = to.clone();
        let body = move || work(modules, invocation, &to, &given);
        let begun = std::thread::Builder::new().name("function".to_owned()).stack_size(STACK_BYTES).spawn(body);
        if let Err(error) = begun {
            let _ = failed.send(lost("no_thread", format!("no thread could be begun for the function: {error}")));
        }
        Execution { said, answers }
    }

    /// What the code says next; `None` after its end.
    pub async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }

    /// Hands in an answer.
    pub fn answer(&self, call: u32, answer: Answer) {
        // Nobody hears it any more: then its end is on its way.
        let _ = self.answers.send((call, answer));
    }
}

fn work(
    modules: Arc<Modules>,
    invocation: Invocation,
    to: &mpsc::UnboundedSender<Said>,
    given: &plain::Receiver<(u32, Answer)>,
) {
    let (mut sandbox, mut said) = match Sandbox::begin(modules, invocation) {
        Ok(begun) => begun,
        Err(fault) => {
            let _ = to.send(ended(fault));
            return;
        }
    };
    loop {
        for one in said {
            if to.send(one).is_err() {
                return;
            }
        }
        if sandbox.has_ended() {
            return;
        }
        let Ok((call, answer)) = given.recv() else { return };
        said = sandbox.answer(call, answer);
    }
}

fn lost(code: &str, message: String) -> Said {
    ended(Fault { code: code.to_owned(), message, ..Fault::default() })
}

fn ended(fault: Fault) -> Said {
    Said::Ended(Ended { writes: Writes::default(), result: Err(fault), cpu: std::time::Duration::ZERO })
}
