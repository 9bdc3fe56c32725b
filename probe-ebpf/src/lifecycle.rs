//! Forks, execs and ends: the set of traced processes, and records of what ends calls.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use probe_ebpf::abi::{FILTER_TIDS, POINT_EXEC, POINT_PROCESS_EXIT, POINT_THREAD_EXIT, exec_place};

use crate::{
    defer, emit, groups,
    lane::Place,
    maps::{BY_COMM, COMM, FOLLOW, NOT_TRACED, PID_FILTER, PIDS, SIGNAL_LIVE, TASK_SIGNAL, TASK_TGID},
    memory, runners,
};

const MEMBER: u32 = 1;

/// Takes a process into the traced ones. The reading half says how many found no room.
#[inline(always)]
fn trace(pid: u32) {
    if PIDS.insert(&pid, &MEMBER, 0).is_err() {
        emit::add(NOT_TRACED.get_ptr_mut(0));
    }
}

/// `sched_process_fork(parent, child)`: runs before the child does.
#[raw_tracepoint]
fn process_fork(ctx: RawTracePointContext) -> i32 {
    if FOLLOW.load() == 0 || TASK_TGID.load() == 0 {
        return 0;
    }
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    if PIDS.get_ptr(&parent).is_some() {
        let child: u64 = ctx.arg(1);
        if let Some(child) = memory::kernel::<u32>(child + u64::from(TASK_TGID.load()))
            && child != parent
        {
            trace(child);
        }
    }
    0
}

/// `sched_process_exec`: the new program's name is set, its first instruction not yet executed.
#[raw_tracepoint]
fn process_exec(_ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    let member = PIDS.get_ptr(&pid).is_some();
    if BY_COMM.load() != 0 {
        if has_comm() {
            trace(pid);
        } else if member {
            let _ = PIDS.remove(&pid);
        }
    }
    if (PID_FILTER.load() == 0 || member)
        && let Some(group) = groups::holding_current()
    {
        defer::before_end(&place(pid_tgid));
        // A process that ends soon cannot be asked for it.
        let told = Place { depth: exec_place(groups::number_inside(), group), ..place(pid_tgid) };
        emit::event(&told, POINT_EXEC, 0);
    }
    0
}

/// `sched_process_exit`, for every thread.
#[raw_tracepoint]
fn process_exit(_ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    let last = is_last(pid_tgid);
    let filter = PID_FILTER.load();
    let id = if filter == FILTER_TIDS { pid_tgid as u32 } else { pid };
    if filter != 0 && PIDS.get_ptr(&id).is_none() {
        return 0;
    }
    if groups::hold_current() {
        let point = if last { POINT_PROCESS_EXIT } else { POINT_THREAD_EXIT };
        defer::before_end(&place(pid_tgid));
        emit::event(&place(pid_tgid), point, 0);
        defer::forget(&place(pid_tgid).lane());
    }
    if filter == FILTER_TIDS || last {
        let _ = PIDS.remove(&id);
    }
    if last {
        runners::forget(pid);
    }
    0
}

#[inline(always)]
fn place(pid_tgid: u64) -> Place {
    Place { goid: 0, depth: 0, pid_tgid, g: 0 }
}

/// Whether no other thread of the process lives. `do_exit` counts `signal->live` down before the tracepoint.
#[inline(always)]
fn is_last(pid_tgid: u64) -> bool {
    let (signal, live) = (TASK_SIGNAL.load(), SIGNAL_LIVE.load());
    if signal == 0 || live == 0 {
        return pid_tgid as u32 == (pid_tgid >> 32) as u32;
    }
    memory::kernel::<u64>(memory::current_task() + u64::from(signal))
        .and_then(|signal| memory::kernel::<u32>(signal + u64::from(live)))
        .is_none_or(|live| live == 0)
}

#[inline(always)]
fn has_comm() -> bool {
    let (Ok(comm), wanted) = (bpf_get_current_comm(), COMM.load()) else { return false };
    for i in 0..wanted.len() {
        if comm[i] != wanted[i] {
            return false;
        }
        if wanted[i] == 0 {
            return true;
        }
    }
    true
}
