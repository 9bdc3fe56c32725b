//! Which calls `--min-duration` lets the kernel half leave out: the rules, apart from maps and helpers, so that the reading
//! half's tests can hold them against a trace that leaves out nothing.
//!
//! An entry is held back until its call's end shows how long it took. What is told of a lane is what would be told
//! without this, in the same order, less short calls that hold none that was told of: everything else first tells what is
//! held back. A call is only held back where it cannot be what proves that an open one is over.

use crate::abi::Event;

/// Entries that a lane holds back at most: one less than a power of two.
pub const MAX_HELD: usize = 7;
/// [`Deferred::outermost`]: no call is open that was told of.
pub const NONE_OPEN: u64 = u64::MAX;
/// Number of the function of points that belong to none.
pub const NO_FUNCTION: u32 = u32::MAX;

/// What is held back of a lane (a thread or a goroutine), and what the reading half knows of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferred {
    /// Depth of the outermost open call that was told of; [`NONE_OPEN`].
    pub outermost: u64,
    /// Calls that were told of are open at this depth and at lesser ones only.
    pub floor: u64,
    /// How many of `slots` are used.
    pub held: u64,
    /// The first is never used. Then entries, each deeper than the one before: so `held` is the innermost one's place, and
    /// nothing is taken off it (Linux 6.1: the verifier does not see that what is not 0 is at least 1).
    slots: [Event; MAX_HELD + 1],
}

const NO_EVENT: Event = Event { time_ns: 0, depth: 0, goid: 0, pid_tgid: 0, point: 0, lost: 0 };

impl Deferred {
    /// Of a lane in which nothing is open.
    pub const EMPTY: Self = Self { outermost: NONE_OPEN, floor: 0, held: 0, slots: [NO_EVENT; MAX_HELD + 1] };

    /// The innermost entry held back.
    #[inline(always)]
    pub fn top(&self) -> Option<&Event> {
        if self.held == 0 { None } else { Some(&self.slots[self.held as usize & MAX_HELD]) }
    }

    /// What is held back, outermost first.
    pub fn entries(&self) -> &[Event] {
        self.slots.get(1..=self.held as usize).unwrap_or_default()
    }

    /// Whether what is held back has to be told before an entry at this depth: it cannot be inside of it, or there is no
    /// room.
    #[inline(always)]
    pub fn is_to_be_told_before(&self, depth: u64) -> bool {
        self.held >= MAX_HELD as u64 || self.top().is_some_and(|top| depth <= top.depth)
    }

    /// Whether an entry at this depth may be held back: it would not end a call that was told of.
    #[inline(always)]
    pub fn may_hold(&self, depth: u64) -> bool {
        self.held > 0 || self.outermost == NONE_OPEN || depth > self.floor
    }

    /// Holds an entry back.
    #[inline(always)]
    pub fn hold(&mut self, entry: Event) {
        self.held += 1;
        self.slots[self.held as usize & MAX_HELD] = entry;
    }

    /// An entry is told.
    #[inline(always)]
    pub fn began(&mut self, depth: u64) {
        if self.outermost == NONE_OPEN || depth < self.outermost {
            self.outermost = depth;
        }
        self.floor = depth;
    }

    /// It is told that calls as deep and deeper are over.
    #[inline(always)]
    pub fn over(&mut self, depth: u64) {
        if depth <= self.outermost {
            self.outermost = NONE_OPEN;
            self.floor = 0;
        } else if depth <= self.floor {
            self.floor = depth - 1;
        }
    }

    /// Tells what is held back, outermost first.
    #[inline(always)]
    pub fn tell(&mut self, mut tell: impl FnMut(&Event)) {
        for at in 1..=MAX_HELD {
            if at as u64 > self.held {
                break;
            }
            let entry = self.slots[at];
            tell(&entry);
            self.began(entry.depth);
        }
        self.held = 0;
    }

    /// Whether an exit at this depth and time (ns) is the end of the innermost call held back, and it took less than
    /// `min_ns`. `is_its` tells whether a point is one of the same function.
    #[inline(always)]
    pub fn is_short_call(&self, depth: u64, time_ns: u64, min_ns: u64, is_its: impl FnOnce(u32) -> bool) -> bool {
        self.top()
            .is_some_and(|top| top.depth == depth && time_ns.wrapping_sub(top.time_ns) < min_ns && is_its(top.point))
    }

    /// Leaves out the innermost call held back. True: it was an outermost one.
    #[inline(always)]
    pub fn leave_out(&mut self) -> bool {
        self.held = self.held.saturating_sub(1);
        self.is_empty()
    }

    /// Whether nothing is held back, and no call open that was told of.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.outermost == NONE_OPEN
    }
}

const _: () = assert!(size_of::<Deferred>() == 24 + 40 * (MAX_HELD + 1));
