//! What the probes cost within a call, to be taken off its duration.
//!
//! Each lane has a running total of the traps made in it. What it grew by from a call's entry to its exit lay inside of
//! that call: whole traps, and of the call's own two the parts between their times. A call takes at least as long as the
//! calls made in it: so the tree stays one, where a trap was cheaper than those that were measured.

use std::rc::Rc;

use super::{Ended, Open, OpenCalls, Step, Trap};
use crate::events::Frames;

/// When in a trap its event's time is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// As at an exit.
    First,
    /// As at an entry.
    Last,
}

impl Step<'_> {
    /// The event's trap goes on the lane's account.
    pub(super) fn pay(&mut self, lane: &mut OpenCalls, trap: Trap, frames: Option<&Frames<'_>>, when: When) {
        let Some(costs) = &self.tracker.costs else { return };
        let cost = costs.of(trap, frames.map(Frames::collected));
        self.tracker.total.measured(cost.whole_ns);
        let spent_ns = lane.spent_ns.get_or_insert_with(Rc::default);
        let before_ns = spent_ns.get();
        let until_now_ns = match when {
            When::First => cost.inside_ns,
            When::Last => cost.whole_ns.saturating_sub(cost.inside_ns),
        };
        self.spent_ns = before_ns.saturating_add(until_now_ns);
        spent_ns.set(before_ns.saturating_add(cost.whole_ns));
    }

    /// Of the time of a call that ends now, what the probes cost, and what remains (of one whose time is not known: what
    /// the calls in it took), ns.
    pub(super) fn overhead(&self, open: &Open, ended: &Ended) -> (u64, u64) {
        let Some(spent) = &open.call.spent else { return (0, 0) };
        let Some(end_ns) = ended.end_ns.filter(|_| !ended.lost) else { return (0, open.inner_ns) };
        let took_ns = end_ns.saturating_sub(open.call.start_ns);
        let overhead_ns = self.spent_ns.saturating_sub(spent.before_ns).min(took_ns.saturating_sub(open.inner_ns));
        (overhead_ns, took_ns - overhead_ns)
    }
}
