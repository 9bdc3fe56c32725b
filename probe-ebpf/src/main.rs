//! The kernel half of `probe`.
//!
//! Programs on probe points tell the reading half that a function was entered, left or passed; programs on
//! tracepoints keep the set of traced processes and tell of their ends. They do the least: one record per event, no
//! wake-up, no text.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod copy;
mod count;
mod defer;
mod emit;
mod groups;
mod jump;
mod lane;
mod lifecycle;
mod maps;
mod memory;
mod outermost;
mod regs;
mod runners;
mod trap;
mod walk;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use probe_ebpf::abi::{COPY_AT_ENTRY, Cookie, FILTER_NONE, FILTER_TIDS};

use crate::{
    lane::{Place, place},
    maps::{LINKS_FILTER, PID_FILTER, PIDS, STACK_ALL, STACK_DEPTH},
    walk::Walk,
};

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> Cookie {
    // SAFETY: the context is this program's own.
    Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) })
}

/// Whether the running process (or thread) is one that is traced.
#[inline(always)]
fn wanted() -> bool {
    is_named() && groups::hold_current()
}

/// The same by its number alone.
#[inline(always)]
fn is_named() -> bool {
    let filter = PID_FILTER.load();
    if filter == FILTER_NONE || LINKS_FILTER.load() != 0 {
        return true;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let id = if filter == FILTER_TIDS { pid_tgid as u32 } else { (pid_tgid >> 32) as u32 };
    PIDS.get_ptr(&id).is_some()
}

/// The point, and who passes it where; none when it is not to be told. `sp` is the entry's stack pointer, `time_ns` the
/// event's time, or 0 where that is taken last.
#[inline(always)]
fn here(ctx: &ProbeContext, sp: u64, time_ns: u64) -> Option<(Cookie, Place)> {
    let cookie = cookie(ctx);
    count::passed(cookie);
    if !wanted() {
        return None;
    }
    let place = place(ctx, cookie, sp);
    trap::tell(&place, cookie.numbers(), time_ns).then_some((cookie, place))
}

#[inline(always)]
fn on_entry(ctx: &ProbeContext) {
    let Some((cookie, place)) = here(ctx, regs::sp(ctx), 0) else { return };
    runners::note(&place);
    if !outermost::is_more_told() || STACK_ALL.load() == 0 && outermost::holds(&place) {
        emit::event(&place, cookie.numbers(), 0);
        return;
    }
    if !emit::kernel_frames(&place, cookie.numbers()) {
        return;
    }
    let origin = lane::origin(cookie, &place);
    let told = if STACK_DEPTH.load() == 0 {
        emit::event_with_origin(&place, cookie.numbers(), origin)
    } else if copy::is_wanted(cookie, &place) {
        copy::event(ctx, cookie, &place, origin, COPY_AT_ENTRY)
    } else {
        emit::event_with_frames(&place, cookie.numbers(), origin, Walk::from_entry(ctx))
    };
    if told && STACK_ALL.load() == 0 {
        outermost::begins(&place);
    }
}

#[inline(always)]
fn leave(ctx: &ProbeContext, sp: u64) {
    let time_ns = emit::now();
    let Some((cookie, place)) = here(ctx, sp, time_ns) else { return };
    emit::event(&place, cookie.numbers(), time_ns);
    outermost::ends(&place);
}

/// An unwinder enters a frame: calls as deep and deeper are over.
#[inline(always)]
fn land(ctx: &ProbeContext, sp: u64) {
    let time_ns = emit::now();
    let Some((cookie, place)) = here(ctx, sp, time_ns) else { return };
    defer::before_end(&place);
    emit::event(&place, cookie.numbers(), time_ns);
    outermost::ends(&place);
}

/// At a RET, or at a jump that always leaves: SP is the entry's again.
#[inline(always)]
fn on_exit(ctx: &ProbeContext) {
    leave(ctx, regs::sp(ctx));
}

#[inline(always)]
fn on_point(ctx: &ProbeContext) {
    let Some((cookie, place)) = here(ctx, regs::sp(ctx), 0) else { return };
    if !emit::kernel_frames(&place, cookie.numbers()) {
        return;
    }
    let origin = lane::origin(cookie, &place);
    if STACK_DEPTH.load() == 0 {
        emit::event_with_origin(&place, cookie.numbers(), origin);
    } else if copy::is_wanted(cookie, &place) {
        copy::event(ctx, cookie, &place, origin, 0);
    } else {
        emit::event_with_frames(&place, cookie.numbers(), origin, Walk::from_point(ctx));
    }
}

#[inline(always)]
fn on_jump(ctx: &ProbeContext) {
    let cookie = cookie(ctx);
    if jump::leaves(ctx, cookie) {
        leave(ctx, regs::sp(ctx));
        trap::jumped();
    } else {
        count::passed(cookie);
    }
}

/// Where an unwinder enters the frame that it unwound to: calls as deep and deeper are over. It has loaded that
/// frame's stack pointer; at a RET its word below, which is as good: what called the unwinder stands there.
#[inline(always)]
fn on_landing(ctx: &ProbeContext) {
    if runners::has_current() {
        land(ctx, regs::sp(ctx));
    }
}

/// At the call of glibc's `__longjmp(buffer, value)`: the same, for the frame that the buffer names.
#[inline(always)]
fn on_longjmp(ctx: &ProbeContext) {
    if runners::has_current()
        && let Some(sp) = guarded_sp(regs::argument::<0>(ctx))
    {
        land(ctx, sp);
    }
}

/// The stack pointer in a `jmp_buf` of glibc. Its word 6 is kept as `rol(sp ^ guard, 17)`, the guard at `fs:0x30`
/// (sysdeps/x86_64/__longjmp.S; sysdeps/unix/sysv/linux/x86_64/pointer_guard.h).
#[inline(always)]
fn guarded_sp(buffer: u64) -> Option<u64> {
    let kept: u64 = memory::user(buffer.wrapping_add(6 * 8))?;
    let guard: u64 = memory::user(lane::thread_pointer()?.wrapping_add(0x30))?;
    Some(kept.rotate_right(17) ^ guard)
}

/// Where Go's runtime, on the system stack, sends a goroutine that recovered.
#[inline(always)]
fn on_recovery(ctx: &ProbeContext) {
    let time_ns = emit::now();
    if !wanted() {
        return;
    }
    let cookie = cookie(ctx);
    if let Some(place) = lane::suspended(ctx, cookie)
        && trap::tell(&place, cookie.numbers(), time_ns)
    {
        defer::before_end(&place);
        emit::event(&place, cookie.numbers(), time_ns);
        outermost::ends(&place);
    }
}

/// Whether a coroutine that is made here may run in what is traced: any thread of the process may resume it, and in a
/// library that all processes share it may be made before the first traced call.
#[inline(always)]
fn may_be_resumed() -> bool {
    PID_FILTER.load() == FILTER_TIDS && groups::hold_current() || wanted()
}

/// `makecontext(ucp, …)`: a stack for a coroutine.
#[inline(always)]
fn on_makecontext(ctx: &ProbeContext) {
    // glibc, musl, x86-64 and arm64: ucontext_t is uc_flags, uc_link, uc_stack {ss_sp, ss_flags, ss_size}.
    if may_be_resumed()
        && let Some([lowest, _flags, bytes]) = memory::user::<[u64; 3]>(regs::argument::<0>(ctx).wrapping_add(16))
    {
        emit::stack(lowest, bytes);
    }
}

/// `make_fcontext(upper end, size, …)` of Boost.Context: the same.
#[inline(always)]
fn on_make_fcontext(ctx: &ProbeContext) {
    if may_be_resumed() {
        let (end, bytes) = (regs::argument::<0>(ctx), regs::argument::<1>(ctx));
        emit::stack(end.wrapping_sub(bytes), bytes);
    }
}

/// After a return: the return address has been popped (x86-64), so the entry's SP is one word below.
#[inline(always)]
fn on_return(ctx: &RetProbeContext) {
    let ctx = ProbeContext::new(ctx.as_ptr());
    let popped = if cfg!(bpf_target_arch = "x86_64") { 8 } else { 0 };
    leave(&ctx, regs::sp(&ctx) - popped);
}

/// One program for a link to many points (Linux 6.6), its twin for a link to one.
macro_rules! programs {
    ($($multi:ident, $single:ident: $body:expr;)*) => {$(
        #[uprobe(multi)]
        fn $multi(ctx: ProbeContext) -> u32 {
            $body(&ctx);
            trap::handled();
            0
        }
        #[uprobe]
        fn $single(ctx: ProbeContext) -> u32 {
            $body(&ctx);
            trap::handled();
            0
        }
    )*};
}

programs! {
    entry_multi, entry: on_entry;
    exit_multi, exit: on_exit;
    jump_multi, jump: on_jump;
    deferred_entry_multi, deferred_entry: defer::on_entry;
    deferred_exit_multi, deferred_exit: defer::on_exit;
    deferred_jump_multi, deferred_jump: defer::on_jump;
    point_multi, point: on_point;
    landing_multi, landing: on_landing;
    recovery_multi, recovery: on_recovery;
    longjmp_multi, longjmp: on_longjmp;
    makecontext_multi, makecontext: on_makecontext;
    make_fcontext_multi, make_fcontext: on_make_fcontext;
}

/// Only counts: at every entry, before anything is traced.
#[uprobe(multi)]
fn count_multi(ctx: ProbeContext) -> u32 {
    count::passed(cookie(&ctx));
    0
}

#[uretprobe(multi)]
fn return_multi(ctx: RetProbeContext) -> u32 {
    on_return(&ctx);
    trap::handled();
    0
}

#[uretprobe]
fn return_single(ctx: RetProbeContext) -> u32 {
    on_return(&ctx);
    trap::handled();
    0
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that trace programs use are for GPL-compatible programs (Linux: kernel/trace/bpf_trace.c).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
