//! `--min-duration` where the kernel half itself leaves out what is too short (JSON lines without callers): what is counted
//! and what is shown is what a whole trace has.

use super::{Truth, check};
use crate::{harness, trace::Call};

/// Programs whose calls end in every way.
const RUNS: [(&str, &[&str]); 20] = [
    ("c/counts", &["calls", "-n", "30000", "-t", "8"]),
    ("c/counts", &["recurse", "-n", "500"]),
    ("c/counts", &["tail", "-n", "2000"]),
    ("c/counts", &["cond", "-n", "2000"]),
    ("c/counts", &["indirect", "-n", "2000"]),
    ("c/counts", &["longjmp", "-n", "2000"]),
    ("c/counts", &["loop", "-n", "2000"]),
    ("c/counts", &["fork", "-n", "2000"]),
    ("c/counts", &["vfork"]),
    ("c/stacks", &["altstack", "-n", "25000"]),
    ("c/stacks", &["mutual"]),
    ("c/stacks", &["coroutine"]),
    ("cpp/counts", &["exception", "-n", "2000"]),
    ("go/counts", &["calls", "-n", "30000", "-t", "8"]),
    ("go/counts", &["grow", "-n", "40000"]),
    ("go/counts", &["panic", "-n", "2000"]),
    ("go/counts", &["goexit", "-n", "2000"]),
    ("go/counts", &["exit"]),
    ("go/counts", &["exec"]),
    ("rust/counts", &["panic", "-n", "2000"]),
];

fn options(min_duration: &str) -> [&str; 4] {
    ["--stack=none", "--buffer=512M", "--min-duration", min_duration]
}

#[test]
fn what_is_shown_has_every_end_it_can_have_and_what_is_left_out_is_counted_to_the_call() {
    for (program, mode) in RUNS {
        let (whole, truth) = check(program, mode, &options("1ns"));
        for (min_duration, min_ns) in [("20us", 20_000), ("1h", 3_600_000_000_000)] {
            let what = format!("{program} {mode:?} --min-duration {min_duration}");
            let path = harness::path(program);
            let args = [&options(min_duration)[..], &truth.names()].concat();
            let traced = harness::trace(&args, &[&[path.as_str()], mode].concat());
            let calls: u64 = Truth::of(&traced.ended.stdout).calls().map(|(_, calls)| calls).sum();
            let summary = &traced.trace.summary;
            assert_eq!((&summary["calls"], &summary["lost"]), (&calls.into(), &0.into()), "{what}");
            // A child of a fork returns from calls of its parent.
            assert_eq!(summary["unmatched_returns"], whole.trace.summary["unmatched_returns"], "{what}");
            let is_long = |call: &Call| call.duration_ns.is_none_or(|ns| ns >= min_ns);
            assert!(traced.trace.calls.iter().all(is_long), "{what}: a shorter call is shown");
        }
    }
}

#[test]
fn a_call_is_shown_within_its_callers_when_other_calls_of_them_are_left_out() {
    let (traced, truth) = check("c/counts", &["nested"], &["--stack=none", "--min-duration=1ns"]);
    let outermost = traced.trace.calls.iter().filter(|call| call.depth == 0).count();
    let path = harness::path("c/counts");
    let args = [&options("400us")[..], &truth.names()].concat();
    let shown = harness::trace(&args, &[path.as_str(), "nested"]).trace.calls;
    assert!(!shown.is_empty() && shown.len() < traced.trace.calls.len(), "{} are shown", shown.len());
    assert_eq!(shown.iter().filter(|call| call.depth == 0).count(), outermost);
    for call in shown.iter().filter(|call| call.depth > 0) {
        let parent = shown.iter().find(|other| Some(other.id) == call.parent).expect("its caller is shown");
        assert_eq!((parent.depth + 1, &*parent.function), (call.depth, "nested_parent"), "{}", call.function);
    }
}
