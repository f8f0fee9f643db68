//! Actions in TypeScript, called over REST, against a fake of their provider.

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use syncline_tests::orders::Shop;
use syncline_tests::serving::{KEY, Serving, client};

const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Orders something, and does what its input asks for instead.
const ORDER: &str = r#"
import { createAction } from 'nango';
import { z } from 'zod';

const Input = z.object({
    item: z.string().min(1),
    retries: z.number().optional(),
    wrong: z.enum(['output', 'throw', 'refused', 'secret']).optional()
});

export default createAction({
    description: 'Orders something',
    input: Input,
    output: z.object({ id: z.string(), item: z.string() }),

    exec: async (nango, input) => {
        await nango.log('ordering', input.item);
        if (input.wrong === 'throw') {
            throw new Error('nobody wants this');
        }
        if (input.wrong === 'refused') {
            throw new nango.ActionError({ type: 'no_stock', message: 'there is none', item: input.item });
        }
        const { data } = await nango.post<{ id: number; item: string; owner: string }>({
            endpoint: '/orders?note=private',
            data: { item: input.item },
            retries: input.retries ?? 0
        });
        if (input.wrong === 'output') {
            return { id: data.id } as any;
        }
        return { id: String(data.id), item: input.wrong === 'secret' ? data.owner : data.item };
    }
});
"#;

/// Calls itself as often as its input says.
const DEEP: &str = r#"
import { createAction } from 'nango';
import { z } from 'zod';

export default createAction({
    input: z.object({ more: z.number() }),
    output: z.number(),
    exec: async (nango, { more }) => (more === 0 ? 1 : 1 + (await nango.triggerAction<number>('shop', 'acme', 'deep', { more: more - 1 })))
});
"#;

/// Looks at what another action throws, takes locks, and begins a sync.
const SPECIAL: &str = r#"
import { createAction } from 'nango';
import { z } from 'zod';

export default createAction({
    input: z.object({ what: z.string() }),
    output: z.any(),
    exec: async (nango, { what }) => {
        if (what === 'caught') {
            return await nango.triggerAction('shop', 'acme', 'order', { item: 'a', wrong: 'refused' }).catch((error: any) => error.payload);
        }
        if (what === 'lock') {
            return await nango.tryAcquireLock({ key: 'one', ttlMs: 60_000 });
        }
        if (what === 'locks') {
            const own = await nango.tryAcquireLock({ key: 'one', ttlMs: 60_000 });
            const other = await nango.triggerAction('shop', 'acme', 'special', { what: 'lock' });
            const released = await nango.releaseLock({ key: 'one' });
            const later = await nango.triggerAction('shop', 'acme', 'special', { what: 'lock' });
            return { own, other, released, later, again: await nango.tryAcquireLock({ key: 'one', ttlMs: 60_000 }) };
        }
        await nango.triggerSync('shop', 'acme', 'orders', true);
        return null;
    }
});
"#;

/// What was ordered, as records.
const ORDERS: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

export default createSync({
    frequency: 'every hour',
    models: { Order: z.object({ id: z.string(), item: z.string() }) },
    exec: async (nango) => {
        for (let turn = 0; turn < 5; turn += 1) {
            const { data } = await nango.get<{ orders: { id: number; item: string }[] }>({ endpoint: '/orders' });
            await nango.batchSave(data.orders.map(({ id, item }) => ({ id: String(id), item })), 'Order');
        }
    }
});
"#;

const FUNCTIONS: [(&str, &str); 4] = [
    ("actions/order.ts", ORDER),
    ("actions/deep.ts", DEEP),
    ("actions/special.ts", SPECIAL),
    ("syncs/orders.ts", ORDERS),
];

async fn serve(folder: &Path) -> Serving {
    let more = json!({"functions": {"path": folder.join("functions"), "in_process": true}});
    Serving::start_with(folder, &folder.join("sources"), more).await
}

/// An answer: its status, its headers by name, its body.
struct Told {
    status: StatusCode,
    location: Option<String>,
    body: Value,
}

impl Told {
    async fn of(request: RequestBuilder) -> Told {
        let response = request.bearer_auth(KEY).send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let location = headers.get("location").map(|value| value.to_str().expect("text").to_owned());
        let body = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        Told { status, location, body }
    }

    /// The code of a refusal, and what it says.
    fn refused(&self, status: u16) -> (&str, &str) {
        assert_eq!(self.status, status, "{}", self.body);
        let text = |name: &str| self.body["error"][name].as_str().unwrap_or_default();
        (text("code"), text("message"))
    }

    fn output(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

/// Calls actions of the connection `acme` of the shop.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) url: String,
    client: Client,
}

impl Caller {
    fn of(url: &str) -> Caller {
        Caller { url: url.to_owned(), client: client() }
    }

    async fn call(&self, action: &str, input: Value) -> Told {
        Told::of(self.request("acme", action, input)).await
    }

    fn request(&self, connection: &str, action: &str, input: Value) -> RequestBuilder {
        let body = json!({"action_name": action, "input": input});
        let request = self.client.post(format!("{}/action/trigger", self.url)).json(&body);
        request.header("provider-config-key", "shop").header("connection-id", connection)
    }

    /// The id of a call that nobody waits for.
    async fn later(&self, action: &str, input: Value, retries: u32) -> String {
        let request = self.request("acme", action, input).header("x-async", "true");
        let told = Told::of(request.header("x-max-retries", retries.to_string())).await;
        assert_eq!(told.status, 202, "{}", told.body);
        let id = told.body["id"].as_str().expect("an id").to_owned();
        assert_eq!(told.body["statusUrl"], format!("/action/{id}"));
        assert_eq!(told.location, Some(format!("/action/{id}")));
        id
    }

    async fn result(&self, id: &str) -> Told {
        Told::of(self.client.get(format!("{}/action/{id}", self.url))).await
    }

    /// How a call ended.
    async fn ended(&self, id: &str) -> Told {
        let began = Instant::now();
        loop {
            let told = self.result(id).await;
            if told.status != 404 {
                return told;
            }
            assert!(began.elapsed() < LIMIT, "{}", told.body);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_answers_its_output_or_says_why_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, "", &FUNCTIONS);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);

    let output = caller.call("order", json!({"item": "tea"})).await.output();
    assert_eq!(output, json!({"id": "1", "item": "tea"}));
    let secret = caller.call("order", json!({"item": "tea", "wrong": "secret"})).await.output();
    assert!(!secret.to_string().contains("nobody-may-see"), "{secret}");

    let told = caller.call("order", json!({"item": ""})).await;
    let (code, message) = told.refused(400);
    assert_eq!(code, "invalid_action_input", "{message}");
    assert!(message.contains("item: "), "{message}");
    assert_eq!(shop.seen.lock().orders, 2, "nothing was ordered");

    let told = caller.call("order", json!({"item": "tea", "wrong": "output"})).await;
    let (code, message) = told.refused(424);
    assert_eq!(code, "invalid_action_output", "{message}");
    assert!(message.contains("item: ") && message.contains("has happened"), "{message}");
    assert_eq!(shop.seen.lock().orders, 3);

    let told = caller.call("order", json!({"item": "tea", "wrong": "refused"})).await;
    assert_eq!(told.refused(424).0, "action_script_runtime_error");
    assert_eq!(told.body["error"]["payload"], json!({"type": "no_stock", "message": "there is none", "item": "tea"}));

    let told = caller.call("order", json!({"item": "tea", "wrong": "throw"})).await;
    let (code, message) = told.refused(424);
    assert_eq!(code, "script_error");
    assert!(message.starts_with("shop/actions/order.ts:19:23 Error: nobody wants this"), "{message}");

    *shop.refuses.lock() = Some((402, json!({"reason": "no money", "seen": "a-token-that-nobody-may-see"})));
    let told = caller.call("order", json!({"item": "tea"})).await;
    let (code, message) = told.refused(424);
    assert_eq!(code, "script_http_error");
    assert!(message.contains("the provider answered 402") && message.contains("order.ts:"), "{message}");
    assert_eq!(told.body["error"]["payload"]["reason"], "no money");
    assert!(!told.body.to_string().contains("nobody-may-see"), "{}", told.body);

    let told = caller.call("pay", json!({})).await;
    assert_eq!(told.refused(404), ("unknown_action", "there is no action `pay`; `shop` has deep, order, special"));
    let told = Told::of(caller.request("nobody", "order", json!({"item": "tea"}))).await;
    assert_eq!(told.refused(400).0, "unknown_connection");
    let told = Told::of(caller.request("acme", "order", json!({})).header("x-max-retries", "6")).await;
    assert_eq!(told.refused(400).0, "invalid_headers");
    assert_eq!(shop.seen.lock().strangers, 0, "all were signed in");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_not_repeated_when_its_answer_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    let more = "limits: {timeout: 1s, retry: {max: 3, backoff: 10ms..20ms}}\n";
    Shop::lay_out(folder.path(), &url, more, &FUNCTIONS);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    *shop.pause.lock() = Duration::from_secs(3);
    assert_eq!(caller.call("order", json!({"item": "tea"})).await.status, 424);
    assert_eq!(shop.seen.lock().orders, 1);
    *shop.pause.lock() = Duration::ZERO;
    *shop.refuses.lock() = Some((503, json!({})));
    assert_eq!(caller.call("order", json!({"item": "tea"})).await.status, 424);
    assert_eq!(shop.seen.lock().orders, 2, "not for a status either");
    *shop.refuses.lock() = Some((503, json!({})));
    let output = caller.call("order", json!({"item": "tea", "retries": 1})).await.output();
    assert_eq!(output["item"], "tea");
    assert_eq!(shop.seen.lock().orders, 4, "the code has asked for it");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_call_nobody_waits_for_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, "", &FUNCTIONS);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    *shop.pause.lock() = Duration::from_millis(400);
    let first = caller.later("order", json!({"item": "tea"}), 0).await;
    assert_eq!(caller.result(&first).await.refused(404).0, "not_found", "it has not ended");
    assert_eq!(caller.ended(&first).await.output(), json!({"id": "1", "item": "tea"}));
    *shop.pause.lock() = Duration::ZERO;

    *shop.refuses.lock() = Some((500, json!({"reason": "bad day"})));
    let failed = caller.later("order", json!({"item": "tea"}), 0).await;
    let told = caller.ended(&failed).await;
    assert_eq!(told.refused(424).0, "script_http_error");
    assert_eq!(told.body["error"]["payload"]["reason"], "bad day");
    *shop.refuses.lock() = Some((500, json!({})));
    let repeated = caller.later("order", json!({"item": "milk"}), 2).await;
    assert_eq!(caller.ended(&repeated).await.output()["item"], "milk", "again, as was asked for");
    let wrong = caller.later("order", json!({}), 5).await;
    assert_eq!(caller.ended(&wrong).await.refused(400).0, "invalid_action_input", "at once");
    assert_eq!(shop.seen.lock().orders, 4);

    let unknown = caller.result("act_00000123456789abcdef0123456789abcdef").await;
    assert_eq!(unknown.refused(404).0, "not_found");
    server.stop().await;

    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    assert_eq!(caller.result(&first).await.output(), json!({"id": "1", "item": "tea"}));
    let told = caller.result(&failed).await;
    assert_eq!(
        (told.refused(424).0, &told.body["error"]["payload"]["reason"]),
        ("script_http_error", &json!("bad day"))
    );
    assert_eq!(shop.seen.lock().orders, 4, "nothing was done again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_call_actions_four_deep_take_locks_and_begin_syncs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, "", &FUNCTIONS);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    assert_eq!(caller.call("deep", json!({"more": 3})).await.output(), 4);
    let told = caller.call("deep", json!({"more": 4})).await;
    let (code, message) = told.refused(424);
    assert_eq!(code, "script_error");
    assert!(message.contains("actions nest at most 4 deep"), "{message}");

    let payload = caller.call("special", json!({"what": "caught"})).await.output();
    assert_eq!(payload, json!({"type": "no_stock", "message": "there is none", "item": "a"}));
    let locks = caller.call("special", json!({"what": "locks"})).await.output();
    let expected = json!({"own": true, "other": false, "released": true, "later": true, "again": true});
    assert_eq!(locks, expected, "an action that has ended holds none");

    server.settled("shop", "acme", "orders", LIMIT).await;
    shop.orders.lock().push(json!({"item": "new"}));
    caller.call("special", json!({"what": "sync"})).await.output();
    let changes = server.changes_of(["shop", "acme", "Order"], 1, LIMIT).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_runs_eight_actions_at_one_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, "limits: {concurrency: 64}\n", &FUNCTIONS[..1]);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    *shop.pause.lock() = Duration::from_millis(500);
    let calls = (0..12).map(|_| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call("order", json!({"item": "tea"})).await.output() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("it was answered");
    }
    let seen = *shop.seen.lock();
    assert_eq!((seen.orders, seen.most_open), (12, 8), "those that waited followed");
    server.stop().await;
}

/// A source with a stream that is polled beside its functions.
const POLLED: &str = r#"
limits: {concurrency: 2}
streams:
  - name: Listed
    sync: listed
    key: .id
    schedule: {every: 15s}
    list: {get: /listed, items: .orders}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn polls_syncs_and_actions_of_a_connection_have_one_budget() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    (*shop.pause.lock(), *shop.list_pause.lock()) = (Duration::from_millis(60), Duration::from_millis(60));
    Shop::lay_out(folder.path(), &url, POLLED, &FUNCTIONS);
    let server = serve(folder.path()).await;
    let caller = Caller::of(&server.url);
    let calls = (0..8).map(|n| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call("order", json!({"item": format!("{n}")})).await.output() })
    });
    let calls: Vec<_> = calls.collect();
    for _ in 0..3 {
        server.trigger("shop", "acme", "listed", false).await;
        server.trigger("shop", "acme", "orders", false).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for call in calls {
        call.await.expect("it was answered");
    }
    for sync in ["listed", "orders"] {
        assert_eq!(server.settled("shop", "acme", sync, LIMIT).await["status"], "SUCCESS");
    }
    let seen = *shop.seen.lock();
    assert_eq!((seen.orders, seen.most_open, seen.strangers), (8, 2, 0), "{seen:?}");
    server.stop().await;
}

/// `syncline serve` with functions in worker processes.
pub(super) struct Program {
    child: Child,
    pub(super) caller: Caller,
}

impl Program {
    pub(super) fn start(folder: &Path) -> Program {
        let settings = json!({
            "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
            "functions": {"path": folder.join("functions")},
            "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
            "encryption": "off", "workers": 1, "egress": {"allow_http": true, "allow": ["127.0.0.0/8"]},
        });
        std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
        command.arg("serve").current_dir(folder).env("TEST_KEY", KEY).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let url =
            lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, caller: Caller::of(&url.expect("it listens")) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL, by its id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cut_off_is_not_done_a_second_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, "limits: {concurrency: 64}\n", &FUNCTIONS[..1]);
    *shop.pause.lock() = Duration::from_secs(30);
    let program = Program::start(folder.path());
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(program.caller.later("order", json!({"item": format!("{n}")}), 5).await);
    }
    let began = Instant::now();
    while shop.seen.lock().orders < 6 {
        assert!(began.elapsed() < LIMIT, "{:?}", shop.seen.lock());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    assert_eq!(shop.seen.lock().orders, 6, "the seventh waits for a place");
    drop(program);

    *shop.pause.lock() = Duration::ZERO;
    let program = Program::start(folder.path());
    let last = ids.pop().expect("seven");
    for id in &ids {
        let told = program.caller.ended(id).await;
        assert_eq!(told.refused(424).0, "unknown_outcome", "{}", told.body);
    }
    assert_eq!(program.caller.ended(&last).await.output(), json!({"id": "7", "item": "6"}));
    assert_eq!(shop.orders.lock().len(), 7, "each once");
    drop(program);
    let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    let wrote: Vec<&str> = log.lines().filter(|line| line.contains("an action wrote")).collect();
    assert_eq!(wrote.len(), 1, "{log}");
    for part in ["order", "POST", "/orders", "201", "acme"] {
        assert!(wrote[0].contains(part), "{part}: {}", wrote[0]);
    }
    assert!(!log.contains("private"), "what stands in a query is not logged");
    assert!(log.contains("ordering 6"), "{log}");
}
