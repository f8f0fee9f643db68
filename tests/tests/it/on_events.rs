//! Functions on events of connections: one is created, changed and deleted over REST, and a fake of its provider sees what is done.

use super::actions::Program;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_tests::orders::Shop;
use syncline_tests::serving::{KEY, Serving, client};

const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longer than it takes from one attempt to the next.
const MORE_THAN_A_WAIT: Duration = Duration::from_millis(2_500);

/// The token that the shop takes.
const TOKEN: &str = "a-token-that-nobody-may-see";

/// Orders a welcome, which fails while the shop is closed.
const WELCOME: &str = r#"
import { createOnEvent } from 'nango';

export default createOnEvent({
    description: 'Welcomes whoever comes',
    event: 'post-connection-creation',
    exec: async (nango) => {
        const { connection_config, tags } = await nango.getConnection();
        const { data } = await nango.get<{ orders: { item: string }[] }>({ endpoint: '/orders' });
        if (data.orders.some(({ item }) => item === 'closed')) {
            throw new Error('nobody is here');
        }
        const item = ['welcome', nango.connectionId, connection_config.team, tags.plan].filter(Boolean).join(' ');
        await nango.post({ endpoint: '/orders', data: { item } });
        await nango.updateMetadata({ welcomed: true });
    }
});
"#;

/// Is done after the welcome, by its name.
const WISHES: &str = r#"
import { createOnEvent } from 'nango';

export default createOnEvent({
    event: 'post-connection-creation',
    exec: async (nango) => {
        const { welcomed } = await nango.getMetadata<{ welcomed?: boolean }>();
        await nango.post({ endpoint: '/orders', data: { item: `wishes ${nango.connectionId} ${welcomed}` } });
    }
});
"#;

/// Orders a farewell in the name of whoever goes, unless it is told to fail.
const FAREWELL: &str = r#"
import { createOnEvent } from 'nango';

export default createOnEvent({
    event: 'pre-connection-deletion',
    exec: async (nango) => {
        const { team, stays } = await nango.getMetadata<{ team?: string; stays?: boolean }>();
        if (stays) {
            throw new Error('it does not want to go');
        }
        const token = await nango.getToken();
        await nango.post({ endpoint: '/orders', data: { item: `farewell ${nango.connectionId} ${team} ${token}` } });
    }
});
"#;

/// Lets in whoever has a good token, after a look at the shop with it.
const CHECK: &str = r#"
import { ActionError, createOnEvent } from 'nango';

export default createOnEvent({
    event: 'validate-connection',
    exec: async (nango) => {
        await nango.get({ endpoint: '/orders' });
        const token = await nango.getToken();
        if (token === 'stolen') {
            throw new ActionError({ type: 'not_yours', message: 'this token is not yours' });
        }
        if (token === 'writes') {
            await nango.setMetadata({ seen: true });
        }
    }
});
"#;

const VISIBLE: &str = "functions: {credentials: visible}\n";

async fn serve(folder: &Path) -> Serving {
    let more = json!({"functions": {"path": folder.join("functions"), "in_process": true}});
    Serving::start_with(folder, &folder.join("sources"), more).await
}

/// A call: its status and its answer.
async fn call(url: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = client().request(method, format!("{url}{path}")).bearer_auth(KEY);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).unwrap_or_default())
}

fn at(connection: &str) -> String {
    format!("/connections/{connection}?provider_config_key=shop")
}

/// A new connection; `more` is said of it beside its token.
async fn create(url: &str, connection: &str, token: &str, more: Value) -> (u16, Value) {
    let credentials = json!({"type": "API_KEY", "apiKey": token});
    let mut body = json!({"provider_config_key": "shop", "connection_id": connection, "credentials": credentials});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    call(url, Method::POST, "/connections", body).await
}

/// What was ordered by functions.
fn ordered(shop: &Shop) -> Vec<String> {
    shop.orders.lock().iter().map(|order| order["item"].as_str().expect("an item").to_owned()).collect()
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What lies in quarantine.
async fn quarantined(url: &str) -> Vec<Value> {
    let (status, page) = call(url, Method::GET, "/v1/quarantine?writer=function", Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["entries"].as_array().cloned().expect("a list")
}

/// A shop with these functions, and where they are laid out. Its connection `acme` stands in a file.
async fn shop(functions: &[(&str, &str)]) -> (tempfile::TempDir, Arc<Shop>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, url) = Shop::start().await;
    Shop::lay_out(folder.path(), &url, VISIBLE, functions);
    (folder, shop)
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_run_once_and_in_order_for_a_new_connection() {
    // The files are in the order of their names, whatever the order here.
    let (folder, shop) = shop(&[("on-events/b-wishes.ts", WISHES), ("on-events/a-welcome.ts", WELCOME)]).await;
    let server = serve(folder.path()).await;
    until("the connection of the file is new as well", || ordered(&shop).len() == 2).await;
    assert_eq!(ordered(&shop), ["welcome acme", "wishes acme true"]);

    *shop.pause.lock() = Duration::from_millis(200);
    let more = json!({"connection_config": {"team": "red"}, "tags": {"plan": "pro"}});
    let (status, told) = create(&server.url, "zed", TOKEN, more).await;
    assert_eq!((status, &told["connection_config"]["team"]), (201, &json!("red")), "{told}");
    assert_eq!(ordered(&shop).len(), 2, "the answer does not wait for functions");
    until("both were called", || ordered(&shop).len() == 4).await;
    assert_eq!(ordered(&shop)[2..], ["welcome zed red pro", "wishes zed true"]);
    let seen = *shop.seen.lock();
    assert_eq!((seen.strangers, seen.most_open), (0, 1), "signed in, and one after the other");
    *shop.pause.lock() = Duration::ZERO;
    let change = json!({"tags": {"plan": "free"}});
    assert_eq!(call(&server.url, Method::PATCH, &at("zed"), change).await.0, 200);
    server.stop().await;

    let server = serve(folder.path()).await;
    assert_eq!(create(&server.url, "last", TOKEN, Value::Null).await.0, 201);
    until("both were called", || ordered(&shop).len() >= 6).await;
    assert_eq!(ordered(&shop)[4..], ["welcome last", "wishes last true"], "nothing for those that were there");
    assert_eq!(quarantined(&server.url).await, [] as [Value; 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_three_times_is_in_quarantine_until_it_is_tried_again() {
    let (folder, shop) = shop(&[("on-events/a-welcome.ts", WELCOME), ("on-events/b-wishes.ts", WISHES)]).await;
    shop.orders.lock().push(json!({"item": "closed"}));
    let server = serve(folder.path()).await;
    let began = Instant::now();
    until("the next function has its turn", || ordered(&shop).len() == 2).await;
    assert!(began.elapsed() > Duration::from_secs(11), "it was tried again after 2 and 10 s");
    assert_eq!(shop.seen.lock().lists, 3, "each attempt looks at the list");
    assert_eq!(ordered(&shop), ["closed", "wishes acme undefined"]);
    let [entry] = quarantined(&server.url).await.try_into().expect("one entry");
    let place = ["source", "connection", "stream", "writer", "code", "cause"].map(|name| entry[name].clone());
    let wanted = ["shop", "acme", "a-welcome", "function", "script_error", "post-connection-creation"];
    assert_eq!(place, wanted);
    let message = entry["message"].as_str().expect("text");
    assert!(message.starts_with("shop/on-events/a-welcome.ts:11:23 Error: nobody is here"), "{message}");

    shop.orders.lock().clear();
    let retry = json!({"ids": [entry["id"]]});
    let (status, told) = call(&server.url, Method::POST, "/v1/quarantine/retry", retry).await;
    assert_eq!((status, &told["taken"]), (200, &json!(1)), "{told}");
    until("it was called again", || ordered(&shop) == ["welcome acme"]).await;
    assert_eq!(quarantined(&server.url).await, [] as [Value; 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_creation() {
    let (folder, shop) = shop(&[("on-events/a-welcome.ts", WELCOME), ("on-events/b-wishes.ts", WISHES)]).await;
    let welcomes = |shop: &Shop| ordered(shop).iter().filter(|item| *item == "welcome zed").count();
    *shop.pause.lock() = Duration::from_secs(30);
    let program = Program::start(folder.path());
    assert_eq!(create(&program.caller.url, "zed", TOKEN, Value::Null).await.0, 201);
    until("it has begun", || welcomes(&shop) == 1).await;
    drop(program);

    *shop.pause.lock() = Duration::ZERO;
    let program = Program::start(folder.path());
    until("the next one was called", || ordered(&shop).contains(&"wishes zed true".to_owned())).await;
    assert_eq!(welcomes(&shop), 2, "it was executed again");
    drop(program);
    let program = Program::start(folder.path());
    assert_eq!(create(&program.caller.url, "more", TOKEN, Value::Null).await.0, 201);
    until("it was called", || ordered(&shop).contains(&"welcome more".to_owned())).await;
    assert_eq!(welcomes(&shop), 2, "what has come to its end is not begun again");
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_two_attempts_loses_no_creation() {
    let (folder, shop) = shop(&[("on-events/welcome.ts", WELCOME)]).await;
    *shop.refuses.lock() = Some((500, json!({})));
    let server = serve(folder.path()).await;
    until("it has failed once", || shop.seen.lock().orders == 1).await;
    server.stop().await;
    assert_eq!(ordered(&shop), [] as [&str; 0]);
    let server = serve(folder.path()).await;
    until("it was executed again", || ordered(&shop) == ["welcome acme"]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_see_a_connection_before_it_is_deleted() {
    let (folder, shop) = shop(&[("on-events/farewell.ts", FAREWELL), ("on-events/welcome.ts", WELCOME)]).await;
    let server = serve(folder.path()).await;
    until("the connection of the file is new as well", || ordered(&shop).len() == 1).await;
    assert_eq!(create(&server.url, "zed", TOKEN, json!({"metadata": {"team": "red"}})).await.0, 201);
    until("it was called", || ordered(&shop).len() == 2).await;
    let gone = call(&server.url, Method::DELETE, &at("zed"), Value::Null).await;
    assert_eq!(gone, (200, json!({"success": true})));
    assert_eq!(ordered(&shop)[2..], [format!("farewell zed red {TOKEN}")], "the answer waits for it");
    assert_eq!(shop.seen.lock().strangers, 0, "it was signed in");
    assert_eq!(call(&server.url, Method::GET, &at("zed"), Value::Null).await.0, 400);
    for (connection, status) in [("zed", 404), ("acme", 409)] {
        assert_eq!(call(&server.url, Method::DELETE, &at(connection), Value::Null).await.0, status);
    }
    assert_eq!(ordered(&shop).len(), 3, "nothing for one that is not deleted");

    assert_eq!(create(&server.url, "stays", TOKEN, json!({"metadata": {"stays": true}})).await.0, 201);
    let began = Instant::now();
    assert_eq!(call(&server.url, Method::DELETE, &at("stays"), Value::Null).await.0, 200);
    assert!(began.elapsed() > Duration::from_secs(11), "it was tried three times");
    assert_eq!(call(&server.url, Method::GET, &at("stays"), Value::Null).await.0, 400, "a failure ends no deletion");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_what_is_to_be_done_for_a_creation() {
    let (folder, shop) = shop(&[("on-events/welcome.ts", WELCOME)]).await;
    let server = serve(folder.path()).await;
    until("the connection of the file is new as well", || ordered(&shop).len() == 1).await;
    *shop.refuses.lock() = Some((500, json!({})));
    assert_eq!(create(&server.url, "zed", TOKEN, Value::Null).await.0, 201);
    until("it has failed once", || shop.seen.lock().orders == 2).await;
    assert_eq!(call(&server.url, Method::DELETE, &at("zed"), Value::Null).await.0, 200);
    tokio::time::sleep(MORE_THAN_A_WAIT).await;
    assert_eq!(ordered(&shop), ["welcome acme"]);
    // The same name again is a new connection.
    assert_eq!(create(&server.url, "zed", TOKEN, Value::Null).await.0, 201);
    until("it was called", || ordered(&shop).len() == 2).await;
    server.stop().await;
    let server = serve(folder.path()).await;
    tokio::time::sleep(MORE_THAN_A_WAIT).await;
    assert_eq!(ordered(&shop), ["welcome acme", "welcome zed"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_valid_is_refused() {
    let (folder, shop) = shop(&[("on-events/check.ts", CHECK), ("on-events/welcome.ts", WELCOME)]).await;
    let server = serve(folder.path()).await;
    until("the connection of the file is new as well", || ordered(&shop).len() == 1).await;
    assert_eq!(shop.seen.lock().lists, 1, "it is not validated");
    let refused = |(status, told): (u16, Value)| {
        let error = told["error"].clone();
        assert_eq!((status, &error["code"]), (400, &json!("connection_validation_failed")), "{told}");
        (error["message"].as_str().expect("text").to_owned(), error["payload"].clone())
    };
    let stolen = json!({"type": "not_yours", "message": "this token is not yours"});

    let (message, payload) = refused(create(&server.url, "zed", "stolen", Value::Null).await);
    let wanted = "shop/on-events/check.ts:10:23 ActionError: this token is not yours";
    assert!(message.starts_with(wanted) && payload == stolen, "{message}\n{payload}");
    let (message, _) = refused(create(&server.url, "zed", "writes", Value::Null).await);
    assert!(message.contains("nothing can be stored with a connection before it is validated"), "{message}");
    assert_eq!(call(&server.url, Method::GET, &at("zed"), Value::Null).await.0, 400, "nothing is stored");
    assert_eq!(shop.seen.lock().strangers, 2, "the shop was asked with their tokens");

    assert_eq!(create(&server.url, "zed", TOKEN, Value::Null).await.0, 201);
    until("it was called", || ordered(&shop).len() == 2).await;
    assert_eq!(ordered(&shop)[1..], ["welcome zed"], "and for no other");
    let credentials =
        |token: &str| json!({"credentials": {"type": "API_KEY", "apiKey": token}, "tags": {"plan": token}});
    let (_, payload) = refused(call(&server.url, Method::PATCH, &at("zed"), credentials("stolen")).await);
    assert_eq!(payload, stolen);
    refused(call(&server.url, Method::PATCH, &at("zed"), credentials("writes")).await);
    assert_eq!(shop.seen.lock().strangers, 4, "the shop was asked with the new token");
    let (_, zed) = call(&server.url, Method::GET, &at("zed"), Value::Null).await;
    assert_eq!((&zed["credentials"]["apiKey"], &zed["tags"]), (&json!(TOKEN), &json!({})), "nothing has changed");
    assert_eq!(zed["metadata"], json!({"welcomed": true}));

    assert_eq!(call(&server.url, Method::PATCH, &at("zed"), credentials("other")).await.0, 200);
    let (_, zed) = call(&server.url, Method::GET, &at("zed"), Value::Null).await;
    assert_eq!((&zed["credentials"]["apiKey"], &zed["tags"]["plan"]), (&json!("other"), &json!("other")));
    let lists = shop.seen.lock().lists;
    assert_eq!(call(&server.url, Method::PATCH, &at("zed"), json!({"tags": {"plan": "pro"}})).await.0, 200);
    assert_eq!(shop.seen.lock().lists, lists, "tags need no validation");
    server.stop().await;
}
