//! docs/functions.md, snippet by snippet, as its reader types them. A snippet that nothing here runs is a failure.

use super::functions::files;
use super::{command, ended, err, out, syncline};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A block between fences: its language, and what stands in it.
struct Snippet {
    lang: String,
    text: String,
}

fn snippets() -> Vec<Snippet> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/functions.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut parts = page.split("\n```");
    parts.next();
    let blocks = parts.step_by(2).map(|block| block.split_once('\n').expect("a block"));
    blocks.map(|(lang, text)| Snippet { lang: lang.to_owned(), text: format!("{text}\n") }).collect()
}

/// Lines of a shell, with our program on the path.
fn shell(dir: &Path, text: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_syncline")).parent().expect("a folder");
    let path = format!("{}:/usr/bin:/bin", program.display());
    let mut shell = Command::new("sh");
    shell.args(["-ec", text]).current_dir(dir).env_clear().env("HOME", dir).env("PATH", path).stdin(Stdio::null());
    shell.env("SHOP_TOKEN", "a-token-of-the-shop").env("SHOP_WEBHOOK_TOKEN", "a-secret-of-its-webhooks");
    shell.output().expect("it runs")
}

/// Without the time something took.
fn timeless(text: &str) -> String {
    let words = text.split(' ').scan("", |before, word| {
        let is_span = *before == "in" && word.parse::<u64>().is_ok();
        *before = word;
        Some(if is_span { "N" } else { word })
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A shop that has two contacts and takes orders.
fn shop() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = [0; 8192];
            let read = stream.read(&mut head).unwrap_or(0);
            let is_list = head[..read].starts_with(b"GET /contacts");
            let contact =
                |id: u32, name: &str| format!(r#"{{"id":"{id}","name":"{name}","updated_at":"2026-01-01T00:00:00Z"}}"#);
            let body = match is_list {
                true => format!(
                    r#"{{"data":[{},{},{}],"next":null}}"#,
                    contact(1, "Ada"),
                    contact(2, "Bela"),
                    contact(3, "Cy")
                ),
                false => r#"{"order":"o-1"}"#.to_owned(),
            };
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").expect("written");
        }
    });
    url
}

/// The definition of the page, for a shop that is there.
fn describe(dir: &Path, definition: &str, url: &str) {
    let here = definition.replace("https://api.shop.example", url);
    let settings = "encryption: \"off\"\negress: {allow_http: true, allow: [127.0.0.0/8]}\n";
    files(dir, &[("sources/shop.yaml", &here), ("syncline.yaml", settings)]);
}

/// The page's first five minutes, and its file.
#[test]
fn the_first_function_is_as_the_page_shows_it() {
    let all = snippets();
    let dir = tempfile::tempdir().expect("a folder");
    let [typed, shown, code] = &all[..3] else {
        panic!("the page begins with commands, what they print, and the file")
    };
    assert_eq!([&*typed.lang, &*shown.lang, &*code.lang], ["sh", "text", "ts"]);
    assert_eq!(timeless(&ended(&shell(dir.path(), &typed.text), 0)), timeless(&shown.text));
    let wrote = fs::read_to_string(dir.path().join("functions/shop/syncs/contacts.ts")).expect("written");
    let bare = |text: &str| {
        let kept = text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//"));
        kept.flat_map(str::split_whitespace).collect::<String>()
    };
    assert_eq!(bare(&wrote), bare(&code.text));
}

/// Everything behind it.
#[test]
fn every_other_snippet_of_the_page_holds() {
    let dir = tempfile::tempdir().expect("a folder");
    let here = dir.path();
    let all = snippets();
    let definition =
        all.iter().find(|snippet| snippet.text.starts_with("# sources/shop.yaml")).expect("the definition");
    for (number, snippet) in all.iter().enumerate().skip(3) {
        let _ = fs::remove_dir_all(here.join("functions"));
        ended(&syncline(here, &["functions", "init", "shop"]), 0);
        describe(here, &definition.text, &shop());
        let text = snippet.text.as_str();
        match snippet.lang.as_str() {
            "" if text.starts_with("functions/\n") => tree(here, text),
            // Where the two files are that the next snippet is one of.
            "" if text == "functions/shop/syncs/contacts.ts\nsources/shop.yaml\n" => {}
            "ts" => whole_file(here, text),
            "text" if text.contains("syntax Unexpected") => dev(here, text),
            "text" if text.starts_with("functions/") => complaints(here, text),
            "text" if text.starts_with("differs ") => difference(here, text),
            "json" => recording(here, text),
            "sh" => by_hand(here, text),
            "yaml" => part_of_a_definition(here, &definition.text, text),
            other => panic!("snippet {number} ({other}) is run by no test:\n{text}"),
        }
    }
}

/// The tree names each kind of place: a function in it is listed as that.
fn tree(dir: &Path, text: &str) {
    let file =
        |end: &str| text.lines().find_map(|line| line.trim().split_once(end).map(|(at, _)| format!("{at}{end}")));
    let of = |name: String| dir.join("functions/shop").join(name);
    let action = file("create-order.ts").expect("an action");
    let event = file("welcome.ts").expect("an event");
    for (name, text) in [(action, ACTION), (event, EVENT)] {
        fs::create_dir_all(of(name.clone()).parent().expect("a folder")).expect("made");
        fs::write(of(name), text).expect("written");
    }
    assert!(
        of(file("contacts.ts").expect("a sync")).is_file() && of(file(".test.json").expect("a recording")).is_file()
    );
    let listed = ended(&syncline(dir, &["functions", "list"]), 0);
    let kinds = listed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect::<Vec<_>>();
    assert_eq!(kinds, ["sync", "action", "event"], "{listed}");
}

const ACTION: &str = "import { createAction } from 'nango';\nimport { z } from 'zod';\n\nexport default createAction({\n    \
    description: 'Orders', input: z.object({ sku: z.string() }), output: z.object({ order: z.string() }),\n    \
    exec: async (nango, input) => (await nango.post({ endpoint: '/orders', data: input })).data\n});\n";
const EVENT: &str = "import { createOnEvent } from 'nango';\n\nexport default createOnEvent({\n    \
    event: 'post-connection-creation', description: 'Says so', exec: async (nango) => { await nango.log('hello'); }\n});\n";

/// A file in full: it compiles in the folder of what it creates.
fn whole_file(dir: &Path, text: &str) {
    let kinds = [("createSync", "syncs"), ("createAction", "actions"), ("createOnEvent", "on-events")];
    let (_, folder) = kinds.into_iter().find(|(create, _)| text.contains(create)).expect("a function");
    let _ = fs::remove_dir_all(dir.join("functions/shop"));
    files(dir, &[(&format!("functions/shop/{folder}/shown.ts"), text)]);
    ended(&syncline(dir, &["functions", "compile"]), 0);
}

/// Each complaint comes of a file that is wrong in this way.
fn complaints(dir: &Path, text: &str) {
    let wrong = [
        (
            "functions/shop/actions/run.ts",
            "import { createFunction } from 'nango';\nexport default createFunction({});\n",
        ),
        (
            "functions/shop/syncs/contacts.ts",
            "import { createSync } from 'nango';\nimport soap from 'soap';\nexport default createSync(soap);\n",
        ),
    ];
    files(dir, &wrong);
    let refused = syncline(dir, &["functions", "compile"]);
    ended(&refused, 78);
    let said = out(&refused) + &err(&refused);
    for line in text.lines() {
        assert!(said.contains(line.trim_end_matches('…').trim_end()), "{line}\nis not in\n{said}");
    }
}

/// The recording differs from what comes out in one name.
fn difference(dir: &Path, text: &str) {
    let test = dir.join("functions/shop/tests/contacts.test.json");
    let recorded = fs::read_to_string(&test).expect("a recording");
    fs::write(&test, recorded.replacen("\"Bela\"", "\"Béla\"", 1)).expect("changed");
    assert_eq!(ended(&syncline(dir, &["functions", "test"]), 1), text);
}

/// A recording in full is that of the first function.
fn recording(dir: &Path, text: &str) {
    files(dir, &[("functions/shop/tests/contacts.test.json", text)]);
    assert_eq!(
        ended(&syncline(dir, &["functions", "test"]), 0),
        "ok       shop/contacts: 1 request, 1 saved\n1 ok, 0 differ, 0 without a recording\n"
    );
}

/// Commands that run one function: the sync takes an event, and there is the action they name.
fn by_hand(dir: &Path, text: &str) {
    let sync = dir.join("functions/shop/syncs/contacts.ts");
    let code = fs::read_to_string(&sync).expect("a sync");
    let handler = "webhookSubscriptions: ['*'],\n    onWebhook: async (nango, event) => { await nango.batchSave([event], 'Contact'); },\n    exec:";
    fs::write(&sync, code.replacen("exec:", handler, 1)).expect("written");
    let event = r#"{"id": "9", "name": "Eve", "updated_at": "2026-01-01T00:00:00Z"}"#;
    let called = [("functions/shop/actions/create-order.ts", ACTION), ("functions/shop/on-events/welcome.ts", EVENT)];
    files(dir, &called);
    files(dir, &[("event.json", event)]);
    let said = ended(&shell(dir, text), 0);
    for wanted in [r#"{"id":"1","name":"Ada""#, "{\"order\":\"o-1\"}\nnull\n", r#"{"id":"9","name":"Eve""#] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
}

/// A part of a definition, laid into that of the page.
fn part_of_a_definition(dir: &Path, definition: &str, text: &str) {
    if text != definition {
        let sync = dir.join("functions/shop/syncs/contacts.ts");
        let code = fs::read_to_string(&sync).expect("a sync");
        let handler = "webhookSubscriptions: ['*'],\n    onWebhook: async () => {},\n    exec:";
        fs::write(&sync, code.replacen("exec:", handler, 1)).expect("written");
        files(dir, &[("sources/shop.yaml", &format!("{definition}{text}"))]);
    }
    ended(&shell(dir, "syncline validate"), 0);
}

/// `functions dev` with a name: what is wrong, and when it is mended, what the function does.
fn dev(dir: &Path, text: &str) {
    let file = dir.join("functions/shop/syncs/contacts.ts");
    let good = fs::read_to_string(&file).expect("written");
    let mut shown = text.lines();
    let complaint = shown.next().expect("a complaint");
    let place: Vec<&str> = complaint.split([':', ' ']).collect();
    let line: usize = place[1].parse().expect("a line");
    let mut lines: Vec<&str> = good.lines().collect();
    let wrong = format!("{}= wrong", " ".repeat(place[2].parse::<usize>().expect("a column") - 1));
    lines[line - 1] = &wrong;
    fs::write(&file, lines.join("\n")).expect("broken");
    let mut command = command(dir, &["functions", "dev", "--name", "contacts"]);
    let mut dev = command.env("SHOP_TOKEN", "a-token").stdout(Stdio::piped()).spawn().expect("runs");
    let mut said = BufReader::new(dev.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some(complaint));
    fs::write(&file, &good).expect("mended");
    for line in shown.take_while(|line| *line != "…") {
        assert_eq!(said.next().as_deref(), Some(line), "{text}");
    }
    let pid = dev.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    assert_eq!(dev.wait().expect("ends").code(), Some(130));
}
