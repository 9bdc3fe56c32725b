//! Whose calls are traced: processes, threads, names, a command and its children, everyone; exit statuses.

use std::{fs, process::Command};

use crate::{
    counts::{Truth, assert_counts},
    harness::{self, Process, Traced, Tracer, path, private_copy, probe, program, run, trace},
};

/// Traces a program that waits, lets it work, and returns what was seen and what it says itself.
fn trace_waiting(program: &str, mode: &[&str], options: impl Fn(&Process) -> Vec<String>) -> (Traced, Truth) {
    let mut process = Process::waiting(harness::program(program), mode);
    let tracer = Tracer::start(&options(&process));
    process.go();
    let truth = Truth::of(&process.finish().success());
    (tracer.finish(), truth)
}

fn pid(process: &Process) -> String {
    process.pid().to_string()
}

#[test]
fn a_running_process_is_traced_and_its_twin_is_not() {
    for (program, patterns) in [
        ("c/counts", &["work", "leaf"][..]),
        ("cpp/counts", &["shop::Store::put", "shop::twice"]),
        ("rust/counts", &["counts::Store::save", "counts::leaf"]),
        ("go/counts-stripped", &["storage.*"]),
        ("go1.19/counts", &["storage.*"]),
    ] {
        let patterns: Vec<String> = patterns.iter().map(|p| p.replace("storage.*", "git.com/*/storage.*")).collect();
        let mut twin = Process::waiting(harness::program(program), &["calls", "-n", "4000"]);
        let mut process = Process::waiting(harness::program(program), &["calls", "-n", "4000"]);
        let tracer = Tracer::start(&[vec!["-p".to_owned(), pid(&process)], patterns].concat());
        twin.go();
        twin.finish().success();
        let id = process.pid();
        process.go();
        let truth = Truth::of(&process.finish().success());
        let mut traced = tracer.finish();
        assert_eq!(traced.ended.code(), 0, "{program}");
        assert!(traced.trace.calls.iter().all(|call| call.pid == id), "{program}: calls of another process");
        traced.trace.calls.retain(|call| &*call.function != "git.com/paas/myagent/pkg/storage.New");
        traced.trace.summary["calls"] = traced.trace.calls.len().into();
        assert_counts(program, &traced, &truth);
    }
}

#[test]
fn several_processes_are_traced_until_the_last_has_ended() {
    let mut first = Process::waiting(program("c/counts"), &["recurse", "-n", "1"]);
    let mut second = Process::waiting(program("c/counts"), &["recurse", "-n", "2"]);
    let pids = [first.pid(), second.pid()];
    let tracer = Tracer::start(&["-p", &format!("{},{}", pids[0], pids[1]), "recurse"]);
    first.go();
    first.finish().success();
    second.go();
    second.finish().success();
    let traced = tracer.finish();
    let of = |pid: u32| traced.trace.calls.iter().filter(|call| call.pid == pid).count();
    assert_eq!(pids.map(of), [200, 400]);
}

#[test]
fn one_thread_is_traced_and_its_process_is_not() {
    let main_thread =
        |process: &Process| vec!["--tid".to_owned(), pid(process), "recurse".to_owned(), "work".to_owned()];
    let (traced, truth) = trace_waiting("c/counts", &["recurse", "-n", "3"], main_thread);
    assert_counts("the main thread", &traced, &truth);
    let (traced, _) = trace_waiting("c/counts", &["calls", "-n", "400"], main_thread);
    assert!(traced.trace.calls.is_empty(), "calls of other threads: {:?}", traced.trace.calls);
}

#[test]
fn processes_of_one_name_are_traced_whenever_they_started() {
    let (folder, named) = private_copy("c/counts", "bythisname");
    let other = folder.path().join("byanothername");
    fs::hard_link(&named, &other).expect("a link can be made");
    let mut before = Process::waiting(&named, &["recurse", "-n", "1"]);
    let mut other_before = Process::waiting(&other, &["recurse", "-n", "1"]);
    let tracer = Tracer::start(&[
        "-x".as_ref(),
        named.as_os_str(),
        "--comm".as_ref(),
        "bythisname".as_ref(),
        "recurse".as_ref(),
    ]);
    let before_pid = before.pid();
    before.go();
    other_before.go();
    before.finish().success();
    other_before.finish().success();
    let mut after = Process::waiting(&named, &["recurse", "-n", "1"]);
    let after_pid = after.pid();
    after.go();
    after.finish().success();
    run(&other, &["recurse", "-n", "1"]).success();
    let traced = tracer.interrupt();
    let of = |pid: u32| traced.trace.calls.iter().filter(|call| call.pid == pid).count();
    assert_eq!((of(before_pid), of(after_pid)), (200, 200));
    assert_eq!(traced.trace.calls.len(), 400, "calls of another name");
    assert!(traced.trace.calls.iter().all(|call| &*call.comm == "bythisname"));
}

#[test]
fn without_a_target_every_process_that_runs_the_file_is_traced() {
    let (_folder, copy) = private_copy("rust/counts", "everyone");
    let mut before = Process::waiting(&copy, &["recurse", "-n", "1"]);
    let tracer = Tracer::start(&["-x".as_ref(), copy.as_os_str(), "counts::recurse".as_ref()]);
    before.go();
    before.finish().success();
    run(&copy, &["recurse", "-n", "2"]).success();
    assert_eq!(tracer.interrupt().trace.calls.len(), 600);
}

#[test]
fn children_are_traced_when_they_are_to_be_followed() {
    for (follow, works) in [(false, 1000), (true, 2000)] {
        let options = |process: &Process| {
            let mut options = vec!["-p".to_owned(), pid(process), "work".to_owned(), "forker".to_owned()];
            options.extend(follow.then(|| "--follow".to_owned()));
            options
        };
        let (traced, truth) = trace_waiting("c/counts", &["fork", "-n", "2000"], options);
        assert_eq!(traced.trace.of("work").len(), works, "follow: {follow}");
        let child = truth.note("pid", "child");
        let of_child = traced.trace.calls.iter().filter(|call| u64::from(call.pid) == child).count();
        assert_eq!(of_child, if follow { 1000 } else { 0 });
    }
}

#[test]
fn a_commands_children_are_traced_through_fork_and_exec() {
    let script = "\"$1\" recurse -n 1; (\"$1\" recurse -n 2); exec \"$1\" recurse -n 3";
    let counts = path("c/counts");
    let traced = trace(&["-x", &counts, "recurse"], &["sh", "-c", script, "sh", &counts]);
    assert_eq!(traced.trace.calls.len(), 1200, "{}", traced.ended.stderr);
    let pids: std::collections::HashSet<u32> = traced.trace.calls.iter().map(|call| call.pid).collect();
    assert_eq!(pids.len(), 3);
}

#[test]
fn a_commands_exit_status_is_ours() {
    let status = |command: &[&str]| {
        let test = path("c/test");
        probe(&[&["-x", &test, "func_a", "--"], command].concat())
    };
    assert_eq!(status(&["true"]).code(), 0);
    assert_eq!(status(&["sh", "-c", "exit 7"]).code(), 7);
    assert_eq!(status(&["sh", "-c", "kill -TERM $$"]).code(), 128 + 15);
    assert_eq!(status(&["sh", "-c", "kill -KILL $$"]).code(), 128 + 9);
    let missing = status(&["/nonexistent/program"]);
    assert_eq!(missing.code(), 127);
    assert!(missing.stderr.contains("/nonexistent/program"), "{missing:?}");
    assert_eq!(status(&["/dev/null"]).code(), 126);
}

#[test]
fn a_command_that_is_not_found_is_127_also_where_it_is_the_file_to_trace() {
    let missing = probe(&["anything", "--", "/nonexistent/program"]);
    assert_eq!(missing.code(), 127, "{missing:?}");
}

#[test]
fn a_command_keeps_its_streams() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(["-x", &path("c/test"), "func_a", "--", "sh", "-c", "cat; echo err >&2"]);
    let mut process = Process::start(command);
    process.go();
    let ended = process.finish();
    assert_eq!(ended.stdout, "go\n", "stdout is the command's alone");
    assert!(ended.stderr.lines().any(|line| line == "err"), "{ended:?}");
}

#[test]
fn a_command_is_never_started_when_nothing_can_be_traced() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let witness = folder.path().join("started");
    let started = witness.to_str().expect("UTF-8");
    let ended = probe(&["-x", &path("c/test"), "no_such_function", "--", "touch", started]);
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.stderr.contains("no_such_function"), "{ended:?}");
    assert!(!witness.exists());
}

#[test]
fn a_killed_probe_leaves_its_command_running_unharmed() {
    for (name, function) in [("go/counts", "main.recurse"), ("c/counts", "recurse")] {
        let (_folder, copy) = private_copy(name, "survivor");
        let mut process = Process::waiting(&copy, &["recurse", "-n", "100"]);
        let tracer = Tracer::start(&["-x".as_ref(), copy.as_os_str(), function.as_ref()]);
        run(&copy, &["recurse", "-n", "1"]).success();
        process.go();
        tracer.kill();
        let truth = Truth::of(&process.finish().success());
        assert_eq!(truth.calls().map(|(_, n)| n).sum::<u64>(), 20_000, "{name}");
    }
}

/// A program and its own library beside it, which no loader's cache knows.
fn with_own_library() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("own.c"), "int own_count(int x) { return x + 1; }\n").expect("a source");
    let program = "int own_count(int); int main(void) { int s = 0; while (s < 1000) s = own_count(s); return 0; }\n";
    fs::write(at("main.c"), program).expect("a source");
    harness::tool(
        "cc",
        &["-O1", "-shared", "-fPIC", "-Wl,-soname,libown.so.2", "-o", &at("libown.so.2"), &at("own.c")],
    );
    harness::tool("cc", &["-O1", "-Wl,-rpath,$ORIGIN", "-o", &at("main"), &at("main.c"), &at("libown.so.2")]);
    let program = at("main");
    (folder, program)
}

#[test]
fn a_library_is_named_as_the_loader_of_the_command_finds_it() {
    let (_folder, program) = with_own_library();
    for name in ["libown", "libown.so.2"] {
        let traced = trace(&["-x", name, "own_count"], &[&program]);
        assert_eq!(traced.trace.calls.len(), 1000, "{name}");
    }
    let ended = probe(&["-x", "libown", "own_count"]);
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("no library of that name"), "{}", ended.stderr);
}
