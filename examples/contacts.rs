//! A view over three models: contacts with their company and their last activity. What is shown are the rows, then the one
//! that changes when a company is renamed.

use serde_json::json;
use syncline::engine::harness::Harness;
use syncline::prelude::*;

#[derive(Row, Clone)]
struct Contact {
    name: String,
    company: String,
}

#[derive(Row, Clone)]
struct Company {
    name: String,
}

#[derive(Row, Clone)]
struct Activity {
    contact: String,
    at: String,
}

#[derive(Row, Clone)]
struct Card {
    name: String,
    company: String,
    last_seen: Option<String>,
}

fn views(v: &mut Views<'_>) {
    let contacts = v.model::<Contact>("crm", "Contact");
    let companies = v.model::<Company>("crm", "Company");
    let activities = v.model::<Activity>("crm", "Activity");
    let last = activities.group_by(|_, activity| activity.contact.clone()).max(|_, activity| activity.at.clone());
    let cards = contacts
        .lookup(
            &companies,
            |_, contact| contact.company.clone(),
            |_, contact, company| Card { name: contact.name.clone(), company: company.name.clone(), last_seen: None },
        )
        .lookup_or_none(&last, |id, _| id.clone(), |_, card, at| Card { last_seen: at.cloned(), ..card.clone() });
    v.publish("ContactCard", &cards);
}

/// Rows, then a change, one line each.
pub fn run() -> Vec<String> {
    let mut crm = Harness::new(Definition::new(views));
    crm.save("crm", "acme", "Company", json!({"id": "c", "name": "Analytical Engines"}));
    crm.save("crm", "acme", "Contact", json!({"id": "1", "name": "Ada", "company": "c"}));
    crm.save("crm", "acme", "Contact", json!({"id": "2", "name": "Bob", "company": "none"}));
    for (id, at) in [("a", "2026-01-05"), ("b", "2026-03-01"), ("c", "2026-02-01")] {
        crm.save("crm", "acme", "Activity", json!({"id": id, "contact": "1", "at": at}));
    }
    crm.commit();
    let mut lines: Vec<String> = crm.rows("crm", "acme", "ContactCard").iter().map(ToString::to_string).collect();
    crm.changes("crm", "acme", "ContactCard");
    crm.save("crm", "acme", "Company", json!({"id": "c", "name": "Difference Engines"}));
    crm.commit();
    let changes = crm.changes("crm", "acme", "ContactCard");
    lines.extend(changes.into_iter().map(|(action, row)| format!("{action} {row}")));
    lines
}

#[allow(dead_code)]
fn main() {
    run().iter().for_each(|line| println!("{line}"));
}
