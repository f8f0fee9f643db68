//! The fake provider through its own door: does what it lists equal its truth, does its bad behaviour repeat?

use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::fake::webhooks::{NoCourier, Signing, plan, request};
use syncline_connectors::fake::{
    Courier, Deed, DefinitionOptions, Edit, Fake, FakeOptions, Generator, Happening, Notify, Paging, WebhookOptions,
    definition,
};
use syncline_engine::model::Timestamp;
use syncline_engine::time::ManualClock;

const START: i64 = 1_790_000_000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_seconds(START)))
}

async fn start(change: impl FnOnce(&mut FakeOptions)) -> (Fake, Arc<ManualClock>) {
    let clock = clock();
    let mut options = FakeOptions::new(7, clock.clone());
    options.records = 250;
    change(&mut options);
    (Fake::start(options, Arc::new(NoCourier)).await.expect("a free port"), clock)
}

/// One request as the first account.
async fn ask(fake: &Fake, path: &str, header: Option<(&str, &str)>, body: Option<Value>) -> reqwest::Response {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}{path}", fake.url());
    let mut request = match body {
        Some(body) => client.post(url).json(&body),
        None => client.get(url),
    };
    let token = format!("Bearer {}", fake.accounts()[0].1);
    for (name, value) in header
        .into_iter()
        .chain((!matches!(header, Some(("authorization", _)))).then_some(("authorization", token.as_str())))
    {
        request = request.header(name, value);
    }
    request.send().await.expect("an answer")
}

async fn get(fake: &Fake, path: &str) -> Value {
    let response = ask(fake, path, None, None).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.expect("JSON")
}

fn collect(into: &mut Vec<(String, Value)>, rows: &Value) -> usize {
    let rows = rows.as_array().expect("rows");
    into.extend(rows.iter().map(|r| (r["id"].as_str().expect("id").to_owned(), r.clone())));
    rows.len()
}

async fn by_cursor(fake: &Fake, path: &str) -> Vec<(String, Value)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(fake, &format!("{path}&after={after}")).await;
        collect(&mut all, &page["data"]);
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return all,
        }
    }
}

async fn by_page(fake: &Fake) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for page in 1.. {
        let got = get(fake, &format!("/v1/contacts/pages?per_page=40&page={page}")).await;
        collect(&mut all, &got["data"]);
        if got["pages"].as_u64() == Some(page) {
            break;
        }
    }
    all
}

async fn by_offset(fake: &Fake) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    loop {
        let page = get(fake, &format!("/v1/contacts/offsets?limit=40&offset={}", all.len())).await;
        if collect(&mut all, &page["data"]) == 0 {
            return all;
        }
    }
}

async fn by_link(fake: &Fake) -> Vec<(String, Value)> {
    let (mut all, mut path) = (Vec::new(), "/v1/contacts/links?per_page=40&sort=id".to_owned());
    loop {
        let response = ask(fake, &path, None, None).await;
        let link = response.headers().get("link").map(|l| l.to_str().expect("text").to_owned());
        collect(&mut all, &response.json().await.expect("JSON"));
        match link {
            Some(link) => path = link[1..link.find('>').expect("a link")].to_owned(),
            None => return all,
        }
    }
}

fn same_as_truth(all: Vec<(String, Value)>, fake: &Fake) {
    let count = all.len();
    let got: BTreeMap<String, Value> = all.into_iter().collect();
    assert_eq!(got.len(), count, "a contact stood on two pages");
    let parse = |(id, text): (String, String)| (id, serde_json::from_str(&text).expect("JSON"));
    let truth: BTreeMap<String, Value> = fake.truth(0).into_iter().map(parse).collect();
    assert_eq!(got, truth);
}

#[tokio::test]
async fn every_paginator_lists_the_truth() {
    for (shuffle, moving) in [(false, false), (true, false), (false, true), (true, true)] {
        let (fake, _clock) = start(|o| (o.shuffle, o.moving) = (shuffle, moving)).await;
        fake.edit(0, Edit::Delete(17), Notify::Never).expect("it lives");
        fake.edit(0, Edit::Update(18), Notify::Never).expect("it lives");
        same_as_truth(by_cursor(&fake, "/v1/contacts?limit=40").await, &fake);
        same_as_truth(by_cursor(&fake, "/v1/contacts?limit=40&updated_since=0").await, &fake);
        same_as_truth(by_page(&fake).await, &fake);
        same_as_truth(by_offset(&fake).await, &fake);
        same_as_truth(by_link(&fake).await, &fake);
    }
}

#[tokio::test]
async fn moving_pages_lose_a_record_that_jumps_to_the_front() {
    let (fake, clock) = start(|o| o.moving = true).await;
    let mut all = Vec::new();
    collect(&mut all, &get(&fake, "/v1/contacts/pages?per_page=100&page=1").await["data"]);
    clock.advance(Duration::from_secs(1));
    // The oldest one becomes the newest: it moves from the last page to the first, which was read already.
    fake.edit(0, Edit::Update(1), Notify::Never).expect("it lives");
    for page in 2..=3 {
        collect(&mut all, &get(&fake, &format!("/v1/contacts/pages?per_page=100&page={page}")).await["data"]);
    }
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((all.len(), ids.len(), ids.contains("1")), (250, 249, false));
}

#[tokio::test]
async fn searches_filter_by_time_and_stop_at_the_cap() {
    let (fake, clock) = start(|o| o.search_cap = 60).await;
    clock.advance(Duration::from_secs(10));
    for id in 1..=3 {
        fake.edit(0, Edit::Update(id), Notify::Never).expect("it lives");
    }
    let search = async |body: Value| -> Value {
        ask(&fake, "/v1/contacts/search", None, Some(body)).await.json().await.expect("JSON")
    };
    let since = Timestamp::from_seconds(START + 5).to_string();
    let page = search(json!({"updated_since": since, "limit": 2})).await;
    assert_eq!((page["data"].as_array().expect("rows").len(), page["total"].as_u64()), (2, Some(3)));
    let (mut all, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = search(json!({"limit": 25, "after": after})).await;
        assert_eq!(page["total"].as_u64(), Some(250));
        collect(&mut all, &page["data"]);
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(all.len(), 60);
}

#[tokio::test]
async fn deleted_contacts_are_listed_and_answer_404() {
    let (fake, clock) = start(|_| {}).await;
    clock.advance(Duration::from_secs(1));
    for id in [5, 6, 7] {
        fake.edit(0, Edit::Delete(id), Notify::Never).expect("it lives");
    }
    assert_eq!(ask(&fake, "/v1/contacts/5", None, None).await.status(), 404);
    assert_eq!(get(&fake, "/v1/contacts/8").await["id"], "8");
    let gone = by_cursor(&fake, "/v1/contacts/deleted?limit=2").await;
    let ids: Vec<_> = gone.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["5", "6", "7"]);
    assert!(gone.iter().all(|(_, row)| row["deleted_at"].is_string()));
}

#[tokio::test]
async fn validators_hold_until_something_changes_and_cost_nothing() {
    let (fake, _clock) = start(|o| o.rate = Some((3, Duration::from_secs(60)))).await;
    let path = "/v1/contacts?limit=300";
    let first = ask(&fake, path, None, None).await;
    let tag = first.headers()["etag"].to_str().expect("text").to_owned();
    // A 304 gives its request back: one can ask far more often than the budget says.
    for _ in 0..10 {
        assert_eq!(ask(&fake, path, Some(("if-none-match", &tag)), None).await.status(), 304);
    }
    fake.edit(0, Edit::Update(9), Notify::Never).expect("it lives");
    assert_eq!(ask(&fake, path, Some(("if-none-match", &tag)), None).await.status(), 200);
    assert_eq!(fake.figures().not_modified, 10);
}

#[tokio::test]
async fn the_budget_refuses_says_when_and_opens_again() {
    let (fake, clock) = start(|o| o.rate = Some((2, Duration::from_secs(30)))).await;
    for left in ["1", "0"] {
        let response = ask(&fake, "/v1/me", None, None).await;
        assert_eq!((response.status().as_u16(), response.headers()["x-ratelimit-remaining"] == *left), (200, true));
    }
    let refused = ask(&fake, "/v1/me", None, None).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"] == "30"), (429, true));
    clock.advance(Duration::from_secs(30));
    assert_eq!(ask(&fake, "/v1/me", None, None).await.status(), 200);
}

#[tokio::test]
async fn failures_repeat_with_the_seed() {
    let mut rows = Vec::new();
    for seed in [7, 7, 8] {
        let (fake, _clock) = start(|o| (o.failing, o.seed) = (0.4, seed)).await;
        let mut row = Vec::new();
        for _ in 0..24 {
            row.push(ask(&fake, "/v1/me", None, None).await.status().as_u16());
        }
        assert!(row.contains(&200) && row.iter().any(|s| *s >= 500));
        rows.push(row);
    }
    assert_eq!(rows[0], rows[1]);
    assert_ne!(rows[0], rows[2]);
}

#[tokio::test]
async fn bad_requests_are_told_so() {
    let (fake, _clock) = start(|_| {}).await;
    let status = async |path: &str, header| ask(&fake, path, header, None).await.status().as_u16();
    assert_eq!(status("/v1/me", Some(("authorization", "Bearer other"))).await, 401);
    assert_eq!(status("/v1/contacts?limit=0", None).await, 400);
    assert_eq!(status("/v1/contacts?after=zzz", None).await, 400);
    assert_eq!(status("/v1/contacts?colour=blue", None).await, 400);
}

#[tokio::test]
async fn a_held_page_says_what_was_true_before() {
    let (fake, _clock) = start(|_| {}).await;
    let held = fake.hold_page(0, 3);
    let scene = async {
        assert_eq!(held.rendered.await, Ok(1));
        assert_eq!(fake.edit(0, Edit::Update(3), Notify::Never).map(|h| h.version), Some(2));
        drop(held.release);
    };
    let (page, ()) = tokio::join!(get(&fake, "/v1/contacts?limit=10"), scene);
    let old = page["data"].as_array().expect("rows").iter().find(|r| r["id"] == "3").expect("it is there").clone();
    assert_ne!(old, get(&fake, "/v1/contacts/3").await);
}

#[derive(Default)]
struct Inbox(Mutex<Vec<String>>);

#[async_trait]
impl Courier for Inbox {
    async fn post(&self, _: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<u16, String> {
        let id = headers.iter().find(|(name, _)| name == "x-github-delivery").expect("an id");
        self.0.lock().expect("whole").push(format!("{} {}", id.1, String::from_utf8_lossy(&body)));
        Ok(200)
    }
}

async fn posted(seed: u64) -> (BTreeMap<String, u64>, Fake) {
    let (clock, inbox) = (clock(), Arc::new(Inbox::default()));
    let mut options = FakeOptions::new(seed, clock.clone());
    options.change_every = Some(Duration::from_millis(100));
    options.change_for = Some(Duration::from_secs(20));
    let hook = WebhookOptions::prompt("http://hook.invalid/", "secret");
    options.webhooks = Some(WebhookOptions { late: 0.2, twice: 0.2, never: 0.2, ..hook });
    let fake = Fake::start(options, inbox.clone()).await.expect("a free port");
    clock.advance(Duration::from_secs(60));
    fake.truth(0);
    while fake.webhooks_waiting() > 0 {
        tokio::task::yield_now().await;
    }
    let mut seen = BTreeMap::new();
    for post in inbox.0.lock().expect("whole").iter() {
        *seen.entry(post.clone()).or_default() += 1;
    }
    (seen, fake)
}

#[tokio::test]
async fn webhooks_come_once_twice_or_never_as_the_seed_says() {
    let ((a, fake), (b, _), (c, _)) = (posted(7).await, posted(7).await, posted(8).await);
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert!(a.values().any(|n| *n == 2) && a.values().all(|n| *n <= 2));
    let figures = fake.figures();
    assert!(figures.never > 10 && figures.late > 10, "{figures:?}");
    assert_eq!(figures.webhooks, a.values().sum::<u64>());
}

fn happening() -> Happening {
    Happening { sequence: 1, deed: Deed::Updated, id: 12, version: 3, at: Timestamp::from_seconds(START) }
}

#[test]
fn a_scene_played_by_hand_leaves_other_webhooks_as_they_were() {
    let options = WebhookOptions { late: 0.5, twice: 0.5, ..WebhookOptions::prompt("http://x", "secret") };
    let later = Happening { sequence: 99, ..happening() };
    assert_eq!(plan(7, &options, 0, &happening(), Notify::Chance), plan(7, &options, 0, &later, Notify::Chance));
    assert!(plan(7, &options, 0, &later, Notify::Never).after.is_empty());
}

#[test]
fn signatures_are_what_the_schemes_say() {
    use base64::Engine as _;
    let text = WebhookOptions::prompt("http://x", "secret");
    let now = Timestamp::from_seconds(START);
    let (headers, body) = request(&text, 7, (0, "harbor"), &happening(), now);
    let header = |headers: &[(String, String)], name: &str| {
        headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).expect("the header")
    };
    assert_eq!(header(&headers, "x-hub-signature-256"), format!("sha256={}", hex::encode(hmac(b"secret", &[&body]))));
    let parsed: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&parsed["event"], &parsed["contact"]["id"]), (&json!("contact.updated"), &json!("12")));

    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
    let standard = WebhookOptions { signing: Signing::Standard, secret, ..text };
    let (headers, body) = request(&standard, 7, (0, "harbor"), &happening(), now);
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
    let signed = format!("{}.{}.", header(&headers, "webhook-id"), header(&headers, "webhook-timestamp"));
    let expected = format!("v1,{}", base64.encode(hmac(&key, &[signed.as_bytes(), &body])));
    assert_eq!(header(&headers, "webhook-signature"), expected);
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    use hmac::Mac;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

#[test]
fn the_generator_is_exact() {
    // Kept bytes: benchmarks of different days must mean the same records.
    let mut buf = Vec::new();
    Generator::new(1).record(&mut buf, 42, 1);
    assert_eq!(String::from_utf8_lossy(&buf), include_str!("fake_contact_42.json").trim_end());
}

#[test]
fn definitions_name_what_was_asked_for() {
    let mut options = DefinitionOptions::new("http://127.0.0.1:1");
    options.connections = vec![("harbor".to_owned(), "file:harbor.token".to_owned())];
    options.webhook_secret = Some("file:hook.secret".to_owned());
    for paging in [Paging::Cursor, Paging::Page, Paging::Offset, Paging::Link] {
        options.paging = paging;
        let text = definition(&options);
        for part in ["paginate:", "verify: {preset: github", "harbor: {credentials", "from_full_list: true"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
