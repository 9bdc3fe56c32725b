//! What the options promise: ends, filters, points, ways to see returns.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    counts::{Truth, assert_counts},
    harness::{Process, Tracer, nm, path, private_copy, probe, program, run, tool, trace},
};

#[test]
fn a_limit_ends_the_trace_after_so_many_outermost_calls_and_the_command_goes_on() {
    for (name, function) in [("c/counts", "recurse"), ("go/counts", "main.recurse")] {
        let traced = trace(&["--limit", "5", function], &[&path(name), "recurse", "-n", "50"]);
        assert_eq!(traced.trace.calls.iter().filter(|call| call.depth == 0).count(), 5, "{name}");
        assert_eq!(traced.trace.calls.len(), 5 * 200, "{name}");
        let told = (&traced.trace.summary["calls"], &traced.trace.summary["open"]);
        assert_eq!(told, (&1000.into(), &0.into()), "{name}: what came after is not counted");
        assert!(traced.trace.calls.iter().all(|call| &*call.end == "return"), "{name}");
        assert_eq!(Truth::of(&traced.ended.stdout).calls().next(), Some((function, 10_000)), "{name} went on");
        assert_eq!(traced.ended.code(), 0, "{name}");
    }
}

#[test]
fn a_duration_ends_the_trace_and_the_process_goes_on() {
    let mut process = Process::waiting(program("c/counts"), &["recurse", "-n", "1"]);
    let ended = probe(&["-p", &process.pid().to_string(), "--duration", "20ms", "recurse"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    process.go();
    process.finish().success();
}

#[test]
fn a_duration_ends_the_trace_and_the_commands_status_is_waited_for() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(["--duration", "20ms", "exit_outer", "--", &path("c/counts"), "exit", "--wait"]);
    let mut process = Process::start(command);
    process.await_line("ready");
    // The closing lines: the trace is over, and the command still waits.
    process.await_said("0 calls");
    process.go();
    assert_eq!(process.finish().code(), 3);
}

#[test]
fn a_command_runs_as_the_user_that_is_named() {
    let (folder, copy) = private_copy("c/counts", "as_nobody");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let script = "id; echo \"$HOME $USER $LOGNAME\"; exec \"$0\" recurse -n 3";
    let copy = copy.to_str().expect("UTF-8");
    let traced = trace(&["-x", copy, "--user", "nobody", "recurse"], &["sh", "-c", script, copy]);
    let stdout = &traced.ended.stdout;
    let user = tool("id", &["nobody"]);
    assert_eq!(stdout.lines().next(), Some(user.trim_end()), "{traced:?}");
    let entry = tool("getent", &["passwd", "nobody"]);
    let home = entry.split(':').nth(5).expect("a home");
    assert_eq!(stdout.lines().nth(1), Some(format!("{home} nobody nobody").as_str()));
    assert_counts("as nobody", &traced, &Truth::of(stdout));
}

#[test]
fn a_user_that_does_not_exist_is_said_before_anything_is_attached() {
    let ended = probe(&["--user", "no-such-user", "recurse", "--", &path("c/counts"), "recurse", "-n", "1"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stderr.contains("no user no-such-user") && !ended.stderr.contains("tracing"), "{ended:?}");
}

#[test]
fn ctrl_c_ends_the_trace_with_every_call_in_it() {
    for (name, patterns) in [("c/counts", &["work", "leaf"][..]), ("go/counts", &["git.com/*.(*ProcessStore).*"])] {
        let (_folder, copy) = private_copy(name, "interrupted");
        let copy_path = copy.to_str().expect("UTF-8");
        let tracer = Tracer::start(&[&["-x", copy_path], patterns].concat());
        let truth = Truth::of(&run(&copy, &["calls", "-n", "20000"]).success());
        let traced = tracer.interrupt();
        assert_eq!(traced.ended.code(), 0, "{name}");
        assert_eq!(traced.lost_total(), 0, "{name}");
        for (function, calls) in truth.calls().filter(|(f, _)| traced.trace.counts().contains_key(*f)) {
            assert_eq!(traced.trace.of(function).len() as u64, calls, "{name}: {function}");
        }
        assert!(!traced.trace.calls.is_empty(), "{name}");
    }
}

#[test]
fn ctrl_c_shows_open_calls_as_open() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("trace");
    let (_copy_folder, copy) = private_copy("c/counts", "open");
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.arg("-o").arg(&file).arg("-x").arg(&copy).arg("main");
    let tracer = Process::start(command);
    tracer.await_said("probe: tracing");
    let mut process = Process::waiting(&copy, &["recurse", "-n", "1"]);
    tracer.signal("INT");
    let ended = tracer.finish();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let text = fs::read_to_string(&file).expect("a trace");
    assert!(text.lines().any(|line| line.contains("main") && line.contains('…')), "{text}");
    assert!(ended.stderr.contains("1 call still open"), "{ended:?}");
    process.go();
    process.finish().success();
}

#[test]
fn two_traces_of_one_program_at_once_both_see_everything() {
    for (name, functions) in [("c/counts", ["work", "leaf"]), ("rust/counts", ["counts::Store::save", "counts::leaf"])]
    {
        let mut process = Process::waiting(program(name), &["calls", "-n", "20000"]);
        let pid = process.pid().to_string();
        let start = || Tracer::start(&[&["-p", &pid, "--stack=none"], &functions[..]].concat());
        let tracers = [start(), start()];
        process.go();
        let truth = Truth::of(&process.finish().success());
        for tracer in tracers {
            assert_counts(name, &tracer.finish(), &truth);
        }
    }
}

#[test]
fn without_returns_entries_are_counted_and_no_duration_is_told() {
    for (name, functions) in [
        ("c/counts", &["work", "leaf"][..]),
        ("go/counts", &["SaveNetworkLocateInfo", "loadNetworkLocateInfo", "storage.checksum", "Info.Valid"]),
    ] {
        let options = [&["--returns=none", "--stack=none"], functions].concat();
        let traced = trace(&options, &[&path(name), "calls", "-n", "20000"]);
        for (function, calls) in Truth::of(&traced.ended.stdout).calls() {
            let seen = traced.trace.of(function);
            assert_eq!(seen.len() as u64, calls, "{name}: {function}");
            assert!(seen.iter().all(|call| call.duration_ns.is_none() && &*call.end == "open"), "{name}: {function}");
        }
    }
}

#[test]
fn uretprobes_see_the_returns_of_c() {
    for name in ["c/counts", "c/counts-O0"] {
        let options = ["--returns=uretprobe", "--stack=none", "work", "leaf"];
        let traced = trace(&options, &[&path(name), "calls", "-n", "20000"]);
        assert_counts(name, &traced, &Truth::of(&traced.ended.stdout));
    }
}

#[test]
fn uretprobes_are_refused_on_go() {
    let ended = probe(&["--returns=uretprobe", "main.recurse", "--", &path("go/counts"), "recurse", "-n", "1"]);
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.stderr.contains("Go"), "{ended:?}");
    assert_eq!(ended.stdout, "", "the command was started");
}

const NESTED: [&str; 4] = ["nested_parent", "nested_a", "nested_b", "nested_c"];

#[test]
fn shorter_calls_are_hidden_and_what_is_left_is_a_tree() {
    let options = [&["--min-duration", "400us"], &NESTED[..]].concat();
    let traced = trace(&options, &[&path("c/counts"), "nested"]);
    // nested_b takes 500 µs at least; the others may be slow on a busy machine, but never shorter than asked for.
    assert_eq!((traced.trace.of("nested_parent").len(), traced.trace.of("nested_b").len()), (50, 50));
    assert!(traced.trace.calls.iter().all(|call| call.duration_ns.is_some_and(|ns| ns >= 400_000)));
}

#[test]
fn slow_outermost_calls_are_shown_with_their_whole_subtree_and_others_not_at_all() {
    let options = [&["--slow", "850us"], &NESTED[..]].concat();
    let traced = trace(&options, &[&path("c/counts"), "nested"]);
    assert_eq!(traced.trace.calls.len(), 200, "every nested_parent takes 900 µs at least");
    let options = [&["--slow", "1h"], &NESTED[..]].concat();
    let traced = trace(&options, &[&path("c/counts"), "nested"]);
    assert!(traced.trace.calls.is_empty());
}

#[test]
fn calls_nested_deeper_than_asked_for_are_not_shown() {
    let traced = trace(&["--max-depth", "3", "recurse"], &[&path("c/counts"), "recurse", "-n", "10"]);
    let at = |depth| traced.trace.calls.iter().filter(|call| call.depth == depth).count();
    assert_eq!([at(0), at(1), at(2), at(3)], [10, 10, 10, 0]);
    assert_eq!(traced.trace.calls.len(), 30);
}

/// Offset and length of the instructions of a function, by objdump.
fn instructions(program: &str, function: &str) -> Vec<u64> {
    let start = nm(program.as_ref())[function];
    let listed = tool("objdump", &["-d", "--no-show-raw-insn", &format!("--disassemble={function}"), program]);
    let address = |line: &str| u64::from_str_radix(line.trim_start().split_once(":\t")?.0, 16).ok();
    listed.lines().filter_map(address).map(|address| address - start).collect()
}

#[test]
fn a_point_in_a_function_is_passed_as_often_as_its_instruction_runs() {
    let program = path("c/counts-O0");
    let offsets = instructions(&program, "leaf");
    let (second, last) = (offsets[1], offsets[offsets.len() - 1]);
    let points = [format!("leaf+{second:#x}"), format!("leaf+{last:#x}"), "work".to_owned()];
    let traced = trace(&points, &[&program, "calls", "-n", "4000"]);
    let truth = Truth::of(&traced.ended.stdout);
    let leafs = truth.calls().find(|(name, _)| *name == "leaf").expect("leaf is called").1;
    let parents: std::collections::HashSet<u64> = traced.trace.of("work").iter().map(|call| call.id).collect();
    for offset in [second, last] {
        let of_it: Vec<_> = traced.trace.points.iter().filter(|point| point["offset"] == offset).collect();
        assert_eq!(of_it.len() as u64, leafs, "+{offset:#x}");
        for point in of_it {
            assert_eq!(point["function"], "leaf");
            assert!(point["parent"].as_u64().is_some_and(|id| parents.contains(&id)), "{point}");
            assert_eq!(point["depth"], 1, "{point}");
        }
    }
}

#[test]
fn a_point_inside_an_instruction_is_refused() {
    let program = path("c/counts-O0");
    let offsets = instructions(&program, "leaf");
    let long = offsets.windows(2).find(|pair| pair[1] - pair[0] > 1).expect("some are long")[0];
    let ended = probe(&[&format!("leaf+{:#x}", long + 1), "--", &program, "calls", "-n", "4"]);
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert_eq!(ended.stdout, "", "the command was started");
    assert!(ended.stderr.contains("instruction"), "{ended:?}");
}

#[test]
fn a_loss_is_told_for_each_function_and_never_makes_a_duration_wrong() {
    // The smallest buffer there is loses most. The laws hold nevertheless, and so do the sums.
    let options = ["--buffer", "4096", "counts::Store::save", "counts::leaf"];
    let traced = trace(&options, &[&path("rust/counts"), "calls", "-n", "100000"]);
    let truth = Truth::of(&traced.ended.stdout);
    assert!(traced.lost_total() > 0, "{}", traced.ended.stderr);
    assert_counts("a small buffer", &traced, &truth);
    let told: u64 =
        ["entries", "returns"].iter().flat_map(|what| truth.names().into_iter().map(|n| traced.lost(what, n))).sum();
    assert_eq!(told, traced.lost_total(), "{}", traced.ended.stderr);
    let longest = traced.trace.calls.iter().filter_map(|call| call.duration_ns).max();
    assert!(longest.is_some(), "nothing was seen at all");
}
