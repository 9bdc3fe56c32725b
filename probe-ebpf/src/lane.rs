//! Which goroutine or thread an event belongs to, and how deep its stack is.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::ProbeContext};
use probe_ebpf::abi::{Cookie, DEPTH_ALTERNATE, GoProgram, Lane, Origin, goroutine_depth, is_gos_own, thread_depth};

use crate::{
    maps::{GO_PROGRAMS, ORIGINS, TASK_ALTERNATE, TASK_TP},
    memory, regs,
};

/// Who runs, where on its stack.
pub(crate) struct Place {
    pub(crate) goid: u64,
    pub(crate) depth: u64,
    pub(crate) pid_tgid: u64,
    /// Address of the goroutine's g; 0 outside goroutines, and where it is not needed.
    pub(crate) g: u64,
}

impl Place {
    #[inline(always)]
    pub(crate) fn lane(&self) -> Lane {
        let thread = if self.goid == 0 { self.pid_tgid } else { self.pid_tgid & !0xffff_ffff };
        Lane { thread, goid: self.goid }
    }

    /// Whether this is a goroutine's own stack, and not that of a thread, nor of C that a goroutine called.
    #[inline(always)]
    pub(crate) fn is_on_goroutine(&self) -> bool {
        self.goid != 0 && is_gos_own(self.depth)
    }

    /// Whether this is a signal handler's, on an alternate stack.
    #[inline(always)]
    pub(crate) fn is_on_alternate(&self) -> bool {
        self.goid == 0 && self.depth & DEPTH_ALTERNATE != 0
    }
}

#[inline(always)]
pub(crate) fn place(ctx: &ProbeContext, cookie: Cookie, sp: u64) -> Place {
    let pid_tgid = bpf_get_current_pid_tgid();
    if cookie.goid_offset() != 0
        && let Some(found) = goroutine(ctx, cookie, sp)
    {
        return Place { goid: found.goid, depth: found.depth, pid_tgid, g: found.g };
    }
    Place { goid: 0, depth: thread_depth(sp, on_alternate_stack(sp)), pid_tgid, g: 0 }
}

/// Whether a signal handler runs, on the stack that `sigaltstack` has set.
#[inline(always)]
fn on_alternate_stack(sp: u64) -> bool {
    let [lowest, bytes] = alternate_stack();
    sp.wrapping_sub(lowest).wrapping_sub(1) < bytes
}

/// The stack that `sigaltstack` has set: its lowest address and its size, 0 where there is none.
#[inline(always)]
pub(crate) fn alternate_stack() -> [u64; 2] {
    let offset = TASK_ALTERNATE.load();
    if offset == 0 {
        return [0; 2];
    }
    // Linux: include/linux/sched.h, task_struct: sas_ss_sp, sas_ss_size.
    memory::kernel(memory::current_task() + u64::from(offset)).unwrap_or([0; 2])
}

/// Where thread-local storage is.
#[inline(always)]
pub(crate) fn thread_pointer() -> Option<u64> {
    let offset = TASK_TP.load();
    if offset == 0 {
        return None;
    }
    memory::kernel(memory::current_task() + u64::from(offset))
}

/// A goroutine, and how deep its stack is.
struct Goroutine {
    goid: u64,
    depth: u64,
    g: u64,
}

/// The goroutine that runs on this stack, or called the C code that does; none on a system stack.
#[inline(always)]
fn goroutine(ctx: &ProbeContext, cookie: Cookie, sp: u64) -> Option<Goroutine> {
    if !cookie.has_foreign_g()
        && let Some(found) = Stack::of(regs::go_g(ctx), sp)
    {
        return found.goroutine(cookie, sp);
    }
    let program = GO_PROGRAMS.get(cookie.program())?;
    let g: u64 = memory::user(thread_pointer()?.wrapping_add(program.tls as u64))?;
    let stack = Stack::of(g, sp);
    if let Some(stack) = &stack
        && let Some(found) = stack.goroutine(cookie, sp)
    {
        return Some(found);
    }
    let m: u64 = memory::user(g + u64::from(program.m))?;
    let curg: u64 = memory::user(m + u64::from(program.curg))?;
    match stack {
        Some(system) => called_c(curg, program, cookie, system.hi - sp),
        None => Stack::of(curg, sp)?.goroutine(cookie, sp),
    }
}

/// On the system stack: the goroutine that this thread works for, at the place where it is to go on.
#[inline(always)]
pub(crate) fn suspended(ctx: &ProbeContext, cookie: Cookie) -> Option<Place> {
    let program = GO_PROGRAMS.get(cookie.program())?;
    let m: u64 = memory::user(regs::go_g(ctx) + u64::from(program.m))?;
    let g: u64 = memory::user(m + u64::from(program.curg))?;
    let sp: u64 = memory::user(g + u64::from(program.sched_sp))?;
    let found = Stack::of(g, sp)?.goroutine(cookie, sp)?;
    Some(Place { goid: found.goid, depth: found.depth, pid_tgid: bpf_get_current_pid_tgid(), g })
}

/// In C that a goroutine called: from where on its stack, and where that stack ends.
#[inline(always)]
pub(crate) fn goroutine_below_c(cookie: Cookie) -> Option<(u64, u64)> {
    let program = GO_PROGRAMS.get(cookie.program())?;
    if program.syscall_sp == 0 {
        return None;
    }
    let g: u64 = memory::user(thread_pointer()?.wrapping_add(program.tls as u64))?;
    let m: u64 = memory::user(g + u64::from(program.m))?;
    let curg: u64 = memory::user(m + u64::from(program.curg))?;
    let sp: u64 = memory::user(curg + u64::from(program.syscall_sp))?;
    Some((sp, Stack::of(curg, sp)?.hi))
}

/// Who made the goroutine, and where, if that is asked for.
#[inline(always)]
pub(crate) fn origin(cookie: Cookie, place: &Place) -> Option<Origin> {
    if ORIGINS.load() == 0 || place.g == 0 {
        return None;
    }
    let program = GO_PROGRAMS.get(cookie.program())?;
    let field = |offset: u32| {
        if offset == 0 { 0 } else { memory::user(place.g + u64::from(offset)).unwrap_or(0) }
    };
    Some(Origin { parent: field(program.parent_goid), go_statement: field(program.gopc) })
}

/// The goroutine `curg`, if it has called C: that runs on the thread's own stack, of which it has used this many bytes.
#[inline(always)]
fn called_c(curg: u64, program: &GoProgram, cookie: Cookie, used: u64) -> Option<Goroutine> {
    if program.syscall_sp == 0 {
        return None;
    }
    // Go: runtime.cgocall enters a system call, so to speak: src/runtime/cgocall.go, entersyscall in proc.go.
    let sp: u64 = memory::user(curg + u64::from(program.syscall_sp))?;
    let stack = Stack::of(curg, sp)?;
    let goid: u64 = memory::user(curg + cookie.goid_offset())?;
    (goid != 0).then_some(Goroutine { goid, depth: goroutine_depth(stack.hi - sp, used), g: curg })
}

/// The stack that a g has.
struct Stack {
    g: u64,
    hi: u64,
}

impl Stack {
    /// None: `sp` is not on the stack of this g.
    #[inline(always)]
    fn of(g: u64, sp: u64) -> Option<Self> {
        // runtime.g begins with stack{lo, hi}, in every version of Go.
        let [lo, hi]: [u64; 2] = memory::user(g)?;
        (sp > lo && sp <= hi).then_some(Self { g, hi })
    }

    /// None: it is that of a system goroutine (g0, gsignal).
    #[inline(always)]
    fn goroutine(&self, cookie: Cookie, sp: u64) -> Option<Goroutine> {
        let goid: u64 = memory::user(self.g + cookie.goid_offset())?;
        (goid != 0).then_some(Goroutine { goid, depth: goroutine_depth(self.hi - sp, 0), g: self.g })
    }
}
