//! The view of `program`, kept up as issues change: what is shown are its changes, one line each.

use serde_json::json;
use syncline::engine::harness::Harness;
use syncline::prelude::*;

#[path = "program.rs"]
mod program;

/// The changes of the view, one line each.
pub fn run() -> Vec<String> {
    let mut github = Harness::new(Definition::new(program::views));
    let mut lines = Vec::new();
    let mut commit = |github: &mut Harness, issues: &[(&str, &str, &str)]| {
        for (id, state, who) in issues {
            github.save("github", "acme", "Issue", json!({"id": id, "state": state, "assignee": {"login": who}}));
        }
        github.commit();
        let changes = github.changes("github", "acme", "OpenIssues");
        lines.extend(changes.into_iter().map(|(action, row)| format!("{action} {row}")));
    };
    commit(&mut github, &[("1", "open", "ada"), ("2", "open", "ada"), ("3", "closed", "bob")]);
    commit(&mut github, &[("1", "open", "ada")]); // nothing new, nothing told
    commit(&mut github, &[("1", "closed", "ada")]);
    commit(&mut github, &[("2", "open", "bob")]); // handed on: two rows change together
    lines
}

#[allow(dead_code)]
fn main() {
    run().iter().for_each(|line| println!("{line}"));
}
