//! What the probes cost the target, judged from the events alone.

use symbols::code::EntryCost;

use crate::plan::PointKind;

/// What kind of trap an event is made in. They differ tenfold in cost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trap {
    /// An entry at an instruction that the kernel emulates.
    CheapEntry,
    /// An entry at one that it single-steps.
    Entry,
    /// A RET, always single-stepped.
    Return,
    /// A jump, emulated when it is direct.
    Jump,
}

impl Trap {
    const KINDS: usize = 4;

    pub(super) fn of(kind: PointKind, entry: EntryCost) -> Self {
        match (kind, entry) {
            (PointKind::Entry, EntryCost::SingleStep) => Self::Entry,
            (PointKind::Entry, _) => Self::CheapEntry,
            (PointKind::TailJump | PointKind::MaybeJump, _) => Self::Jump,
            _ => Self::Return,
        }
    }
}

/// What the probes cost the target at least, from the events themselves: of many events some stand next to each
/// other with hardly an instruction between, and the time between them is the first one's trap.
#[derive(Default)]
pub(super) struct Cost {
    /// Events, and the shortest time to the next event of the same lane (ns), by [`Trap`].
    traps: [(u64, Option<u64>); Trap::KINDS],
}

/// Fewer events say nothing about the shortest time between two.
const MIN_SAMPLES: u64 = 200;

impl Cost {
    pub(super) fn event(&mut self, trap: Trap, last: Option<(Trap, u64)>, time_ns: u64) {
        self.traps[trap as usize].0 += 1;
        if let Some((before, at)) = last {
            let gap = time_ns.saturating_sub(at);
            let shortest = &mut self.traps[before as usize].1;
            *shortest = Some(shortest.map_or(gap, |s| s.min(gap)));
        }
    }

    /// Events that were made and not told of.
    pub(super) fn unseen(&mut self, trap: Trap, events: u64) {
        self.traps[trap as usize].0 += events;
    }

    /// All events together, ns; 0: not known.
    pub(super) fn total_ns(&self) -> u64 {
        let known = self.traps.iter().filter(|(events, _)| *events >= MIN_SAMPLES);
        known.map(|(events, shortest)| events.saturating_mul(shortest.unwrap_or(0))).sum()
    }
}
