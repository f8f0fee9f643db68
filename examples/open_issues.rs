//! A view: open issues per assignee, kept up as issues change. What is shown are its changes, one line each.

use serde_json::json;
use syncline::engine::harness::Harness;
use syncline::prelude::*;

#[derive(Row, Clone)]
struct Issue {
    state: String,
    #[row(path = "assignee.login")]
    assignee: Option<String>,
}

#[derive(Row, Clone)]
struct Workload {
    open: u64,
}

fn views(v: &mut Views<'_>) {
    let issues = v.model::<Issue>("github", "Issue");
    let open = issues.filter(|_, issue| issue.state == "open");
    let by_assignee = open.group_by(|_, issue| issue.assignee.clone().unwrap_or("nobody".to_owned()));
    v.publish("OpenIssues", &by_assignee.count().map(|_, open| Workload { open: *open }));
}

/// The changes of the view, one line each.
pub fn run() -> Vec<String> {
    let mut github = Harness::new(Definition::new(views));
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
