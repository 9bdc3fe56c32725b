//! Copies of the stack, for callers that only unwind tables find.
//!
//! A record's size must be a constant, so there is a class of records for each size of copies. What is known of the
//! stack's base keeps copies as short as the stack is.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use probe_ebpf::abi::{
    COPY_LIMIT, COPY_UNREADABLE, COPY_WHOLE, Cookie, EventWithOuterStack, EventWithStack, HiddenReturn, MAX_COPY,
    MAX_HIDDEN_RETURNS, OuterStack, Registers, SECTION_HIDDEN_RETURNS, SECTION_OUTER_STACK, SECTION_STACK, Section,
};

use crate::{
    emit,
    lane::{self, Place},
    maps::{
        EVENTS, MM_START_STACK, RETURN_ADDRESS, RETURN_NEXT, RETURN_STACK, STACK_COPY, STACK_COPY_GO, TASK_MM,
        TASK_UTASK, UTASK_RETURNS,
    },
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
    let (bytes, detail, outer) = parts(cookie, place, registers.sp);
    let detail = detail | at_entry;
    let hidden = innermost_hidden_return();
    let done = if hidden != 0 || outer.bytes != 0 {
        let from = Sources { registers: &registers, place, point, bytes, detail, outer, hidden };
        match (bytes, outer.bytes) {
            (0..=4096, 0..=4096) => from.record::<4096, 4096>(),
            (0..=16384, 0..=4096) => from.record::<16384, 4096>(),
            (0..=16384, _) => from.record::<16384, 16384>(),
            _ => from.record::<{ MAX_COPY as usize }, 4096>(),
        }
    } else {
        match bytes {
            0..=1024 => record::<1024>(&registers, place, point, bytes, detail),
            1025..=2048 => record::<2048>(&registers, place, point, bytes, detail),
            2049..=3072 => record::<3072>(&registers, place, point, bytes, detail),
            3073..=4096 => record::<4096>(&registers, place, point, bytes, detail),
            4097..=6144 => record::<6144>(&registers, place, point, bytes, detail),
            6145..=8192 => record::<8192>(&registers, place, point, bytes, detail),
            8193..=12288 => record::<12288>(&registers, place, point, bytes, detail),
            12289..=16384 => record::<16384>(&registers, place, point, bytes, detail),
            16385..=24576 => record::<24576>(&registers, place, point, bytes, detail),
            24577..=32768 => record::<32768>(&registers, place, point, bytes, detail),
            32769..=49152 => record::<49152>(&registers, place, point, bytes, detail),
            49153..=65536 => record::<65536>(&registers, place, point, bytes, detail),
            65537..=98304 => record::<98304>(&registers, place, point, bytes, detail),
            _ => record::<{ MAX_COPY as usize }>(&registers, place, point, bytes, detail),
        }
    };
    if !done {
        emit::lost(place, point);
    }
    done
}

/// Another stack, on which this one goes on.
#[derive(Clone, Copy)]
struct Outer {
    start: u64,
    /// To copy; 0: there is no such stack.
    bytes: u32,
    /// Where it ends.
    end: u64,
}

impl Outer {
    const NONE: Self = Self { start: 0, bytes: 0, end: 0 };
}

/// Bytes of a goroutine's stack that are copied beside a thread's, at most.
const MAX_OUTER: u64 = 4096;
/// Bytes of a stack beside which another one is copied, and of one that was interrupted, at most.
const MOST_BESIDE: u32 = 16384;

/// How much to copy of the stack, why not more, and where it goes on.
#[inline(always)]
fn parts(cookie: Cookie, place: &Place, sp: u64) -> (u32, u16, Outer) {
    if place.is_on_alternate()
        && let Some((lowest, size)) = lane::alternate_stack(sp)
    {
        let used = lowest + size - sp;
        let (bytes, detail) =
            if used <= u64::from(MOST_BESIDE) { (used as u32, COPY_WHOLE) } else { (MOST_BESIDE, COPY_LIMIT) };
        let Some(start) = interrupted_sp(lowest, size) else { return (bytes, detail, Outer::NONE) };
        let beside = reach(start).0.min(MOST_BESIDE);
        return (bytes, detail, Outer { start, bytes: beside, end: start + u64::from(beside) });
    }
    let (bytes, detail) = reach(sp);
    if place.goid != 0
        && !place.is_on_goroutine()
        && let Some((sp, end)) = lane::goroutine_below_c(cookie)
    {
        let start = sp.wrapping_sub(PUSHED);
        let beside = end.wrapping_sub(start).min(MAX_OUTER) as u32;
        let (bytes, detail) = if bytes > MOST_BESIDE { (MOST_BESIDE, COPY_LIMIT) } else { (bytes, detail) };
        return (bytes, detail, Outer { start, bytes: beside, end });
    }
    (bytes, detail, Outer::NONE)
}

/// How many bytes to copy from `sp` on, and why not more. The thread pointer is where a thread's stack of glibc and musl
/// begins; the first thread's is elsewhere, and the kernel knows it. No stack that is in use reaches beyond either.
#[inline(always)]
fn reach(sp: u64) -> (u32, u16) {
    let mut used = u64::MAX;
    for base in [lane::thread_pointer(), start_stack()].into_iter().flatten() {
        used = used.min(base.wrapping_sub(sp));
    }
    if used <= u64::from(MAX_COPY) { (used as u32, COPY_WHOLE) } else { (STACK_COPY.load(), COPY_LIMIT) }
}

/// The stack pointer of what was interrupted by the first handler on an alternate stack. The kernel pushes there: the
/// floating-point registers, as many as the processor has, from an address that is a multiple of 64; below them, 448 bytes
/// on, a `ucontext_t`, which knows where they are, and which stack this is (Linux: arch/x86/kernel/signal_64.c,
/// `struct rt_sigframe`; arch/x86/include/uapi/asm/{ucontext,sigcontext}.h).
#[inline(always)]
fn interrupted_sp(lowest: u64, size: u64) -> Option<u64> {
    /// Bytes of the registers that `fxsave` stores.
    const LEAST: u64 = 512;
    /// More than 12 KiB, with AMX's tiles, are not needed.
    const STEPS: u32 = 192;
    if !cfg!(bpf_target_arch = "x86_64") {
        return None;
    }
    let mut registers = (lowest + size - LEAST) & !63;
    let mut steps = 0;
    while steps < STEPS {
        let context = registers.wrapping_sub(448);
        if context < lowest {
            return None;
        }
        let place = context + 40 + 23 * 8;
        if memory::user::<u64>(place)? == registers
            && let Some([this, _flags, bytes]) = memory::user::<[u64; 3]>(context + 16)
            && this == lowest
            && bytes == size
        {
            return memory::user(context + 40 + 15 * 8);
        }
        registers -= 64;
        steps += 1;
    }
    None
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

/// What a record of two stacks is made from.
struct Sources<'a> {
    registers: &'a Registers,
    place: &'a Place,
    point: u32,
    bytes: u32,
    detail: u16,
    outer: Outer,
    /// See [`innermost_hidden_return`].
    hidden: u64,
}

impl Sources<'_> {
    #[inline(always)]
    fn record<const N: usize, const M: usize>(&self) -> bool {
        let Some(mut record) = EVENTS.reserve::<EventWithOuterStack<N, M>>(0) else { return false };
        let record_at = record.as_mut_ptr();
        // SAFETY: a record is as large as its type; each part is written in place and none is read.
        unsafe {
            let count = hidden_returns((&raw mut (*record_at).hidden).cast(), self.hidden);
            let bytes_of_hidden = size_of::<[HiddenReturn; MAX_HIDDEN_RETURNS]>() as u32;
            (&raw mut (*record_at).hidden_section).write(Section {
                kind: SECTION_HIDDEN_RETURNS,
                detail: count,
                bytes: bytes_of_hidden,
            });
            let outer = &self.outer;
            let (used, _) = read::<M>((&raw mut (*record_at).outer.bytes).cast(), outer.start, outer.bytes);
            (&raw mut (*record_at).outer.start).write(outer.start);
            (&raw mut (*record_at).outer.end).write(outer.end);
            (&raw mut (*record_at).outer.used).write(u64::from(used));
            let bytes_of_outer = size_of::<OuterStack<M>>() as u32;
            (&raw mut (*record_at).outer_section).write(Section {
                kind: SECTION_OUTER_STACK,
                detail: 0,
                bytes: bytes_of_outer,
            });
            let (copied, cut) = read::<N>((&raw mut (*record_at).bytes).cast(), self.registers.sp, self.bytes);
            let detail = if cut { self.detail & !0xff | COPY_UNREADABLE } else { self.detail };
            let bytes = size_of::<Registers>() as u32 + copied;
            (&raw mut (*record_at).section).write(Section { kind: SECTION_STACK, detail, bytes });
            (&raw mut (*record_at).registers).write(*self.registers);
            (&raw mut (*record_at).event).write(emit::head(self.place, self.point));
        }
        record.submit(emit::NO_WAKEUP);
        true
    }
}

/// Address of what the kernel keeps of the innermost return that a return probe waits for, anybody's; 0: there is none.
#[inline(always)]
fn innermost_hidden_return() -> u64 {
    let offset = TASK_UTASK.load();
    if offset == 0 {
        return 0;
    }
    let known: u64 = memory::kernel(memory::current_task() + u64::from(offset)).unwrap_or(0);
    if known == 0 { 0 } else { memory::kernel(known + u64::from(UTASK_RETURNS.load())).unwrap_or(0) }
}

/// Writes down where return probes have replaced return addresses, from inside out, and what these were: how many.
/// (Linux: include/linux/uprobes.h, `struct return_instance`; only the thread itself changes its list.)
///
/// # Safety
/// There is room for [`MAX_HIDDEN_RETURNS`].
#[inline(always)]
unsafe fn hidden_returns(to: *mut HiddenReturn, innermost: u64) -> u16 {
    let (stack, address, next) = (RETURN_STACK.load(), RETURN_ADDRESS.load(), RETURN_NEXT.load());
    let mut instance = innermost;
    let mut count = 0;
    while count < MAX_HIDDEN_RETURNS {
        if instance == 0 {
            break;
        }
        let Some(place) = memory::kernel(instance + u64::from(stack)) else { break };
        let Some(address) = memory::kernel(instance + u64::from(address)) else { break };
        // SAFETY: `count` is within the room that there is.
        unsafe { to.add(count).write(HiddenReturn { place, address }) };
        instance = memory::kernel(instance + u64::from(next)).unwrap_or(0);
        count += 1;
    }
    count as u16
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
