//! JSON lines, read back by serde_json and compared field by field.

use serde_json::{Value, json};

use super::super::testing::{MS, SECOND, Story, US, frame};
use super::super::{Format, OutputOptions};
use super::*;
use crate::calls::Cut;

const FUNCTIONS: [&str; 3] = ["main.(*Store).Get", "main.work+0x12", "q\"\\\x1b[2J\u{e9}"];

fn story() -> Story {
    Story::new(&OutputOptions { format: Format::Json, ..OutputOptions::default() }, &FUNCTIONS)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// All but the first line and the last.
fn calls(story: Story) -> Vec<Value> {
    let mut all = lines(&story.end(&Summary::default()));
    all.pop();
    all.split_off(1)
}

#[test]
fn the_first_line_says_what_is_traced() {
    let mut story = story();
    story.tick(0);
    story.trace.skipped = vec![Skipped { function: "runtime.abort\n".to_owned(), reason: "int3 \"".to_owned() }];
    story.begin();
    assert_eq!(
        lines(&story.tick(0)),
        [json!({
            "type": "trace", "version": 1, "epoch_ns": "1700049600000000000", "matched": 9, "attached": 3,
            "skipped": [{"function": "runtime.abort\n", "reason": "int3 \""}],
        })]
    );
}

#[test]
fn a_file_that_comes_later_has_a_line_and_its_functions_have_names() {
    let mut story = story();
    let skipped = vec![Skipped { function: "odd".to_owned(), reason: "why".to_owned() }];
    let file = NewFile {
        binary: "/srv\"2".to_owned(),
        cause: Cause::Replaced,
        at_ns: crate::output::testing::ORIGIN_NS + 5,
        attached: 1,
        matched: 2,
        skipped,
    };
    story.grown(&["new"], &file);
    story.enter(1, 3, MS);
    story.leave(1, 2 * MS);
    let lines = calls(story);
    assert_eq!(
        lines[0],
        json!({
            "type": "file", "binary": "/srv\"2", "cause": "replaced", "at_ns": 5, "matched": 2, "attached": 1,
            "skipped": [{"function": "odd", "reason": "why"}],
        })
    );
    assert_eq!((&lines[1]["function"], &lines[1]["binary"]), (&json!("new"), &json!("/srv\"2")));
}

#[test]
fn a_container_and_the_number_inside_are_null_only_where_they_are_not_known() {
    let mut story = story();
    story.home = Rc::new(Home { container: Some("we\"b".into()), inner_pid: Some(7) });
    story.enter(1, 0, MS);
    story.leave(1, 2 * MS);
    let lines = calls(story);
    assert_eq!((&lines[0]["container"], &lines[0]["inner_pid"]), (&json!("we\"b"), &json!(7)));
}

#[test]
fn a_call_has_every_field_of_the_contract() {
    let mut story = story();
    let go_statement = Some(frame("main.serve", "/src/main.go", 12));
    story.origin = Some(Rc::new(Origin { parent: Some(7), go_statement }));
    story.enter(3, 0, MS);
    let inlined = Rc::new(Frame { inlined: true, ..(*frame("main.in\"ner", "/src/main.go", 31)).clone() });
    let unknown = Rc::new(Frame {
        function: None,
        file: None,
        line: None,
        binary: None,
        address: None,
        ip: u64::MAX,
        inlined: false,
    });
    let stack = CallerStack { frames: vec![inlined, unknown], cut: Some(Cut::NoFramePointers), kernel: None };
    story.enter_with(7, Some(3), 0, 1_200_345, Some(stack));
    story.ends(7, Some(1_201_545), 4716, End::Return, false);
    story.leave(3, 2 * MS);
    let expected = json!({
        "type": "call", "id": 7, "parent": 3, "function": "main.(*Store).Get", "binary": "/srv",
        "address": "0x6c98a0", "start_ns": 1_200_345, "duration_ns": 1_200, "pid": 4711, "tid": 4715, "end_tid": 4716,
        "inner_pid": null, "container": null, "comm": "srv", "goroutine": 42, "parent_goroutine": 7,
        "go_statement": {"function": "main.serve", "file": "/src/main.go", "line": 12, "binary": "/srv",
                         "address": "0x1234", "ip": "0x555555551234", "inlined": false},
        "depth": 1, "end": "return",
        "lost": false, "args": null, "returns": null,
        "stack": [
            {"function": "main.in\"ner", "file": "/src/main.go", "line": 31, "binary": "/srv", "address": "0x1234",
             "ip": "0x555555551234", "inlined": true},
            {"function": null, "file": null, "line": null, "binary": null, "address": null,
             "ip": "0xffffffffffffffff", "inlined": false},
        ],
        "stack_cut": "no frame pointers",
    });
    let calls = calls(story);
    assert_eq!(calls[0], expected);
    assert_eq!(calls[1]["id"], 3, "children come before parents");
    assert_eq!(
        (&calls[1]["parent"], &calls[1]["stack"], &calls[1]["stack_cut"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn the_kernels_frames_stand_behind_the_callers_where_they_were_asked_for() {
    let mut story = story();
    let of_kernel = Frame {
        file: None,
        line: None,
        binary: Some("[kernel]".to_owned()),
        address: None,
        ip: 0xffff_ffff_8100_0c55,
        ..(*frame("asm_exc_int3", "", 0)).clone()
    };
    let frames = vec![frame("main.main", "/src/main.go", 5)];
    story.enter_with(1, None, 0, 0, Some(CallerStack { frames, cut: None, kernel: Some([Rc::new(of_kernel)].into()) }));
    story.leave(1, 1);
    let call = &calls(story)[0];
    assert_eq!(call["stack"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        call["kernel_stack"],
        json!([{"function": "asm_exc_int3", "file": null, "line": null, "binary": "[kernel]", "address": null,
                "ip": "0xffffffff81000c55", "inlined": false}])
    );
}

#[test]
fn what_is_not_known_is_null() {
    let mut story = story();
    story.goroutine = None;
    for (id, end, lost) in [(1, End::Open, false), (2, End::Return, true), (3, End::Exit, false)] {
        story.enter(id, 0, 0);
        story.ends(id, None, 4715, end, lost);
    }
    let calls = calls(story);
    let fields = |at: usize| ["duration_ns", "end_tid", "goroutine", "end", "lost"].map(|key| calls[at][key].clone());
    assert_eq!(fields(0), [Value::Null, Value::Null, Value::Null, json!("open"), json!(false)]);
    assert_eq!(fields(1), [Value::Null, Value::Null, Value::Null, json!("return"), json!(true)]);
    assert_eq!(fields(2), [Value::Null, json!(4715), Value::Null, json!("exit"), json!(false)]);
}

/// Each way in which a call can differ from the one before, twice, so that whatever is kept of one meets all others.
#[test]
fn what_differs_between_calls_that_follow_each_other_is_told() {
    let mut story = story();
    let made_by = |parent| Some(Rc::new(Origin { parent: Some(parent), go_statement: None }));
    let in_container = |name: &str| Rc::new(Home { container: Some(name.into()), inner_pid: Some(7) });
    let ways: [fn(&mut Story); 6] = [
        |story| story.thread.pid += 1,
        |story| story.thread.tid += 1,
        // Of one that has a goroutine's number.
        |story| story.thread.tid += 1024,
        |story| story.goroutine = story.goroutine.map(|id| id + 1),
        |story| story.goroutine = story.goroutine.map(|id| id + 1024),
        |story| story.comm = format!("{}'", story.comm).into(),
    ];
    let mut expected = Vec::new();
    let mut id = 0;
    for round in 0..2_u64 {
        let mut call = |story: &mut Story, end_tid: u32, end: End, lost: bool| {
            id += 1;
            story.enter(id, 0, 0);
            story.ends(id, None, end_tid, end, lost);
            expected.push(json!({
                "pid": story.thread.pid, "tid": story.thread.tid, "end_tid": if lost { Value::Null } else { json!(end_tid) },
                "inner_pid": story.home.inner_pid, "container": story.home.container.as_deref(), "comm": *story.comm,
                "goroutine": story.goroutine, "parent_goroutine": story.origin.as_ref().and_then(|origin| origin.parent),
                "end": if end == End::Return { "return" } else { "unwind" }, "lost": lost,
            }));
        };
        for way in ways {
            way(&mut story);
            call(&mut story, 4715, End::Return, false);
            call(&mut story, 4716, End::Return, false);
            call(&mut story, 4716, End::Unwind, false);
            call(&mut story, 4716, End::Unwind, true);
            // As the next way's first, but for that way.
            call(&mut story, 4715, End::Return, false);
        }
        for origin in [made_by(7 + round), made_by(9 + round), None] {
            story.origin = origin;
            call(&mut story, 4715, End::Return, false);
        }
        for home in [in_container("a"), in_container(&format!("b{round}")), Rc::default()] {
            story.home = home;
            call(&mut story, 4715, End::Return, false);
        }
        story.goroutine = if round == 0 { None } else { Some(1) };
        call(&mut story, 4715, End::Return, false);
        story.goroutine = Some(42);
    }
    let told = calls(story);
    assert_eq!(told.len(), expected.len());
    for (told, expected) in told.iter().zip(&expected) {
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&told[key], value, "{key} of {told}");
        }
    }
}

#[test]
fn calls_of_one_thread_have_each_its_own_depth() {
    const LEVELS: u64 = 1000;
    let mut story = story();
    story.enter(0, 0, 0);
    (1..LEVELS).for_each(|id| story.call(id, id - 1, 0, 0));
    (0..LEVELS).rev().for_each(|id| story.leave(id, 1));
    for (call, depth) in calls(story).iter().zip((0..LEVELS).rev()) {
        assert_eq!(call["depth"], depth);
    }
}

#[test]
fn ends_have_the_names_of_the_contract() {
    let mut story = story();
    let ends = [
        (End::Return, "return"),
        (End::TailCall, "tailcall"),
        (End::Unwind, "unwind"),
        (End::Exit, "exit"),
        (End::Exec, "exec"),
        (End::Open, "open"),
    ];
    for (id, (end, _)) in ends.iter().enumerate() {
        story.enter(id as u64, 0, 0);
        story.ends(id as u64, Some(5), 4715, *end, false);
    }
    let named: Vec<Value> = calls(story).iter().map(|call| call["end"].clone()).collect();
    assert_eq!(named, ends.map(|(_, name)| json!(name)));
}

#[test]
fn what_is_shed_is_a_line_and_its_open_call_is_open() {
    let mut story = story();
    story.enter(1, 0, 0);
    story.shed(2, 812_000, 7);
    story.ends(1, None, 4715, End::Shed, false);
    let lines = lines(&story.end(&Summary::default()));
    assert_eq!(lines[1], json!({"type": "shed", "function": FUNCTIONS[2], "rate": 812_000, "at_ns": 7}));
    assert_eq!(
        (&lines[2]["end"], &lines[2]["duration_ns"], &lines[2]["end_tid"]),
        (&json!("open"), &Value::Null, &Value::Null)
    );
}

#[test]
fn a_point_is_a_line_without_a_duration() {
    let mut story = story();
    story.enter(1, 0, 0);
    story.point(Some(1), 1, 10);
    story.leave(1, 20);
    assert_eq!(
        calls(story)[0],
        json!({
            "type": "point", "parent": 1, "function": "main.work", "offset": 18, "binary": "/srv",
            "address": "0x6c98a0", "start_ns": 10, "pid": 4711, "tid": 4715, "inner_pid": null, "container": null,
            "comm": "srv", "goroutine": 42, "parent_goroutine": null, "go_statement": null, "depth": 1, "args": null, "stack": null, "stack_cut": null,
        })
    );
}

#[test]
fn hostile_text_reads_back_and_never_breaks_a_line() {
    let mut story = story();
    story.comm = "a\"\n\x1b\\".into();
    story.enter(1, 2, 0);
    story.leave(1, 1);
    let text = story.end(&Summary::default());
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains('\x1b'));
    let call = &lines(&text)[1];
    assert_eq!(call["comm"], "a\"\n\x1b\\");
    assert_eq!(call["function"], FUNCTIONS[2]);
}

#[test]
fn short_calls_are_left_out_and_unknown_ones_are_not() {
    let options = OutputOptions { format: Format::Json, min_duration_ns: Some(10 * US), ..OutputOptions::default() };
    let mut story = Story::new(&options, &FUNCTIONS);
    for (id, end) in [(1, Some(9_999)), (2, Some(10_000)), (3, None)] {
        story.enter(id, 0, 0);
        story.ends(id, end, 4715, End::Return, end.is_none());
    }
    let ids: Vec<Value> = calls(story).iter().map(|call| call["id"].clone()).collect();
    assert_eq!(ids, [json!(2), json!(3)]);
}

#[test]
fn the_last_line_is_the_summary() {
    let summary = Summary {
        calls: 9,
        events: 18,
        lost_entries: vec![(0, 2)],
        lost_exits: vec![(0, 1)],
        unmatched_returns: 4,
        open: 5,
        shed: vec![Shed { function: 0, rate: 812_000, at_ns: 0 }; 2],
        duration_ns: SECOND,
        ..Summary::default()
    };
    assert_eq!(
        lines(&story().end(&summary)).last(),
        Some(&json!({
            "type": "summary", "calls": 9, "events": 18, "lost": 3, "unmatched_returns": 4, "open": 5, "shed": 2,
        }))
    );
}

#[test]
fn a_frame_is_not_taken_for_one_that_lived_at_its_place() {
    let mut story = story();
    for id in 0..20_000_u64 {
        let caller = frame(&format!("caller{id}"), "main.go", 1);
        story.enter_with(id, None, 0, id, Some(CallerStack { frames: vec![caller], cut: None, kernel: None }));
        story.leave(id, id + 1);
    }
    for (id, call) in calls(story).iter().enumerate() {
        assert_eq!(call["stack"][0]["function"], format!("caller{id}"));
    }
}
