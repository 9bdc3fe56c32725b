//! Starting `probe` and programs, and waiting for them: for words, not for time.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use crate::{children, trace::Trace};

/// What hangs for so long is ended, and its test fails.
const HANG: Duration = Duration::from_secs(180);

/// A program of `testdata/build`.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build").join(name);
    path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}; `make programs` builds it", path.display()))
}

/// The same as text.
pub(crate) fn path(name: &str) -> String {
    program(name).into_os_string().into_string().expect("a path in UTF-8")
}

/// What a process that ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit status, which is a code.
    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }

    /// stdout of a success.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code(), 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command to its end, with nothing on stdin.
pub(crate) fn run(program: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Ended {
    let mut command = Command::new(program);
    command.args(args);
    Process::start(command).finish()
}

/// Runs `probe` to its end.
pub(crate) fn probe(args: &[impl AsRef<OsStr>]) -> Ended {
    run(env!("CARGO_BIN_EXE_probe"), args)
}

/// A program that takes orders, and is ready.
pub(crate) fn host(path: impl AsRef<OsStr>) -> Process {
    let mut process = Process::start(Command::new(path));
    process.await_line("ready");
    process
}

/// A copy of a program in a folder of its own: no other test runs it, by whatever name.
pub(crate) fn private_copy(name: &str, called: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let copy = folder.path().join(called);
    std::fs::copy(program(name), &copy).expect("a copy can be made");
    (folder, copy)
}

/// Runs a tool to its end; its stdout.
pub(crate) fn tool(program: &str, args: &[impl AsRef<OsStr>]) -> String {
    run(program, args).success()
}

/// Functions by `nm`: name → address.
pub(crate) fn nm(path: &Path) -> BTreeMap<String, u64> {
    let listed = tool("nm", &[path]);
    let parse = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        let (kind, name) = rest.split_once(' ')?;
        let is_code = matches!(kind, "T" | "t" | "W");
        is_code.then_some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
    };
    listed.lines().filter_map(parse).collect()
}

/// A process with pipes on its three streams. It is ended when dropped.
pub(crate) struct Process {
    pid: u32,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<String>,
    /// Lines of stderr as they come.
    said: mpsc::Receiver<String>,
    child: Option<Child>,
    /// Ends it when it hangs.
    watchdog: Option<mpsc::Sender<()>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("failed to start {command:?}: {e}"));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (say, said) = mpsc::channel();
        let stderr = thread::spawn(move || {
            let (mut all, mut line) = (Vec::new(), Vec::new());
            while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                all.extend_from_slice(&line);
                let _ = say.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        let (watchdog, ended) = mpsc::channel::<()>();
        let pid = child.id();
        thread::spawn(move || {
            // Not yet waited for: the pid is still this child's.
            if ended.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
                signal(pid, "KILL");
            }
        });
        Self {
            pid,
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().expect("piped")),
            stderr,
            said,
            child: Some(child),
            watchdog: Some(watchdog),
        }
    }

    /// A program of testdata that waits for [`Self::go`], and is ready.
    pub(crate) fn waiting(program: impl AsRef<OsStr>, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).arg("--wait");
        let mut process = Self::start(command);
        process.await_line("ready");
        process
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads stdout up to this line.
    #[track_caller]
    pub(crate) fn await_line(&mut self, wanted: &str) {
        let line = self.await_some(|line| line == wanted);
        assert!(line.is_some(), "it never said '{wanted}'");
    }

    /// Reads stdout up to a line that fits; none when it ended before.
    pub(crate) fn await_some(&mut self, fits: impl Fn(&str) -> bool) -> Option<String> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).is_ok_and(|n| n > 0) {
            if fits(line.trim_end()) {
                return Some(line.trim_end().to_owned());
            }
            line.clear();
        }
        None
    }

    /// Reads stderr up to a line with this in it: `probe: tracing` comes when the probes are in place.
    #[track_caller]
    pub(crate) fn await_said(&self, wanted: &str) {
        if let Err(before) = self.said(wanted) {
            panic!("it never said '{wanted}': {before}");
        }
    }

    /// The same; what it said instead, when it ended before.
    fn said(&self, wanted: &str) -> Result<(), String> {
        let mut before = String::new();
        for line in &self.said {
            if line.contains(wanted) {
                return Ok(());
            }
            before.push_str(&line);
        }
        Err(before)
    }

    /// Tells a program that takes orders what to do, and waits until it has.
    #[track_caller]
    pub(crate) fn order(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").expect("it reads");
        self.await_line("done");
    }

    /// Tells it to become another program that takes orders, and waits until that is ready.
    #[track_caller]
    pub(crate) fn order_exec(&mut self, path: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "exec {path}").expect("it reads");
        self.await_line("ready");
    }

    /// Gives a program that reads its input something to read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("stdin is open").write_all(bytes).expect("it reads");
    }

    /// Lets a program that waits work.
    pub(crate) fn go(&mut self) {
        self.feed(b"go\n");
    }

    /// Ctrl-C and its like.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Ended {
        drop(self.stdin.take());
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).expect("stdout can be read");
        let status = self.child.as_mut().expect("not waited for").wait().expect("it is a child");
        self.child = None;
        self.watchdog = None;
        let stderr = std::mem::replace(&mut self.stderr, thread::spawn(String::new)).join().expect("stderr was read");
        Ended { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
}

/// A `probe --json -o FILE` that is in place.
pub(crate) struct Tracer {
    process: Process,
    folder: TempDir,
}

impl Tracer {
    /// Starts it and waits until its probes are in place.
    pub(crate) fn start(args: &[impl AsRef<OsStr>]) -> Self {
        let tracer = Self::starting(args);
        tracer.await_said("probe: tracing");
        tracer
    }

    /// Starts it, and does not wait.
    pub(crate) fn starting(args: &[impl AsRef<OsStr>]) -> Self {
        Self::spawn(&[], args)
    }

    /// Whether it says this; false when it ends before.
    pub(crate) fn says(&self, wanted: &str) -> bool {
        self.process.said(wanted).is_ok()
    }

    /// Waits for the end of one that never began to trace.
    pub(crate) fn refused(self) -> Ended {
        self.process.finish()
    }

    /// Everything is wanted, so nothing is shed, unless a test says how much may be.
    fn spawn(variables: &[(&str, &OsStr)], args: &[impl AsRef<OsStr>]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.arg("--json").arg("-o").arg(folder.path().join("trace"));
        if !args.iter().any(|arg| arg.as_ref() == "--budget") {
            command.args(["--budget", "0"]);
        }
        command.args(args);
        command.envs(variables.iter().copied());
        Self { process: Process::start(command), folder }
    }

    /// Reads what it says up to a line with this in it.
    #[track_caller]
    pub(crate) fn await_said(&self, wanted: &str) {
        self.process.await_said(wanted);
    }

    /// What it has written so far: what it was told of goes there some times a second.
    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("trace")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Traced {
        let Self { process, folder } = self;
        let ended = process.finish();
        let file = folder.path().join("trace");
        assert!(file.exists(), "no trace: {ended:?}");
        Traced { trace: Trace::read(&file), ended }
    }

    /// Ends it as nothing can be told: the trace is of no use then.
    pub(crate) fn kill(self) {
        self.process.signal("KILL");
        self.process.finish();
    }

    /// Ctrl-C, and its end.
    pub(crate) fn interrupt(self) -> Traced {
        self.process.signal("INT");
        self.finish()
    }
}

/// A trace, and what `probe` said.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) ended: Ended,
    pub(crate) trace: Trace,
}

impl Traced {
    /// Events lost of this function: entries (`what` = "entries") or returns ("returns"), as told on stderr.
    pub(crate) fn lost(&self, what: &str, function: &str) -> u64 {
        let is_it = |line: &&str| line.strip_prefix("probe: ").is_some_and(|l| l.contains(&format!(" {what} lost: ")));
        let Some(line) = self.ended.stderr.lines().find(is_it) else { return 0 };
        let named = line.split_once(" lost: ").map_or("", |(_, named)| named);
        let of = |part: &str| part.strip_prefix(function)?.strip_prefix(' ')?.parse::<u64>().ok();
        named.split(", ").filter_map(of).sum()
    }

    /// Events lost, all together.
    pub(crate) fn lost_total(&self) -> u64 {
        self.trace.summary["lost"].as_u64().expect("a number")
    }
}

/// `probe --json -o FILE OPTIONS... -- COMMAND...`, to its end.
pub(crate) fn trace(options: &[impl AsRef<OsStr>], command: &[impl AsRef<OsStr>]) -> Traced {
    trace_with(&[], options, command)
}

/// The same, with variables in the environment.
pub(crate) fn trace_with(
    variables: &[(&str, &OsStr)],
    options: &[impl AsRef<OsStr>],
    command: &[impl AsRef<OsStr>],
) -> Traced {
    let mut args: Vec<OsString> = options.iter().map(|o| o.as_ref().to_owned()).collect();
    args.push("--".into());
    args.extend(command.iter().map(|c| c.as_ref().to_owned()));
    Tracer::spawn(variables, &args).finish()
}

/// The process that holds a tracer's links.
#[track_caller]
pub(crate) fn holder_of(tracer: u32) -> u32 {
    let holder = children::holder_of(tracer.into()).expect("a tracer has a holder");
    holder.try_into().expect("a process's number")
}
