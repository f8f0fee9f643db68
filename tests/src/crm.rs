//! The source of most tests of the whole program: contacts that come by webhooks, for one connection that has portal 7.

/// Its definition. `SECRET` in the environment proves webhooks.
pub const DEFINITION: &str = r#"
source: crm
base_url: http://127.0.0.1:9
auth: {type: none}
streams:
  - name: Contact
    key: .id
    schedule: {every: 12h}
    list: {get: /contacts}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  events: .[]
  route: .portal
  type: .kind
  dedupe: .eventId
  map:
    - {when: '$type == "whole"', stream: Contact, record: .record}
connections:
  acme: {metadata: {portal: 7}}
"#;
