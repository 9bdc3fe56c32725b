//! Functions that are shed while the trace goes on.

use super::*;

/// F is shed at this time.
fn shed_f(b: &mut Bench, at_ns: u64) {
    b.tracker.shed(&[Shed { function: F, rate: 9, at_ns }]);
}

#[test]
fn a_shed_function_is_told_at_its_place_and_later_events_of_it_do_not_count() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 100, exit(F));
    shed_f(&mut b, 10);
    // Made before, read after.
    b.at(8, 100, entry(F)).at(9, 100, exit(F));
    b.at(12, 100, entry(F)).at(13, 150, entry(G)).at(14, 150, exit(G)).at(15, 100, exit(F));
    b.tells(&[
        "1 enter 0 in - at 1",
        "1 Return after 1 on 1",
        "2 enter 0 in - at 8",
        "2 Return after 1 on 1",
        "shed 0 at 10",
        "3 enter 1 in - at 13",
        "3 Return after 1 on 1",
    ]);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!((summary.calls, summary.events, summary.unmatched_returns, summary.open), (3, 6, 0, 0));
    assert_eq!(summary.shed, [Shed { function: F, rate: 9, at_ns: 10 }]);
}

#[test]
fn an_open_call_of_a_shed_function_ends_with_an_unknown_duration() {
    let mut b = bench();
    b.at(1, 100, entry(F));
    shed_f(&mut b, 10);
    b.at(20, 150, entry(G)).at(21, 150, exit(G)).at(30, 100, exit(F));
    b.tells(&[
        "1 enter 0 in - at 1",
        "shed 0 at 10",
        "1 Shed after ? on 1",
        "2 enter 1 in - at 20",
        "2 Return after 1 on 1",
    ]);
}

#[test]
fn outermost_calls_that_were_shed_are_named_by_lane_and_depth() {
    let mut b = bench();
    b.at(1, 100, entry(F)).on_goroutine(7, 2, 2, 200, entry(F)).on_goroutine(7, 2, 3, 300, entry(F));
    shed_f(&mut b, 10);
    b.at(20, 50, entry(G));
    let mut lanes = b.tracker.take_shed_outermost();
    lanes.sort_unstable_by_key(|(lane, _)| lane.goid);
    let thread = Lane { thread: 1 << 32 | 1, goid: 0 };
    assert_eq!(lanes, [(thread, 100), (Lane { thread: 1 << 32, goid: 7 }, 200)]);
    assert!(b.tracker.take_shed_outermost().is_empty());
}

#[test]
fn an_open_call_of_a_shed_function_does_not_end_before_what_it_called() {
    let mut b = bench();
    b.at(1, 100, entry(G)).at(2, 150, entry(F)).at(3, 200, entry(G));
    shed_f(&mut b, 10);
    b.at(20, 200, exit(G)).at(30, 100, exit(G));
    b.tells(&[
        "1 enter 1 in - at 1",
        "2 enter 0 in 1 at 2",
        "3 enter 1 in 2 at 3",
        "shed 0 at 10",
        "3 Return after 17 on 1",
        "2 Shed after ? on 1",
        "1 Return after 29 on 1",
    ]);
}

#[test]
fn a_thread_that_lags_behind_tells_what_it_saw_before_the_shedding() {
    let mut b = bench();
    let other = |time_ns, point| Event { time_ns, depth: 100, goid: 0, pid_tgid: 1 << 32 | 2, point, lost: 0 };
    shed_f(&mut b, 10);
    b.at(11, 100, entry(G)).event(other(9, entry(F))).event(other(10, exit(F))).at(12, 100, exit(G));
    b.tells(&[
        "shed 0 at 10",
        "1 enter 1 in - at 11",
        "2 enter 0 in - at 9",
        "2 Shed after ? on 2",
        "1 Return after 1 on 1",
    ]);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.unmatched_returns, 0);
}

#[test]
fn what_is_shed_after_the_last_event_is_told_at_the_end() {
    let mut b = bench();
    b.at(1, 100, entry(F));
    shed_f(&mut b, 10);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    b.tells(&["1 enter 0 in - at 1", "shed 0 at 10", "1 Shed after ? on 1"]);
    assert_eq!((summary.open, summary.shed.len()), (0, 1));
}
