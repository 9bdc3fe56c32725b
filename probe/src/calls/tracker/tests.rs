//! The tracker on made-up events. Depths are bytes below the stack's top, as on a goroutine.

use super::*;
use crate::{
    calls::{Home, NewFile, TraceInfo, TracedFunction},
    events::decode,
};
use probe_ebpf::abi::{SECTION_FRAMES, WALK_END, goroutine_depth, thread_depth};
use symbols::{addr::FileOffset, code::EntryCost};

mod ends;
mod entries;
mod lanes;
mod losses;
mod origin;
mod shed;
mod subtracted;
mod timed;

/// Functions of the made-up program. Each has the points 2n (entry) and 2n + 1 (return).
const F: u32 = 0;
const G: u32 = 1;
/// Its entry may be passed again within one call.
const LOOPS: u32 = 2;
/// It can leave by a jump without a probe.
const JUMPS: u32 = 3;
const TAIL_OF_F: u32 = 8;
const POINT: u32 = 9;
pub(super) const GOROUTINE_END: u32 = 10;
pub(super) const LANDING: u32 = 11;

pub(super) fn entry(function: u32) -> u32 {
    function * 2
}

pub(super) fn exit(function: u32) -> u32 {
    function * 2 + 1
}

pub(super) fn tracker(limits: Limits) -> Tracker {
    let point = |kind, function| PlannedPoint {
        file: 0,
        offset: FileOffset(0),
        kind,
        function,
        cookie: probe_ebpf::abi::Cookie::native(0),
    };
    let mut points = Vec::new();
    for function in [F, G, LOOPS, JUMPS] {
        points.push(point(PointKind::Entry, function));
        points.push(point(PointKind::Return, function));
    }
    points.push(point(PointKind::TailJump, F));
    points.push(point(PointKind::Passed, 4));
    points.push(point(PointKind::GoroutineEnd, NO_FUNCTION));
    points.push(point(PointKind::Landing, NO_FUNCTION));
    let functions: Vec<PlannedFunction> = (0..5)
        .map(|n| PlannedFunction {
            traced: TracedFunction { name: n.to_string(), binary: String::new(), address: 0, point: None },
            may_repeat: n == LOOPS,
            unprobed_jumps: n == JUMPS,
            cost: EntryCost::Emulated,
            exact: true,
            standard: false,
        })
        .collect();
    Tracker::new(&points, &functions, limits)
}

/// A world in which thread 1 of process 1 lost a record at time 50, and nobody else lost any.
struct OneLoss;

impl World for OneLoss {
    fn process(&mut self, pid: u32) -> (Rc<str>, Rc<Home>) {
        (format!("p{pid}").into(), Rc::default())
    }

    fn changes(&self) -> Option<u64> {
        Some(0)
    }

    fn callers(&mut self, _pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack> {
        assert!(!at_point);
        let frame = |ip| {
            let frame = crate::target::modules::nameless(crate::stacks::CodeAddress::after_call(ip));
            Rc::new(frame)
        };
        Rc::new(CallerStack { frames: frames.addresses().map(frame).collect(), cut: None, kernel: None })
    }

    fn last_loss(&mut self, lane: Lane, lost: u32) -> Option<u64> {
        assert_eq!(lost, 1, "asked only when records were lost meanwhile");
        (lane == Lane { thread: 1 << 32 | 1, goid: 0 }).then_some(50)
    }
}

/// What was told, a line each.
#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn begin(&mut self, _: &TraceInfo) -> io::Result<()> {
        Ok(())
    }
    fn enter(&mut self, e: &Enter) -> io::Result<()> {
        let parent = e.parent.map_or("-".to_owned(), |p| p.to_string());
        let stack = e.stack.as_ref().map_or(String::new(), |s| format!(" from {:x}", s.frames[0].ip));
        let made = |o: &Rc<Origin>| {
            let place = o.go_statement.as_ref().map_or(0, |place| place.ip);
            format!(" made by {} at {place:x}", o.parent.unwrap_or(0))
        };
        let made = e.origin.as_ref().map_or(String::new(), made);
        self.0.push(format!("{} enter {} in {parent} at {}{stack}{made}", e.id, e.function, e.start_ns));
        Ok(())
    }
    fn leave(&mut self, l: &Leave) -> io::Result<()> {
        let time = l.duration_ns().map_or("?".to_owned(), |d| d.to_string());
        let lost = if l.lost { " lost" } else { "" };
        self.0.push(format!("{} {:?} after {time} on {}{lost}", l.call.id, l.end, l.end_tid));
        Ok(())
    }
    fn point(&mut self, p: &Point) -> io::Result<()> {
        self.0.push(format!("point {} depth {} in {:?}", p.function, p.depth, p.parent));
        Ok(())
    }
    fn grown(&mut self, _: &TraceInfo, _: &NewFile) -> io::Result<()> {
        Ok(())
    }
    fn shed(&mut self, s: &Shed) -> io::Result<()> {
        self.0.push(format!("shed {} at {}", s.function, s.at_ns));
        Ok(())
    }
    fn tick(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn end(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    tracker: Tracker,
    told: Told,
}

fn bench() -> Bench {
    Bench { tracker: tracker(Limits::default()), told: Told::default() }
}

impl Bench {
    fn event(&mut self, event: Event) -> &mut Self {
        let record = Record { event, generation: 0, origin: None, frames: None };
        self.tracker.record(&record, &mut OneLoss, &mut self.told).expect("made-up sinks do not fail");
        self
    }

    /// An event of thread 1.
    fn at(&mut self, time_ns: u64, depth: u64, point: u32) -> &mut Self {
        self.event(Event { time_ns, depth, goid: 0, pid_tgid: 1 << 32 | 1, point, lost: 0 })
    }

    /// The same after a record was lost.
    fn after_loss(&mut self, time_ns: u64, depth: u64, point: u32) -> &mut Self {
        self.event(Event { time_ns, depth, goid: 0, pid_tgid: 1 << 32 | 1, point, lost: 1 })
    }

    /// An event of a goroutine.
    fn on_goroutine(&mut self, goid: u64, tid: u64, time_ns: u64, depth: u64, point: u32) -> &mut Self {
        self.event(Event { time_ns, depth, goid, pid_tgid: 1 << 32 | tid, point, lost: 0 })
    }

    fn tells(&self, expected: &[&str]) {
        assert_eq!(self.told.0, expected);
    }
}

#[test]
fn nested_calls_are_told_inside_out() {
    let mut b = bench();
    b.at(10, 100, entry(F)).at(12, 150, entry(G)).at(15, 150, exit(G)).at(20, 100, exit(F));
    b.tells(&["1 enter 0 in - at 10", "2 enter 1 in 1 at 12", "2 Return after 3 on 1", "1 Return after 10 on 1"]);
}

#[test]
fn recursion_pairs_by_depth() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(F)).at(3, 300, entry(F));
    b.at(4, 300, exit(F)).at(5, 200, exit(F)).at(6, 100, exit(F));
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 0 in 1 at 2",
        "3 enter 0 in 2 at 3",
        "3 Return after 1 on 1",
        "2 Return after 3 on 1",
        "1 Return after 5 on 1",
    ]);
}

#[test]
fn an_exit_ends_deeper_calls_as_unwound_and_without_a_time() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(G)).at(3, 300, entry(G)).at(9, 100, exit(F));
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 1 in 1 at 2",
        "3 enter 1 in 2 at 3",
        "3 Unwind after ? on 1",
        "2 Unwind after ? on 1",
        "1 Return after 8 on 1",
    ]);
}

#[test]
fn an_entry_at_lesser_depth_ends_deeper_calls_as_unwound() {
    let mut b = bench();
    b.at(1, 200, entry(G)).at(5, 100, entry(F)).at(6, 100, exit(F));
    b.tells(&["1 enter 1 in - at 1", "1 Unwind after ? on 1", "2 enter 0 in - at 5", "2 Return after 1 on 1"]);
}

#[test]
fn a_probed_tail_jump_ends_the_call_and_what_follows_is_its_sibling() {
    let mut b = bench();
    b.at(1, 100, entry(G)).at(2, 150, entry(F)).at(3, 150, TAIL_OF_F).at(4, 150, entry(G)).at(6, 150, exit(G));
    b.tells(&[
        "1 enter 1 in - at 1",
        "2 enter 0 in 1 at 2",
        "2 TailCall after 1 on 1",
        "3 enter 1 in 1 at 4",
        "3 Return after 2 on 1",
    ]);
}

#[test]
fn an_entry_at_the_same_depth_is_a_tail_call_only_where_a_jump_has_no_probe() {
    let mut b = bench();
    b.at(1, 100, entry(JUMPS)).at(4, 100, entry(G));
    b.tells(&["1 enter 3 in - at 1", "1 TailCall after 3 on 1", "2 enter 1 in - at 4"]);
    let mut b = bench();
    b.at(1, 100, entry(F)).at(4, 100, entry(G));
    b.tells(&["1 enter 0 in - at 1", "1 Unwind after ? on 1", "2 enter 1 in - at 4"]);
}

#[test]
fn a_loop_back_to_the_entry_is_the_same_call() {
    let mut b = bench();
    b.at(1, 100, entry(LOOPS)).at(2, 100, entry(LOOPS)).at(3, 100, entry(LOOPS)).at(7, 100, exit(LOOPS));
    b.tells(&["1 enter 2 in - at 1", "1 Return after 6 on 1"]);
}

#[test]
fn returns_without_an_entry_are_counted_but_not_those_before_the_entries_were_watched() {
    let mut b = bench();
    b.tracker.entries_begin(10);
    b.at(5, 100, exit(F)).at(15, 100, exit(F)).at(16, 100, exit(G));
    b.tells(&[]);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!((summary.unmatched_returns, summary.events, summary.calls), (2, 3, 0));
}

#[test]
fn a_return_of_another_function_at_the_same_depth_ends_the_open_one() {
    let mut b = bench();
    b.at(1, 100, entry(JUMPS)).at(6, 100, exit(G));
    b.tells(&["1 enter 3 in - at 1", "1 TailCall after 5 on 1"]);
}

#[test]
fn after_the_limit_no_outermost_call_is_told_and_open_ones_end() {
    let mut b = Bench { tracker: tracker(Limits { outermost: Some(1), ..Limits::default() }), told: Told::default() };
    b.at(1, 100, entry(F)).on_goroutine(7, 2, 2, 100, entry(F)).on_goroutine(7, 2, 3, 100, exit(F));
    assert!(!b.tracker.is_done());
    b.at(4, 150, entry(G)).at(5, 150, exit(G)).at(6, 100, exit(F));
    assert!(b.tracker.is_done());
    b.tells(&["1 enter 0 in - at 1", "3 enter 1 in 1 at 4", "3 Return after 1 on 1", "1 Return after 5 on 1"]);
}

#[test]
fn without_exits_every_call_is_told_at_once_and_has_no_duration() {
    let limits = Limits { entries_only: true, ..Limits::default() };
    let mut b = Bench { tracker: tracker(limits), told: Told::default() };
    b.at(1, 100, entry(F)).at(2, 150, entry(G));
    b.tells(&["1 enter 0 in - at 1", "1 Open after ? on 1", "2 enter 1 in - at 2", "2 Open after ? on 1"]);
}

#[test]
fn a_point_is_told_inside_the_call_around_it() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 140, POINT).at(3, 100, exit(F));
    assert_eq!(b.told.0[1], "point 4 depth 1 in Some(1)");
}

#[test]
fn frames_of_a_record_become_the_calls_callers() {
    let mut bytes = Vec::new();
    for word in [1_u64, 100, 0, 1 << 32 | 1, u64::from(entry(F))] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend([SECTION_FRAMES.to_ne_bytes(), WALK_END.to_ne_bytes()].concat());
    bytes.extend(8_u32.to_ne_bytes());
    bytes.extend(0xabc_u64.to_ne_bytes());
    let record = decode(&bytes).expect("an event and a section");
    let mut b = bench();
    b.tracker.record(&record, &mut OneLoss, &mut b.told).expect("made-up sinks do not fail");
    b.tells(&["1 enter 0 in - at 1 from abc"]);
}

#[test]
fn points_that_no_plan_knows_are_nothing() {
    let mut b = bench();
    b.at(1, 100, 4000).at(2, 100, POINT_RESERVED + 7);
    b.tells(&[]);
}

#[test]
fn a_function_that_comes_later_is_paired_and_its_returns_count_from_then_on() {
    let mut b = bench();
    let mut points = Vec::new();
    for kind in [PointKind::Entry, PointKind::Return] {
        let cookie = probe_ebpf::abi::Cookie::native(0);
        points.push(PlannedPoint { file: 1, offset: FileOffset(0), kind, function: 5, cookie });
    }
    let new = b.tracker.points.len() as u32;
    let all = [vec![points[0]; new as usize], points].concat();
    let function = PlannedFunction {
        traced: TracedFunction { name: "new".to_owned(), binary: String::new(), address: 0, point: None },
        may_repeat: false,
        unprobed_jumps: false,
        cost: EntryCost::Emulated,
        exact: true,
        standard: false,
    };
    b.at(1, 100, entry(F));
    b.tracker.grow(&all, &vec![function; 6], 10);
    // Begun before its entry was probed.
    b.at(9, 150, new + 1);
    b.at(11, 150, new).at(12, 150, new + 1).at(13, 160, new + 1).at(14, 100, exit(F));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(
        b.told.0,
        ["1 enter 0 in - at 1", "2 enter 5 in 1 at 11", "2 Return after 1 on 1", "1 Return after 13 on 1"]
    );
    assert_eq!(summary.unmatched_returns, 1);
}

#[test]
fn what_is_open_at_the_end_is_told_inside_out() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 150, entry(G));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.open, 2);
    assert_eq!(b.told.0[2..], ["2 Open after ? on 1", "1 Open after ? on 1"]);
}

#[test]
fn the_shortest_gaps_of_many_events_are_the_probes_cost() {
    let mut b = bench();
    for n in 0..1000 {
        b.at(n * 100, 100, entry(F)).at(n * 100 + 7, 100, exit(F));
    }
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.probes_ns, 1000 * 7 + 1000 * 93);
    let mut b = bench();
    b.at(1, 100, entry(F)).at(1_000_000, 100, exit(F));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.probes_ns, 0, "two events say nothing");
}
