//! A loaded server under everything at once: no request fails, none hangs, nothing is left in the kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{Ended, Probe, left::InKernel, program, signal, until};

/// One server at a time: what is measured is what tracing does to it, not what its neighbours do.
static ONE: Mutex<()> = Mutex::new(());

const SERVERS: [&str; 2] = ["go/server", "go1.19/server"];

/// A running server.
struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    address: String,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    fn start(name: &str) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(program(name)).stdout(Stdio::piped()).spawn().expect("the server can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its address");
        let address = line.strip_prefix("ready ").expect("ready").trim().to_owned();
        Self { child, stdout, address, _alone: alone }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn load(&self, args: &[&str]) -> Load {
        let child = Command::new(program("go/load"))
            .args(["-addr", &self.address])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the load can be started");
        Load(child)
    }

    /// Answers, ends when asked, and has counted as many requests as were sent.
    #[track_caller]
    fn ends_well(mut self, sent: u64) {
        let sent = sent + self.load(&["-n", "200"]).all_answered();
        signal("TERM", i64::from(self.child.id()));
        let status = until("the server's end", || self.child.try_wait().expect("its state"));
        assert!(status.success(), "{status:?}");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("its counts");
        let counts: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(counts["main.(*Store).Handler"].as_u64(), Some(sent), "{line}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests on their way.
struct Load(Child);

impl Load {
    /// Waits for the answers: how many there were.
    #[track_caller]
    fn all_answered(self) -> u64 {
        let output = self.0.wait_with_output().expect("its end");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).expect("its report");
        assert_eq!((&report["failures"], &report["hung"]), (&Value::from(0), &Value::from(0)), "{report} {stderr}");
        assert!(output.status.success(), "{stderr}");
        report["requests"].as_u64().expect("a number")
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }
}

/// Every function that is not traced is named, with a reason.
#[track_caller]
fn names_all_it_skipped(ended: &Ended) -> u64 {
    let first = ended.stdout.lines().next().expect("a line");
    let trace: Value = serde_json::from_str(first).expect("JSON");
    let skipped = trace["skipped"].as_array().expect("a list");
    let number = |key: &str| trace[key].as_u64().expect("a number");
    assert_eq!(number("matched"), number("attached") + skipped.len() as u64, "{}", ended.stderr);
    for function in skipped {
        assert!(function["function"].is_string() && function["reason"].as_str().is_some_and(|r| !r.is_empty()));
        let line = format!("not probed: {}: ", function["function"].as_str().expect("a name"));
        assert!(ended.stderr.contains(&line), "no {line:?} in: {}", ended.stderr);
    }
    number("attached")
}

#[test]
fn traced_whole_under_load_no_request_fails_and_what_is_refused_is_named() {
    for name in SERVERS {
        let server = Server::start(name);
        let load = server.load(&["-s", "10"]);
        for (args, at_least) in [(&["*"][..], 2000), (&["--all", "*"], 4000)] {
            let probe = Probe::start(&[&["-p", &server.pid(), "-v", "--json", "--duration", "2s"], args].concat());
            let probe = probe.when_said("Ctrl-C ends");
            let held = InKernel::of(probe.id());
            let ended = probe.ended();
            ended.code(0);
            assert!(names_all_it_skipped(&ended) > at_least, "{}", ended.stderr);
            assert_eq!(args.len() == 2, ended.stderr.contains("not probed: runtime.abort: "), "{}", ended.stderr);
            assert!(ended.calls("main.(*Store).Get") > 50, "{}", ended.stderr);
            held.is_gone();
        }
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

/// In every process that runs the file, and not by a link that is confined to one.
#[test]
fn traced_whole_in_every_process_no_request_fails() {
    for name in SERVERS {
        let server = Server::start(name);
        let load = server.load(&["-s", "6"]);
        let path = program(name);
        let probe = Probe::attached(&["-x", super::as_text(&path), "--all", "*", "--json", "--duration", "2s"]);
        let held = InKernel::of(probe.id());
        let ended = probe.ended();
        ended.code(0);
        assert!(ended.calls("main.(*Store).Get") > 50, "{}", ended.stderr);
        held.is_gone();
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

#[test]
fn killed_in_the_middle_it_harms_no_request_and_leaves_nothing() {
    for name in SERVERS {
        let server = Server::start(name);
        let load = server.load(&["-s", "8"]);
        for args in [&["*"][..], &["--all", "*"], &["--all", "*", "--stack-all"]] {
            let trace = tempfile::NamedTempFile::new().expect("a file");
            let path = super::as_text(trace.path()).to_owned();
            let mut probe = Probe::attached(&[&["-p", &server.pid(), "--json", "-o", &path], args].concat());
            // In full flow.
            until("a trace", || (fs::metadata(&path).expect("the trace").len() > 1 << 20).then_some(()));
            let held = InKernel::of(probe.id());
            signal("KILL", probe.id());
            probe.status();
            held.is_gone();
        }
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

#[test]
fn attached_and_detached_fifty_times_under_load_it_harms_no_request_and_leaves_nothing() {
    for name in SERVERS {
        let server = Server::start(name);
        let mut load = server.load(&["-s", "12"]);
        let mut answered = 0;
        for round in 0..50 {
            if load.is_over() {
                answered += load.all_answered();
                load = server.load(&["-s", "5"]);
            }
            let pattern = if round % 2 == 0 { "*" } else { "main.(*Store).*" };
            let probe = Probe::start(&["-p", &server.pid(), "-o", "/dev/null", "--duration", "50ms", pattern]);
            let probe = probe.when_said("Ctrl-C ends");
            let held = InKernel::of(probe.id());
            probe.ended().code(0);
            held.is_gone();
        }
        answered += load.all_answered();
        server.ends_well(answered);
    }
}
