//! Harm: whatever happens to `probe` or to a target, the target goes on unharmed, nothing of ours stays in the
//! kernel, and what is said is clear. Live: needs root, bpftool, a C compiler and the programs under `testdata/build`.

mod ending;
mod kernel;
mod left;
mod refusal;
mod server;
mod target;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Nothing here takes so long; what does, hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for something to become true, which happens elsewhere and cannot tell us.
#[track_caller]
fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A test program, such as `c/counts`.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build").join(name);
    assert!(path.exists(), "{} is missing: make programs", path.display());
    path.canonicalize().expect("its path")
}

fn as_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Sends a signal; a negative id means a process group.
fn signal(name: &str, id: i64) {
    let status = Command::new("kill").args(["-s", name, "--", &id.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {id}");
}

/// Everything a stream said so far.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<(String, bool)>>);

impl Said {
    fn collect(mut stream: impl Read + Send + 'static) -> Self {
        let said = Self::default();
        let into = said.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let count = stream.read(&mut bytes).unwrap_or(0);
                let mut said = into.0.lock().unwrap_or_else(PoisonError::into_inner);
                said.0.push_str(&String::from_utf8_lossy(&bytes[..count]));
                said.1 = count == 0;
                if said.1 {
                    return;
                }
            }
        });
        said
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// A `probe` that runs. Killed when dropped.
struct Probe {
    child: Child,
    stdout: Said,
    stderr: Said,
}

/// A `probe` that has ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Probe {
    fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.args(args).stdin(Stdio::null()).env_remove("PROBE_KERNEL_LACKS");
        command
    }

    fn start(args: &[&str]) -> Self {
        Self::spawn(Self::command(args))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("probe can be started");
        let stdout = Said::collect(child.stdout.take().expect("a pipe"));
        let stderr = Said::collect(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Started, and its probes are in place.
    #[track_caller]
    fn attached(args: &[&str]) -> Self {
        Self::start(args).when_said("Ctrl-C ends")
    }

    #[track_caller]
    fn when_said(mut self, word: &str) -> Self {
        until(&format!("{word:?} on stderr"), || {
            let ended = self.child.try_wait().expect("its state");
            let stderr = self.stderr.text();
            assert!(ended.is_none() || stderr.contains(word), "it ended: {ended:?}: {stderr}");
            stderr.contains(word).then_some(())
        });
        self
    }

    fn id(&self) -> i64 {
        i64::from(self.child.id())
    }

    /// Waits for its end.
    #[track_caller]
    fn status(&mut self) -> ExitStatus {
        until("the end of probe", || self.child.try_wait().expect("its state"))
    }

    /// Waits for its end, and for the ends of its streams.
    #[track_caller]
    fn ended(mut self) -> Ended {
        let status = self.status();
        until("the ends of its streams", || (self.stdout.is_over() && self.stderr.is_over()).then_some(()));
        let ended = Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() };
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    fn interrupted(self) -> Ended {
        signal("INT", self.id());
        self.ended()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    fn code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{:?}: {}", self.status.signal(), self.stderr);
        self
    }

    #[track_caller]
    fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        self
    }

    /// Calls of a function in `--json`.
    #[track_caller]
    fn calls(&self, function: &str) -> usize {
        calls(&self.stdout, function)
    }
}

/// Calls of a function in JSON lines, all of which must be whole.
#[track_caller]
fn calls(lines: &str, function: &str) -> usize {
    let values = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    values.filter(|value| value["type"] == "call" && value["function"] == function).count()
}

/// `beat` and its library, built in a folder of their own: free to be replaced, deleted or spoilt.
struct Built(TempDir);

impl Built {
    fn new() -> Self {
        let built = Self(tempfile::tempdir().expect("a temporary folder"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harm");
        built.compile(&["-shared", "-fPIC", "-o", "libbeat.so", as_text(&source.join("libbeat.c"))]);
        built.compile(&["-o", "beat", as_text(&source.join("beat.c")), "-L.", "-lbeat", "-Wl,-rpath,$ORIGIN"]);
        built
    }

    fn compile(&self, args: &[&str]) {
        let status = Command::new("cc").args(["-O1", "-g"]).args(args).current_dir(self.0.path()).status();
        assert!(status.expect("a C compiler").success());
    }

    fn path(&self, name: &str) -> String {
        as_text(&self.0.path().join(name)).to_owned()
    }

    fn beat(&self) -> String {
        self.path("beat")
    }

    fn start(&self) -> Beat {
        Beat::start(Command::new(self.beat()))
    }
}

/// A running `beat`. Killed when dropped.
struct Beat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Beat {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("beat can be started");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut beat = Self { child, stdin, stdout };
        assert_eq!(beat.line(), "ready");
        beat
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn send(&mut self, order: &str) {
        writeln!(self.stdin.as_mut().expect("a pipe"), "{order}").expect("it reads");
    }

    /// Gives an order; it is carried out when this returns.
    #[track_caller]
    fn told(&mut self, order: &str) {
        self.send(order);
        assert_eq!(self.line(), order);
    }

    /// Ends it: unharmed to its last instruction.
    #[track_caller]
    fn ends_well(mut self) {
        self.told("beat 10");
        self.told("lib 10");
        self.stdin = None;
        let status = until("the end of beat", || self.child.try_wait().expect("its state"));
        assert_eq!(status.code(), Some(7), "{status:?}");
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process's direct children.
fn children(pid: i64) -> Vec<i64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().expect("an id")).collect::<Vec<_>>()).collect()
}
