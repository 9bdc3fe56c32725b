//! The servers, and their usual clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{as_text, program, signal, until};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `testdata/{go,rust}/server`, loaded by `testdata/go/load`.
    Orders,
    /// redis-server, loaded by redis-benchmark.
    Redis,
}

/// A server program in a folder of its own: free to be replaced.
pub(super) struct Target {
    kind: Kind,
    original: PathBuf,
    folder: TempDir,
    path: String,
}

/// It runs.
pub(super) struct Server {
    kind: Kind,
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Target {
    pub(super) fn all() -> Vec<Self> {
        let redis = Path::new("/usr/bin/redis-server").canonicalize().expect("`make setup-test` installs redis-server");
        vec![
            Self::go("go-server"),
            Self::new(Kind::Orders, program("rust/server"), "rust-server"),
            Self::new(Kind::Redis, redis, "redis"),
        ]
    }

    /// The Go server under another name.
    pub(super) fn go(name: &str) -> Self {
        Self::new(Kind::Orders, program("go/server"), name)
    }

    fn new(kind: Kind, original: PathBuf, name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        fs::copy(&original, &path).expect("a copy");
        Self { kind, original, path: as_text(&path).to_owned(), folder }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The program is written anew: over the old file, or as another under its name.
    pub(super) fn rebuild(&self, in_place: bool) {
        let new = self.folder.path().join("new");
        if in_place {
            // Whoever reads an ended process's /proc/PID/maps, as `probe` does, keeps its program from being written to for a moment.
            until("the program to be free", || match fs::copy(&self.original, &self.path) {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
                copied => Some(copied.expect("nobody runs it")),
            });
        } else {
            fs::copy(&self.original, &new).expect("a copy");
            fs::rename(&new, &self.path).expect("in one folder");
        }
    }

    /// Globs that match something: of packages, modules and beginnings of names that the program has.
    pub(super) fn patterns(&self) -> Vec<String> {
        let listed = Command::new(env!("CARGO_BIN_EXE_probe"))
            .args(["list", "--json", "-x", &self.path])
            .output()
            .expect("probe runs");
        let lines = String::from_utf8(listed.stdout).expect("JSON is UTF-8");
        let functions = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let probeable = functions.filter(|function| function["probeable"] == true);
        let names = probeable.filter_map(|function| Some(function["function"].as_str()?.to_owned()));
        let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:".contains(&b));
        let mut patterns: Vec<String> = names.filter(plain).step_by(37).map(|name| glob_around(&name)).collect();
        patterns.sort_unstable();
        patterns.dedup();
        patterns.push("*".to_owned());
        patterns
    }

    pub(super) fn start(&self) -> Server {
        let mut command = Command::new(&self.path);
        let port = free_port();
        if self.kind == Kind::Redis {
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        }
        command.stdout(Stdio::piped());
        // Another thread's child may for a moment hold what this program was copied with: "Text file busy".
        let mut child = until("the server to be startable", || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            started => Some(started.expect("the server can be started")),
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let address = match self.kind {
            Kind::Orders => read_address(&mut stdout),
            Kind::Redis => {
                until("redis to answer", || (cli(&port, &["ping"]).trim() == "PONG").then_some(()));
                port
            }
        };
        Server { kind: self.kind, child, stdout, address }
    }
}

/// `net/http.*` of `net/http.Get`, `tokio::runtime::*` of a function of it, `dict*` of `dictFind`.
fn glob_around(name: &str) -> String {
    let end = name.rfind(['.', ':']).map_or_else(|| name.len().min(4), |at| at + 1);
    format!("{}*", &name[..end])
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port().to_string()
}

fn read_address(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("its address");
    line.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {line}")).trim().to_owned()
}

fn cli(port: &str, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", port]).args(args).output().expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Server {
    pub(super) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends a few requests over eight connections, all of which must be answered: how many there were.
    pub(super) fn requests(&self) -> u64 {
        match self.kind {
            Kind::Orders => orders(&self.address),
            Kind::Redis => benchmark(&self.address),
        }
    }

    /// It has counted as many requests as were sent, and ends when asked.
    #[track_caller]
    pub(super) fn ends_well(mut self, sent: u64) {
        if self.kind == Kind::Redis {
            assert_eq!(commands(&self.address), sent, "redis has counted other commands");
        }
        signal("TERM", i64::from(self.child.id()));
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).expect("its last words");
        let status = until("the server's end", || self.child.try_wait().expect("its state"));
        assert!(status.success(), "{status:?}: {said}");
        if self.kind == Kind::Orders {
            let counts: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
            let handled = ["main.(*Store).Handler", "server::Store::handle"];
            let counted = handled.iter().find_map(|name| counts[name].as_u64());
            assert_eq!(counted.unwrap_or(0), sent, "{said}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn orders(address: &str) -> u64 {
    let mut load = Command::new(program("go/load"));
    let output = load.args(["-addr", address, "-n", "400"]).output().expect("the load can be started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert_eq!((&report["failures"], &report["hung"]), (&Value::from(0), &Value::from(0)), "{report} {stderr}");
    assert!(output.status.success(), "{stderr}");
    report["requests"].as_u64().expect("a number")
}

const COMMANDS: [&str; 5] = ["set", "get", "lpush", "zadd", "incr"];

#[track_caller]
fn benchmark(port: &str) -> u64 {
    let mut load = Command::new("redis-benchmark");
    load.args(["-p", port, "-n", "400", "-c", "8", "-P", "4", "-q", "-t", &COMMANDS.join(",")]);
    let output = load.output().expect("redis-benchmark is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("rror"), "{said}");
    400 * COMMANDS.len() as u64
}

/// Commands of the benchmark that redis has counted, none of which failed.
#[track_caller]
fn commands(port: &str) -> u64 {
    let stats = cli(port, &["info", "commandstats"]);
    let field = |line: &str, name: &str| -> u64 {
        let value = line.split([',', ':']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    let of = |command: &str| {
        stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")).map(str::to_owned))
    };
    let lines = COMMANDS.iter().filter_map(|command| of(command));
    lines.fold(0, |sum, line| {
        assert_eq!((field(&line, "failed_calls"), field(&line, "rejected_calls")), (0, 0), "{line}");
        sum + field(&line, "calls")
    })
}
