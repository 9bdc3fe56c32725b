//! What targets do: end at once, execute another program, be deleted, rebuilt, overwritten; have hostile names.

use std::{fs, io::Write as _, os::unix::process::CommandExt as _, process::Command};

use super::{Beat, Built, Probe, as_text, calls, left::InKernel, program};

#[test]
fn a_command_that_ends_at_once_is_seen_and_its_status_is_ours() {
    let counts = program("c/counts");
    let counts = as_text(&counts);
    let ended = Probe::start(&["--json", "-o", "/dev/null", "exit_*", "--", counts, "exit"]).ended();
    ended.code(3).says(&["2 calls"]);
    let ended = Probe::start(&["-q", "work", "--", counts, "no-such-mode"]).ended();
    ended.code(2);
    // By a signal.
    let built = Built::new();
    let ended = Probe::start(&["-q", "-x", &built.beat(), "beat", "--", "/bin/sh", "-c", "kill -9 $$"]).ended();
    ended.code(128 + 9);
}

#[test]
fn a_process_that_ends_ends_the_trace() {
    let built = Built::new();
    let mut beat = built.start();
    let traced = Probe::attached(&["-p", &beat.pid(), "--json", "beat"]);
    beat.told("beat 5");
    let held = InKernel::of(traced.id());
    beat.send("end");
    let ended = traced.ended();
    ended.code(0);
    assert_eq!(ended.calls("beat"), 5);
    assert!(!ended.stderr.contains("deleted"), "nobody deleted its program: {}", ended.stderr);
    held.is_gone();
}

#[test]
fn one_of_two_processes_that_ends_is_no_deleted_file() {
    let built = Built::new();
    let (first, mut second) = (built.start(), built.start());
    let traced = Probe::attached(&["-p", &format!("{},{}", first.pid(), second.pid()), "--json", "beat"]);
    drop(first);
    second.told("spin 100");
    second.told("beat 5");
    let ended = traced.interrupted();
    ended.code(0);
    assert!(!ended.stderr.contains("deleted"), "{}", ended.stderr);
    second.ends_well();
}

#[test]
fn an_exec_ends_the_calls_and_the_new_program_is_unharmed() {
    let built = Built::new();
    // To another program, and anew to the one that is traced.
    for (program, ready) in [("/bin/cat", None), (&*built.beat(), Some("ready"))] {
        let mut beat = built.start();
        let traced = Probe::attached(&["-p", &beat.pid(), "--json", "beat"]);
        beat.told("beat 5");
        beat.send(&format!("exec {program}"));
        if let Some(ready) = ready {
            assert_eq!(beat.line(), ready);
        }
        // `cat` answers with what it is told, as `beat` does.
        beat.told("beat 3");
        let ended = traced.interrupted();
        ended.code(0);
        assert!(ended.calls("beat") >= 5, "{}", ended.stdout);
        assert!(!ended.stderr.contains("replaced") && !ended.stderr.contains("deleted"), "{}", ended.stderr);
    }
}

#[test]
fn a_command_that_executes_the_traced_program_late_is_traced() {
    let built = Built::new();
    let script = format!("exec {} <<'E'\nbeat 4\nE", built.beat());
    let ended = Probe::start(&[
        "--json",
        "-o",
        &built.path("trace"),
        "-x",
        &built.beat(),
        "beat",
        "--",
        "/bin/sh",
        "-c",
        &script,
    ])
    .ended();
    ended.code(7);
    assert_eq!(calls(&fs::read_to_string(built.path("trace")).expect("the trace"), "beat"), 4);
}

#[test]
fn a_deleted_program_is_traced_on_and_it_is_said() {
    let built = Built::new();
    let mut beat = built.start();
    let traced = Probe::attached(&["-x", &built.beat(), "--json", "beat"]);
    beat.told("beat 5");
    fs::remove_file(built.beat()).expect("deleted");
    let traced = traced.when_said("deleted");
    beat.told("beat 6");
    let ended = traced.interrupted();
    ended.code(0).says(&[&built.beat(), "still traced"]);
    assert_eq!(ended.calls("beat"), 11);
    beat.ends_well();
}

/// The process that runs is all that is left of the file.
#[test]
fn a_program_that_was_deleted_before_can_be_traced_by_its_process() {
    let built = Built::new();
    let mut beat = built.start();
    fs::remove_file(built.beat()).expect("deleted");
    let traced = Probe::attached(&["-p", &beat.pid(), "--json", "beat"]);
    beat.told("beat 5");
    let ended = traced.interrupted();
    ended.code(0).says(&[&built.beat()]);
    assert_eq!(ended.calls("beat"), 5, "{}", ended.stderr);
    beat.ends_well();
}

#[test]
fn a_rebuilt_program_is_traced_and_so_is_the_old_one() {
    let built = Built::new();
    let mut old = built.start();
    let traced = Probe::attached(&["-x", &built.beat(), "--json", "beat"]);
    old.told("beat 5");
    let copy = built.path("beat.new");
    assert!(Command::new("cp").args([&built.beat(), &copy]).status().expect("cp runs").success());
    fs::rename(&copy, built.beat()).expect("renamed");
    let traced = traced.when_said("now also tracing");
    old.told("beat 6");
    let mut new = built.start();
    new.told("beat 1000");
    let ended = traced.interrupted();
    ended.code(0);
    assert_eq!(ended.calls("beat"), 1011, "{}", ended.stderr);
    ended.says(&["was replaced", "processes that run the old file are still traced"]);
    old.ends_well();
    new.ends_well();
}

/// Appends to the library: it is not what was read any more, though its code still runs.
fn overwrite(built: &Built) {
    let mut file = fs::OpenOptions::new().append(true).open(built.path("libbeat.so")).expect("the library");
    file.write_all(b"overwritten").expect("written");
}

#[test]
fn a_file_overwritten_in_place_loses_its_probes_at_once() {
    let built = Built::new();
    let mut beat = built.start();
    let traced = Probe::attached(&["-x", &built.path("libbeat.so"), "--json", "lib_beat"]);
    beat.told("lib 5");
    let held = InKernel::of(traced.id());
    assert!(held.links() > 0);
    overwrite(&built);
    let ended = traced.ended();
    ended.code(1).says(&[&built.path("libbeat.so"), "overwritten in place", "removed"]);
    assert_eq!(ended.calls("lib_beat"), 5, "what was seen before is told");
    held.is_gone();
    beat.told("lib 5");
    beat.ends_well();
}

#[test]
fn a_file_overwritten_under_a_command_loses_its_probes_while_the_command_runs() {
    let built = Built::new();
    let mut command = Probe::command(&["-x", &built.path("libbeat.so"), "lib_beat", "-o", &built.path("trace"), "--"]);
    command.arg(built.beat()).stderr(fs::File::create(built.path("said")).expect("a file"));
    let mut traced = Beat::start(command);
    traced.told("lib 5");
    let pid = i64::from(traced.child.id());
    let held = InKernel::of(pid);
    overwrite(&built);
    // `probe` waits for the command, and holds no link any more.
    super::until("no links", || (InKernel::of(pid).links() < held.links()).then_some(()));
    let said = || fs::read_to_string(built.path("said")).expect("text");
    super::until("a word about it", || said().contains("overwritten in place").then_some(()));
    traced.told("lib 5");
    traced.told("beat 5");
    traced.stdin = None;
    let status = super::until("its end", || traced.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(1), "{}", said());
    assert!(!said().contains("panicked"), "{}", said());
}

/// A file that shrinks takes away the memory that it was mapped to.
#[test]
fn a_file_cut_off_in_place_does_not_take_us_down() {
    let built = Built::new();
    let library = built.path("spare.so");
    for length in [0, 100, 5000] {
        fs::copy(built.path("libbeat.so"), &library).expect("a copy");
        let traced = Probe::attached(&["-x", &library, "--all", "*"]);
        fs::OpenOptions::new().write(true).open(&library).and_then(|file| file.set_len(length)).expect("cut");
        traced.ended().code(1).says(&[&library, "overwritten in place"]);
    }
}

#[test]
fn hostile_names_reach_no_terminal_and_json_has_them_whole() {
    let built = Built::new();
    let hostile = "b\x1b[31m\nprobe: forged";
    let path = built.path("hos\x1b]0;x\x07tile");
    let renamed =
        Command::new("objcopy").arg(format!("--redefine-sym=beat={hostile}")).args([&built.beat(), &path]).status();
    assert!(renamed.expect("objcopy runs").success());
    let start = || {
        let mut command = Command::new(&path);
        command.arg0("beat");
        Beat::start(command)
    };
    let clean = |text: &str| {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("probe: forged")), "{text:?}");
    };
    for layout in ["tree", "stream"] {
        let mut beat = start();
        beat.told("name co\\nm\\e[1m");
        let traced = Probe::attached(&["-p", &beat.pid(), "--layout", layout, "-v", "b*"]);
        beat.told("beat 3");
        let ended = traced.interrupted();
        ended.code(0);
        clean(&ended.stdout);
        clean(&ended.stderr);
        assert!(ended.stdout.contains(r"b\x1b[31m\nprobe: forged"), "{layout}: {}", ended.stdout);
        assert!(ended.stdout.contains(r"co\nm\x1b[1m"), "{layout}: {}", ended.stdout);
    }
    let mut beat = start();
    beat.told("name co\\nm\\e[1m");
    let traced = Probe::attached(&["-p", &beat.pid(), "--json", "b*"]);
    beat.told("beat 3");
    let ended = traced.interrupted();
    ended.code(0);
    assert_eq!(ended.calls(hostile), 3, "{}", ended.stdout);
    assert!(ended.stdout.contains(r#""comm":"co\nm\u001b[1m""#), "{}", ended.stdout);
    clean(&ended.stdout);
    for args in [&["list", "-x", &path][..], &["-x", &path, "--dry-run", "b*"], &["-x", &path, "b.31"]] {
        let ended = Probe::start(args).ended();
        clean(&ended.stdout);
        clean(&ended.stderr);
    }
}
