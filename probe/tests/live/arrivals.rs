//! Files that come and go while they are traced: new builds, libraries loaded later, files that are written over.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    harness::{Process, Traced, Tracer, holder_of, host, path, probe, program, run},
    trace::Trace,
};

/// A folder with copies of programs, by the names they have there.
fn folder(copies: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, called) in copies {
        fs::copy(program(name), folder.path().join(called)).expect("a copy can be made");
    }
    folder
}

fn at(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// A program takes the place of `app` in the folder, whole at once.
fn deploy(folder: &TempDir, name: &str) {
    fs::copy(program(name), at(folder, "new")).expect("a copy can be made");
    fs::rename(at(folder, "new"), at(folder, "app")).expect("renamed");
}

/// `c/host`, and the library that it loads when it is told to.
fn folder_of_host() -> (TempDir, String, String) {
    let folder = folder(&[("c/host", "app"), ("c/libplug.so", "libplug.so")]);
    let (app, plug) = (at(&folder, "app"), at(&folder, "libplug.so"));
    (folder, app, plug)
}

fn calls(traced: &Traced, function: &str, pid: Option<u32>) -> usize {
    traced.trace.of(function).iter().filter(|call| pid.is_none_or(|pid| call.pid == pid)).count()
}

/// Binary, cause and count of functions of each file that came.
fn came(traced: &Traced) -> Vec<(&str, &str, u64)> {
    let text = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let files = traced.trace.files.iter();
    files
        .map(|f| (f["binary"].as_str().unwrap_or("?"), f["cause"].as_str().unwrap_or("?"), text(&f["attached"])))
        .collect()
}

#[test]
fn a_new_build_at_the_path_is_traced_and_so_are_processes_of_the_old_one() {
    for renamed in [true, false] {
        let folder = folder(&[("c/counts", "app"), ("c/counts-O0", "new")]);
        let app = at(&folder, "app");
        let mut old = Process::waiting(&app, &["calls", "-n", "400"]);
        let tracer = Tracer::start(&["-x", &app, "work", "leaf"]);
        if renamed {
            fs::rename(at(&folder, "new"), &app).expect("renamed");
        } else {
            fs::remove_file(&app).expect("removed");
            fs::copy(at(&folder, "new"), &app).expect("a copy can be made");
        }
        tracer.await_said("now also tracing 2 functions");
        let mut new = Process::waiting(&app, &["calls", "-n", "800"]);
        let (old_pid, new_pid) = (old.pid(), new.pid());
        old.go();
        old.finish().success();
        new.go();
        new.finish().success();
        let traced = tracer.interrupt();
        let of = |pid| (calls(&traced, "work", Some(pid)), calls(&traced, "leaf", Some(pid)));
        assert_eq!((of(old_pid), of(new_pid)), ((400, 100), (800, 200)), "{}", traced.ended.stderr);
        assert_eq!(came(&traced), [(app.as_str(), "replaced", 2)]);
        assert_eq!(traced.trace.summary["unmatched_returns"], 0);
        let named = |call: &&crate::trace::Call| call.stack.as_ref().is_some_and(|stack| !stack.is_empty());
        let of_work = traced.trace.of("work");
        assert!(of_work.iter().filter(|call| call.depth == 0).all(named), "callers are named in both builds");
    }
}

#[test]
fn one_build_after_another_is_traced_within_a_second() {
    let folder = folder(&[("go/counts", "app")]);
    let app = at(&folder, "app");
    let tracer = Tracer::start(&["-x", &app, "git.com/*/storage.*", "--stack=none"]);
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        deploy(&folder, "go/counts");
        let renamed = Instant::now();
        tracer.await_said("now also tracing");
        longest = longest.max(renamed.elapsed());
        run(&app, &["calls", "-n", "40"]).success();
    }
    println!("longest: {longest:?}");
    let traced = tracer.interrupt();
    assert_eq!(traced.trace.files.len(), 5, "{}", traced.ended.stderr);
    let save = "git.com/paas/myagent/pkg/storage.(*ProcessStore).SaveNetworkLocateInfo";
    assert_eq!(calls(&traced, save, None), 200);
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn what_took_the_place_and_cannot_be_traced_is_said_and_its_own_successor_is_traced() {
    let folder = folder(&[("c/counts", "app")]);
    let app = at(&folder, "app");
    let tracer = Tracer::start(&["-x", &app, "work"]);
    fs::write(at(&folder, "new"), "#!/bin/sh\nexit 0\n").expect("written");
    fs::rename(at(&folder, "new"), &app).expect("renamed");
    tracer.await_said("is not traced: failed to read");
    deploy(&folder, "c/test");
    tracer.await_said("is not traced: no function in it matches");
    deploy(&folder, "c/counts");
    tracer.await_said("now also tracing 1 function of");
    run(&app, &["calls", "-n", "400"]).success();
    assert_eq!(calls(&tracer.interrupt(), "work", None), 400);
}

#[test]
fn a_process_that_executes_the_new_build_is_traced_on() {
    let (folder, app, plug) = folder_of_host();
    let mut process = host(&app);
    let tracer = Tracer::start(&["-p", &process.pid().to_string(), "call_it"]);
    process.order(&format!("open {plug}"));
    process.order("call 1");
    deploy(&folder, "c/host");
    tracer.await_said("now also tracing 1 function of");
    process.order_exec(&app);
    process.order(&format!("open {plug}"));
    process.order("call 1");
    process.order("call 1");
    process.finish().success();
    let traced = tracer.finish();
    assert_eq!(traced.ended.code(), 0);
    assert_eq!(calls(&traced, "call_it", None), 3, "{}", traced.ended.stderr);
}

#[test]
fn a_library_that_nobody_has_yet_is_awaited_and_traced_when_it_is_loaded() {
    let folder = folder(&[("c/libplug.so", "libawaited.so.1")]);
    let plug = at(&folder, "libawaited.so.1");
    let mut process = host(program("c/host"));
    let mut other = host(program("c/host"));
    let tracer = Tracer::start(&["-p", &process.pid().to_string(), "-x", "libawaited", "plugged"]);
    other.order(&format!("open {plug}"));
    other.order("call 10");
    let loaded = Instant::now();
    process.order(&format!("open {plug}"));
    tracer.await_said("now also tracing 1 function of");
    let took = loaded.elapsed();
    process.order("call 100");
    other.order("call 10");
    process.order("close");
    process.finish().success();
    other.finish().success();
    let traced = tracer.finish();
    assert!(traced.ended.stderr.contains("libawaited is not there yet"), "{}", traced.ended.stderr);
    assert_eq!(traced.trace.calls.len(), 100, "{}", traced.ended.stderr);
    assert_eq!(came(&traced), [(plug.as_str(), "loaded", 1)]);
    println!("traced after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_library_that_a_command_loads_is_awaited() {
    let folder = folder(&[("c/libplug.so", "libawaited.so.1")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    let trace = at(&folder, "trace");
    command.args(["-o", &trace, "--json", "-x", "libawaited.so.1", "plugged", "--"]).arg(program("c/host"));
    let mut process = Process::start(command);
    process.await_line("ready");
    process.order(&format!("open {}", at(&folder, "libawaited.so.1")));
    process.await_said("now also tracing 1 function of");
    process.order("call 7");
    process.finish().success();
    assert_eq!(crate::trace::Trace::read(Path::new(&trace)).calls.len(), 7);
}

#[test]
fn a_library_that_is_loaded_from_elsewhere_than_where_it_was_found_is_traced_too() {
    let folder = folder(&[("c/libplug.so", "libplug.so.1")]);
    fs::create_dir(at(&folder, "other")).expect("a folder can be made");
    fs::copy(program("c/libplug.so"), at(&folder, "other/libplug.so.2")).expect("a copy can be made");
    let mut process = host(program("c/host"));
    process.order(&format!("open {}", at(&folder, "libplug.so.1")));
    let tracer = Tracer::start(&["-p", &process.pid().to_string(), "-x", "libplug", "plugged"]);
    process.order("call 3");
    process.order(&format!("open {}", at(&folder, "other/libplug.so.2")));
    tracer.await_said("now also tracing 1 function of");
    process.order("call 4");
    process.finish().success();
    let traced = tracer.finish();
    assert_eq!(traced.trace.calls.len(), 7);
    assert!(traced.trace.header["attached"] == 1 && traced.trace.files.len() == 1);
}

#[test]
fn a_name_that_nobody_has_is_an_error_where_there_is_no_target_to_load_it() {
    let ended = probe(&["-x", "libnobody-has-this", "f"]);
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("no library of that name"), "{}", ended.stderr);
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn loading_and_unloading_in_a_loop_loses_nothing_and_leaks_nothing() {
    let folder = folder(&[("c/libplug.so", "libplug.so")]);
    let plug = at(&folder, "libplug.so");
    let mut process = host(program("c/host"));
    // By its name, so that every load is looked at; it is known from the first on.
    let tracer = Tracer::start(&["-p", &process.pid().to_string(), "-x", "libplug", "plugged"]);
    process.order(&format!("open {plug}"));
    tracer.await_said("now also tracing 1 function of");
    process.order("close");
    process.order(&format!("loop 1000 {plug}"));
    let before = descriptors(tracer.pid());
    process.order(&format!("loop 2000 {plug}"));
    let after = descriptors(tracer.pid());
    process.finish().success();
    let traced = tracer.finish();
    assert_eq!(traced.trace.calls.len(), 3000, "{}", traced.ended.stderr);
    assert_eq!(traced.trace.files.len(), 1);
    assert_eq!(after, before, "descriptors");
}

#[test]
fn of_two_files_the_one_that_is_overwritten_loses_its_probes_and_the_other_is_traced_on() {
    let folder = folder(&[("c/libplug.so", "libone.so"), ("c/libplug.so", "libtwo.so")]);
    let (one, two) = (at(&folder, "libone.so"), at(&folder, "libtwo.so"));
    let mut process = host(program("c/host"));
    process.order(&format!("open {one}"));
    let tracer = Tracer::start(&["-x", &one, "-x", &two, "plugged"]);
    process.order("call 5");
    let mut library = fs::OpenOptions::new().append(true).open(&one).expect("the library");
    std::io::Write::write_all(&mut library, b"overwritten").expect("written");
    tracer.await_said("overwritten in place: its probes were removed at once");
    process.order("call 50");
    process.order(&format!("open {two}"));
    process.order("call 6");
    process.finish().success();
    let traced = tracer.interrupt();
    assert_eq!(traced.ended.code(), 0, "{}", traced.ended.stderr);
    assert_eq!(traced.trace.calls.len(), 11);
}

#[test]
fn a_hot_function_of_a_new_build_is_shed_and_named_ones_are_not() {
    let folder = folder(&[("c/counts", "app")]);
    let app = at(&folder, "app");
    let tracer = Tracer::start(&["--budget", "2000", "--stack=none", "-x", &app, "work", "lea*"]);
    deploy(&folder, "c/counts");
    tracer.await_said("now also tracing 2 functions of");
    run(&app, &["calls", "-n", "400000"]).success();
    let traced = tracer.interrupt();
    assert_eq!(calls(&traced, "work", None) as u64 + traced.lost("entries", "work"), 400_000);
    let shed: Vec<&str> = traced.trace.shed.iter().filter_map(|shed| shed["function"].as_str()).collect();
    assert_eq!(shed, ["leaf"], "{}", traced.ended.stderr);
    assert!(calls(&traced, "leaf", None) < 100_000);
}

#[test]
fn a_program_that_is_deleted_and_made_anew_again_and_again_is_traced() {
    let folder = folder(&[("c/counts", "app")]);
    let app = PathBuf::from(at(&folder, "app"));
    let tracer = Tracer::start(&["-x".as_ref(), app.as_os_str(), "work".as_ref()]);
    for _ in 0..3 {
        fs::remove_file(&app).expect("removed");
        tracer.await_said("was deleted");
        fs::copy(program("c/counts"), &app).expect("a copy can be made");
        tracer.await_said("now also tracing 1 function of");
        run(&app, &["calls", "-n", "12"]).success();
    }
    assert_eq!(calls(&tracer.interrupt(), "work", None), 36);
}

/// There the kernel's records of what is mapped have other numbers for processes, or none.
#[test]
fn from_a_pid_namespace_of_its_own_a_library_that_comes_later_is_traced() {
    let folder = folder(&[("c/libplug.so", "liblater.so.1")]);
    let (plug, out) = (at(&folder, "liblater.so.1"), at(&folder, "out"));
    fs::create_dir(folder.path().join("host")).expect("a folder");
    let confined = |args: &[&str]| {
        let script = "mount --bind /proc \"$1\" && mount -t proc none /proc && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount", "sh", "-c", script, "sh", &at(&folder, "host")]);
        command.arg(env!("CARGO_BIN_EXE_probe")).args(args);
        Process::start(command)
    };
    let mut process = host(path("c/host"));
    let pid = process.pid().to_string();
    let proc = at(&folder, "host");
    let tracer = confined(&["--proc", &proc, "--json", "-o", &out, "-p", &pid, "-x", "liblater", "plugged"]);
    tracer.await_said("not there yet");
    process.order(&format!("open {plug}"));
    tracer.await_said("now also tracing 1 function");
    process.order("call 5");
    process.finish().success();
    let ended = tracer.finish();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let calls = Trace::read(Path::new(&out)).calls;
    assert_eq!(calls.len(), 5, "{ended:?}");
    assert!(calls.iter().all(|call| &*call.comm == "host" && call.pid.to_string() == pid));
    for refused in [&["--proc", &proc, "plugged", "--", "true"][..], &["-x", &plug, "--comm", "host", "plugged"]] {
        let refused = confined(refused).finish();
        assert!(refused.code() == 1 && refused.stderr.contains("other numbers than the machine's"), "{refused:?}");
    }
}

/// A deployment that is taken back, and the next one.
#[test]
fn a_build_that_comes_back_and_the_one_after_it_are_traced() {
    let folder = folder(&[("c/counts", "app")]);
    let (app, old, new) = (at(&folder, "app"), at(&folder, "old"), at(&folder, "new"));
    fs::hard_link(&app, &old).expect("a second name");
    let tracer = Tracer::start(&["-x", &app, "work"]);
    let deployed = |n: &str| run(&app, &["calls", "-n", n]).success();
    for build in ["100", "200"] {
        fs::copy(program("c/counts"), &new).expect("a copy can be made");
        fs::rename(&new, &app).expect("renamed");
        tracer.await_said("now also tracing 1 function of");
        deployed(build);
        if fs::exists(&old).expect("it can be asked") {
            fs::rename(&old, &app).expect("renamed");
            tracer.await_said("was replaced");
            deployed("1000");
        }
    }
    assert_eq!(calls(&tracer.interrupt(), "work", None), 1300);
}

/// Inodes of what a process has open or mapped.
fn held(pid: u32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let open = descriptors.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|metadata| metadata.ino());
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let mapped = maps.lines().filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
    open.chain(mapped).collect()
}

/// Who deploys often must not find the disk full of builds that only a tracer holds.
#[test]
fn a_build_that_nobody_runs_any_more_is_let_go() {
    let (folder, app, plug) = folder_of_host();
    // As large as what is mapped, and not read.
    let mut file = fs::File::options().append(true).open(&app).expect("it is there");
    file.write_all(&vec![0; 2 << 20]).expect("written");
    drop(file);
    let original = fs::metadata(&app).expect("it is there").ino();
    let tracer = Tracer::start(&["-x", &app, "call_it"]);
    assert!(held(tracer.pid()).contains(&original));
    let holder = holder_of(tracer.pid());
    // Which was forked when it was open, and mapped.
    assert!(!held(holder).contains(&original));
    let mut running: Option<Process> = None;
    let mut inodes = Vec::new();
    for build in 0..3 {
        deploy(&folder, "c/host");
        tracer.await_said("now also tracing 1 function of");
        inodes.push(fs::metadata(&app).expect("it is there").ino());
        // The second build is run on. Nobody ever ran the first.
        if build == 1 {
            // The one that the trace began with was never run either, and is let go before or after it.
            let begun = Instant::now();
            while held(tracer.pid()).contains(&inodes[0]) {
                assert!(begun.elapsed() < Duration::from_secs(60), "it is held: {inodes:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(held(tracer.pid()).contains(&inodes[1]) && !held(holder).contains(&inodes[1]), "{inodes:?}");
            running = Some(host(&app));
        }
    }
    let mut running = running.expect("it was started");
    running.order(&format!("open {plug}"));
    running.order("call 1");
    let mut newest = host(&app);
    newest.order(&format!("open {plug}"));
    newest.order("call 1");
    for process in [running, newest] {
        process.finish().success();
    }
    assert_eq!(calls(&tracer.interrupt(), "call_it", None), 2);
}
