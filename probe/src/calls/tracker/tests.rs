//! The tracker on made-up events. Depths are bytes below the stack's top, as on a goroutine.

use super::*;
use crate::{calls::TraceInfo, calls::TracedFunction, events::decode};
use probe_ebpf::abi::{SECTION_FRAMES, WALK_END, goroutine_depth, thread_depth};
use symbols::{addr::FileOffset, code::EntryCost};

mod subtracted;

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
    fn comm(&mut self, pid: u32) -> Rc<str> {
        format!("p{pid}").into()
    }

    fn callers(&mut self, _pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack> {
        assert!(!at_point);
        let frame = |ip| {
            let frame = crate::target::modules::nameless(crate::stacks::CodeAddress::after_call(ip));
            Rc::new(frame)
        };
        Rc::new(CallerStack { frames: frames.addresses().map(frame).collect(), cut: None })
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
        self.0.push(format!("{} enter {} in {parent} at {}{stack}", e.id, e.function, e.start_ns));
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
        let record = Record { event, generation: 0, frames: None };
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
fn a_goroutine_keeps_its_calls_when_it_moves_to_another_thread() {
    let mut b = bench();
    b.on_goroutine(7, 1, 1, 100, entry(F)).on_goroutine(8, 1, 2, 100, entry(F));
    b.on_goroutine(7, 2, 5, 100, exit(F)).on_goroutine(8, 1, 6, 100, exit(F));
    b.tells(&["1 enter 0 in - at 1", "2 enter 0 in - at 2", "1 Return after 4 on 2", "2 Return after 4 on 1"]);
}

#[test]
fn goexit_ends_the_goroutines_calls_and_nobody_elses() {
    let mut b = bench();
    b.on_goroutine(7, 1, 1, 100, entry(F)).on_goroutine(8, 2, 2, 100, entry(F));
    b.on_goroutine(7, 1, 5, 60, GOROUTINE_END).on_goroutine(8, 2, 6, 100, exit(F));
    b.tells(&["1 enter 0 in - at 1", "2 enter 0 in - at 2", "1 Unwind after 4 on 1", "2 Return after 4 on 2"]);
}

#[test]
fn where_an_unwinder_lands_the_calls_below_end_at_once_and_with_its_time() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(G)).at(3, 300, entry(G)).at(7, 150, LANDING);
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 1 in 1 at 2",
        "3 enter 1 in 2 at 3",
        "3 Unwind after 4 on 1",
        "2 Unwind after 5 on 1",
    ]);
    b.at(9, 100, exit(F));
    assert_eq!(b.told.0[5..], ["1 Return after 8 on 1"]);
}

/// The stack pointer at an unwinder's RET is the word below its frame's: that of the entry of what the frame called.
#[test]
fn a_call_as_deep_as_a_landing_was_made_by_the_frame_landed_in() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 200, entry(G)).at(7, 200, LANDING).at(8, 200, entry(G)).at(9, 200, exit(G));
    b.tells(&[
        "1 enter 0 in - at 1",
        "2 enter 1 in 1 at 2",
        "2 Unwind after 5 on 1",
        "3 enter 1 in 1 at 8",
        "3 Return after 1 on 1",
    ]);
}

#[test]
fn a_landing_is_no_event_of_a_traced_function_and_ends_nothing_elsewhere() {
    let mut b = bench();
    b.at(1, 200, entry(F)).on_goroutine(7, 1, 2, 100, LANDING).on_goroutine(8, 2, 3, 100, LANDING);
    b.tells(&["1 enter 0 in - at 1"]);
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!((summary.events, summary.calls, summary.unmatched_returns), (1, 1, 0));
}

#[test]
fn after_a_loss_a_landing_lends_its_time_to_no_call() {
    let mut b = bench();
    b.at(10, 200, entry(F)).after_loss(60, 100, LANDING);
    b.tells(&["1 enter 0 in - at 10", "1 Unwind after ? on 1 lost"]);
}

#[test]
fn the_end_of_a_thread_ends_its_calls_and_that_of_a_process_all() {
    let mut b = bench();
    b.at(1, 100, entry(F)).on_goroutine(9, 2, 2, 100, entry(G)).at(5, 0, POINT_THREAD_EXIT);
    b.event(Event { time_ns: 8, depth: 0, goid: 0, pid_tgid: 1 << 32 | 2, point: POINT_PROCESS_EXIT, lost: 0 });
    b.tells(&["1 enter 0 in - at 1", "2 enter 1 in - at 2", "1 Exit after 4 on 1", "2 Exit after 6 on 2"]);
}

#[test]
fn a_threads_calls_end_on_it_when_another_thread_tells_of_the_processs_end() {
    let mut b = bench();
    b.at(1, 100, entry(F));
    b.event(Event { time_ns: 8, depth: 0, goid: 0, pid_tgid: 1 << 32 | 2, point: POINT_PROCESS_EXIT, lost: 0 });
    b.tells(&["1 enter 0 in - at 1", "1 Exit after 7 on 1"]);
}

#[test]
fn exec_ends_the_process_calls_as_exec() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 150, entry(G)).at(9, 0, POINT_EXEC);
    b.tells(&["1 enter 0 in - at 1", "2 enter 1 in 1 at 2", "2 Exec after 7 on 1", "1 Exec after 8 on 1"]);
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
fn what_is_open_at_the_end_is_told_inside_out() {
    let mut b = bench();
    b.at(1, 100, entry(F)).at(2, 150, entry(G));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.open, 2);
    assert_eq!(b.told.0[2..], ["2 Open after ? on 1", "1 Open after ? on 1"]);
}

#[test]
fn lanes_of_ended_goroutines_do_not_pile_up() {
    let mut b = bench();
    for goid in 1..100_000 {
        b.on_goroutine(goid, 1, goid, 100, entry(F)).on_goroutine(goid, 1, goid, 100, exit(F));
        b.told.0.clear();
    }
    let lanes = b.tracker.lanes.keys().len();
    assert!(lanes <= lanes::MANY_LANES, "{lanes} lanes");
    assert!(b.tracker.lanes.open.len() <= lanes::MANY_LANES, "{} places", b.tracker.lanes.open.len());
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

#[test]
fn coroutine_stacks_that_are_given_up_are_told() {
    let mut b = bench();
    for n in 0..=lanes::MAX_STACKS as u64 {
        b.event(stack(n, STACK + n * 0x2000));
    }
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert!(summary.notes.iter().any(|note| note.starts_with("1 stacks of coroutines")), "{:?}", summary.notes);
}
