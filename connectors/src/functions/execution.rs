//! Where the code of functions runs: in worker processes, or on threads of this process.
//!
//! A worker has given up files, sockets and other programs, and is ended when its code does not come back; a thread has this
//! process around it, and is for embedding, tests, and code that is trusted.

use std::sync::Arc;
use std::sync::mpsc as plain;
use syncline_runtime::Modules;
use syncline_runtime::sandbox::{Said, Sandbox};
use syncline_runtime::wire::{Answer, Ended, Fault, Invocation, Writes};
use syncline_runtime::worker::{Gone, Heard, Running, Workers};
use tokio::sync::mpsc;

/// Stack of a thread: the engine of the sandbox counts its own limit within it.
const STACK_BYTES: usize = 8 << 20;

/// Where code runs.
#[derive(Clone)]
pub enum Executor {
    /// In a process for each environment.
    Workers(Arc<Workers>),
    /// On a thread of this process for each execution.
    Threads,
}

impl Executor {
    /// Begins an execution.
    pub(super) async fn begin(
        &self,
        environment: &str,
        modules: &Arc<Modules>,
        invocation: Invocation,
    ) -> Result<Execution, Gone> {
        match self {
            Executor::Workers(workers) => workers.begin(environment, modules, invocation).await.map(Execution::Worker),
            Executor::Threads => Ok(Execution::thread(modules.clone(), invocation)),
        }
    }
}

/// An execution under way. Dropping it ends the code at its next call.
pub(super) enum Execution {
    /// In a worker.
    Worker(Running),
    /// On a thread.
    Thread {
        /// What it says.
        said: mpsc::UnboundedReceiver<Said>,
        /// What it is answered.
        answers: plain::Sender<(u32, Answer)>,
    },
}

impl Execution {
    fn thread(modules: Arc<Modules>, invocation: Invocation) -> Execution {
        // Unbounded, and never long: at most as many calls are out as an invocation may have open.
        let (to, said) = mpsc::unbounded_channel();
        let (answers, given) = plain::channel();
        let failed = to.clone();
        let body = move || work(modules, invocation, &to, &given);
        let begun = std::thread::Builder::new().name("function".to_owned()).stack_size(STACK_BYTES).spawn(body);
        if let Err(error) = begun {
            let message = format!("no thread could be begun for the function: {error}");
            let _ = failed.send(ended(Fault { code: "no_thread".to_owned(), message, ..Fault::default() }));
        }
        Execution::Thread { said, answers }
    }

    /// What the code says next; `None` after its end. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        match self {
            Execution::Worker(running) => running.next().await,
            Execution::Thread { said, .. } => said.recv().await.map(|said| match said {
                Said::Call(call) => Heard::Call(call),
                Said::Ended(ended) => Heard::Ended(ended),
            }),
        }
    }

    /// Hands in an answer.
    pub(super) async fn answer(&self, call: u32, answer: Answer) {
        match self {
            Execution::Worker(running) => running.answer(call, answer).await,
            // If nobody hears it any more, its end is on its way.
            Execution::Thread { answers, .. } => drop(answers.send((call, answer))),
        }
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

fn ended(fault: Fault) -> Said {
    Said::Ended(Ended { writes: Writes::default(), result: Err(fault), cpu: std::time::Duration::ZERO })
}
