//! How long single steps take, each of them: where durations are to be less by it.
//!
//! At a breakpoint whose instruction the kernel does not carry out itself it has the processor step through a copy, and that
//! traps again. On a virtual machine this takes most of such a trap, and twice as long at one moment as at another. The
//! kernel tells its uprobes of both traps by a notifier chain (x86: `arch_uprobe_exception_notify`), whose calls are a
//! tracepoint, `notifier_run` (in Linux 6.18, not in 6.1: kernel/notifier.c). The time from the first call to the second is all that differs.
//! (Programs at the beginning and the end of `uprobe_notify_resume` would see nearly the same, and as much of traps without
//! a step; but there are machines where functions of the kernel cannot be traced.)
//!
//! All tracepoints (the others are those of processors that are given away and of interrupts, see there) are passed by all
//! threads: those that no event was told of are let pass at once.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use probe_ebpf::abi::{Event, POINT_TRAP};

use crate::{
    emit::{self, NO_WAKEUP, now},
    lane::Place,
    maps::{TRAP_OFFSETS, TRAPS, TRAPS_TIMED},
    memory,
};

/// The traps of a thread. Nobody but the thread itself works on it, or whoever gives it the processor.
#[derive(Clone, Copy)]
pub(crate) struct ThreadTraps {
    /// Since when it is in one (`CLOCK_MONOTONIC`, ns); 0: it is in none, or an event was told of that began it.
    since_ns: u64,
    /// Since when it is in one that may be stepped through; 0: that is over.
    step_since_ns: u64,
    /// How long its steps took so far, each from the breakpoint on, and for how long it waited for a processor or was interrupted
    /// at the ends of traps, ns. What it waited within is in it, too: as often as it has to in traps, it would not without them.
    spent_ns: u64,
    /// When it was last known to be at a trap's end (`CLOCK_MONOTONIC`, ns).
    at_end_ns: u64,
    /// Where the probed instruction is.
    ip: u64,
    /// Where its step ended: after a return it goes on there.
    end_ip: u64,
    /// Since when it is at the end of a trap in which it waits for a processor; 0: it does not.
    waits_since_ns: u64,
    /// 1: an event told of the trap that it is in since [`Self::since_ns`].
    told: u64,
    /// Interrupts that came at the end of a trap and are not over: [`TIMER`], [`SOFTIRQ`].
    interrupted: u64,
    /// What it waited and was interrupted since the latest event, ns: part of a step's time, should one still come.
    before_step_ns: u64,
    /// How long after the trap a thread that goes on elsewhere than behind the probed instruction may still be at its end, ns.
    elsewhere_ns: u64,
    /// Who was notified last of what was no step's end.
    notified: u64,
    /// Who is notified for uprobes; 0: not known.
    uprobes: u64,
    /// How many steps are in [`Self::spent_ns`].
    steps: u64,
}

static NONE: ThreadTraps = ThreadTraps {
    since_ns: 0,
    step_since_ns: 0,
    spent_ns: 0,
    at_end_ns: 0,
    ip: 0,
    end_ip: 0,
    waits_since_ns: 0,
    told: 0,
    interrupted: 0,
    before_step_ns: 0,
    elsewhere_ns: 0,
    notified: 0,
    uprobes: 0,
    steps: 0,
};

/// Of x86, bytes.
const LONGEST_INSTRUCTION: u64 = 15;

/// The end of a trap takes no longer, ns: what the kernel does after a step, and the return to user space.
const END_NS: u64 = 2000;
/// Nor this, until something interrupts it: on a virtual machine an interrupt may come through late. Code may spin at the probed
/// instruction, long after the trap, or copy much at the next.
const UNINTERRUPTED_END_NS: u64 = 10_000;
/// Nor this, if interrupts come between, ns.
const INTERRUPTED_END_NS: u64 = 100_000;

/// In [`ThreadTraps::interrupted`]. A softirq may be interrupted by the clock, neither by its own kind.
const TIMER: u64 = 1;
const SOFTIRQ: u64 = 2;

#[inline(always)]
fn of_thread<'a>(tid: u32) -> Option<&'a mut ThreadTraps> {
    // SAFETY: only the thread whose traps they are works on the value, in one trap at a time; or another one while that thread
    // waits.
    TRAPS.get_ptr_mut(&tid).map(|traps| unsafe { &mut *traps })
}

/// Whether the running thread is on its way through a copy of a probed instruction.
#[inline(always)]
fn is_stepping() -> bool {
    let offsets = TRAP_OFFSETS.load();
    let utask: u64 = memory::kernel(memory::current_task() + u64::from(offsets.task_utask)).unwrap_or(0);
    utask != 0 && memory::kernel(utask + u64::from(offsets.utask_active)).unwrap_or(0_u64) != 0
}

/// `notifier_run(callback)`: of a breakpoint, of the end of a step, or of something else.
#[raw_tracepoint]
fn notified(ctx: RawTracePointContext) -> i32 {
    let Some(traps) = of_thread(bpf_get_current_pid_tgid() as u32) else { return 0 };
    let callback: u64 = ctx.arg(0);
    if traps.uprobes != 0 && traps.uprobes != callback {
        return 0;
    }
    let time_ns = now();
    if !is_stepping() {
        traps.spent_ns += core::mem::take(&mut traps.before_step_ns);
        (traps.since_ns, traps.step_since_ns, traps.notified) = (time_ns, time_ns, callback);
    } else if traps.step_since_ns != 0 && traps.uprobes != 0 {
        traps.spent_ns += time_ns.wrapping_sub(traps.step_since_ns);
        traps.steps += 1;
        (traps.step_since_ns, traps.at_end_ns, traps.before_step_ns) = (0, time_ns, 0);
        [_, traps.end_ip] = goes_on_at();
    }
    0
}

/// Of the running thread's user registers, where it goes on and what it is in the kernel for: a system call's number, or -1.
/// (Linux: arch/x86/include/asm/ptrace.h, `orig_ax`, `ip`. Elsewhere nothing is notified.)
#[inline(always)]
fn goes_on_at() -> [u64; 2] {
    const ORIG_AX: u64 = 15 * 8;
    // SAFETY: the helpers take and give the running thread's own.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    memory::kernel(registers + ORIG_AX).unwrap_or([0; 2])
}

/// Whether the running thread, which was told of its trap, is still in it, no step is being timed, and it was last known to be
/// in it no longer ago than `most_ns`.
#[inline(always)]
fn is_at_end(traps: &ThreadTraps, most_ns: u64) -> bool {
    if is_stepping() {
        return traps.step_since_ns == 0 && traps.at_end_ns != 0;
    }
    let [number, ip] = goes_on_at();
    // The next instruction is where the step ended, or behind the probed one. Behind a jump it is known by the time only.
    let is_next = ip == traps.end_ip || ip.wrapping_sub(traps.ip) <= LONGEST_INSTRUCTION;
    let most_ns = if is_next { most_ns } else { traps.elsewhere_ns };
    (number as i64) < 0 && now().wrapping_sub(traps.at_end_ns) < most_ns
}

/// What made the thread wait or interrupted it came when it was last known to be at the end of a trap, and is over.
#[inline(always)]
fn goes_on(traps: &mut ThreadTraps, since_ns: u64) {
    let time_ns = now();
    let took_ns = time_ns.wrapping_sub(since_ns);
    if traps.step_since_ns == 0 {
        traps.spent_ns += took_ns;
    } else {
        traps.before_step_ns += took_ns;
    }
    traps.at_end_ns = time_ns;
}

/// `sched_switch(preempt, previous, next, previous_state)`. A clock or the reading half takes the processor away mostly at the
/// end of a trap: what interrupts a step comes through only then.
#[raw_tracepoint]
fn switched(ctx: RawTracePointContext) -> i32 {
    let (next, state): (u64, u64) = (ctx.arg(2), ctx.arg(3));
    let could_run = state as u32 == 0;
    if could_run
        && let Some(traps) = of_thread(bpf_get_current_pid_tgid() as u32)
        && traps.since_ns == 0
        && is_at_end(traps, INTERRUPTED_END_NS)
    {
        traps.waits_since_ns = traps.at_end_ns;
    }
    let tid = memory::kernel::<u32>(next + u64::from(TRAP_OFFSETS.load().task_pid)).unwrap_or(0);
    if let Some(traps) = of_thread(tid) {
        let since_ns = core::mem::take(&mut traps.waits_since_ns);
        if since_ns != 0 {
            goes_on(traps, since_ns);
        }
    }
    0
}

/// `local_timer_entry(vector)`, `softirq_entry(number)`. What comes before the end of a step is in its time.
#[raw_tracepoint]
fn interrupt_begins(ctx: RawTracePointContext) -> i32 {
    if let Some(traps) = of_thread(bpf_get_current_pid_tgid() as u32) {
        let kind = interrupt_kind(&ctx);
        let other = traps.interrupted & !kind;
        let is_at_end = traps.since_ns == 0 && (other != 0 || is_at_end(traps, UNINTERRUPTED_END_NS));
        traps.interrupted = other | if is_at_end { kind } else { 0 };
    }
    0
}

/// `local_timer_exit(vector)`, `softirq_exit(number)`.
#[raw_tracepoint]
fn interrupt_ends(ctx: RawTracePointContext) -> i32 {
    if let Some(traps) = of_thread(bpf_get_current_pid_tgid() as u32) {
        let kind = interrupt_kind(&ctx);
        if traps.interrupted & kind != 0 {
            traps.interrupted &= !kind;
            goes_on(traps, traps.at_end_ns);
        }
    }
    0
}

/// Softirqs have numbers from 0 to 9, vectors of interrupts such from 32 on (Linux: `enum` in include/linux/interrupt.h,
/// arch/x86/include/asm/irq_vectors.h).
#[inline(always)]
fn interrupt_kind(ctx: &RawTracePointContext) -> u64 {
    let number: u64 = ctx.arg(0);
    if (number as u32) < 32 { SOFTIRQ } else { TIMER }
}

/// Tells of the trap that the next record comes from, where traps are timed. False: it was lost, and the record, which says
/// nothing without it, is to be lost, too. `time_ns`: of that record; 0: it is yet to be taken.
#[inline(always)]
pub(crate) fn tell(place: &Place, point: u32, time_ns: u64) -> bool {
    if TRAPS_TIMED.load() == 0 {
        return true;
    }
    let Some(mut record) = emit::reserve::<Event>() else {
        emit::lost(place, point);
        return false;
    };
    // The reading half sorts by time: this comes no later than the record that it is of.
    let time_ns = if time_ns == 0 { now() } else { time_ns };
    let unknown = Event { time_ns, depth: 0, goid: 0, pid_tgid: place.pid_tgid, point: POINT_TRAP, lost: 1 };
    let tid = place.pid_tgid as u32;
    record.write(match of_thread(tid) {
        Some(traps) => {
            let (since_ns, known) = (traps.since_ns, traps.since_ns != 0);
            // Who takes a breakpoint for its own is notified last.
            traps.uprobes = if known { traps.notified } else { 0 };
            traps.told = 1;
            let time_ns = if known { since_ns } else { time_ns };
            Event { time_ns, depth: traps.spent_ns, goid: traps.steps, lost: u32::from(!known), ..unknown }
        }
        None => {
            // Where there is no room, it is not known the next time either.
            let _ = TRAPS.insert(&tid, &NONE, 0);
            unknown
        }
    });
    record.submit(NO_WAKEUP);
    true
}

/// The events of the running thread's trap are told, those that were. What interrupts it between an event's time and this is
/// not seen, where no step follows.
#[inline(always)]
pub(crate) fn handled() {
    handled_until(0);
}

/// The same in a trap that goes on elsewhere than behind the probed instruction.
#[inline(always)]
pub(crate) fn jumped() {
    handled_until(END_NS);
}

#[inline(always)]
fn handled_until(elsewhere_ns: u64) {
    if TRAPS_TIMED.load() != 0
        && let Some(traps) = of_thread(bpf_get_current_pid_tgid() as u32)
        && core::mem::take(&mut traps.told) != 0
    {
        [_, traps.ip] = goes_on_at();
        (traps.at_end_ns, traps.end_ip, traps.elsewhere_ns) = (now(), traps.ip, elsewhere_ns);
        // What comes by another way than a breakpoint must not be taken for this trap.
        traps.since_ns = 0;
    }
}
