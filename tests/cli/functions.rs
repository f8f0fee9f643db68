//! `syncline functions …`: from a first file to a tested one, and what is said where something is wrong.

use super::{command, ended, err, lines, out, syncline};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes files with their folders.
pub(super) fn files(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
}

#[test]
fn the_repositorys_functions_are_as_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = ended(&syncline(root, &["functions", "test"]), 0);
    let wanted = "\
ok       github/issues: 2 requests, 3 saved
ok       github/create-issue: 1 request
ok       lists/contacts: 2 requests, 3 saved
ok       pocketbase/posts: 2 requests, 3 saved
4 ok, 0 differ, 0 without a recording
";
    assert_eq!(said, wanted);
    let said = ended(&syncline(root, &["functions", "compile"]), 0);
    assert!(said.starts_with("4 functions of 3 sources in ") && said.ends_with(" ms\n"), "{said}");
    let said = ended(&syncline(root, &["functions", "test", "hub/iss"]), 0);
    assert!(said.ends_with("\n1 ok, 0 differ, 0 without a recording\n"), "{said}");
    ended(&syncline(root, &["functions", "test", "nothing-has-this"]), 2);
}

#[test]
fn a_first_function_compiles_is_listed_and_passes_its_test() {
    let dir = tempfile::tempdir().expect("a folder");
    let here = |args: &[&str]| syncline(dir.path(), &[&["functions"], args].concat());
    let none = here(&["list"]);
    ended(&none, 78);
    assert!(
        err(&none).contains("no folder of functions at functions\nhint: `syncline functions init"),
        "{}",
        err(&none)
    );
    let wrote = ended(&here(&["init", "shop"]), 0);
    let names: Vec<&str> = wrote.lines().filter_map(|line| line.strip_prefix("wrote functions/")).collect();
    let wanted = [
        "shop/syncs/contacts.ts",
        "shop/tests/contacts.test.json",
        "tsconfig.json",
        "package.json",
        "nango.d.ts (for editors)",
        "globals.d.ts (for editors)",
    ];
    assert_eq!(names, wanted);
    assert!(wrote.ends_with("then `syncline functions compile` and `syncline functions test`\n"), "{wrote}");
    files(dir.path(), &[("functions/tsconfig.json", "{}"), ("functions/nango.d.ts", "of an older version")]);
    ended(&here(&["init", "shop", "open-issues"]), 0);
    assert_eq!(fs::read_to_string(dir.path().join("functions/tsconfig.json")).expect("kept"), "{}");
    let declared = fs::read_to_string(dir.path().join("functions/nango.d.ts")).expect("written anew");
    assert!(declared.contains("export function createSync"));
    let said = ended(&here(&["compile"]), 0);
    assert!(said.starts_with("2 functions of 1 source in "), "{said}");
    let wanted = "\
SOURCE  KIND  NAME         FREQUENCY   MODELS     FILE
shop    sync  contacts     every hour  Contact    functions/shop/syncs/contacts.ts
shop    sync  open-issues  every hour  OpenIssue  functions/shop/syncs/open-issues.ts
";
    assert_eq!(ended(&here(&["list"]), 0), wanted);
    let listed = lines(&ended(&here(&["list", "--json"]), 0));
    assert_eq!((&listed[0]["kind"], &listed[0]["file"]), (&"sync".into(), &"shop/syncs/contacts.ts".into()));
    assert_eq!(listed[1]["definition"]["models"]["OpenIssue"]["properties"]["name"]["type"], "string");
    assert!(ended(&here(&["test"]), 0).ends_with("2 ok, 0 differ, 0 without a recording\n"));
    let said = ended(&here(&["run", "contacts", "--mocks", "functions/shop/tests/contacts.test.json"]), 0);
    assert!(said.starts_with("Contact 2\n  {\"id\":\"1\",\"name\":\"Ada\""), "{said}");
    let alone = here(&["run", "contacts"]);
    ended(&alone, 2);
    assert!(
        err(&alone).contains("error: shop/contacts has no connection to run for\nhint: write one"),
        "{}",
        err(&alone)
    );
}

#[test]
fn init_overwrites_nothing_and_takes_no_name_that_could_not_be() {
    let dir = tempfile::tempdir().expect("a folder");
    files(dir.path(), &[("code/shop/tests/contacts.test.json", "mine")]);
    let refused = syncline(dir.path(), &["functions", "init", "shop", "--path", "code"]);
    ended(&refused, 1);
    let wanted = "error: code/shop/tests/contacts.test.json exists and is left as it is\nhint: choose another name: `syncline functions init shop NAME`\n";
    assert_eq!(err(&refused), wanted);
    assert!(!dir.path().join("code/shop/syncs").exists(), "nothing is written");
    for args in [["../x", "contacts"], ["shop", "Contacts"], ["shop", "a/b"]] {
        ended(&syncline(dir.path(), &[&["functions", "init"][..], &args].concat()), 2);
    }
    assert!(!dir.path().join("functions").exists(), "nothing is written");
}

#[test]
fn every_complaint_of_functions_has_its_place() {
    let sync = "import { createSync } from 'nango';\nimport { z } from 'zod';\nexport default createSync({ frequency: 'now and then', models: { Contact: z.object({ id: z.string() }) }, exec: async () => {} });\n";
    let dir = tempfile::tempdir().expect("a folder");
    files(
        dir.path(),
        &[
            (
                "functions/crm/syncs/contacts.ts",
                "import { createSync } from 'nango';\nimport soap from 'soap';\nexport default createSync(soap);\n",
            ),
            (
                "functions/crm/actions/run.ts",
                "import { createFunction } from 'nango';\nexport default createFunction({});\n",
            ),
        ],
    );
    let compile = || {
        let refused = syncline(dir.path(), &["functions", "compile"]);
        assert_eq!((refused.status.code(), out(&refused)), (Some(78), String::new()));
        err(&refused).lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(
        compile(),
        [
            "functions/crm/actions/run.ts:1:10 unsupported_function",
            "functions/crm/syncs/contacts.ts:2:18 unknown_package",
        ]
    );
    fs::remove_dir_all(dir.path().join("functions/crm/actions")).expect("removed");
    files(dir.path(), &[("functions/crm/syncs/contacts.ts", sync)]);
    assert_eq!(compile(), ["functions/crm/syncs/contacts.ts:3:29 bad_frequency"]);
    // The program says the same when it starts.
    let start = syncline(dir.path(), &["validate"]);
    let wanted = "functions/crm/syncs/contacts.ts:3:29 bad_frequency `frequency`: ";
    assert!(ended(&start, 78).is_empty() && err(&start).contains(wanted), "{}", err(&start));
    files(dir.path(), &[("functions/crm/syncs/contacts.ts", &sync.replace("frequency: 'now and then', ", ""))]);
    assert_eq!(compile(), ["functions/crm/syncs/contacts.ts:3:16 no_frequency"]);
    fs::remove_dir_all(dir.path().join("functions/crm/syncs")).expect("removed");
    let event = "import { createOnEvent } from 'nango';\nexport default createOnEvent({\n    \
                 event: 'post-connection-deletion',\n    exec: async () => {}\n});\n";
    files(dir.path(), &[("functions/crm/on-events/gone.ts", event)]);
    assert_eq!(compile(), ["functions/crm/on-events/gone.ts:3:5 unknown_event"]);
    files(dir.path(), &[("functions/crm/nango.yaml", "integrations: {}\n")]);
    assert_eq!(compile(), ["functions/crm/nango.yaml:1:1 old_format"]);
}

#[test]
fn a_recording_that_differs_is_1_and_names_the_field() {
    let dir = tempfile::tempdir().expect("a folder");
    let here = |args: &[&str]| syncline(dir.path(), &[&["functions"], args].concat());
    ended(&here(&["init", "shop"]), 0);
    ended(&here(&["init", "shop", "orders"]), 0);
    let test = dir.path().join("functions/shop/tests/contacts.test.json");
    let recorded = fs::read_to_string(&test).expect("written");
    let with = |from: &str, to: &str| {
        assert!(recorded.contains(from), "{from}");
        fs::write(&test, recorded.replacen(from, to, 1)).expect("written");
        ended(&here(&["test", "contacts"]), 1)
    };
    let field = with("\"Bela\"", "\"Béla\"");
    let wanted = "differs  shop/contacts\n         Contact, saved record 2 (id 2): .name is \"Bela\"; recorded is \"Béla\"\n0 ok, 1 differ, 0 without a recording\n";
    assert_eq!(field, wanted);
    let request = with("\"c1\" } }", "\"c2\" } }");
    let wanted = "GET /contacts?cursor=c1&limit=100 was not recorded; nearest are: GET /contacts?limit=100 with the parameter cursor absent; GET /contacts?cursor=c2&limit=100 with the parameter cursor `c2`";
    assert!(
        request.contains("functions/shop/syncs/contacts.ts:") || request.contains("shop/syncs/contacts.ts:"),
        "{request}"
    );
    assert!(request.contains(wanted), "{request}");
    let broken = with("\"nango\": {", "\"nango\" {");
    assert!(broken.contains("functions/shop/tests/contacts.test.json:2:13 bad_recording "), "{broken}");
    fs::rename(&test, dir.path().join("functions/shop/tests/people.test.json")).expect("renamed");
    let renamed = ended(&here(&["test"]), 1);
    let wanted = "differs  functions/shop/tests/people.test.json: there is no function of this name\n1 ok, 1 differ, 1 without a recording\n";
    assert!(renamed.ends_with(wanted), "{renamed}");
}

#[test]
fn a_server_reads_functions_again_at_sighup() {
    let dir = tempfile::tempdir().expect("a folder");
    ended(&syncline(dir.path(), &["functions", "init", "shop"]), 0);
    let settings = "listen: 127.0.0.1:0\nencryption: \"off\"\nlogs: {format: pretty}\n\
         api_keys: [{name: test, key: \"env:SYNCLINE_API_KEY\", role: admin}]\n";
    let source = "{source: shop, base_url: https://shop.example, auth: {type: bearer}}";
    files(dir.path(), &[("syncline.yaml", settings), ("sources/shop.yaml", source)]);
    let mut command = command(dir.path(), &["serve"]);
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut said = BufReader::new(server.stderr.take().expect("piped")).lines().map_while(Result::ok);
    // Until it listens for the signal, it would end the server.
    let signals = format!("/proc/{}/status", server.id());
    let begun = std::time::Instant::now();
    while !fs::read_to_string(&signals).expect("it runs").lines().any(|line| {
        let caught = line.strip_prefix("SigCgt:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & 1 == 1)
    }) {
        assert!(begun.elapsed().as_secs() < 60, "it listens for no SIGHUP");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    files(dir.path(), &[("functions/shop/syncs/contacts.ts", "export default ;")]);
    let pid = server.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill runs").success());
    let wanted = "functions are not reloaded, those before run on: ";
    assert!(said.any(|line| line.contains(wanted) && line.contains("functions/shop/syncs/contacts.ts:1:16 syntax")));
    server.kill().expect("ended");
    server.wait().expect("ended");
}

#[test]
fn dev_tells_what_is_wrong_at_each_change_until_it_is_interrupted() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = syncline(dir.path(), &["functions", "dev"]);
    ended(&refused, 78);
    assert!(err(&refused).contains("no folder of functions at functions"), "{}", err(&refused));
    ended(&syncline(dir.path(), &["functions", "init", "shop"]), 0);
    let file = dir.path().join("functions/shop/syncs/contacts.ts");
    let good = fs::read_to_string(&file).expect("written");
    let mut dev = command(dir.path(), &["functions", "dev"]).stdout(Stdio::piped()).spawn().expect("runs");
    let mut said = BufReader::new(dev.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("ok, 1 function"));
    fs::write(&file, good.replacen("frequency: 'every hour'", "frequency: 'now and then'", 1)).expect("broken");
    assert_eq!(said.next().as_deref(), Some(""));
    let complaint = said.next().unwrap_or_default();
    let line = 1 + good.lines().position(|line| line.contains("frequency:")).expect("there");
    let wanted = format!("functions/shop/syncs/contacts.ts:{line}:5 bad_frequency ");
    assert!(complaint.starts_with(&wanted), "{complaint}");
    ended(&syncline(dir.path(), &["functions", "init", "shop", "orders"]), 0);
    fs::write(&file, &good).expect("mended");
    assert_eq!(said.find(|line| line.starts_with("ok")).as_deref(), Some("ok, 2 functions"));
    let pid = dev.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    assert_eq!(dev.wait().expect("ends").code(), Some(130));
}
