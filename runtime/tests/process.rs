//! A worker process for the tests: well behaved, or ill in one way, by its first argument.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use syncline_runtime::worker;

fn main() -> ExitCode {
    let how = std::env::args().nth(1).unwrap_or_default();
    match how.as_str() {
        "crash" => {
            eprintln!("no library libmissing.so");
            ExitCode::from(3)
        }
        "garbage" => {
            // Ready, and then a message there is none of.
            let frames = [1, 0, 0, 0, 0, 1, 0, 0, 0, 99];
            let _ = rustix::io::write(rustix::stdio::stdin(), &frames);
            std::thread::sleep(std::time::Duration::from_secs(30));
            ExitCode::SUCCESS
        }
        "huge" => {
            let frames = [1, 0, 0, 0, 0, 255, 255, 255, 255];
            let _ = rustix::io::write(rustix::stdio::stdin(), &frames);
            std::thread::sleep(std::time::Duration::from_secs(30));
            ExitCode::SUCCESS
        }
        "probe" => {
            let code = worker::main();
            // Still confined: what would code find that got out of its sandbox?
            let file = File::open("/etc/passwd").map(drop);
            let written = File::create("/tmp/escaped").map(drop);
            let socket = TcpStream::connect("127.0.0.1:1").map(drop);
            let program = Command::new("/bin/true").spawn().map(drop);
            let told = format!("file {file:?}\nwritten {written:?}\nsocket {socket:?}\nprogram {program:?}\n");
            let _ = std::io::stderr().write_all(told.as_bytes());
            code
        }
        "parent" => parent(),
        _ => worker::main(),
    }
}

/// Begins a worker that is busy, tells its id, and waits to be killed.
fn parent() -> ExitCode {
    let folder = std::env::args().nth(2).unwrap_or_default();
    let file = std::env::args().nth(3).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let modules = syncline_runtime::compile::compile(folder.as_ref()).expect("modules");
        let command = Command::new(std::env::current_exe().expect("a program"));
        let worker = worker::Worker::spawn(command, worker::Options::default()).await.expect("a worker");
        let invocation = syncline_runtime::wire::Invocation {
            file,
            about: r#"{"kind":"exec","checkpoint":null}"#.to_owned(),
            models: vec!["Contact".to_owned()],
            limits: syncline_runtime::wire::Limits::EXEC,
            now: None,
            seed: 0,
        };
        let mut running = worker.begin(&modules, invocation).await.expect("an invocation");
        println!("{}", worker.pid());
        running.next().await;
    });
    ExitCode::SUCCESS
}
