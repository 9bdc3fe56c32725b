//! Calls that do not return, against what the programs know of them: how each ended, inside of which, and when, by the
//! program's own clock (`testdata/c/windows.h`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    harness::{self, Traced},
    trace::Call,
};

/// A call as the program saw it, `CLOCK_MONOTONIC`, ns.
struct Window {
    end: String,
    /// Before the call, and inside it as the first thing.
    begins: [i64; 2],
    /// Before what ended it, and after; the latter is 0 when the program's own end did.
    ends: [i64; 2],
}

fn windows(text: &str) -> BTreeMap<String, Vec<Window>> {
    let mut by_name: BTreeMap<String, Vec<Window>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, end, times @ ..] = &fields[..] else { panic!("{line}") };
        let times: Vec<i64> = times.iter().map(|time| time.parse().expect("a number")).collect();
        let window = Window { end: (*end).to_owned(), begins: [times[0], times[1]], ends: [times[2], times[3]] };
        by_name.entry((*name).to_owned()).or_default().push(window);
    }
    by_name
}

/// Runs `testdata/build/PROGRAM KIND N` with every function traced that it writes windows of, and compares. `calls`:
/// each function, with the one that it is called from.
fn check(program: &str, kind: &str, n: u32, calls: &[(&str, &str)]) -> Traced {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("windows");
    let (path, n_text) = (harness::path(program), n.to_string());
    let mut options = vec!["--stack=none", "--buffer", "512M"];
    options.extend(calls.iter().map(|(name, _)| name));
    let traced = harness::trace(&options, &[&path, kind, &n_text, file.to_str().expect("UTF-8")]);
    assert_eq!(traced.ended.code(), 0, "{program} {kind}: {}", traced.ended.stderr);
    let what = format!("{program} {kind}");
    let windows = windows(&std::fs::read_to_string(&file).expect("windows"));
    assert_eq!(traced.lost_total(), 0, "{what}");
    assert_eq!(windows.len(), calls.len(), "{what}: {:?}", windows.keys());
    let mut pairs: Vec<(&Call, &Window)> = Vec::new();
    for (name, windows) in &windows {
        let mut of_it = traced.trace.of(name);
        of_it.sort_by_key(|call| call.start_ns);
        assert_eq!((of_it.len(), windows.len()), (n as usize, n as usize), "{what}: calls of {name}");
        pairs.extend(of_it.into_iter().zip(windows));
    }
    assert_parents(&traced, calls);
    assert_times(&what, &pairs);
    traced
}

fn assert_parents(traced: &Traced, calls: &[(&str, &str)]) {
    let names: BTreeMap<u64, &str> = traced.trace.calls.iter().map(|call| (call.id, &*call.function)).collect();
    for call in &traced.trace.calls {
        let parent = call.parent.map_or("", |id| names[&id]);
        let expected = calls.iter().find(|(name, _)| *name == &*call.function).map(|(_, parent)| *parent);
        assert_eq!(Some(parent), expected, "{call:?}");
    }
}

/// The trace counts from a moment that it tells by the wall clock only. Where that is on the program's clock, the
/// beginnings of all calls say, each within a few microseconds; then the ends must fit.
fn assert_times(what: &str, pairs: &[(&Call, &Window)]) {
    let start = |call: &Call| call.start_ns.cast_signed();
    let latest = pairs.iter().map(|(call, window)| window.begins[1] - start(call)).min().expect("calls");
    let earliest = pairs.iter().map(|(call, window)| window.begins[0] - start(call)).max().expect("calls");
    assert!(earliest <= latest + CLOCK_NS, "{what}: some call began {} ns outside of its window", earliest - latest);
    let mut wrong = BTreeMap::new();
    for (call, window) in pairs {
        assert_eq!(&*call.end, window.end, "{what}: {call:?}");
        let end = start(call) + call.duration_ns.unwrap_or_else(|| panic!("{what}: no end: {call:?}")).cast_signed();
        let [leave, after] = window.ends;
        let late = if after == 0 { 0 } else { end + earliest - after };
        if leave - (end + latest) > CLOCK_NS || late > CLOCK_NS {
            *wrong.entry(&*call.function).or_insert(0_usize) += 1;
        }
    }
    let sum: usize = wrong.values().sum();
    println!("{what}: {sum} of {} ended at another time; clock known to {} ns", pairs.len(), latest - earliest);
    assert!(sum * 100 <= pairs.len(), "{what}: of {} calls, these ended at another time: {wrong:?}", pairs.len());
}

/// By how much two readings of the one clock may differ (Linux: `ktime_get_mono_fast_ns`, kernel/time/timekeeping.c).
const CLOCK_NS: i64 = 100;

/// Calls of each kind that do not return: at least.
const MANY: u32 = 100_000;

#[test]
fn longjmp_ends_calls_where_it_lands() {
    let calls = [("jump_catcher", ""), ("jump_a", "jump_catcher"), ("jump_b", "jump_a"), ("jump_c", "jump_b")];
    check("c/unwind", "longjmp", MANY / 3 + 1, &calls);
    for program in ["c/unwind-O0", "c/unwind-static"] {
        check(program, "longjmp", 1000, &calls);
    }
}

#[test]
fn siglongjmp_ends_the_handlers_calls_and_those_that_it_interrupted() {
    let calls =
        [("sig_catcher", ""), ("sig_work", "sig_catcher"), ("sig_handler", "sig_work"), ("sig_deep", "sig_handler")];
    check("c/unwind", "signal", MANY / 3 + 1, &calls);
    check("c/unwind", "altsignal", MANY / 3 + 1, &calls);
    check("c/unwind-static", "signal", 1000, &calls);
}

#[test]
fn a_thread_that_exits_or_is_cancelled_ends_its_calls_at_its_end() {
    let [exits, cancelled] = ["exit", "cancel"].map(|kind| {
        let [a, b] = ["a", "b"].map(|last| format!("{kind}_{last}"));
        check("c/unwind", kind, MANY / 2, &[(&a, ""), (&b, &a)])
    });
    assert_eq!(exits.trace.calls.len(), cancelled.trace.calls.len());
}

#[test]
fn an_exception_ends_calls_where_it_is_caught_or_a_destructor_runs() {
    let [catcher, a, b, c] = ["ends::catcher", "ends::throw_a", "ends::throw_b", "ends::throw_c"];
    check("cpp/unwind", "throw", MANY / 3 + 1, &[(catcher, ""), (a, catcher), (b, a), (c, b)]);
    let [outer, middle, deep] = ["ends::outer", "ends::middle", "ends::deep"];
    check("cpp/unwind", "rethrow", MANY / 2, &[(outer, ""), (middle, outer), (deep, middle)]);
    let [catcher, thrower] = ["ends::near_catcher", "ends::thrower"];
    check("cpp/unwind", "caller", MANY, &[(catcher, ""), (thrower, catcher)]);
    for program in ["cpp/unwind-O0", "cpp/unwind-static"] {
        check(program, "rethrow", 1000, &[(outer, ""), (middle, outer), (deep, middle)]);
        check(program, "caller", 1000, &[(catcher, ""), (thrower, catcher)]);
    }
}

#[test]
fn a_thread_that_is_unwound_ends_calls_where_its_destructors_run() {
    let [outer, inner] = ["ends::forced_outer", "ends::forced_inner"];
    check("cpp/unwind", "forced", MANY / 2, &[(outer, ""), (inner, outer)]);
}

#[test]
fn a_rust_panic_ends_calls_where_it_is_caught_or_a_value_is_dropped() {
    let [catcher, a, b, c] = ["unwind::catcher", "unwind::panic_a", "unwind::panic_b", "unwind::panic_c"];
    check("rust/unwind", "catch", MANY / 3 + 1, &[(catcher, ""), (a, catcher), (b, a), (c, b)]);
    let [outer, middle, deep, in_drop] = ["unwind::outer", "unwind::middle", "unwind::deep", "unwind::in_drop"];
    check("rust/unwind", "nested", MANY / 3 + 1, &[(outer, ""), (middle, outer), (deep, middle), (in_drop, middle)]);
}

#[test]
fn a_go_panic_ends_calls_where_it_is_recovered() {
    for (program, n) in [("go/unwind", MANY), ("go1.19/unwind", 3000)] {
        let [catcher, a, b, c] = ["main.catcher", "main.panicA", "main.panicB", "main.panicC"];
        check(program, "recover", n / 3 + 1, &[(catcher, ""), (a, catcher), (b, a), (c, b)]);
        let [outer, middle, deep] = ["main.outer", "main.middle", "main.deep"];
        check(program, "repanic", n / 2, &[(outer, ""), (middle, outer), (deep, middle)]);
        let [outer, middle, deep, late] = ["main.deferOuter", "main.deferMiddle", "main.deferDeep", "main.deferPanics"];
        check(program, "deferred", n / 3 + 1, &[(outer, ""), (middle, outer), (deep, middle), (late, deep)]);
        check(program, "nil", n, &[("main.nilCatcher", ""), ("main.nilDeep", "main.nilCatcher")]);
    }
}

#[test]
fn goexit_and_os_exit_end_all_calls_of_goroutines() {
    for (program, n) in [("go/unwind", MANY), ("go1.19/unwind", 3000)] {
        let [a, b, c] = ["main.goexitA", "main.goexitB", "main.goexitC"];
        check(program, "goexit", n / 3 + 1, &[(a, ""), (b, a), (c, b)]);
        check(program, "exit", n / 2, &[("main.exitA", ""), ("main.exitB", "main.exitA")]);
    }
}

#[test]
fn a_file_traced_in_all_processes_has_the_same_ends() {
    let (_folder, copy) = harness::private_copy("cpp/unwind", "unwinds-alone");
    let tracer = harness::Tracer::start(&["--stack=none", "-x", copy.to_str().expect("UTF-8"), "ends::*"]);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("windows");
    harness::run(&copy, &["rethrow", "300", file.to_str().expect("UTF-8")]).success();
    // Its exceptions are none of the trace's business: nothing of it is traced.
    harness::run(harness::program("cpp/unwind"), &["rethrow", "300", file.to_str().expect("UTF-8")]).success();
    let traced = tracer.interrupt();
    let unwound: Vec<&Call> = traced.trace.calls.iter().filter(|call| &*call.end == "unwind").collect();
    assert_eq!(unwound.len(), 600);
    assert!(unwound.iter().all(|call| call.duration_ns.is_some()), "{:?}", unwound[0]);
    assert_eq!(traced.trace.summary["events"], Value::from(300 * 3 + 300), "entries, and the outer calls' returns");
}

#[test]
fn a_running_process_has_its_mapped_unwinders_watched() {
    for (program, mode) in [("cpp/counts", "exception"), ("c/counts", "longjmp"), ("rust/counts", "panic")] {
        let mut process = harness::Process::waiting(harness::program(program), &[mode, "-n", "300"]);
        let pid = process.pid().to_string();
        let tracer = harness::Tracer::start(&["--stack=none", "-p", &pid, "{shop::*,jump_*,counts::panic_*}"]);
        process.go();
        let traced = tracer.finish();
        process.finish();
        let unwound: Vec<&Call> = traced.trace.calls.iter().filter(|call| &*call.end == "unwind").collect();
        assert_eq!(unwound.len(), 600, "{program}");
        assert!(unwound.iter().all(|call| call.duration_ns.is_some()), "{program}: {:?}", unwound[0]);
    }
}

#[test]
fn without_returns_no_unwinder_is_watched() {
    let plan = |returns| {
        let path = harness::path("cpp/unwind");
        harness::probe(&["--dry-run", returns, "-x", &path, "ends::*"]).success()
    };
    assert!(plan("--returns=ret").contains("internal: end of unwinding"));
    assert!(!plan("--returns=none").contains("internal"));
}
