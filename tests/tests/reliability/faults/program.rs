//! The settings of a program that meets faults, and what is posted to it.

use serde_json::{Value, json};
use std::path::Path;
use syncline_tests::crm::DEFINITION;

pub use syncline_tests::process::{PATIENCE, Program, command};

const SHOP: &str = r#"
source: shop
base_url: http://127.0.0.1:PORT
auth: {type: none}
limits: {retry: {backoff: 10ms..100ms}}
streams:
  - name: Thing
    key: .id
    schedule: {every: 12h, start: paused}
    list: {get: /things, items: .data, total: .total, paginate: {page: page, start: 1, last: .pages}}
    deletes: [{from_full_list: true}]
connections:
  acme: {}
"#;

/// Writes settings and definitions for a program whose outside listens on `port`. `more` is laid over the settings.
pub fn settle_in(folder: &Path, port: u16, more: Value) {
    std::fs::create_dir_all(folder.join("sources")).expect("a folder");
    let paused = DEFINITION.replace("every: 12h}", "every: 12h, start: paused}");
    std::fs::write(folder.join("sources/crm.yaml"), paused).expect("a definition");
    std::fs::write(folder.join("sources/shop.yaml"), SHOP.replace("PORT", &port.to_string())).expect("a definition");
    let endpoint = |name: &str| json!({"url": format!("http://127.0.0.1:{port}/{name}"), "secret": "env:OUT_SECRET", "schedule": ["0s", "1s", "1s"]});
    let mut settings = json!({
        "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
        "encryption": "off", "workers": 1, "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]},
        "endpoints": {"well": endpoint("well"), "late": endpoint("late"), "abort": endpoint("abort"), "gone": endpoint("gone")},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
}

/// A request with these events.
pub fn events(numbers: &[u64]) -> String {
    let event = |n: &u64| json!({"kind": "whole", "portal": 7, "eventId": format!("e{n}"), "record": {"id": format!("r{n}"), "n": n}});
    Value::from(numbers.iter().map(event).collect::<Vec<_>>()).to_string()
}

/// Posts events; the status, or `None` if nobody answered.
pub async fn post(program: &Program, numbers: &[u64]) -> Option<u16> {
    program.post_body(events(numbers)).await.map(|(status, _, _)| status)
}
