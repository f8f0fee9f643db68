//! From what the code wrote to a step of the engine.

use serde::Deserialize;
use std::collections::BTreeMap;
use syncline_engine::model::{Strategy, Timestamp};
use syncline_engine::source::program::{LogLevel, Requests, Step, StepBody};
use syncline_runtime::wire::{PageKind, Writes};

/// What was said of the run so far.
#[derive(Default)]
pub(super) struct Steps {
    /// By model; the first of a run counts.
    strategies: BTreeMap<String, Strategy>,
}

/// What a record to delete may say besides its id.
#[derive(Deserialize)]
struct Gone {
    #[serde(rename = "deletedAt", alias = "deleted_at")]
    deleted_at: Option<String>,
}

impl Steps {
    /// One step.
    pub(super) fn of(&mut self, writes: Writes, requests: Requests, veil: impl Fn(&str) -> String) -> Step {
        let mut step = Step::default();
        step.requests = requests;
        for model in &writes.windows {
            step.model(model).window_start = true;
        }
        for (model, strategy) in writes.strategies {
            self.strategy(&mut step, model, &strategy);
        }
        for page in &writes.pages {
            step.model(&page.model).strategy = self.strategies.get(&page.model).copied();
            for (id, json) in page.iter() {
                let Ok(id) = std::str::from_utf8(id) else { continue };
                let body = match page.kind {
                    PageKind::Save => StepBody::Whole(json),
                    PageKind::Patch => StepBody::Patch(json),
                    PageKind::Gone => StepBody::Gone(deleted_at(json)),
                };
                step.push(&page.model, id, body);
            }
        }
        for line in &writes.lines {
            let level = match line.level.as_str() {
                "debug" => LogLevel::Debug,
                "warn" => LogLevel::Warn,
                "error" => LogLevel::Error,
                _ => LogLevel::Info,
            };
            step.log(level, veil(&line.text));
        }
        step
    }

    fn strategy(&mut self, step: &mut Step, model: String, name: &str) {
        let strategy = if name == "override" { Strategy::Override } else { Strategy::IgnoreIfModifiedAfter };
        match self.strategies.get(&model) {
            None => drop(self.strategies.insert(model, strategy)),
            Some(first) if *first == strategy => {}
            Some(_) => {
                let line = format!("setMergingStrategy: {model} has another strategy in this run already, which stays");
                step.log(LogLevel::Warn, line);
            }
        }
    }
}

fn deleted_at(json: &[u8]) -> Option<Timestamp> {
    let gone: Gone = serde_json::from_slice(json).ok()?;
    gone.deleted_at.and_then(|text| Timestamp::parse(&text))
}
