//! A definition file for the fake provider: what a user would write for it.

use std::fmt::Write;

/// How the contacts are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// A token in the body.
    Cursor,
    /// Page numbers.
    Page,
    /// Offsets.
    Offset,
    /// `Link` header.
    Link,
}

/// What the file is to say.
#[derive(Clone, Debug)]
pub struct DefinitionOptions {
    /// Base URL of the fake.
    pub base_url: String,
    /// Account names with a reference to each token, such as `file:harbor.token`.
    pub connections: Vec<(String, String)>,
    /// How contacts are listed.
    pub paging: Paging,
    /// Records a page.
    pub page_size: usize,
    /// Ask for what changed between full listings, by capped searches; and for what was deleted.
    pub incremental: bool,
    /// Interval of polls, such as `15s`.
    pub every: String,
    /// No polls but those asked for.
    pub paused: bool,
    /// Reference to the secret of GitHub-like webhooks; none: no webhooks are taken.
    pub webhook_secret: Option<String>,
}

impl DefinitionOptions {
    /// Cursor pages of 100, polled every 15 s, incremental, no webhooks.
    pub fn new(base_url: &str) -> Self {
        DefinitionOptions {
            base_url: base_url.to_owned(),
            connections: Vec::new(),
            paging: Paging::Cursor,
            page_size: 100,
            incremental: true,
            every: "15s".to_owned(),
            paused: false,
            webhook_secret: None,
        }
    }
}

/// The YAML text.
pub fn definition(options: &DefinitionOptions) -> String {
    let mut text = format!(
        "source: fake\ntitle: A seeded fake CRM\nbase_url: {}\nauth: {{type: bearer, token: \"file:default.token\"}}\n",
        options.base_url
    );
    if !options.connections.is_empty() {
        // Each connection brings its own token.
        text = text.replace(", token: \"file:default.token\"", "");
    }
    text.push_str("limits:\n  conditional: true\n  concurrency: 2\n  retry: {status: [429, 5xx, network], max: 8, backoff: 200ms..5s}\n");
    text.push_str(
        "  headers: {retry_after: Retry-After, remaining: X-RateLimit-Remaining, reset_epoch: X-RateLimit-Reset}\n",
    );
    text.push_str("streams:\n  - name: Contact\n    sync: contacts\n    key: .id\n    modified_at: .updated_at\n");
    let start = if options.paused { ", start: paused" } else { "" };
    let full = if options.incremental { ", full: {every: 24h}" } else { "" };
    let _ = writeln!(text, "    schedule: {{every: {}{full}{start}}}", options.every);
    text.push_str(&list(options));
    if options.incremental {
        text.push_str(INCREMENTAL);
    }
    text.push_str("    fetch: {get: \"/v1/contacts/{{ key }}\"}\n    deletes:\n");
    if options.incremental {
        text.push_str(DELETED);
    }
    text.push_str("      - from_full_list: true\n");
    if let Some(secret) = &options.webhook_secret {
        let _ = write!(text, "{WEBHOOKS_HEAD}  verify: {{preset: github, secret: \"{secret}\"}}\n{WEBHOOKS}");
    }
    if !options.connections.is_empty() {
        text.push_str("connections:\n");
    }
    for (name, token) in &options.connections {
        let _ = writeln!(text, "  {name}: {{credentials: {{token: \"{token}\"}}, metadata: {{account: {name}}}}}");
    }
    text
}

fn list(options: &DefinitionOptions) -> String {
    let size = options.page_size;
    match options.paging {
        Paging::Cursor => format!(
            "    list:\n      get: /v1/contacts\n      params: {{limit: {size}}}\n      items: .data\n      total: .total\n      \
             paginate: {{cursor: .next, param: after}}\n"
        ),
        Paging::Page => format!(
            "    list:\n      get: /v1/contacts/pages\n      params: {{per_page: {size}}}\n      items: .data\n      total: .total\n      \
             paginate: {{page: page, start: 1, last: .pages}}\n"
        ),
        Paging::Offset => format!(
            "    list:\n      get: /v1/contacts/offsets\n      items: .data\n      total: .total\n      \
             paginate: {{offset: offset, limit: limit, size: {size}}}\n"
        ),
        Paging::Link => {
            format!(
                "    list:\n      get: /v1/contacts/links\n      params: {{per_page: {size}}}\n      paginate: link\n"
            )
        }
    }
}

const INCREMENTAL: &str = r#"    incremental:
      post: /v1/contacts/search
      body: {limit: 100, updated_since: "{{ since | iso8601 }}", updated_until: "{{ until | iso8601 }}"}
      items: .data
      total: .total
      paginate: {cursor: .next, param: after, in: body}
      window: {lookback: 5s, split_at: 1000}
"#;

const DELETED: &str = r#"      - key: .id
        at: .deleted_at
        list:
          get: /v1/contacts/deleted
          params: {limit: 100, since: "{{ since | iso8601 }}"}
          items: .data
          paginate: {cursor: .next, param: after}
"#;

const WEBHOOKS_HEAD: &str = "webhooks:\n  path: /hooks/fake\n  route: .account\n";

const WEBHOOKS: &str = r#"  type: .event
  dedupe: $h["x-github-delivery"]
  map:
    - {when: '$type == "contact.deleted"', stream: Contact, key: .contact.id, at: .occurred_at, delete: true}
    - {when: '$type | startswith("contact.")', stream: Contact, record: .contact, at: .occurred_at}
"#;
