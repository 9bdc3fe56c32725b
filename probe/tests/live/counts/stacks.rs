//! `testdata/c/stacks` and `testdata/go/cgo`: calls on several stacks, interrupted, deep, endless.

use super::{ROOM, Truth, assert_counts, assert_inside, check, plain};
use crate::harness::{self, Process, Tracer};

const BOTH: [&str; 2] = ["c/stacks", "c/stacks-O0"];

#[test]
fn a_coroutine_that_gives_way_amid_its_calls_goes_on_with_them() {
    for (program, mode) in [("c/stacks", "coroutine"), ("c/stacks-O0", "coroutine"), ("c/fcontext", "calls")] {
        let (traced, _) = check(program, &[mode], &ROOM);
        assert_inside(&traced, "produce", "generator");
        for outermost in ["generator", "consume"] {
            let calls = traced.trace.calls.iter().filter(|call| &*call.function == outermost);
            assert!(calls.into_iter().all(|call| call.depth == 0), "{program}: {outermost} is in another call");
        }
    }
}

#[test]
fn a_coroutine_may_be_resumed_by_another_thread() {
    let (traced, _) = check("c/stacks", &["migrate"], &ROOM);
    assert_inside(&traced, "produce", "generator");
    assert!(traced.trace.has_moved(), "some end on another thread");
}

#[test]
fn a_handler_on_an_alternate_stack_is_inside_of_what_it_interrupted() {
    for program in BOTH {
        let (traced, _) = check(program, &["altstack", "-n", "25000"], &ROOM);
        assert_inside(&traced, "on_signal", "interrupted");
    }
}

#[test]
fn a_handler_that_interrupts_anything_anywhere_loses_no_call() {
    for program in BOTH {
        let traced = harness::trace(
            &[&ROOM[..], &["on_signal", "leaf", "work"]].concat(),
            &[&harness::path(program), "signal", "-n", "25000"],
        );
        let truth = Truth::of(&traced.ended.stdout);
        assert_counts(program, &traced, &truth);
        let handled = traced.trace.calls.iter().filter(|call| &*call.function == "on_signal");
        assert!(handled.filter(|call| call.parent.is_some()).count() > 0, "{program}: some interrupt a call");
    }
}

#[test]
fn mutual_recursion_nests_10_000_deep() {
    for program in BOTH {
        let (traced, _) = check(program, &["mutual"], &ROOM);
        for depth in [0, 1, 4999, 9999] {
            let wanted = if depth % 2 == 0 { "even" } else { "odd" };
            let at_depth: Vec<_> = traced.trace.calls.iter().filter(|call| call.depth == depth).collect();
            assert_eq!(at_depth.len(), 10, "{program}: calls at depth {depth}");
            assert!(at_depth.iter().all(|call| &*call.function == wanted), "{program}: depth {depth}");
        }
    }
}

#[test]
fn a_function_that_never_returns_ends_with_the_program() {
    for program in BOTH {
        check(program, &["forever"], &ROOM);
    }
}

#[test]
fn threads_that_live_for_five_calls() {
    let (traced, _) = check("c/stacks", &["threads"], &ROOM);
    assert_inside(&traced, "work", "threaded");
    assert_inside(&traced, "leaf", "work");
}

#[test]
fn a_call_that_began_before_the_probes_is_a_return_without_an_entry() {
    for program in BOTH {
        let mut process = Process::start({
            let mut command = std::process::Command::new(harness::path(program));
            command.arg("before");
            command
        });
        process.await_line("inside");
        let pid = process.pid().to_string();
        let options = [&ROOM[..], &["-p", &pid, "entered_before", "leaf"]].concat();
        let tracer = Tracer::start(&options);
        process.go();
        process.finish();
        let traced = tracer.finish();
        assert_eq!(traced.lost_total(), 0);
        assert_eq!(traced.trace.summary["unmatched_returns"], 1, "{program}");
        assert_eq!(traced.trace.calls.len(), 100_000, "{program}");
        assert!(traced.trace.calls.iter().all(|call| &*call.end == "return" && call.depth == 0), "{program}");
    }
}

#[test]
fn go_that_calls_c_that_calls_go_is_one_tree() {
    let (traced, _) = check("go/cgo", &["calls"], &ROOM);
    assert_inside(&traced, "c_middle", "main.outer");
    assert_inside(&traced, "main.inner", "c_middle");
    assert_inside(&traced, "c_leaf", "main.inner");
    let goroutines: std::collections::HashSet<_> = traced.trace.calls.iter().map(|call| call.goroutine).collect();
    assert_eq!(goroutines.len(), 4, "C's calls have the goroutine too");
    assert!(traced.trace.calls.iter().all(|call| plain(&call.function) == *call.function));
}
