//! The tests are tested: with a bug planted, the ordinary test that should notice it fails.
//!
//! Each bug of the table is planted by its name at run time (`SYNCLINE_PLANT`, see `engine/src/fault`) in a process that runs
//! nothing but the test that must notice it; without it the same test has to pass. A bug that no test notices is a hole in the
//! tests, and is closed by a test with a name of its own, beside its likes and not here.
//!
//! `SYNCLINE_TEST_PLANT=name` tries one bug alone.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use syncline_tests::crash::side_by_side;
use syncline_tests::ledger::{self, Trial};

/// The name of a bug, and the test that must notice it: its file and its name.
type Plant = (&'static str, &'static str, &'static str);

const ENGINE: &str = "engine/tests/it/main.rs";
const RUN: &str = "engine/tests/it/main.rs";
const VERIFY: &str = "connectors/src/lib.rs";
const PROGRAM: &str = "src/lib.rs";
const REST: &str = "connectors/tests/connectors/main.rs";
const WEBHOOKS: &str = "tests/tests/it/main.rs";
const PROMISES: &str = "tests/tests/it/main.rs";

const PLANTS: &[Plant] = &[
    // What was accepted.
    ("dedupe_key_outside_the_batch", WEBHOOKS, "webhooks::however_processing_is_cut_off_every_event_is_taken_once"),
    ("dedupe_reads_then_writes", WEBHOOKS, "webhooks::a_repeated_delivery_changes_nothing"),
    ("body_cut_at_the_limit", WEBHOOKS, "webhooks::over_http"),
    ("missing_secret_accepted", VERIFY, "webhooks::verify::tests::every_edit_and_loss_is_refused"),
    ("signature_compared_up_to_the_shorter", VERIFY, "webhooks::verify::tests::signature_lists"),
    ("stamp_checked_on_one_side", VERIFY, "webhooks::verify::tests::time_is_checked_to_both_sides"),
    // What is read from others.
    ("bookmark_before_its_page", RUN, "run::a_run_that_is_cut_off_anywhere_has_stored_what_lies_before_its_place"),
    ("deletes_after_a_doubtful_listing", RUN, "run::only_a_proven_listing_deletes"),
    ("deletes_after_a_failed_page", RUN, "run::a_listing_that_fails_on_its_way_deletes_nothing"),
    (
        "window_begun_behind_the_first_page",
        RUN,
        "run::what_a_webhook_brings_while_the_first_page_is_on_its_way_is_not_missing",
    ),
    (
        "empty_page_ends_the_list",
        "connectors/tests/connectors/main.rs",
        "lies::records_behind_an_empty_page_stay_when_the_api_counts_on_to_them",
    ),
    ("redirect_followed", REST, "rest::neither_links_nor_redirects_take_the_sign_in_to_another_origin"),
    // What is kept.
    ("merge_by_arrival", ENGINE, "engine::what_is_older_than_a_delete_brings_nothing_back"),
    ("tombstone_forgotten", ENGINE, "engine::what_is_older_than_a_delete_brings_nothing_back"),
    ("older_page_undoes_a_webhook", ENGINE, "engine::a_poll_loses_to_a_writer_that_came_after_its_request"),
    ("iterator_error_ignored", PROMISES, "engine::what_cannot_be_read_is_not_left_out"),
    ("names_joined_by_a_separator", PROMISES, "engine::marks_are_found_by_whole_parts"),
    (
        "recovery_leaves_what_was_not_committed",
        "tests/tests/reliability/main.rs",
        "crash::killed_at_random_moments_it_keeps_what_it_acknowledged",
    ),
    // What is given to others.
    ("any_key_is_as_good", "tests/tests/it/main.rs", "api::keys_open_their_environment_and_no_other"),
    ("cursor_without_mac", "engine/src/lib.rs", "model::cursor::tests::round_trip_and_refusals"),
    ("delivery_given_up_early", PROGRAM, "sinks::deliveries::schedule::tests::twelve_tries_within_the_jitter"),
    ("delivery_settled_before_its_answer", WEBHOOKS, "webhooks::a_delivery_is_owed_until_its_receiver_has_answered"),
    ("retry_with_a_new_id", WEBHOOKS, "webhooks::a_failing_receiver_gets_the_same_id_until_it_works"),
    (
        "sink_place_before_the_delivery",
        "engine/tests/it/main.rs",
        "feed::what_a_sink_refuses_is_kept_for_the_next_feed",
    ),
];

/// Longest that one test may take; those of the table take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tests that repeat themselves do so this often here: enough to notice.
const SHORT: &[(&str, &str)] = &[("CRASH_CYCLES", "8"), ("SYNCLINE_CASES", "8")];

#[test]
fn every_planted_bug_is_noticed() {
    let one = std::env::var("SYNCLINE_TEST_PLANT").ok();
    let plants: Vec<&Plant> =
        PLANTS.iter().filter(|(name, ..)| one.as_deref().is_none_or(|one| one == *name)).collect();
    assert!(!plants.is_empty(), "no bug has the name {one:?}");
    let executables = executables();
    let find = |(_, file, _): &Plant| executables.get(*file).unwrap_or_else(|| panic!("{file} is no test"));
    let mut trial = Trial::of("plants");
    let tests: BTreeSet<(&str, &str)> = plants.iter().map(|(_, file, test)| (*file, *test)).collect();
    let sound = side_by_side(tests, |(file, test)| {
        let ended = run(&executables[file], test, None);
        assert!(ended == Ended::Passed, "{file}: {test} has to pass where no bug is planted: {ended:?}");
    });
    assert!(sound.is_ok(), "a test of the table does not pass as it is");
    let noticed = side_by_side(plants.iter().copied(), |plant| {
        let (began, ended) = (Instant::now(), run(find(plant), plant.2, Some(plant.0)));
        println!("{}: {ended:?} after {:.1?}", plant.0, began.elapsed());
        assert!(ended == Ended::Failed, "{} is not noticed by {}: {}: {ended:?}", plant.0, plant.1, plant.2);
    });
    trial.add(plants.len() as u64);
    let missed = noticed.err().unwrap_or_default();
    trial.failed(missed as u64);
    assert_eq!(missed, 0, "of {} planted bugs", plants.len());
}

/// Whoever plants a bug says which test notices it.
#[test]
fn every_planted_bug_is_in_the_table() {
    let mut planted = BTreeSet::new();
    for folder in ["engine/src", "connectors/src", "src"] {
        names(&ledger::root().join(folder), &mut planted);
    }
    let listed: BTreeSet<String> = PLANTS.iter().map(|(name, ..)| name.to_string()).collect();
    assert_eq!(planted, listed);
    assert!(listed.len() == PLANTS.len() && listed.len() >= 20, "at least twenty, each once");
}

/// Names of bugs in the sources below a folder.
fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            let rests = text.split("planted(\"").skip(1);
            found.extend(rests.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()));
        }
    }
}

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    /// Without a result of its own: what it said last.
    Otherwise(String),
}

/// A test executable, and the folder of its package.
type Executable = (PathBuf, PathBuf);

/// Runs one test of an executable.
fn run((program, folder): &Executable, test: &str, plant: Option<&str>) -> Ended {
    let output = tempfile::tempfile().expect("a file");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--test-threads=1"]).current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
    command.envs(SHORT.iter().copied()).env(ledger::FILE, "/dev/null").env_remove("SYNCLINE_PLANT");
    command.envs(plant.map(|plant| ("SYNCLINE_PLANT", plant)));
    command.stdin(Stdio::null()).stderr(output.try_clone().expect("a file"));
    let mut child = command.stdout(output.try_clone().expect("a file")).spawn().expect("the test starts");
    let began = Instant::now();
    while child.try_wait().expect("the state of the child").is_none() {
        if began.elapsed() > PATIENCE {
            // SIGKILL to this child only, by its id.
            let _ = child.kill();
            let _ = child.wait();
            return Ended::Otherwise(format!("it did not end within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    result(&said(output))
}

fn said(mut file: std::fs::File) -> String {
    use std::io::Seek;
    let mut said = Vec::new();
    file.rewind().expect("the beginning");
    file.read_to_end(&mut said).expect("what it said");
    String::from_utf8_lossy(&said).into_owned()
}

/// What the harness says at the end of exactly one test.
fn result(said: &str) -> Ended {
    match said.lines().rev().find_map(|line| line.strip_prefix("test result: ")) {
        Some(line) if line.starts_with("ok. 1 passed; 0 failed; 0 ignored;") => Ended::Passed,
        Some(line) if line.starts_with("FAILED. 0 passed; 1 failed;") => Ended::Failed,
        _ => Ended::Otherwise(said.lines().rev().take(5).collect::<Vec<_>>().join(" / ")),
    }
}

/// The test executables of the workspace by their source files. Cargo knows them; as a rule it has nothing to build.
fn executables() -> BTreeMap<String, Executable> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--no-run", "--locked", "--message-format=json"]);
    // What Cargo has set for this test would look like another environment to what it builds.
    let of_this_test = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start))
            || matches!(name, "CARGO_PRIMARY_PACKAGE" | "LD_LIBRARY_PATH")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_test)) {
        cargo.env_remove(name);
    }
    let built = cargo.current_dir(ledger::root()).stdin(Stdio::null()).output().expect("cargo starts");
    assert!(built.status.success(), "cargo: {}", String::from_utf8_lossy(&built.stderr));
    let root = ledger::root().canonicalize().expect("the checkout");
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let path = |value: &Value| value.as_str().map(PathBuf::from);
        let test = message["profile"]["test"] == true;
        let Some(program) = path(&message["executable"]).filter(|_| test) else { continue };
        let (Some(source), Some(manifest)) = (path(&message["target"]["src_path"]), path(&message["manifest_path"]))
        else {
            continue;
        };
        let source = source.strip_prefix(&root).expect("a file of the checkout").display().to_string();
        let folder = manifest.parent().expect("a folder").to_owned();
        found.insert(source, (program, folder));
    }
    found
}

#[test]
fn results_are_those_of_exactly_one_test() {
    let passed = "running 1 test\n.\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n";
    assert_eq!(result(passed), Ended::Passed);
    let none = "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out\n";
    assert!(matches!(result(none), Ended::Otherwise(_)), "a name that no test has");
    let failed = "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out\n";
    assert_eq!(result(failed), Ended::Failed);
    assert!(matches!(result("thread panicked while processing panic. aborting.\n"), Ended::Otherwise(_)));
}
