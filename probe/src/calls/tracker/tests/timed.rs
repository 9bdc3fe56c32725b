//! What traps cost is taken off durations as it was timed in each.

use super::*;
use crate::calls::overhead::{Cost, TrapKind};

/// The tracker's functions begin at emulated instructions, 25 ns of which are behind an entry's time: with callers, 60. Of a
/// step, 200 ns are behind its end. Usually a return takes 1000 ns.
fn timing() -> Bench {
    let mut costs = Costs::default();
    for (kind, whole_ns, inside_ns) in [(TrapKind::EmulatedEntry, 100, 30), (TrapKind::Return, 1000, 20)] {
        let trap = Trap { kind, go: false };
        costs.bare[trap.index()] = Cost { whole_ns, inside_ns };
        costs.with_callers[trap.index()] = Cost { whole_ns, inside_ns };
    }
    let entry = Trap { kind: TrapKind::EmulatedEntry, go: false };
    costs.behind_entry_ns[0][entry.index()] = 25;
    costs.behind_entry_ns[1][entry.index()] = 60;
    costs.behind_step_ns = 200;
    let mut bench = bench();
    bench.tracker.subtract(costs);
    bench
}

impl Bench {
    /// The thread is in a trap since then, and has made so many steps before, which took so long.
    fn trap(&mut self, tid: u64, since_ns: u64, steps: u64, stepped_ns: u64) -> &mut Self {
        let pid_tgid = 1 << 32 | tid;
        self.event(Event {
            time_ns: since_ns,
            depth: stepped_ns,
            goid: steps,
            pid_tgid,
            point: POINT_TRAP,
            lost: u32::from(since_ns == 0),
        })
    }

    /// So long calls took, in the order of their ends; none: not known.
    #[track_caller]
    fn took(&self, expected: &[u64]) {
        let ends = self.told.0.iter().filter_map(|line| line.split_once(" after ")?.1.split(' ').next());
        let ends: Vec<u64> = ends.filter_map(|ns| ns.parse().ok()).collect();
        assert_eq!(ends, expected, "{:?}", self.told.0);
    }
}

#[test]
fn a_trap_costs_what_it_took_before_its_events_time_and_its_step_after_that() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).at(10_000, 100, entry(F)).trap(1, 11_900, 0, 0).at(12_000, 200, entry(G));
    b.trap(1, 13_990, 0, 0).at(14_000, 200, exit(G));
    // The step of that return ended 5000 ns after the breakpoint.
    b.trap(1, 19_980, 1, 5000).at(20_000, 100, exit(F));
    let inner = 25 + 10;
    b.took(&[2000 - inner, 10_000 - (25 + 100 + inner + (5000 - 10) + 200 + 20)]);
}

#[test]
fn a_trap_that_was_not_timed_costs_what_is_usual() {
    let mut b = timing();
    b.at(10_000, 100, entry(F)).trap(1, 0, 0, 0).at(12_000, 200, entry(G)).at(14_000, 200, exit(G));
    b.trap(1, 19_980, 7, 90_000).at(20_000, 100, exit(F));
    b.took(&[2000 - 50, 10_000 - (30 + 1100 + 20)]);
}

#[test]
fn an_event_without_a_trap_of_its_own_is_not_taken_for_one_of_the_trap_before() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).at(10_000, 100, entry(F)).at(20_000, 100, exit(F));
    b.took(&[10_000 - (25 + 20)]);
}

#[test]
fn where_no_step_was_made_the_rest_is_what_is_usual() {
    let mut b = timing();
    b.trap(1, 9950, 3, 900).at(10_000, 100, entry(F)).trap(1, 11_900, 3, 900).at(12_000, 200, entry(G));
    b.trap(1, 13_990, 3, 900).at(14_000, 200, exit(G)).trap(1, 19_980, 3, 900).at(20_000, 100, exit(F));
    b.took(&[2000 - 35, 10_000 - (25 + 100 + 35 + 990 + 20)]);
}

#[test]
fn waiting_for_a_processor_at_the_end_of_a_trap_is_no_time_of_the_call() {
    let mut b = timing();
    b.trap(1, 9950, 3, 900).at(10_000, 100, entry(F)).trap(1, 11_900, 3, 900).at(12_000, 200, entry(G));
    // Behind the entry of G; then behind the step of its return.
    b.trap(1, 23_990, 3, 10_900).at(24_000, 200, exit(G)).trap(1, 59_980, 4, 35_900).at(60_000, 100, exit(F));
    let inner = 25 + 10_000 + 10;
    b.took(&[12_000 - inner, 50_000 - (25 + 100 + inner + (25_000 - 10) + 200 + 20)]);
}

#[test]
fn steps_of_traps_without_events_cost_too() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).at(10_000, 100, entry(F));
    b.trap(1, 19_980, 2, 3000).at(20_000, 100, exit(F));
    b.took(&[10_000 - (3000 - 50 + 2 * 200 + 20)]);
}

#[test]
fn a_goroutines_trap_is_not_anothers_that_runs_on_the_thread_next() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).on_goroutine(7, 1, 10_000, 100, entry(F));
    b.trap(1, 11_900, 0, 0).on_goroutine(7, 1, 12_000, 200, entry(G));
    b.trap(1, 13_990, 0, 0).on_goroutine(7, 1, 14_000, 200, exit(G));
    b.trap(1, 19_900, 1, 5000).on_goroutine(8, 1, 20_000, 100, entry(F));
    b.trap(1, 20_990, 1, 5000).on_goroutine(8, 1, 21_000, 100, exit(F));
    // It goes on elsewhere, where other steps were made.
    b.trap(2, 29_980, 9, 90_000).on_goroutine(7, 2, 30_000, 100, exit(F));
    b.took(&[2000 - 35, 1000 - 35, 20_000 - (25 + 100 + 35 + (5000 - 10) + 200 + 20)]);
}

#[test]
fn a_goroutine_that_goes_on_elsewhere_before_its_trap_is_known_has_had_a_usual_one() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).on_goroutine(7, 1, 10_000, 100, entry(F));
    b.trap(1, 11_900, 0, 0).on_goroutine(7, 1, 12_000, 200, entry(G));
    b.trap(1, 13_990, 0, 0).on_goroutine(7, 1, 14_000, 200, exit(G));
    b.trap(2, 24_900, 9, 90_000).on_goroutine(7, 2, 25_000, 200, entry(G));
    // What comes to be known of the trap is too late, and is not another's.
    b.trap(1, 25_900, 1, 5000).on_goroutine(8, 1, 26_000, 100, entry(F));
    b.trap(1, 26_990, 1, 5000).on_goroutine(8, 1, 27_000, 100, exit(F));
    b.trap(2, 27_990, 9, 90_000).on_goroutine(7, 2, 28_000, 200, exit(G));
    b.trap(2, 29_980, 10, 94_000).on_goroutine(7, 2, 30_000, 100, exit(F));
    let first = 25 + 100 + 35 + (1000 - 10);
    b.took(&[2000 - 35, 1000 - 35, 3000 - 35, 20_000 - (first + 100 + 35 + (4000 - 10) + 200 + 20)]);
}

#[test]
fn what_a_thread_leaves_behind_at_its_end_is_not_the_next_ones_of_its_number() {
    let mut b = timing();
    b.trap(1, 9950, 4, 8000).at(10_000, 100, entry(F)).trap(1, 11_900, 4, 8000).at(12_000, 200, entry(G));
    b.trap(1, 13_990, 4, 8000).at(14_000, 200, exit(G));
    b.at(20_000, 0, POINT_THREAD_EXIT);
    b.trap(1, 29_950, 9, 99_000).at(30_000, 100, entry(F)).trap(1, 31_990, 9, 99_000).at(32_000, 100, exit(F));
    b.took(&[2000 - 35, 10_000 - (25 + 100 + 35 + 990), 2000 - 35]);
}

#[test]
fn what_all_timed_traps_cost_is_in_the_summary() {
    let mut b = timing();
    b.trap(1, 9950, 0, 0).at(10_000, 100, entry(F)).trap(1, 13_990, 0, 0).at(14_000, 100, exit(F));
    b.trap(1, 19_900, 1, 5000).at(20_000, 100, entry(F)).trap(1, 23_990, 1, 5000).at(24_000, 100, exit(F));
    let summary = b.tracker.finish(&mut b.told).expect("made-up sinks do not fail");
    assert_eq!(summary.probes_ns, 50 + 25 + 10 + (5000 - 10 + 200) + 100 + 25 + 10 + 990);
}
