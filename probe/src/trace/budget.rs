//! The budget: which functions to do without when a trace makes too many events.
//!
//! In: how often each point was passed, some times a second. Out: functions to shed. Pure.
//!
//! A budget is in events a second, but what it guards is the target's time, and the kernel gets over some instructions
//! tens of times faster than over others: it emulates a push and executes a RET in a second trap. So an event counts by its
//! point: the two of a usual call, entered at a push and left at a RET, as two; an emulated one alone 0.2, a
//! single-stepped one alone 1.8. In this is what it takes to read an event and to write it down.
//!
//! What is kept are the coolest functions, as many as fit: so one that does not fit costs no other its place.

use std::collections::{BTreeMap, BTreeSet};

use symbols::code::EntryCost;

use crate::{
    attach::Rehearsal,
    calls::Shed,
    plan::{Plan, PlannedFunction, PlannedPoint, PointKind},
};

/// What an event counts, in tenths. Measured on a virtual machine: 0.5 µs and 14.7 µs in the kernel, 1 µs to read it.
const EMULATED: u64 = 2;
const STEPPED: u64 = 18;
/// What a budget's event is.
const EVENT: u64 = 10;

/// A part of a second: what is within it may come at once.
const PERIOD_NS: u64 = 200_000_000;
/// Two looks in shorter order tell no rate.
const MIN_NS: u64 = 20_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// How much of the budget is used after functions were shed: what remains is called more often once it is not held up.
const GOAL: (u64, u64) = (3, 4);
/// Of two functions equally hot, the standard library's goes first: the program's own is taken for so much cooler. A server
/// calls hundreds of the library's functions once for each request, and one or two of its own.
const OWN: u64 = 16;

/// A function's share in one look.
struct Share {
    function: u32,
    events: u64,
    /// Tenths of an event.
    cost: u64,
}

/// Keeps a trace within its budget.
pub(super) struct Budget {
    /// Events a second.
    limit: u64,
    /// By point: its function, and what an event counts; none: it does not share.
    points: Vec<Option<(u32, u64)>>,
    /// By function: not the language's own library's.
    own: Vec<bool>,
    shed: BTreeSet<u32>,
    /// Since when (`CLOCK_MONOTONIC`, ns), and the counts then.
    since: (u64, Vec<u64>),
}

impl Budget {
    /// `limit`: events a second. `counts` are those of `now_ns`.
    pub(super) fn new(plan: &Plan, limit: u64, now_ns: u64, counts: Vec<u64>) -> Self {
        Self {
            limit,
            points: plan.points.iter().map(|point| shared(point, &plan.functions)).collect(),
            own: plan.functions.iter().map(|function| !function.standard).collect(),
            shed: BTreeSet::new(),
            since: (now_ns, counts),
        }
    }

    /// The plan has grown.
    pub(super) fn grow(&mut self, plan: &Plan) {
        self.points.extend(plan.points.iter().skip(self.points.len()).map(|point| shared(point, &plan.functions)));
        self.own.extend(plan.functions.iter().skip(self.own.len()).map(|function| !function.standard));
        self.since.1.resize(self.points.len(), 0);
    }

    /// Looks at the counts of `now_ns`: what is to be shed, the hottest first. [`Self::begin_anew`] is to follow when it
    /// was.
    pub(super) fn look(&mut self, now_ns: u64, counts: &[u64]) -> Vec<Shed> {
        let elapsed_ns = now_ns.saturating_sub(self.since.0);
        if elapsed_ns < MIN_NS {
            return Vec::new();
        }
        let mut shares = self.shares(counts);
        let cost: u64 = shares.iter().map(|share| share.cost).sum();
        if !self.is_beyond(cost, elapsed_ns.max(PERIOD_NS), (1, 1)) {
            if elapsed_ns >= PERIOD_NS {
                self.begin_anew(now_ns, counts.to_vec());
            }
            return Vec::new();
        }
        shares.sort_by_key(|share| self.keep_before(share));
        let mut kept = 0;
        let mut shed = Vec::new();
        for share in shares {
            if self.is_beyond(kept + share.cost, elapsed_ns, GOAL) {
                let rate = u128::from(share.events) * u128::from(SECOND_NS) / u128::from(elapsed_ns);
                shed.push(Shed { function: share.function, rate: rate as u64, at_ns: now_ns });
            } else {
                kept += share.cost;
            }
        }
        self.shed.extend(shed.iter().map(|shed| shed.function));
        shed.sort_by_key(|shed| (std::cmp::Reverse(shed.rate), shed.function));
        shed
    }

    /// Counts from here on.
    pub(super) fn begin_anew(&mut self, now_ns: u64, counts: Vec<u64>) {
        self.since = (now_ns, counts);
    }

    /// Functions that were called since the start.
    pub(super) fn called(&self, counts: &[u64]) -> BTreeSet<u32> {
        let points = self.points.iter().zip(counts).filter(|(_, count)| **count > 0);
        points.filter_map(|(point, _)| point.map(|(function, _)| function)).collect()
    }

    /// What each function that shares was called since the last begin; only where it was.
    fn shares(&self, counts: &[u64]) -> Vec<Share> {
        let mut by_function: Vec<(u64, u64)> = vec![(0, 0); self.own.len()];
        for ((point, now), before) in self.points.iter().zip(counts).zip(&self.since.1) {
            let events = now.wrapping_sub(*before);
            if let Some((function, weight)) = point
                && let Some((sum, cost)) = by_function.get_mut(*function as usize)
            {
                *sum += events;
                *cost += events.saturating_mul(*weight);
            }
        }
        let numbered = (0_u32..).zip(by_function).filter(|(function, _)| !self.shed.contains(function));
        let shares = numbered.map(|(function, (events, cost))| Share { function, events, cost });
        shares.filter(|share| share.events > 0).collect()
    }

    /// Whether that is more in that time than this part of the budget.
    fn is_beyond(&self, cost: u64, elapsed_ns: u64, (part, of): (u64, u64)) -> bool {
        let allowed = u128::from(self.limit) * u128::from(EVENT) * u128::from(part) * u128::from(elapsed_ns);
        u128::from(cost) * u128::from(SECOND_NS) * u128::from(of) > allowed
    }

    /// What is to be kept rather is less. Within a factor of two, functions are equally hot: counts of a moment are no more
    /// exact than that. Of these the last in the file come first: linkers place a library before what uses it.
    fn keep_before(&self, share: &Share) -> (u32, std::cmp::Reverse<u32>) {
        let own = self.own.get(share.function as usize).copied().unwrap_or(true);
        let heat = share.cost / if own { OWN } else { 1 };
        (heat.checked_ilog2().map_or(0, |log| log + 1), std::cmp::Reverse(share.function))
    }
}

/// What is too hot by a rehearsal, the hottest first: as if the trace had gone on so, with a return for each entry.
pub(super) fn beforehand(plan: &Plan, limit: u64, rehearsal: &Rehearsal) -> Vec<Shed> {
    let mut budget = Budget::new(plan, limit, rehearsal.begin_ns, vec![0; plan.points.len()]);
    budget.look(rehearsal.end_ns, &with_returns(&plan.points, &rehearsal.counts))
}

/// Adds to counts of entries those of the exits that they will have: at a function's first RET, or else at its last exit.
fn with_returns(points: &[PlannedPoint], entries: &[u64]) -> Vec<u64> {
    let mut calls: BTreeMap<u32, u64> = BTreeMap::new();
    let mut exits: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, (point, passed)) in points.iter().zip(entries).enumerate() {
        match point.kind {
            PointKind::Entry => *calls.entry(point.function).or_default() += passed,
            PointKind::Passed => {}
            _ => {
                let exit = exits.entry(point.function).or_insert(number);
                if points.get(*exit).is_some_and(|known| known.kind != PointKind::Return) {
                    *exit = number;
                }
            }
        }
    }
    let mut counts = entries.to_vec();
    for (function, exit) in exits {
        if let (Some(count), Some(calls)) = (counts.get_mut(exit), calls.get(&function)) {
            *count = *calls;
        }
    }
    counts
}

/// The function of a point that shares in the budget, and what its events count.
fn shared(point: &PlannedPoint, functions: &[PlannedFunction]) -> Option<(u32, u64)> {
    let function = functions.get(point.function as usize).filter(|function| !function.exact)?;
    let weight = match (point.kind, function.cost) {
        (PointKind::Entry, EntryCost::SingleStep) | (PointKind::Return, _) => STEPPED,
        // A direct jump is emulated; an indirect one is not, and is rare.
        _ => EMULATED,
    };
    Some((point.function, weight))
}

#[cfg(test)]
mod tests {
    use probe_ebpf::abi::Cookie;
    use symbols::addr::FileOffset;

    use super::*;
    use crate::calls::TracedFunction;

    const MS: u64 = 1_000_000;

    /// Functions with an emulated entry (point 2n) and a RET (2n + 1).
    fn plan(functions: &[(bool, bool)]) -> Plan {
        let mut plan = Plan::default();
        for (number, &(exact, standard)) in (0_u32..).zip(functions) {
            plan.functions.push(PlannedFunction {
                traced: TracedFunction { name: number.to_string(), binary: String::new(), address: 0, point: None },
                may_repeat: false,
                unprobed_jumps: false,
                cost: EntryCost::Emulated,
                exact,
                standard,
            });
            for kind in [PointKind::Entry, PointKind::Return] {
                let cookie = Cookie::native(plan.points.len() as u32);
                plan.points.push(PlannedPoint { file: 0, offset: FileOffset(0), kind, function: number, cookie });
            }
        }
        plan
    }

    const GLOB: (bool, bool) = (false, false);
    const STANDARD: (bool, bool) = (false, true);
    const EXACT: (bool, bool) = (true, false);

    fn budget(functions: &[(bool, bool)], limit: u64) -> Budget {
        Budget::new(&plan(functions), limit, 0, vec![0; functions.len() * 2])
    }

    /// Counts after so many calls of each function.
    fn after(calls: &[u64]) -> Vec<u64> {
        calls.iter().flat_map(|&n| [n, n]).collect()
    }

    fn functions(shed: &[Shed]) -> Vec<u32> {
        shed.iter().map(|shed| shed.function).collect()
    }

    #[test]
    fn within_the_budget_everything_is_kept() {
        let mut budget = budget(&[GLOB, GLOB], 1000);
        for period in 1..10 {
            // 490 calls a second of each: 1,960 events in two seconds.
            let calls = 49 * period;
            assert_eq!(budget.look(period * 200 * MS, &after(&[calls, calls])), []);
        }
    }

    #[test]
    fn the_hottest_go_first_and_no_more_than_needed() {
        let mut budget = budget(&[GLOB, GLOB, GLOB], 10_000);
        let shed = budget.look(100 * MS, &after(&[50, 100_000, 200]));
        assert_eq!(shed, [Shed { function: 1, rate: 2_000_000, at_ns: 100 * MS }]);
    }

    #[test]
    fn functions_that_come_later_share_in_it() {
        let mut budget = budget(&[GLOB], 10_000);
        budget.grow(&plan(&[GLOB, EXACT, GLOB]));
        let shed = budget.look(100 * MS, &after(&[50, 100_000, 100_000]));
        assert_eq!(functions(&shed), [2]);
    }

    #[test]
    fn what_is_named_exactly_neither_goes_nor_counts() {
        let mut budget = budget(&[EXACT, GLOB], 1000);
        assert_eq!(budget.look(200 * MS, &after(&[1_000_000, 10])), []);
        assert_eq!(functions(&budget.look(400 * MS, &after(&[2_000_000, 1_000_000]))), [1]);
    }

    #[test]
    fn a_burst_that_is_short_sheds_nothing() {
        let mut budget = budget(&[GLOB], 10_000);
        // A fifth of a second's events at once.
        assert_eq!(budget.look(30 * MS, &after(&[900])), []);
        assert_eq!(budget.look(250 * MS, &after(&[950])), []);
    }

    #[test]
    fn a_library_goes_before_the_program_that_calls_it() {
        let mut budget = budget(&[GLOB, STANDARD, GLOB], 1700);
        assert_eq!(functions(&budget.look(200 * MS, &after(&[100, 95, 10]))), [1]);
    }

    #[test]
    fn the_program_itself_stays_where_the_library_is_called_as_often() {
        // A request calls 40 functions of the library, two of the program's (one before and one behind them), and a third
        // one sixty times.
        let functions = [vec![GLOB], vec![STANDARD; 40], vec![GLOB, GLOB]].concat();
        let mut calls = vec![100; functions.len()];
        calls[41] = 6000;
        let shed = budget(&functions, 5000).look(1000 * MS, &after(&calls));
        let shed: BTreeSet<u32> = shed.iter().map(|shed| shed.function).collect();
        assert!(shed.contains(&41) && !shed.contains(&0) && !shed.contains(&42), "{shed:?}");
        // 200 events each: three quarters of 5,000 are enough for 18 functions.
        assert_eq!(functions.len() - shed.len(), 18);
    }

    #[test]
    fn what_alone_is_too_much_costs_no_other_its_place() {
        let mut budget = budget(&[GLOB, STANDARD, STANDARD], 1000);
        assert_eq!(functions(&budget.look(1000 * MS, &after(&[5000, 180, 180]))), [0]);
    }

    #[test]
    fn of_functions_about_equally_hot_those_that_use_the_others_stay() {
        let mut budget = budget(&[STANDARD; 4], 700);
        assert_eq!(functions(&budget.look(1000 * MS, &after(&[140, 138, 135, 130]))), [0, 1, 2]);
    }

    #[test]
    fn a_rehearsal_counts_a_return_for_each_entry() {
        let mut plan = plan(&[GLOB, GLOB, EXACT]);
        let rehearse = |plan: &Plan, counts: &[u64]| {
            let rehearsal = Rehearsal { begin_ns: 5 * MS, end_ns: 105 * MS, counts: counts.to_vec() };
            beforehand(plan, 10_000, &rehearsal)
        };
        // 1,000 events in a tenth of a second would be in the budget; with the returns 2,000 cost twice as much as is.
        assert_eq!(rehearse(&plan, &[100, 0, 1000, 0, 9000, 0]), [Shed { function: 1, rate: 20_000, at_ns: 105 * MS }]);
        assert_eq!(rehearse(&plan, &[100, 0, 200, 0, 9000, 0]), []);
        // One that ends in a jump costs but a tenth of it.
        plan.points[3].kind = PointKind::TailJump;
        assert_eq!(rehearse(&plan, &[100, 0, 1000, 0, 9000, 0]), []);
    }

    #[test]
    fn a_rehearsal_takes_a_return_for_the_usual_exit() {
        let mut plan = plan(&[GLOB]);
        for kind in [PointKind::TailJump, PointKind::MaybeJump] {
            plan.points.push(PlannedPoint { kind, ..plan.points[1] });
        }
        assert_eq!(with_returns(&plan.points, &[7, 0, 0, 0]), [7, 7, 0, 0]);
        plan.points.swap(1, 3);
        assert_eq!(with_returns(&plan.points, &[7, 0, 0, 0]), [7, 0, 0, 7]);
    }

    #[test]
    fn what_was_shed_is_not_shed_again_while_its_links_go() {
        let mut budget = budget(&[GLOB, GLOB], 1000);
        assert_eq!(functions(&budget.look(100 * MS, &after(&[100_000, 1]))), [0]);
        assert_eq!(budget.look(200 * MS, &after(&[200_000, 2])), []);
    }

    #[test]
    fn what_gets_faster_afterwards_goes_in_the_next_round() {
        let mut budget = budget(&[GLOB, GLOB], 1000);
        assert_eq!(functions(&budget.look(100 * MS, &after(&[10_000, 30]))), [0]);
        budget.begin_anew(150 * MS, after(&[11_000, 40]));
        assert_eq!(functions(&budget.look(250 * MS, &after(&[11_000, 3_000]))), [1]);
    }

    #[test]
    fn single_stepped_entries_count_more_than_emulated_ones() {
        let count = |cost| {
            let mut plan = plan(&[GLOB]);
            plan.functions[0].cost = cost;
            plan.points.truncate(1);
            let mut budget = Budget::new(&plan, 1000, 0, vec![0]);
            budget.look(1000 * MS, &[2000]).len()
        };
        assert_eq!((count(EntryCost::Emulated), count(EntryCost::SingleStep)), (0, 1));
    }

    #[test]
    fn functions_called_so_far_are_known() {
        assert_eq!(budget(&[GLOB, GLOB], 1).called(&[0, 0, 1, 0]), BTreeSet::from([1]));
    }
}
