//! Processes that come and go while they are traced: by name, in bursts, at once; with tens of thousands of mappings.

use std::{
    collections::HashSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Process, Traced, Tracer, host, path, private_copy, probe, program, tool},
    trace::Trace,
};

/// Starts a program that waits for a line, and is ready.
/// What a program that was renamed calls, and what threads of it do that have other names.
#[test]
fn a_name_is_the_processs_whenever_it_got_it_and_whatever_its_threads_are_called() {
    let (folder, named) = private_copy("c/host", "bythatname");
    let named = named.display().to_string();
    let other = folder.path().join("byanother").display().to_string();
    fs::copy(&named, &other).expect("a copy can be made");
    let plug = path("c/libplug.so");
    let open = format!("open {plug}");
    let mut before = host(&named);
    let mut execs = host(&other);
    let mut renames = host(&other);
    let mut never = host(&other);
    for process in [&mut before, &mut execs, &mut renames, &mut never] {
        process.order(&open);
    }
    let tracer = Tracer::start(&["-x", &plug, "--comm", "bythatname", "plugged"]);
    before.order("call 3");
    before.order("thread worker 4");
    before.order("thread byanother 5");
    execs.order("call 100");
    execs.order_exec(&named);
    execs.order(&open);
    execs.order("call 6");
    never.order("thread bythatname 100");
    renames.order("call 100");
    renames.order("name bythatname");
    // It is heard of within milliseconds; until then calls are another name's.
    let of_it = format!("\"pid\":{},", renames.pid());
    while !tracer.so_far().contains(&of_it) {
        renames.order("call 1");
    }
    renames.order("call 7000");
    let pids = [&before, &execs, &renames].map(Process::pid);
    for process in [before, execs, renames, never] {
        process.finish().success();
    }
    let traced = tracer.interrupt();
    let of = |pid: u32| traced.trace.calls.iter().filter(|call| call.pid == pid).count();
    let [before, execs, renames] = pids.map(of);
    assert_eq!([before, execs], [12, 6], "{}", traced.ended.stderr);
    assert!(renames > 7000, "{renames}");
    assert_eq!(traced.trace.calls.len(), 18 + renames, "calls of other names");
}

/// Nothing of theirs is missed: the file's probes are there before the first of them starts.
#[test]
fn the_first_call_of_each_of_500_processes_a_second_is_seen() {
    let burst = path("c/burst-static");
    let mut process = Process::waiting(&burst, &["2500", "500"]);
    let tracer = Tracer::start(&["-x", &burst, "--stack=none", "first_call", "=main"]);
    process.go();
    let said = process.finish().success();
    let traced = tracer.interrupt();
    println!("{said}{}", traced.ended.stderr);
    assert_eq!(traced.lost_total(), 0);
    let calls = traced.trace.of("first_call");
    let pids: HashSet<u32> = calls.iter().map(|call| call.pid).collect();
    assert_eq!((calls.len(), pids.len()), (2500, 2500), "{said}");
    // The one that starts them was there before.
    assert_eq!(traced.trace.of("main").len(), 2500);
}

#[test]
fn a_process_with_60_000_mappings_is_traced_at_once_and_with_its_callers() {
    for by_file in [false, true] {
        let (small, large) = (start_of("1000", by_file), start_of("60000", by_file));
        println!("start, by file: {by_file}: {small:?} with 1,000 mappings, {large:?} with 60,000");
        assert!(large < small + Duration::from_secs(1), "{small:?} {large:?}");
    }
}

/// The processor time that it takes until a process with so many mappings is traced. By file, they are read when it calls.
fn start_of(mappings: &str, by_file: bool) -> Duration {
    let mut process = Process::waiting(path("c/maps"), &[mappings]);
    let pid = process.pid().to_string();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs").lines().count();
    assert!(maps >= mappings.parse().expect("a number"), "{maps}");
    let program = path("c/maps");
    let tracer = Tracer::start(&[if by_file { ["-x", &program] } else { ["-p", &pid] }.as_slice(), &["work"]].concat());
    let took = processor_time(tracer.pid());
    process.go();
    process.finish().success();
    let traced = if by_file { tracer.interrupt() } else { tracer.finish() };
    assert_eq!((traced.trace.of("work").len(), traced.lost_total()), (1000, 0), "{}", traced.ended.stderr);
    for call in &traced.trace.calls {
        assert_eq!(crate::trace::callers(call)[..2], ["call_work", "main"], "{call:?}");
    }
    took
}

/// What a process has used so far: proc(5), `utime` and `stime` in hundredths of a second.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks: u64 = fields.expect("a name in parentheses").filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The kernel keeps 15 bytes, which may end in the middle of a letter.
#[test]
fn a_name_that_the_kernel_has_cut_within_a_letter_is_that_name() {
    const NAME: &str = "программасервер";
    let plug = path("c/libplug.so");
    let mut process = host(path("c/host"));
    process.order(&format!("open {plug}"));
    process.order(&format!("name {NAME}"));
    for target in [["-p", &process.pid().to_string()], ["--comm", NAME]] {
        let tracer = Tracer::start(&[target.as_slice(), &["-x", &plug, "plugged"]].concat());
        process.order("call 3");
        assert_eq!(tracer.interrupt().trace.of("plugged").len(), 3, "{target:?}");
    }
    process.finish().success();
}

#[test]
fn processes_that_end_while_probes_are_attached_end_the_trace_or_leave_the_others_traced() {
    for round in 0..5 {
        let mut processes: Vec<Process> =
            (0..6).map(|_| Process::waiting(program("c/counts"), &["recurse", "-n", "1"])).collect();
        let pids: Vec<String> = processes.iter().map(|process| process.pid().to_string()).collect();
        let mut last = processes.pop().expect("six");
        let pid = last.pid();
        let tracer = Tracer::starting(&["-p", &pids.join(","), "--stack=none", "recurse"]);
        // At different moments of its start.
        let begun = Instant::now();
        for (number, mut process) in (0_u32..).zip(processes) {
            while begun.elapsed() < Duration::from_millis(30) * round * number {
                std::thread::yield_now();
            }
            process.go();
            process.finish().success();
        }
        let is_tracing = tracer.says("probe: tracing");
        last.go();
        last.finish().success();
        if is_tracing {
            let traced = tracer.finish();
            assert_eq!(traced.ended.code(), 0, "{}", traced.ended.stderr);
            let of_last = traced.trace.calls.iter().filter(|call| call.pid == pid).count();
            assert_eq!(of_last, 200, "round {round}: {}", traced.ended.stderr);
        } else {
            // One may have been gone before it looked, or be about to: until we have waited for it.
            let ended = tracer.refused();
            let said = |words| ended.stderr.contains(words);
            assert!(ended.code() == 1 && (said("no process") || said("has ended")), "{ended:?}");
        }
    }
}

#[test]
fn a_process_that_has_ended_and_was_not_waited_for_is_none_to_trace() {
    let mut child = Command::new("true").spawn().expect("it starts");
    let stat = format!("/proc/{}/stat", child.id());
    while !fs::read_to_string(&stat).expect("not waited for").contains(") Z ") {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    let refused = [probe(&["-p", &pid, "func_a"]), probe(&["list", "-p", &pid])];
    child.wait().expect("it is a child");
    for ended in refused {
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains(&format!("process {pid} has ended")), "{ended:?}");
    }
}

#[test]
fn a_thread_of_the_kernel_is_none_to_trace() {
    // Linux: kthreadd is the second process of a machine.
    for args in [&["-p", "2", "func_a"][..], &["list", "-p", "2"]] {
        let ended = probe(args);
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains("process 2 is a kernel thread: it runs no program"), "{ended:?}");
    }
}

/// SCENARIOS row 9: a library's name and a process, instead of a search through its mappings.
#[test]
fn a_library_of_debians_is_traced_in_a_process_by_its_name() {
    const SCRIPT: &str = "import ctypes, sys
library = ctypes.CDLL('libsqlite3.so.0')
print('ready', flush=True)
sys.stdin.readline()
database, statement = ctypes.c_void_p(), ctypes.c_void_p()
assert library.sqlite3_open(b':memory:', ctypes.byref(database)) == 0
library.sqlite3_prepare_v2.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
sql = b'with recursive n(i) as (select 1 union all select i + 1 from n where i < 50) select i from n'
for _ in range(20):
    assert library.sqlite3_prepare_v2(database, sql, -1, ctypes.byref(statement), None) == 0
    for row in range(50):
        assert library.sqlite3_step(statement) == 100
        assert library.sqlite3_column_int(statement, 0) == row + 1
    assert library.sqlite3_step(statement) == 101
    assert library.sqlite3_finalize(statement) == 0
";
    let python = || {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", SCRIPT]);
        let mut process = Process::start(command);
        process.await_line("ready");
        process
    };
    let (mut process, mut other) = (python(), python());
    let tracer = Tracer::start(&["-x", "libsqlite3", "-p", &process.pid().to_string(), "*"]);
    other.go();
    other.finish().success();
    let pid = process.pid();
    process.go();
    process.finish().success();
    let traced = tracer.finish();
    assert_eq!(traced.ended.code(), 0, "{}", traced.ended.stderr);
    assert!(traced.trace.calls.iter().all(|call| call.pid == pid && &*call.comm == "python3"));
    // What SQLite calls of itself is inside of other calls.
    let outermost = |name: &str| traced.trace.of(name).iter().filter(|call| call.depth == 0).count();
    let expected =
        [("sqlite3_prepare_v2", 20), ("sqlite3_step", 1020), ("sqlite3_column_int", 1000), ("sqlite3_finalize", 20)];
    for (name, calls) in expected {
        assert_eq!(outermost(name), calls, "{name}: {}", traced.ended.stderr);
    }
    assert!(traced.trace.calls.iter().any(|call| call.depth > 0), "the tree shows what those call");
    let called_from_python = |call: &&crate::trace::Call| {
        let stack = call.stack.as_ref().expect("outermost calls have one");
        stack.iter().any(|frame| frame.binary.as_deref().is_some_and(|binary| binary.contains("ffi")))
    };
    let steps = traced.trace.of("sqlite3_step");
    assert!(steps.iter().filter(|call| call.depth == 0).all(called_from_python), "callers lie in what calls it");
}

/// The same row as it stands: Debian's own libwebp, in Debian's own programs, which read what they work on from a pipe.
#[test]
fn libwebp_is_traced_in_a_process_that_runs_already() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let waiting = |program: &str, options: &[&str]| {
        let mut command = Command::new(program);
        command.args(options).args(["--", "-"]);
        let process = Process::start(command);
        // It waits for its input when it has all its libraries.
        let maps = format!("/proc/{}/maps", process.pid());
        let waits = || {
            fs::read_to_string(format!("/proc/{}/syscall", process.pid())).is_ok_and(|call| call.starts_with("0 0x0 "))
        };
        while !(waits() && fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("libwebp.so"))) {
            std::thread::yield_now();
        }
        process
    };
    let picture = [b"P6\n64 48\n255\n".as_slice(), &[7; 64 * 48 * 3]].concat();
    let encoder = || waiting("cwebp", &["-quiet", "-o", &at("picture.webp")]);
    let (process, twin) = (encoder(), encoder());
    let encoded = traced_while_fed("WebPEncode", process, twin, &picture);
    let shown = tool("webpinfo", &[at("picture.webp")]);
    assert!(shown.contains("Width: 64") && shown.contains("Height: 48"), "{shown}");
    assert!(encoded.trace.calls.iter().any(|call| call.depth > 0), "the tree shows what those call");
    let decoder = || waiting("dwebp", &["-quiet", "-o", &at("picture.png")]);
    let (process, twin) = (decoder(), decoder());
    traced_while_fed("WebPDecode", process, twin, &fs::read(at("picture.webp")).expect("it was written"));
}

/// A trace of all of libwebp in the one process of two that do the same; each calls the function once.
fn traced_while_fed(function: &str, mut process: Process, mut twin: Process, input: &[u8]) -> Traced {
    let pid = process.pid();
    let tracer = Tracer::start(&["-x", "libwebp", "-p", &pid.to_string(), "*"]);
    twin.feed(input);
    twin.finish().success();
    process.feed(input);
    process.finish().success();
    let traced = tracer.finish();
    for call in &traced.trace.calls {
        assert!(call.pid == pid && matches!(&*call.end, "return" | "tailcall"), "{call:?}");
    }
    let calls = traced.trace.of(function);
    assert_eq!(calls.len(), 1, "{}", traced.ended.stderr);
    assert_eq!(crate::trace::callers(calls[0]).last().map(String::as_str), Some("_start"), "{:?}", calls[0]);
    traced
}

/// A container may have one; what the kernel half tells the time by is the machine's clock.
#[test]
fn from_a_time_namespace_of_its_own_calls_have_their_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, out) = (path("c/counts"), folder.path().join("out"));
    for offset in ["100000", "-100"] {
        let mut command = Command::new("unshare");
        command.args(["--time", "--monotonic", offset, "--fork", env!("CARGO_BIN_EXE_probe"), "--json", "-o"]);
        command.arg(&out).args(["-x", &app, "work", "--", &app, "calls", "-n", "500"]);
        let ended = Process::start(command).finish();
        assert_eq!(ended.code(), 0, "{ended:?}");
        let trace = Trace::read(&out);
        assert_eq!(trace.calls.len(), 500, "{offset}");
        assert!(trace.calls.iter().all(|call| call.duration_ns.is_some()), "{offset}");
        assert!(trace.calls.iter().all(|call| (1..60_000_000_000).contains(&call.start_ns)), "{offset}");
    }
}
