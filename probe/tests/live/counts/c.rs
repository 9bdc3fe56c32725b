//! `testdata/c/counts`: -O2 without frame pointers, -O0 with, not position-independent.

use super::{ROOM, assert_durations, assert_inside, assert_recursion, check, skipped};

const ALL: [&str; 3] = ["c/counts", "c/counts-O0", "c/counts-nopie"];

#[test]
fn a_million_calls_in_four_threads() {
    let (traced, _) = check("c/counts", &["calls"], &ROOM);
    assert_inside(&traced, "leaf", "work");
}

#[test]
fn calls_in_threads_of_every_build() {
    for program in &ALL[1..] {
        let (traced, _) = check(program, &["calls", "-n", "30000", "-t", "8"], &ROOM);
        assert_inside(&traced, "leaf", "work");
        let threads: std::collections::HashSet<u32> = traced.trace.calls.iter().map(|call| call.tid).collect();
        assert_eq!(threads.len(), 8, "{program}");
    }
}

#[test]
fn recursion_nests_200_deep() {
    for program in ALL {
        let (traced, _) = check(program, &["recurse", "-n", "20"], &[]);
        assert_recursion(&traced, "recurse", 20);
    }
}

#[test]
fn a_tail_call_ends_at_its_jump_beside_what_it_jumped_to() {
    for program in ALL {
        let (traced, truth) = check(program, &["tail", "-n", "2000"], &[]);
        let optimised = truth.note("tailcall", "tail_from") > 0;
        assert_inside(&traced, "tail_to", if optimised { "tail_caller" } else { "tail_from" });
    }
}

#[test]
fn a_conditional_tail_call_is_one_only_when_it_is_taken() {
    for program in ALL {
        let (traced, _) = check(program, &["cond", "-n", "2000"], &[]);
        assert_inside(&traced, "cond_to", "cond_caller");
        assert_inside(&traced, "cond_from", "cond_caller");
    }
}

#[test]
fn indirect_tail_calls_through_registers_and_memory() {
    for program in ALL {
        check(program, &["indirect", "-n", "2000"], &[]);
    }
}

#[test]
fn a_jump_table_inside_a_function_is_no_tail_call() {
    for program in ALL {
        let (traced, _) = check(program, &["switch", "-n", "2000"], &[]);
        assert_inside(&traced, "leaf", "switched");
    }
}

#[test]
fn longjmp_unwinds_what_it_jumps_over() {
    for program in ALL {
        let (traced, _) = check(program, &["longjmp", "-n", "2000"], &[]);
        assert_inside(&traced, "jump_middle", "jump_catcher");
        assert_inside(&traced, "jump_deep", "jump_middle");
    }
}

#[test]
fn a_loop_to_the_first_instruction_is_one_call() {
    for program in ALL {
        check(program, &["loop", "-n", "2000"], &[]);
    }
}

#[test]
fn a_function_that_the_kernel_refuses_is_named_and_the_others_are_counted() {
    for program in ALL {
        let (traced, truth) = check(program, &["refused", "-n", "2000"], &[]);
        assert_eq!(traced.trace.of("lock_caller").len(), 2000, "{program}");
        let seen = traced.trace.of("lock_first").len() as u64;
        let named = skipped(&traced).iter().any(|(name, reason)| *name == "lock_first" && !reason.is_empty());
        assert!(named || truth.calls().any(|call| call == ("lock_first", seen)), "{program}: {}", traced.ended.stderr);
    }
}

#[test]
fn durations_agree_with_the_programs_own_clock() {
    let least = [("nested_a", 300_000), ("nested_b", 500_000), ("nested_c", 100_000), ("nested_parent", 900_000)];
    for program in ALL {
        let (traced, truth) = check(program, &["nested"], &[]);
        assert_durations(&traced, &truth, &least);
    }
}

#[test]
fn a_function_that_forks_is_entered_once_and_both_processes_are_traced() {
    for program in ALL {
        let (traced, truth) = check(program, &["fork", "-n", "2000"], &[]);
        let forker = traced.trace.of("forker");
        let child = truth.note("pid", "child");
        let (parents, children): (Vec<_>, Vec<_>) =
            traced.trace.of("work").into_iter().partition(|call| call.pid == forker[0].pid);
        assert_eq!((parents.len(), children.len()), (1000, 1000), "{program}");
        assert!(children.iter().all(|call| u64::from(call.pid) == child), "{program}: not of {child}");
        assert_eq!(traced.trace.summary["unmatched_returns"], 1, "{program}: forker returns in the child too");
    }
}

#[test]
fn a_vforked_child_on_its_parents_stack_is_another_thread() {
    for program in ALL {
        let (traced, _) = check(program, &["vfork"], &[]);
        let parent = traced.trace.of("vforker")[0].pid;
        assert!(traced.trace.of("work").iter().all(|call| call.pid != parent && call.depth == 0), "{program}");
    }
}

#[test]
fn exec_exit_and_the_end_of_a_thread_end_open_calls_as_such() {
    for program in ALL {
        for (mode, status) in [("exec", 0), ("exit", 3), ("thread_exit", 0)] {
            let (traced, _) = check(program, &[mode], &[]);
            assert_eq!(traced.ended.code(), status, "{program} {mode}");
            let function = mode.trim_end_matches("_exit");
            assert_inside(&traced, &format!("{function}_inner"), &format!("{function}_outer"));
        }
    }
}
