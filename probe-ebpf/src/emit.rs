//! Records into the ring buffers, and the account of those that found no room.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_get_task_stack},
    },
    maps::ring_buf::RingBufEntry,
};
use probe_ebpf::abi::{
    self, Event, EventWithFrames, EventWithOrigin, Lane, MAX_FRAMES, MAX_KERNEL_FRAMES, Origin, POINT_KERNEL_STACK,
    POINT_RESERVED, POINT_STACK, SECTION_FRAMES, SECTION_NONE, SECTION_ORIGIN, Section, WALK_END,
};

use crate::{
    lane::Place,
    maps::{CPU_RINGS, KERNEL_STACK, LOST, LOST_AT, LOST_IN, LOST_UNKNOWN, RINGS, STACK_DEPTH},
    walk::Walk,
};

/// `BPF_RB_NO_WAKEUP`: the reader polls; a wake-up for every event would double its cost.
pub(crate) const NO_WAKEUP: u64 = 1;

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Room for a record, in this CPU's ring buffer: one for all is one lock for all.
#[inline(always)]
pub(crate) fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let of_cpus = CPU_RINGS.load();
    if of_cpus != 0 {
        // SAFETY: no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if let Some(room) = RINGS.get(cpu & (of_cpus - 1))?.reserve_untyped(0) {
            return Some(room);
        }
    }
    RINGS.get(of_cpus)?.reserve_untyped(0)
}

#[inline(always)]
fn lost_so_far() -> u32 {
    // SAFETY: a racy read of a counter; the value only has to be one it had.
    LOST.get_ptr(0).map_or(0, |lost| unsafe { lost.read_volatile() } as u32)
}

/// A record without sections. `time_ns` 0: now, taken last. False: it was lost.
#[inline(always)]
pub(crate) fn event(place: &Place, point: u32, time_ns: u64) -> bool {
    let Some(mut record) = reserve::<Event>() else {
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
    match reserve::<Event>() {
        Some(mut record) => {
            record.write(*event);
            record.submit(NO_WAKEUP);
        }
        None => lost(&Place { goid: event.goid, depth: event.depth, pid_tgid: event.pid_tgid, g: 0 }, event.point),
    }
}

/// A program made a stack of its own.
#[inline(always)]
pub(crate) fn stack(lowest: u64, bytes: u64) {
    let place = Place { goid: bytes, depth: lowest, pid_tgid: bpf_get_current_pid_tgid(), g: 0 };
    event(&place, POINT_STACK, 0);
}

/// A record that tells who made the goroutine, if there is one. False: it was lost.
#[inline(always)]
pub(crate) fn event_with_origin(place: &Place, point: u32, origin: Option<Origin>) -> bool {
    if origin.is_none() {
        return event(place, point, 0);
    }
    let Some(mut record) = reserve::<EventWithOrigin>() else {
        lost(place, point);
        return false;
    };
    record.write(with_origin(place, point, origin));
    record.submit(NO_WAKEUP);
    true
}

/// Callers for which a record has room at first: most stacks at a server's handlers end within, and a record that is longer
/// than need be fills the buffer sooner.
const SOME_FRAMES: usize = 24;
/// As many as are walked by default.
const MANY_FRAMES: usize = 64;

/// A record with the callers that `walk` finds. False: it was lost. They are written where they are read: in memory of
/// this CPU another thread might overwrite them, where the kernel is preemptible.
#[inline(always)]
pub(crate) fn event_with_frames(place: &Place, point: u32, origin: Option<Origin>, walk: Walk) -> bool {
    let Some(mut record) = reserve::<EventWithFrames<SOME_FRAMES>>() else {
        lost(place, point);
        return false;
    };
    let at = record.as_mut_ptr();
    // SAFETY: a record is as large as its type; each part is written in place, and none is read before.
    let (walk, count, ended) = unsafe { walk.into(&raw mut (*at).frames, 0) };
    if let Some(detail) = ended {
        // SAFETY: as above.
        unsafe { finish(at, place, point, origin, count, detail) };
        record.submit(NO_WAKEUP);
        return true;
    }
    let done = if STACK_DEPTH.load() as usize <= MANY_FRAMES {
        longer::<MANY_FRAMES>(at, place, point, origin, walk)
    } else {
        longer::<MAX_FRAMES>(at, place, point, origin, walk)
    };
    // The reader does not see it.
    record.discard(NO_WAKEUP);
    if !done {
        lost(place, point);
    }
    done
}

/// A record of the kernel's frames, where they are wanted, for the record that follows. False: it was lost, and what follows
/// is not to be told either.
#[inline(always)]
pub(crate) fn kernel_frames(place: &Place, point: u32) -> bool {
    if KERNEL_STACK.load() == 0 {
        return true;
    }
    let Some(mut record) = reserve::<EventWithFrames<MAX_KERNEL_FRAMES>>() else {
        lost(place, point);
        return false;
    };
    let at = record.as_mut_ptr();
    let of = Place { goid: point.into(), depth: place.depth, pid_tgid: place.pid_tgid, g: 0 };
    // SAFETY: a record is as large as its type; the helper writes no more than it is told, for a thread that runs.
    unsafe {
        let room = size_of::<[u64; MAX_KERNEL_FRAMES]>() as u32;
        let bytes = bpf_get_task_stack(bpf_get_current_task_btf(), (&raw mut (*at).frames).cast(), room, 0);
        let count = if bytes > 0 { bytes as usize / 8 } else { 0 };
        finish(at, &of, POINT_KERNEL_STACK, None, count, WALK_END);
    }
    record.submit(NO_WAKEUP);
    true
}

/// Goes on in a record with more room. False: there is none.
#[inline(always)]
fn longer<const N: usize>(
    from: *const EventWithFrames<SOME_FRAMES>,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    walk: Walk,
) -> bool {
    let Some(mut record) = reserve::<EventWithFrames<N>>() else { return false };
    let at = record.as_mut_ptr();
    // SAFETY: a record is as large as its type, and has room for all frames of the shorter one, which were written.
    unsafe {
        let frames = (&raw mut (*at).frames).cast::<u64>();
        core::ptr::copy_nonoverlapping((&raw const (*from).frames).cast(), frames, SOME_FRAMES);
        let (_, count, ended) = walk.into(&raw mut (*at).frames, SOME_FRAMES);
        finish(at, place, point, origin, count, ended.unwrap_or(abi::WALK_DEPTH));
    }
    record.submit(NO_WAKEUP);
    true
}

/// Writes everything but the frames.
///
/// # Safety
/// `at` is a record.
#[inline(always)]
unsafe fn finish<const N: usize>(
    at: *mut EventWithFrames<N>,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    frames: usize,
    detail: u16,
) {
    // SAFETY: the caller's.
    unsafe {
        (&raw mut (*at).section).write(Section { kind: SECTION_FRAMES, detail, bytes: frames as u32 * 8 });
        (&raw mut (*at).head).write(with_origin(place, point, origin));
    }
}

/// The head of a record with sections, as of now.
#[inline(always)]
pub(crate) fn with_origin(place: &Place, point: u32, origin: Option<Origin>) -> EventWithOrigin {
    let kind = if origin.is_some() { SECTION_ORIGIN } else { SECTION_NONE };
    let section = Section { kind, detail: 0, bytes: size_of::<Origin>() as u32 };
    EventWithOrigin { event: made(place, point, 0), section, origin: origin.unwrap_or_default() }
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
