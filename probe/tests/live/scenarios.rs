//! What people do with other tools today (docs/guide.md), as they write it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::harness::{Ended, Process, nm, private_copy, program};

const SAVE: &str = "git.com/paas/myagent/pkg/storage.(*ProcessStore).SaveNetworkLocateInfo";

/// A Go program called `app` in a folder of its own.
fn app() -> TempDir {
    private_copy("go/counts", "app").0
}

/// A C program called `test`.
fn test() -> TempDir {
    private_copy("c/test", "test").0
}

/// `probe` in this folder.
fn start(folder: &TempDir, args: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.current_dir(folder.path()).args(args);
    Process::start(command)
}

fn probe(folder: &TempDir, args: &[&str]) -> Ended {
    start(folder, args).finish()
}

/// Traces `app` as a user would in one terminal, and runs it in another.
fn trace_app(folder: &TempDir, pattern: &str) -> String {
    let tracer = start(folder, &["-x", "app", pattern]);
    tracer.await_said("probe: tracing");
    crate::harness::run(folder.path().join("app"), &["calls", "-n", "40"]).success();
    tracer.signal("INT");
    let ended = tracer.finish();
    assert!(ended.stderr.contains("40 calls (40 outermost)"), "{pattern}: {ended:?}");
    ended.success()
}

fn blocks_of(shown: &str, function: &str) -> usize {
    shown.lines().filter(|line| line.ends_with(&format!("  {function}"))).count()
}

/// Row 1.
#[test]
fn what_is_listed_by_a_part_of_its_name_can_be_traced() {
    let folder = app();
    let listed = probe(&folder, &["list", "-x", "app", "*[Ss]tore*"]);
    assert_eq!(listed.code(), 0, "{listed:?}");
    let names: BTreeSet<&str> = listed.stdout.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    let all = nm(&folder.path().join("app"));
    let stores = |name: &&String| name.contains("Store") || name.contains("store");
    let own = |name: &&str| name.starts_with("git.com/") && !name.contains("deferwrap");
    let expected: BTreeSet<&str> = all.keys().filter(stores).map(String::as_str).filter(own).collect();
    assert!(expected.contains(SAVE), "{expected:?}");
    assert!(expected.iter().all(|name| names.contains(name)), "{expected:?} in {names:?}");
    assert!(names.iter().all(|name| name.contains("Store") || name.contains("store")), "{names:?}");
    for line in listed.stdout.lines().filter(|line| !line.contains("[not probeable")) {
        let name = line.split_whitespace().nth(3).expect("a name");
        let plan = probe(&folder, &["--dry-run", "-x", "app", name]).success();
        assert!(plan.contains(name), "{plan}");
    }
}

/// Row 2.
#[test]
fn a_go_method_is_found_by_its_last_name() {
    let folder = app();
    assert_eq!(blocks_of(&trace_app(&folder, "SaveNetworkLocateInfo"), SAVE), 40);
}

/// Row 3.
#[test]
fn a_go_method_is_found_by_its_full_name_escaped_or_not() {
    let folder = app();
    for name in [SAVE, r"git.com/paas/myagent/pkg/storage.(\*ProcessStore).SaveNetworkLocateInfo"] {
        assert_eq!(blocks_of(&trace_app(&folder, name), SAVE), 40);
    }
}

/// Row 4.
#[test]
fn the_address_that_nm_gave_is_the_function() {
    let folder = app();
    let address = format!("{:#x}", nm(&folder.path().join("app"))[SAVE]);
    let shown = trace_app(&folder, &address);
    assert_eq!(blocks_of(&shown, SAVE), 40, "{shown}");
}

/// Row 5.
#[test]
fn a_family_of_functions_is_traced_twice_at_once_and_again() {
    let folder = test();
    for _ in 0..2 {
        let tracers = [(); 2].map(|()| start(&folder, &["-x", "./test", "func_*"]));
        tracers.iter().for_each(|tracer| tracer.await_said("probe: tracing"));
        crate::harness::run(folder.path().join("test"), &["3"]).success();
        for tracer in tracers {
            tracer.signal("INT");
            let shown = tracer.finish().success();
            for function in ["func_a", "func_b", "func_c", "func_d"] {
                let calls = shown.lines().filter(|line| line.ends_with(&format!(" {function}"))).count();
                assert_eq!(calls, 3, "{function}: {shown}");
            }
        }
    }
    let events = Path::new("/sys/kernel/tracing/uprobe_events");
    let left = fs::read_to_string(events).unwrap_or_default();
    assert!(!left.contains("func_"), "events that stay: {left}");
}

/// Row 6.
#[test]
fn one_command_starts_a_program_and_traces_all_of_it() {
    let folder = test();
    let alone = crate::harness::run(folder.path().join("test"), &["1"]).success();
    let ended = probe(&folder, &["-x", "./test", "*", "--", "./test"]);
    assert_eq!(ended.stdout, alone, "the program's own output");
    for function in ["main", "func_a", "func_b", "func_c", "func_d", "truth_print"] {
        assert!(ended.stderr.lines().any(|line| line.ends_with(&format!(" {function}"))), "{}", ended.stderr);
    }
    // `_start` is a caller, and no call: those have a duration.
    let mut calls = ended.stderr.lines().filter(|line| line.contains("s  "));
    assert!(!calls.any(|line| line.ends_with(" _start") || line.ends_with(" frame_dummy")), "{}", ended.stderr);
}

/// A shown line without its duration.
fn shape(line: &str) -> &str {
    line.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .trim_start_matches("ns ")
        .trim_start_matches("µs ")
        .trim_start_matches("ms ")
        .trim_start()
}

/// Where in a line its function stands, in characters.
fn column(line: &str) -> Option<usize> {
    line.find("func_").map(|at| line[..at].chars().count())
}

/// Row 15.
#[test]
fn user_functions_are_shown_as_a_function_graph() {
    let folder = test();
    let tree = probe(&folder, &["--stack=none", "--time=none", "func_*", "--", "./test"]).stderr;
    let graph: Vec<&str> = tree.lines().filter(|line| line.contains("func_")).map(shape).collect();
    assert_eq!(graph, ["func_a", "└─ func_b", "└─ func_c", "└─ func_d"], "{tree}");
    let columns: Vec<usize> = tree.lines().filter_map(column).collect();
    assert!(columns.is_sorted() && columns.first() < columns.last(), "{tree}");

    let options = ["--stack=none", "--time=none", "--layout=stream", "func_*", "--", "./test"];
    let stream = probe(&folder, &options).stderr;
    let order = ["func_a {", "func_b {", "func_c {", " func_d", "} func_c", "} func_b", "} func_a"];
    let shown: Vec<&str> = stream.lines().filter(|l| l.contains("func_") && !l.starts_with("probe:")).collect();
    assert_eq!(shown.len(), order.len(), "{stream}");
    for (line, end) in shown.iter().zip(order) {
        assert!(line.ends_with(end), "'{line}' is not '{end}': {stream}");
    }
}

#[test]
fn the_program_of_the_command_is_meant_where_no_file_is_named() {
    let ended = crate::harness::probe(&["func_d", "--", program("c/test").to_str().expect("UTF-8")]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.stderr.contains("1 call (1 outermost)"), "{ended:?}");
}
