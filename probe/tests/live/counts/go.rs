//! `testdata/go/counts`, of Go 1.27 and 1.19, stripped, position-independent.

use super::{ROOM, assert_durations, assert_inside, assert_recursion, check};

const ALL: [&str; 7] = [
    "go/counts",
    "go/counts-stripped",
    "go/counts-strip",
    "go/counts-pie",
    "go/counts-pie-stripped",
    "go1.19/counts",
    "go1.19/counts-stripped",
];
const SAVE: &str = "git.com/paas/myagent/pkg/storage.(*ProcessStore).SaveNetworkLocateInfo";

#[test]
fn a_million_calls_in_goroutines_that_move_between_threads() {
    let (traced, _) = check("go/counts", &["calls"], &ROOM);
    let moved = traced.trace.calls.iter().filter(|call| call.end_tid.is_some_and(|tid| tid != call.tid)).count();
    assert!(moved > 0, "no goroutine changed its thread in a call");
    assert!(traced.trace.calls.iter().all(|call| call.goroutine.is_some_and(|goid| goid > 0)));
}

#[test]
fn calls_in_moving_goroutines_of_every_build() {
    for program in &ALL[1..] {
        let (traced, _) = check(program, &["calls", "-n", "30000", "-t", "8"], &ROOM);
        let outer = traced.trace.of(SAVE);
        let goroutines: std::collections::HashSet<_> = outer.iter().map(|call| call.goroutine).collect();
        assert_eq!(goroutines.len(), 8, "{program}");
        assert!(outer.iter().all(|call| call.depth == 0), "{program}");
        let load = SAVE.replace("Save", "load");
        assert_inside(&traced, &load, SAVE);
    }
}

#[test]
fn a_stack_that_grows_enters_a_function_once() {
    for program in ALL {
        let (traced, _) = check(program, &["grow", "-n", "40000"], &ROOM);
        let deepest = traced.trace.calls.iter().map(|call| call.depth).max();
        assert_eq!(deepest, Some(49), "{program}");
    }
}

#[test]
fn recursion_nests_200_deep() {
    for program in ALL {
        let (traced, _) = check(program, &["recurse", "-n", "20"], &[]);
        assert_recursion(&traced, "main.recurse", 20);
    }
}

#[test]
fn a_recovered_panic_unwinds_what_lies_below_the_one_that_recovers() {
    for program in ALL {
        let (traced, _) = check(program, &["panic", "-n", "2000"], &[]);
        assert_inside(&traced, "main.panicMiddle", "main.panicAbove");
        assert_inside(&traced, "main.panicDeep", "main.panicMiddle");
    }
}

#[test]
fn goexit_unwinds_all_calls_of_its_goroutine() {
    for program in ALL {
        let (traced, _) = check(program, &["goexit", "-n", "2000"], &[]);
        assert_inside(&traced, "main.goexitInner", "main.goexitOuter");
    }
}

#[test]
fn os_exit_ends_open_calls_as_exit_with_the_programs_status() {
    for program in ALL {
        let (traced, _) = check(program, &["exit"], &[]);
        assert_eq!(traced.ended.code(), 3, "{program}");
        assert_inside(&traced, "main.exitInner", "main.exitOuter");
    }
}

#[test]
fn exec_ends_open_calls_as_exec() {
    for program in ALL {
        let (traced, _) = check(program, &["exec"], &[]);
        assert_inside(&traced, "main.execInner", "main.execOuter");
    }
}

#[test]
fn durations_agree_with_the_programs_own_clock() {
    let least = [
        ("main.nestedA", 300_000),
        ("main.nestedB", 500_000),
        ("main.nestedC", 100_000),
        ("main.nestedParent", 900_000),
    ];
    for program in ["go/counts", "go/counts-pie-stripped", "go1.19/counts-stripped"] {
        let (traced, truth) = check(program, &["nested"], &[]);
        assert_durations(&traced, &truth, &least);
        for (child, _) in &least[..3] {
            assert_inside(&traced, child, "main.nestedParent");
        }
    }
}

#[test]
fn a_jump_to_another_function_is_a_tail_call() {
    for program in ALL {
        check(program, &["tail", "-n", "2000"], &[]);
    }
}
