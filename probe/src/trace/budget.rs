//! The budget: which functions to do without when a trace makes too many events.
//!
//! In: how often each point was passed, some times a second. Out: functions to shed. Pure.
//!
//! A budget is in events a second, but what it guards is the target's time, and the kernel gets over some instructions
//! tens of times faster than over others: it emulates a push and executes a RET in a second trap. So an event counts by its
//! point: the two of a usual call, entered at a push and left at a RET, as two; an emulated one alone 0.1, a
//! single-stepped one alone 1.9.

use std::collections::BTreeSet;

use symbols::code::EntryCost;

use crate::{
    calls::Shed,
    plan::{Plan, PlannedFunction, PlannedPoint, PointKind},
};

/// What an event counts, in tenths. Measured on a virtual machine: 0.5 µs and 14.7 µs.
const EMULATED: u64 = 1;
const STEPPED: u64 = 19;
/// What a budget's event is.
const EVENT: u64 = 10;

/// A part of a second: what is within it may come at once.
const PERIOD_NS: u64 = 200_000_000;
/// Two looks in shorter order tell no rate.
const MIN_NS: u64 = 20_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// How much of the budget is used after functions were shed: what remains is called more often once it is not held up.
const GOAL: (u64, u64) = (3, 4);
/// Of two functions equally hot, a library's goes first: the program's own is taken for so much cooler.
const OWN: u64 = 4;

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
        shares.sort_by_key(|share| (std::cmp::Reverse(self.heat(share)), share.function));
        let mut left = cost;
        let mut hottest = shares.into_iter();
        let mut shed = Vec::new();
        while self.is_beyond(left, elapsed_ns, GOAL)
            && let Some(share) = hottest.next()
        {
            left -= share.cost;
            self.shed.insert(share.function);
            let rate = u128::from(share.events) * u128::from(SECOND_NS) / u128::from(elapsed_ns);
            shed.push(Shed { function: share.function, rate: rate as u64, at_ns: now_ns });
        }
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

    fn heat(&self, share: &Share) -> u64 {
        let own = self.own.get(share.function as usize).copied().unwrap_or(true);
        share.cost / if own { OWN } else { 1 }
    }
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
