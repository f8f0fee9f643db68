//! Endless histories out of a seed: step `n` depends on nothing but (seed, n), so that a program killed anywhere can go
//! on from the step after the last one it finds stored, and the judge can replay the same steps.

use crate::oracle::{Body, Row, Rule, Step, Window, Writer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Steps from one window's start to the next.
const PERIOD: u64 = 16;
/// Observation times begin here (microseconds).
const BEGIN: i64 = 1_700_000_000_000_000;

/// A seeded history over a few datasets.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// The seed.
    pub seed: u64,
    /// Ids per dataset.
    pub ids: u64,
    /// Most rows of a step.
    pub rows: u64,
}

/// Rules of the datasets of every [`History`]: one per strategy, and `latest` with an ignored field.
pub fn specs() -> Vec<(Rule, Vec<String>)> {
    vec![
        (Rule::Latest, vec![]),
        (Rule::IgnoreIfModifiedAfter, vec![]),
        (Rule::Override, vec!["noise".into(), "o.noise".into()]),
        (Rule::Latest, vec!["noise".into(), "o.noise".into()]),
    ]
}

impl History {
    /// The step with this number.
    pub fn step(&self, n: u64) -> Step {
        let mut rng = self.rng(n, 1);
        let set = |round: u64| (round % specs().len() as u64) as usize;
        let windowed = set(n / PERIOD);
        let (mut open, mut close) = (vec![], vec![]);
        match n % PERIOD {
            1 => open.push((windowed, Window::Start)),
            5 if rng.random_bool(0.3) => open.push((windowed, Window::Restart)),
            13 if rng.random_bool(0.2) => close.extend([(windowed, Window::Abort)]),
            14 => {
                // A start is nothing when the window is open, and makes the sweep legal after an abort.
                open.push((windowed, Window::Start));
                close.push((windowed, Window::Sweep));
            }
            _ => {}
        }
        let writer = match rng.random_range(0..10) {
            _ if self.ends_run(n).is_some() => Writer::Run(1 + n / PERIOD),
            0..6 => Writer::Run(1 + n / PERIOD),
            6 => Writer::Run(2 + n / PERIOD),
            7..9 => Writer::Webhook(n),
            _ => Writer::Push(n),
        };
        let mut pages = Vec::new();
        for round in 0..rng.random_range(1..=3u64) {
            let rows = self.rows_of(n, round, set(n + round));
            if !rows.is_empty() {
                pages.push((set(n + round), rows));
            }
        }
        Step { writer, open, pages, close }
    }

    /// Whether step `n` ends the run of a dataset, and of which one.
    pub fn ends_run(&self, n: u64) -> Option<usize> {
        (n % PERIOD == 14).then_some(((n / PERIOD) % specs().len() as u64) as usize)
    }

    fn rng(&self, n: u64, salt: u64) -> StdRng {
        let mut seed = [0u8; 32];
        for (at, part) in [self.seed, n, salt].into_iter().enumerate() {
            seed[at * 8..at * 8 + 8].copy_from_slice(&part.to_le_bytes());
        }
        StdRng::from_seed(seed)
    }

    /// Rows of page `round` of step `n`: new ones, and some that were sent before.
    fn rows_of(&self, n: u64, round: u64, set: usize) -> Vec<Row> {
        let mut rows = self.fresh(n, round);
        let mut rng = self.rng(n, 100 + round);
        let sets = specs().len() as u64;
        // Steps whose page `round` went to the same dataset lie a multiple of the number of datasets back.
        let back = rng.random_range(1..=4) * sets;
        if rng.random_bool(0.3) && n > back {
            debug_assert_eq!(((n - back + round) % sets) as usize, set);
            rows.extend(self.fresh(n - back, round).into_iter().take(2));
        }
        rows
    }

    fn fresh(&self, n: u64, round: u64) -> Vec<Row> {
        let mut rng = self.rng(n, 10 + round);
        let rows = rng.random_range(0..=self.rows);
        (0..rows).map(|place| self.row(&mut rng, n, round * 1_000 + place)).collect()
    }

    fn row(&self, rng: &mut StdRng, n: u64, place: u64) -> Row {
        let id = format!("id-{}", rng.random_range(0..self.ids));
        let late = if rng.random_bool(0.5) { rng.random_range(0..20) } else { 0 };
        // The lower digits name step and row, so that no two observations have one version.
        let observed = BEGIN + (n as i64 - late) * 1_000_000_000 + (n as i64 % 100_000) * 10_000 + place as i64;
        let modified = rng.random_bool(0.8).then(|| BEGIN + (n as i64 - rng.random_range(0..20)) / 3 * 3_000_000_000);
        let body = match rng.random_range(0..10) {
            0..6 => Body::Whole(whole(&id, rng)),
            6..8 => Body::Patch(some_fields(rng)),
            _ => Body::Gone(rng.random_bool(0.3).then_some(observed - 5)),
        };
        Row { id, version: (modified, observed), body }
    }
}

fn whole(id: &str, rng: &mut StdRng) -> Value {
    let mut value = some_fields(rng);
    value["id"] = json!(id);
    if rng.random_bool(0.1) {
        value["_nango_metadata"] = json!({"cursor": rng.random_range(0..9)});
    }
    value
}

fn some_fields(rng: &mut StdRng) -> Value {
    let mut value = json!({});
    let scalars =
        [json!(null), json!(1), json!(2.5), json!("x"), json!([1, 2]), json!({"deep": {"er": 1}}), json!(true)];
    for field in ["a", "b", "noise"] {
        if rng.random_bool(0.5) {
            value[field] = scalars[rng.random_range(0..scalars.len())].clone();
        }
    }
    if rng.random_bool(0.5) {
        value["o"] = json!({});
        for field in ["x", "y", "noise"] {
            if rng.random_bool(0.5) {
                value["o"][field] = scalars[rng.random_range(0..scalars.len())].clone();
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Oracle;

    #[test]
    fn steps_repeat_and_the_oracle_takes_them() {
        let history = History { seed: 7, ids: 12, rows: 6 };
        let (mut oracle, mut other) = (Oracle::new(&specs()), Oracle::new(&specs()));
        let mut sum = [0; 5];
        for n in 0..2_000 {
            let step = history.step(n);
            assert!(oracle.accepts(&step), "step {n}: {step:?}");
            let tallies = oracle.apply(&step, n as i64);
            assert_eq!(tallies, other.apply(&history.step(n), n as i64));
            for t in tallies.values() {
                for (sum, n) in sum.iter_mut().zip([t.added, t.updated, t.deleted, t.passed, t.ignored]) {
                    *sum += n;
                }
            }
        }
        assert!(sum.iter().all(|n| *n > 500), "every outcome is met often: {sum:?}");
    }
}
