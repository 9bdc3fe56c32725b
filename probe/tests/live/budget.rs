//! The budget: what is too hot goes, what remains is whole, and all that is said.

use std::fs;

use serde_json::Value;

use crate::{
    counts::{Truth, assert_counts},
    harness::{Traced, Tracer, path, private_copy, program, run, trace},
};

/// `budget` with so many steps, of five milliseconds each, in each of two threads.
fn command(steps: &str) -> Vec<String> {
    [&path("c/budget"), "-n", steps, "-t", "2"].map(str::to_owned).to_vec()
}

fn of(truth: &Truth, function: &str) -> u64 {
    truth.calls().find(|(name, _)| *name == function).map_or(0, |(_, calls)| calls)
}

fn names(shed: &[Value]) -> Vec<&str> {
    shed.iter().map(|line| line["function"].as_str().expect("a name")).collect()
}

/// Every call of it is there, and all of them ended as they did.
#[track_caller]
fn assert_whole(traced: &Traced, function: &str, calls: u64) {
    let seen = traced.trace.of(function);
    assert_eq!(seen.len() as u64, calls, "{function}: {}", traced.ended.stderr);
    assert!(seen.iter().all(|call| &*call.end == "return" && call.duration_ns.is_some()), "{function}");
}

#[test]
fn what_is_too_hot_goes_and_not_one_call_of_the_others_is_missed() {
    let traced = trace(&["--budget", "5000", "--stack=none", "{hot,rare,step}"], &command("400"));
    let truth = Truth::of(&traced.ended.stdout);
    assert_eq!(traced.lost_total(), 0, "{}", traced.ended.stderr);
    assert_eq!(names(&traced.trace.shed), ["hot"], "{}", traced.ended.stderr);
    // Through the exchange of links, and in it, with calls open.
    assert_whole(&traced, "step", of(&truth, "step"));
    assert_whole(&traced, "rare", of(&truth, "rare"));
    let hot = traced.trace.of("hot");
    assert!(!hot.is_empty() && (hot.len() as u64) < of(&truth, "hot"), "{}", hot.len());
    assert_eq!(traced.trace.summary["unmatched_returns"], 0, "{}", traced.ended.stderr);
    assert_eq!(traced.trace.summary["open"], 0, "{}", traced.ended.stderr);
}

#[test]
fn what_was_shed_is_told_with_its_rate_and_time_and_after_it_no_call_begins() {
    let traced = trace(&["--budget", "5000", "--stack=none", "{hot,rare,step}"], &command("200"));
    let [shed] = traced.trace.shed.as_slice() else { panic!("{:?}", traced.trace.shed) };
    assert_eq!(traced.trace.summary["shed"], 1);
    let rate = shed["rate"].as_u64().expect("a rate");
    // The others make 1,600 at most, so it is most of what was beyond, whatever its events count.
    assert!(rate > 1000, "{rate}");
    let said = format!("1 function shed, for making too many events: hot {rate}/s");
    assert!(traced.ended.stderr.contains(&said), "{}", traced.ended.stderr);
    let at_ns = shed["at_ns"].as_u64().expect("a time");
    let last = traced.trace.of("hot").iter().map(|call| call.start_ns).max();
    assert!(last.is_some_and(|last| last <= at_ns), "{last:?} {at_ns}");
}

#[test]
fn what_is_named_exactly_is_traced_however_hot_it_is() {
    let traced = trace(&["--budget", "5000", "--stack=none", "hot", "rare", "st*p"], &command("20"));
    let truth = Truth::of(&traced.ended.stdout);
    assert!(names(&traced.trace.shed).is_empty(), "{}", traced.ended.stderr);
    assert_counts("hot, named", &traced, &truth);
}

#[test]
fn without_a_budget_everything_is_traced() {
    let traced = trace(&["--budget", "0", "--stack=none", "{hot,rare,step}"], &command("20"));
    assert!(traced.trace.shed.is_empty());
    assert_counts("no budget", &traced, &Truth::of(&traced.ended.stdout));
}

#[test]
fn a_limit_and_filters_work_beyond_what_was_shed() {
    let options = ["--budget", "5000", "--stack=none", "--min-duration", "900us", "--limit", "500", "{hot,rare,step}"];
    let traced = trace(&options, &command("400"));
    let outermost = traced.trace.calls.iter().filter(|call| call.depth == 0).count();
    assert_eq!(outermost, 500, "{}", traced.ended.stderr);
    assert!(traced.trace.calls.iter().all(|call| call.duration_ns.is_none_or(|ns| ns >= 900_000)));
    assert_eq!(of(&Truth::of(&traced.ended.stdout), "step"), 800, "the program went on");
}

#[test]
fn what_was_shed_is_left_out_of_the_next_build_too() {
    let (folder, app) = private_copy("c/budget", "app");
    let app = app.display().to_string();
    let tracer = Tracer::start(&["-x", &app, "--budget", "5000", "--stack=none", "{hot,rare,step}"]);
    let counts = |steps| Truth::of(&run(&app, &["-n", steps, "-t", "2"]).success());
    let old = counts("200");
    let new = folder.path().join("new");
    fs::copy(program("c/budget"), &new).expect("a copy can be made");
    fs::rename(&new, &app).expect("renamed");
    tracer.await_said("now also tracing 2 functions");
    let new = counts("40");
    let traced = tracer.interrupt();
    assert_eq!(names(&traced.trace.shed), ["hot"], "{}", traced.ended.stderr);
    for function in ["step", "rare"] {
        assert_whole(&traced, function, of(&old, function) + of(&new, function));
    }
    let left_out = &traced.trace.files[0]["skipped"];
    assert_eq!(left_out[0]["function"], "hot", "{left_out}");
    assert!(left_out[0]["reason"].as_str().is_some_and(|reason| reason.contains("--budget")), "{left_out}");
}
