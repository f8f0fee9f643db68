//! What an invocation uses up: time on the processor between two answers of the host and in all, requests, open calls.

use crate::wire::{Fault, Limits};
use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Measures one invocation. Once over a limit it stays over.
pub(super) struct Meter {
    limits: Cell<Limits>,
    /// Time of this thread on the processor when the step began.
    began: Cell<Duration>,
    /// Of the steps before.
    before: Cell<Duration>,
    /// Of this step, when it was looked at last.
    step: Cell<Duration>,
    requests: Cell<u32>,
    over: RefCell<Option<Fault>>,
}

impl Meter {
    pub(super) fn new() -> Meter {
        let zero = || Cell::new(Duration::ZERO);
        Meter {
            limits: Cell::new(Limits::EXEC),
            began: zero(),
            before: zero(),
            step: zero(),
            requests: Cell::new(0),
            over: RefCell::new(None),
        }
    }

    /// From here on it is measured, against these limits.
    pub(super) fn begin(&self, limits: Limits) {
        self.limits.set(limits);
        self.began.set(thread_time());
        self.step.set(Duration::ZERO);
        self.before.set(Duration::ZERO);
    }

    /// The host has answered: what comes is a new step.
    pub(super) fn step(&self) {
        self.before.set(self.total());
        self.step.set(Duration::ZERO);
        self.began.set(thread_time());
    }

    /// Looks at the time. Called now and then while code runs.
    pub(super) fn look(&self) {
        self.step.set(thread_time().saturating_sub(self.began.get()));
        let Limits { cpu_step: step, cpu: all, .. } = self.limits.get();
        if self.step.get() > step {
            self.exceed(
                "cpu_time",
                format!("the function computed for {} s without asking for anything", step.as_secs_f32()),
            );
        } else if self.total() > all {
            self.exceed("cpu_time", format!("the function computed for {} s in all", all.as_secs_f32()));
        }
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        let most = self.limits.get().requests;
        if self.requests.get() > most {
            self.exceed("too_many_requests", format!("the function made more than {most} requests"));
        }
    }

    /// The limit that was passed, if one was.
    pub(super) fn over(&self) -> Option<Fault> {
        self.over.borrow().clone()
    }

    /// Time on the processor so far.
    pub(super) fn total(&self) -> Duration {
        self.before.get() + self.step.get()
    }

    /// It is over a limit. The first one counts.
    pub(super) fn exceed(&self, code: &str, message: String) {
        let mut over = self.over.borrow_mut();
        if over.is_none() {
            *over = Some(Fault { code: code.into(), message, ..Fault::default() });
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
