//! `--min-duration` in the kernel half: [`Deferred`]'s rules, on the lanes' states in a map.

use aya_ebpf::programs::ProbeContext;
use probe_ebpf::{
    abi::{Cookie, Lane, position},
    deferred::{Deferred, NO_FUNCTION},
};

use crate::{
    emit, here, jump,
    lane::Place,
    maps::{DEFERRED, DEFERRED_FULL, FUNCTION_OF, LEFT_OUT_AT, LEFT_OUT_OUTERMOST, MIN_DURATION},
    regs, runners,
};

static EMPTY: Deferred = Deferred::EMPTY;

#[inline(always)]
fn state<'a>(lane: &Lane) -> Option<&'a mut Deferred> {
    // SAFETY: only the thread whose lane it is, or the one that its goroutine runs on, works on the value, on one event
    // at a time. The reading half takes none away but those of dead processes.
    DEFERRED.get_ptr_mut(lane).map(|state| unsafe { &mut *state })
}

/// A lane's state, made if there is none. None: there is no room, or there was none before for some lane, maybe this
/// one, whose calls may be open.
#[inline(always)]
fn state_or_new<'a>(lane: &Lane) -> Option<&'a mut Deferred> {
    if let Some(known) = state(lane) {
        return Some(known);
    }
    // SAFETY: a read of a number that only grows; the lane that made it grow sees that.
    if unsafe { DEFERRED_FULL.get_ptr(0)?.read_volatile() } != 0 {
        return None;
    }
    if DEFERRED.insert(lane, &EMPTY, 0).is_err() {
        emit::add(DEFERRED_FULL.get_ptr_mut(0));
        return None;
    }
    state(lane)
}

#[inline(always)]
fn function_of(point: u32) -> u32 {
    // SAFETY: the reading half wrote it before the programs were loaded.
    FUNCTION_OF.get_ptr(position(point)).map_or(NO_FUNCTION, |function| unsafe { *function })
}

/// Nothing is known of goroutines' ends: an empty state of theirs would stay for ever.
#[inline(always)]
fn forget_if_empty(state: &Deferred, lane: &Lane) {
    if lane.goid != 0 && state.is_empty() {
        let _ = DEFERRED.remove(lane);
    }
}

#[inline(always)]
pub(crate) fn on_entry(ctx: &ProbeContext) {
    let Some((cookie, place)) = here(ctx, regs::sp(ctx), 0) else { return };
    runners::note(&place);
    let Some(state) = state_or_new(&place.lane()) else {
        emit::event(&place, cookie.numbers(), 0);
        return;
    };
    if state.is_to_be_told_before(place.depth) {
        state.tell(emit::later);
    }
    if state.may_hold(place.depth) {
        state.hold(emit::made(&place, cookie.numbers(), 0));
    } else {
        state.began(place.depth);
        emit::event(&place, cookie.numbers(), 0);
    }
}

#[inline(always)]
pub(crate) fn on_exit(ctx: &ProbeContext) {
    let time_ns = emit::now();
    let Some((cookie, place)) = here(ctx, regs::sp(ctx), time_ns) else { return };
    leave(&place, cookie, time_ns);
}

#[inline(always)]
pub(crate) fn on_jump(ctx: &ProbeContext) {
    let cookie = crate::cookie(ctx);
    if jump::leaves(ctx, cookie) {
        on_exit(ctx);
    } else {
        crate::count::passed(cookie);
    }
}

#[inline(always)]
fn leave(place: &Place, cookie: Cookie, time_ns: u64) {
    let lane = place.lane();
    let function = function_of(cookie.point());
    if let Some(state) = state(&lane) {
        let is_its = |point| function != NO_FUNCTION && function_of(point) == function;
        if state.is_short_call(place.depth, time_ns, MIN_DURATION.load(), is_its) {
            if let Some(top) = state.top() {
                emit::add(LEFT_OUT_AT.get_ptr_mut(position(top.point)));
            }
            emit::add(LEFT_OUT_AT.get_ptr_mut(cookie.point()));
            if state.leave_out() {
                emit::add(LEFT_OUT_OUTERMOST.get_ptr_mut(0));
                forget_if_empty(state, &lane);
            }
            return;
        }
        state.tell(emit::later);
        state.over(place.depth);
        if function == NO_FUNCTION {
            // The goroutine's end: every call of it is over.
            state.over(0);
        }
        forget_if_empty(state, &lane);
    }
    emit::event(place, cookie.numbers(), time_ns);
}

/// Before it is told that calls as deep as this, and deeper, are over: by unwinding, or with their thread.
#[inline(always)]
pub(crate) fn before_end(place: &Place) {
    if MIN_DURATION.load() == 0 {
        return;
    }
    let lane = place.lane();
    if let Some(state) = state(&lane) {
        state.tell(emit::later);
        state.over(place.depth);
        forget_if_empty(state, &lane);
    }
}

/// The thread ended, and what it held back was told.
#[inline(always)]
pub(crate) fn forget(lane: &Lane) {
    if MIN_DURATION.load() != 0 {
        let _ = DEFERRED.remove(lane);
    }
}
