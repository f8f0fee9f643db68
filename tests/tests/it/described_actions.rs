//! Actions that a definition describes, called over REST, against a provider whose records are polled as well.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_tests::serving::{KEY, Serving, client};

const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TOKEN: &str = "a-token-that-nobody-may-see";

/// A provider of contacts.
#[derive(Default)]
struct Crm {
    contacts: Mutex<Vec<Value>>,
    /// Method, path and idempotency key of each request.
    asked: Mutex<Vec<(String, String, Option<String>)>>,
    /// Before a contact is answered, which is made before.
    pause: Mutex<Duration>,
    /// Answers this instead of the next, and makes nothing.
    refuses: Mutex<Option<(u16, Value)>>,
}

impl Crm {
    async fn start() -> (Arc<Crm>, String) {
        let crm = Arc::new(Crm::default());
        let router = Router::new().fallback(serve).with_state(crm.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (crm, url)
    }

    fn posts(&self) -> usize {
        self.asked.lock().iter().filter(|(method, ..)| method == "POST").count()
    }

    /// Makes a contact, unless one was made with this key.
    fn make(&self, fields: &Value, key: Option<&str>) -> Value {
        let mut contacts = self.contacts.lock();
        if let Some(known) = contacts.iter().find(|one| key.is_some() && one["key"].as_str() == key) {
            return known.clone();
        }
        let contact = json!({
            "id": contacts.len() + 1, "email": fields["email"], "phone": fields.get("phone"), "owner": TOKEN, "key": key,
        });
        contacts.push(contact.clone());
        contact
    }
}

async fn serve(State(crm): State<Arc<Crm>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let key = head.headers.get("idempotency-key").map(|value| value.to_str().expect("text").to_owned());
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    crm.asked.lock().push((method.clone(), path.clone(), key.clone()));
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let fields: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method != "GET"
        && let Some((status, said)) = crm.refuses.lock().take()
    {
        return (StatusCode::from_u16(status).expect("a status"), Json(said)).into_response();
    }
    let pause = *crm.pause.lock();
    let answer = match (method.as_str(), path.as_str()) {
        ("GET", "/contacts") => Json(Value::Array(crm.contacts.lock().clone())).into_response(),
        ("GET", "/owner") => Json(json!({"name": head.uri.query().unwrap_or_default()})).into_response(),
        ("POST", "/contacts") => (StatusCode::CREATED, Json(crm.make(&fields, key.as_deref()))).into_response(),
        ("PUT", _) => Json(fields).into_response(),
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    if method != "GET" {
        tokio::time::sleep(pause).await;
    }
    answer
}

const ACTIONS: &str = r#"
limits: {timeout: 20s, retry: {max: 2, backoff: 5ms..20ms}}
streams:
  - {name: Contact, sync: contacts, key: .id, list: {get: /contacts}, schedule: {every: 1h}, map: {email: .email, phone: .phone}}
actions:
  - name: create
    input:
      type: object
      required: [email]
      properties: {email: {type: string, minLength: 3}, phone: {type: string}}
    request: {post: /contacts, body: {email: "{{ input.email }}", phone: "{{ input.phone }}"}}
    output: "{id: .id, email: .email, owner: .owner}"
    output_schema: {type: object, properties: {email: {pattern: "^[^!]*$"}}}
    then: {stream: Contact}
  - name: create-known
    request: {post: /contacts, body: "{{ input }}"}
    output: .id
    then: {stream: Contact, record: .}
    idempotency: {header: Idempotency-Key, value: "{{ action.id }}"}
  - name: put
    request: {put: "/things/{{ input.id }}", body: {id: "{{ input.id }}"}}
  - name: remove
    request: {delete: /things/7}
  - name: stepped
    steps:
      - name: owner
        request: {get: /owner, params: {of: "{{ input.of }}", more: "{{ input.more }}"}}
      - name: made
        request: {post: /contacts, body: {email: "{{ steps.owner.name }}"}}
    output: "[.email, $steps.owner.name, $input.of]"
"#;

fn lay_out(folder: &Path, url: &str) {
    let sources = folder.join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(sources.join("token"), TOKEN).expect("written");
    let text = format!(
        "source: shop\nbase_url: {url}\nauth: {{type: bearer}}\n\
         connections: {{acme: {{credentials: {{token: \"file:token\"}}}}}}\n{ACTIONS}"
    );
    std::fs::write(sources.join("shop.yaml"), text).expect("written");
}

async fn serve_in(folder: &Path) -> Serving {
    let more = json!({"functions": {"path": folder.join("functions"), "in_process": true}});
    Serving::start_with(folder, &folder.join("sources"), more).await
}

struct Told {
    status: u16,
    body: Value,
}

impl Told {
    async fn of(request: RequestBuilder) -> Told {
        let answer = request.bearer_auth(KEY).send().await.expect("an answer");
        let status = answer.status().as_u16();
        Told { status, body: answer.json().await.expect("JSON") }
    }

    fn output(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    fn refused(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status, &self.body["error"]["code"]), (status, &json!(code)), "{}", self.body);
        &self.body["error"]
    }
}

struct Caller {
    url: String,
    client: Client,
}

impl Caller {
    fn of(url: &str) -> Caller {
        Caller { url: url.to_owned(), client: client() }
    }

    fn request(&self, action: &str, input: Value) -> RequestBuilder {
        let request = self.client.post(format!("{}/action/trigger", self.url));
        let request = request.json(&json!({"action_name": action, "input": input}));
        request.header("provider-config-key", "shop").header("connection-id", "acme")
    }

    async fn call(&self, action: &str, input: Value) -> Told {
        Told::of(self.request(action, input)).await
    }

    async fn later(&self, action: &str, input: Value, retries: u32) -> String {
        let request = self.request(action, input).header("x-async", "true");
        let told = Told::of(request.header("x-max-retries", retries.to_string())).await;
        assert_eq!(told.status, 202, "{}", told.body);
        told.body["id"].as_str().expect("an id").to_owned()
    }

    async fn ended(&self, id: &str) -> Told {
        let began = Instant::now();
        loop {
            let told = Told::of(self.client.get(format!("{}/action/{id}", self.url))).await;
            if told.status != 404 {
                return told;
            }
            assert!(began.elapsed() < LIMIT, "{}", told.body);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_described_action_answers_its_output_or_says_why_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (crm, url) = Crm::start().await;
    lay_out(folder.path(), &url);
    let server = serve_in(folder.path()).await;
    let caller = Caller::of(&server.url);

    let output = caller.call("create", json!({"email": "a@b.c"})).await.output();
    assert_eq!((&output["id"], &output["email"]), (&json!(1), &json!("a@b.c")));
    assert!(!output.to_string().contains(TOKEN), "{output}");
    assert_eq!(crm.contacts.lock()[0]["phone"], Value::Null, "what is not given is left out");
    caller.call("create", json!({"email": "a@b.c", "phone": "1"})).await.output();
    assert_eq!(crm.contacts.lock()[1]["phone"], "1");

    for wrong in [json!({}), json!({"email": "a"}), json!({"email": 7}), Value::Null] {
        let told = caller.call("create", wrong.clone()).await;
        assert!(
            told.refused(400, "invalid_action_input")["message"].as_str().expect("text").contains("create"),
            "{wrong}"
        );
    }
    assert_eq!(crm.posts(), 2, "nothing was sent");
    let told = caller.call("create", json!({"email": "a!b"})).await;
    let message = told.refused(424, "invalid_action_output")["message"].as_str().expect("text").to_owned();
    assert!(message.contains("/email") && message.contains("has happened"), "{message}");

    *crm.refuses.lock() = Some((422, json!({"reason": "no", "seen": TOKEN})));
    let told = caller.call("create", json!({"email": "a@b.c"})).await;
    let error = told.refused(424, "provider_error");
    assert_eq!(error["payload"]["reason"], "no");
    assert!(!told.body.to_string().contains(TOKEN), "{}", told.body);

    assert_eq!(caller.call("put", json!({"id": 5})).await.output(), json!({"id": 5}), "its type is kept");
    assert_eq!(caller.call("remove", json!({})).await.output(), Value::Null);
    let told = caller.call("stepped", json!({"of": "x y"})).await.output();
    assert_eq!(told, json!(["of=x+y", "of=x+y", "x y"]));
    caller.call("pay", json!({})).await.refused(404, "unknown_action");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_says_of_a_record_is_merged_at_once_and_the_next_poll_is_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    let (crm, url) = Crm::start().await;
    lay_out(folder.path(), &url);
    let server = serve_in(folder.path()).await;
    let caller = Caller::of(&server.url);
    server.settled("shop", "acme", "contacts", LIMIT).await;

    caller.call("create", json!({"email": "a@b.c", "phone": "1"})).await.output();
    let records = server.records("shop", "acme", "Contact").await;
    assert_eq!(records.len(), 1, "before the caller is answered: {records:?}");
    assert_eq!(
        (&records[0]["email"], &records[0]["id"], records[0].get("owner")),
        (&json!("a@b.c"), &json!("1"), None)
    );
    // Its output is wrong, and its record is one all the same.
    caller.call("create", json!({"email": "a!b"})).await.refused(424, "invalid_action_output");
    let id = caller.later("create-known", json!({"email": "later"}), 0).await;
    assert_eq!(caller.ended(&id).await.output(), 3);
    let changes = server.changes("shop", "acme", "Contact").await;
    assert_eq!(changes.len(), 3, "{changes:?}");

    server.trigger("shop", "acme", "contacts", true).await;
    server.settled("shop", "acme", "contacts", LIMIT).await;
    assert!(crm.asked.lock().iter().filter(|(method, ..)| method == "GET").count() >= 2, "it was polled again");
    let after = server.changes("shop", "acme", "Contact").await;
    assert_eq!(after, changes, "nothing is new");
    crm.contacts.lock()[0]["email"] = json!("other");
    server.trigger("shop", "acme", "contacts", true).await;
    server.settled("shop", "acme", "contacts", LIMIT).await;
    assert_eq!(server.changes("shop", "acme", "Contact").await.len(), 4, "and what is new still comes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changes_nothing_twice_is_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (crm, url) = Crm::start().await;
    lay_out(folder.path(), &url);
    let server = serve_in(folder.path()).await;
    let caller = Caller::of(&server.url);

    let refuse = || *crm.refuses.lock() = Some((503, json!({"reason": "busy"})));
    refuse();
    caller.call("create", json!({"email": "a@b.c"})).await.refused(424, "provider_error");
    assert_eq!(crm.posts(), 1);
    refuse();
    caller.call("put", json!({"id": 5})).await.output();
    refuse();
    assert_eq!(caller.call("create-known", json!({"email": "known"})).await.output(), 1);
    let keys: Vec<_> = crm.asked.lock().iter().filter_map(|(_, _, key)| key.clone()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].starts_with("act_"), "{keys:?}");
    refuse();
    let id = caller.later("create", json!({"email": "again"}), 1).await;
    assert_eq!(caller.ended(&id).await.output()["email"], "again", "as was asked for");
    assert_eq!(crm.contacts.lock().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_takes_the_place_of_a_described_action() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_crm, url) = Crm::start().await;
    lay_out(folder.path(), &url);
    let functions = folder.path().join("functions/shop/actions");
    std::fs::create_dir_all(&functions).expect("a folder");
    let code = "import { createAction } from 'nango';\nimport { z } from 'zod';\n\
                export default createAction({ input: z.object({}), output: z.string(), exec: async () => 'a function' });\n";
    std::fs::write(functions.join("put.ts"), code).expect("written");
    let server = serve_in(folder.path()).await;
    let caller = Caller::of(&server.url);
    assert_eq!(caller.call("put", json!({})).await.output(), "a function");
    assert_eq!(caller.call("remove", json!({})).await.output(), Value::Null, "the others stay");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_effect_and_result_doubles_nothing() {
    use super::actions::Program;
    let folder = tempfile::tempdir().expect("a folder");
    let (crm, url) = Crm::start().await;
    lay_out(folder.path(), &url);
    std::fs::create_dir_all(folder.path().join("functions")).expect("a folder");
    *crm.pause.lock() = Duration::from_secs(15);
    let program = Program::start(folder.path());
    let caller = Caller::of(&program.caller.url);
    let plain = caller.later("create", json!({"email": "plain"}), 5).await;
    let known = caller.later("create-known", json!({"email": "known"}), 0).await;
    let put = caller.later("put", json!({"id": 1}), 0).await;
    let began = Instant::now();
    // All effects have happened, and none of the results is known.
    while crm.asked.lock().iter().filter(|(method, ..)| method != "GET").count() < 3 || crm.contacts.lock().len() < 2 {
        assert!(began.elapsed() < LIMIT, "{:?}", crm.asked.lock());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    drop(program);
    *crm.pause.lock() = Duration::ZERO;
    let program = Program::start(folder.path());
    let caller = Caller::of(&program.caller.url);
    caller.ended(&plain).await.refused(424, "unknown_outcome");
    assert_eq!(caller.ended(&put).await.output(), json!({"id": 1}));
    let id = caller.ended(&known).await.output();
    let contacts = crm.contacts.lock().clone();
    assert_eq!(contacts.len(), 2, "each once: {contacts:?}");
    assert!(contacts.iter().any(|one| one["id"] == id && one["key"] == known.as_str()), "{contacts:?}");
    drop(program);
}
