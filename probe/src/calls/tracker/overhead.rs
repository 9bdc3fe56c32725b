//! What the probes cost within a call, to be taken off its duration.
//!
//! Each lane has a running total of the traps made in it. What it grew by from a call's entry to its exit lay inside of
//! that call: whole traps, and of the call's own two the parts between their times. A call takes at least as long as the
//! calls made in it: so the tree stays one, where a trap was cheaper than those that were measured.

use std::rc::Rc;

use super::{
    Ended, Open, OpenCalls, Step, Trap,
    traps::{Owed, Rest},
};
use crate::{calls::overhead::TrapKind, events::Frames};

/// When in a trap its event's time is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// As at an exit.
    First,
    /// As at an entry.
    Last,
}

impl Step<'_> {
    /// The event's trap goes on the lane's account: what it took, where that is known, else what is usual.
    pub(super) fn pay(&mut self, lane: &mut OpenCalls, trap: Trap, frames: Option<&Frames<'_>>, when: When) {
        let Some(costs) = &self.tracker.costs else { return };
        let cost = costs.of(trap, frames.map(Frames::collected));
        let usual_behind_ns = costs.behind_entry_ns[usize::from(frames.is_some())][trap.index()];
        let behind_step_ns = costs.behind_step_ns;
        let timed = match trap.kind {
            // They have a way of their own into the kernel (Linux 6.18, 6.11).
            TrapKind::NopEntry | TrapKind::AfterReturn => None,
            _ => self.tracker.traps.event(self.event, self.lane),
        };
        if let Some((whose, rest)) = timed.as_ref().and_then(|timed| timed.earlier) {
            let thread = self.event.pid_tgid;
            let settled_ns = if whose == self.lane {
                lane.settle(thread, rest, behind_step_ns)
            } else {
                self.tracker.lanes.known(whose).map_or(0, |lane| lane.settle(thread, rest, behind_step_ns))
            };
            self.tracker.total.measured(settled_ns);
        }
        // What came on another thread before: nothing more will be known of it in time.
        self.tracker.total.measured(lane.settle_as_usual());
        let (until_now_ns, rest_ns) = match (&timed, when) {
            (Some(timed), When::First) => (timed.until_now_ns, cost.whole_ns.saturating_sub(timed.until_now_ns)),
            (Some(timed), When::Last) if usual_behind_ns > 0 => (timed.until_now_ns, usual_behind_ns),
            (Some(timed), When::Last) => (timed.until_now_ns, cost.whole_ns.saturating_sub(timed.until_now_ns)),
            (None, When::First) => (cost.inside_ns, cost.whole_ns.saturating_sub(cost.inside_ns)),
            (None, When::Last) => (cost.whole_ns.saturating_sub(cost.inside_ns), cost.inside_ns),
        };
        self.spent_ns = lane.spend(until_now_ns);
        self.tracker.total.measured(until_now_ns);
        lane.owed = Some(Owed { thread: self.event.pid_tgid, usual_ns: rest_ns });
        if timed.is_none() {
            self.tracker.total.measured(lane.settle_as_usual());
        }
    }

    /// The lane has no more traps: what it owes is what is usual.
    pub(super) fn pay_rest(&mut self, lane: &mut OpenCalls) {
        self.tracker.total.measured(lane.settle_as_usual());
        self.spent_ns = lane.spent_ns.as_ref().map_or(0, |spent| spent.get());
    }

    /// Of the time of a call that ends now, what the probes cost, and what remains (of one whose time is not known: what
    /// the calls in it took), ns.
    pub(super) fn overhead(&self, open: &Open, ended: &Ended) -> (u64, u64) {
        let Some(spent) = &open.call().spent else { return (0, 0) };
        let Some(end_ns) = ended.end_ns.filter(|_| !ended.lost) else { return (0, open.inner_ns) };
        let took_ns = end_ns.saturating_sub(open.call().start_ns);
        let overhead_ns = self.spent_ns.saturating_sub(spent.before_ns).min(took_ns.saturating_sub(open.inner_ns));
        (overhead_ns, took_ns - overhead_ns)
    }
}

impl OpenCalls {
    /// So much more; all so far, ns.
    fn spend(&mut self, ns: u64) -> u64 {
        let spent_ns = self.spent_ns.get_or_insert_with(Rc::default);
        spent_ns.set(spent_ns.get().saturating_add(ns));
        spent_ns.get()
    }

    /// What it owes for its last trap, if that was in this thread, is known now; what was spent with it, ns.
    fn settle(&mut self, thread: u64, rest: Rest, behind_step_ns: u64) -> u64 {
        let Some(owed) = self.owed.take_if(|owed| owed.thread == thread) else { return 0 };
        let behind_ns = if rest.steps > 0 { rest.steps.saturating_mul(behind_step_ns) } else { owed.usual_ns };
        let rest_ns = rest.took_ns.saturating_add(behind_ns);
        self.spend(rest_ns);
        rest_ns
    }

    /// The same without knowing how much it was.
    pub(super) fn settle_as_usual(&mut self) -> u64 {
        let Some(owed) = self.owed.take() else { return 0 };
        self.spend(owed.usual_ns);
        owed.usual_ns
    }
}
