//! True stacks without frame pointers: `testdata/chain` knows who called whom, and each of its stacks is compared with
//! what it says.

use std::collections::HashSet;

use crate::{
    harness::{Traced, path, trace},
    trace::Call,
};

/// The functions of which the program tells.
const KNOWN: [&str; 17] = [
    "plain",
    "large",
    "variable",
    "aligned",
    "both",
    "many",
    "saved",
    "handled",
    "sorted",
    "loaded",
    "translated",
    "main",
    "on_thread",
    "on_signal",
    "compare",
    "library_step",
    "generated",
];

/// Every stack of `samples` is the program's own, and reaches the thread's beginning.
#[track_caller]
fn assert_true_stacks(program: &str, mode: &str, samples: usize) -> Traced {
    let (traced, truth) = traced(program, mode, samples);
    for (number, (call, expected)) in in_order(&traced).into_iter().zip(truth).enumerate() {
        let stack = call.stack.as_ref().expect("every call is outermost");
        assert_eq!(known(call).join(" "), expected, "{program} {mode}, stack {number}: {call:?}");
        assert_eq!(call.stack_cut, None, "{program} {mode}, stack {number}: {call:?}");
        let root = stack.last().and_then(|frame| frame.function.as_deref());
        assert!(matches!(root, Some("_start" | "clone3" | "__clone3")), "{program} {mode}, stack {number}: {call:?}");
    }
    traced
}

/// The trace of a run, and what the program says of each call's stack.
#[track_caller]
fn traced(program: &str, mode: &str, samples: usize) -> (Traced, Vec<String>) {
    let traced = trace(&["target"], &[&path(&format!("chain/{program}")), mode, "-n", &samples.to_string()]);
    let truth: Vec<String> = traced.ended.stdout.lines().map(str::to_owned).collect();
    assert_eq!((truth.len(), traced.trace.calls.len()), (samples, samples), "{}", traced.ended.stderr);
    (traced, truth)
}

fn in_order(traced: &Traced) -> Vec<&Call> {
    let mut calls: Vec<_> = traced.trace.calls.iter().collect();
    calls.sort_by_key(|call| call.start_ns);
    calls
}

/// The callers of which the program tells.
fn known(call: &Call) -> Vec<&str> {
    let known: HashSet<&str> = KNOWN.into();
    let stack = call.stack.iter().flatten();
    stack.filter_map(|frame| frame.function.as_deref()).filter(|function| known.contains(function)).collect()
}

#[test]
fn c_without_frame_pointers_has_true_stacks_at_every_optimisation() {
    for program in ["c-O0", "c-O1", "c-O2", "c-O3", "clang-O2"] {
        assert_true_stacks(program, "main", 7000);
    }
}

#[test]
fn cpp_without_frame_pointers_has_true_stacks_at_every_optimisation() {
    for program in ["cpp-O0", "cpp-O2", "cpp-O3"] {
        assert_true_stacks(program, "main", 7000);
    }
}

#[test]
fn frame_pointers_fixed_addresses_and_static_linking_make_no_difference() {
    for program in ["c-fp", "c-nopie", "c-static"] {
        assert_true_stacks(program, "main", 5000);
    }
}

#[test]
fn unwind_tables_may_be_debug_information() {
    for program in ["c-debugframe", "c-debugframe-gz"] {
        assert_true_stacks(program, "main", 5000);
    }
}

#[test]
fn a_threads_stack_ends_where_the_thread_began() {
    for program in ["c-O2", "c-static", "cpp-O3"] {
        assert_true_stacks(program, "thread", 3000);
    }
}

#[test]
fn a_signal_handlers_stack_goes_on_in_what_was_interrupted() {
    for program in ["c-O0", "c-O2", "c-static", "cpp-O3"] {
        assert_true_stacks(program, "signal", 2000);
    }
}

#[test]
fn a_handlers_stack_on_an_alternate_stack_goes_on_in_what_was_interrupted() {
    for program in ["c-O0", "c-O2", "cpp-O3"] {
        assert_true_stacks(program, "altstack", 2000);
    }
}

#[test]
fn callbacks_from_a_library_have_its_callers() {
    for program in ["c-O2", "c-O3", "clang-O2"] {
        assert_true_stacks(program, "qsort", 2000);
    }
}

#[test]
fn libraries_that_come_and_go_are_unwound_at_every_address_they_had() {
    assert_true_stacks("c-O2", "dlopen", 3000);
}

#[test]
fn code_made_at_run_time_is_named_and_passed() {
    for program in ["c-O0", "c-O2"] {
        let traced = assert_true_stacks(program, "jit", 2000);
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", traced.trace.calls[0].pid));
    }
}

#[test]
fn code_of_which_a_dump_tells_is_named_with_its_lines_wherever_it_is_made_anew() {
    for program in ["c-O0", "c-O2", "cpp-O2"] {
        let traced = assert_true_stacks(program, "jitdump", 2000);
        let _ = std::fs::remove_file(format!("/tmp/jit-{}.dump", traced.trace.calls[0].pid));
        let frames = traced.trace.calls.iter().flat_map(|call| call.stack.iter().flatten());
        let generated: Vec<_> = frames.filter(|frame| frame.function.as_deref() == Some("generated")).collect();
        assert!(generated.iter().all(|frame| frame.file.as_deref() == Some("/made/up.js")), "{:?}", generated[0]);
        let lines: HashSet<_> = generated.iter().filter_map(|frame| frame.line).collect();
        assert!(lines.len() > 10 && !lines.contains(&5), "the fifth was moved there, and is the fourth: {lines:?}");
    }
}
