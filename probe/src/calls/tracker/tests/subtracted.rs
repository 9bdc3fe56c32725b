//! What the probes cost is taken off durations.

use super::*;
use crate::calls::{
    NewFile,
    overhead::{Cost, TrapKind},
};

/// The tracker's functions begin at emulated instructions. An entry: 100 ns, of them 30 behind its time; a return: 1000,
/// 20 before it; a jump: 50, 5 before it; a point: 400.
fn costs() -> Costs {
    let mut costs = Costs::default();
    for (kind, whole_ns, inside_ns) in [
        (TrapKind::EmulatedEntry, 100, 30),
        (TrapKind::Return, 1000, 20),
        (TrapKind::Jump, 50, 5),
        (TrapKind::Passed, 400, 0),
    ] {
        let trap = Trap { kind, go: false };
        costs.bare[trap.index()] = Cost { whole_ns, inside_ns };
        costs.with_callers[trap.index()] = Cost { whole_ns: whole_ns + 500, inside_ns: inside_ns + 7 };
    }
    costs.caller_ns = 10;
    costs.unreadable_ns = 5000;
    costs
}

fn subtracting() -> Bench {
    let mut bench = bench();
    bench.tracker.subtract(costs());
    bench
}

impl Bench {
    /// An event of thread 1 with callers.
    fn with_callers(&mut self, time_ns: u64, depth: u64, point: u32, callers: usize, detail: u16) -> &mut Self {
        let bytes = vec![1; callers * 8];
        let event = Event { time_ns, depth, goid: 0, pid_tgid: 1 << 32 | 1, point, lost: 0 };
        let record = Record { event, generation: 0, origin: None, frames: Some(Frames::from_bytes(&bytes, detail)) };
        self.tracker.record(&record, &mut OneLoss, &mut self.told).expect("made-up sinks do not fail");
        self
    }

    /// What was told of ends, and nothing else.
    #[track_caller]
    fn ends(&self, expected: &[&str]) {
        let ends: Vec<&String> = self.told.0.iter().filter(|line| line.contains(" after ")).collect();
        assert_eq!(ends, expected);
    }
}

#[test]
fn of_a_calls_own_traps_only_the_parts_between_their_times_are_in_it() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(1500, 100, exit(F));
    b.at(2000, 100, entry(F)).at(2500, 100, TAIL_OF_F);
    b.ends(&["1 Return after 450 on 1", "2 TailCall after 465 on 1"]);
}

#[test]
fn the_traps_of_inner_calls_are_in_it_as_a_whole_at_any_depth() {
    let mut b = subtracting();
    b.at(10_000, 100, entry(F)).at(12_000, 200, entry(G)).at(13_000, 300, entry(G));
    b.at(14_000, 300, exit(G)).at(16_000, 200, exit(G)).at(20_000, 100, exit(F));
    b.ends(&[
        "3 Return after 950 on 1",
        // 4000, less 50 of its own and 1100 of the one in it.
        "2 Return after 2850 on 1",
        // 10,000, less 50 and twice 1100.
        "1 Return after 7750 on 1",
    ]);
}

#[test]
fn what_was_before_a_call_is_not_in_it() {
    let mut b = subtracting();
    for start in [10_000, 20_000, 30_000] {
        b.at(start, 100, entry(F)).at(start + 500, 100, exit(F));
    }
    b.ends(&["1 Return after 450 on 1", "2 Return after 450 on 1", "3 Return after 450 on 1"]);
}

#[test]
fn nothing_takes_less_than_nothing_or_than_the_calls_in_it() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(1010, 100, exit(F));
    b.at(2000, 100, entry(F)).at(2010, 200, entry(G)).at(2500, 200, exit(G)).at(2520, 100, exit(F));
    b.ends(&["1 Return after 0 on 1", "3 Return after 440 on 1", "2 Return after 440 on 1"]);
}

#[test]
fn calls_whose_end_is_not_known_still_have_taken_what_the_calls_in_them_did() {
    let mut b = subtracting();
    b.at(2000, 100, entry(F)).at(2005, 150, entry(G)).at(2010, 200, entry(G)).at(2500, 200, exit(G));
    b.at(2520, 100, exit(F));
    b.ends(&["3 Return after 440 on 1", "2 Unwind after ? on 1", "1 Return after 440 on 1"]);
}

#[test]
fn only_the_traps_of_its_own_goroutine_are_in_a_call_wherever_it_runs() {
    let mut b = subtracting();
    b.on_goroutine(7, 1, 10_000, 100, entry(F)).on_goroutine(8, 1, 11_000, 100, entry(F));
    b.on_goroutine(8, 1, 12_000, 100, exit(F));
    b.on_goroutine(7, 2, 13_000, 200, entry(G)).on_goroutine(7, 3, 15_000, 200, exit(G));
    b.on_goroutine(7, 3, 20_000, 100, exit(F));
    b.ends(&["2 Return after 950 on 1", "3 Return after 1950 on 3", "1 Return after 8850 on 3"]);
}

#[test]
fn points_and_what_is_passed_again_cost_too() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(1100, 140, POINT).at(1200, 140, POINT).at(3000, 100, exit(F));
    b.at(5000, 100, entry(LOOPS)).at(5500, 100, entry(LOOPS)).at(6000, 100, exit(LOOPS));
    b.ends(&["1 Return after 1150 on 1", "2 Return after 850 on 1"]);
}

#[test]
fn an_unwound_call_ends_at_the_first_of_the_trap_that_tells_so() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(2000, 200, entry(G)).at(5000, 150, LANDING).at(9000, 100, exit(F));
    b.ends(&["2 Unwind after 2950 on 1", "1 Return after 6850 on 1"]);
}

#[test]
fn a_thread_that_ends_has_no_trap_at_its_end() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(2000, 200, entry(G)).at(5000, 0, POINT_THREAD_EXIT);
    b.ends(&["2 Exit after 2970 on 1", "1 Exit after 3870 on 1"]);
}

#[test]
fn collecting_callers_costs_by_their_number_and_by_how_it_ended() {
    let mut b = subtracting();
    b.with_callers(10_000, 100, entry(F), 4, WALK_END);
    b.with_callers(12_000, 200, entry(G), 3, WALK_END).at(14_000, 200, exit(G));
    b.with_callers(16_000, 200, entry(G), 1, probe_ebpf::abi::WALK_UNREADABLE).at(18_000, 200, exit(G));
    b.at(40_000, 100, exit(F));
    b.ends(&[
        "2 Return after 1943 on 1",
        "3 Return after 1943 on 1",
        // 30,000, less 57 of its own, 600 + 20 and 600 + 5000 at the entries in it, and two returns.
        "1 Return after 21723 on 1",
    ]);
}

/// Keeps the calls that began.
#[derive(Default)]
struct Begun(Vec<Enter>);

impl Sink for Begun {
    fn begin(&mut self, _: &TraceInfo) -> io::Result<()> {
        Ok(())
    }
    fn enter(&mut self, enter: &Enter) -> io::Result<()> {
        self.0.push(enter.clone());
        Ok(())
    }
    fn leave(&mut self, _: &Leave) -> io::Result<()> {
        Ok(())
    }
    fn point(&mut self, _: &Point) -> io::Result<()> {
        Ok(())
    }
    fn grown(&mut self, _: &TraceInfo, _: &NewFile) -> io::Result<()> {
        Ok(())
    }
    fn shed(&mut self, _: &Shed) -> io::Result<()> {
        Ok(())
    }
    fn tick(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn end(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_open_call_has_taken_the_time_up_to_now_less_what_the_probes_cost_since_it_began() {
    for (costs, outer_ns, inner_ns) in [(Some(costs()), 10_000 - 30 - 1200, 8000 - 30), (None, 10_000, 8000)] {
        let mut tracker = tracker(Limits::default());
        if let Some(costs) = costs {
            tracker.subtract(costs);
        }
        let mut begun = Begun::default();
        let mut event = |time_ns, depth, point| {
            let event = Event { time_ns, depth, goid: 0, pid_tgid: 1 << 32 | 1, point, lost: 0 };
            let record = Record { event, generation: 0, origin: None, frames: None };
            tracker.record(&record, &mut OneLoss, &mut begun).expect("made-up sinks do not fail");
        };
        event(10_000, 100, entry(F));
        event(10_500, 200, entry(G));
        event(11_000, 200, exit(G));
        event(12_000, 200, entry(G));
        let open: Vec<u64> = begun.0.iter().map(|enter| enter.open_ns(20_000)).collect();
        assert_eq!((open[0], open[2]), (outer_ns, inner_ns));
    }
}

#[test]
fn what_all_traps_cost_is_in_the_summary() {
    let mut b = subtracting();
    b.at(1000, 100, entry(F)).at(2000, 200, entry(G)).at(5000, 150, LANDING).at(9000, 100, exit(F));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.probes_ns, 2 * 100 + 2 * 1000);
}
