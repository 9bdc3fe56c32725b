//! How traces end: closed pipes, full disks, signals of every kind, at every moment.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{Beat, Built, Probe, as_text, calls, children::commands, left::InKernel, program, signal, until};

#[test]
fn a_reader_that_goes_away_ends_the_trace_quietly() {
    let built = Built::new();
    for layout in [&["--json"][..], &["--layout=tree"], &["--layout=stream"]] {
        let mut beat = built.start();
        let mut command = Probe::command(&[&["-q", "-p", &beat.pid(), "beat"], layout].concat());
        let mut probe = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("probe can be started");
        let mut stdout = BufReader::with_capacity(64, probe.stdout.take().expect("a pipe"));
        // Three that watch processes, one for exits, and the last one for entries.
        let held = until("links", || Some(InKernel::of(i64::from(probe.id()))).filter(|held| held.links() >= 5));
        beat.told("beat 100");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        let status = until("its end", || {
            beat.told("beat 10");
            probe.try_wait().expect("its state")
        });
        let mut stderr = String::new();
        probe.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{layout:?}");
        held.is_gone();
        beat.ends_well();
    }
}

/// `probe … -- COMMAND 2>&1 >out | head -3`
#[test]
fn a_reader_that_goes_away_does_not_disturb_the_command() {
    let counts = program("c/counts");
    for (mode, status, truth) in [("calls", 0, "\"work\": 200000"), ("exit", 3, "\"exit_outer\": 1")] {
        let mut command = Probe::command(&["*", "--", as_text(&counts), mode, "-n", "200000"]);
        let mut probe = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("probe can be started");
        drop(probe.stderr.take());
        let mut stdout = String::new();
        probe.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
        assert!(stdout.contains(truth), "{stdout}");
        assert_eq!(probe.wait().expect("its end").code(), Some(status));
    }
}

/// Nobody listens, and there is something to say.
#[test]
fn errors_without_a_reader_keep_their_exit_status() {
    for (args, status) in [
        (&["-x", "/nowhere", "f"][..], 1),
        (&["f", "--", "no-such-program-here"], 127),
        (&["-x", "/bin/true", "/(/"], 2),
    ] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let ended = Probe::command(args).stderr(writer).status().expect("probe can be started");
        assert_eq!(ended.code(), Some(status), "{args:?}: {:?}", ended.signal());
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_target_is_unharmed() {
    let built = Built::new();
    for layout in [&["--json"][..], &["--layout=tree"], &["--layout=stream"]] {
        let mut beat = built.start();
        let probe = Probe::start(&[&["-p", &beat.pid(), "-o", "/dev/full", "beat"], layout].concat());
        let probe = if layout == ["--json"] { probe } else { probe.when_said("Ctrl-C ends") };
        beat.told("beat 100");
        probe.ended().code(1).says(&["failed to write /dev/full", "No space left on device"]);
        beat.ends_well();
    }
}

/// A file system in memory, of 64 KiB.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "probe-test"]).arg(folder.path()).status();
        assert!(mounted.expect("mount runs").success());
        Self(folder)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// What is written before the disk is full is whole lines and true.
#[test]
fn a_disk_that_fills_up_ends_the_trace_and_the_command_goes_on() {
    let tiny = Tiny::new();
    let trace = tiny.0.path().join("trace");
    let counts = program("c/counts");
    let ended =
        Probe::start(&["--json", "-o", as_text(&trace), "work", "--", as_text(&counts), "calls", "-n", "200000"])
            .ended();
    ended.code(1).says(&["failed to write", as_text(&trace), "No space left on device"]);
    assert!(ended.stdout.contains("\"work\": 200000"), "the command's own output: {}", ended.stdout);
    let written = fs::read_to_string(&trace).expect("the trace");
    let (whole, _) = written.rsplit_once('\n').expect("lines");
    assert!(calls(whole, "work") > 10);
}

/// The command may run for days: what went wrong is said before it ends.
#[test]
fn a_full_disk_is_said_while_the_command_runs() {
    let built = Built::new();
    let said = built.path("said");
    let mut command = Probe::command(&["-o", "/dev/full", "beat", "--"]);
    command.arg(built.beat()).stderr(fs::File::create(&said).expect("a file"));
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    until("the error", || fs::read_to_string(&said).expect("text").contains("No space left on device").then_some(()));
    beat.told("beat 100");
    beat.stdin = None;
    let status = until("its end", || beat.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(1));
    let said = fs::read_to_string(&said).expect("text");
    assert_eq!(said.matches("No space left").count(), 1, "said once: {said}");
}

#[test]
fn killed_it_leaves_nothing_and_the_process_goes_on() {
    let built = Built::new();
    let mut beat = built.start();
    let mut probe = Probe::attached(&["-p", &beat.pid(), "*"]);
    beat.told("beat 100");
    let held = InKernel::of(probe.id());
    assert!(held.links() > 3, "{held:?}");
    signal("KILL", probe.id());
    assert_eq!(probe.status().signal(), Some(9));
    beat.told("beat 100");
    held.is_gone();
    beat.ends_well();
}

#[test]
fn killed_while_the_command_runs_it_leaves_the_command_running() {
    let built = Built::new();
    let mut command = Probe::command(&["-o", &built.path("trace"), "-q", "*", "--"]);
    command.arg(built.beat());
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    let held = InKernel::of(i64::from(beat.child.id()));
    beat.child.kill().expect("killed");
    beat.told("beat 100");
    held.is_gone();
    beat.told("lib 100");
    beat.told("name still-here");
    beat.stdin = None;
    let mut rest = String::new();
    beat.stdout.read_to_string(&mut rest).expect("its end");
}

/// A `probe` whose command waits for its start, since nobody reads what `probe` says first.
struct Stuck {
    probe: std::process::Child,
    reader: io::PipeReader,
}

impl Stuck {
    fn new(out: &Path, args: &[&str], group: bool) -> Self {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        // As much as it holds (pipe(7)).
        writer.write_all(&[b'.'; 65_536]).expect("written");
        let mut command = Probe::command(args);
        command.stdout(fs::File::create(out).expect("a file")).stderr(writer);
        if group {
            command.process_group(0);
        }
        let probe = command.spawn().expect("probe can be started");
        let pid = i64::from(probe.id());
        // Attached, and about to say so.
        until("a waiting command", || (!commands(pid).is_empty() && writes(pid)).then_some(()));
        Self { probe, reader }
    }
}

/// Whether a process is inside write(2).
fn writes(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("1 0x2 "))
}

/// Whether a process has not ended.
fn lives(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn killed_while_the_command_waits_for_its_start_it_lets_the_command_go() {
    let built = Built::new();
    let out = built.0.path().join("out");
    let counts = program("c/counts");
    let Stuck { mut probe, reader } = Stuck::new(&out, &["work", "--", as_text(&counts), "calls", "-n", "4000"], false);
    let held = InKernel::of(i64::from(probe.id()));
    let waiting = commands(i64::from(probe.id()));
    assert_eq!(fs::read_to_string(&out).expect("text"), "", "it must not run before it is traced");
    probe.kill().expect("killed");
    probe.wait().expect("its end");
    until("the command's end", || waiting.iter().all(|&pid| !lives(pid)).then_some(()));
    assert!(fs::read_to_string(&out).expect("text").contains("\"work\": 4000"), "it ran to its end");
    held.is_gone();
    drop(reader);
}

/// Ctrl-C while the probes are being attached: what was not started yet is not wanted any more.
#[test]
fn interrupted_before_the_start_it_does_not_start_the_command() {
    let built = Built::new();
    let out = built.0.path().join("out");
    let counts = program("c/counts");
    let Stuck { mut probe, mut reader } =
        Stuck::new(&out, &["work", "--", as_text(&counts), "calls", "-n", "4000"], true);
    signal("INT", -i64::from(probe.id()));
    thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    let status = until("its end", || probe.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(130));
    assert_eq!(fs::read_to_string(&out).expect("text"), "");
}

/// `nohup probe …`, and the terminal goes.
#[test]
fn an_ignored_hangup_disturbs_neither_trace_nor_command() {
    let built = Built::new();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_probe"), "--json", "-q", "-o"]);
    command.args([&built.path("trace"), "beat", "--", &built.beat()]).process_group(0);
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    signal("HUP", -i64::from(beat.child.id()));
    beat.told("beat 100");
    beat.stdin = None;
    let status = until("its end", || beat.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(7), "{:?}", status.signal());
    assert_eq!(calls(&fs::read_to_string(built.path("trace")).expect("the trace"), "beat"), 200);
}

#[test]
fn an_interrupt_to_the_group_ends_command_and_trace_and_the_calls_are_told() {
    let built = Built::new();
    let mut command = Probe::command(&["--json", "-o", &built.path("trace"), "-q", "beat", "--"]);
    command.arg(built.beat()).process_group(0);
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    signal("INT", -i64::from(beat.child.id()));
    let status = until("its end", || beat.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(130), "{:?}", status.signal());
    assert_eq!(calls(&fs::read_to_string(built.path("trace")).expect("the trace"), "beat"), 100);
}

/// The command ignores Ctrl-C: the first one is for it, and its calls are still traced; the second one is for `probe`.
#[test]
fn a_second_interrupt_detaches_and_leaves_the_command() {
    let built = Built::new();
    let script = format!("trap '' INT; exec {}", built.beat());
    let mut command = Probe::command(&["-o", &built.path("trace"), "-x", &built.beat(), "beat", "--", "/bin/sh", "-c"]);
    command.arg(script).process_group(0).stderr(fs::File::create(built.path("said")).expect("a file"));
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    let pid = i64::from(beat.child.id());
    let held = InKernel::of(pid);
    let command = commands(pid);
    signal("INT", -pid);
    beat.told("beat 200");
    assert!(beat.child.try_wait().expect("its state").is_none(), "the first one ended it");
    // The kernel makes one of two that nobody has taken.
    until("the first one is taken", || (!is_pending(pid, libc::SIGINT)).then_some(()));
    signal("INT", -pid);
    let status = until("its end", || beat.child.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(130));
    held.is_gone();
    assert!(fs::read_to_string(built.path("said")).expect("text").contains("outermost"), "no closing lines");
    beat.told("beat 100");
    assert!(command.iter().all(|&pid| lives(pid)));
}

fn is_pending(pid: i64, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("pending signals");
    u64::from_str_radix(pending.trim(), 16).expect("a set of signals") >> (signal - 1) & 1 != 0
}

/// Both signals came before the trace had ended.
/// As `timeout` sends it: to its child, and to the child's group.
#[test]
fn an_interrupt_that_comes_twice_ends_the_trace_with_all_that_it_has_to_tell() {
    let built = Built::new();
    let mut beat = built.start();
    for pause_ms in [0, 1, 5, 20] {
        let probe = Probe::attached(&["--json", "-o", &built.path("trace"), "-p", &beat.pid(), "beat"]);
        beat.told("beat 10");
        signal("INT", probe.id());
        thread::sleep(Duration::from_millis(pause_ms));
        signal("INT", probe.id());
        let ended = probe.ended();
        assert_eq!(ended.status.code(), Some(0), "{pause_ms} ms: {}", ended.stderr);
        let trace = fs::read_to_string(built.path("trace")).expect("the trace");
        assert!(
            trace.lines().last().is_some_and(|line| line.contains(r#""type":"summary""#)),
            "{pause_ms} ms: {trace}"
        );
        assert_eq!(calls(&trace, "beat"), 10, "{pause_ms} ms");
    }
    beat.ends_well();
}

#[test]
fn two_interrupts_at_once_end_probe() {
    let built = Built::new();
    let script = format!("trap '' INT; exec {}", built.beat());
    let mut command =
        Probe::command(&["-o", &built.path("trace"), "-q", "-x", &built.beat(), "beat", "--", "/bin/sh", "-c"]);
    command.arg(script);
    let mut beat = Beat::start(command);
    beat.told("beat 100");
    let pid = i64::from(beat.child.id());
    signal("STOP", pid);
    signal("INT", pid);
    signal("TERM", pid);
    signal("CONT", pid);
    let status = until("its end", || beat.child.try_wait().expect("its state"));
    assert!(matches!(status.code(), Some(130 | 143)), "{status:?}");
    beat.told("beat 100");
}

#[test]
fn when_limit_or_duration_is_reached_the_command_runs_on_untraced() {
    let built = Built::new();
    for end in [["--limit", "3"], ["--duration", "200ms"]] {
        let mut command = Probe::command(&["--json", "-o", &built.path("trace"), "beat"]);
        command.args(end).arg("--").arg(built.beat()).stderr(fs::File::create(built.path("said")).expect("a file"));
        let mut beat = Beat::start(command);
        beat.told("beat 3");
        until("the end of the trace", || {
            fs::read_to_string(built.path("said")).expect("text").contains("outermost").then_some(())
        });
        beat.told("beat 500");
        assert!(beat.child.try_wait().expect("its state").is_none(), "it waits for the command");
        assert_eq!(calls(&fs::read_to_string(built.path("trace")).expect("the trace"), "beat"), 3);
        beat.stdin = None;
        let status = until("its end", || beat.child.try_wait().expect("its state"));
        assert_eq!(status.code(), Some(7));
    }
}
