//! Lost records: what is in doubt then, and what is not.

use super::*;

#[test]
fn after_a_loss_a_second_entry_at_the_same_place_is_another_call() {
    let mut b = bench();
    b.at(1, 100, entry(LOOPS)).after_loss(60, 100, entry(LOOPS));
    b.tells(&["1 enter 2 in - at 1", "1 Unwind after ? on 1 lost", "2 enter 2 in - at 60"]);
}

#[test]
fn a_call_that_was_open_at_a_loss_has_no_duration() {
    let mut b = bench();
    b.at(10, 100, entry(F)).after_loss(60, 100, exit(F));
    b.tells(&["1 enter 0 in - at 10", "1 Return after ? on 1 lost"]);
}

#[test]
fn a_call_that_began_after_the_loss_of_its_thread_is_whole() {
    let mut b = bench();
    // Its entry was made before the loss was counted, but after it happened.
    b.at(55, 100, entry(F)).after_loss(60, 100, exit(F));
    b.tells(&["1 enter 0 in - at 55", "1 Return after 5 on 1"]);
}

#[test]
fn a_loss_in_another_thread_is_none_here() {
    let mut b = bench();
    let other = |time_ns, point, lost| Event { time_ns, depth: 100, goid: 0, pid_tgid: 1 << 32 | 2, point, lost };
    b.event(other(10, entry(F), 0)).event(other(60, exit(F), 1));
    b.tells(&["1 enter 0 in - at 10", "1 Return after 50 on 2"]);
}

#[test]
fn a_process_that_ends_after_a_loss_does_not_lend_its_end_to_a_call() {
    let mut b = bench();
    b.at(10, 100, entry(F)).after_loss(90, 0, POINT_PROCESS_EXIT);
    b.tells(&["1 enter 0 in - at 10", "1 Exit after ? on 1 lost"]);
}

#[test]
fn after_a_loss_a_landing_lends_its_time_to_no_call() {
    let mut b = bench();
    b.at(10, 200, entry(F)).after_loss(60, 100, LANDING);
    b.tells(&["1 enter 0 in - at 10", "1 Unwind after ? on 1 lost"]);
}
