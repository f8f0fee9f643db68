//! How views are doing: rows that do not fit, code that panics, keys with very many rows, told by view, step and key; and what
//! they hold. Nothing else suffers from what goes wrong here.

use super::meter::{Gauge, SKEW};
use parking_lot::{Mutex, MutexGuard};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

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
    pub complaints: Vec<ViewComplaint>,
    /// Why it takes no more changes until the next start.
    pub stopped: Option<String>,
    /// Rows it holds in memory, in all steps. What several views share is counted for each.
    pub rows: u64,
    /// About how many bytes that is.
    pub bytes: u64,
    /// Keys that have very many rows, the first few.
    pub skews: Vec<Skew>,
}

/// A key of a join or a group with [`SKEW`] rows or more: a change of what they have in common costs as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// Which step of the view.
    pub step: String,
    /// In which environment.
    pub environment: String,
    /// Of which connection.
    pub connection: String,
    /// The key.
    pub key: String,
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewComplaint {
    /// Which step of the view.
    pub step: String,
    /// With which key.
    pub key: String,
    /// What happened.
    pub what: String,
}

/// The health of all views by name.
#[derive(Default)]
pub(crate) struct PanicGuard {
    all: Mutex<BTreeMap<String, Health>>,
    /// What the steps of each view hold, on every worker.
    gauges: Mutex<BTreeMap<String, Vec<Arc<Gauge>>>>,
}

impl PanicGuard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.all.lock()
    }

    /// How a view is doing.
    pub fn of(&self, view: &str) -> Health {
        let health = self.lock().get(view).cloned().unwrap_or_default();
        let gauges = self.gauges.lock();
        let held = gauges.get(view).into_iter().flatten().map(|gauge| gauge.read());
        let (rows, bytes) = held.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Health { rows, bytes, ..health }
    }

    fn weigh(&self, view: &str, gauge: Arc<Gauge>) {
        let mut gauges = self.gauges.lock();
        gauges.entry(view.to_owned()).or_default().push(gauge);
    }

    fn skewed(&self, view: &str, skew: Skew) {
        let mut all = self.lock();
        let skews = &mut all.entry(view.to_owned()).or_default().skews;
        // Every worker may tell of it.
        if skews.len() < KEPT && !skews.contains(&skew) {
            let Skew { step, environment, connection, key } = &skew;
            let what = format!("more than {SKEW} rows have one key: a change of what they share costs as many");
            tracing::warn!(view, step, environment, connection, key, "{what}");
            skews.push(skew);
        }
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

    fn note(&self, view: &str, complaint: ViewComplaint, misfit: bool) {
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
            let ViewComplaint { step, key, what } = &complaint;
            tracing::warn!(view, step, key, "a row is left out: {what}");
        }
        if !misfit && failures == FAILURES_MOST {
            let ViewComplaint { step, key, what } = complaint;
            self.stop(view, format!("its code failed {failures} times, at last in {step} with key {key}: {what}"));
        }
    }
}

/// A step on the way from models to views; it answers for the code that runs in it.
pub(crate) struct ViewStep {
    what: String,
    before: Vec<Rc<ViewStep>>,
    /// The views that it is part of.
    views: RefCell<Vec<String>>,
    /// What it holds.
    gauges: RefCell<Vec<Arc<Gauge>>>,
    ward: Arc<PanicGuard>,
}

impl ViewStep {
    pub fn first(what: String, ward: Arc<PanicGuard>) -> Rc<ViewStep> {
        ViewStep::of(what, Vec::new(), ward)
    }

    fn of(what: String, before: Vec<Rc<ViewStep>>, ward: Arc<PanicGuard>) -> Rc<ViewStep> {
        Rc::new(ViewStep { what, before, views: RefCell::default(), gauges: RefCell::default(), ward })
    }

    /// A step behind this one, and behind `other` where two come together.
    pub fn then(self: &Rc<Self>, what: &str, other: Option<&Rc<ViewStep>>) -> Rc<ViewStep> {
        let before: Vec<_> = std::iter::once(self).chain(other).cloned().collect();
        let what =
            format!("{what} of {}", before.iter().map(|step| step.what.as_str()).collect::<Vec<_>>().join(" and "));
        let what = what.chars().take(TEXT_MOST).collect();
        ViewStep::of(what, before, self.ward.clone())
    }

    /// Everything up to here is part of the view.
    pub fn belongs_to(&self, view: &str) {
        if self.views.borrow().iter().any(|known| known == view) {
            return;
        }
        self.views.borrow_mut().push(view.to_owned());
        self.gauges.borrow().iter().for_each(|gauge| self.ward.weigh(view, gauge.clone()));
        self.before.iter().for_each(|step| step.belongs_to(view));
    }

    /// Counts what this step holds; to be asked for before the step is part of a view.
    pub fn gauge(&self) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        self.gauges.borrow_mut().push(gauge.clone());
        gauge
    }

    /// A key with very many rows.
    pub fn skewed(&self, environment: &str, connection: &str, key: String) {
        let key = key.chars().take(TEXT_MOST).collect();
        let (environment, connection) = (environment.to_owned(), connection.to_owned());
        let skew = Skew { step: self.what.clone(), environment, connection, key };
        self.views.borrow().iter().for_each(|view| self.ward.skewed(view, skew.clone()));
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
        let complaint = ViewComplaint { step: self.what.clone(), key: short(key), what: short(what) };
        self.views.borrow().iter().for_each(|view| self.ward.note(view, complaint.clone(), misfit));
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason was given")
}
