//! What every preset has to do, whoever the provider is: a first sync reads all pages and waits where it is told to, a second one
//! brings what changed, deletes are found, a signed webhook counts at once and a forged one never.

use super::fake::{Fake, Hook, Item, Provider, Seen, StreamCase, now};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_tests::serving::{Serving, client};
use tempfile::TempDir;

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Items of each stream: two pages.
pub(super) const ITEMS: usize = 6;
const DAY: i64 = 24 * 60 * 60;
/// What proves webhooks.
const SECRET: &str = "secret-of-the-webhooks-of-somebody";
/// A limit lets the next request in after a second or more.
const TOLD_TO_WAIT: Duration = Duration::from_millis(900);

/// A preset at work.
struct Walk {
    fake: Arc<Fake>,
    serving: Serving,
    source: &'static str,
    hooks: usize,
    _folder: TempDir,
}

/// Does all of it.
pub async fn walk(provider: impl Provider) {
    let mut walk = Walk::begin(Box::new(provider)).await;
    let cases = walk.fake.provider.streams();
    for case in &cases {
        walk.first(case).await;
    }
    walk.waited();
    for case in &cases {
        walk.changes(case).await;
    }
    for case in cases.iter().filter(|case| case.hooks[0]) {
        walk.webhooks(case).await;
    }
    let faults = walk.fake.faults.lock().clone();
    assert!(faults.is_empty(), "{faults:#?}");
    walk.serving.stop().await;
}

impl Walk {
    async fn begin(provider: Box<dyn Provider>) -> Walk {
        let (folder, source) = (tempfile::tempdir().expect("a folder"), provider.preset());
        let fake = Fake::start(provider).await;
        let began = now();
        for case in fake.provider.streams() {
            for n in 0..ITEMS {
                let at = began - DAY * (ITEMS - n) as i64;
                fake.world.lock().put(case.stream, &(case.id)(n), &format!("{} {n}", case.stream), at);
            }
        }
        *fake.limits.lock() = true;
        let sources = folder.path().join("sources");
        std::fs::create_dir_all(&sources).expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(sources.join(name), text).expect("written");
        write("token", "token-of-somebody");
        write("hook-secret", SECRET);
        let url = fake.world.lock().url.clone();
        write(&format!("{source}.yaml"), &definition(&fake, &url));
        let serving = Serving::start(folder.path(), &sources).await;
        Walk { fake, serving, source, hooks: 0, _folder: folder }
    }

    async fn settled(&self, case: &StreamCase) {
        let status = self.serving.settled(self.source, "me", case.stream, PATIENCE).await;
        let faults = self.fake.faults.lock().clone();
        assert_eq!(status["status"], "SUCCESS", "{status:#} {faults:#?} {}", self.last_run(case).await);
    }

    /// What the last run said; for messages.
    async fn last_run(&self, case: &StreamCase) -> Value {
        let path = format!("/v1/runs?source={}&stream={}&limit=1", self.source, case.stream);
        let answer = self.serving.get(&path, self.source, "me").send().await.expect("an answer");
        answer.json().await.unwrap_or_default()
    }

    async fn run(&self, case: &StreamCase, full: bool) {
        self.serving.trigger(self.source, "me", case.stream, full).await;
        self.settled(case).await;
    }

    /// The record of an item: its text, or nothing if it is deleted or was never there.
    async fn text(&self, case: &StreamCase, id: &str) -> Option<String> {
        let key = self.fake.provider.key(case.stream, id);
        let rows = self.serving.records(self.source, "me", case.stream).await;
        let row = rows.iter().find(|row| row["id"] == key.as_str())?;
        let live = row["_nango_metadata"]["deleted_at"].is_null();
        live.then(|| row[case.field].as_str().map(str::to_owned).unwrap_or_else(|| panic!("{}: {row}", case.field)))
    }

    /// All pages of the first listing are there.
    async fn first(&self, case: &StreamCase) {
        self.settled(case).await;
        for n in 0..ITEMS {
            let wanted = format!("{} {n}", case.stream);
            assert_eq!(self.text(case, &(case.id)(n)).await, Some(wanted), "{}", self.last_run(case).await);
        }
        let rows = self.serving.records(self.source, "me", case.stream).await;
        assert_eq!(rows.len(), ITEMS, "{rows:#?}");
    }

    /// The page that was refused for a limit was asked for again once it was let in. Another stream may ask the same in between.
    fn waited(&self) {
        let asked = self.fake.asked.lock();
        let refused = asked.iter().position(|one| one.limited).expect("a limit");
        let again = asked[refused + 1..].iter().filter(|one| one.what == asked[refused].what);
        let waits: Vec<Duration> = again.map(|one| one.at - asked[refused].at).collect();
        assert!(waits.iter().any(|waited| *waited >= TOLD_TO_WAIT), "{waits:?}");
    }

    /// A later run brings an update and a delete; where the provider can be asked for changes, little else is read.
    async fn changes(&self, case: &StreamCase) {
        let (changed, removed) = ((case.id)(0), (case.id)(ITEMS - 1));
        self.fake.world.lock().handed();
        self.fake.world.lock().put(case.stream, &changed, "changed", now());
        if case.deletes != Seen::Never {
            self.fake.world.lock().remove(case.stream, &removed, now());
        }
        self.run(case, false).await;
        let handed = self.fake.world.lock().handed();
        // What a stream is divided by is listed each time.
        let most = ITEMS + self.fake.provider.partitions(case.stream);
        assert!(!case.incremental || handed < most, "{}: {handed} items", case.stream);
        assert_eq!(self.text(case, &changed).await.as_deref(), Some("changed"), "{}", self.last_run(case).await);
        if case.deletes == Seen::List {
            self.run(case, true).await;
        }
        let left = self.text(case, &removed).await;
        assert_eq!(
            left.is_none(),
            case.deletes != Seen::Never,
            "{}: {left:?} {}",
            case.stream,
            self.last_run(case).await
        );
        let kept = self.text(case, &(case.id)(3)).await;
        assert_eq!(kept, Some(format!("{} 3", case.stream)), "what did not change stays");
    }

    /// A signed webhook counts at once, a forged one is refused.
    async fn webhooks(&mut self, case: &StreamCase) {
        let (changed, removed) = ((case.id)(1), (case.id)(2));
        let item = self.fake.world.lock().put(case.stream, &changed, "by webhook", now());
        assert_eq!(self.post(case, &item, "another secret").await, 401, "{}", case.stream);
        assert_eq!(self.text(case, &changed).await, Some(format!("{} 1", case.stream)), "a forged webhook");
        assert_eq!(self.post(case, &item, SECRET).await, 200, "{}", case.stream);
        self.until(case, &changed, Some("by webhook")).await;
        if case.hooks[1] {
            let item = self.fake.world.lock().remove(case.stream, &removed, now());
            assert_eq!(self.post(case, &item, SECRET).await, 200, "{}", case.stream);
            self.until(case, &removed, None).await;
        }
    }

    async fn until(&self, case: &StreamCase, id: &str, wanted: Option<&str>) {
        let began = Instant::now();
        loop {
            let text = self.text(case, id).await;
            if text.as_deref() == wanted {
                return;
            }
            let waited = began.elapsed();
            assert!(waited < PATIENCE, "{} {id}: {text:?} and not {wanted:?} {:#?}", case.stream, self.kept().await);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What could not be taken; for messages.
    async fn kept(&self) -> (Value, Vec<String>) {
        let answer = self.serving.get("/v1/quarantine", self.source, "me").send().await.expect("an answer");
        (answer.json().await.unwrap_or_default(), self.fake.faults.lock().clone())
    }

    /// Posts what the provider would post about an item; the status of the answer.
    async fn post(&mut self, case: &StreamCase, item: &Item, secret: &str) -> u16 {
        self.hooks += 1;
        let provider = &self.fake.provider;
        let hook = self.serving.app().hooks.hook_urls(Some(self.source)).remove(0);
        let (body, headers) = provider.hook(&Hook { stream: case.stream, item: item.clone(), number: self.hooks });
        let proof = provider.sign(&hook.url, &body, secret);
        let request = client().post(&hook.url).header("content-type", "application/json").body(body);
        let request =
            headers.into_iter().chain(proof).fold(request, |request, (name, value)| request.header(name, value));
        request.send().await.expect("an answer").status().as_u16()
    }
}

/// The definition that a person would write, but for where the provider is and how long a failure is waited for.
fn definition(fake: &Fake, url: &str) -> String {
    let provider = &fake.provider;
    let (preset, credentials, more) = (provider.preset(), provider.credentials(), provider.more());
    let schedule: Vec<String> = provider.streams().iter().map(|case| format!("{}: 12h", case.stream)).collect();
    let secret =
        if provider.streams().iter().any(|case| case.hooks[0]) { ", webhook_secret: \"file:hook-secret\"" } else { "" };
    format!(
        "source: {preset}\npreset: {preset}\nbase_url: {url}\nlimits: {{retry: {{backoff: 50ms..10m}}}}\n{more}connections:\n  \
         me: {{{credentials}{secret}, schedule: {{{}}}}}\n",
        schedule.join(", ")
    )
}
