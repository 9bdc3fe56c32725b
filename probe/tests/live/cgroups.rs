//! Control groups of either version as targets. Which versions a machine has mounted is its own affair: what it lacks, the tests
//! mount. `recurse -n N` is 200 × N calls.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    engine::{Alone, counts_root, unique},
    harness::{Process, Tracer, holder_of, path, run},
};

/// Where a hierarchy is mounted: the second version's, or the first version's of a controller.
struct Hierarchy {
    point: PathBuf,
    /// By us: unmounted when dropped.
    own: Option<TempDir>,
}

impl Hierarchy {
    /// None where that controller is in use in the other version.
    fn of(controller: Option<&str>) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").expect("there are mounts");
        let is_it = |fields: &[&str]| match controller {
            None => fields[2] == "cgroup2",
            Some(controller) => fields[2] == "cgroup" && fields[3].split(',').any(|own| own == controller),
        };
        let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| is_it(fields));
        if let Some(fields) = mounted {
            return Some(Self { point: fields[1].into(), own: None });
        }
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut mount = Command::new("mount");
        match controller {
            None => mount.args(["-t", "cgroup2"]),
            Some(controller) => mount.args(["-t", "cgroup", "-o", controller]),
        };
        let mounted = Process::start({
            mount.arg("none").arg(folder.path());
            mount
        });
        let point = folder.path().to_owned();
        (mounted.finish().status.code() == Some(0)).then(|| Self { point, own: Some(folder) })
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if self.own.is_some() {
            run("umount", &["--lazy".as_ref(), self.point.as_os_str()]);
        }
    }
}

/// A cgroup, removed at the end.
struct Cgroup {
    directory: PathBuf,
    name: String,
    _hierarchy: Hierarchy,
}

impl Cgroup {
    /// None where that controller is in use in the other version.
    fn new(controller: Option<&str>) -> Option<Self> {
        let hierarchy = Hierarchy::of(controller)?;
        let name = unique("probe-test");
        let directory = hierarchy.point.join(&name);
        fs::create_dir_all(directory.join("inner")).expect("a cgroup can be made");
        Some(Self { directory, name, _hierarchy: hierarchy })
    }

    fn of_version_2() -> Self {
        Self::new(None).expect("the second version's hierarchy can always be mounted")
    }

    /// Runs a shell's script with a process in it.
    fn run(&self, below: &str, script: &str) -> Process {
        let procs = self.directory.join(below).join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ >{} && {script}", procs.display())]);
        Process::start(command)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.directory.join("inner"));
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn processes_of_a_cgroup_of_either_version_are_traced_and_no_others() {
    let counts = path("c/counts-static");
    // Of the first version some are in use in the second one, others (such as `net_cls`) cannot be.
    let first = ["memory", "blkio", "net_cls", "freezer"].map(|name| (Some(name), Cgroup::new(Some(name))));
    assert!(first.iter().any(|(_, group)| group.is_some()), "no controller can be mounted as of version 1");
    let groups = [(None, Some(Cgroup::of_version_2()))].into_iter().chain(first);
    for (controller, group) in groups.filter_map(|(controller, group)| Some((controller, group?))) {
        let directory = group.directory.display().to_string();
        for named in [&directory, &group.name] {
            let tracer = Tracer::start(&["--cgroup", named, "-x", &counts, "recurse"]);
            run(&counts, &["recurse", "-n", "4"]).success();
            group.run("", &format!("exec {counts} recurse -n 1")).finish().success();
            group.run("inner", &format!("exec {counts} recurse -n 2")).finish().success();
            let traced = tracer.interrupt();
            assert_eq!(traced.trace.calls.len(), 600, "{controller:?} {named}: {}", traced.ended.stderr);
        }
        let inner = Tracer::start(&["--cgroup", &format!("{}/inner", group.name), "-x", &counts, "recurse"]);
        group.run("", &format!("exec {counts} recurse -n 1")).finish().success();
        group.run("inner", &format!("exec {counts} recurse -n 2")).finish().success();
        assert_eq!(inner.interrupt().trace.calls.len(), 400, "{controller:?}");
    }
}

#[test]
fn a_burst_of_short_lived_processes_in_a_cgroup_is_seen_whole() {
    let group = Cgroup::of_version_2();
    let counts = path("c/counts-static");
    let tracer = Tracer::start(&["--cgroup", &group.name, "-x", &counts, "--stack=none", "recurse"]);
    let script = format!("i=0; while [ $i -lt 500 ]; do {counts} recurse -n 1 >/dev/null; i=$((i + 1)); done");
    group.run("", &script).finish().success();
    let traced = tracer.interrupt();
    assert_eq!(traced.trace.calls.len() as u64 + traced.lost("entries", "recurse"), 500 * 200);
}

#[test]
fn a_cgroup_that_is_made_anew_is_traced_again() {
    let group = Cgroup::of_version_2();
    let counts = path("c/counts-static");
    let tracer = Tracer::start(&["--cgroup", &group.name, "-x", &counts, "recurse"]);
    group.run("", &format!("exec {counts} recurse -n 1")).finish().success();
    fs::remove_dir(group.directory.join("inner")).expect("it is empty");
    fs::remove_dir(&group.directory).expect("it is empty");
    tracer.await_said("is gone");
    fs::create_dir(&group.directory).expect("a cgroup can be made");
    tracer.await_said("is back");
    group.run("", &format!("exec {counts} recurse -n 2")).finish().success();
    assert_eq!(tracer.interrupt().trace.calls.len(), 600);
}

/// Instructions that the verifier walked through for each program that a tracer has loaded.
fn verified(pid: u32) -> Vec<u64> {
    let folders = [pid, holder_of(pid)].map(|pid| fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs"));
    let entries = folders.into_iter().flatten().flatten();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let counts = infos.filter_map(|info| {
        let count = info.lines().find_map(|line| line.strip_prefix("verified_insns:"))?;
        info.contains("prog_id:").then(|| count.trim().parse().expect("a number"))
    });
    counts.collect()
}

/// Each of a trace's programs asks whose thread runs it; where that is many branches more, the verifier takes seconds.
#[test]
fn the_kernel_half_is_verified_quickly_whatever_tells_the_processes_that_are_meant() {
    const MOST: u64 = 100_000;
    let root = counts_root();
    let container = Alone::start("runc", &unique("verified"), root.path());
    let first = ["memory", "net_cls", "freezer"].into_iter().find_map(|controller| Cgroup::new(Some(controller)));
    let groups = [Cgroup::of_version_2(), first.expect("a controller can be mounted as of version 1")];
    let counts = path("c/counts-static");
    let by_group = |group: &Cgroup| {
        vec!["-x".to_owned(), counts.clone(), "--cgroup".to_owned(), group.directory.display().to_string()]
    };
    // By a PID namespace, where no cgroups can be seen.
    let targets = [
        ("true", vec!["-x".to_owned(), counts.clone()]),
        ("true", by_group(&groups[0])),
        ("true", by_group(&groups[1])),
        ("umount -R /sys/fs/cgroup", vec!["--container".to_owned(), container.id.clone()]),
    ];
    let ways: [&[&str]; 4] = [
        &[],
        &["--stack=dwarf", "--stack-all"],
        &["--stack=fp", "--goroutines"],
        &["--json", "--stack=none", "--min-duration=1ms"],
    ];
    for (before, target) in &targets {
        for way in ways {
            let mut command = Command::new("unshare");
            command.args([
                "--mount",
                "sh",
                "-c",
                &format!("{before} && exec \"$@\""),
                "sh",
                env!("CARGO_BIN_EXE_probe"),
            ]);
            // Entries, returns, jumps of every kind, where unwinders land.
            command.args(target).args(way).args(["recurse", "cond_*", "*_from", "jump_*"]);
            let tracer = Process::start(command);
            tracer.await_said("probe: tracing");
            let verified = verified(tracer.pid());
            println!("{target:?} {way:?}: {verified:?}");
            assert!(
                verified.len() >= 8 && verified.iter().all(|&count| (1..MOST).contains(&count)),
                "{target:?} {way:?}: {verified:?}"
            );
            tracer.signal("INT");
            tracer.finish().success();
        }
    }
}
