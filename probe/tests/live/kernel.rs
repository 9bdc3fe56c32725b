//! A little of everything that depends on the kernel: calls, ends and callers in each language, processes that are followed
//! or named, a budget that is passed. Also run on other kernels, in an emulated machine (`make test-kernels`), where each start
//! of `probe` takes five seconds: so not much of it.

use serde_json::Value;

use crate::{
    counts::{Truth, check},
    harness::{Process, Tracer, path, probe, program, trace},
};

/// The program does a few of everything that it is asked for, and each call and its end is what the program says.
fn few(program: &str, modes: &[&str]) {
    for mode in modes {
        // `grow` makes 50 calls for each one that it is asked for, in goroutines of 1,000.
        let n = if *mode == "grow" { "2000" } else { "40" };
        let (traced, _) = check(program, &[mode, "-n", n], &[]);
        assert_eq!(traced.lost_total(), 0, "{program} {mode}");
        for call in traced.trace.calls.iter().filter(|call| call.depth == 0) {
            let stack = call.stack.as_ref().unwrap_or_else(|| panic!("{program} {mode}: no callers of {call:?}"));
            assert!(!stack.is_empty(), "{program} {mode}: nobody called {call:?}");
        }
    }
}

#[test]
fn a_little_c() {
    few("c/counts", &["calls", "indirect", "longjmp", "fork", "exec"]);
}

#[test]
fn a_little_cpp() {
    few("cpp/counts", &["exception", "virtual"]);
}

#[test]
fn a_little_go() {
    few("go/counts", &["calls", "grow", "panic", "exit"]);
    few("go/counts-stripped", &["calls"]);
}

#[test]
fn a_little_rust() {
    few("rust/counts", &["calls", "panic"]);
}

#[test]
fn a_process_that_runs_is_traced_and_left_as_it_was() {
    for (name, function) in [("c/counts", "recurse"), ("go/counts", "main.recurse")] {
        let mut process = Process::waiting(program(name), &["recurse", "-n", "2"]);
        let tracer = Tracer::start(&["-p", &process.pid().to_string(), function]);
        process.go();
        let truth = process.finish().success();
        let traced = tracer.finish();
        let calls = Truth::of(&truth).calls().find(|(name, _)| *name == function).map(|(_, calls)| calls);
        assert_eq!(Some(traced.trace.of(function).len() as u64), calls, "{name}: {}", traced.ended.stderr);
    }
}

#[test]
fn short_calls_are_left_out_in_the_kernel_and_counted() {
    let options = ["--stack=none", "--min-duration=1h", "work", "leaf"];
    let traced = trace(&options, &[&path("c/counts"), "calls", "-n", "40", "-t", "1"]);
    assert_eq!(traced.trace.calls.len(), 0);
    let told: u64 = Truth::of(&traced.ended.stdout).calls().map(|(_, calls)| calls).sum();
    assert_eq!(traced.trace.summary["calls"], Value::from(told), "{}", traced.ended.stderr);
}

#[test]
fn what_passes_the_budget_is_shed_and_what_is_named_goes_on() {
    let options = ["--stack=none", "--budget", "20", "lea?", "work"];
    let traced = trace(&options, &[&path("c/counts"), "calls", "-n", "20000", "-t", "1"]);
    assert_eq!(traced.trace.summary["shed"], 1, "{}", traced.ended.stderr);
    let told = Truth::of(&traced.ended.stdout).calls().find(|(name, _)| *name == "work").map(|(_, calls)| calls);
    assert_eq!(Some(traced.trace.of("work").len() as u64), told, "{}", traced.ended.stderr);
}

/// The verifier sees other code for each: what a trace does not need is dropped before it looks.
#[test]
fn every_way_to_trace_is_accepted() {
    let ways: [&[&str]; 4] = [
        &["--stack=dwarf", "--stack-all"],
        &["--stack=fp", "--goroutines"],
        &["--returns=none", "--stack=none"],
        &["--subtract-overhead", "--stack-depth=100"],
    ];
    for way in ways {
        for (name, function) in [("c/counts", "recurse"), ("go/counts", "main.recurse")] {
            let options = [way, &[function]].concat();
            let traced = trace(&options, &[&path(name), "recurse", "-n", "1"]);
            let truth = Truth::of(&traced.ended.stdout);
            let calls = truth.calls().find(|(name, _)| *name == function).map(|(_, calls)| calls);
            assert_eq!(Some(traced.trace.of(function).len() as u64), calls, "{name} {way:?}: {}", traced.ended.stderr);
        }
    }
    let options = ["--returns=uretprobe", "recurse"];
    let traced = trace(&options, &[&path("c/counts"), "recurse", "-n", "1"]);
    assert_eq!(traced.trace.of("recurse").len(), 200, "{}", traced.ended.stderr);
}

#[test]
fn doctor_knows_this_kernel() {
    let ended = probe(&["doctor"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel has a release");
    assert!(ended.stdout.contains(release.trim()), "{ended:?}");
}
