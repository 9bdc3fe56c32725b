//! Which calls are outermost, as far as the kernel half needs to know it: more is told of them, their callers and who made
//! their goroutine.

use crate::{
    lane::Place,
    maps::{ORIGINS, OUTERMOST, STACK_ALL, STACK_DEPTH},
};

/// Whether more is told of some calls than their times.
#[inline(always)]
pub(crate) fn is_more_told() -> bool {
    STACK_DEPTH.load() != 0 || ORIGINS.load() != 0
}

/// Whether an outermost call is open around this place.
#[inline(always)]
pub(crate) fn holds(place: &Place) -> bool {
    // SAFETY: a racy read of a number that only this thread or goroutine writes.
    OUTERMOST.get_ptr(&place.lane()).is_some_and(|depth| place.depth > unsafe { *depth })
}

/// An outermost call begins here.
#[inline(always)]
pub(crate) fn begins(place: &Place) {
    // A full map costs what is told of inner calls beyond need, nothing else.
    let _ = OUTERMOST.insert(&place.lane(), &place.depth, 0);
}

/// Calls at this place and deeper are over.
#[inline(always)]
pub(crate) fn ends(place: &Place) {
    if !is_more_told() || STACK_ALL.load() != 0 {
        return;
    }
    let lane = place.lane();
    // SAFETY: a racy read of a number that only this thread or goroutine writes.
    if OUTERMOST.get_ptr(&lane).is_some_and(|depth| place.depth <= unsafe { *depth }) {
        let _ = OUTERMOST.remove(&lane);
    }
}
