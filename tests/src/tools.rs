//! Programs of others that interop tests run: found, fetched by their ordinary package managers, bounded in time.
//!
//! What is built or fetched lies in `interop/` below the target folder and is used again. A missing tool is an error that
//! says which one and where to get it, never a test that passes without having run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest a build or download may take: PocketBase from cold on a slow machine.
pub const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Between two looks at a process of somebody else, who offers nothing to wait on.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Go from here on fetches the newer toolchain a module asks for.
const GO_MINOR_MIN: u32 = 21;
/// What the npm packages ask for.
const NODE_MAJOR_MIN: u32 = 20;

/// A process that ends with this value.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with its output going to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Running, String> {
        let told = |e: std::io::Error| format!("{}: {e}", command.get_program().to_string_lossy());
        let output = File::create(log).map_err(told)?;
        let errors = output.try_clone().map_err(told)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child =
            command.spawn().map_err(|e| format!("{} does not start: {e}", command.get_program().to_string_lossy()))?;
        Ok(Running { child, log: log.into() })
    }

    /// How it ended, if it did within `limit`; it is stopped otherwise.
    pub fn wait(mut self, limit: Duration) -> Result<ExitStatus, String> {
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if began.elapsed() > limit => {
                    return Err(format!("not done after {limit:?}\n{}", self.said()));
                }
                Ok(None) => thread::sleep(LOOK_AGAIN),
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// What it has written so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it runs no more.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end; its output if it succeeded within `limit`.
pub fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<String, String> {
    let what = format!("{command:?}");
    let running = Running::start(command, log)?;
    let status = running.wait(limit).map_err(|e| format!("{what}: {e}"))?;
    let said = fs::read_to_string(log).unwrap_or_default();
    if status.success() { Ok(said) } else { Err(format!("{what}: {status}\n{said}")) }
}

/// A folder for `name` below the target folder, kept from run to run.
pub fn cache(name: &str) -> PathBuf {
    // The test's program lies in <target>/<profile>/deps.
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = target.join("interop").join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    folder
}

/// A folder of this package's sources.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A go that is new enough.
pub fn go() -> Result<PathBuf, String> {
    let mut places = vec![PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    let packaged = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    places.extend(packaged.filter(|p| p.to_string_lossy().contains("/go-1.")).map(|p| p.join("bin/go")));
    let wanted = |go: &PathBuf| version(go, &["env", "GOVERSION"]).is_some_and(|v| v >= (1, GO_MINOR_MIN));
    places.into_iter().find(wanted).ok_or_else(|| {
        format!("go is missing: this test builds PocketBase with go 1.{GO_MINOR_MIN} or newer (https://go.dev/dl)")
    })
}

/// A node that is new enough, with its npm.
pub fn node() -> Result<(PathBuf, PathBuf), String> {
    let (node, npm) = (PathBuf::from("node"), PathBuf::from("npm"));
    let there = version(&node, &["--version"]).is_some_and(|v| v >= (NODE_MAJOR_MIN, 0))
        && version(&npm, &["--version"]).is_some();
    there.then_some((node, npm)).ok_or_else(|| {
        format!("node is missing: this test runs npm packages with node {NODE_MAJOR_MIN} or newer and npm (https://nodejs.org)")
    })
}

/// Builds the Go program in `folder` (of the tests' sources) and answers where it is.
pub fn build_go(folder: &str, name: &str) -> Result<PathBuf, String> {
    let cache = cache(name);
    let program = cache.join(name);
    let mut command = Command::new(go()?);
    command.current_dir(source(folder)).args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    run(&mut command, &cache.join("build.log"), FETCH_LIMIT)?;
    Ok(program)
}

/// Copies an npm project out of the tests' sources, installs exactly what its lock file names, and answers where it is.
pub fn install_npm(folder: &str, name: &str) -> Result<PathBuf, String> {
    let (_, npm) = node()?;
    let cache = cache(name);
    let told = |e: std::io::Error| format!("{}: {e}", cache.display());
    for entry in fs::read_dir(source(folder)).map_err(told)?.flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), cache.join(entry.file_name())).map_err(told)?;
    }
    let lock = fs::read(cache.join("package-lock.json")).map_err(told)?;
    let stamp = cache.join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(cache);
    }
    let mut command = Command::new(npm);
    command.current_dir(&cache).args(["ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"]);
    run(&mut command, &cache.join("npm.log"), FETCH_LIMIT)?;
    fs::write(stamp, lock).map_err(told)?;
    Ok(cache)
}

/// The first two numbers of a version, such as `go1.26.8` or `v20.20.2`.
fn version(program: &Path, arguments: &[&str]) -> Option<(u32, u32)> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
