//! `--goroutines`: who made a goroutine, and where, by every version of Go. The program prints what Go's own runtime says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    counts::Truth,
    harness::{Traced, path, probe, trace},
};

/// The versions that the programs are built by; before 1.21 the runtime does not keep the parent's number.
const VERSIONS: [&str; 8] = ["1.19", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27"];
const GOROUTINES: u64 = 3 * 40;

/// Parent, function of the `go` statement, its file and line.
type Origin = (Option<u64>, String, String);

/// What the program says: by goroutine.
fn origins(stdout: &str) -> BTreeMap<u64, Origin> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.strip_prefix("origin ")?.split(' ').collect();
        let [goid, parent, function, place] = words[..] else { return None };
        let parent = parent.parse().ok().filter(|parent| *parent != 0);
        Some((goid.parse().ok()?, (parent, function.to_owned(), place.to_owned())))
    };
    stdout.lines().filter_map(parse).collect()
}

fn told(parent: Option<u64>, place: &Value) -> Origin {
    let text = |key: &str| place[key].as_str().unwrap_or_else(|| panic!("no {key}: {place}"));
    (parent, text("function").to_owned(), format!("{}:{}", text("file"), place["line"]))
}

fn traced(version: &str, options: &[&str]) -> (Traced, BTreeMap<u64, Origin>) {
    let program = path(&format!("goroutines/go{version}"));
    let options = [options, &["main.work", "main.inner"]].concat();
    let traced = trace(&options, &[program.as_str(), "calls", "-n", "40"]);
    let truth = Truth::of(&traced.ended.stdout);
    crate::counts::assert_counts(version, &traced, &truth);
    assert_eq!(traced.lost_total(), 0, "{version}");
    let known = origins(&traced.ended.stdout);
    assert_eq!(known.len() as u64, GOROUTINES, "{version}: {}", traced.ended.stdout);
    (traced, known)
}

#[test]
fn every_call_says_who_made_its_goroutine_as_the_runtime_does() {
    for version in VERSIONS {
        for stack in ["--stack=none", "--stack=auto", "--stack=dwarf", "--stack-all"] {
            let (traced, known) = traced(version, &["--goroutines", stack]);
            for call in &traced.trace.calls {
                let goroutine = call.goroutine.expect("on a goroutine");
                let told = told(call.parent_goroutine, call.go_statement.as_ref().expect("it was asked for"));
                assert_eq!(told, known[&goroutine], "{version} {stack}: {call:?}");
                assert!(version == "1.19" || call.parent_goroutine.is_some(), "{version} {stack}: {call:?}");
            }
        }
    }
}

#[test]
fn who_made_a_goroutine_is_not_said_unless_asked_for() {
    let (traced, _) = traced("1.27", &["--stack=none"]);
    assert!(traced.trace.calls.iter().all(|call| call.parent_goroutine.is_none() && call.go_statement.is_none()));
}

/// Short calls are held back in the kernel half, and with them what is told at entries: not here.
#[test]
fn short_calls_that_are_hidden_do_not_hide_who_made_the_goroutine() {
    let program = path("goroutines/go1.27");
    let options = ["--goroutines", "--stack=none", "--min-duration=1ns", "main.work", "main.inner"];
    let traced = trace(&options, &[program.as_str(), "calls", "-n", "40"]);
    assert_eq!(traced.trace.calls.len() as u64, 2 * 3 * GOROUTINES);
    assert!(traced.trace.calls.iter().all(|call| call.parent_goroutine.is_some()));
}

#[test]
fn a_blocks_header_and_a_streams_outermost_line_say_who_made_the_goroutine() {
    let program = path("goroutines/go1.27");
    for layout in ["--layout=tree", "--layout=stream"] {
        let args =
            ["--goroutines", "--stack=none", layout, "main.work", "main.inner", "--", &program, "calls", "-n", "2"];
        let ended = probe(&args);
        assert_eq!(ended.code(), 0, "{ended:?}");
        for (goroutine, (parent, function, place)) in origins(&ended.stdout) {
            let parent = parent.expect("Go 1.27 keeps it");
            let place = place.rsplit('/').next().expect("a file");
            let (who, made) = (format!(" g{goroutine} "), format!("(from g{parent} at {function} {place})"));
            let lines = ended.stderr.lines().filter(|line| line.contains(&who) && line.ends_with(&made)).count();
            assert_eq!(lines, 3, "{layout} {who}{made}: {}", ended.stderr);
        }
    }
}
