//! A seeded fake provider: a small CRM with contacts, an HTTP API, limits, bad days and webhooks.
//!
//! It is the other end for the demo, the tests and the benchmarks, so it behaves as real providers do: pages shift while
//! they are read, searches are capped, requests fail, webhooks come late, twice, out of order or never. All of it is
//! drawn from one seed and one clock, so a run can be repeated.
//!
//! | file | what |
//! |---|---|
//! | [`generator`] | records from (seed, id, version) |
//! | [`world`] | which contacts exist, and how that changes with time; the truth to compare with |
//! | `server`, `listing` | the API |
//! | `trouble` | limits, failures, slowness |
//! | [`webhooks`] | signed webhooks, sent well or badly |
//! | [`mod@definition`] | a definition file for this provider |
//!
//! It knows nothing of the product it is used with: only its tests and the demo bring both together.

pub mod definition;
pub mod generator;
mod listing;
mod server;
mod trouble;
pub mod webhooks;
pub mod world;

pub use definition::{DefinitionOptions, Paging, definition};
pub use generator::Generator;
pub use webhooks::{ClientCourier, Courier, WebhookOptions};
pub use world::{Deed, Happening, World, WorldOptions};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use syncline_engine::time::Clock;
use tokio::sync::oneshot;

/// Names of the first accounts; more are numbered.
const ACCOUNTS: [&str; 6] = ["harbor", "meadow", "summit", "lantern", "orchard", "cobalt"];

/// Longest time a page is held back, so that a scene nobody ends cannot hang a poller.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How the provider behaves. [`FakeOptions::new`] is a good day: nothing fails, nothing is slow.
#[derive(Clone)]
pub struct FakeOptions {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The provider's own clock.
    pub clock: Arc<dyn Clock>,
    /// Contacts of each account at the start.
    pub records: u64,
    /// Accounts.
    pub connections: usize,
    /// Mean time between changes in each account; `None`: only what [`Fake::edit`] does.
    pub change_every: Option<Duration>,
    /// Changes end after so long.
    pub change_for: Option<Duration>,
    /// A changed contact rests for so long.
    pub cooldown: Duration,
    /// Most records a page.
    pub page_max: usize,
    /// Most records all pages of one search give, whatever `total` says.
    pub search_cap: usize,
    /// Listings by page and offset come newest first, so records move between pages while these are read.
    pub moving: bool,
    /// Records stand in no order inside a page.
    pub shuffle: bool,
    /// Requests per account and span.
    pub rate: Option<(u32, Duration)>,
    /// Share of requests answered 500 or 503.
    pub failing: f64,
    /// Share of requests that take so long.
    pub slow: Option<(f64, Duration)>,
    /// Where and how well webhooks are sent.
    pub webhooks: Option<WebhookOptions>,
}

impl FakeOptions {
    /// A good day with 100 contacts in one account.
    pub fn new(seed: u64, clock: Arc<dyn Clock>) -> Self {
        FakeOptions {
            seed,
            clock,
            records: 100,
            connections: 1,
            change_every: None,
            change_for: None,
            cooldown: Duration::ZERO,
            page_max: 1_000,
            search_cap: 1_000,
            moving: false,
            shuffle: false,
            rate: None,
            failing: 0.0,
            slow: None,
            webhooks: None,
        }
    }
}

/// The running provider; stops when dropped.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What requests, clock and webhooks share.
pub(crate) struct Shared {
    options: FakeOptions,
    accounts: Vec<Account>,
    tally: Tally,
    outbound: webhooks::Outbound,
    hold: Mutex<Option<Hold>>,
}

struct Account {
    name: String,
    token: String,
    world: Mutex<World>,
    budget: Mutex<trouble::Budget>,
}

/// What the provider counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    not_modified: AtomicU64,
    limited: AtomicU64,
    failed: AtomicU64,
    webhooks: AtomicU64,
    late: AtomicU64,
    twice: AtomicU64,
    never: AtomicU64,
    refused: AtomicU64,
}

/// What the provider counted, read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// API requests, of any outcome.
    pub requests: u64,
    /// Answered 304.
    pub not_modified: u64,
    /// Answered 429.
    pub limited: u64,
    /// Answered 5xx on purpose.
    pub failed: u64,
    /// Webhooks posted, repeats included.
    pub webhooks: u64,
    /// Changes whose webhook was sent late.
    pub late: u64,
    /// Changes whose webhook was sent twice.
    pub twice: u64,
    /// Changes without a webhook.
    pub never: u64,
    /// Webhooks that were not answered 2xx.
    pub refused: u64,
}

/// A change somebody makes by hand.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    /// A new contact.
    Create,
    /// A new version of this contact.
    Update(u64),
    /// Takes this contact away.
    Delete(u64),
}

/// How the webhook of an edit by hand is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// As chance has it.
    Chance,
    /// Once, at once.
    Now,
    /// Not at all.
    Never,
}

/// A page that will be held back; see [`Fake::hold_page`].
pub struct HeldPage {
    /// Fires with the held version once a page with the contact has been made and waits.
    pub rendered: oneshot::Receiver<u32>,
    /// Lets the page go; dropping it does the same.
    pub release: oneshot::Sender<()>,
}

struct Hold {
    account: usize,
    id: u64,
    rendered: oneshot::Sender<u32>,
    release: oneshot::Receiver<()>,
}

impl Fake {
    /// Starts the API on a free local port. `courier` sends the webhooks; it is not used without `options.webhooks`.
    pub async fn start(options: FakeOptions, courier: Arc<dyn Courier>) -> std::io::Result<Fake> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options));
        let router = server::router(Arc::clone(&shared));
        let serve = tokio::spawn(async move {
            // Ends only with the listener; a failed accept is retried inside.
            let _ = axum::serve(listener, router).await;
        });
        let post = tokio::spawn(webhooks::run(Arc::clone(&shared), courier));
        Ok(Fake { shared, address, tasks: vec![serve, post] })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Names and tokens of the accounts.
    pub fn accounts(&self) -> Vec<(String, String)> {
        self.shared.accounts.iter().map(|a| (a.name.clone(), a.token.clone())).collect()
    }

    /// The truth of an account, as of now: JSON of every live contact by id.
    pub fn truth(&self, account: usize) -> BTreeMap<String, String> {
        self.shared.turn(account);
        self.shared.world(account).map(|w| w.truth()).unwrap_or_default()
    }

    /// Changes an account by hand.
    pub fn edit(&self, account: usize, edit: Edit, notify: Notify) -> Option<Happening> {
        self.shared.turn(account);
        let at = self.shared.options.clock.now();
        let happening = {
            let mut world = self.shared.world(account)?;
            match edit {
                Edit::Create => Some(world.create(at)),
                Edit::Update(id) => world.update(id, at),
                Edit::Delete(id) => world.delete(id, at),
            }
        }?;
        self.shared.announce(account, happening, notify);
        Some(happening)
    }

    /// Holds back the next listing page of `account` that has contact `id`, after it was made: what it says grows old.
    pub fn hold_page(&self, account: usize, id: u64) -> HeldPage {
        let (rendered, seen) = oneshot::channel();
        let (release, released) = oneshot::channel();
        *lock(&self.shared.hold) = Some(Hold { account, id, rendered, release: released });
        HeldPage { rendered: seen, release }
    }

    /// Nothing happens by itself any more.
    pub fn rest(&self) {
        for account in 0..self.shared.accounts.len() {
            self.shared.turn(account);
            if let Some(mut world) = self.shared.world(account) {
                world.rest();
            }
        }
    }

    /// What the provider counted so far.
    pub fn figures(&self) -> Figures {
        let t = &self.shared.tally;
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Figures {
            requests: read(&t.requests),
            not_modified: read(&t.not_modified),
            limited: read(&t.limited),
            failed: read(&t.failed),
            webhooks: read(&t.webhooks),
            late: read(&t.late),
            twice: read(&t.twice),
            never: read(&t.never),
            refused: read(&t.refused),
        }
    }

    /// Webhooks planned and not yet sent.
    pub fn webhooks_waiting(&self) -> usize {
        self.shared.outbound.waiting()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn new(options: FakeOptions) -> Self {
        let start = options.clock.now();
        let accounts = (0..options.connections.max(1)).map(|n| Account::new(&options, n, start)).collect();
        Shared {
            options,
            accounts,
            tally: Tally::default(),
            outbound: webhooks::Outbound::default(),
            hold: Mutex::new(None),
        }
    }

    fn world(&self, account: usize) -> Option<MutexGuard<'_, World>> {
        self.accounts.get(account).map(|a| lock(&a.world))
    }

    /// Lets happen what is due in this account.
    fn turn(&self, account: usize) {
        let now = self.options.clock.now();
        let happened = self.world(account).map(|mut w| w.advance(now)).unwrap_or_default();
        for happening in happened {
            self.announce(account, happening, Notify::Chance);
        }
    }

    fn announce(&self, account: usize, happening: Happening, notify: Notify) {
        if let Some(options) = &self.options.webhooks {
            let plan = webhooks::plan(self.options.seed, options, account, &happening, notify);
            self.outbound.take(plan, account, happening, &self.tally);
        }
    }

    /// Waits if a scene wants this page held back.
    async fn hold(&self, account: usize, ids: &[u64]) {
        let wanted = {
            let mut hold = lock(&self.hold);
            match hold.as_ref() {
                Some(h) if h.account == account && ids.contains(&h.id) => hold.take(),
                _ => None,
            }
        };
        if let Some(hold) = wanted {
            let version = self.world(account).and_then(|w| w.version(hold.id)).unwrap_or(0);
            // The scene may have ended meanwhile; then nobody waits for this, and the page goes at once.
            let _ = hold.rendered.send(version);
            tokio::select! {
                _ = hold.release => {}
                () = self.options.clock.sleep(HOLD_MAX) => {}
            }
        }
    }
}

impl Account {
    fn new(options: &FakeOptions, number: usize, start: syncline_engine::model::Timestamp) -> Self {
        let name = ACCOUNTS.get(number).map_or_else(|| format!("account-{}", number + 1), |n| (*n).to_owned());
        let world = World::new(WorldOptions {
            seed: account_seed(options.seed, number),
            records: options.records,
            start,
            change_every: options.change_every,
            until: options.change_for.map(|span| start.plus(span)),
            cooldown: options.cooldown,
            ..WorldOptions::still(0, 0, start)
        });
        let token = format!("fake-token-{name}");
        Account { name, token, world: Mutex::new(world), budget: Mutex::new(trouble::Budget::default()) }
    }
}

/// The seed of an account's world.
pub(crate) fn account_seed(seed: u64, account: usize) -> u64 {
    generator::Draw::new(seed ^ (account as u64).wrapping_mul(0xa076_1d64_78bd_642f)).next()
}

/// A lock that outlives a panic elsewhere: what these locks guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
