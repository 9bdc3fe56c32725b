//! What traps really took, where the kernel half times them.
//!
//! Before each record it tells of the record's trap: since when the thread is in it, and how long the thread's steps took until
//! then. So how much of a trap came before an event's own time is known with the event; how long the rest took, if it was
//! stepped through, with the thread's next event. Until then the event's lane owes it, and nobody else: what other lanes do on
//! that thread meanwhile comes with records of its own.

use probe_ebpf::abi::Event;
use rustc_hash::FxHashMap;

use super::lanes::LaneKey;

/// Threads that are known at once. Those that end are forgotten; those whose end was lost, when there are so many.
const MAX_THREADS: usize = 1 << 16;

/// A thread's latest trap.
#[derive(Clone, Copy, Default)]
struct Thread {
    /// When it began (`CLOCK_MONOTONIC`, ns); 0: not known, or taken by an event.
    since_ns: u64,
    /// How long its steps took until then, and what it waited for a processor after traps, ns.
    spent_ns: u64,
    /// How many steps they were.
    steps: u64,
    /// The last event that is accounted for.
    last: Option<Last>,
}

/// An event in a trap.
#[derive(Clone, Copy)]
struct Last {
    lane: LaneKey,
    /// How much of the trap was over by then, ns.
    until_then_ns: u64,
    spent_ns: u64,
    steps: u64,
}

/// What a lane still owes for the trap of its last event.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    /// In which thread the trap is.
    pub(super) thread: u64,
    /// As much as is usual, ns: if more is not known.
    pub(super) usual_ns: u64,
}

/// What was after an earlier event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// How many steps: of traps without events, too.
    pub(super) steps: u64,
    /// How long until the end of the last one, ns, and how long the thread waited for a processor.
    pub(super) took_ns: u64,
}

/// What is known at an event.
pub(super) struct Timed {
    /// Whose the thread's event before this one was, and what was after it.
    pub(super) earlier: Option<(LaneKey, Rest)>,
    /// How much of this trap lies before the event's time, ns.
    pub(super) until_now_ns: u64,
}

/// The traps of all threads.
#[derive(Default)]
pub(super) struct Traps {
    threads: FxHashMap<u64, Thread>,
}

impl Traps {
    /// A thread is in a trap: `POINT_TRAP`.
    pub(super) fn told(&mut self, event: &Event) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&event.pid_tgid) {
            self.threads.clear();
        }
        let thread = self.threads.entry(event.pid_tgid).or_default();
        let since_ns = if event.lost == 0 { event.time_ns } else { 0 };
        (thread.since_ns, thread.spent_ns, thread.steps) = (since_ns, event.depth, event.goid);
    }

    /// An event in the trap that was told of last, of this lane; none where that is not timed.
    pub(super) fn event(&mut self, event: &Event, lane: LaneKey) -> Option<Timed> {
        let thread = self.threads.get_mut(&event.pid_tgid)?;
        let since_ns = std::mem::take(&mut thread.since_ns);
        if since_ns == 0 {
            thread.last = None;
            return None;
        }
        let until_now_ns = event.time_ns.saturating_sub(since_ns);
        let Thread { spent_ns, steps, .. } = *thread;
        let last = thread.last.replace(Last { lane, until_then_ns: until_now_ns, spent_ns, steps });
        let rest = |last: Last| {
            let steps = steps.saturating_sub(last.steps);
            let until_then_ns = if steps > 0 { last.until_then_ns } else { 0 };
            Rest { steps, took_ns: spent_ns.saturating_sub(last.spent_ns).saturating_sub(until_then_ns) }
        };
        Some(Timed { earlier: last.map(|last| (last.lane, rest(last))), until_now_ns })
    }

    /// A thread ended.
    pub(super) fn forget(&mut self, thread: u64) {
        self.threads.remove(&thread);
    }

    /// A process did.
    pub(super) fn forget_process(&mut self, pid: u32) {
        self.threads.retain(|thread, _| thread >> 32 != u64::from(pid));
    }
}
