//! The whole program under a name that tests can start and kill. With `VIEWS` in its environment it publishes views.

use std::process::ExitCode;
use syncline::prelude::*;

#[derive(Row, Clone)]
struct Contact {
    n: u64,
}

fn main() -> ExitCode {
    let program = syncline::program();
    match std::env::var_os("VIEWS") {
        Some(_) => program.views(views).main(),
        None => program.main(),
    }
}

fn views(v: &mut Views<'_>) {
    let contacts = v.model::<Contact>("crm", "Contact");
    v.publish("Doubled", &contacts.map(|_, contact| 2 * contact.n));
    v.publish("ByNumber", &contacts.group_by(|_, contact| contact.n).count());
    // Stops where two contacts have one number.
    v.publish("Unique", &contacts.rekey(|_, contact| contact.n));
}
