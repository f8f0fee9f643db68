//! The program with a view of one's own, open issues per assignee: takes the same command line as `syncline`, serves
//! `OpenIssues` beside `Issue`.

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

/// Open issues per assignee.
pub fn views(v: &mut Views<'_>) {
    let issues = v.model::<Issue>("github", "Issue");
    let open = issues.filter(|_, issue| issue.state == "open");
    let by_assignee = open.group_by(|_, issue| issue.assignee.clone().unwrap_or("nobody".to_owned()));
    v.publish("OpenIssues", &by_assignee.count().map(|_, open| Workload { open: *open }));
}

#[allow(dead_code)]
fn main() -> std::process::ExitCode {
    syncline::program().views(views).main()
}
