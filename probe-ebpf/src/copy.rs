//! Copies of the stack, for callers that only unwind tables find.
//!
//! A record's size must be a constant, so there is a class of records for each size of copies. What is known of the
//! stack's base keeps copies as short as the stack is.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use probe_ebpf::abi::{
    COPY_LIMIT, COPY_UNREADABLE, COPY_WHOLE, Cookie, EventWithOuterStack, EventWithStack, HiddenReturn, MAX_COPY,
    MAX_HIDDEN_RETURNS, Origin, OuterStack, Registers, SECTION_HIDDEN_RETURNS, SECTION_OUTER_STACK, SECTION_STACK,
    Section, StackSection,
};

use crate::{
    emit,
    lane::{self, Place},
    maps::{
        MM_START_STACK, RETURN_ADDRESS, RETURN_NEXT, RETURN_STACK, STACK_COPY, STACK_COPY_GO, TASK_MM, TASK_UTASK,
        UTASK_RETURNS,
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
    // Each way to its own end: what they have in common the verifier would follow once for each.
    let done = if place.is_on_alternate() {
        on_alternate_stack(registers, place, point, at_entry)
    } else {
        let hidden = innermost_hidden_return();
        let (bytes, detail) = reach(registers.sp);
        let copy = StackCopy { registers, bytes, detail: detail | at_entry };
        if place.goid != 0
            && !place.is_on_goroutine()
            && let Some((sp, end)) = lane::goroutine_below_c(cookie)
        {
            let start = sp.wrapping_sub(PUSHED);
            let bytes_of_go = end.wrapping_sub(start).min(MAX_BESIDE_C) as u32;
            let outer = Outer { start, bytes: bytes_of_go, end };
            in_class!(bytes, [4096], 16384, record_beside_c(&copy, place, point, origin, &outer))
        } else if hidden != 0 {
            let none = Outer { start: 0, bytes: 0, end: 0 };
            in_class!(bytes, [16384], MAX_COPY as usize, record_alone(&copy, place, point, origin, &none, hidden))
        } else {
            in_class!(
                bytes,
                [1024 2048 3072 4096 6144 8192 12288 16384 24576 32768 49152 65536 98304],
                MAX_COPY as usize,
                record(&copy, place, point, origin)
            )
        }
    };
    if !done {
        emit::lost(place, point);
    }
    done
}

/// Bytes of a goroutine's stack that are copied beside that of C, at most.
const MAX_BESIDE_C: u64 = 4096;
/// Bytes of an alternate stack, and of what its first handler interrupted, at most of each.
const MAX_ALTERNATE: u32 = 16384;

/// Another stack, on which this one goes on.
struct Outer {
    start: u64,
    /// To copy; 0: there is no such stack.
    bytes: u32,
    /// Where it ends.
    end: u64,
}

/// A record of both stacks of a signal handler. False: it was lost.
#[inline(always)]
fn on_alternate_stack(registers: Registers, place: &Place, point: u32, at_entry: u16) -> bool {
    let [lowest, size] = lane::alternate_stack();
    // The loop comes first: the verifier follows it once for each difference in what is known before it.
    let start = interrupted_sp(registers.sp, lowest, size);
    let bytes = if start == 0 { 0 } else { reach(start).0.min(MAX_ALTERNATE) };
    let outer = Outer { start, bytes, end: start.wrapping_add(u64::from(bytes)) };
    let used = (lowest + size).wrapping_sub(registers.sp);
    let bytes = used.min(u64::from(MAX_ALTERNATE)) as u32;
    let detail = if u64::from(bytes) == used { COPY_WHOLE } else { COPY_LIMIT };
    let copy = StackCopy { registers, bytes, detail: detail | at_entry };
    record_with_outer::<{ MAX_ALTERNATE as usize }, { MAX_ALTERNATE as usize }>(&copy, place, point, None, &outer, 0)
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
    let mut nearest = u64::from(MAX_COPY);
    // Not in a loop: what a `None` holds is not defined, and the verifier wants everything defined that is moved.
    let mut ends_at = |base: Option<u64>| {
        if let Some(base) = base
            && base.wrapping_sub(sp) <= nearest
        {
            nearest = base.wrapping_sub(sp);
            (bytes, detail) = (nearest, COPY_WHOLE);
        }
    };
    ends_at(lane::thread_pointer());
    ends_at(start_stack());
    (bytes as u32, detail)
}

/// On an alternate stack: the stack pointer of what its first handler interrupted; 0: not known. The kernel pushes there: the
/// floating-point registers, as many as the processor has, from an address that is a multiple of 64; below them, 448 bytes
/// on, a `ucontext_t`, which knows where they are, and which stack this is (Linux: arch/x86/kernel/signal_64.c,
/// `struct rt_sigframe`; arch/x86/include/uapi/asm/{ucontext,sigcontext}.h).
#[inline(always)]
fn interrupted_sp(sp: u64, lowest: u64, size: u64) -> u64 {
    /// Bytes of the registers that `fxsave` stores.
    const LEAST: u64 = 512;
    /// Up to 4.5 KiB: with AVX-512 they take 2.7 KiB. (With AMX's tiles, for programs that use them, 11 KiB.)
    const STEPS: u32 = 64;
    if !cfg!(bpf_target_arch = "x86_64") || size == 0 {
        return 0;
    }
    let mut registers = (lowest + size).wrapping_sub(LEAST) & !63;
    let mut steps = 0;
    while steps < STEPS {
        let context = registers.wrapping_sub(448);
        if context < sp {
            return 0;
        }
        // Whatever cannot be read ends the search: two ways on from each step would be too many for the verifier.
        let Some(known) = memory::user::<u64>(context + 40 + 23 * 8) else { return 0 };
        if known == registers {
            let Some([this, _flags, bytes]) = memory::user::<[u64; 3]>(context + 16) else { return 0 };
            let is_context = this == lowest && bytes == size;
            return if is_context { memory::user(context + 40 + 15 * 8).unwrap_or(0) } else { 0 };
        }
        registers -= 64;
        steps += 1;
    }
    0
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
    let Some(mut record) = emit::reserve::<EventWithStack<N>>() else { return false };
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

/// The same of C that a goroutine called. (No return probe stands there: Go programs die of them.)
#[inline(always)]
fn record_beside_c<const N: usize>(
    copy: &StackCopy,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    outer: &Outer,
) -> bool {
    record_with_outer::<N, { MAX_BESIDE_C as usize }>(copy, place, point, origin, outer, 0)
}

/// The same without another stack.
#[inline(always)]
fn record_alone<const N: usize>(
    copy: &StackCopy,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    none: &Outer,
    hidden: u64,
) -> bool {
    record_with_outer::<N, 0>(copy, place, point, origin, none, hidden)
}

/// The same with another stack beside, and what return probes hide.
#[inline(always)]
fn record_with_outer<const N: usize, const M: usize>(
    copy: &StackCopy,
    place: &Place,
    point: u32,
    origin: Option<Origin>,
    outer: &Outer,
    hidden: u64,
) -> bool {
    let Some(mut record) = emit::reserve::<EventWithOuterStack<N, M>>() else { return false };
    let record_at = record.as_mut_ptr();
    let outer_section = Section { kind: SECTION_OUTER_STACK, detail: 0, bytes: size_of::<OuterStack<M>>() as u32 };
    // SAFETY: a record is as large as its type; each part is written in place and none is read.
    unsafe {
        let detail = if hidden == 0 { 0 } else { hidden_returns((&raw mut (*record_at).hidden).cast(), hidden) };
        let bytes = size_of::<[HiddenReturn; MAX_HIDDEN_RETURNS]>() as u32;
        (&raw mut (*record_at).hidden_section).write(Section { kind: SECTION_HIDDEN_RETURNS, detail, bytes });
        let (used, _) = read::<M>((&raw mut (*record_at).outer.bytes).cast(), outer.start, outer.bytes);
        (&raw mut (*record_at).outer.start).write(outer.start);
        (&raw mut (*record_at).outer.end).write(outer.end);
        (&raw mut (*record_at).outer.used).write(u64::from(used));
        (&raw mut (*record_at).outer_section).write(outer_section);
        copy.write(&raw mut (*record_at).stack);
        (&raw mut (*record_at).head).write(emit::with_origin(place, point, origin));
    }
    record.submit(emit::NO_WAKEUP);
    true
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
        // As above.
        let Some(place) = memory::kernel(instance + u64::from(stack)) else { break };
        let Some(address) = memory::kernel(instance + u64::from(address)) else { break };
        let Some(further_out) = memory::kernel(instance + u64::from(next)) else { break };
        // SAFETY: `count` is within the room that there is.
        unsafe { to.add(count).write(HiddenReturn { place, address }) };
        instance = further_out;
        count += 1;
    }
    count as u16
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
    (0, bytes != 0)
}
