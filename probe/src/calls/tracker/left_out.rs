//! Short calls that the kernel half leaves out: what is shown must be what is shown of a trace that leaves out nothing.

use std::{cell::RefCell, collections::HashMap, io::Write};

use probe_ebpf::deferred::Deferred;
use proptest::prelude::*;
use serde_json::Value;

use super::{tests as made_up, *};
use crate::{
    calls::{Home, TraceInfo},
    output::{self, Format, OutputOptions},
};

const MIN_NS: u64 = 100;
const FRAME: u64 = 16;

/// What a made-up thread does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Calls a function, this many frames further in.
    Call { function: u32, frames: u64 },
    /// Returns from the innermost function.
    Return,
    /// Leaves so many functions by an unwinder that nobody watches.
    Unwind { calls: usize },
    /// The same, watched.
    Land { calls: usize },
    /// Leaves the innermost function by a jump without a probe to this one.
    Jump { function: u32 },
    /// Returns from a function whose entry was not seen.
    Stray { function: u32 },
    /// The goroutine ends.
    End,
}

fn step() -> impl Strategy<Value = (Step, u64)> {
    let function = 0_u32..4;
    let step = prop_oneof![
        8 => (function.clone(), 1_u64..4).prop_map(|(function, frames)| Step::Call { function, frames }),
        8 => Just(Step::Return),
        1 => (1_usize..4).prop_map(|calls| Step::Unwind { calls }),
        1 => (1_usize..4).prop_map(|calls| Step::Land { calls }),
        1 => function.clone().prop_map(|function| Step::Jump { function }),
        1 => function.prop_map(|function| Step::Stray { function }),
        1 => Just(Step::End),
    ];
    let pause = prop_oneof![4 => 1_u64..30, 1 => 80_u64..300];
    (step, pause)
}

/// The events of a thread that does these steps, one after another.
fn events(goid: u64, steps: &[(Step, u64)]) -> Vec<Event> {
    let (mut time_ns, mut depth) = (1000, 1000);
    let mut open: Vec<(u32, u64)> = Vec::new();
    let mut events = Vec::new();
    for &(step, pause) in steps {
        time_ns += pause;
        let mut tell = |point, depth| {
            events.push(Event { time_ns, depth, goid, pid_tgid: 1 << 32 | 1, point, lost: 0 });
        };
        let mut leave = |open: &mut Vec<(u32, u64)>, calls: usize| {
            for _ in 0..calls {
                depth = open.pop().map_or(depth, |(_, depth)| depth);
            }
            depth
        };
        match step {
            Step::Call { function, frames } => {
                let innermost = open.last().map_or(1000, |(_, depth)| *depth);
                open.push((function, innermost + frames * FRAME));
                tell(made_up::entry(function), innermost + frames * FRAME);
            }
            Step::Return => {
                if let Some((function, depth)) = open.pop() {
                    tell(made_up::exit(function), depth);
                }
            }
            Step::Unwind { calls } => {
                leave(&mut open, calls);
            }
            Step::Land { calls } => {
                let to = leave(&mut open, calls);
                tell(made_up::LANDING, to);
            }
            Step::Jump { function } => {
                if let Some((innermost, depth)) = open.last_mut() {
                    *innermost = function;
                    tell(made_up::entry(function), *depth);
                }
            }
            Step::Stray { function } => {
                tell(made_up::exit(function), open.last().map_or(1000, |(_, depth)| depth + FRAME));
            }
            Step::End => {
                open.clear();
                tell(made_up::GOROUTINE_END, 1000);
            }
        }
    }
    events
}

/// What the kernel half tells of them when it leaves out short calls; and what it left out, by point, and outermost ones.
fn with_short_ones_left_out(events: &[Event]) -> (Vec<Event>, Vec<(u32, u64)>, u64) {
    let mut state = Deferred::EMPTY;
    let (mut told, mut left_out, mut outermost) = (Vec::new(), Vec::new(), 0);
    let function_of = |point: u32| if point < 8 { point / 2 } else { probe_ebpf::deferred::NO_FUNCTION };
    for event in events {
        if event.point < 8 && event.point.is_multiple_of(2) {
            if state.is_to_be_told_before(event.depth) {
                state.tell(|held| told.push(*held));
            }
            if state.may_hold(event.depth) {
                state.hold(*event);
            } else {
                state.began(event.depth);
                told.push(*event);
            }
            continue;
        }
        if event.point < 8
            && state.is_short_call(event.depth, event.time_ns, MIN_NS, |point| {
                function_of(point) == function_of(event.point)
            })
        {
            left_out.push((event.point - 1, 1));
            left_out.push((event.point, 1));
            outermost += u64::from(state.leave_out());
            continue;
        }
        state.tell(|held| told.push(*held));
        state.over(if event.point == made_up::GOROUTINE_END { 0 } else { event.depth });
        told.push(*event);
    }
    state.tell(|held| told.push(*held));
    (told, left_out, outermost)
}

#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct NoLoss;

impl World for NoLoss {
    fn process(&mut self, _pid: u32) -> (Rc<str>, Rc<Home>) {
        ("p".into(), Rc::default())
    }

    fn changes(&self) -> Option<u64> {
        Some(0)
    }

    fn callers(&mut self, _pid: u32, _frames: Frames<'_>, _at_point: bool) -> Rc<CallerStack> {
        Rc::default()
    }

    fn last_loss(&mut self, _lane: Lane, _lost: u32) -> Option<u64> {
        None
    }
}

/// The lines, parents named by when they began, in order of beginning; and the summary.
fn shown(events: &[Event], left_out: &[(u32, u64)], outermost: u64) -> (Vec<String>, Summary) {
    let written = Written::default();
    let options = OutputOptions { format: Format::Json, min_duration_ns: Some(MIN_NS), ..OutputOptions::default() };
    let mut sink = output::sink(&options, Box::new(written.clone()));
    let mut tracker = made_up::tracker(Limits::default());
    sink.begin(&TraceInfo::default()).expect("memory takes it");
    for event in events {
        let record = Record { event: *event, generation: 0, origin: None, frames: None };
        tracker.record(&record, &mut NoLoss, sink.as_mut()).expect("memory takes it");
    }
    tracker.left_out(left_out, outermost);
    let summary = tracker.finish(sink.as_mut()).expect("memory takes it");
    sink.end(&summary).expect("memory takes it");
    let text = String::from_utf8(written.0.take()).expect("JSON is UTF-8");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut calls: Vec<Value> = lines.into_iter().filter(|line| line["type"] == "call").collect();
    let began: HashMap<u64, Value> =
        calls.iter().map(|call| (call["id"].as_u64().expect("an id"), call["start_ns"].clone())).collect();
    for call in &mut calls {
        if let Some(parent) = call["parent"].as_u64() {
            // The parent of a call of unknown duration may be short itself.
            call["parent"] = began.get(&parent).cloned().unwrap_or_else(|| "hidden".into());
        }
        call["id"] = Value::Null;
    }
    calls.sort_by_key(|call| call["start_ns"].as_u64());
    (calls.iter().map(Value::to_string).collect(), summary)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_trace_without_short_calls_shows_what_a_whole_one_shows(
        goid in 0_u64..2,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let events = events(goid, &steps);
        let (whole, mut all) = shown(&events, &[], 0);
        let (told, left_out, outermost) = with_short_ones_left_out(&events);
        let (rest, mut counted) = shown(&told, &left_out, outermost);
        prop_assert_eq!(rest, whole);
        // An estimate from the gaps between events.
        (all.probes_ns, counted.probes_ns) = (0, 0);
        prop_assert_eq!(counted, all);
    }
}

#[test]
fn short_calls_within_a_short_call_are_left_out_with_it() {
    let call = |function| (Step::Call { function, frames: 1 }, 1);
    let steps = [call(0), call(1), (Step::Return, 5), call(1), (Step::Return, 5), (Step::Return, 5)];
    let (told, left_out, outermost) = with_short_ones_left_out(&events(0, &steps));
    assert_eq!((told.len(), left_out.len(), outermost), (0, 6, 1));
}
