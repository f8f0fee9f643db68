//! One worker for each environment that has something to run.
//!
//! Promises: a worker is begun when it is needed; one that ended is replaced with the next invocation; one that does not even
//! begin is tried again after a pause that grows, and until then its error is told at once.

use super::Options;
use super::parent::{Gone, Running, Worker};
use crate::compile::{Complaint, Modules, Place};
use crate::sandbox::Definition;
use crate::wire::Invocation;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// The first pause after a worker could not be begun. Each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often an invocation is begun whose worker ended before it had it.
const TRIES: usize = 3;

/// Workers by environment.
pub struct Workers {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    options: Options,
    seats: Mutex<HashMap<String, Seat>>,
}

/// The place of an environment's worker.
#[derive(Clone, Default)]
struct Seat {
    worker: Arc<OnceCell<Worker>>,
    failed: Option<Failed>,
}

/// Workers could not be begun.
#[derive(Clone)]
struct Failed {
    gone: Gone,
    pause: Duration,
    until: Instant,
}

impl Workers {
    /// With the command that each is begun by: see [`Worker::spawn`].
    pub fn new(command: impl Fn() -> Command + Send + Sync + 'static, options: Options) -> Workers {
        Workers { command: Box::new(command), options, seats: Mutex::default() }
    }

    /// Begins an invocation in the worker of an environment.
    pub async fn begin(&self, environment: &str, modules: &Modules, invocation: Invocation) -> Result<Running, Gone> {
        let mut tried = 1;
        loop {
            let worker = self.worker(environment).await?;
            match worker.begin(modules, invocation.clone()).await {
                Err(_) if worker.gone().is_some() && tried < TRIES => tried += 1,
                begun => return begun,
            }
        }
    }

    /// Reads what a function declares, in the worker of an environment.
    pub async fn describe(
        &self,
        environment: &str,
        modules: &Modules,
        place: &Place,
    ) -> Result<Result<Definition, Complaint>, Gone> {
        let mut tried = 1;
        loop {
            let worker = self.worker(environment).await?;
            match worker.describe(modules, place).await {
                Err(_) if worker.gone().is_some() && tried < TRIES => tried += 1,
                described => return described,
            }
        }
    }

    /// The worker of an environment, begun if there is none.
    pub async fn worker(&self, environment: &str) -> Result<Worker, Gone> {
        let cell = self.seat(environment).worker;
        let begin = async || {
            // Others may have tried while this one waited for them.
            if let Some(failed) = self.seat(environment).failed
                && Instant::now() < failed.until
            {
                return Err(failed.gone);
            }
            let begun = Worker::spawn((self.command)(), self.options).await;
            self.note(environment, begun.as_ref().err());
            begun
        };
        cell.get_or_try_init(begin).await.cloned()
    }

    fn seat(&self, environment: &str) -> Seat {
        let mut seats = self.seats.lock();
        // What has ended by itself keeps nobody's place.
        seats.retain(|name, seat| {
            name == environment
                || seat.failed.is_some()
                || seat.worker.get().is_none_or(|worker| worker.gone().is_none())
        });
        let seat = seats.entry(environment.to_owned()).or_default();
        if seat.worker.get().is_some_and(|worker| worker.gone().is_some()) {
            seat.worker = Arc::default();
        }
        seat.clone()
    }

    fn note(&self, environment: &str, gone: Option<&Gone>) {
        let mut seats = self.seats.lock();
        let seat = seats.entry(environment.to_owned()).or_default();
        seat.failed = gone.map(|gone| {
            let pause = seat.failed.as_ref().map_or(PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
            Failed { gone: gone.clone(), pause, until: Instant::now() + pause }
        });
    }
}
