//! Which goroutine or thread an event belongs to, and how deep its stack is.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::ProbeContext};
use probe_ebpf::abi::{Cookie, Lane};

use crate::{
    maps::{GO_PROGRAMS, TASK_TP},
    memory, regs,
};

/// Who runs, where on its stack.
pub(crate) struct Place {
    pub(crate) goid: u64,
    pub(crate) depth: u64,
    pub(crate) pid_tgid: u64,
}

impl Place {
    #[inline(always)]
    pub(crate) fn lane(&self) -> Lane {
        let thread = if self.goid == 0 { self.pid_tgid } else { self.pid_tgid & !0xffff_ffff };
        Lane { thread, goid: self.goid }
    }
}

#[inline(always)]
pub(crate) fn place(ctx: &ProbeContext, cookie: Cookie, sp: u64) -> Place {
    let pid_tgid = bpf_get_current_pid_tgid();
    if cookie.goid_offset() != 0
        && let Some((goid, depth)) = goroutine(ctx, cookie, sp)
    {
        return Place { goid, depth, pid_tgid };
    }
    Place { goid: 0, depth: !sp, pid_tgid }
}

/// The goroutine that runs on this stack and the stack's depth; none on a system stack.
#[inline(always)]
fn goroutine(ctx: &ProbeContext, cookie: Cookie, sp: u64) -> Option<(u64, u64)> {
    if !cookie.has_foreign_g()
        && let Some(found) = on_stack_of(regs::go_g(ctx), cookie, sp)
    {
        return found;
    }
    let program = GO_PROGRAMS.get(cookie.program())?;
    let offset = TASK_TP.load();
    if offset == 0 {
        return None;
    }
    let tp: u64 = memory::kernel(memory::current_task() + u64::from(offset))?;
    let g: u64 = memory::user(tp.wrapping_add(program.tls as u64))?;
    if let Some(found) = on_stack_of(g, cookie, sp) {
        return found;
    }
    let m: u64 = memory::user(g + u64::from(program.m))?;
    let curg: u64 = memory::user(m + u64::from(program.curg))?;
    on_stack_of(curg, cookie, sp)?
}

/// On the system stack: the goroutine that this thread works for, and how deep it is where it is to go on.
#[inline(always)]
pub(crate) fn suspended(ctx: &ProbeContext, cookie: Cookie) -> Option<(u64, u64)> {
    let program = GO_PROGRAMS.get(cookie.program())?;
    let m: u64 = memory::user(regs::go_g(ctx) + u64::from(program.m))?;
    let g: u64 = memory::user(m + u64::from(program.curg))?;
    // runtime.g begins with stack{lo, hi}, in every version of Go.
    let hi: u64 = memory::user(g + 8)?;
    let sp: u64 = memory::user(g + u64::from(program.sched_sp))?;
    let goid: u64 = memory::user(g + cookie.goid_offset())?;
    Some((goid, hi.wrapping_sub(sp)))
}

/// None: `sp` is not on the stack of this g. `Some(None)`: it is, and this g is a system goroutine (g0, gsignal).
#[inline(always)]
fn on_stack_of(g: u64, cookie: Cookie, sp: u64) -> Option<Option<(u64, u64)>> {
    // runtime.g begins with stack{lo, hi}, in every version of Go.
    let [lo, hi]: [u64; 2] = memory::user(g)?;
    if sp <= lo || sp > hi {
        return None;
    }
    let goid: u64 = memory::user(g + cookie.goid_offset())?;
    Some(if goid == 0 { None } else { Some((goid, hi - sp)) })
}
