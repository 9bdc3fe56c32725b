//! A loaded server under everything at once: no request fails, none hangs, nothing is left in the kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::{Ended, Probe, calls, left::InKernel, program, signal, until};

/// One server at a time: what is measured is what tracing does to it, not what its neighbours do.
static ONE: Mutex<()> = Mutex::new(());

const SERVERS: [&str; 2] = ["go/server", "go1.19/server"];

/// A running server.
pub(super) struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    address: String,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    pub(super) fn start(name: &str) -> Self {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(program(name)).stdout(Stdio::piped()).spawn().expect("the server can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its address");
        let address = line.strip_prefix("ready ").expect("ready").trim().to_owned();
        Self { child, stdout, address, _alone: alone }
    }

    pub(super) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Loads it until told to stop.
    pub(super) fn load(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (self.address.clone(), stop.clone());
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                sent += requests(&address, 400);
            }
            sent
        });
        Load { stop, sender }
    }

    /// Answers, ends when asked, and has counted as many requests as were sent.
    #[track_caller]
    pub(super) fn ends_well(mut self, sent: u64) {
        let sent = sent + requests(&self.address, 200);
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

/// Sends requests over eight connections, all of which must be answered in time; how many there were.
#[track_caller]
fn requests(address: &str, count: u32) -> u64 {
    let mut load = Command::new(program("go/load"));
    let output = load.args(["-addr", address, "-n", &count.to_string()]).output().expect("the load can be started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).expect("its report");
    assert_eq!((&report["failures"], &report["hung"]), (&Value::from(0), &Value::from(0)), "{report} {stderr}");
    assert!(output.status.success(), "{stderr}");
    report["requests"].as_u64().expect("a number")
}

/// Requests on their way.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
}

impl Load {
    /// Stops, and waits for the last answers: how many there were.
    #[track_caller]
    pub(super) fn all_answered(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("every request is answered")
    }
}

/// A trace in a file, that a loaded server fills.
struct Trace {
    probe: Probe,
    file: NamedTempFile,
    held: InKernel,
}

impl Trace {
    fn start(args: &[&str]) -> Self {
        let file = NamedTempFile::new().expect("a file");
        let everything = ["--json", "--budget", "0", "-o", super::as_text(file.path())];
        let probe = Probe::attached(&[&everything[..], args].concat());
        let held = InKernel::of(probe.id());
        Self { probe, file, held }
    }

    /// Many calls were written, and one of a function that every request calls: traced whole, a server answers so few
    /// requests that the first megabytes may be of half a one.
    #[track_caller]
    fn in_full_flow(self) -> Self {
        until("a trace", || {
            let written = fs::read_to_string(self.file.path()).expect("the trace");
            (written.len() > 2 << 20 && written.contains(r#""function":"main.(*Store).Get""#)).then_some(())
        });
        self
    }

    /// Ends it as Ctrl-C does; the lines.
    #[track_caller]
    fn ended(self) -> (Ended, String) {
        let ended = self.probe.interrupted();
        ended.code(0);
        self.held.is_gone();
        (ended, fs::read_to_string(self.file.path()).expect("the trace"))
    }

    #[track_caller]
    fn killed(mut self) {
        signal("KILL", self.probe.id());
        self.probe.status();
        self.held.is_gone();
    }
}

/// Every function that is not traced is named, with a reason.
#[track_caller]
fn names_all_it_skipped(ended: &Ended, trace: &str) -> u64 {
    let first = trace.lines().next().expect("a line");
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
        let load = server.load();
        for (args, at_least) in [(&["*"][..], 2000), (&["--all", "*"], 4000)] {
            let (ended, trace) = Trace::start(&[&["-p", &server.pid(), "-v"], args].concat()).in_full_flow().ended();
            assert!(names_all_it_skipped(&ended, &trace) > at_least, "{}", ended.stderr);
            assert_eq!(args.len() == 2, ended.stderr.contains("not probed: runtime.abort: "), "{}", ended.stderr);
            assert!(calls(&trace, "main.(*Store).Get") > 0, "{}", ended.stderr);
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
        let load = server.load();
        let path = program(name);
        let (ended, trace) = Trace::start(&["-x", super::as_text(&path), "--all", "*"]).in_full_flow().ended();
        assert!(calls(&trace, "main.(*Store).Get") > 0, "{}", ended.stderr);
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

#[test]
fn killed_in_the_middle_it_harms_no_request_and_leaves_nothing() {
    for name in SERVERS {
        let server = Server::start(name);
        let load = server.load();
        for args in [&["*"][..], &["--all", "*"], &["--all", "*", "--stack-all"]] {
            Trace::start(&[&["-p", &server.pid()], args].concat()).in_full_flow().killed();
        }
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

#[test]
fn attached_and_detached_fifty_times_under_load_it_harms_no_request_and_leaves_nothing() {
    for name in SERVERS {
        let server = Server::start(name);
        let load = server.load();
        let mut held = InKernel::default();
        for round in 0..50 {
            let pattern = if round % 2 == 0 { "*" } else { "main.(*Store).*" };
            // Every other time with a budget, which exchanges links meanwhile.
            let budget = if round % 4 < 2 { "0" } else { "100" };
            let probe = Probe::attached(&["-p", &server.pid(), "--budget", budget, "-o", "/dev/null", pattern]);
            held = held.and(InKernel::of(probe.id()));
            probe.interrupted().code(0);
        }
        held.is_gone();
        let answered = load.all_answered();
        server.ends_well(answered);
    }
}

/// What a server does for each request it does within the budget, when the requests are not as many as it can bear.
#[test]
fn of_a_server_with_some_requests_a_second_the_handler_stays_and_the_hottest_go() {
    const RATE: u64 = 200;
    let server = Server::start(SERVERS[0]);
    let mut load = Command::new(program("go/load"));
    load.args(["-addr", &server.address, "-s", "6", "-r", &RATE.to_string()]).stdout(Stdio::piped());
    let load = load.spawn().expect("the load can be started");
    let file = NamedTempFile::new().expect("a file");
    let output = ["--json", "--stack=none", "-o", super::as_text(file.path()), "--duration", "3s"];
    let mut probe = Probe::attached(&[&output[..], &["-p", &server.pid(), "*"]].concat());
    assert!(probe.status().success());
    let report = load.wait_with_output().expect("the load ends");
    let report: Value = serde_json::from_slice(&report.stdout).expect("its report");
    assert_eq!(report["failures"], 0, "{report}");
    let trace = fs::read_to_string(file.path()).expect("the trace");
    let lines: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let shed: Vec<&Value> = lines.iter().filter(|line| line["type"] == "shed").collect();
    // More often than once for each request, with an entry and a return.
    let hottest = shed.iter().filter_map(|line| line["rate"].as_u64()).max();
    assert!(hottest > Some(4 * RATE), "{shed:?}");
    let own = |name: &str| name.starts_with("main.");
    assert!(shed.iter().all(|line| line["function"].as_str().is_some_and(|name| !own(name))), "{shed:?}");
    // What was known to be too hot before the trace began was never in it.
    let calls: Vec<&Value> = lines.iter().filter(|line| line["type"] == "call").collect();
    let first = calls.iter().filter_map(|call| call["start_ns"].as_u64()).min();
    let early: Vec<&Value> =
        shed.iter().filter(|line| line["at_ns"].as_u64() < first).map(|line| &line["function"]).collect();
    assert!(!early.is_empty() && !calls.iter().any(|call| early.contains(&&call["function"])), "{early:?}");
    let last = shed.iter().filter_map(|line| line["at_ns"].as_u64()).max();
    let late = lines.iter().filter(|line| line["start_ns"].as_u64() > last);
    let late: Vec<&str> = late.filter_map(|line| line["function"].as_str()).collect();
    let count = |wanted: &str| late.iter().filter(|name| **name == wanted).count();
    let handled = count("main.(*Store).Handler");
    assert!(handled > 0 && count("main.(*Store).Get") > 0 && count("main.(*Store).Put") > 0, "{late:?}");
    // But for those that were open at the one end or the other.
    assert!(count("net/http.serverHandler.ServeHTTP").abs_diff(handled) <= 16, "{handled} {late:?}");
}

/// Requests a second, over so many seconds; all must be answered.
#[track_caller]
fn throughput(address: &str, seconds: u32) -> f64 {
    let mut load = Command::new(program("go/load"));
    let output = load.args(["-addr", address, "-s", &seconds.to_string()]).output().expect("the load can be started");
    let report: Value = serde_json::from_slice(&output.stdout).expect("its report");
    assert_eq!(report["failures"], 0, "{report}");
    report["per_second"].as_f64().expect("a number")
}

/// How soon, and how much of it, depends on the machine: `make bench` measures that.
#[test]
fn traced_whole_within_its_budget_a_server_gets_its_throughput_back_and_a_timeline_remains() {
    let server = Server::start(SERVERS[0]);
    let before = throughput(&server.address, 2);
    let file = NamedTempFile::new().expect("a file");
    let probe = Probe::attached(&["--json", "-o", super::as_text(file.path()), "-p", &server.pid(), "*"]);
    let mut held = InKernel::of(probe.id());
    until("half of the throughput", || (throughput(&server.address, 1) > before / 2.0).then_some(()));
    held = held.and(InKernel::of(probe.id()));
    throughput(&server.address, 1);
    let ended = probe.interrupted();
    ended.code(0);
    held.is_gone();
    let trace = fs::read_to_string(file.path()).expect("the trace");
    let lines: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
    let shed = of("shed").count();
    assert!(shed > 0, "{}", ended.stderr);
    assert_eq!(of("summary").next().expect("a summary")["shed"], shed);
    ended.says(&[&format!("{shed} function"), "shed"]);
    let last = of("shed").filter_map(|line| line["at_ns"].as_u64()).max().expect("a time");
    let is_own = |line: &&Value| line["function"].as_str().is_some_and(|name| name.starts_with("main."));
    let remaining = of("call").filter(|line| line["start_ns"].as_u64() > Some(last)).filter(is_own).count();
    assert!(remaining > 0, "the program's own functions are gone: {}", ended.stderr);
}
