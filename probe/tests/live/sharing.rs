//! Containers that share namespaces or numbers with others, and those in which much happens. `recurse -n N` is 200 × N calls.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::{
    engine::{Docker, IMAGE, borrowed, root_of, unique, with_its_libraries},
    harness::{Process, Traced, Tracer, program, tool},
};

#[track_caller]
fn assert_calls(traced: &Traced, container: &str, expected: usize) {
    assert_eq!(traced.trace.calls.len(), expected, "{}", traced.ended.stderr);
    for call in &traced.trace.calls {
        assert_eq!(call.container.as_deref(), Some(container), "{call:?}");
    }
}

#[test]
fn a_container_in_the_machines_pid_namespace_is_told_by_its_cgroup() {
    let docker = Docker::with_counts();
    let (web, db) = (unique("web"), unique("db"));
    docker.counts(IMAGE, &web, &["--pid=host"]);
    docker.counts(IMAGE, &db, &["--pid=host"]);
    let tracer = Tracer::start(&["--container", &web, "recurse"]);
    let one = Tracer::start(&["--container", &web, "-p", &docker.pid(&web).to_string(), "recurse"]);
    docker.recurse(&db, 3);
    docker.recurse(&web, 2);
    let traced = tracer.interrupt();
    assert_calls(&traced, &web, 400);
    assert!(traced.trace.calls.iter().all(|call| call.inner_pid.is_none()), "its numbers are the machine's");
    assert_calls(&one.interrupt(), &web, 0);
}

#[test]
fn of_two_containers_that_share_a_pid_namespace_only_the_chosen_ones_calls_are_shown() {
    let docker = Docker::with_counts();
    let (web, side) = (unique("web"), unique("side"));
    docker.counts(IMAGE, &web, &[]);
    docker.counts(IMAGE, &side, &[&format!("--pid=container:{web}")]);
    let tracers = [&web, &side].map(|name| Tracer::start(&["--container", name, "recurse"]));
    docker.recurse(&web, 1);
    docker.recurse(&side, 2);
    let [of_web, of_side] = tracers.map(Tracer::interrupt);
    assert_calls(&of_web, &web, 200);
    assert_calls(&of_side, &side, 400);
    // Where nothing but the namespace can be seen they are one.
    for name in [&web, &side] {
        let mut command = Command::new("unshare");
        let script = "umount -R /sys/fs/cgroup && exec \"$@\"";
        command.args([
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_probe"),
            "--container",
            name,
            "recurse",
        ]);
        let refused = Process::start(command).finish();
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(refused.stderr.contains("use -p PID"), "{}", refused.stderr);
    }
}

#[test]
fn a_number_that_is_one_process_inside_and_another_outside_means_the_one_inside_and_this_is_said() {
    let docker = Docker::with_counts();
    let web = unique("web");
    let id = docker.counts(IMAGE, &web, &[]);
    let first = docker.pid(&web);
    let waiting = || {
        let before = members(&id);
        let mut process = docker.spawn(&["exec", "-i", &web, "/counts", "recurse", "-n", "1", "--wait"]);
        process.await_line("ready");
        let new: Vec<u32> = members(&id).difference(&before).copied().collect();
        let [pid] = new[..] else { panic!("{new:?} came") };
        (process, pid)
    };
    let (mut outer, number) = waiting();
    // The next number of the namespace is to be the one that the first process has outside.
    let set = format!("echo {} >/proc/sys/kernel/ns_last_pid", number - 1);
    tool("nsenter", &["--target", &first.to_string(), "--pid", "sh", "-c", &set]);
    let (mut inner, pid) = waiting();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.lines().any(|line| line == format!("NSpid:\t{pid}\t{number}")), "{status}");
    let tracer = Tracer::start(&["--container", &web, "-p", &number.to_string(), "recurse"]);
    for process in [&mut outer, &mut inner] {
        process.go();
    }
    let traced = tracer.finish();
    assert_calls(&traced, &web, 200);
    assert!(traced.trace.calls.iter().all(|call| (call.pid, call.inner_pid) == (pid, Some(number))));
    let said = format!("-p {number} means the process that is {number} inside: {pid} on the host");
    assert!(traced.ended.stderr.contains(&said), "{}", traced.ended.stderr);
}

/// The machine's numbers of a container's processes.
fn members(id: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id))).collect()
}

#[test]
fn of_500_processes_a_second_in_a_container_none_is_missed() {
    let docker = Docker::start();
    docker.image("burst:1", &[(&program("c/burst-static"), "/burst")]);
    let (web, db) = (unique("web"), unique("db"));
    let bursts = [(&web, "2500", "500"), (&db, "500", "100")].map(|(name, n, rate)| {
        let mut process = docker.spawn(&["run", "-i", "--net=none", "--name", name, "burst:1", "/burst", n, rate]);
        process.await_line("ready");
        process
    });
    let tracer = Tracer::start(&["--container", &web, "--stack=none", "first_call"]);
    let said = bursts.map(|mut burst| {
        burst.go();
        burst
    });
    said.into_iter().for_each(|burst| drop(burst.finish().success()));
    let traced = tracer.interrupt();
    assert_eq!(traced.lost_total(), 0, "{}", traced.ended.stderr);
    assert_calls(&traced, &web, 2500);
    let pids: BTreeSet<u32> = traced.trace.calls.iter().map(|call| call.pid).collect();
    assert_eq!(pids.len(), 2500);
    assert!(traced.trace.calls.iter().all(|call| call.inner_pid.is_some()), "their numbers inside are known");
}

#[test]
fn a_program_that_is_deleted_in_its_container_is_traced_as_it_runs() {
    let docker = Docker::with_counts();
    let web = unique("web");
    let mut first =
        docker.spawn(&["run", "-i", "--net=none", "--name", &web, IMAGE, "/counts", "recurse", "-n", "3", "--wait"]);
    first.await_line("ready");
    let pid = docker.pid(&web);
    let before = Tracer::start(&["--container", &web, "recurse"]);
    fs::remove_file(Path::new("/proc").join(pid.to_string()).join("root/counts")).expect("it can be removed");
    before.await_said("was deleted: running processes are still traced");
    let after = [&["--container", &web][..], &["--container", &web, "-x", "/counts"], &["-p", &pid.to_string()]]
        .map(|target| Tracer::start(&[target, &["recurse"]].concat()));
    first.go();
    first.finish().success();
    assert_calls(&before.interrupt(), &web, 600);
    for tracer in after {
        assert_calls(&tracer.interrupt(), &web, 600);
    }
}

#[test]
fn a_library_that_no_process_of_a_container_has_loaded_yet_is_found_as_the_loader_there_would_find_it() {
    let docker = Docker::start();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let conf = folder.path().join("ld.so.conf");
    fs::write(&conf, "/srv/lib\n").expect("it can be written");
    let mut files = with_its_libraries(&program("c/host"), "/host");
    files.push((conf, "/etc/ld.so.conf".to_owned()));
    // By its loader's cache, one of its loader's own folders, or what a process there has in its environment.
    for (at, variable) in [("/srv/lib", ""), ("/usr/lib", ""), ("/opt/lib", "LD_LIBRARY_PATH=/opt/lib")] {
        let mut files = files.clone();
        files.push((program("c/libplug.so"), format!("{at}/libplug.so")));
        let made = root_of(&borrowed(&files));
        tool("/sbin/ldconfig", &["-r".as_ref(), made.path().as_os_str()]);
        files.push((made.path().join("etc/ld.so.cache"), "/etc/ld.so.cache".to_owned()));
        docker.image("host:1", &borrowed(&files));
        let web = unique("web");
        let options: &[&str] = if variable.is_empty() { &[] } else { &["--env", variable] };
        let run = [&["run", "-i", "--net=none", "--name", &web], options, &["host:1", "/host"]].concat();
        let mut process = docker.spawn(&run);
        process.await_line("ready");
        let tracer = Tracer::start(&["--container", &web, "-x", "libplug", "plugged"]);
        process.order(&format!("open {at}/libplug.so"));
        process.order("call 5");
        let traced = tracer.interrupt();
        assert_calls(&traced, &web, 5);
        let said = &traced.ended.stderr;
        assert!(said.contains(&format!("probe: tracing 1 of 1 matched in {at}/libplug.so")), "{said}");
    }
}
