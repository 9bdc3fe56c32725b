//! What holds for every history of calls, whatever the output: nothing is shown twice, nothing goes missing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::testing::{MS, Story};
use super::{Format, OutputOptions, TimeFormat};
use crate::calls::{CallId, End, Summary, Thread};

/// A step of a made-up trace.
#[derive(Clone, Debug)]
enum Step {
    Enter { tid: u32 },
    Leave { tid: u32, lost: bool },
    Point { tid: u32 },
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = (0..10_u8, 1..4_u32, 0..20_u8).prop_map(|(kind, tid, luck)| match kind {
        0..=3 => Step::Enter { tid },
        4..=7 => Step::Leave { tid, lost: luck == 0 },
        8 => Step::Point { tid },
        _ => Step::Tick,
    });
    let pause = prop_oneof![Just(0), 1..1_000_u64, (1..900_u64).prop_map(|ms| ms * MS)];
    prop::collection::vec((step, pause), 0..120)
}

/// What happened: calls with their durations, ids of those that ended as lost have none.
type Calls = BTreeMap<CallId, Option<u64>>;

/// Tells `steps`, closing what stays open, and returns the calls and all text.
fn tell(options: &OutputOptions, steps: &[(Step, u64)]) -> (Calls, String) {
    let mut story = Story::new(options, &["call", "point+0x4"]);
    let mut open: BTreeMap<u32, Vec<(CallId, u64)>> = BTreeMap::new();
    let (mut calls, mut text) = (Calls::new(), String::new());
    let (mut now, mut next) = (0, 1);
    for (step, pause) in steps {
        now += pause;
        match *step {
            Step::Enter { tid } => {
                story.thread = Thread { pid: 1, tid };
                let path = open.entry(tid).or_default();
                story.enter_with(next, path.last().map(|(id, _)| *id), 0, now, None);
                path.push((next, now));
                next += 1;
            }
            Step::Leave { tid, lost } => {
                if let Some((id, start)) = open.entry(tid).or_default().pop() {
                    story.ends(id, (!lost).then_some(now), tid, End::Return, lost);
                    calls.insert(id, (!lost).then(|| now - start));
                }
            }
            Step::Point { tid } => {
                story.thread = Thread { pid: 1, tid };
                let around = open.get(&tid).and_then(|path| path.last());
                story.point(around.map(|(id, _)| *id), 1, now);
            }
            Step::Tick => text += &story.tick(now),
        }
    }
    for (tid, path) in open {
        for (id, _) in path.into_iter().rev() {
            story.ends(id, None, tid, End::Open, false);
            calls.insert(id, None);
        }
    }
    text += &story.end(&Summary::default());
    (calls, text)
}

fn points(steps: &[(Step, u64)]) -> usize {
    steps.iter().filter(|(step, _)| matches!(step, Step::Point { .. })).count()
}

fn options(format: Format, min_duration_ns: Option<u64>) -> OutputOptions {
    OutputOptions { format, min_duration_ns, time: TimeFormat::None, ..OutputOptions::default() }
}

/// Lines that end in `words`.
fn count(text: &str, words: &str) -> usize {
    text.lines().filter(|line| line.ends_with(words)).count()
}

proptest! {
    #[test]
    fn json_has_each_call_once_and_children_first(steps in steps(), min in prop::option::of(0..2 * MS)) {
        let (calls, text) = tell(&options(Format::Json, min), &steps);
        let long = |ns: &Option<u64>| ns.is_none_or(|ns| ns >= min.unwrap_or(0));
        let mut seen = Calls::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("a JSON line");
            if line["type"] == "call" {
                let id = line["id"].as_u64().expect("an id");
                if let Some(parent) = line["parent"].as_u64() {
                    prop_assert!(!seen.contains_key(&parent), "{parent} came before its child {id}");
                }
                prop_assert!(seen.insert(id, line["duration_ns"].as_u64()).is_none(), "{id} came twice");
            }
        }
        prop_assert_eq!(seen, calls.into_iter().filter(|(_, ns)| long(ns)).collect::<Calls>());
    }

    #[test]
    fn the_tree_has_each_end_once(steps in steps()) {
        let (calls, text) = tell(&options(Format::Tree, None), &steps);
        let known = calls.values().flatten().count();
        prop_assert_eq!(count(&text, " call"), known);
        prop_assert_eq!(count(&text, "• point+0x4"), points(&steps));
        prop_assert!(count(&text, "call …") + count(&text, "call ?lost") >= calls.len() - known);
    }

    #[test]
    fn the_tree_hides_short_calls_and_no_others(steps in steps(), min in 1..2_000 * MS) {
        let (calls, text) = tell(&options(Format::Tree, Some(min)), &steps);
        let long = calls.values().flatten().filter(|ns| **ns >= min).count();
        // A short call is shown only around one whose duration is not known.
        let unknown = calls.values().any(Option::is_none);
        let shown = count(&text, " call");
        prop_assert!(shown == long || (unknown && shown > long), "{shown} shown, {long} long\n{text}");
    }

    #[test]
    fn the_stream_has_each_end_once_and_an_entry_for_each_exit(steps in steps(), min in prop::option::of(0..2_000 * MS)) {
        let (calls, text) = tell(&options(Format::Stream, min), &steps);
        let exits = text.lines().filter(|line| line.contains("} call")).count();
        let leaves = text.lines().filter(|line| line.contains(" call") && !line.contains(['{', '}'])).count();
        let long = calls.values().filter(|ns| ns.is_none_or(|ns| ns >= min.unwrap_or(0))).count();
        prop_assert_eq!(exits, count(&text, "call {"));
        let unknown = calls.values().any(Option::is_none);
        prop_assert!(exits + leaves == long || (unknown && exits + leaves > long), "{}", text);
    }

    #[test]
    fn slow_passes_whole_outermost_calls(steps in steps(), slow in 1..2_000 * MS) {
        let slow_only = OutputOptions { slow_ns: Some(slow), ..options(Format::Json, None) };
        let (_, all) = tell(&options(Format::Json, None), &steps);
        let (_, some) = tell(&slow_only, &steps);
        let read = |text: &str| -> Vec<Value> {
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
        };
        let (all, some) = (read(&all), read(&some));
        for line in all.iter().filter(|line| line["depth"] == 0 && line["type"] == "call") {
            let is_slow = line["duration_ns"].as_u64().is_some_and(|ns| ns >= slow);
            let passed = some.contains(line);
            prop_assert!(passed == is_slow || line["duration_ns"].is_null(), "{line}");
        }
        // Whoever passed did so with its parent, and as in the full trace.
        for line in some.iter().filter(|line| line["type"] == "call") {
            prop_assert!(all.contains(line));
            let parent = some.iter().any(|other| other["type"] == "call" && other["id"] == line["parent"]);
            prop_assert!(line["parent"].is_null() || parent, "{line}");
        }
    }
}
