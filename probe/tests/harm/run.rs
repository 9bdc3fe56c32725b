//! Runs `probe` and the programs of testdata, and waits for what they do.

use std::{
    io::Read,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Nothing here takes so long; what does, hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for something to become true, which happens elsewhere and cannot tell us.
#[track_caller]
pub(super) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
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
pub(super) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build").join(name);
    assert!(path.exists(), "{} is missing: make programs", path.display());
    path.canonicalize().expect("its path")
}

pub(super) fn as_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Sends a signal; a negative id means a process group.
pub(super) fn signal(name: &str, id: i64) {
    let status = Command::new("kill").args(["-s", name, "--", &id.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {id}");
}

/// Everything a stream said so far.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<(String, bool)>>);

impl Said {
    pub(super) fn collect(mut stream: impl Read + Send + 'static) -> Self {
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

    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// A `probe` that runs. Killed when dropped.
pub(super) struct Probe {
    pub(super) child: Child,
    pub(super) stdout: Said,
    pub(super) stderr: Said,
}

/// A `probe` that has ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Probe {
    pub(super) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.args(args).stdin(Stdio::null()).env_remove("PROBE_KERNEL_LACKS");
        command
    }

    pub(super) fn start(args: &[&str]) -> Self {
        Self::spawn(Self::command(args))
    }

    pub(super) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("probe can be started");
        let stdout = Said::collect(child.stdout.take().expect("a pipe"));
        let stderr = Said::collect(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Started, and its probes are in place.
    #[track_caller]
    pub(super) fn attached(args: &[&str]) -> Self {
        Self::start(args).when_said("Ctrl-C ends")
    }

    #[track_caller]
    pub(super) fn when_said(mut self, word: &str) -> Self {
        until(&format!("{word:?} on stderr"), || {
            let ended = self.child.try_wait().expect("its state");
            let stderr = self.stderr.text();
            assert!(ended.is_none() || stderr.contains(word), "it ended: {ended:?}: {stderr}");
            stderr.contains(word).then_some(())
        });
        self
    }

    pub(super) fn id(&self) -> i64 {
        i64::from(self.child.id())
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn status(&mut self) -> ExitStatus {
        until("the end of probe", || self.child.try_wait().expect("its state"))
    }

    /// Waits for its end, and for the ends of its streams.
    #[track_caller]
    pub(super) fn ended(mut self) -> Ended {
        let status = self.status();
        until("the ends of its streams", || (self.stdout.is_over() && self.stderr.is_over()).then_some(()));
        let ended = Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() };
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    pub(super) fn interrupted(self) -> Ended {
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
    pub(super) fn code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{:?}: {}", self.status.signal(), self.stderr);
        self
    }

    #[track_caller]
    pub(super) fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        self
    }

    /// Calls of a function in `--json`.
    #[track_caller]
    pub(super) fn calls(&self, function: &str) -> usize {
        calls(&self.stdout, function)
    }
}

/// Calls of a function in JSON lines, all of which must be whole.
#[track_caller]
pub(super) fn calls(lines: &str, function: &str) -> usize {
    let values = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    values.filter(|value| value["type"] == "call" && value["function"] == function).count()
}
