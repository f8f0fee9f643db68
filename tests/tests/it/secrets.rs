//! What a provider and a receiver repeat of our secrets, in every spelling, is seen nowhere: not in the API's answers, not in
//! notices, not in what is kept of a delivery.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use syncline_tests::serving::{Serving, answer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const TOKEN: &str = "canary+t0ken/0123456789==";
const PASSWORD: &str = "canary \"pass\"&word/é";
const KEY: &str = "canary-key/in+query=";
const SIGNING: &str = "canary-signing/secret+0123456789";
const PATIENCE: Duration = Duration::from_secs(30);

/// A secret as senders and parsers write it.
fn spelled(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = json!(secret).to_string();
    let (whole, safe) = (STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret));
    vec![
        secret.to_owned(),
        form.clone(),
        form.to_lowercase().replace("+", "%20"),
        json.clone(),
        json.replace('/', "\\/"),
        whole,
        safe,
    ]
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Nothing of a secret, in whatever spelling.
fn hides(what: &str, text: &str) {
    for secret in [TOKEN, PASSWORD, KEY, SIGNING] {
        for spelling in spelled(secret) {
            // The last characters of base64 may be those of any text.
            let telling = &spelling[..spelling.len().min(12)];
            assert!(!text.contains(telling.trim_matches('"')), "{what} shows {telling}: {text}");
        }
    }
    assert!(!text.contains("canary"), "{what}: {text}");
    assert!(!text.contains('\u{1b}') && !text.contains("\n2030"), "{what}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_repeat_of_our_secrets_is_seen_nowhere() {
    // It repeats the request as it came, and every secret in every spelling; a connection hides those that it has.
    let repeat = |headers: HeaderMap, uri: Uri| async move {
        let sent: Vec<String> =
            headers.values().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let all: Vec<String> = [TOKEN, PASSWORD, KEY].iter().flat_map(|secret| spelled(secret)).collect();
        (StatusCode::BAD_REQUEST, format!("{uri} {} \u{1b}[31m\n2030-01-01 {}", sent.join("|"), all.join("|")))
    };
    let provider = listen(Router::new().fallback(repeat)).await;
    let (told, mut notices) = mpsc::unbounded_channel::<String>();
    let receiver = listen(Router::new().fallback(async move |body: String| {
        told.send(body).expect("the test listens");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("you signed with {}\n2030-01-01", spelled(SIGNING).join("|")))
    }))
    .await;

    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("sources")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join("sources").join(name), text).expect("written");
    write("token", TOKEN);
    write("password", PASSWORD);
    write("key", KEY);
    std::fs::write(dir.path().join("signing"), SIGNING).expect("written");
    let ways = [
        ("bearer", "{type: bearer}", "token: \"file:token\""),
        ("basic", "{type: basic, username: me}", "password: \"file:password\""),
        ("query", "{type: api_key, in: query, name: k}", "key: \"file:key\""),
    ];
    for (name, auth, credentials) in ways {
        let text = format!(
            "source: {name}\nbase_url: {provider}\nauth: {auth}\nlimits: {{retry: {{max: 0}}}}\nstreams:\n  - name: Thing\n    \
             sync: things\n    key: .id\n    list: {{get: /things}}\nconnections:\n  me: {{credentials: {{{credentials}}}}}\n"
        );
        write(&format!("{name}.yaml"), &text);
    }
    let endpoints = json!({"backend": {"url": format!("{receiver}/in"), "secret": "file:signing"}});
    let serving = Serving::start_with(dir.path(), &dir.path().join("sources"), json!({"endpoints": endpoints})).await;
    for (name, ..) in ways {
        let status = serving.settled(name, "me", "things", PATIENCE).await;
        let own = match name {
            "bearer" => TOKEN,
            "basic" => PASSWORD,
            _ => KEY,
        };
        let runs = answer(serving.get(&format!("/v1/runs?source={name}"), name, "me")).await;
        for (what, said) in [("the status", status), ("the runs", runs)] {
            let said = said.to_string();
            for spelling in spelled(own) {
                assert!(!said.contains(&spelling), "{what} of {name} shows {spelling}: {said}");
            }
        }
    }
    let mut heard = Vec::new();
    while heard.len() < ways.len() {
        let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.expect("in time").expect("told");
        let notice: Value = serde_json::from_str(&notice).expect("JSON");
        let name = notice["providerConfigKey"].as_str().expect("a source").to_owned();
        let own = ways.iter().position(|(way, ..)| *way == name).map(|at| [TOKEN, PASSWORD, KEY][at]).expect("known");
        let said = notice["error"]["description"].as_str().expect("text").to_owned();
        assert!(said.contains("[secret]") && !said.contains('\n') && !said.contains('\u{1b}'), "{said}");
        assert!(spelled(own).iter().all(|spelling| !said.contains(spelling.as_str())), "{name}: {said}");
        if !heard.contains(&name) {
            heard.push(name);
        }
    }
    // What the receiver repeated is kept with the delivery.
    let began = Instant::now();
    let kept = loop {
        let kept = serving.engine().outbox(10).expect("reads").into_iter().find_map(|delivery| delivery.last_error);
        if let Some(kept) = kept {
            break kept;
        }
        assert!(began.elapsed() < PATIENCE, "no attempt is noted");
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    hides("a delivery", &kept);
    assert!(kept.contains("[secret]"), "{kept}");
    serving.stop().await;
}
