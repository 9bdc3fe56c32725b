//! Copies of the stack, for callers that only unwind tables find.
//!
//! A record's size must be a constant, so there is a class of records for each size of copies. What is known of the
//! stack's base keeps copies as short as the stack is.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use probe_ebpf::abi::{
    COPY_LIMIT, COPY_UNREADABLE, COPY_WHOLE, Cookie, EventWithOuterStack, EventWithStack, MAX_COPY, MAX_OUTER, Origin,
    OuterStack, Registers, SECTION_OUTER_STACK, SECTION_STACK, Section, StackSection,
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

/// Calls `$record::<N>` with the smallest `N` of these that holds `$bytes`; the last one takes the rest.
macro_rules! in_class {
    ($bytes:expr, [$($n:literal)*], $largest:expr, $record:ident $arguments:tt) => {
        match $bytes {
            $(0..=$n => $record::<$n> $arguments,)*
            _ => $record::<{ $largest }> $arguments,
        }
    };
}

/// A record with the stack. False: it was lost.
#[inline(always)]
pub(crate) fn event(ctx: &ProbeContext, cookie: Cookie, place: &Place, origin: Option<Origin>, at_entry: u16) -> bool {
    let point = cookie.numbers();
    let registers = regs::all(ctx);
    let (bytes, detail) = reach(registers.sp);
    let copy = StackCopy { registers, bytes, detail: detail | at_entry };
    let done = if place.goid != 0
        && !place.is_on_goroutine()
        && let Some(outer) = lane::goroutine_below_c(cookie)
    {
        in_class!(bytes, [4096], 16384, record_with_outer(&copy, place, point, origin, outer))
    } else {
        in_class!(
            bytes,
            [1024 2048 3072 4096 6144 8192 12288 16384 32768],
            MAX_COPY as usize,
            record(&copy, place, point, origin)
        )
    };
    if !done {
        emit::lost(place, point);
    }
    done
}

/// What is to be copied, and why not more.
struct StackCopy {
    registers: Registers,
    bytes: u32,
    detail: u16,
}

/// How many bytes to copy from `sp` on, and why not more. The thread pointer is where a thread's stack of glibc and musl
/// begins; the first thread's is elsewhere, and the kernel knows it. No stack that is in use reaches beyond either.
#[inline(always)]
fn reach(sp: u64) -> (u32, u16) {
    let (mut bytes, mut detail) = (u64::from(STACK_COPY.load()), COPY_LIMIT);
    // Not in a loop: what a `None` holds is not defined, and the verifier wants everything defined that is moved.
    let mut ends_at = |base: Option<u64>| {
        if let Some(base) = base
            && base.wrapping_sub(sp) <= bytes
        {
            (bytes, detail) = (base.wrapping_sub(sp), COPY_WHOLE);
        }
    };
    ends_at(lane::thread_pointer());
    ends_at(start_stack());
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
fn record<const N: usize>(copy: &StackCopy, place: &Place, point: u32, origin: Option<Origin>) -> bool {
    let Some(mut record) = EVENTS.reserve::<EventWithStack<N>>(0) else { return false };
    let record_at = record.as_mut_ptr();
    // SAFETY: a record is as large as its type; each part is written in place and none is read.
    unsafe {
        copy.write(&raw mut (*record_at).stack);
        (&raw mut (*record_at).head).write(emit::with_origin(place, point, origin));
    }
    record.submit(emit::NO_WAKEUP);
    true
}

/// What a Go function has pushed below the stack pointer that its runtime wrote down: a return address and rbp, at least.
const PUSHED: u64 = 32;

/// The same with the stack of the goroutine that called C: from `outer.0`, it ends at `outer.1`.
#[inline(always)]
fn record_with_outer<const N: usize>(
    copy: &StackCopy,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    outer: (u64, u64),
) -> bool {
    let Some(mut record) = EVENTS.reserve::<EventWithOuterStack<N>>(0) else { return false };
    let record_at = record.as_mut_ptr();
    let start = outer.0.wrapping_sub(PUSHED);
    let used = outer.1.wrapping_sub(start).min(MAX_OUTER as u64);
    let outer_section = Section { kind: SECTION_OUTER_STACK, detail: 0, bytes: size_of::<OuterStack>() as u32 };
    // SAFETY: a record is as large as its type; each part is written in place and none is read.
    unsafe {
        let (used, _) = read::<MAX_OUTER>((&raw mut (*record_at).outer.bytes).cast(), start, used as u32);
        (&raw mut (*record_at).outer.start).write(start);
        (&raw mut (*record_at).outer.end).write(outer.1);
        (&raw mut (*record_at).outer.used).write(u64::from(used));
        (&raw mut (*record_at).outer_section).write(outer_section);
        copy.write(&raw mut (*record_at).stack);
        (&raw mut (*record_at).head).write(emit::with_origin(place, point, origin));
    }
    record.submit(emit::NO_WAKEUP);
    true
}

impl StackCopy {
    /// Makes it.
    ///
    /// # Safety
    /// `to` can be written.
    #[inline(always)]
    unsafe fn write<const N: usize>(&self, to: *mut StackSection<N>) {
        // A smaller class than was asked for is the largest there is.
        let wanted = if self.bytes > N as u32 { N as u32 } else { self.bytes };
        // SAFETY: the caller's.
        unsafe {
            let (copied, cut) = read::<N>((&raw mut (*to).bytes).cast(), self.registers.sp, wanted);
            let detail = if cut { self.detail & !0xff | COPY_UNREADABLE } else { self.detail };
            let bytes = size_of::<Registers>() as u32 + copied;
            (&raw mut (*to).section).write(Section { kind: SECTION_STACK, detail, bytes });
            (&raw mut (*to).registers).write(self.registers);
        }
    }
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
