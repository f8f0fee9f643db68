//! Functions in TypeScript over several processes: each is executed by one of them at a time, another goes on at its checkpoint
//! when that one is killed, and functions call those of connections that are elsewhere.

use super::*;
use axum::Json;
use axum::extract::{Query, State};
use axum::routing::post;
use std::collections::HashMap;

/// Pages of each connection's items, and items of a page.
const PAGES: u64 = 60;
const ITEMS: u64 = 10;
/// Steps that are on their way at one time, and the page after the last checkpoint.
const AHEAD: u64 = 6;
/// Events of each connection.
const EVENTS: u64 = 24;

const FUNCTION_SOURCE: &str = r#"
source: crm
base_url: http://127.0.0.1:9
auth: {type: none}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  events: .[]
  route: .portal
  type: .kind
  dedupe: .eventId
connections:
"#;

const ITEMS_TS: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

export default createSync({
    frequency: 'every 12h',
    autoStart: false,
    models: { Item: z.object({ id: z.string(), n: z.number() }) },
    checkpoint: z.object({ page: z.number() }),
    exec: async (nango) => {
        const from = (await nango.getCheckpoint())?.page ?? 0;
        const run = String(Math.random());
        for (let page = from; ; page += 1) {
            const params = { page: String(page), from: String(from), run };
            const { data } = await nango.get<{ items: { id: string; n: number }[]; more: boolean }>({ endpoint: '/items', params });
            await nango.batchSave(data.items, 'Item');
            if (!data.more) {
                return nango.clearCheckpoint();
            }
            await nango.saveCheckpoint({ page: page + 1 });
        }
    }
});
"#;

/// Counts the events of a record, and looks at its count before.
const COUNT_TS: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

export default createSync({
    models: { Contact: z.object({ id: z.string(), n: z.number() }) },
    webhookSubscriptions: ['whole'],
    onWebhook: async (nango, event: any) => {
        const { id, n: sent } = event.record;
        const known = await nango.getRecordsByIds<string, { id: string; n: number }>([id], 'Contact');
        const n = (known.get(id)?.n ?? 0) + 1;
        await nango.get({ endpoint: '/events', params: { sent: String(sent) } });
        await nango.batchSave([{ id, n }], 'Contact');
    }
});
"#;

const ORDER_TS: &str = r#"
import { createAction } from 'nango';
import { z } from 'zod';

export default createAction({
    input: z.object({ key: z.string() }),
    output: z.object({ key: z.string(), by: z.string() }),
    exec: async (nango, { key }) => {
        if (key === 'refused') {
            throw new nango.ActionError({ type: 'no_stock', by: nango.connectionId });
        }
        await nango.post({ endpoint: '/orders', data: { key } });
        return { key, by: nango.connectionId };
    }
});
"#;

/// Asks something of another connection.
const RELAY_TS: &str = r#"
import { createAction } from 'nango';
import { z } from 'zod';

export default createAction({
    input: z.object({ what: z.string(), to: z.string(), key: z.string().optional() }),
    output: z.any(),
    exec: async (nango, { what, to, key }) => {
        switch (what) {
            case 'order':
                return await nango.triggerAction('crm', to, 'order', { key });
            case 'caught':
                return await nango.triggerAction('crm', to, 'order', { key: 'refused' }).catch((error: any) => error.payload);
            case 'deep':
                return await nango.triggerAction('crm', to, 'relay', { what, to: nango.connectionId });
            case 'missing':
                return await nango.triggerAction('crm', to, 'nothing', {});
            case 'about': {
                const { connection_id, metadata } = await nango.getConnection('crm', to);
                return { connection_id, metadata };
            }
            case 'request':
                return (await nango.get({ endpoint: '/events', connectionId: to } as any)).status;
            case 'sync':
                return (await nango.triggerSync('crm', to, 'items')) ?? null;
            default:
                return (await nango.triggerSync('crm', undefined as any, 'items')) ?? null;
        }
    }
});
"#;

#[test]
fn one_process_executes_a_sync_and_another_goes_on_at_its_checkpoint() {
    run(async {
        let (provider, installation) = set_up("checkpoint", &[("syncs/items", ITEMS_TS)]).await;
        let mut processes: Vec<Process> = (0..3).map(|n| installation.start(n)).collect();
        for process in &processes {
            process.asker().owns_partitions().await;
        }
        let start = json!({"syncs": ["items"], "provider_config_key": "crm"});
        let (status, answer) = processes[2].asker().tell_settled("/sync/start", &start).await;
        assert_eq!(status, 200, "{answer}");
        provider.all_reached(5, &processes[0]).await;
        processes[0].kill();
        for connection in 0..CONNECTIONS {
            let wanted = (0..PAGES * ITEMS).map(|n| (n.to_string(), json!(n))).collect();
            let asker = processes[1 + connection as usize % 2].asker();
            let rows = asker.records_until(connection, "Item", &wanted).await;
            assert!(rows == wanted, "connection {connection}: {} rows\n{}", rows.len(), processes[1].said());
            let added: BTreeSet<String> = asker.added(connection, "Item").await;
            assert_eq!(added.len() as u64, PAGES * ITEMS);
        }
        provider.each_execution_went_on().await;
    });
}

#[test]
fn an_event_has_its_effect_once_whoever_takes_it_and_whoever_is_killed() {
    run(async {
        let (provider, installation) = set_up("hooks", &[]).await;
        let mut processes: Vec<Process> = (0..2).map(|n| installation.start(n)).collect();
        for process in &processes {
            process.asker().owns_partitions().await;
        }
        for n in 1..=EVENTS {
            if n == EVENTS / 3 || n == EVENTS * 2 / 3 {
                let victim = usize::from(n > EVENTS / 2);
                processes[victim].kill();
                // The other takes all meanwhile.
                for connection in 0..CONNECTIONS {
                    processes[1 - victim].asker().post_until_taken(connection, "a", n).await;
                }
                processes[victim] = installation.start(victim);
                continue;
            }
            for connection in 0..CONNECTIONS {
                let asker = processes[(n + connection) as usize % 2].asker();
                asker.post_until_taken(connection, "a", n).await;
            }
        }
        let asker = processes[0].asker();
        let counted = BTreeMap::from([("a".to_owned(), EVENTS)]);
        for connection in 0..CONNECTIONS {
            asker.has_each_change_once(connection, &counted).await;
        }
        let executed = provider.events.lock().expect("lock").len() as u64;
        println!("{executed} executions of {} events", EVENTS * CONNECTIONS);
        assert!(executed >= EVENTS * CONNECTIONS);
    });
}

#[test]
fn actions_reach_connections_of_every_process() {
    run(async {
        let functions = [("actions/order", ORDER_TS), ("actions/relay", RELAY_TS), ("syncs/items", ITEMS_TS)];
        let (provider, installation) = set_up("actions", &functions).await;
        let mut processes: Vec<Process> = (0..2).map(|n| installation.start(n)).collect();
        let asked: Vec<Asker> = processes.iter().map(Process::asker).collect();
        for asker in &asked {
            asker.owns_partitions().await;
        }
        for connection in 0..CONNECTIONS {
            for (n, asker) in asked.iter().enumerate() {
                let key = format!("{connection}/{n}");
                let made = json!({"key": key, "by": format!("c{connection}")});
                assert_eq!(asker.act(connection, "order", json!({"key": key})).await, (200, made.clone()));
                let later = asker.act_later(connection, "order", json!({"key": format!("{key}/later")})).await;
                assert_eq!(asked[1 - n].output(&later).await.1["by"], made["by"], "asked of the other");
                // From each connection to each other, whosever they are.
                let to = format!("c{}", (connection + 1 + n as u64) % CONNECTIONS);
                let relay = async |what: &str| {
                    let input = json!({"what": what, "to": to, "key": format!("{key}/{what}")});
                    asker.act(connection, "relay", input).await
                };
                assert_eq!(relay("order").await, (200, json!({"key": format!("{key}/order"), "by": to})));
                assert_eq!(relay("caught").await, (200, json!({"type": "no_stock", "by": to})));
                let portal: u64 = to[1..].parse().expect("a number");
                let about = json!({"connection_id": to, "metadata": {"portal": portal}});
                assert_eq!(relay("about").await, (200, about));
                let (status, refused) = relay("missing").await;
                assert_eq!(status, 424, "{refused}");
                let said = refused["error"]["message"].as_str().unwrap_or_default().to_owned();
                assert!(said.contains("there is no action `nothing`; `crm` has order, relay"), "{refused}");
                let (status, refused) = relay("deep").await;
                assert!(status == 424 && refused.to_string().contains("nest at most 4 deep"), "{refused}");
                match relay("request").await {
                    (200, status) => assert_eq!(status, 200, "one shard"),
                    (status, refused) => {
                        assert!(status == 424 && refused.to_string().contains("not of the same shard"), "{refused}");
                    }
                }
            }
        }
        provider.each_order_once(CONNECTIONS as usize * 2 * 3);
        let (status, refused) = asked[0].act(0, "relay", json!({"what": "about", "to": "nobody"})).await;
        assert!(status == 424 && refused.to_string().contains("no connection `nobody`"), "{refused}");

        // Syncs of one connection, then of all; paused ones run as well.
        let input = json!({"what": "sync", "to": "c7"});
        assert_eq!(asked[0].act(0, "relay", input).await, (200, Value::Null));
        asked[1].records_once(7, "Item", (PAGES * ITEMS) as usize).await;
        let input = json!({"what": "all", "to": ""});
        assert_eq!(asked[1].act(0, "relay", input).await, (200, Value::Null));
        provider.all_reached(1, &processes[0]).await;

        // The process of the inner action is killed, and that of calls nobody waits for: nobody calls again, and that is said.
        let mut later = Vec::new();
        for connection in 0..CONNECTIONS {
            let input = json!({"key": format!("slow/later/{connection}")});
            later.push(asked[0].act_later(connection, "order", input).await);
        }
        let relays = (0..CONNECTIONS).map(|connection| {
            let to = format!("c{}", (connection + 1) % CONNECTIONS);
            asked[0].act(connection, "relay", json!({"what": "order", "to": to, "key": format!("slow/{connection}")}))
        });
        let kill = async {
            provider.slow_orders(CONNECTIONS as usize * 2).await;
            processes[1].kill();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(relays), kill);
        let told = |text: &str| answers.iter().filter(|(_, answer)| answer.to_string().contains(text)).count();
        let (done, lost) = (told("\"by\":"), told("may have happened"));
        assert!(done > 0 && lost > 0, "{answers:?}");
        let mut unknown = 0;
        for id in later {
            let (status, answer) = asked[0].output(&id).await;
            unknown += usize::from(status == 424);
            assert!(status == 200 || answer["error"]["code"] == "unknown_outcome", "{status} {answer}");
        }
        assert!(unknown > 0, "some were of the killed one");
        println!("{done} relayed, {lost} lost; of later ones {unknown} unknown");
        provider.each_order_once(CONNECTIONS as usize * (2 * 3 + 2));
    });
}

/// What was asked of the provider.
#[derive(Default)]
struct Items {
    /// Connection, execution, where it began, page.
    pages: Mutex<Vec<(u64, String, u64, u64)>>,
    /// Lists that are being answered, by connection.
    open: Mutex<BTreeMap<u64, usize>>,
    overlaps: AtomicU64,
    events: Mutex<Vec<(u64, String)>>,
    orders: Mutex<Vec<String>>,
}

/// A list that is being answered.
struct Open(Arc<Items>, u64);

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.open.lock().expect("lock").entry(self.1).or_default() -= 1;
    }
}

impl Items {
    async fn serve() -> (Arc<Items>, u16) {
        let items = Arc::new(Items::default());
        let router = Router::new()
            .route("/{connection}/items", get(list))
            .route("/{connection}/events", get(event))
            .route("/{connection}/orders", post(order))
            .with_state(items.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (items, port)
    }

    /// Waits until such a page of each connection was asked for.
    async fn all_reached(&self, page: u64, process: &Process) {
        let began = Instant::now();
        loop {
            let reached: BTreeSet<u64> =
                self.pages.lock().expect("lock").iter().filter(|asked| asked.3 >= page).map(|asked| asked.0).collect();
            if reached.len() as u64 == CONNECTIONS {
                return;
            }
            assert!(began.elapsed() < WAIT, "{reached:?} alone\n{}", process.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Executions of a connection came one after the other, and each began where the one before had got to.
    async fn each_execution_went_on(&self) {
        assert_eq!(self.overlaps.load(Ordering::Relaxed), 0, "two executions at one time");
        let pages = self.pages.lock().expect("lock").clone();
        let mut second = 0;
        for connection in 0..CONNECTIONS {
            let own: Vec<_> = pages.iter().filter(|asked| asked.0 == connection).collect();
            let mut ended = BTreeSet::new();
            for (before, now) in own.iter().zip(&own[1..]) {
                if before.1 == now.1 {
                    assert_eq!(now.3, before.3 + 1, "connection {connection}");
                    continue;
                }
                second += 1;
                assert!(ended.insert(&before.1) && !ended.contains(&now.1), "connection {connection}: {own:?}");
                let (from, reached) = (now.2, before.3);
                assert!(
                    from > 0 && from <= reached + 1 && from + AHEAD >= reached,
                    "connection {connection} had got to {reached} and goes on at {from}"
                );
            }
        }
        println!("{second} executions went on elsewhere");
        assert!(second > 0, "the killed one executed something");
    }

    async fn slow_orders(&self, count: usize) {
        let began = Instant::now();
        loop {
            let orders = self.orders.lock().expect("lock").clone();
            if orders.iter().filter(|key| key.starts_with("slow")).count() == count {
                return;
            }
            assert!(began.elapsed() < WAIT, "{orders:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn each_order_once(&self, count: usize) {
        let orders = self.orders.lock().expect("lock").clone();
        assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), orders.len(), "{orders:?}");
        assert_eq!(orders.len(), count, "{orders:?}");
    }
}

async fn list(
    State(items): State<Arc<Items>>,
    UrlPath(connection): UrlPath<u64>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let number = |name: &str| query[name].parse::<u64>().expect("a number");
    let (page, from) = (number("page"), number("from"));
    let open = {
        let mut all = items.open.lock().expect("lock");
        let open = all.entry(connection).or_default();
        *open += 1;
        items.overlaps.fetch_add(u64::from(*open > 1), Ordering::Relaxed);
        items.pages.lock().expect("lock").push((connection, query["run"].clone(), from, page));
        Open(items.clone(), connection)
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(open);
    let found = (page * ITEMS..(page + 1) * ITEMS).map(|n| json!({"id": n.to_string(), "n": n}));
    Json(json!({"items": found.collect::<Vec<_>>(), "more": page + 1 < PAGES}))
}

async fn event(
    State(items): State<Arc<Items>>,
    UrlPath(connection): UrlPath<u64>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    items.events.lock().expect("lock").push((connection, query.get("sent").cloned().unwrap_or_default()));
    tokio::time::sleep(Duration::from_millis(30)).await;
    Json(json!({}))
}

async fn order(State(items): State<Arc<Items>>, Json(body): Json<Value>) -> Json<Value> {
    let key = body["key"].as_str().expect("a key").to_owned();
    let slow = key.starts_with("slow");
    items.orders.lock().expect("lock").push(key);
    tokio::time::sleep(Duration::from_millis(if slow { 4_000 } else { 0 })).await;
    Json(json!({}))
}

/// A provider, and an installation with these functions.
async fn set_up(name: &str, functions: &[(&str, &str)]) -> (Arc<Items>, Installation) {
    let (provider, port) = Items::serve().await;
    let installation = Installation::new(name, port);
    let folder = installation.folder.path();
    let connection =
        |c: u64| format!("  c{c}: {{metadata: {{portal: {c}}}, base_url: 'http://127.0.0.1:{port}/{c}'}}\n");
    let source = FUNCTION_SOURCE.to_owned() + &(0..CONNECTIONS).map(connection).collect::<String>();
    std::fs::write(folder.join("sources/crm.yaml"), source).expect("definition");
    // The one that takes webhooks is always there: they have to be somebody's.
    for (file, text) in functions.iter().chain([&("syncs/count", COUNT_TS)]) {
        let file = folder.join("functions/crm").join(format!("{file}.ts"));
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    (provider, installation)
}

impl Asker {
    /// Ids of the changes of a stream: each added, once.
    async fn added(&self, connection: u64, stream: &str) -> BTreeSet<String> {
        let (mut added, mut cursor) = (BTreeSet::new(), "earliest".to_owned());
        loop {
            let of = format!("source=crm&connection=c{connection}&stream={stream}&limit=500&cursor={cursor}");
            let page = self.get(&format!("/v1/changes?{of}"), None).await;
            let new = page["changes"].as_array().unwrap_or_else(|| panic!("{page}"));
            for change in new {
                assert_eq!(change["action"], "ADDED", "{change}");
                assert!(added.insert(change["key"].as_str().expect("a key").to_owned()), "twice: {change}");
            }
            if new.is_empty() {
                return added;
            }
            cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        }
    }

    fn action(&self, connection: u64, name: &str, input: Value) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/action/trigger", self.url)).bearer_auth(KEY);
        let request = request.header("provider-config-key", "crm").header("connection-id", format!("c{connection}"));
        request.json(&json!({"action_name": name, "input": input}))
    }

    /// Calls an action: status and answer.
    async fn act(&self, connection: u64, name: &str, input: Value) -> (u16, Value) {
        self.once_owned(|| self.action(connection, name, input.clone())).await
    }

    /// Calls an action without waiting; its id.
    async fn act_later(&self, connection: u64, name: &str, input: Value) -> String {
        let ask = || self.action(connection, name, input.clone()).header("x-async", "true");
        let (status, answer) = self.once_owned(ask).await;
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// Asks until the shard has an owner: before, nothing is begun.
    async fn once_owned(&self, ask: impl Fn() -> reqwest::RequestBuilder) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let answer = ask().send().await.expect("an answer");
            let status = answer.status().as_u16();
            let said: Value = answer.json().await.unwrap_or_default();
            if (status, &said["error"]["code"]) != (503, &json!("partition_moving")) {
                return (status, said);
            }
            assert!(began.elapsed() < WAIT, "{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How such a call ended: status and answer.
    async fn output(&self, id: &str) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let request = self.client.get(format!("{}/action/{id}", self.url)).bearer_auth(KEY);
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            let said: Value = answer.json().await.unwrap_or_default();
            if ![404, 503].contains(&status) {
                return (status, said);
            }
            assert!(began.elapsed() < WAIT, "{status} {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
