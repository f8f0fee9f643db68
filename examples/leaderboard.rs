//! A view: the three largest deals of each team, by rank. What is shown is how the ranks move when a deal grows.

use serde_json::json;
use syncline::engine::harness::Harness;
use syncline::prelude::*;

#[derive(Row, Clone)]
struct Deal {
    team: String,
    cents: i64,
}

#[derive(Row, Clone)]
struct Place {
    deal: String,
    cents: i64,
}

fn views(v: &mut Views<'_>) {
    let deals = v.model::<Deal>("crm", "Deal");
    let best = deals.group_by(|_, deal| deal.team.clone()).top_k(3, |_, deal| Reverse(deal.cents));
    v.publish("Leaderboard", &best.map(|_, (id, deal)| Place { deal: id.clone(), cents: deal.cents }));
}

/// The board, then what changes, one line each.
pub fn run() -> Vec<String> {
    let mut crm = Harness::new(Definition::new(views));
    for (id, cents) in [("a", 100), ("b", 300), ("c", 200), ("d", 50)] {
        crm.save("crm", "acme", "Deal", json!({"id": id, "team": "north", "cents": cents}));
    }
    crm.commit();
    let mut lines: Vec<String> = crm.rows("crm", "acme", "Leaderboard").iter().map(ToString::to_string).collect();
    crm.changes("crm", "acme", "Leaderboard");
    crm.save("crm", "acme", "Deal", json!({"id": "d", "team": "north", "cents": 250}));
    crm.commit();
    let mut changes: Vec<String> =
        crm.changes("crm", "acme", "Leaderboard").into_iter().map(|(action, row)| format!("{action} {row}")).collect();
    changes.sort();
    lines.extend(changes);
    lines
}

#[allow(dead_code)]
fn main() {
    run().iter().for_each(|line| println!("{line}"));
}
