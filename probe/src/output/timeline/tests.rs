//! What the timeline looks like. Expected texts are written by hand from the contract.

use super::super::TimeFormat;
use super::super::testing::{MS, SECOND, Story, US, frame};
use super::*;
use crate::calls::{Cut, End, Frame, Home};

const FUNCTIONS: [&str; 5] =
    ["main.(*Store).Handler", "main.(*Store).Get", "encoding/json.(*Encoder).Encode", "main.rare", "main.work+0x12"];
const HANDLER: u32 = 0;
const GET: u32 = 1;
const ENCODE: u32 = 2;
const RARE: u32 = 3;
const POINT: u32 = 4;
/// 12:00:01.123456 in a trace that began at 12:00:00.
const T: u64 = SECOND + 123_456 * US;

fn story() -> Story {
    Story::new(&OutputOptions::default(), &FUNCTIONS)
}

fn shown(story: Story) -> String {
    story.end(&Summary::default())
}

fn callers() -> CallerStack {
    let main = frame("main.main.func1", "/src/app/main.go", 31);
    let serve = frame("net/http.HandlerFunc.ServeHTTP", "/usr/lib/go/src/net/http/server.go", 2122);
    CallerStack { frames: vec![main, serve], cut: None, kernel: None }
}

#[test]
fn a_block_is_what_the_contract_shows() {
    let mut story = story();
    story.enter_with(1, None, HANDLER, T, Some(callers()));
    story.call(2, 1, GET, T + 2 * US);
    story.leave(2, T + 3_200);
    story.call(3, 1, ENCODE, T + 5 * US);
    story.leave(3, T + 32_100);
    assert_eq!(story.tick(T + 40 * US), "", "it is not over");
    story.leave(1, T + 41_200);
    assert_eq!(
        shown(story),
        "\
12:00:01.123456  srv 4711/4715 g42
   41.2 µs  main.(*Store).Handler
    1.2 µs  ├─ main.(*Store).Get
   27.1 µs  └─ encoding/json.(*Encoder).Encode
            at main.main.func1 main.go:31
               net/http.HandlerFunc.ServeHTTP server.go:2122
"
    );
}

#[test]
fn a_header_says_who_made_the_goroutine_as_far_as_that_is_known() {
    let mut story = story();
    let place = Some(frame("main.serve", "/src/main.go", 31));
    for (parent, go_statement) in [(Some(7), place.clone()), (None, place), (Some(7), None), (None, None)] {
        story.origin = Some(Rc::new(Origin { parent, go_statement }));
        story.point(None, POINT, 0);
    }
    let shown = shown(story);
    let headers: Vec<&str> = shown.lines().filter(|line| line.contains("srv")).collect();
    let who = "12:00:00.000000  srv 4711/4715 g42";
    let made = [" (from g7 at main.serve main.go:31)", " (from main.serve main.go:31)", " (from g7)", ""];
    assert_eq!(headers, made.map(|made| format!("{who}{made}")));
}

#[test]
fn the_tree_shows_who_called_whom() {
    let mut story = story();
    story.goroutine = None;
    story.enter(1, HANDLER, 0);
    story.call(2, 1, GET, 10);
    story.call(3, 2, ENCODE, 20);
    story.call(4, 3, RARE, 30);
    story.leave(4, 40);
    story.leave(3, 50);
    story.point(Some(2), POINT, 55);
    story.leave(2, 60);
    story.call(5, 1, GET, 70);
    story.call(6, 5, GET, 71);
    story.leave(6, 72);
    story.leave(5, 1_000_070);
    story.leave(1, 2 * SECOND);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715
   2.00 s   main.(*Store).Handler
     50 ns  ├─ main.(*Store).Get
     30 ns  │  ├─ encoding/json.(*Encoder).Encode
     10 ns  │  │  └─ main.rare
            │  └─ • main.work+0x12
    1.0 ms  └─ main.(*Store).Get
      1 ns     └─ main.(*Store).Get
"
    );
}

#[test]
fn calls_that_did_not_return_say_how_they_ended() {
    let mut story = story();
    story.enter(1, HANDLER, 0);
    for (id, end) in [(2, End::Unwind), (3, End::Exit), (4, End::Exec), (5, End::TailCall)] {
        story.call(id, 1, GET, id * US);
        story.ends(id, Some(id * US + 500), 4715, end, false);
    }
    story.call(6, 1, GET, 6 * US);
    story.ends(6, None, 4715, End::Return, true);
    story.call(7, 1, GET, 7 * US);
    story.ends(7, None, 4715, End::Open, false);
    story.ends(1, None, 4715, End::Open, false);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42
            main.(*Store).Handler …
    500 ns  ├─ main.(*Store).Get !unwound
    500 ns  ├─ main.(*Store).Get !exit
    500 ns  ├─ main.(*Store).Get !exec
    500 ns  ├─ main.(*Store).Get → tail call
            ├─ main.(*Store).Get ?lost
            └─ main.(*Store).Get …
"
    );
}

#[test]
fn entries_only_say_nothing_about_ends() {
    let mut story = Story::new(&OutputOptions { entries_only: true, ..OutputOptions::default() }, &FUNCTIONS);
    story.enter(1, HANDLER, 0);
    story.ends(1, None, 4715, End::Open, false);
    assert_eq!(shown(story), "12:00:00.000000  srv 4711/4715 g42\n            main.(*Store).Handler\n");
}

#[test]
fn threads_are_never_mixed_and_stand_in_order_of_end() {
    let mut story = story();
    story.enter(1, HANDLER, 0);
    story.thread.tid = 4716;
    story.goroutine = Some(43);
    story.enter(2, GET, 10);
    story.call(3, 2, RARE, 20);
    story.thread.tid = 4715;
    story.goroutine = Some(42);
    story.call(4, 1, ENCODE, 30);
    story.leave(3, 40);
    story.leave(2, 50);
    story.leave(4, 60);
    story.leave(1, 70);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4716 g43
     40 ns  main.(*Store).Get
     20 ns  └─ main.rare
12:00:00.000000  srv 4711/4715 g42
     70 ns  main.(*Store).Handler
     30 ns  └─ encoding/json.(*Encoder).Encode
"
    );
}

#[test]
fn a_move_to_another_thread_is_marked_where_it_happened() {
    let mut story = story();
    story.enter(1, HANDLER, 0);
    story.call(2, 1, GET, 10);
    story.ends(2, Some(20), 4716, End::Return, false);
    story.thread.tid = 4716;
    story.call(3, 1, GET, 30);
    story.leave(3, 40);
    story.thread.tid = 4717;
    story.call(4, 1, RARE, 50);
    story.ends(4, Some(60), 4718, End::Unwind, false);
    story.ends(1, Some(70), 4718, End::Return, false);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42
     70 ns  main.(*Store).Handler →4718
     10 ns  ├─ main.(*Store).Get →4716
     10 ns  ├─ main.(*Store).Get
     10 ns  └─ main.rare →4717 →4718 !unwound
"
    );
}

#[test]
fn a_call_open_for_over_a_second_is_shown_so_far_and_goes_on() {
    let mut story = story();
    story.enter_with(7, None, HANDLER, 0, Some(callers()));
    story.call(8, 7, GET, MS);
    story.leave(8, 2 * MS);
    story.call(9, 7, ENCODE, 3 * MS);
    assert_eq!(story.tick(999 * MS), "");
    assert_eq!(
        story.tick(SECOND),
        "\
12:00:00.000000  srv 4711/4715 g42  #7
            main.(*Store).Handler …
    1.0 ms  ├─ main.(*Store).Get
            └─ encoding/json.(*Encoder).Encode …
            at main.main.func1 main.go:31
               net/http.HandlerFunc.ServeHTTP server.go:2122
"
    );
    assert_eq!(story.tick(5 * SECOND), "", "nothing is new");
    story.call(10, 9, RARE, 5 * SECOND);
    story.leave(10, 5 * SECOND + US);
    story.call(11, 9, RARE, 5 * SECOND + 2 * US);
    assert_eq!(
        story.tick(5 * SECOND + MS),
        "\
12:00:00.000000  srv 4711/4715 g42  #7
            main.(*Store).Handler …
            └─ encoding/json.(*Encoder).Encode …
    1.0 µs     ├─ main.rare
               └─ main.rare …
"
    );
    story.leave(11, 5 * SECOND + 3 * US);
    assert_eq!(story.tick(5 * SECOND + 2 * MS), "", "not more than once a second");
    story.leave(9, 6 * SECOND);
    story.leave(7, 6 * SECOND + 500 * MS);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42  #7
   6.50 s   main.(*Store).Handler
   6.00 s   └─ encoding/json.(*Encoder).Encode
    1.0 µs     └─ main.rare
"
    );
}

#[test]
fn short_calls_are_hidden_and_long_ones_keep_their_ancestors() {
    let options = OutputOptions { min_duration_ns: Some(10 * US), ..OutputOptions::default() };
    let mut story = Story::new(&options, &FUNCTIONS);
    story.enter(1, RARE, 0);
    story.leave(1, 9_999);
    story.enter(2, HANDLER, 10 * US);
    story.call(3, 2, GET, 11 * US);
    story.call(4, 3, RARE, 12 * US);
    story.point(Some(4), POINT, 12_500);
    story.leave(4, 13 * US);
    story.leave(3, 14 * US);
    story.call(5, 2, ENCODE, 20 * US);
    story.point(Some(5), POINT, 21 * US);
    story.leave(5, 30 * US);
    story.call(6, 2, GET, 31 * US);
    story.call(7, 6, RARE, 32 * US);
    story.ends(7, None, 4715, End::Return, true);
    story.leave(6, 33 * US);
    story.leave(2, 40 * US);
    assert_eq!(
        shown(story),
        "\
12:00:00.000010  srv 4711/4715 g42
   30.0 µs  main.(*Store).Handler
   10.0 µs  ├─ encoding/json.(*Encoder).Encode
            │  └─ • main.work+0x12
    2.0 µs  └─ main.(*Store).Get
               └─ main.rare ?lost
"
    );
}

#[test]
fn an_open_call_that_may_yet_be_short_waits() {
    let options = OutputOptions { min_duration_ns: Some(3 * SECOND), ..OutputOptions::default() };
    let mut story = Story::new(&options, &FUNCTIONS);
    story.enter(1, HANDLER, 0);
    story.call(2, 1, GET, 2 * SECOND);
    assert_eq!(story.tick(2 * SECOND), "");
    assert_eq!(story.tick(4 * SECOND), "12:00:00.000000  srv 4711/4715 g42  #1\n            main.(*Store).Handler …\n");
    story.leave(2, 4 * SECOND + MS);
    story.leave(1, 6 * SECOND);
    assert_eq!(shown(story), "12:00:00.000000  srv 4711/4715 g42  #1\n   6.00 s   main.(*Store).Handler\n");
}

#[test]
fn a_point_in_an_open_call_that_may_yet_be_short_repeats_nothing() {
    let options = OutputOptions { min_duration_ns: Some(3 * SECOND), ..OutputOptions::default() };
    let mut story = Story::new(&options, &FUNCTIONS);
    story.enter(1, HANDLER, 0);
    assert_eq!(story.tick(3 * SECOND).lines().count(), 2);
    story.call(2, 1, GET, 4 * SECOND);
    story.point(Some(2), POINT, 4 * SECOND);
    assert_eq!(story.tick(5 * SECOND), "");
    assert_eq!(story.tick(7 * SECOND).lines().count(), 4);
}

#[test]
fn a_block_too_large_to_hold_is_shown_in_parts_and_loses_nothing() {
    let mut story = story();
    story.enter(1, HANDLER, 0);
    for id in 2..25_002 {
        story.call(id, 1, GET, id);
        story.leave(id, id + 1);
    }
    story.leave(1, SECOND);
    let text = shown(story);
    let count = |words: &str| text.lines().filter(|line| line.ends_with(words)).count();
    assert_eq!(count("─ main.(*Store).Get"), 25_000);
    assert_eq!(count("g42  #1"), 3);
    assert_eq!(count("main.(*Store).Handler …"), 2);
    assert_eq!(count("main.(*Store).Handler"), 1);
}

#[test]
fn deep_recursion_stays_readable() {
    let mut story = story();
    story.enter(1, GET, 0);
    for id in 2..=400 {
        story.call(id, id - 1, GET, id);
    }
    let first = story.tick(2 * SECOND);
    assert_eq!(first.lines().count(), 401);
    let deepest = first.lines().last().expect("a line");
    assert!(deepest.ends_with("└─ [level 399] main.(*Store).Get …"), "{deepest}");
    assert!(deepest.chars().count() < 900);
    story.call(401, 400, RARE, 3 * SECOND);
    story.leave(401, 3 * SECOND + 5);
    let second = story.tick(4 * SECOND);
    assert_eq!(second.lines().count(), 1 + 32 + 1 + 1);
    assert_eq!(second.lines().nth(17), Some("            ⋮  368 more open calls"));
}

#[test]
fn the_header_names_the_container_and_the_number_inside_where_they_are() {
    for (container, inner_pid, header) in [
        (None, None, "srv 4711/4715 g42"),
        (Some("web"), Some(1), "srv 4711/4715 g42 (web, pid 1)"),
        (Some("web"), None, "srv 4711/4715 g42 (web)"),
        (None, Some(1), "srv 4711/4715 g42 (inner pid 1)"),
        (Some("a\x1b[2Jb"), Some(1), "srv 4711/4715 g42 (a\\x1b[2Jb, pid 1)"),
    ] {
        let mut story = Story::new(&OutputOptions::default(), &["f"]);
        story.home = Rc::new(Home { container: container.map(Rc::from), inner_pid });
        story.enter(1, 0, 0);
        story.leave(1, 10);
        assert_eq!(shown(story).lines().next(), Some(&*format!("12:00:00.000000  {header}")));
    }
}

#[test]
fn hostile_names_cannot_touch_the_terminal() {
    let mut story = Story::new(&OutputOptions::default(), &["f\x1b]0;owned\x07\nfake", "p\u{9b}2J+0x8"]);
    story.comm = "a\x1b[2Jb\n".into();
    let bad = Rc::new(Frame {
        function: Some("c\r\u{202e}".to_owned()),
        file: Some("/x/\x1bm.go".to_owned()),
        line: Some(1),
        binary: None,
        address: None,
        ip: 1,
        inlined: false,
    });
    story.enter_with(1, None, 0, 0, Some(CallerStack { frames: vec![bad], cut: None, kernel: None }));
    story.point(Some(1), 1, 1);
    story.leave(1, 10);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  a\\x1b[2Jb\\n 4711/4715 g42
     10 ns  f\\x1b]0;owned\\x07\\nfake
            └─ • p\\x9b2J+0x8
            at c\\r\\u{202e} \\x1bm.go:1
"
    );
}

#[test]
fn callers_without_names_show_where_they_are_and_cuts_say_why() {
    let unnamed = |binary: Option<&str>, address| {
        Rc::new(Frame {
            function: None,
            file: None,
            line: None,
            binary: binary.map(str::to_owned),
            address,
            ip: 0x7f00_dead_beef,
            inlined: false,
        })
    };
    let inlined = Rc::new(Frame { inlined: true, ..(*frame("main.inner", "main.go", 3)).clone() });
    let no_line = Rc::new(Frame { line: None, ..(*frame("f", "a.c", 0)).clone() });
    let frames = vec![inlined, unnamed(Some("/usr/lib/libc.so.6"), Some(0x27249)), unnamed(None, None), no_line];
    let mut story = story();
    story.enter_with(1, None, GET, 0, Some(CallerStack { frames, cut: Some(Cut::NoFramePointers), kernel: None }));
    story.leave(1, 1);
    story.enter_with(
        2,
        None,
        GET,
        2,
        Some(CallerStack { frames: Vec::new(), cut: Some(Cut::Unreadable), kernel: None }),
    );
    story.leave(2, 3);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42
      1 ns  main.(*Store).Get
            at main.inner main.go:3 (inlined)
               libc.so.6+0x27249
               0x7f00deadbeef
               f a.c
               (cut: no frame pointers)
12:00:00.000000  srv 4711/4715 g42
      1 ns  main.(*Store).Get
            at (cut: stack not readable)
"
    );
}

#[test]
fn stacks_of_inner_calls_stand_below_what_they_called() {
    let one = || Some(CallerStack { frames: vec![frame("main.main", "main.go", 5)], cut: None, kernel: None });
    let mut story = story();
    story.enter_with(1, None, HANDLER, 0, one());
    story.enter_with(2, Some(1), GET, 1, one());
    story.enter_with(3, Some(2), RARE, 2, one());
    story.leave(3, 3);
    story.leave(2, 4);
    story.enter_with(4, Some(1), GET, 5, one());
    story.leave(4, 6);
    story.leave(1, 7);
    assert_eq!(
        shown(story),
        "\
12:00:00.000000  srv 4711/4715 g42
      7 ns  main.(*Store).Handler
      3 ns  ├─ main.(*Store).Get
      1 ns  │  └─ main.rare
            │     at main.main main.go:5
            │  at main.main main.go:5
      1 ns  └─ main.(*Store).Get
               at main.main main.go:5
            at main.main main.go:5
"
    );
}

#[test]
fn a_point_outside_all_traced_calls_is_a_block() {
    let mut story = story();
    story.point(None, POINT, 0);
    assert_eq!(shown(story), "12:00:00.000000  srv 4711/4715 g42\n            • main.work+0x12\n");
}

#[test]
fn a_point_stands_in_its_parent_also_when_deeper_calls_end_late() {
    for (min_duration_ns, inner) in [(None, "      5 ns  ├─ main.(*Store).Get\n"), (Some(10), "")] {
        let mut story = Story::new(&OutputOptions { min_duration_ns, ..OutputOptions::default() }, &FUNCTIONS);
        story.enter(1, HANDLER, 0);
        story.call(2, 1, GET, 10);
        story.point(Some(1), POINT, 14);
        story.leave(2, 15);
        story.leave(1, 20);
        let rest = "            └─ • main.work+0x12\n";
        let header = "12:00:00.000000  srv 4711/4715 g42\n     20 ns  main.(*Store).Handler\n";
        assert_eq!(shown(story), format!("{header}{inner}{rest}"));
    }
}

#[test]
fn times_can_be_relative_or_left_out() {
    for (time, header) in [
        (TimeFormat::Relative, "1.123456  srv 4711/4715 g42"),
        (TimeFormat::Monotonic, "6.123456  srv 4711/4715 g42"),
        (TimeFormat::None, "srv 4711/4715 g42"),
    ] {
        let mut story = Story::new(&OutputOptions { time, ..OutputOptions::default() }, &FUNCTIONS);
        story.enter(1, GET, T);
        story.leave(1, T + 1);
        assert_eq!(shown(story).lines().next(), Some(header));
    }
}

#[test]
fn colours_come_only_when_asked_for_and_change_no_text() {
    let tell = |color| {
        let mut story = Story::new(&OutputOptions { color, ..OutputOptions::default() }, &FUNCTIONS);
        story.enter_with(1, None, HANDLER, 0, Some(callers()));
        story.call(2, 1, GET, 1);
        story.ends(2, Some(2), 4716, End::Unwind, false);
        story.leave(1, 3);
        shown(story)
    };
    let (plain, colored) = (tell(false), tell(true));
    assert!(!plain.contains('\x1b'));
    assert!(colored.contains('\x1b'));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
}

#[test]
fn max_depth_counts_levels() {
    let mut story = Story::new(&OutputOptions { max_depth: Some(2), ..OutputOptions::default() }, &FUNCTIONS);
    story.enter(1, HANDLER, 0);
    story.call(2, 1, GET, 1);
    story.call(3, 2, RARE, 2);
    story.point(Some(3), POINT, 2);
    story.leave(3, 3);
    story.leave(2, 4);
    story.leave(1, 5);
    assert_eq!(
        shown(story),
        "12:00:00.000000  srv 4711/4715 g42\n      5 ns  main.(*Store).Handler\n      3 ns  └─ main.(*Store).Get\n"
    );
}

#[test]
fn what_is_shed_is_said_where_it_happened() {
    let mut story = story();
    story.enter(1, HANDLER, 0);
    story.call(2, 1, GET, 1);
    story.shed(GET, 812_000, 2 * US);
    story.ends(2, None, 4715, End::Shed, false);
    story.leave(1, 5 * US);
    assert_eq!(
        shown(story),
        "\
12:00:00.000002  shed: main.(*Store).Get, 812000 events a second: not traced from here on
12:00:00.000000  srv 4711/4715 g42
    5.0 µs  main.(*Store).Handler
            └─ main.(*Store).Get … shed
"
    );
}
