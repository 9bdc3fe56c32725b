//! Callers: the chain that the source has, named also when the process is long gone, and cut with a reason.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use crate::{
    harness::{self, Process, Tracer, path, private_copy, trace},
    trace::{Call, callers},
};

const NO_FRAME_POINTERS: Option<&str> = Some("no frame pointers");

/// The callers down to `main` are these, and then comes the C library, down to `_start`.
fn assert_c_callers(call: &Call, expected: &[&str]) {
    let callers = callers(call);
    assert_eq!(
        callers.get(..expected.len()),
        Some(expected).map(|e| e.iter().map(|s| s.to_string()).collect::<Vec<_>>()).as_deref(),
        "{call:?}"
    );
    let stack = call.stack.as_ref().expect("just seen");
    let (start, library) = stack.get(expected.len()..).and_then(<[_]>::split_last).expect("more");
    let in_libc = |file: &Option<String>| file.as_deref().is_some_and(|f| f.contains("libc.so"));
    assert!(library.iter().all(|f| in_libc(&f.binary)), "{call:?}");
    assert_eq!(start.function.as_deref(), Some("_start"), "{call:?}");
    assert_eq!(call.stack_cut, None, "{call:?}");
}

const CHAIN: [(&str, &[&str]); 4] = [
    ("func_d", &["func_c", "func_b", "func_a", "main"]),
    ("func_c", &["func_b", "func_a", "main"]),
    ("func_b", &["func_a", "main"]),
    ("func_a", &["main"]),
];

#[test]
fn every_caller_is_named_with_frame_pointers_and_without() {
    for program in ["c/test", "c/test-O2"] {
        for how in ["auto", "dwarf"] {
            let traced = trace(&["--stack", how, "--stack-all", "func_*"], &[&path(program), "3"]);
            for (function, expected) in CHAIN {
                let calls = traced.trace.of(function);
                assert_eq!(calls.len(), 3);
                calls.iter().for_each(|call| assert_c_callers(call, expected));
            }
        }
    }
}

#[test]
fn by_frame_pointers_the_stack_is_true_up_to_the_first_function_without() {
    for (program, depth) in [("c/test", usize::MAX), ("c/test-O2", 1)] {
        let traced = trace(&["--stack=fp", "--stack-all", "func_*"], &[path(program)]);
        for (function, expected) in CHAIN {
            let call = traced.trace.of(function)[0];
            let expected = &expected[..depth.min(expected.len())];
            // Where all of the program's functions keep one, the C library's follow until one does not.
            let callers = callers(call);
            assert_eq!(callers.get(..expected.len()).expect("as many"), expected, "{call:?}");
            assert!(depth > 1 || callers.len() == 1, "{call:?}");
            assert_eq!(call.stack_cut.as_deref(), NO_FRAME_POINTERS, "{call:?}");
        }
    }
}

#[test]
fn stacks_are_those_of_outermost_calls_unless_all_or_none_are_asked_for() {
    let command = [path("c/test")];
    let with_stack = |options: &[&str]| {
        let traced = trace(options, &command);
        traced.trace.calls.iter().filter(|c| c.stack.is_some()).map(|c| c.function.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(with_stack(&["func_*"]), ["func_a"]);
    assert_eq!(with_stack(&["--stack-all", "func_*"]).len(), 4);
    assert!(with_stack(&["--stack=none", "func_*"]).is_empty());
}

#[test]
fn a_stack_ends_at_the_depth_asked_for_and_says_so() {
    let traced = trace(&["--stack-depth", "2", "func_d"], &[path("c/test")]);
    let call = traced.trace.of("func_d")[0];
    assert_eq!(callers(call), ["func_c", "func_b"], "{call:?}");
    assert!(call.stack_cut.is_some(), "{call:?}");
}

#[test]
fn go_callers_reach_the_goroutines_start_with_their_lines() {
    for program in
        ["go/counts", "go/counts-stripped", "go/counts-pie-stripped", "go1.19/counts", "go1.19/counts-stripped"]
    {
        let traced = trace(&["--stack-all", "main.nestedA"], &[&path(program), "nested", "-n", "2"]);
        let source = include_str!("../../../testdata/go/counts/main.go");
        for call in traced.trace.of("main.nestedA") {
            let chain = ["main.timed", "main.nestedParent", "main.timed", "main.nested", "main.main", "runtime.main"];
            assert_eq!(callers(call), [&chain[..], &["runtime.goexit"]].concat(), "{program}");
            assert_eq!(call.stack_cut, None, "{program}");
            let parent = &call.stack.as_ref().expect("just seen")[1];
            assert!(
                parent.file.as_deref().is_some_and(|file| file.ends_with("counts/main.go")),
                "{program}: {parent:?}"
            );
            let line = source.lines().nth(parent.line.expect("a line") as usize - 1).expect("the source has it");
            assert_eq!(line.trim(), "timed(0, nestedA)", "{program}");
        }
    }
}

#[test]
fn a_goroutines_callers_begin_at_its_function() {
    let traced = trace(&["SaveNetworkLocateInfo"], &[&path("go/counts"), "calls", "-n", "8"]);
    assert_eq!(traced.trace.calls.len(), 8);
    for call in &traced.trace.calls {
        let callers = callers(call);
        assert_eq!(callers.first().map(String::as_str), Some("main.calls.func1"), "{callers:?}");
        assert_eq!(callers.last().map(String::as_str), Some("runtime.goexit"), "{callers:?}");
    }
}

#[test]
fn a_process_that_lived_for_milliseconds_has_its_callers_named_after_its_end() {
    // Position-independent: without the kernel's records of mappings no address of it means anything.
    for program in ["c/test", "c/test-O2"] {
        let (function, expected) = CHAIN[0];
        let (_folder, copy) = private_copy(program, "shortlived");
        let tracer = Tracer::start(&["-x".as_ref(), copy.as_os_str(), function.as_ref()]);
        for _ in 0..20 {
            harness::run(&copy, &["1"]).success();
        }
        let traced = tracer.interrupt();
        let calls = traced.trace.of(function);
        assert_eq!(calls.len(), 20, "{}", traced.ended.stderr);
        calls.iter().for_each(|call| assert_c_callers(call, expected));
    }
}

#[test]
fn a_process_that_ran_before_and_ends_at_once_has_its_callers_and_itself_named() {
    for name in ["go/counts-pie-stripped", "rust/counts-fp"] {
        let function = if name.starts_with("go") { "main.recurse" } else { "counts::recurse" };
        let (_folder, copy) = private_copy(name, "ranbefore");
        let path = copy.to_str().expect("UTF-8");
        for target in ["-p", "--tid", "--comm", "-x"] {
            let mut process = Process::waiting(&copy, &["recurse", "-n", "1"]);
            let pid = process.pid().to_string();
            let options = match target {
                "--comm" => vec!["-x", path, "--comm", "ranbefore"],
                "-x" => vec!["-x", path],
                target => vec![target, &pid],
            };
            let tracer = Tracer::start(&[&options[..], &[function]].concat());
            process.go();
            process.finish().success();
            // With -p or --tid it has ended by itself, or is about to.
            let traced = tracer.interrupt();
            // One thread is traced, and Go's main goroutine may run on another.
            let Some(outermost) = traced.trace.calls.iter().find(|call| call.depth == 0) else {
                assert!(target == "--tid" && name.starts_with("go"), "{name} {target}: {}", traced.ended.stderr);
                continue;
            };
            let callers = callers(outermost);
            let of_main = callers.iter().any(|name| name == "main.main" || name == "counts::main");
            assert!(of_main, "{name} {target}: {callers:?}");
            assert_eq!(&*outermost.comm, "ranbefore", "{name} {target}");
        }
    }
}

#[test]
fn c_that_go_called_has_go_for_callers_and_so_on_through_both() {
    assert_callers_in_go_and_c(&path("go/cgo"));
    for version in ["1.21", "1.22", "1.23", "1.24", "1.25", "1.26"] {
        assert_callers_in_go_and_c(&path(&format!("cgo/go{version}")));
    }
}

/// Where it came from has no frame there.
#[test]
fn c_that_go_1_19_called_has_callers_up_to_go_and_the_stack_says_why_not_more() {
    let traced = trace(&["c_leaf"], &[&path("cgo/go1.19"), "calls", "-n", "50", "-t", "2"]);
    assert_eq!(traced.trace.of("c_leaf").len(), 50);
    for call in traced.trace.of("c_leaf") {
        assert_eq!(callers(call).last().map(String::as_str), Some("runtime.asmcgocall"), "{call:?}");
        assert_eq!(call.stack_cut.as_deref(), Some("no unwind rules"), "{call:?}");
    }
}

#[track_caller]
fn assert_callers_in_go_and_c(program: &str) {
    let traced = trace(&["c_middle", "c_leaf", "--stack-all"], &[program, "calls", "-n", "200", "-t", "2"]);
    let go_side = ["runtime.asmcgocall", "runtime.cgocall"];
    let outer = ["main.outer", "main.main.func1", "runtime.goexit"];
    for (function, expected) in [
        ("c_middle", [&go_side[..], &outer].concat()),
        (
            "c_leaf",
            [
                &go_side[..],
                &["main.inner", "main.goInner", "runtime.cgocallback", "crosscall2", "goInner", "c_middle"],
                &go_side,
                &outer,
            ]
            .concat(),
        ),
    ] {
        let calls = traced.trace.of(function);
        assert_eq!(calls.len(), 200, "{program}: {}", traced.ended.stderr);
        for call in calls {
            let callers = callers(call);
            // Beside these there are cgo's own, whose names differ from version to version.
            let found: Vec<&str> = callers.iter().map(String::as_str).filter(|name| expected.contains(name)).collect();
            assert_eq!(found, expected, "{program}: {call:?}");
            assert_eq!(call.stack_cut, None, "{program}: {call:?}");
        }
    }
}

/// The kernel starts a program with the number of its arguments where a return address would be.
#[test]
fn where_a_program_begins_there_are_no_callers_and_nothing_is_missing() {
    for (program, begins) in [
        ("c/counts", "_start"),
        ("c/counts-static", "_start"),
        ("rust/counts", "_start"),
        ("go/counts", "_rt0_amd64_linux"),
        ("go/counts-pie", "_rt0_amd64_linux"),
    ] {
        for how in ["auto", "fp", "dwarf"] {
            let traced = trace(&["--stack", how, begins], &[&path(program), "calls", "-n", "1"]);
            let [call] = traced.trace.of(begins)[..] else { panic!("{program} {how}: {}", traced.ended.stderr) };
            assert_eq!((callers(call), call.stack_cut.as_deref()), (Vec::new(), None), "{program} {how}");
        }
    }
}

#[test]
fn callers_whose_return_address_a_return_probe_has_replaced_are_shown_all_the_same() {
    let traced = trace(&["--returns=uretprobe", "--stack-all", "func_*"], &[path("c/test")]);
    for (function, expected) in CHAIN {
        assert_c_callers(traced.trace.of(function)[0], expected);
    }
}

#[test]
fn return_probes_of_others_hide_no_caller() {
    let (_folder, copy) = private_copy("c/test-O2", "hijacked");
    let shown = copy.to_str().expect("UTF-8");
    let functions = ["func_a", "func_b", "func_c", "func_d"];
    let script: String = functions.iter().map(|f| format!("uretprobe:{shown}:{f} {{ @{f} = count(); }}\n")).collect();
    let tracer = Tracer::start(&["--stack-all", "-x", shown, "func_*"]);
    let bpftrace = harness::run("bpftrace", &["-e", &script, "-c", &format!("{shown} 5")]);
    assert_eq!(bpftrace.stdout.lines().filter(|line| line.ends_with(": 5")).count(), 4, "{bpftrace:?}");
    let traced = tracer.interrupt();
    for (function, expected) in CHAIN {
        let calls = traced.trace.of(function);
        assert_eq!(calls.len(), 5, "{}", traced.ended.stderr);
        calls.iter().for_each(|call| assert_c_callers(call, expected));
    }
}

#[test]
fn by_frame_pointers_a_return_probe_in_the_place_of_a_caller_is_said_and_not_shown_as_one() {
    let options = ["--returns=uretprobe", "--stack-all", "--stack=fp", "func_*"];
    let traced = trace(&options, &[path("c/test")]);
    for (function, expected) in [("func_d", "func_c"), ("func_c", "func_b"), ("func_b", "func_a")] {
        let call = traced.trace.of(function)[0];
        assert_eq!(callers(call), [expected], "{call:?}");
        assert_eq!(call.stack_cut.as_deref(), Some("a return probe hides the caller"), "{call:?}");
    }
}

#[test]
fn a_coroutines_stack_ends_where_it_begins() {
    for mode in ["coroutine", "migrate"] {
        let traced = trace(&["--stack-all", "leaf"], &[&path("c/stacks"), mode, "-n", "20"]);
        let calls = traced.trace.of("leaf");
        let in_coroutine = calls.iter().filter(|call| callers(call).iter().any(|name| name == "generator"));
        assert!(in_coroutine.count() > 20, "{mode}: {}", traced.ended.stderr);
        for call in calls {
            assert_eq!(call.stack_cut, None, "{mode}: {call:?}");
        }
    }
}

/// Those that were there before the trace are in another test, of its start.
#[test]
fn sixty_thousand_mappings_made_while_a_process_is_traced_hide_no_caller() {
    let traced = trace(&["work"], &[&path("c/maps"), "60000"]);
    let calls = traced.trace.of("work");
    assert_eq!(calls.len(), 1000, "{}", traced.ended.stderr);
    calls.iter().for_each(|call| assert_c_callers(call, &["call_work", "main"]));
}

/// The records of mappings are those of all processes, in buffers of a bounded size.
#[test]
fn thousands_of_mappings_that_others_make_meanwhile_hide_no_caller() {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Relaxed) {
                harness::run(path("c/maps"), &["60000"]).success();
            }
        });
        // Ended by the time at which their events are read.
        let (function, expected) = CHAIN[0];
        let traced: Vec<_> = (0..20).map(|_| trace(&[function], &[path("c/test-O2")])).collect();
        enough.store(true, Relaxed);
        for traced in traced {
            let calls = traced.trace.of(function);
            assert_eq!(calls.len(), 1, "{}", traced.ended.stderr);
            assert_c_callers(calls[0], expected);
        }
    });
}

#[test]
fn callers_in_a_deleted_file_are_named() {
    let (folder, copy) = private_copy("rust/counts-fp", "deleted");
    let mut process = Process::waiting(&copy, &["recurse", "-n", "1"]);
    drop(folder);
    let tracer = Tracer::start(&["-p", &process.pid().to_string(), "counts::recurse"]);
    process.go();
    process.finish().success();
    let traced = tracer.finish();
    let outermost = traced.trace.calls.iter().find(|call| call.depth == 0).expect("it was called");
    assert!(callers(outermost).iter().any(|name| name == "counts::main"), "{outermost:?}");
    assert_eq!(outermost.stack_cut, None, "{outermost:?}");
}

#[test]
fn each_call_of_a_rust_recursion_has_as_many_of_it_for_callers_as_are_open() {
    for program in ["rust/counts", "rust/counts-fp", "rust/counts-debug", "rust/counts-v0"] {
        let options = ["--stack-all", "--stack-depth", "127", "counts::recurse"];
        let traced = trace(&options, &[&path(program), "recurse", "-n", "2"]);
        let shallow: Vec<&Call> = traced.trace.calls.iter().filter(|call| call.depth < 40).collect();
        assert!(shallow.len() >= 40, "{program}: {}", traced.ended.stderr);
        for call in shallow {
            let callers = callers(call);
            let recursions = callers.iter().take_while(|name| *name == "counts::recurse").count();
            assert_eq!(recursions, call.depth as usize, "{program}: {call:?}");
            assert!(callers.iter().any(|name| name == "counts::main"), "{program}: {call:?}");
            assert_eq!(callers.last().map(String::as_str), Some("_start"), "{program}: {call:?}");
            assert_eq!(call.stack_cut, None, "{program}: {call:?}");
        }
    }
}

/// Records have sizes: 24 callers, 64, 127. What is found is the same at their edges.
#[test]
fn a_walk_by_frame_pointers_has_every_caller_whatever_the_records_size() {
    for depth in [1, 23, 24, 25, 63, 64, 65, 126, 127] {
        let options = ["--stack=fp", "--stack-all", "--stack-depth", &depth.to_string(), "recurse"];
        let traced = trace(&options, &[&path("c/counts-O0"), "recurse", "-n", "1"]);
        assert_eq!(traced.trace.calls.len(), 200, "{}", traced.ended.stderr);
        for call in &traced.trace.calls {
            let callers = callers(call);
            let own = callers.iter().take_while(|name| *name == "recurse").count();
            assert_eq!(own, depth.min(call.depth as usize), "--stack-depth {depth}: {call:?}");
            if own == depth {
                assert_eq!(call.stack_cut.as_deref(), Some("--stack-depth reached"), "--stack-depth {depth}: {call:?}");
            }
        }
    }
}

/// The names in the code that the kernel maps into every process, by nm: ours is everybody's.
fn names_in_vdso(folder: &std::path::Path) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our own");
    let range = maps.lines().find(|line| line.ends_with("[vdso]")).and_then(|line| line.split(' ').next());
    let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
    let (start, end) =
        range.and_then(|range| range.split_once('-')).map(|(a, b)| (number(a), number(b))).expect("it is");
    let mut bytes = vec![0; (end - start) as usize];
    let memory = std::fs::File::open("/proc/self/mem").expect("our own");
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start).expect("it is mapped");
    let copy = folder.join("vdso.so");
    std::fs::write(&copy, bytes).expect("it can be written");
    harness::tool("nm", &["-D", copy.to_str().expect("UTF-8")])
}

/// By its signal's context the program knows in whose code each handler interrupted it, and by what it noted for whom.
#[test]
fn a_handler_that_interrupts_the_kernels_code_for_user_space_has_it_and_its_callers() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let known = names_in_vdso(folder.path());
    for how in ["auto", "dwarf"] {
        let traced = trace(&["--stack", how, "handled"], &[&path("c/vdso"), "-n", "2000"]);
        let mut calls = traced.trace.of("handled");
        calls.sort_by_key(|call| call.start_ns);
        let truth: Vec<(&str, &str)> = traced.ended.stdout.lines().filter_map(|line| line.split_once(' ')).collect();
        assert!(calls.len() >= 2000 && calls.len() == truth.len(), "{}", traced.ended.stderr);
        let mut in_vdso = 0;
        for (call, &(module, asking)) in calls.iter().zip(&truth) {
            let stack = call.stack.as_ref().expect("it is outermost");
            let names = callers(call);
            assert_eq!(names.get(..2), Some(&["on_alarm".to_owned(), "__restore_rt".to_owned()][..]), "{call:?}");
            assert_eq!(
                (call.stack_cut.as_deref(), names.last().map(String::as_str)),
                (None, Some("_start")),
                "{call:?}"
            );
            let asks =
                names.iter().position(|name| matches!(name.as_str(), "by_clock" | "by_day" | "main")).expect("main");
            let between: Vec<&str> = stack[2..asks].iter().filter_map(|frame| frame.binary.as_deref()).collect();
            let through: Vec<&str> = between.iter().filter_map(|path| path.rsplit('/').next()).collect();
            match (module, asking) {
                ("vdso", "by_clock") => assert_eq!(through, ["[vdso]", "libc.so.6"], "{call:?}"),
                ("vdso", "by_day") => assert_eq!(through, ["[vdso]"], "{call:?}"),
                ("libc", "by_clock") => assert_eq!(through, ["libc.so.6"], "{call:?}"),
                // Before it could be noted who asks, say.
                _ => assert!(module == "own" && through.len() <= 1, "{module} {asking}: {call:?}"),
            }
            if module == "vdso" {
                in_vdso += 1;
                assert_eq!(names[asks], asking, "{call:?}");
                let name = format!(" {}", names[2]);
                assert!(
                    known.lines().any(|line| line.split('@').next().is_some_and(|l| l.ends_with(&name))),
                    "{call:?}"
                );
            }
        }
        assert!(in_vdso > 1000, "{how}: {in_vdso}");
    }
}
