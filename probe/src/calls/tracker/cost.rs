//! What the probes cost the target, all together: as measured, else judged from the events alone.

use crate::calls::overhead::Trap;

/// What the probes cost the target. Where it was not measured, at least, from the events themselves: of many events some
/// stand next to each other with hardly an instruction between, and the time between them is the first one's trap.
#[derive(Default)]
pub(super) struct Total {
    /// Events, and the shortest time to the next event of the same lane (ns), by [`Trap::index`].
    traps: [(u64, Option<u64>); Trap::COUNT],
    measured_ns: u64,
}

/// Fewer events say nothing about the shortest time between two.
const MIN_SAMPLES: u64 = 200;

impl Total {
    pub(super) fn event(&mut self, trap: Trap, last: Option<(Trap, u64)>, time_ns: u64) {
        self.traps[trap.index()].0 += 1;
        if let Some((before, at)) = last {
            let gap = time_ns.saturating_sub(at);
            let shortest = &mut self.traps[before.index()].1;
            *shortest = Some(shortest.map_or(gap, |s| s.min(gap)));
        }
    }

    /// The cost of a trap is known.
    pub(super) fn measured(&mut self, whole_ns: u64) {
        self.measured_ns = self.measured_ns.saturating_add(whole_ns);
    }

    /// Events that were made and not told of.
    pub(super) fn unseen(&mut self, trap: Trap, events: u64) {
        self.traps[trap.index()].0 += events;
    }

    /// All events together, ns; 0: not known.
    pub(super) fn total_ns(&self) -> u64 {
        if self.measured_ns > 0 {
            return self.measured_ns;
        }
        let known = self.traps.iter().filter(|(events, _)| *events >= MIN_SAMPLES);
        known.map(|(events, shortest)| events.saturating_mul(shortest.unwrap_or(0))).sum()
    }
}
