//! What goes wrong in views: rows that do not fit, code that panics. It is told by view, step and key; nothing else suffers.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A view whose code has failed so often is stopped.
pub const FAILURES_MOST: u64 = 100;
/// Complaints kept by view: the last ones.
const KEPT: usize = 16;
/// Bytes of a complaint's text.
const TEXT_MOST: usize = 500;

/// How a view is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Records left out because the row type does not fit them, each counted whenever it is met.
    pub misfits: u64,
    /// Times its code panicked; the row in hand was left out.
    pub failures: u64,
    /// The last things that went wrong.
    pub complaints: Vec<Complaint>,
    /// Why it takes no more changes until the next start.
    pub stopped: Option<String>,
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Which step of the view.
    pub step: String,
    /// With which key.
    pub key: String,
    /// What happened.
    pub what: String,
}

/// The health of all views by name.
#[derive(Default)]
pub(crate) struct Ward(Mutex<BTreeMap<String, Health>>);

impl Ward {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a view is doing.
    pub fn of(&self, view: &str) -> Health {
        self.lock().get(view).cloned().unwrap_or_default()
    }

    /// Whether it takes no more changes.
    pub fn is_stopped(&self, view: &str) -> bool {
        self.lock().get(view).is_some_and(|health| health.stopped.is_some())
    }

    /// Stops it.
    pub fn stop(&self, view: &str, why: String) {
        tracing::error!(view, "the view is stopped until the next start: {why}");
        self.lock().entry(view.to_owned()).or_default().stopped.get_or_insert(why);
    }

    fn note(&self, view: &str, complaint: Complaint, misfit: bool) {
        let (failures, known) = {
            let mut all = self.lock();
            let health = all.entry(view.to_owned()).or_default();
            let known = health.complaints.len();
            if misfit {
                health.misfits += 1;
            } else {
                health.failures += 1;
            }
            if health.complaints.len() >= KEPT {
                health.complaints.remove(0);
            }
            health.complaints.push(complaint.clone());
            (health.failures, known)
        };
        if known < KEPT {
            let Complaint { step, key, what } = &complaint;
            tracing::warn!(view, step, key, "a row is left out: {what}");
        }
        if !misfit && failures == FAILURES_MOST {
            let Complaint { step, key, what } = complaint;
            self.stop(view, format!("its code failed {failures} times, at last in {step} with key {key}: {what}"));
        }
    }
}

/// A step on the way from models to views; it answers for the code that runs in it.
pub(crate) struct Step {
    what: String,
    before: Vec<Rc<Step>>,
    /// The views that it is part of.
    views: RefCell<Vec<String>>,
    ward: Arc<Ward>,
}

impl Step {
    pub fn first(what: String, ward: Arc<Ward>) -> Rc<Step> {
        Rc::new(Step { what, before: Vec::new(), views: RefCell::default(), ward })
    }

    /// A step behind this one, and behind `other` where two come together.
    pub fn then(self: &Rc<Self>, what: &str, other: Option<&Rc<Step>>) -> Rc<Step> {
        let before: Vec<_> = std::iter::once(self).chain(other).cloned().collect();
        let what =
            format!("{what} of {}", before.iter().map(|step| step.what.as_str()).collect::<Vec<_>>().join(" and "));
        let what = what.chars().take(TEXT_MOST).collect();
        Rc::new(Step { what, before, views: RefCell::default(), ward: self.ward.clone() })
    }

    /// Everything up to here is part of the view.
    pub fn belongs_to(&self, view: &str) {
        if self.views.borrow().iter().any(|known| known == view) {
            return;
        }
        self.views.borrow_mut().push(view.to_owned());
        self.before.iter().for_each(|step| step.belongs_to(view));
    }

    /// Runs code of the view's author. `None` if it panicked: that is told of all views the step is part of.
    pub fn run<T>(&self, key: impl FnOnce() -> String, code: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(code)) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.complain(key(), format!("it panicked: {}", said(&*panic)), false);
                None
            }
        }
    }

    /// A record the row type does not fit.
    pub fn misfit(&self, key: String, what: String) {
        self.complain(key, what, true);
    }

    fn complain(&self, key: String, what: String, misfit: bool) {
        let short = |text: String| text.chars().take(TEXT_MOST).collect();
        let complaint = Complaint { step: self.what.clone(), key: short(key), what: short(what) };
        self.views.borrow().iter().for_each(|view| self.ward.note(view, complaint.clone(), misfit));
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason was given")
}
