//! `testdata/rust/counts`: release, debug, v0 names, frame pointers, stripped.

use super::{ROOM, assert_durations, assert_inside, assert_recursion, check};
use crate::harness::{path, probe};

const ALL: [&str; 4] = ["rust/counts", "rust/counts-debug", "rust/counts-v0", "rust/counts-fp"];

#[test]
fn a_million_calls_in_four_threads() {
    let (traced, _) = check("rust/counts", &["calls"], &ROOM);
    assert_inside(&traced, "counts::leaf", "counts::Store::save");
    assert!(traced.trace.calls.iter().all(|call| call.goroutine.is_none()));
}

#[test]
fn calls_in_threads_of_every_build() {
    for program in &ALL[1..] {
        let (traced, _) = check(program, &["calls", "-n", "30000"], &ROOM);
        assert_inside(&traced, "counts::leaf", "counts::Store::save");
    }
}

#[test]
fn recursion_nests_200_deep() {
    for program in ALL {
        let (traced, _) = check(program, &["recurse", "-n", "20"], &[]);
        assert_recursion(&traced, "counts::recurse", 20);
    }
}

#[test]
fn catch_unwind_returns_and_what_the_panic_passed_is_unwound() {
    for program in ALL {
        let (traced, _) = check(program, &["panic", "-n", "2000"], &[]);
        assert_inside(&traced, "counts::panic_middle", "counts::panic_above");
        assert_inside(&traced, "counts::panic_deep", "counts::panic_middle");
    }
}

#[test]
fn all_instances_of_a_generic_and_trait_methods_are_counted() {
    for program in ALL {
        check(program, &["generics", "-n", "2000"], &[]);
    }
}

#[test]
fn a_closure_is_counted() {
    for program in ALL {
        check(program, &["closure", "-n", "2000"], &[]);
    }
}

#[test]
fn a_tail_call_ends_at_its_jump_beside_what_it_jumped_to() {
    for program in ALL {
        let (traced, truth) = check(program, &["tail", "-n", "2000"], &[]);
        let optimised = truth.note("tailcall", "counts::tail_from") > 0;
        let parent = if optimised { "counts::tail_caller" } else { "counts::tail_from" };
        assert_inside(&traced, "counts::tail_to", parent);
    }
}

#[test]
fn durations_agree_with_the_programs_own_clock() {
    let least = [
        ("counts::nested_a", 300_000),
        ("counts::nested_b", 500_000),
        ("counts::nested_c", 100_000),
        ("counts::nested_parent", 900_000),
    ];
    for program in ALL {
        let (traced, truth) = check(program, &["nested"], &[]);
        assert_durations(&traced, &truth, &least);
    }
}

#[test]
fn process_exit_and_exec_end_open_calls_as_such() {
    for program in ALL {
        let (traced, _) = check(program, &["exit"], &[]);
        assert_eq!(traced.ended.code(), 3, "{program}");
        assert_inside(&traced, "counts::exit_inner", "counts::exit_outer");
        let (traced, _) = check(program, &["exec"], &[]);
        assert_inside(&traced, "counts::exec_inner", "counts::exec_outer");
    }
}

#[test]
fn a_stripped_program_is_refused_with_what_is_missing() {
    for program in ["rust/counts-stripped", "c/counts-stripped", "cpp/counts-stripped"] {
        let ended = probe(&["-x", &path(program), "anything"]);
        assert_eq!(ended.code(), 1, "{ended:?}");
        let told = ended.stderr.contains("no symbols") || ended.stderr.contains("no function matches");
        assert!(told, "{ended:?}");
    }
}
