//! Webhooks of the fake provider: signed as real ones are, sent in time, late, twice, out of order or never.
//!
//! Promises: the seed decides the fate of every change's webhook ([`plan`] is pure); a body carries the contact as it was
//! at that change, however late it is sent. The sending itself is a [`Courier`]'s.

use super::generator::{Draw, Generator};
use super::{Deed, Happening, Notify, Shared, Tally, account_seed, lock};
use crate::http::{Client, HeaderMap, HeaderName, HeaderValue, Outgoing, Url};
use async_trait::async_trait;
use base64::Engine as _;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::model::Timestamp;
use tokio::sync::{Notify as Bell, Semaphore};

/// Planned webhooks kept at most; beyond, they count as never sent, as they would at an overloaded provider.
const WAITING_MAX: usize = 100_000;
/// Posts in flight.
const IN_FLIGHT_MAX: usize = 16;
/// For the answer to a post.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Read of that answer.
const ANSWER_MAX: u64 = 64 * 1024;
/// The world is looked at as often as this even if nothing seems due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes one attempt to post; gives the status.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// One POST.
    async fn post(&self, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<u16, String>;
}

/// Posts through the one way out, as any other request.
#[derive(Clone)]
pub struct ClientCourier(pub Client);

#[async_trait]
impl Courier for ClientCourier {
    async fn post(&self, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<u16, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|e| e.to_string())?;
            map.insert(name, HeaderValue::try_from(value.as_str()).map_err(|e| e.to_string())?);
        }
        let request = Outgoing {
            method: http::Method::POST,
            url: Url::parse(url).map_err(|e| e.to_string())?,
            headers: map,
            body: Some(body.into()),
            timeout: POST_TIMEOUT,
            max_response: ANSWER_MAX,
            follow: false,
            veil: Default::default(),
        };
        self.0.send(request).await.map(|answer| answer.status).map_err(|e| e.to_string())
    }
}

/// For providers that send no webhooks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCourier;

#[async_trait]
impl Courier for NoCourier {
    async fn post(&self, _: &str, _: &[(String, String)], _: Vec<u8>) -> Result<u16, String> {
        Err("this provider sends no webhooks".to_owned())
    }
}

/// How a webhook is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// `X-Hub-Signature-256: sha256=` over the body, `X-GitHub-Delivery`, `X-GitHub-Event`.
    Github,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,` over all three.
    Standard,
}

/// Where webhooks go and how well they travel.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The hook.
    pub url: String,
    /// Text for [`Signing::Github`], `whsec_` and base64 for [`Signing::Standard`].
    pub secret: String,
    /// How they are signed.
    pub signing: Signing,
    /// A webhook in time comes at most so much after the change.
    pub prompt: Duration,
    /// Share of changes whose webhook comes late.
    pub late: f64,
    /// How late at most; at least half of it.
    pub late_by: Duration,
    /// Share sent twice.
    pub twice: f64,
    /// Share never sent.
    pub never: f64,
}

impl WebhookOptions {
    /// All in time, once, GitHub's signature.
    pub fn prompt(url: &str, secret: &str) -> Self {
        WebhookOptions {
            url: url.to_owned(),
            secret: secret.to_owned(),
            signing: Signing::Github,
            prompt: Duration::from_millis(50),
            late: 0.0,
            late_by: Duration::from_secs(3),
            twice: 0.0,
            never: 0.0,
        }
    }
}

/// When the webhook of one change is sent, counted from the change; empty: never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Delays, one per post.
    pub after: Vec<Duration>,
    /// Whether it is sent late on purpose.
    pub late: bool,
}

/// The fate of the webhook of `happening`: decided by the seed alone.
pub fn plan(seed: u64, options: &WebhookOptions, account: usize, happening: &Happening, notify: Notify) -> Plan {
    match notify {
        Notify::Never => return Plan { after: Vec::new(), late: false },
        Notify::Now => return Plan { after: vec![Duration::ZERO], late: false },
        Notify::Chance => {}
    }
    // The contact and its version, not the running number: a scene played by hand must not change the fate of the rest.
    let place =
        happening.id.rotate_left(20) ^ u64::from(happening.version) ^ u64::from(happening.deed == Deed::Deleted) << 50;
    let mut draw = Draw::new(account_seed(seed, account) ^ 0x0a3b_77f1 ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if draw.chance(options.never) {
        return Plan { after: Vec::new(), late: false };
    }
    let late = draw.chance(options.late);
    let twice = draw.chance(options.twice);
    let part = |draw: &mut Draw, span: Duration| span.mul_f64(draw.below(1_000) as f64 / 1_000.0);
    let first = match late {
        true => options.late_by / 2 + part(&mut draw, options.late_by / 2),
        false => part(&mut draw, options.prompt),
    };
    let second = twice.then(|| first + options.prompt + part(&mut draw, options.prompt));
    Plan { after: std::iter::once(first).chain(second).collect(), late }
}

/// A signed request: headers and body.
pub type Signed = (Vec<(String, String)>, Vec<u8>);

/// The webhook of `happening` as it is sent at `now`. The delivery id is the same for every repeat.
pub fn request(
    options: &WebhookOptions,
    seed: u64,
    account: (usize, &str),
    happening: &Happening,
    now: Timestamp,
) -> Signed {
    let kind = match happening.deed {
        Deed::Created => "contact.created",
        Deed::Updated => "contact.updated",
        Deed::Deleted => "contact.deleted",
    };
    let id = format!("evt-{}-{}-{}-{}", account.1, happening.id, happening.version, happening.deed as u8);
    let mut body = Vec::with_capacity(800);
    body.extend_from_slice(
        format!(
            "{{\"event\":\"{kind}\",\"account\":\"{}\",\"occurred_at\":\"{}\",\"contact\":",
            account.1, happening.at
        )
        .as_bytes(),
    );
    match happening.deed {
        Deed::Deleted => body.extend_from_slice(format!("{{\"id\":\"{}\"}}", happening.id).as_bytes()),
        _ => Generator::new(account_seed(seed, account.0)).record_at(
            &mut body,
            happening.id,
            happening.version,
            happening.at,
        ),
    }
    body.push(b'}');
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    headers.extend(match options.signing {
        Signing::Github => github(&options.secret, kind, &id, &body),
        Signing::Standard => standard(&options.secret, &id, now, &body),
    });
    (headers, body)
}

fn github(secret: &str, kind: &str, id: &str, body: &[u8]) -> Vec<(String, String)> {
    vec![
        ("x-github-event".to_owned(), kind.to_owned()),
        ("x-github-delivery".to_owned(), id.to_owned()),
        ("x-hub-signature-256".to_owned(), format!("sha256={}", hex::encode(sign(secret.as_bytes(), &[body])))),
    ]
}

fn standard(secret: &str, id: &str, now: Timestamp, body: &[u8]) -> Vec<(String, String)> {
    let base64 = base64::engine::general_purpose::STANDARD;
    // A secret that is no base64 signs as text: the receiver will refuse it, which is what a wrong secret is for.
    let key =
        secret.strip_prefix("whsec_").and_then(|s| base64.decode(s).ok()).unwrap_or_else(|| secret.as_bytes().to_vec());
    let stamp = now.seconds().to_string();
    let signature = sign(&key, &[id.as_bytes(), b".", stamp.as_bytes(), b".", body]);
    vec![
        ("webhook-id".to_owned(), id.to_owned()),
        ("webhook-timestamp".to_owned(), stamp),
        ("webhook-signature".to_owned(), format!("v1,{}", base64.encode(signature))),
    ]
}

fn sign(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length, so the fallback is never used.
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Planned webhooks by the time they are due.
#[derive(Default)]
pub(super) struct Outbound {
    due: Mutex<BTreeMap<(Timestamp, u64), (usize, Happening)>>,
    sequence: AtomicUsize,
    in_flight: AtomicUsize,
    bell: Bell,
}

impl Outbound {
    /// Takes a planned webhook on.
    pub(super) fn take(&self, plan: Plan, account: usize, happening: Happening, tally: &Tally) {
        let mut due = lock(&self.due);
        if plan.after.is_empty() || due.len() + plan.after.len() > WAITING_MAX {
            tally.never.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tally.late.fetch_add(u64::from(plan.late), Ordering::Relaxed);
        tally.twice.fetch_add(u64::from(plan.after.len() > 1), Ordering::Relaxed);
        for after in plan.after {
            let number = self.sequence.fetch_add(1, Ordering::Relaxed) as u64;
            due.insert((happening.at.plus(after), number), (account, happening));
        }
        drop(due);
        self.bell.notify_one();
    }

    /// Planned or in flight.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.due).len() + self.in_flight.load(Ordering::Relaxed)
    }

    fn pop(&self, now: Timestamp) -> Option<(usize, Happening)> {
        let mut due = lock(&self.due);
        let first = due.first_entry().filter(|e| e.key().0 <= now)?;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(first.remove())
    }

    fn next(&self) -> Option<Timestamp> {
        lock(&self.due).first_key_value().map(|((at, _), _)| *at)
    }
}

/// Turns the worlds and sends what is due, for as long as the provider lives.
pub(super) async fn run(shared: Arc<Shared>, courier: Arc<dyn Courier>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let clock = Arc::clone(&shared.options.clock);
    loop {
        let changes = (0..shared.accounts.len()).filter_map(|n| shared.world(n).and_then(|w| w.next_at())).min();
        let wake =
            changes.into_iter().chain(shared.outbound.next()).min().unwrap_or_else(|| clock.now().plus(LOOK_EVERY));
        tokio::select! {
            () = clock.sleep_until(wake) => {}
            () = shared.outbound.bell.notified() => {}
        }
        for account in 0..shared.accounts.len() {
            shared.turn(account);
        }
        while let Some((account, happening)) = shared.outbound.pop(clock.now()) {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let (shared, courier) = (Arc::clone(&shared), Arc::clone(&courier));
            tokio::spawn(async move {
                post(&shared, &*courier, account, &happening).await;
                shared.outbound.in_flight.fetch_sub(1, Ordering::Relaxed);
                drop(slot);
            });
        }
    }
}

async fn post(shared: &Shared, courier: &dyn Courier, account: usize, happening: &Happening) {
    let (Some(options), Some(owner)) = (&shared.options.webhooks, shared.accounts.get(account)) else { return };
    let now = shared.options.clock.now();
    let (headers, body) = request(options, shared.options.seed, (account, &owner.name), happening, now);
    shared.tally.webhooks.fetch_add(1, Ordering::Relaxed);
    let answered = courier.post(&options.url, &headers, body).await;
    if !answered.is_ok_and(|status| (200..300).contains(&status)) {
        // Providers of this kind do not try again; the poller is there to notice.
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
    }
}
