//! Files on overlays, which make a copy of a file when it is first changed: what ran before goes on with the file below, and
//! what starts later runs the copy. `counts recurse -n N` is 200 × N calls.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;

use crate::{
    engine::{Docker, unique},
    harness::{Process, Tracer, host, program, run, tool},
};

/// An overlay with a copy of each program in its lower layer. It is unmounted when dropped.
struct Overlay {
    folder: TempDir,
}

impl Overlay {
    fn mount(programs: &[&str], options: &str) -> Self {
        let overlay = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        for layer in ["lower", "upper", "work", "merged"] {
            fs::create_dir(overlay.at(layer)).expect("a folder can be made");
        }
        for name in programs {
            let from = program(name);
            let to = overlay.at("lower").join(from.file_name().expect("a name"));
            fs::copy(&from, to).expect("a copy can be made");
        }
        let at = |layer| overlay.at(layer).display().to_string();
        let layers = format!("lowerdir={},upperdir={},workdir={}{options}", at("lower"), at("upper"), at("work"));
        tool("mount", &["-t", "overlay", "overlay", "-o", &layers, &at("merged")]);
        overlay
    }

    fn at(&self, layer: &str) -> PathBuf {
        self.folder.path().join(layer)
    }

    fn shown(&self, name: &str) -> String {
        self.at("merged").join(name).display().to_string()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        run("umount", &["--lazy".as_ref(), self.at("merged").as_os_str()]);
    }
}

/// Ways to change a running program's file.
fn change_mode(path: &Path) {
    let mode = fs::metadata(path).expect("it is there").permissions().mode();
    fs::set_permissions(path, Permissions::from_mode(mode ^ 0o020)).expect("its mode can be changed");
}

fn touch(path: &Path) {
    File::open(path).and_then(|file| file.set_modified(SystemTime::now())).expect("its time can be set");
}

const CHANGES: [fn(&Path); 2] = [change_mode, touch];

#[test]
fn a_copy_that_an_overlay_made_before_the_trace_and_the_file_below_it_are_both_traced() {
    for change in CHANGES {
        let overlay = Overlay::mount(&["c/counts"], "");
        let counts = overlay.shown("counts");
        let mut old = Process::waiting(&counts, &["recurse", "-n", "3"]);
        change(Path::new(&counts));
        assert!(overlay.at("upper").join("counts").exists(), "it was copied");
        let by_path = Tracer::start(&["-x", &counts, "recurse"]);
        let by_process = Tracer::start(&["-p", &old.pid().to_string(), "recurse"]);
        run(&counts, &["recurse", "-n", "2"]).success();
        old.go();
        old.finish().success();
        let (all, one) = (by_path.interrupt(), by_process.finish());
        assert_eq!(all.trace.calls.len(), 1000, "{}", all.ended.stderr);
        assert_eq!(one.trace.calls.len(), 600, "{}", one.ended.stderr);
        assert!(
            all.ended.stderr.contains("processes that run the image's file are traced too"),
            "{}",
            all.ended.stderr
        );
        assert!(all.ended.stderr.contains(&format!("matched in {counts}; ")), "once: {}", all.ended.stderr);
        assert!(!all.ended.stderr.contains("was replaced"), "{}", all.ended.stderr);
    }
}

#[test]
fn a_copy_that_an_overlay_makes_during_the_trace_is_traced_within_a_second_and_so_is_the_file_below_it() {
    let mut fastest = Duration::MAX;
    for change in CHANGES {
        let overlay = Overlay::mount(&["c/counts"], "");
        let counts = overlay.shown("counts");
        let mut old = Process::waiting(&counts, &["recurse", "-n", "3"]);
        let tracer = Tracer::start(&["-x", &counts, "recurse"]);
        run(&counts, &["recurse", "-n", "1"]).success();
        let changed = Instant::now();
        change(Path::new(&counts));
        tracer.await_said("its overlay made a copy");
        tracer.await_said("now also tracing 1 function");
        let took = changed.elapsed();
        run(&counts, &["recurse", "-n", "2"]).success();
        // Of the copy no copy is made.
        change_mode(Path::new(&counts));
        old.go();
        old.finish().success();
        run(&counts, &["recurse", "-n", "4"]).success();
        let traced = tracer.interrupt();
        assert_eq!(traced.trace.calls.len(), 2000, "{}", traced.ended.stderr);
        assert_eq!(traced.trace.files.len(), 1, "{}", traced.ended.stderr);
        println!("traced after {took:?}");
        fastest = fastest.min(took);
    }
    // Other tests may have the processors meanwhile.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

#[test]
fn a_change_of_attributes_alone_needs_no_new_probes_where_an_overlay_copies_only_these() {
    let overlay = Overlay::mount(&["c/counts"], ",metacopy=on");
    let counts = overlay.shown("counts");
    let tracer = Tracer::start(&["-x", &counts, "recurse"]);
    change_mode(Path::new(&counts));
    run(&counts, &["recurse", "-n", "2"]).success();
    let later = Tracer::start(&["-x", &counts, "recurse"]);
    run(&counts, &["recurse", "-n", "1"]).success();
    touch(Path::new(&counts));
    run(&counts, &["recurse", "-n", "1"]).success();
    let (first, later) = (tracer.interrupt(), later.interrupt());
    assert_eq!((first.trace.calls.len(), later.trace.calls.len()), (800, 400), "{}", first.ended.stderr);
    assert_eq!(first.trace.files.len(), 0, "{}", first.ended.stderr);
}

#[test]
fn a_library_that_is_written_over_on_an_overlay_is_traced_on_where_it_is_loaded() {
    let overlay = Overlay::mount(&["c/host", "c/libplug.so"], "");
    let library = overlay.shown("libplug.so");
    let mut old = host(overlay.shown("host"));
    old.order(&format!("open {library}"));
    let tracer = Tracer::start(&["-x", &library, "plugged"]);
    old.order("call 1");
    let mut newer = fs::read(&library).expect("it can be read");
    newer.push(0);
    fs::write(&library, newer).expect("it can be written to: processes run the one below");
    tracer.await_said("now also tracing 1 function");
    old.order("call 2");
    let mut new = host(overlay.shown("host"));
    new.order(&format!("open {library}"));
    new.order("call 4");
    let traced = tracer.interrupt();
    assert_eq!(traced.trace.calls.len(), 7, "{}", traced.ended.stderr);
    assert!(!traced.ended.stderr.contains("overwritten"), "{}", traced.ended.stderr);
}

#[test]
fn a_container_whose_program_is_changed_is_traced_before_and_after_that_and_no_other_of_its_image() {
    let docker = Docker::start();
    docker.image("counts:1", &[(&program("c/counts-static"), "/counts")]);
    for change in CHANGES {
        let (web, db) = (unique("web"), unique("db"));
        let waiting = |name: &str| {
            let options =
                ["run", "-i", "--net=none", "--name", name, "counts:1", "/counts", "recurse", "-n", "3", "--wait"];
            let mut process = docker.spawn(&options);
            process.await_line("ready");
            process
        };
        let (mut first, _other) = (waiting(&web), waiting(&db));
        let counts = PathBuf::from(format!("/proc/{}/root/counts", docker.pid(&web)));
        let before = Tracer::start(&["--container", &web, "recurse"]);
        docker.recurse(&web, 1);
        change(&counts);
        before.await_said("now also tracing 1 function");
        let after = Tracer::start(&["--container", &web, "recurse"]);
        docker.recurse(&db, 1);
        docker.recurse(&web, 2);
        let mut second = docker.spawn(&["exec", "-i", &web, "/counts", "recurse", "-n", "1", "--wait"]);
        second.await_line("ready");
        second.go();
        second.finish().success();
        first.go();
        first.finish().success();
        let (before, after) = (before.interrupt(), after.interrupt());
        assert_eq!(before.trace.calls.len(), 1400, "{}", before.ended.stderr);
        assert_eq!(after.trace.calls.len(), 1200, "{}", after.ended.stderr);
        let is_its = |call: &crate::trace::Call| call.container.as_deref() == Some(&*web);
        assert!(before.trace.calls.iter().chain(&after.trace.calls).all(is_its));
    }
}
