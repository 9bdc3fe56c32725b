//! The kernel half of `probe`.
//!
//! Programs on probe points tell the reading half that a function was entered, left or passed; programs on
//! tracepoints keep the set of traced processes and tell of their ends. They do the least: one record per event, no
//! wake-up, no text.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod count;
mod emit;
mod jump;
mod lane;
mod lifecycle;
mod maps;
mod memory;
mod regs;
mod walk;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use probe_ebpf::abi::{Cookie, FILTER_NONE, FILTER_TIDS};

use crate::{
    lane::place,
    maps::{LINKS_FILTER, OUTERMOST, PID_FILTER, PIDS, STACK_ALL, STACK_DEPTH},
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
    let filter = PID_FILTER.load();
    if filter == FILTER_NONE || LINKS_FILTER.load() != 0 {
        return true;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let id = if filter == FILTER_TIDS { pid_tgid as u32 } else { (pid_tgid >> 32) as u32 };
    PIDS.get_ptr(&id).is_some()
}

#[inline(always)]
fn on_entry(ctx: &ProbeContext) {
    let cookie = cookie(ctx);
    count::passed(cookie);
    if !wanted() {
        return;
    }
    let place = place(ctx, cookie, regs::sp(ctx));
    if STACK_DEPTH.load() == 0 {
        emit::event(&place, cookie.numbers(), 0);
        return;
    }
    if STACK_ALL.load() != 0 {
        emit::event_with_frames(&place, cookie.numbers(), Walk::from_entry(ctx));
        return;
    }
    let lane = place.lane();
    // SAFETY: a racy read of a number that only this thread or goroutine writes.
    let inside = OUTERMOST.get_ptr(&lane).is_some_and(|depth| place.depth > unsafe { *depth });
    if inside {
        emit::event(&place, cookie.numbers(), 0);
    } else if emit::event_with_frames(&place, cookie.numbers(), Walk::from_entry(ctx)) {
        // A full map costs callers for inner calls, nothing else.
        let _ = OUTERMOST.insert(&lane, &place.depth, 0);
    }
}

#[inline(always)]
fn leave(ctx: &ProbeContext, cookie: Cookie, sp: u64) {
    let time_ns = emit::now();
    count::passed(cookie);
    if !wanted() {
        return;
    }
    let place = place(ctx, cookie, sp);
    emit::event(&place, cookie.numbers(), time_ns);
    if STACK_DEPTH.load() != 0 && STACK_ALL.load() == 0 {
        let lane = place.lane();
        // SAFETY: a racy read of a number that only this thread or goroutine writes.
        if OUTERMOST.get_ptr(&lane).is_some_and(|depth| place.depth <= unsafe { *depth }) {
            let _ = OUTERMOST.remove(&lane);
        }
    }
}

/// At a RET, or at a jump that always leaves: SP is the entry's again.
#[inline(always)]
fn on_exit(ctx: &ProbeContext) {
    leave(ctx, cookie(ctx), regs::sp(ctx));
}

#[inline(always)]
fn on_point(ctx: &ProbeContext) {
    let cookie = cookie(ctx);
    count::passed(cookie);
    if !wanted() {
        return;
    }
    let place = place(ctx, cookie, regs::sp(ctx));
    if STACK_DEPTH.load() == 0 {
        emit::event(&place, cookie.numbers(), 0);
    } else {
        emit::event_with_frames(&place, cookie.numbers(), Walk::from_point(ctx));
    }
}

#[inline(always)]
fn on_jump(ctx: &ProbeContext) {
    let cookie = cookie(ctx);
    if jump::leaves(ctx, cookie) {
        leave(ctx, cookie, regs::sp(ctx));
    } else {
        count::passed(cookie);
    }
}

/// After a return: the return address has been popped (x86-64), so the entry's SP is one word below.
#[inline(always)]
fn on_return(ctx: &RetProbeContext) {
    let ctx = ProbeContext::new(ctx.as_ptr());
    let popped = if cfg!(bpf_target_arch = "x86_64") { 8 } else { 0 };
    leave(&ctx, cookie(&ctx), regs::sp(&ctx) - popped);
}

/// One program for a link to many points (Linux 6.6), its twin for a link to one.
macro_rules! programs {
    ($($multi:ident, $single:ident: $body:expr;)*) => {$(
        #[uprobe(multi)]
        fn $multi(ctx: ProbeContext) -> u32 {
            $body(&ctx);
            0
        }
        #[uprobe]
        fn $single(ctx: ProbeContext) -> u32 {
            $body(&ctx);
            0
        }
    )*};
}

programs! {
    entry_multi, entry: on_entry;
    exit_multi, exit: on_exit;
    jump_multi, jump: on_jump;
    point_multi, point: on_point;
}

#[uretprobe(multi)]
fn return_multi(ctx: RetProbeContext) -> u32 {
    on_return(&ctx);
    0
}

#[uretprobe]
fn return_single(ctx: RetProbeContext) -> u32 {
    on_return(&ctx);
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
