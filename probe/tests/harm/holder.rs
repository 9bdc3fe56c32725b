//! The holder of the links: nobody who ends `probe`, however and whenever, leaves a breakpoint.

use std::{fs, os::unix::process::CommandExt as _, thread, time::Duration};

use super::{
    Built, Probe,
    left::{KernelLog, changed_code, children, is_holder},
    program,
    server::Server,
    signal, until,
};

/// A `probe`'s holder.
#[track_caller]
fn holder_of(probe: &Probe) -> i64 {
    until("a holder", || children(probe.id()).into_iter().find(|&child| is_holder(child)))
}

/// While probes are placed, while they are there, and while they are removed; `probe` alone, and its whole group.
#[test]
fn killed_at_any_moment_it_leaves_no_breakpoint() {
    let server = Server::start("go/server");
    let path = program("go/server").to_str().expect("a path in UTF-8").to_owned();
    let load = server.load();
    let mut log = KernelLog::from_now();
    let mut caught = 0;
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
        caught += usize::from(changed_code(&server.pid(), &path) > 0);
        if probe.child.try_wait().expect("its state").is_none() {
            signal("KILL", if round % 4 < 2 { probe.id() } else { -probe.id() });
        }
        probe.status();
        until("every breakpoint to be removed", || (changed_code(&server.pid(), &path) == 0).then_some(()));
        assert_eq!(log.leaks(), 0, "round {round}");
    }
    assert!(caught >= 10, "it was hardly ever killed while there were breakpoints: {caught} of 40");
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
    ended.code(1).says(&["was killed", "the trace ended early"]);
    assert_eq!(ended.calls("beat"), 5, "what was seen before is told");
    assert_eq!(changed_code(&beat.pid(), &built.beat()), 0);
    beat.ends_well();
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
