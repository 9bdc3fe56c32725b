//! Calls that end otherwise than by a return: unwound, with their thread, by an exec.

use super::*;

#[test]
fn goexit_ends_the_goroutines_calls_and_nobody_elses() {
    let mut b = bench();
    b.on_goroutine(7, 1, 1, 100, entry(F)).on_goroutine(8, 2, 2, 100, entry(F));
    b.on_goroutine(7, 1, 5, 60, GOROUTINE_END).on_goroutine(8, 2, 6, 100, exit(F));
    b.tells(&["1 enter 0 in - at 1", "2 enter 0 in - at 2", "1 Unwind after 4 on 1", "2 Return after 4 on 2"]);
}

#[test]
fn where_an_unwinder_lands_the_calls_below_end_at_once_and_with_its_time() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(G)).at(3, 300, entry(G)).at(7, 150, LANDING);
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 1 in 1 at 2",
        "3 enter 1 in 2 at 3",
        "3 Unwind after 4 on 1",
        "2 Unwind after 5 on 1",
    ]);
    b.at(9, 100, exit(F));
    assert_eq!(b.told.0[5..], ["1 Return after 8 on 1"]);
}

/// The stack pointer at an unwinder's RET is the word below its frame's: that of the entry of what the frame called.
#[test]
fn a_call_as_deep_as_a_landing_was_made_by_the_frame_landed_in() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(G)).at(7, 200, LANDING).at(8, 200, entry(G)).at(9, 200, exit(G));
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 1 in 1 at 2",
        "2 Unwind after 5 on 1",
        "3 enter 1 in 1 at 8",
        "3 Return after 1 on 1",
    ]);
}

#[test]
fn a_landing_is_no_event_of_a_traced_function_and_ends_nothing_elsewhere() {
    let mut b = bench();
    b.at(1, 200, entry(F)).on_goroutine(7, 1, 2, 100, LANDING).on_goroutine(8, 2, 3, 100, LANDING);
    b.tells(&["1 enter 0 in - at 1"]);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!((summary.events, summary.calls, summary.unmatched_returns), (1, 1, 0));
}

#[test]
fn the_end_of_a_thread_ends_its_calls_and_that_of_a_process_all() {
    let mut b = bench();
    b.at(1, 100, entry(F)).on_goroutine(9, 2, 2, 100, entry(G)).at(5, 0, POINT_THREAD_EXIT);
    b.event(Event { time_ns: 8, depth: 0, goid: 0, pid_tgid: 1 << 32 | 2, point: POINT_PROCESS_EXIT, lost: 0 });
    b.tells(&["1 enter 0 in - at 1", "2 enter 1 in - at 2", "1 Exit after 4 on 1", "2 Exit after 6 on 2"]);
}

#[test]
fn a_threads_calls_end_on_it_when_another_thread_tells_of_the_processs_end() {
    let mut b = bench();
    b.at(1, 100, entry(F));
    b.event(Event { time_ns: 8, depth: 0, goid: 0, pid_tgid: 1 << 32 | 2, point: POINT_PROCESS_EXIT, lost: 0 });
    b.tells(&["1 enter 0 in - at 1", "1 Exit after 7 on 1"]);
}

#[test]
fn exec_ends_the_process_calls_as_exec() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 150, entry(G)).at(9, 0, POINT_EXEC);
    b.tells(&["1 enter 0 in - at 1", "2 enter 1 in 1 at 2", "2 Exec after 7 on 1", "1 Exec after 8 on 1"]);
}
