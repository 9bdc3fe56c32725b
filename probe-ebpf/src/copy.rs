//! Copies of the stack, for callers that only unwind tables find.
//!
//! A record's size must be a constant, so there is a class of records for each size of copies. What is known of the
//! stack's base keeps copies as short as the stack is.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use probe_ebpf::abi::{
    COPY_LIMIT, COPY_UNREADABLE, COPY_WHOLE, Cookie, EventWithOuterStack, EventWithStack, MAX_COPY, MAX_OUTER,
    OuterStack, Registers, SECTION_OUTER_STACK, SECTION_STACK, Section,
};

use crate::{
    emit,
    lane::{self, Place},
    maps::{EVENTS, MM_START_STACK, STACK_COPY, STACK_COPY_GO, TASK_MM},
    memory, regs,
};

/// The smallest page: either all of it can be read or nothing.
const PAGE: u64 = 4096;

/// Whether the callers at this point are to be found by unwind tables. Go's code keeps frame pointers; assembly in a Go
/// program, which is taken for foreign, does so on goroutines.
#[inline(always)]
pub(crate) fn is_wanted(cookie: Cookie, place: &Place) -> bool {
    if STACK_COPY.load() == 0 {
        return false;
    }
    let is_go = cookie.goid_offset() != 0 && (!cookie.has_foreign_g() || place.is_on_goroutine());
    !is_go || STACK_COPY_GO.load() != 0
}

/// A record with the stack. False: it was lost.
#[inline(always)]
pub(crate) fn event(ctx: &ProbeContext, cookie: Cookie, place: &Place, at_entry: u16) -> bool {
    let point = cookie.numbers();
    let registers = regs::all(ctx);
    let (bytes, detail) = reach(registers.sp);
    let detail = detail | at_entry;
    if place.goid != 0
        && !place.is_on_goroutine()
        && let Some(outer) = lane::goroutine_below_c(cookie)
    {
        let done = match bytes {
            0..=4096 => record_with_outer::<4096>(&registers, place, point, (bytes, detail), outer),
            _ => record_with_outer::<16384>(&registers, place, point, (bytes.min(16384), detail), outer),
        };
        if !done {
            emit::lost(place, point);
        }
        return done;
    }
    let done = match bytes {
        0..=1024 => record::<1024>(&registers, place, point, bytes, detail),
        1025..=2048 => record::<2048>(&registers, place, point, bytes, detail),
        2049..=3072 => record::<3072>(&registers, place, point, bytes, detail),
        3073..=4096 => record::<4096>(&registers, place, point, bytes, detail),
        4097..=6144 => record::<6144>(&registers, place, point, bytes, detail),
        6145..=8192 => record::<8192>(&registers, place, point, bytes, detail),
        8193..=12288 => record::<12288>(&registers, place, point, bytes, detail),
        12289..=16384 => record::<16384>(&registers, place, point, bytes, detail),
        16385..=32768 => record::<32768>(&registers, place, point, bytes, detail),
        _ => record::<{ MAX_COPY as usize }>(&registers, place, point, bytes, detail),
    };
    if !done {
        emit::lost(place, point);
    }
    done
}

/// How many bytes to copy from `sp` on, and why not more. The thread pointer is where a thread's stack of glibc and musl
/// begins; the first thread's is elsewhere, and the kernel knows it. No stack that is in use reaches beyond either.
#[inline(always)]
fn reach(sp: u64) -> (u32, u16) {
    let mut bytes = u64::from(STACK_COPY.load());
    let mut detail = COPY_LIMIT;
    for base in [lane::thread_pointer(), start_stack()].into_iter().flatten() {
        let used = base.wrapping_sub(sp);
        if used <= bytes {
            (bytes, detail) = (used, COPY_WHOLE);
        }
    }
    (bytes as u32, detail)
}

/// Where the first thread's stack began.
#[inline(always)]
fn start_stack() -> Option<u64> {
    let (mm, offset) = (TASK_MM.load(), MM_START_STACK.load());
    if offset == 0 {
        return None;
    }
    let mm: u64 = memory::kernel(memory::current_task() + u64::from(mm))?;
    memory::kernel(mm.wrapping_add(u64::from(offset)))
}

#[inline(always)]
fn record<const N: usize>(registers: &Registers, place: &Place, point: u32, bytes: u32, detail: u16) -> bool {
    let Some(mut record) = EVENTS.reserve::<EventWithStack<N>>(0) else { return false };
    let record_at = record.as_mut_ptr();
    // SAFETY: a record is as large as its type; each part is written in place and none is read.
    unsafe {
        let (copied, cut) = read::<N>((&raw mut (*record_at).bytes).cast(), registers.sp, bytes);
        let detail = if cut { detail & !0xff | COPY_UNREADABLE } else { detail };
        let bytes = size_of::<Registers>() as u32 + copied;
        (&raw mut (*record_at).section).write(Section { kind: SECTION_STACK, detail, bytes });
        (&raw mut (*record_at).registers).write(*registers);
        (&raw mut (*record_at).event).write(emit::head(place, point));
    }
    record.submit(emit::NO_WAKEUP);
    true
}

/// What a Go function has pushed below the stack pointer that its runtime wrote down: a return address and rbp, at least.
const PUSHED: u64 = 32;

/// The same with the stack of the goroutine that called C: from `outer.0`, it ends at `outer.1`.
#[inline(always)]
fn record_with_outer<const N: usize>(
    registers: &Registers,
    place: &Place,
    point: u32,
    (bytes, detail): (u32, u16),
    outer: (u64, u64),
) -> bool {
    let Some(mut record) = EVENTS.reserve::<EventWithOuterStack<N>>(0) else { return false };
    let record_at = record.as_mut_ptr();
    let start = outer.0.wrapping_sub(PUSHED);
    let used = outer.1.wrapping_sub(start).min(MAX_OUTER as u64);
    // SAFETY: a record is as large as its type; each part is written in place and none is read.
    unsafe {
        let (used, _) = read::<MAX_OUTER>((&raw mut (*record_at).outer.bytes).cast(), start, used as u32);
        (&raw mut (*record_at).outer.start).write(start);
        (&raw mut (*record_at).outer.used).write(u64::from(used));
        let bytes_of_outer = size_of::<OuterStack>() as u32;
        (&raw mut (*record_at).outer_section).write(Section {
            kind: SECTION_OUTER_STACK,
            detail: 0,
            bytes: bytes_of_outer,
        });
        let (copied, cut) = read::<N>((&raw mut (*record_at).bytes).cast(), registers.sp, bytes);
        let detail = if cut { detail & !0xff | COPY_UNREADABLE } else { detail };
        let bytes = size_of::<Registers>() as u32 + copied;
        (&raw mut (*record_at).section).write(Section { kind: SECTION_STACK, detail, bytes });
        (&raw mut (*record_at).registers).write(*registers);
        (&raw mut (*record_at).event).write(emit::head(place, point));
    }
    record.submit(emit::NO_WAKEUP);
    true
}

/// Copies `bytes`, or as many whole pages less as it takes: how many bytes, and whether they are fewer.
#[inline(always)]
fn read<const N: usize>(to: *mut u8, from: u64, bytes: u32) -> (u32, bool) {
    let mut wanted = u64::from(bytes);
    let mut attempts = 0;
    while attempts < N / PAGE as usize + 2 {
        // The compiler knows the bound already and would not check it, the verifier wants it checked: an instruction that
        // does nothing keeps the compiler from knowing.
        // SAFETY: see there.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) wanted, options(pure, nomem, nostack, preserves_flags)) };
        if wanted == 0 || wanted > N as u64 {
            break;
        }
        // SAFETY: there is room for `N` bytes; the helper checks the source.
        if unsafe { bpf_probe_read_user(to.cast(), wanted as u32, from as *const _) } == 0 {
            return (wanted as u32, attempts > 0);
        }
        // Up to the beginning of the page that the last byte is in.
        let last = (from + wanted - 1) & !(PAGE - 1);
        wanted = last.saturating_sub(from);
        attempts += 1;
    }
    (0, true)
}
