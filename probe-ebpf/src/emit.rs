//! Records into the ring buffer, and the account of those that found no room.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use probe_ebpf::abi::{
    self, Event, EventWithFrames, Lane, MAX_FRAMES, POINT_RESERVED, POINT_STACK, SECTION_FRAMES, Section,
};

use crate::{
    lane::Place,
    maps::{EVENTS, LOST, LOST_AT, LOST_IN, LOST_UNKNOWN, SCRATCH},
    walk::Walk,
};

/// `BPF_RB_NO_WAKEUP`: the reader polls; a wake-up for every event would double its cost.
pub(crate) const NO_WAKEUP: u64 = 1;

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn lost_so_far() -> u32 {
    // SAFETY: a racy read of a counter; the value only has to be one it had.
    LOST.get_ptr(0).map_or(0, |lost| unsafe { lost.read_volatile() } as u32)
}

/// A record without sections. `time_ns` 0: now, taken last. False: it was lost.
#[inline(always)]
pub(crate) fn event(place: &Place, point: u32, time_ns: u64) -> bool {
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        lost(place, point);
        return false;
    };
    record.write(made(place, point, time_ns));
    record.submit(NO_WAKEUP);
    true
}

/// An event that may be told later. `time_ns` 0: now, taken last.
#[inline(always)]
pub(crate) fn made(place: &Place, point: u32, time_ns: u64) -> Event {
    let lost = lost_so_far();
    let time_ns = if time_ns == 0 { now() } else { time_ns };
    Event { time_ns, depth: place.depth, goid: place.goid, pid_tgid: place.pid_tgid, point, lost }
}

/// Tells of an event that was made before.
#[inline(always)]
pub(crate) fn later(event: &Event) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut record) => {
            record.write(*event);
            record.submit(NO_WAKEUP);
        }
        None => lost(&Place { goid: event.goid, depth: event.depth, pid_tgid: event.pid_tgid }, event.point),
    }
}

/// A program made a stack of its own.
#[inline(always)]
pub(crate) fn stack(lowest: u64, bytes: u64) {
    let place = Place { goid: bytes, depth: lowest, pid_tgid: bpf_get_current_pid_tgid() };
    event(&place, POINT_STACK, 0);
}

/// A record with the callers that `walk` finds. False: it was lost.
#[inline(always)]
pub(crate) fn event_with_frames(place: &Place, point: u32, walk: Walk) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: a map value of this CPU; programs of one type do not nest on a CPU.
    let scratch: &mut EventWithFrames = unsafe { &mut *scratch };
    let (frames, detail) = walk.into(&mut scratch.frames);
    let frames = frames.min(MAX_FRAMES as u32);
    scratch.section = Section { kind: SECTION_FRAMES, detail, bytes: frames * 8 };
    scratch.event = head(place, point);
    let bytes = (size_of::<Event>() + size_of::<Section>()) as u32 + frames * 8;
    // SAFETY: `bytes` is at most the size of the scratch record.
    let data = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(scratch).cast::<u8>(), bytes as usize) };
    let done = EVENTS.output(data, NO_WAKEUP).is_ok();
    if !done {
        lost(place, point);
    }
    done
}

/// The head of a record, as of now.
#[inline(always)]
pub(crate) fn head(place: &Place, point: u32) -> Event {
    Event { time_ns: now(), depth: place.depth, goid: place.goid, pid_tgid: place.pid_tgid, point, lost: lost_so_far() }
}

/// Writes the loss down: first whose it was, then the counter that makes the reader look.
#[inline(always)]
pub(crate) fn lost(place: &Place, point: u32) {
    let lane: Lane = place.lane();
    if point == POINT_STACK {
        // Not a lane's: whatever runs on that stack is told wrongly.
        add(LOST_UNKNOWN.get_ptr_mut(0));
    } else if LOST_IN.insert(&lane, &now(), 0).is_err() {
        add(LOST_UNKNOWN.get_ptr_mut(0));
    }
    if point < POINT_RESERVED {
        add(LOST_AT.get_ptr_mut(abi::position(point)));
    }
    add(LOST.get_ptr_mut(0));
}

/// Map values are shared between CPUs. `core`'s atomics have no `fetch_add` for this target (which lacks
/// compare-and-swap before Linux 5.12); the instruction itself is as old as BPF.
#[inline(always)]
pub(crate) fn add(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: a valid map value, 8-byte aligned.
        unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64) };
    }
}
