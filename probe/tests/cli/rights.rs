//! Without privilege: everything that only reads works, and tracing says what is missing and what gives it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Output},
};

use super::{Folder, program, text};

/// As a user of whom nothing is known (`nobody`); as who we are if that is no root.
fn as_nobody(folder: &Folder, args: &[&str]) -> Output {
    let readable = |from: PathBuf, name: &str| {
        let to = folder.0.path().join(name);
        // Not by ourselves: a test that forks meanwhile would hold our writing end, and the copy could not be run.
        let copied = Command::new("install").args(["-m", "755"]).args([&from, &to]).status();
        assert!(copied.expect("install runs").success());
        to
    };
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let probe = readable(env!("CARGO_BIN_EXE_probe").into(), "probe");
    readable(program("c/counts"), "counts");
    let mut command = Command::new(probe);
    command.args(args).current_dir(folder.0.path());
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    if status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        // std drops the supplementary groups with the user id.
        command.uid(65_534).gid(65_534);
    }
    command.output().expect("probe can be started")
}

#[test]
fn tracing_without_privilege_names_the_capabilities_and_the_command() {
    let folder = Folder::new();
    for target in [&["-x", "./counts"][..], &["-x", "./counts", "-o", "trace"]] {
        let output = as_nobody(&folder, &[target, &["work"]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        for word in ["permission denied", "CAP_BPF", "CAP_PERFMON", "sudo", "setcap cap_bpf,cap_perfmon"] {
            assert!(stderr.contains(word), "no {word:?} in: {stderr}");
        }
        assert!(output.stdout.is_empty());
        assert!(!folder.0.path().join("trace").exists(), "nothing is written before it is allowed");
    }
}

/// The command must not run when it cannot be traced.
#[test]
fn without_privilege_a_command_is_not_started() {
    let folder = Folder::new();
    let output = as_nobody(&folder, &["work", "--", "./counts", "calls", "-n", "4"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn another_users_process_is_not_ours_to_look_at_and_that_is_said() {
    let folder = Folder::new();
    let output = as_nobody(&folder, &["-p", "1", "main"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("permission denied") && stderr.contains("CAP_SYS_PTRACE"), "{stderr}");
}

#[test]
fn list_and_dry_run_want_no_privilege() {
    let folder = Folder::new();
    for args in [&["list", "-x", "./counts", "work"][..], &["-x", "./counts", "--dry-run", "work"]] {
        let output = as_nobody(&folder, args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("work"));
    }
}

#[test]
fn doctor_says_that_it_does_not_work_and_how_it_would() {
    let folder = Folder::new();
    let output = as_nobody(&folder, &["doctor"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    for word in ["CAP_BPF and CAP_PERFMON missing", "setcap", "tracing does not work here"] {
        assert!(stdout.contains(word), "no {word:?} in: {stdout}");
    }
}
