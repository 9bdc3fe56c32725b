//! Whose calls they are: goroutines, coroutines, signal handlers, C between Go and Go.

use super::*;
use crate::calls::tracker::lanes::{MANY_LANES, MAX_STACKS};

#[test]
fn a_goroutine_keeps_its_calls_when_it_moves_to_another_thread() {
    let mut b = bench();
    b.on_goroutine(7, 1, 1, 100, entry(F)).on_goroutine(8, 1, 2, 100, entry(F));
    b.on_goroutine(7, 2, 5, 100, exit(F)).on_goroutine(8, 1, 6, 100, exit(F));
    b.tells(&["1 enter 0 in - at 1", "2 enter 0 in - at 2", "1 Return after 4 on 2", "2 Return after 4 on 1"]);
}

#[test]
fn lanes_of_ended_goroutines_do_not_pile_up() {
    let mut b = bench();
    for goid in 1..100_000 {
        b.on_goroutine(goid, 1, goid, 100, entry(F)).on_goroutine(goid, 1, goid, 100, exit(F));
        b.told.0.clear();
    }
    let lanes = b.tracker.lanes.keys().len();
    assert!(lanes <= MANY_LANES, "{lanes} lanes");
    assert!(b.tracker.lanes.places() <= MANY_LANES, "{} places", b.tracker.lanes.places());
}

/// The stack pointer at some bytes above the beginning of a stack, as the kernel half tells it.
fn on_stack(lowest: u64, sp: u64) -> u64 {
    thread_depth(lowest + sp, false)
}

const STACK: u64 = 0x7000_0000;

/// Process 1 makes a coroutine's stack of 4 KiB.
fn stack(time_ns: u64, lowest: u64) -> Event {
    Event { time_ns, depth: lowest, goid: 0x1000, pid_tgid: 1 << 32 | 1, point: POINT_STACK, lost: 0 }
}

#[test]
fn a_coroutine_has_calls_of_its_own_and_may_change_threads() {
    let mut b = bench();
    let on =
        |tid: u64, time_ns, depth, point| Event { time_ns, depth, pid_tgid: 1 << 32 | tid, point, ..Event::default() };
    b.event(stack(5, STACK));
    b.event(on(1, 10, thread_depth(STACK + 0x9000, false), entry(F)));
    b.event(on(1, 20, on_stack(STACK, 0xf00), entry(G)));
    // Back on the thread's stack, which lies above: G is not over.
    b.event(on(1, 30, thread_depth(STACK + 0x9000, false), exit(F)));
    b.event(on(2, 40, on_stack(STACK, 0xf00), exit(G)));
    b.tells(&["1 enter 0 in - at 10", "2 enter 1 in - at 20", "1 Return after 20 on 1", "2 Return after 20 on 2"]);
}

#[test]
fn the_stack_pointer_of_an_empty_coroutine_stack_belongs_to_it() {
    let mut b = bench();
    b.event(stack(5, STACK));
    b.at(10, on_stack(STACK, 0x1000), entry(F)).at(20, on_stack(STACK, 0x1008), entry(G));
    b.at(30, on_stack(STACK, 0x1000), exit(F)).at(40, on_stack(STACK, 0x1008), exit(G));
    b.tells(&["1 enter 0 in - at 10", "2 enter 1 in - at 20", "1 Return after 20 on 1", "2 Return after 20 on 1"]);
}

#[test]
fn a_stack_that_is_made_anew_ends_what_ran_on_it() {
    let mut b = bench();
    b.event(stack(5, STACK)).at(10, on_stack(STACK, 0xf00), entry(F));
    b.event(stack(20, STACK + 0x800)).at(30, on_stack(STACK, 0x1700), entry(G)).at(
        40,
        on_stack(STACK, 0x1700),
        exit(G),
    );
    b.tells(&["1 enter 0 in - at 10", "1 Unwind after ? on 1", "2 enter 1 in - at 30", "2 Return after 10 on 1"]);
}

#[test]
fn coroutine_stacks_are_those_of_one_process_and_end_with_its_program() {
    let mut b = bench();
    let event = |pid: u64, time_ns, depth, point| Event {
        time_ns,
        depth,
        pid_tgid: pid << 32 | pid,
        point,
        ..Event::default()
    };
    b.event(stack(5, STACK));
    // In process 2 the same addresses are an ordinary stack.
    b.event(event(2, 10, thread_depth(STACK + 0x2000, false), entry(F)));
    b.event(event(2, 11, on_stack(STACK, 0xf00), entry(G)));
    b.event(event(1, 12, 0, POINT_EXEC));
    b.event(event(1, 20, thread_depth(STACK + 0x2000, false), entry(F)));
    b.event(event(1, 21, on_stack(STACK, 0xf00), entry(G)));
    b.tells(&["1 enter 0 in - at 10", "2 enter 1 in 1 at 11", "3 enter 0 in - at 20", "4 enter 1 in 3 at 21"]);
}

#[test]
fn a_signal_handler_on_a_stack_of_its_own_is_inside_of_what_it_interrupted() {
    let mut b = bench();
    let (work, above, below) = (STACK, STACK + 0x1000, STACK - 0x1000);
    for handler in [above, below] {
        b.at(10, thread_depth(work, false), entry(F)).at(11, thread_depth(handler, true), entry(G));
        b.at(12, thread_depth(handler, true), exit(G)).at(13, thread_depth(work, false), exit(F));
    }
    b.tells(&[
        "1 enter 0 in - at 10",
        "2 enter 1 in 1 at 11",
        "2 Return after 1 on 1",
        "1 Return after 3 on 1",
        "3 enter 0 in - at 10",
        "4 enter 1 in 3 at 11",
        "4 Return after 1 on 1",
        "3 Return after 3 on 1",
    ]);
}

#[test]
fn go_that_c_calls_is_inside_of_the_c_that_go_called() {
    let mut b = bench();
    let go = |sp| goroutine_depth(sp, 0);
    // F (Go) calls G (C, on the thread's stack), which calls F (Go), which calls G (C).
    b.on_goroutine(7, 1, 10, go(0x100), entry(F)).on_goroutine(7, 1, 11, goroutine_depth(0x180, 0x4000), entry(G));
    b.on_goroutine(7, 1, 12, go(0x200), entry(F)).on_goroutine(7, 1, 13, goroutine_depth(0x280, 0x4800), entry(G));
    b.on_goroutine(7, 1, 14, goroutine_depth(0x280, 0x4800), exit(G)).on_goroutine(7, 1, 15, go(0x200), exit(F));
    b.on_goroutine(7, 1, 16, goroutine_depth(0x180, 0x4000), exit(G)).on_goroutine(7, 1, 17, go(0x100), exit(F));
    b.tells(&[
        "1 enter 0 in - at 10",
        "2 enter 1 in 1 at 11",
        "3 enter 0 in 2 at 12",
        "4 enter 1 in 3 at 13",
        "4 Return after 1 on 1",
        "3 Return after 3 on 1",
        "2 Return after 5 on 1",
        "1 Return after 7 on 1",
    ]);
}

#[test]
fn coroutine_stacks_that_are_given_up_are_told() {
    let mut b = bench();
    for n in 0..=MAX_STACKS as u64 {
        b.event(stack(n, STACK + n * 0x2000));
    }
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert!(summary.notes.iter().any(|note| note.starts_with("1 stacks of coroutines")), "{:?}", summary.notes);
}
