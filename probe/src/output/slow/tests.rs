//! Which calls are slow, and what is held for them.

use std::rc::Rc;

use super::super::testing::{MS, SECOND, Story, Written};
use super::super::timeline::Timeline;
use super::super::{OutputOptions, TimeFormat};
use super::*;
use crate::calls::End;

const FUNCTIONS: [&str; 3] = ["outer", "inner", "point+0x4"];

/// A timeline of calls of at least 10 ms, with room for `block` events in each.
fn story(block: usize) -> (Story, Notes) {
    let notes = Notes::default();
    let written = Written::default();
    let options = OutputOptions { time: TimeFormat::None, ..OutputOptions::default() };
    let inner = Timeline::new(&options, jiff::tz::TimeZone::UTC, Box::new(written.clone()));
    let mut slow = Slow::new(10 * MS, notes.clone(), Box::new(inner));
    slow.limit = Held { block, total: 1_000 };
    (Story::told_to(Box::new(slow), written, &FUNCTIONS), notes)
}

#[test]
fn only_slow_outermost_calls_pass_with_all_that_they_called() {
    let (mut story, notes) = story(100);
    for (id, end) in [(10, 10 * MS - 1), (20, 10 * MS), (30, MS)] {
        story.enter(id, 0, 0);
        story.call(id + 1, id, 1, 1_000);
        story.point(Some(id + 1), 2, 1_500);
        story.leave(id + 1, 2_000);
        story.leave(id, end);
    }
    story.point(None, 2, 5);
    assert_eq!(
        story.end(&Summary::default()),
        "\
srv 4711/4715 g42
   10.0 ms  outer
    1.0 µs  └─ inner
               └─ • point+0x4
"
    );
    assert_eq!(notes.take(), Vec::<String>::new());
}

#[test]
fn a_slow_call_is_seen_while_it_is_open() {
    let (mut story, _) = story(100);
    story.enter(1, 0, 0);
    story.call(2, 1, 1, MS);
    assert_eq!(story.tick(2 * SECOND), "srv 4711/4715 g42  #1\n            outer …\n            └─ inner …\n");
    story.leave(2, 3 * SECOND);
    story.leave(1, 3 * SECOND);
    assert_eq!(story.end(&Summary::default()), "srv 4711/4715 g42  #1\n   3.00 s   outer\n   3.00 s   └─ inner\n");
}

/// A thread that waits within a trap does not take longer by that, and it is not known before.
#[test]
fn an_open_call_less_its_probes_is_not_slow_before_it_surely_is() {
    let (mut story, _) = story(100);
    story.spent_ns = Some(Rc::default());
    story.enter(1, 0, 0);
    assert_eq!(story.tick(900 * MS), "");
    story.spent_ns.as_ref().expect("it is counted").set(895 * MS);
    story.leave(1, 900 * MS);
    story.enter(2, 0, SECOND);
    assert_eq!(story.tick(3 * SECOND), "srv 4711/4715 g42  #2\n            outer …\n");
}

#[test]
fn a_call_of_unknown_end_is_slow_if_it_may_have_been() {
    let (mut story, _) = story(100);
    story.enter(1, 0, 0);
    story.enter(2, 0, 95 * MS);
    story.enter(3, 0, 100 * MS);
    story.ends(1, None, 4715, End::Return, true);
    story.ends(2, None, 4715, End::Open, false);
    assert_eq!(story.end(&Summary::default()), "srv 4711/4715 g42\n            outer ?lost\n");
}

#[test]
fn what_there_is_no_room_for_is_counted_where_it_is_missing() {
    let (mut story, notes) = story(3);
    for outermost in [100, 200] {
        story.enter(outermost, 0, 0);
        for id in outermost + 1..outermost + 11 {
            story.call(id, outermost, 1, id);
            story.call(id + 20, id, 1, id);
            story.leave(id + 20, id);
            story.leave(id, id);
        }
    }
    story.leave(100, MS);
    story.leave(200, 20 * MS);
    let text = story.end(&Summary::default());
    // Held are three entries or exits before the room is used up: the outermost call, one in it, and one in that.
    assert_eq!(text, "srv 4711/4715 g42\n   20.0 ms  outer\n      0 ns  └─ inner\n      0 ns     └─ inner\n");
    let notes = notes.take();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].starts_with("--slow: 18 calls and points inside slow calls are missing"), "{notes:?}");
}
