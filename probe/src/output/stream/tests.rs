//! What the stream looks like. Expected texts are written by hand.

use super::super::Format;
use super::super::testing::{MS, SECOND, Story, US, frame};
use super::*;
use crate::calls::End;

const FUNCTIONS: [&str; 4] = ["main.Handler", "main.Get", "main.rare", "main.work+0x12"];

fn options() -> OutputOptions {
    OutputOptions { format: Format::Stream, ..OutputOptions::default() }
}

fn shown(story: Story) -> String {
    story.end(&Summary::default())
}

#[test]
fn lines_stand_in_the_order_of_events() {
    let mut story = Story::new(&options(), &FUNCTIONS);
    story.enter(1, 0, 0);
    story.call(2, 1, 1, US);
    story.leave(2, 2_200);
    story.thread.tid = 4716;
    story.goroutine = Some(7);
    story.enter(3, 2, 3 * US);
    story.point(Some(1), 3, 4 * US);
    story.ends(3, Some(5 * US), 4716, End::Unwind, false);
    story.ends(1, Some(41_200), 4717, End::Return, false);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42              main.Handler {
12:00:00.000001  srv 4711/4715 g42      1.2 µs    main.Get
12:00:00.000003  srv 4711/4716 g7               main.rare {
12:00:00.000004  srv 4711/4716 g7                 • main.work+0x12
12:00:00.000005  srv 4711/4716 g7       2.0 µs  } main.rare !unwound
12:00:00.000041  srv 4711/4717 g42     41.2 µs  } main.Handler
"
    );
}

#[test]
fn an_entry_does_not_wait_for_its_exit_beyond_a_tick() {
    let mut story = Story::new(&OutputOptions { time: TimeFormat::None, ..options() }, &FUNCTIONS);
    story.goroutine = None;
    let caller = CallerStack { frames: vec![frame("main.main", "/src/main.go", 3)], cut: None, kernel: None };
    story.enter_with(1, None, 0, 0, Some(caller));
    assert_eq!(
        story.tick(MS),
        "srv 4711/4715              main.Handler {\n                             at main.main main.go:3\n"
    );
    story.ends(1, None, 4715, End::Return, true);
    assert_eq!(shown(story), "srv 4711/4715              } main.Handler ?lost\n");
}

#[test]
fn short_calls_leave_no_line_and_long_ones_come_with_their_ancestors() {
    let mut story = Story::new(
        &OutputOptions { min_duration_ns: Some(10 * US), time: TimeFormat::Relative, ..options() },
        &FUNCTIONS,
    );
    story.enter(1, 0, 0);
    story.call(2, 1, 1, US);
    story.leave(2, 2 * US);
    story.call(3, 1, 2, 3 * US);
    story.point(Some(3), 3, 4 * US);
    story.leave(3, 13 * US);
    assert_eq!(
        story.tick(13 * US),
        "       \
       0.000000  srv 4711/4715 g42              main.Handler {
       0.000003  srv 4711/4715 g42                main.rare {
       0.000004  srv 4711/4715 g42                  • main.work+0x12
       0.000013  srv 4711/4715 g42     10.0 µs    } main.rare
"
    );
    story.leave(1, 20 * US);
    story.enter(4, 0, SECOND);
    assert_eq!(story.tick(SECOND), "       0.000020  srv 4711/4715 g42     20.0 µs  } main.Handler\n");
    assert_eq!(story.tick(2 * SECOND), "       1.000000  srv 4711/4715 g42              main.Handler {\n");
}

#[test]
fn hostile_names_stay_on_their_line() {
    let mut story = Story::new(&options(), &["f\n\x1b[1m"]);
    story.comm = "x\x07".into();
    story.enter(1, 0, 0);
    story.leave(1, 5);
    assert_eq!(shown(story), "12:00:00.000000  x\\x07 4711/4715 g42        5 ns  f\\n\\x1b[1m\n");
}

#[test]
fn what_is_shed_is_said_where_it_happened() {
    let mut story = Story::new(&options(), &FUNCTIONS);
    story.enter(1, 0, 0);
    story.shed(1, 812_000, 2 * US);
    story.ends(1, None, 4715, End::Shed, false);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42              main.Handler {
12:00:00.000002  shed: main.Get, 812000 events a second: not traced from here on
                 srv 4711/4715 g42              } main.Handler … shed
"
    );
}

#[test]
fn who_made_a_goroutine_stands_where_its_outermost_call_begins() {
    let mut story = Story::new(&OutputOptions { time: TimeFormat::None, ..options() }, &FUNCTIONS);
    let place = || Some(frame("main.serve", "/src/main.go", 31));
    story.origin = Some(Origin { parent: Some(7), go_statement: place() }.into());
    story.enter(1, 0, 0);
    story.call(2, 1, 1, US);
    story.leave(2, 2 * US);
    story.leave(1, 3 * US);
    story.origin = Some(Origin { parent: None, go_statement: place() }.into());
    story.enter(3, 1, 4 * US);
    story.leave(3, 5 * US);
    assert_eq!(
        shown(story),
        "\
srv 4711/4715 g42              main.Handler { (from g7 at main.serve main.go:31)
srv 4711/4715 g42      1.0 µs    main.Get
srv 4711/4715 g42      3.0 µs  } main.Handler
srv 4711/4715 g42      1.0 µs  main.Get (from main.serve main.go:31)
"
    );
}
