//! Containers, cgroups and namespaces as targets. The engines are real, and started by the tests; what a trace says is
//! compared with what the programs inside were told to do: `recurse -n N` is 200 × N calls.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    engine::{Docker, IMAGE, borrowed, counts_root, unique, with_its_libraries},
    harness::{Process, Traced, Tracer, probe, program, run, tool},
};

/// The calls, all of which are of this container.
#[track_caller]
fn calls_in(traced: &Traced, container: Option<&str>) -> usize {
    for call in &traced.trace.calls {
        assert_eq!(call.container.as_deref(), container, "{call:?}");
    }
    traced.trace.calls.len()
}

/// There are 400, of a process that is the first in its namespace.
#[track_caller]
fn assert_calls_of_the_first(traced: &Traced, pid: u32, container: Option<&str>) {
    assert_eq!(calls_in(traced, container), 400, "{}", traced.ended.stderr);
    assert!(traced.trace.calls.iter().all(|call| (call.pid, call.inner_pid) == (pid, Some(1))));
}

#[test]
fn of_two_containers_of_one_image_only_the_chosen_ones_calls_are_shown() {
    let docker = Docker::with_counts();
    let (web, db) = (unique("web"), unique("db"));
    let id = docker.counts(IMAGE, &web, &[]);
    docker.counts(IMAGE, &db, &[]);
    let from_outside = format!("/proc/{}/root/counts", docker.pid(&web));
    for (name, options) in [
        (&*web, &[][..]),
        (&id[..12], &[]),
        (&id[..], &["-x", "/counts"]),
        (&*web, &["--comm", "counts"]),
        (&*web, &["--subtract-overhead"]),
    ] {
        let tracer = Tracer::start(&[&["--container", name, "recurse"], options].concat());
        docker.recurse(&db, 3);
        docker.recurse(&web, 2);
        // The same inode, in no container.
        run(&from_outside, &["recurse", "-n", "1"]).success();
        docker.recurse(&web, 1);
        assert_eq!(calls_in(&tracer.interrupt(), Some(&web)), 600, "{name} {options:?}");
    }
    let both = Tracer::start(&["-x", &from_outside, "recurse"]);
    docker.recurse(&db, 3);
    docker.recurse(&web, 2);
    run(&from_outside, &["recurse", "-n", "1"]).success();
    assert_eq!(both.interrupt().trace.calls.len(), 1200, "without a container all are seen");
}

#[test]
fn a_container_is_told_by_its_pid_namespace_where_its_cgroup_cannot_be_seen() {
    let docker = Docker::with_counts();
    let (web, db) = (unique("web"), unique("db"));
    docker.counts(IMAGE, &web, &[]);
    docker.counts(IMAGE, &db, &[]);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let out = folder.path().join("trace");
    let script = "umount -R /sys/fs/cgroup && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_probe"), "--json", "-o"]);
    command.arg(&out).args(["--container", &web, "recurse"]);
    let tracer = Process::start(command);
    tracer.await_said("probe: tracing");
    docker.recurse(&db, 3);
    docker.recurse(&web, 2);
    // A namespace within the container's counts as inside.
    let pid = docker.pid(&web).to_string();
    tool(
        "nsenter",
        &[
            &["--target", &pid, "--pid"][..],
            &["unshare", "--pid", "--fork", "chroot", &format!("/proc/{pid}/root")],
            &["/counts", "recurse", "-n", "1"],
        ]
        .concat(),
    );
    tracer.signal("INT");
    let ended = tracer.finish();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let trace = crate::trace::Trace::read(&out);
    assert_eq!(trace.calls.len(), 600, "{ended:?}");
}

/// An image of our own program and the libraries that it needs.
fn image_of_probe(docker: &Docker) {
    let files = with_its_libraries(Path::new(env!("CARGO_BIN_EXE_probe")), "/probe");
    docker.image("probe:1", &borrowed(&files));
}

#[test]
fn from_inside_a_container_others_are_traced_through_the_hosts_proc() {
    let docker = Docker::with_counts();
    image_of_probe(&docker);
    let (web, db) = (unique("web"), unique("db"));
    docker.counts(IMAGE, &web, &[]);
    docker.counts(IMAGE, &db, &[]);
    // What runs already goes on with the image's file when its overlay makes a copy.
    let old = [(); 2].map(|()| {
        let mut process = docker.spawn(&["exec", "-i", &web, "/counts", "recurse", "-n", "1", "--wait"]);
        process.await_line("ready");
        process
    });
    let counts = format!("/proc/{}/root/counts", docker.pid(&web));
    fs::set_permissions(counts, Permissions::from_mode(0o700)).expect("its mode can be changed");
    let allowed = ["--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=DAC_READ_SEARCH", "--net=none"];
    let unconfined = ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"];
    let inside = |options: &[&str], args: &[&str]| {
        let own = unique("probe");
        let run =
            [&["run", "--rm", "--name", &own], &allowed[..], &unconfined, options, &["probe:1", "/probe"]].concat();
        (docker.spawn(&[&run[..], args, &["--container", &web, "recurse"]].concat()), own)
    };
    let ways = [
        (&["--volume=/proc:/host/proc:ro"][..], &["--proc", "/host/proc", "--json"][..]),
        (&["--pid=host"], &["--json"]),
    ];
    for ((options, args), mut old) in ways.into_iter().zip(old) {
        let (tracer, own) = inside(options, args);
        tracer.await_said("probe: tracing");
        docker.recurse(&db, 3);
        docker.recurse(&web, 2);
        old.go();
        old.finish().success();
        docker.tool(&["kill", "--signal", "INT", &own]);
        let ended = tracer.finish();
        assert_eq!(ended.code(), 0, "{ended:?}");
        let calls: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with(r#"{"type":"call""#)).collect();
        assert_eq!(calls.len(), 600, "{args:?}: {}", ended.stderr);
        let container = format!(r#""container":"{web}""#);
        assert!(calls.iter().all(|line| line.contains(&container)), "{}", calls[0]);
    }
    let (blind, _) = inside(&[], &[]);
    let ended = blind.finish();
    assert!(ended.code() == 1 && ended.stderr.contains("--proc /host/proc"), "{ended:?}");
}

#[test]
fn a_container_that_starts_anew_under_its_name_is_traced_again() {
    let docker = Docker::with_counts();
    let web = unique("web");
    docker.counts(IMAGE, &web, &[]);
    let tracer = Tracer::start(&["--container", &web, "recurse"]);
    docker.recurse(&web, 1);
    docker.tool(&["restart", "--time", "0", &web]);
    tracer.await_said("its first process is");
    docker.recurse(&web, 2);
    docker.tool(&["rm", "--force", &web]);
    tracer.await_said("is gone");
    docker.counts(IMAGE, &web, &[]);
    tracer.await_said("is back");
    docker.recurse(&web, 3);
    let traced = tracer.interrupt();
    assert_eq!(calls_in(&traced, Some(&web)), 1200, "{}", traced.ended.stderr);
    assert!(!traced.ended.stderr.contains("was deleted"), "{}", traced.ended.stderr);
    assert!(!traced.ended.stderr.contains("was replaced"), "the file is the same: {}", traced.ended.stderr);
}

#[test]
fn a_new_build_under_the_same_name_is_traced_when_it_comes() {
    let docker = Docker::with_counts();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let newer = folder.path().join("counts");
    fs::copy(program("c/counts-static"), &newer).expect("a copy can be made");
    let mut bytes = fs::read(&newer).expect("it was copied");
    bytes.push(0);
    fs::write(&newer, bytes).expect("it can be written");
    docker.image("counts:2", &[(&newer, "/counts")]);
    let web = unique("web");
    docker.counts(IMAGE, &web, &[]);
    let tracer = Tracer::start(&["--container", &web, "recurse"]);
    docker.recurse(&web, 1);
    docker.tool(&["rm", "--force", &web]);
    docker.counts("counts:2", &web, &[]);
    tracer.await_said("now also tracing 1 function of /counts");
    docker.recurse(&web, 2);
    let traced = tracer.interrupt();
    assert_eq!(calls_in(&traced, Some(&web)), 600, "{}", traced.ended.stderr);
}

#[test]
fn a_process_is_named_by_its_number_inside_and_by_its_number_outside() {
    let docker = Docker::with_counts();
    let web = unique("web");
    let mut first =
        docker.spawn(&["run", "-i", "--net=none", "--name", &web, IMAGE, "/counts", "recurse", "-n", "2", "--wait"]);
    first.await_line("ready");
    let mut second = docker.spawn(&["exec", "-i", &web, "/counts", "recurse", "-n", "3", "--wait"]);
    second.await_line("ready");
    let pid = docker.pid(&web);
    let inner = Tracer::start(&["--container", &web, "-p", "1", "recurse"]);
    let outer = Tracer::start(&["--container", &web, "-p", &pid.to_string(), "recurse"]);
    let without = Tracer::start(&["-p", &pid.to_string(), "recurse"]);
    second.go();
    second.finish().success();
    first.go();
    first.finish().success();
    for traced in [inner.finish(), outer.finish(), without.finish()] {
        assert_calls_of_the_first(&traced, pid, Some(&web));
    }
    let none = probe(&["--container", &web, "-p", "1", "recurse"]);
    assert_eq!(none.code(), 1);
    assert!(none.stderr.contains("does not run"), "{}", none.stderr);
}

#[test]
fn a_blocks_header_names_the_container_and_the_number_inside() {
    let docker = Docker::with_counts();
    let web = unique("web");
    let mut process =
        docker.spawn(&["run", "-i", "--net=none", "--name", &web, IMAGE, "/counts", "recurse", "-n", "1", "--wait"]);
    process.await_line("ready");
    let pid = docker.pid(&web);
    for layout in ["tree", "stream"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.args(["--container", &web, "--limit", "1", "--layout", layout, "recurse"]);
        let tracer = Process::start(command);
        tracer.await_said("probe: tracing");
        docker.recurse(&web, 1);
        let shown = tracer.finish().stdout;
        assert!(shown.contains(&format!(" ({web}")), "{shown}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(["-p", &pid.to_string(), "recurse"]);
    let tracer = Process::start(command);
    tracer.await_said("probe: tracing");
    process.go();
    process.finish().success();
    let shown = tracer.finish().stdout;
    assert!(shown.contains(&format!("counts {pid}/{pid} ({web}, pid 1)\n")), "{shown}");
}

#[test]
fn a_container_that_is_not_meant_uniquely_or_not_there_is_an_error_that_says_what_there_is() {
    let docker = Docker::with_counts();
    let web = unique("web");
    docker.counts(IMAGE, &web, &[]);
    let unknown = probe(&["--container", "no-such-container", "recurse"]);
    assert_eq!(unknown.code(), 1);
    assert!(unknown.stderr.contains("no container no-such-container") && unknown.stderr.contains(&web), "{unknown:?}");
    let listed = probe(&["list", "--container", &web, "recurse"]);
    assert!(listed.stdout.contains(" recurse "), "{listed:?}");
    docker.tool(&["stop", "--time", "0", &web]);
    let stopped = probe(&["--container", &web, "recurse"]);
    assert!(stopped.code() == 1 && stopped.stderr.contains("does not run"), "{stopped:?}");
}

#[test]
fn a_process_in_namespaces_of_its_own_is_shown_with_its_number_inside() {
    let root = counts_root();
    let (folder, script) = (
        root.path().display(),
        "mount -t tmpfs none /mnt && cp \"$1\"/counts /mnt/ && exec chroot /mnt /counts recurse -n 2 --wait",
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--mount", "--fork", "sh", "-c", script, "sh", &folder.to_string()]);
    let mut process = Process::start(command);
    process.await_line("ready");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid())).expect("it runs");
    let pid: u32 = children.trim().parse().expect("one child");
    let by_program = Tracer::start(&["-p", &pid.to_string(), "recurse"]);
    let by_path = Tracer::start(&["-p", &pid.to_string(), "-x", "/counts", "recurse"]);
    process.go();
    process.finish().success();
    for traced in [by_program.finish(), by_path.finish()] {
        assert_calls_of_the_first(&traced, pid, None);
        assert!(!traced.ended.stderr.contains("was deleted"), "{}", traced.ended.stderr);
    }
}

#[test]
fn no_link_in_a_root_leads_out_of_it() {
    let root = counts_root();
    let outside = tempfile::tempdir().expect("a folder can be made");
    let secret = outside.path().join("secret");
    fs::copy(program("c/counts-static"), &secret).expect("a copy can be made");
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("proc")).expect("a folder can be made");
    let up = format!("{}{}", "../".repeat(20), secret.display());
    for (link, to) in [
        ("absolute", secret.clone()),
        ("upwards", PathBuf::from(up)),
        ("magic", Path::new("/proc/self/root").join(secret.strip_prefix("/").expect("absolute"))),
        ("inside", PathBuf::from("/counts")),
    ] {
        symlink(to, at(link)).expect("a link can be made");
    }
    let script = "mount -t proc none \"$1\"/proc && exec chroot \"$1\" /counts recurse -n 1 --wait";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(root.path());
    let mut process = Process::start(command);
    process.await_line("ready");
    let pid = process.pid().to_string();
    assert!(fs::metadata(format!("/proc/{pid}/root/magic")).is_ok(), "the link leads out where nothing prevents it");
    for link in ["/absolute", "/upwards", "/magic"] {
        for command in [&["list"][..], &[]] {
            let refused = probe(&[command, &["-p", &pid, "-x", link, "recurse"]].concat());
            assert_eq!(refused.code(), 1, "{link}: {refused:?}");
            assert!(refused.stderr.contains(&format!("failed to open {link}")), "{link}: {refused:?}");
        }
    }
    let tracer = Tracer::start(&["-p", &pid, "-x", "/inside", "recurse"]);
    process.go();
    process.finish().success();
    assert_eq!(tracer.finish().trace.calls.len(), 200);
}
