//! `--subtract-overhead`: durations without what the probes cost, beside what the program itself says.
//!
//! `durations` knows how long each of its calls took without the traps in it, in the very run that is traced. The machine may
//! be busy, and a trap cost half as much again as at the start: medians are compared, and one with another.

use std::ffi::OsStr;

use crate::{
    harness::{Traced, path, private_copy, probe, run, tool, trace_with},
    trace::Call,
};

const CALLS: &str = "1000";
const SUBTRACT: &str = "--subtract-overhead";

/// Calls of `outer` in order, and how long each took by the program's own account, ns.
fn with_truth<'a>(traced: &'a Traced, outer: &str) -> Vec<(&'a Call, i64)> {
    let mut calls = traced.trace.of(outer);
    calls.sort_by_key(|call| call.start_ns);
    let truth: Vec<i64> = traced.ended.stdout.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(calls.len(), truth.len(), "{}", traced.ended.stderr);
    calls.into_iter().zip(truth).collect()
}

fn median(values: impl Iterator<Item = i64>) -> i64 {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn shown_ns(call: &Call) -> i64 {
    call.duration_ns.and_then(|ns| i64::try_from(ns).ok()).expect("a duration")
}

fn overhead_ns(call: &Call) -> i64 {
    call.overhead_ns.and_then(|ns| i64::try_from(ns).ok()).expect("what it is less by")
}

/// By the clock, calls are too long by what the probes cost; as shown they are wrong by so many percent less.
#[track_caller]
fn assert_nearer(name: &str, traced: &Traced, outer: &str, percent: i64) {
    let calls = with_truth(traced, outer);
    let raw = median(calls.iter().map(|(call, truth)| shown_ns(call) + overhead_ns(call) - truth));
    let left = median(calls.iter().map(|(call, truth)| (shown_ns(call) - truth).abs()));
    assert!(
        raw > 0 && (raw - left) * 100 >= raw * percent,
        "{name}: too long by {raw} ns, as shown wrong by {left} ns"
    );
}

fn durations(options: &[&str], inner: &str) -> Traced {
    durations_of("c/durations", &[], &[options, &["outer", "inner"]].concat(), inner)
}

/// By a copy that nobody else traces: else it would pay for their probes, too.
fn durations_of(name: &str, variables: &[(&str, &OsStr)], options: &[&str], inner: &str) -> Traced {
    let (_folder, copy) = private_copy(name, "durations");
    trace_with(variables, options, &[copy.as_os_str(), inner.as_ref(), "-n".as_ref(), CALLS.as_ref()])
}

#[test]
fn the_cost_of_inner_probes_is_subtracted_from_durations() {
    for (options, inner) in [
        (&[SUBTRACT][..], "1"),
        (&[SUBTRACT], "10"),
        (&[SUBTRACT, "--stack=none"], "10"),
        (&[SUBTRACT, "--stack=fp", "--stack-all"], "10"),
        (&[SUBTRACT, "--stack=dwarf", "--stack-all"], "10"),
    ] {
        let traced = durations(options, inner);
        assert_nearer(&format!("{options:?}, {inner} inner calls"), &traced, "outer", 50);
    }
}

#[test]
fn the_cost_of_inner_probes_in_go_is_that_of_finding_the_goroutine_too() {
    for options in [&[SUBTRACT][..], &[SUBTRACT, "--stack=none"], &[SUBTRACT, "--stack-all"]] {
        let options = [options, &["main.outer", "main.inner"]].concat();
        let traced = durations_of("go/durations", &[], &options, "10");
        assert_nearer(&format!("Go, {options:?}"), &traced, "main.outer", 50);
    }
}

#[test]
fn the_cost_of_a_calls_own_probes_is_subtracted_too() {
    let traced = durations(&[SUBTRACT, "--stack=none"], "0");
    assert_nearer("no inner calls", &traced, "outer", 25);
}

#[test]
fn what_each_trap_took_is_subtracted_however_long_that_was() {
    for (name, outer, functions) in
        [("c/durations", "outer", ["outer", "inner"]), ("go/durations", "main.outer", ["main.outer", "main.inner"])]
    {
        let options = [&[SUBTRACT, "--stack=none"][..], &functions].concat();
        let traced = durations_of(name, &[], &options, "10");
        assert!(
            traced.ended.stderr.contains("own cost, measured in each trap; at the start: "),
            "{}",
            traced.ended.stderr
        );
        // By what they cost at the start it would be 60 % at some moments.
        assert_nearer(name, &traced, outer, 90);
    }
}

#[test]
fn a_kernel_that_does_not_tell_of_each_trap_is_said_to() {
    let lacks = [("PROBE_KERNEL_LACKS", OsStr::new("trap-times"))];
    let traced = durations_of("c/durations", &lacks, &[SUBTRACT, "outer", "inner"], "10");
    let said = "probe: what it is in each trap cannot be measured here: it takes x86-64, the tracepoint";
    assert!(traced.ended.stderr.contains(said), "{}", traced.ended.stderr);
    assert_nearer("as at the start", &traced, "outer", 50);
}

#[test]
fn probes_that_an_older_kernel_attaches_one_by_one_are_measured_as_such() {
    let lacks = [("PROBE_KERNEL_LACKS", OsStr::new("uprobe-multi"))];
    let traced = durations_of("c/durations", &lacks, &[SUBTRACT, "outer", "inner"], "10");
    assert_nearer("one by one", &traced, "outer", 50);
}

#[test]
fn the_cost_of_uretprobes_is_subtracted_too() {
    let traced = durations(&[SUBTRACT, "--returns=uretprobe"], "10");
    assert_nearer("uretprobes", &traced, "outer", 50);
}

#[test]
fn what_was_measured_is_said_and_what_a_duration_is_less_by_stands_beside_it() {
    let traced = durations(&[SUBTRACT], "2");
    let costs = traced.trace.header["probe_cost_ns"].as_object().expect("costs");
    assert_eq!(costs.keys().collect::<Vec<_>>(), ["emulated_entry", "return"]);
    assert!(costs.values().all(|ns| ns.as_u64().is_some_and(|ns| (50..1_000_000).contains(&ns))), "{costs:?}");
    let said = "probe: durations are less the probes' own cost, measured in each trap; at the start: ";
    assert!(traced.ended.stderr.contains(said), "{}", traced.ended.stderr);
    assert!(traced.ended.stderr.contains("probe: the probes took about "), "{}", traced.ended.stderr);
    let plain = durations(&[], "2");
    assert!(plain.trace.header.get("probe_cost_ns").is_none());
    assert!(plain.trace.calls.iter().all(|call| call.overhead_ns.is_none() && call.duration_ns.is_some()));
}

#[test]
fn filters_go_by_what_is_shown() {
    let traced = durations(&[SUBTRACT], "10");
    let calls = with_truth(&traced, "outer");
    let between = median(calls.iter().map(|(call, _)| shown_ns(call) + overhead_ns(call) / 2));
    let slow = format!("--slow={between}ns");
    let subtracted = durations(&[SUBTRACT, &slow], "10");
    let by_the_clock = durations(&[&slow], "10");
    let outer = |traced: &Traced| traced.trace.of("outer").len();
    assert!(subtracted.trace.of("outer").iter().all(|call| shown_ns(call) >= between));
    let (few, many) = (outer(&subtracted), outer(&by_the_clock));
    assert!(few * 2 < many, "{few} of {many} calls are slow for more than their probes");
}

#[test]
fn without_returns_there_is_nothing_to_subtract_from() {
    let ended = probe(&[SUBTRACT, "--returns=none", "outer", "--", &path("c/durations"), "1"]);
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("--returns=none leaves out") && ended.stdout.is_empty(), "{ended:?}");
}

#[test]
fn a_stripped_probe_measures_its_own_functions_too() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let stripped = folder.path().join("probe");
    tool("strip", &["-o".as_ref(), stripped.as_os_str(), env!("CARGO_BIN_EXE_probe").as_ref()]);
    let (_folder, copy) = private_copy("c/durations", "durations");
    let copy = copy.to_str().expect("UTF-8");
    let ended = run(&stripped, &[SUBTRACT, "--stack=none", "inner", "--", copy, "1", "-n", "1"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.stderr.contains("durations are less the probes' own cost"), "{ended:?}");
}
