//! What `probe` may do: a user with two capabilities traces, one without is told which is missing, a refusal is explained, and
//! what a running trace does not need is given up.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    counts::Truth,
    harness::{Ended, Process, path, program, run, tool},
    trace::{Trace, callers},
};

const NOBODY: &str = "65534";

/// Programs that anybody may run, and a folder to write to.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        place.install(env!("CARGO_BIN_EXE_probe"), "probe");
        for name in ["c/counts", "go/counts"] {
            place.install(program(name), &name.replace('/', "-"));
        }
        place
    }

    /// By another process: a test that forks meanwhile would hold our writing end, and the copy could not be run.
    fn install(&self, from: impl AsRef<Path>, name: &str) {
        tool("install", &[Path::new("-m"), Path::new("755"), from.as_ref(), &self.at(name)]);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).into_os_string().into_string().expect("UTF-8")
    }

    /// A command as a user who has these capabilities and no other.
    fn command_with(&self, capabilities: &[&str], command: &[&str]) -> Command {
        let given: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let mut as_nobody = Command::new("setpriv");
        as_nobody.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        as_nobody.args([format!("--inh-caps=-all{given}"), format!("--ambient-caps=-all{given}")]);
        as_nobody.arg("--").args(command).current_dir(self.folder.path());
        as_nobody
    }

    /// `probe` as that user, to its end.
    fn probe_with(&self, capabilities: &[&str], args: &[&str]) -> Ended {
        let probe = self.text("probe");
        Process::start(self.command_with(capabilities, &[&[probe.as_str()], args].concat())).finish()
    }

    fn trace(&self) -> Trace {
        Trace::read(&self.at("trace"))
    }

    /// All calls of the last trace are those that the program counted.
    #[track_caller]
    fn assert_counted(&self, ended: &Ended, function: &str) {
        assert_eq!(ended.code(), 0, "{ended:?}");
        let truth = Truth::of(&ended.stdout).calls().find(|(name, _)| *name == function).map(|(_, calls)| calls);
        assert!(truth.is_some(), "{ended:?}");
        assert_eq!(Some(self.trace().of(function).len() as u64), truth, "{ended:?}");
    }
}

const OUTPUT: [&str; 5] = ["--json", "-o", "trace", "--budget", "0"];

#[test]
fn bpf_and_perfmon_suffice_to_trace_a_command_and_to_name_callers() {
    let place = Place::new();
    for (name, function, caller) in [("c-counts", "leaf", "work"), ("go-counts", "main.recurse", "main.recurseMode")] {
        let (command, mode) = (place.text(name), if name == "c-counts" { "calls" } else { "recurse" });
        let args = [&OUTPUT[..], &[function, "--", command.as_str(), mode, "-n", "50"]].concat();
        let ended = place.probe_with(&["bpf", "perfmon"], &args);
        place.assert_counted(&ended, function);
        let trace = place.trace();
        let outermost = trace.calls.iter().find(|call| call.depth == 0).expect("calls");
        let callers = callers(outermost);
        assert!(callers.len() > 1 && callers.iter().all(|name| !name.starts_with('[')), "{caller}: {callers:?}");
    }
}

#[test]
fn the_kernels_frames_have_names_for_who_may_see_them_and_else_it_is_said_what_is_missing() {
    let place = Place::new();
    let command = place.text("c-counts");
    for given in [&["bpf", "perfmon"][..], &["bpf", "perfmon", "syslog"]] {
        let table = Process::start(place.command_with(given, &["cat", "/proc/kallsyms"])).finish().success();
        let may_see = table.lines().any(|line| !line.starts_with("0000000000000000 "));
        let args = [&OUTPUT[..], &["--kernel-stack", "leaf", "--", command.as_str(), "calls", "-n", "50"]].concat();
        let ended = place.probe_with(given, &args);
        place.assert_counted(&ended, "leaf");
        assert_eq!(ended.stderr.contains("CAP_SYSLOG is missing"), !may_see, "{given:?}: {ended:?}");
        let trace = place.trace();
        let frames = trace.calls.iter().find_map(|call| call.kernel_stack.as_ref()).expect("of an outermost call");
        assert!(!frames.is_empty() && frames.iter().all(|frame| frame.function.is_some() == may_see), "{frames:?}");
    }
}

#[test]
fn doctor_says_so_where_it_may_not_look_for_what_killed_tracers_left() {
    let place = Place::new();
    let a_record = ["dd", "if=/dev/kmsg", "iflag=nonblock", "bs=8192", "count=1", "of=/dev/null"];
    for given in [&["bpf", "perfmon"][..], &["bpf", "perfmon", "syslog"]] {
        let may_read = Process::start(place.command_with(given, &a_record)).finish().code() == 0;
        let doctor = place.probe_with(given, &["doctor"]);
        assert_eq!(doctor.stdout.contains("/dev/kmsg cannot be read"), !may_read, "{given:?}: {doctor:?}");
        assert_eq!(doctor.code(), 0, "{doctor:?}");
    }
}

#[test]
fn without_one_of_them_its_name_and_what_gives_it_are_said_and_no_command_runs() {
    let place = Place::new();
    let command = place.text("c-counts");
    let probe = place.text("probe");
    for (given, missing) in
        [(&["bpf"][..], "CAP_PERFMON"), (&["perfmon"], "CAP_BPF"), (&["sys_ptrace"], "CAP_BPF and CAP_PERFMON")]
    {
        let said = format!(
            "{missing} missing; run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep {probe}"
        );
        let traced = place.probe_with(given, &["work", "--", &command, "calls", "-n", "4"]);
        assert_eq!(traced.code(), 1, "{traced:?}");
        assert!(traced.stderr.contains(&format!("permission denied: {said}")), "{given:?}: {traced:?}");
        assert_eq!(traced.stdout, "", "it was started");
        let doctor = place.probe_with(given, &["doctor"]);
        assert_eq!(doctor.code(), 1, "{doctor:?}");
        assert!(doctor.stdout.contains(&format!("permission        NO: {said}\n")), "{given:?}: {doctor:?}");
    }
}

#[test]
fn a_user_who_may_lock_no_memory_has_a_smaller_buffer_and_a_trace() {
    let place = Place::new();
    let (probe, command) = (place.text("probe"), place.text("c-counts"));
    // With callers a busy machine could fill it.
    let args =
        [&[probe.as_str()], &OUTPUT[..], &["--stack=none", "leaf", "--", &command, "calls", "-n", "50"]].concat();
    let as_nobody = place.command_with(&["bpf", "perfmon"], &args);
    let mut limited = Command::new("prlimit");
    limited.args(["--memlock=0:0", "--"]).arg(as_nobody.get_program()).args(as_nobody.get_args());
    limited.current_dir(place.folder.path());
    place.assert_counted(&Process::start(limited).finish(), "leaf");
}

#[test]
fn where_nobody_can_have_them_the_machines_owner_is_told_what_to_start_it_with() {
    let place = Place::new();
    let probe = place.text("probe");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--", &probe, "doctor"]);
    let ended = Process::start(command).finish();
    assert_eq!(ended.code(), 1, "{ended:?}");
    for said in ["CAP_BPF and CAP_PERFMON missing, and out of reach", "--cap-add BPF --cap-add PERFMON"] {
        assert!(ended.stdout.contains(said), "{said}: {ended:?}");
    }
    assert!(!ended.stdout.contains("setcap"), "{ended:?}");
}

#[test]
fn the_capabilities_may_be_the_files() {
    let place = Place::new();
    tool("setcap", &["cap_bpf,cap_perfmon,cap_sys_ptrace+ep", &place.text("probe")]);
    let command = place.text("c-counts");
    let args = [&OUTPUT[..], &["leaf", "--", command.as_str(), "calls", "-n", "50"]].concat();
    place.assert_counted(&place.probe_with(&[], &args), "leaf");
}

#[test]
fn another_users_process_is_traced_with_ptrace_and_without_it_that_is_said() {
    let place = Place::new();
    let mut process = Process::waiting(place.at("c-counts"), &["calls", "-n", "50"]);
    let pid = process.pid().to_string();
    let refused = place.probe_with(&["bpf", "perfmon"], &["-p", &pid, "leaf"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("permission denied") && refused.stderr.contains("CAP_SYS_PTRACE"), "{refused:?}");
    let doctor = place.probe_with(&["bpf", "perfmon"], &["doctor"]);
    assert!(doctor.stdout.contains("CAP_SYS_PTRACE missing") && doctor.code() == 0, "{doctor:?}");

    let probe = place.text("probe");
    let args = [&[probe.as_str()], &OUTPUT[..], &["-p", &pid, "leaf"]].concat();
    let tracer = Process::start(place.command_with(&["bpf", "perfmon", "sys_ptrace"], &args));
    tracer.await_said("probe: tracing");
    process.go();
    let truth = process.finish().success();
    let ended = tracer.finish();
    place.assert_counted(&Ended { stdout: truth, ..ended }, "leaf");
}

/// Without CAP_SYS_PTRACE CAP_PERFMON shows what it has mapped (Linux 6.16), while it runs.
#[test]
fn callers_in_another_users_process_that_runs_already_are_named() {
    let place = Place::new();
    // It runs on for long after the trace: it is asked when its first call is read, and nobody can ask who has ended.
    let mut process = Process::waiting(place.at("c-counts"), &["calls", "-n", "1000000000"]);
    let (probe, traced) = (place.text("probe"), place.text("c-counts"));
    let args = [&[probe.as_str()], &OUTPUT[..], &["--limit", "50", "-x", &traced, "leaf"]].concat();
    let tracer = Process::start(place.command_with(&["bpf", "perfmon"], &args));
    tracer.await_said("probe: tracing");
    process.go();
    let ended = tracer.finish();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let trace = place.trace();
    assert_eq!(trace.of("leaf").len(), 50);
    for call in &trace.calls {
        let callers = callers(call);
        assert!(callers.len() > 1 && callers.iter().all(|name| !name.starts_with('[')), "{callers:?}");
    }
}

/// Linux: include/uapi/linux/capability.h: bpf, sys_ptrace, dac_read_search, checkpoint_restore.
const KEPT: u64 = 1 << 39 | 1 << 19 | 1 << 2 | 1 << 40;

fn capabilities(status: &str) -> Vec<u64> {
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
    let of = |set: &&str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(*set)).expect("four sets");
        u64::from_str_radix(hex.trim(), 16).expect("hexadecimal")
    };
    sets.iter().map(of).collect()
}

#[test]
fn a_running_trace_has_no_right_that_it_does_not_need_in_any_thread() {
    let mut process = Process::waiting(program("c/counts"), &["calls", "-n", "50"]);
    let args = ["-p", &process.pid().to_string(), "--follow", "lea?"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(args);
    let tracer = Process::start(command);
    tracer.await_said("probe: tracing");
    let threads = fs::read_dir(format!("/proc/{}/task", tracer.pid())).expect("it runs");
    let mut looked_at = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.expect("it runs").path().join("status")).expect("it runs");
        for set in capabilities(&status) {
            assert_eq!(set & !KEPT, 0, "{status}");
        }
        looked_at += 1;
    }
    assert!(looked_at > 1, "the main thread, and that of signals");
    process.go();
    process.finish().success();
    assert_eq!(tracer.finish().code(), 0);
}

#[test]
fn a_command_keeps_its_rights() {
    let ours = fs::read_to_string("/proc/self/status").expect("our own");
    let ended = run(
        env!("CARGO_BIN_EXE_probe"),
        &["-x", &path("c/counts"), "leaf", "--", "grep", "-E", "^Cap|^NoNewPrivs", "/proc/self/status"],
    );
    let kept = |status: &str| -> Vec<String> {
        status
            .lines()
            .filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(kept(&ended.success()), kept(&ours));
}

#[test]
fn a_refusal_in_spite_of_capabilities_is_explained() {
    let counts = path("c/counts");
    let command = ["work", "--", counts.as_str(), "calls", "-n", "4"];
    let deny = path("c/deny");
    let probe = env!("CARGO_BIN_EXE_probe");
    let mut refused = Vec::new();
    for (call, error) in
        [("bpf", "EPERM"), ("bpf", "ENOSYS"), ("perf_event_open", "EPERM"), ("perf_event_open", "EACCES")]
    {
        refused.push((run(&deny, &[&[call, error, probe], &command[..]].concat()), "a seccomp filter is on"));
    }
    refused.push((
        run("unshare", &[&["--user", "--map-root-user", probe], &command[..]].concat()),
        "this is a user namespace",
    ));
    for (ended, said) in refused {
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains("in spite of our capabilities") && ended.stderr.contains(said), "{ended:?}");
        assert_eq!(ended.stdout, "", "it was started");
    }
}

#[test]
fn doctor_names_what_refuses_and_says_that_nothing_works() {
    let deny = path("c/deny");
    for call in ["bpf", "perf_event_open"] {
        let ended = run(&deny, &[call, "EPERM", env!("CARGO_BIN_EXE_probe"), "doctor"]);
        assert_eq!(ended.code(), 1, "{ended:?}");
        for said in ["a seccomp filter is on", "tracing does not work here"] {
            assert!(ended.stdout.contains(said), "{said}: {ended:?}");
        }
    }
}
