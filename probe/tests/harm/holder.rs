//! The holder of the links: nobody who ends `probe`, however and whenever, leaves a breakpoint.

use std::{fs, os::unix::process::CommandExt as _, thread, time::Duration};

use super::{
    Built, Probe, children,
    left::{KernelLog, changed_code},
    program,
    server::Server,
    signal, until,
};

/// A `probe`'s holder.
#[track_caller]
fn holder_of(probe: &Probe) -> i64 {
    until("a holder", || children::holder_of(probe.id()))
}

/// While probes are placed, while they are there, and while they are removed; `probe` alone, and its whole group.
#[test]
fn killed_at_any_moment_it_leaves_no_breakpoint() {
    let server = Server::start("go/server");
    let path = program("go/server").to_str().expect("a path in UTF-8").to_owned();
    let load = server.load();
    let mut log = KernelLog::from_now();
    let mut caught = 0;
    let whole = {
        let probe = Probe::attached(&["-p", &server.pid(), "--budget", "0", "-o", "/dev/null", "*"]);
        let whole = changed_code(&server.pid(), &path);
        probe.interrupted().code(0);
        whole
    };
    for round in 0..40_u64 {
        let mut command = Probe::command(&["-q", "-p", &server.pid(), "--budget", "0", "-o", "/dev/null", "*"]);
        command.process_group(0);
        let mut probe = Probe::spawn(command);
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(50 + 20 * round));
        } else {
            until("probes", || (changed_code(&server.pid(), &path) > 1000).then_some(()));
            signal("INT", probe.id());
            thread::sleep(Duration::from_millis(2 * round));
        }
        caught += usize::from((1..whole).contains(&changed_code(&server.pid(), &path)));
        if probe.child.try_wait().expect("its state").is_none() {
            signal("KILL", if round % 4 < 2 { probe.id() } else { -probe.id() });
        }
        probe.status();
        until("every breakpoint to be removed", || (changed_code(&server.pid(), &path) == 0).then_some(()));
        assert_eq!(log.leaks(), 0, "round {round}");
    }
    println!("{caught} of 40 were killed while probes were placed or removed");
    assert!(caught >= 5, "it was hardly ever killed while probes were placed or removed: {caught} of 40");
    let answered = load.all_answered();
    server.ends_well(answered);
}

/// Before Linux 6.6: each probe is placed and removed for itself, which takes long.
#[test]
fn killed_while_it_places_or_removes_one_by_one_it_leaves_no_breakpoint() {
    let built = Built::new();
    let beat = built.start();
    let mut log = KernelLog::from_now();
    for round in 0..12_u64 {
        let mut command = Probe::command(&["-q", "-p", &beat.pid(), "-o", "/dev/null", "*"]);
        command.env("PROBE_KERNEL_LACKS", "uprobe-multi,uprobe-multi-pid");
        let mut probe = Probe::spawn(command);
        until("a probe", || (changed_code(&beat.pid(), &built.beat()) > 0).then_some(()));
        thread::sleep(Duration::from_millis(30 * round));
        if round % 2 == 1 {
            signal("INT", probe.id());
            thread::sleep(Duration::from_millis(20 * round));
        }
        if probe.child.try_wait().expect("its state").is_none() {
            signal("KILL", probe.id());
        }
        probe.status();
        until("every breakpoint to be removed", || (changed_code(&beat.pid(), &built.beat()) == 0).then_some(()));
        assert_eq!(log.leaks(), 0, "round {round}");
    }
    beat.ends_well();
}

/// The second Ctrl-C does not wait for the end of the trace, but for the probes' end: as the first process of a container ends,
/// the kernel kills all others.
#[test]
fn a_second_interrupt_ends_it_when_every_breakpoint_is_removed() {
    let server = Server::start("go/server");
    let path = program("go/server").to_str().expect("a path in UTF-8").to_owned();
    let load = server.load();
    for pause in [0, 110, 140, 180, 250] {
        let mut probe = Probe::attached(&["-p", &server.pid(), "--budget", "0", "-o", "/dev/null", "*"]);
        for _ in 0..2 {
            if probe.child.try_wait().expect("its state").is_none() {
                signal("INT", probe.id());
            }
            thread::sleep(Duration::from_millis(pause));
        }
        let ended = probe.ended();
        assert_eq!(changed_code(&server.pid(), &path), 0, "{pause} ms");
        assert!(!ended.stderr.contains("that hold"), "its holder's end is no failure: {}", ended.stderr);
    }
    let answered = load.all_answered();
    server.ends_well(answered);
}

#[test]
fn a_holder_that_is_killed_ends_the_trace_with_a_word_and_leaves_the_target_alone() {
    let built = Built::new();
    let mut beat = built.start();
    let probe = Probe::attached(&["-p", &beat.pid(), "--json", "beat"]);
    beat.told("beat 5");
    signal("KILL", holder_of(&probe));
    let ended = probe.ended();
    ended.code(1).says(&["was killed (SIGKILL)", "the trace ended early"]);
    assert_eq!(ended.calls("beat"), 5, "what was seen before is told");
    assert_eq!(changed_code(&beat.pid(), &built.beat()), 0);
    beat.ends_well();
}

/// Its end is not seen by `probe` itself, which has just read the last call that was wanted.
#[test]
fn a_holder_that_is_killed_before_the_probes_are_removed_is_told_of_then() {
    let built = Built::new();
    let mut beat = built.start();
    let probe = Probe::attached(&["-p", &beat.pid(), "--json", "--limit", "5", "beat"]);
    signal("STOP", probe.id());
    until("it to stop", || is_stopped(&probe).then_some(()));
    beat.told("beat 5");
    signal("KILL", holder_of(&probe));
    until("every breakpoint to be removed", || (changed_code(&beat.pid(), &built.beat()) == 0).then_some(()));
    signal("CONT", probe.id());
    let ended = probe.ended();
    ended.code(1).says(&["was killed (SIGKILL)", "the trace ended early"]);
    assert_eq!(ended.stderr.matches("SIGKILL").count(), 1, "{}", ended.stderr);
    assert_eq!(ended.calls("beat"), 5, "what was seen before is told");
    beat.ends_well();
}

fn is_stopped(probe: &Probe) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", probe.id())).expect("it runs");
    status.contains("State:\tT")
}

/// `pkill probe` is for `probe`, and so is what a terminal sends.
#[test]
fn the_holder_is_apart_from_what_is_meant_for_probe_and_can_do_little() {
    let built = Built::new();
    let beat = built.start();
    let probe = Probe::attached(&["-p", &beat.pid(), "beat"]);
    let holder = holder_of(&probe);
    let name = fs::read_to_string(format!("/proc/{holder}/comm")).expect("its name");
    assert!(!name.contains("probe"), "{name}");
    for name in ["INT", "TERM", "HUP", "QUIT", "PIPE"] {
        signal(name, holder);
    }
    let status = fs::read_to_string(format!("/proc/{holder}/status")).expect("it runs");
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).expect("a field").trim().to_owned();
    // linux/capability.h: CAP_PERFMON is 38, CAP_BPF is 39.
    assert_eq!(of("CapEff:"), format!("{:016x}", 3_u64 << 38));
    assert_eq!(of("NoNewPrivs:"), "1");
    let session = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        stat.rsplit_once(") ").expect("a name").1.split(' ').nth(3).expect("a session").to_owned()
    };
    assert_ne!(session(holder), session(probe.id()));
    probe.interrupted().code(0);
    until("its end", || fs::metadata(format!("/proc/{holder}")).is_err().then_some(()));
    beat.ends_well();
}
