//! Maps and load-time constants. The reading half sets the constants before the programs are loaded, so that the
//! verifier drops the branches that a trace does not need.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{ArrayOfMaps, RingBuf},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap},
};
use probe_ebpf::{
    abi::{COMM_LEN, Event, FILTER_NONE, GROUPS_ALL, GoProgram, GroupOffsets, Jump, Lane, TrapOffsets},
    deferred::Deferred,
};

use crate::trap::ThreadTraps;

/// `FILTER_…`: what [`PIDS`] means.
#[unsafe(no_mangle)]
pub(crate) static PID_FILTER: Global<u32> = Global::new(FILTER_NONE);
/// `GROUPS_…`: what [`GROUPS`] means.
#[unsafe(no_mangle)]
pub(crate) static GROUPS_BY: Global<u32> = Global::new(GROUPS_ALL);
/// How a process's groups are found.
#[unsafe(no_mangle)]
pub(crate) static GROUP_OFFSETS: Global<GroupOffsets> = Global::new(NO_OFFSETS);
const NO_OFFSETS: GroupOffsets = GroupOffsets {
    task_thread_pid: 0,
    pid_level: 0,
    pid_numbers: 0,
    upid_size: 0,
    upid_nr: 0,
    upid_ns: 0,
    namespace_inum: 0,
    task_cgroups: 0,
    set_group: 0,
    group_through: 0,
    cgroup_level: 0,
    cgroup_ancestors: 0,
    ancestors_are_ids: 0,
    cgroup_kn: 0,
    node_id: 0,
};
/// 1: the links see only processes that are traced, so programs on points need not look into [`PIDS`].
#[unsafe(no_mangle)]
pub(crate) static LINKS_FILTER: Global<u32> = Global::new(0);
/// 1: children of processes in [`PIDS`] join it.
#[unsafe(no_mangle)]
pub(crate) static FOLLOW: Global<u32> = Global::new(0);
/// 1: processes join [`PIDS`] when they execute under the name [`COMM`], and leave it when under another.
#[unsafe(no_mangle)]
pub(crate) static BY_COMM: Global<u32> = Global::new(0);
/// See [`BY_COMM`]; padded with 0.
#[unsafe(no_mangle)]
pub(crate) static COMM: Global<[u8; COMM_LEN]> = Global::new([0; COMM_LEN]);
/// Callers to collect for each event that wants them; 0: none.
#[unsafe(no_mangle)]
pub(crate) static STACK_DEPTH: Global<u32> = Global::new(0);
/// 1: callers for every call, 0: for outermost calls.
#[unsafe(no_mangle)]
pub(crate) static STACK_ALL: Global<u32> = Global::new(0);
/// 1: with callers the kernel's own frames are told.
#[unsafe(no_mangle)]
pub(crate) static KERNEL_STACK: Global<u32> = Global::new(0);
/// 1: who made the goroutine, and where, is told with every outermost call.
#[unsafe(no_mangle)]
pub(crate) static ORIGINS: Global<u32> = Global::new(0);
/// Bytes of the stack to copy, where callers are to be found by unwind tables; 0: they are found by frame pointers
/// everywhere.
#[unsafe(no_mangle)]
pub(crate) static STACK_COPY: Global<u32> = Global::new(0);
/// 1: Go's stacks are copied too, though Go keeps frame pointers.
#[unsafe(no_mangle)]
pub(crate) static STACK_COPY_GO: Global<u32> = Global::new(0);
/// Offsets in `struct task_struct` and `struct signal_struct` (bytes), from the kernel's BTF; 0: not known.
#[unsafe(no_mangle)]
pub(crate) static TASK_TGID: Global<u32> = Global::new(0);
/// `task_struct.signal`.
#[unsafe(no_mangle)]
pub(crate) static TASK_SIGNAL: Global<u32> = Global::new(0);
/// `signal_struct.live`: threads not yet ended.
#[unsafe(no_mangle)]
pub(crate) static SIGNAL_LIVE: Global<u32> = Global::new(0);
/// The user thread pointer: `task_struct.thread.fsbase` (x86-64), `thread.uw.tp_value` (arm64).
#[unsafe(no_mangle)]
pub(crate) static TASK_TP: Global<u32> = Global::new(0);
/// `task_struct.mm`.
#[unsafe(no_mangle)]
pub(crate) static TASK_MM: Global<u32> = Global::new(0);
/// `mm_struct.start_stack`: where the first thread's stack begins.
#[unsafe(no_mangle)]
pub(crate) static MM_START_STACK: Global<u32> = Global::new(0);
/// `task_struct.sas_ss_sp`, the alternate signal stack; its size stands behind it.
#[unsafe(no_mangle)]
pub(crate) static TASK_ALTERNATE: Global<u32> = Global::new(0);
/// `task_struct.utask`: what probes know of the thread; with the next four all or none.
#[unsafe(no_mangle)]
pub(crate) static TASK_UTASK: Global<u32> = Global::new(0);
/// `uprobe_task.return_instances`: the innermost return that a probe waits for.
#[unsafe(no_mangle)]
pub(crate) static UTASK_RETURNS: Global<u32> = Global::new(0);
/// `return_instance.stack`: where the return address was.
#[unsafe(no_mangle)]
pub(crate) static RETURN_STACK: Global<u32> = Global::new(0);
/// `return_instance.orig_ret_vaddr`: what it was.
#[unsafe(no_mangle)]
pub(crate) static RETURN_ADDRESS: Global<u32> = Global::new(0);
/// `return_instance.next`: the next one further out.
#[unsafe(no_mangle)]
pub(crate) static RETURN_NEXT: Global<u32> = Global::new(0);

/// 1: unwinders in files that other programs share are watched in every process; see [`RUNS`].
#[unsafe(no_mangle)]
pub(crate) static SHARED_UNWINDERS: Global<u32> = Global::new(0);

/// Points in one row of [`COUNTS`]; 0: nothing is counted.
#[unsafe(no_mangle)]
pub(crate) static COUNTS_ROW: Global<u32> = Global::new(0);
/// Rows of [`COUNTS`], a power of two, less one.
#[unsafe(no_mangle)]
pub(crate) static COUNTS_LAST_ROW: Global<u32> = Global::new(0);

/// Shorter calls are not told of, ns; 0: all are. Only with the programs that defer.
#[unsafe(no_mangle)]
pub(crate) static MIN_DURATION: Global<u64> = Global::new(0);

/// 1: traps are timed, and told of before each record.
#[unsafe(no_mangle)]
pub(crate) static TRAPS_TIMED: Global<u32> = Global::new(0);
/// With [`TRAPS_TIMED`].
#[unsafe(no_mangle)]
pub(crate) static TRAP_OFFSETS: Global<TrapOffsets> =
    Global::new(TrapOffsets { task_utask: 0, utask_active: 0, task_pid: 0 });

/// Records for the reading half: ring buffers of a CPU each, or of several, and behind them one of all, for what finds no room in
/// its CPU's. How many and how large the reading half says; these here are as large as the largest page.
#[btf_map]
pub(crate) static RINGS: ArrayOfMaps<RingBuf<Event, 65536>, 1> = ArrayOfMaps::new();
/// So many of [`RINGS`] are of CPUs: a power of two, or 0.
#[unsafe(no_mangle)]
pub(crate) static CPU_RINGS: Global<u32> = Global::new(0);
/// Processes (or threads) that are traced.
#[map]
pub(crate) static PIDS: HashMap<u32, u32> = HashMap::with_max_entries(65536, 0);
/// Containers and cgroups that are traced, by the numbers that the kernel has for them. It changes when one starts anew.
#[map]
pub(crate) static GROUPS: HashMap<u64, u32> = HashMap::with_max_entries(1024, 0);
/// Processes that there was no room for in [`PIDS`]: they are not traced.
#[map]
pub(crate) static NOT_TRACED: Array<u64> = Array::with_max_entries(1, 0);
/// With [`SHARED_UNWINDERS`], processes in which a traced function was entered: what an unwinder does in others is not
/// told.
#[map]
pub(crate) static RUNS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(65536, 0);
/// How to find g where R14 does not hold it.
#[map]
pub(crate) static GO_PROGRAMS: Array<GoProgram> = Array::with_max_entries(256, 0);
/// Indirect jumps, by point.
#[map]
pub(crate) static JUMPS: HashMap<u32, Jump> = HashMap::with_max_entries(1, 0);
/// Records lost, all together.
#[map]
pub(crate) static LOST: Array<u64> = Array::with_max_entries(1, 0);
/// Records lost, by point.
#[map]
pub(crate) static LOST_AT: Array<u64> = Array::with_max_entries(1, 0);
/// How often points were passed, by any process: rows of points, a row for each CPU (or for several). Mapped by the
/// reading half, which so reads thousands of counters without a system call.
#[map]
pub(crate) static COUNTS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// When a thread or goroutine last lost a record (`CLOCK_MONOTONIC`, ns).
#[map]
pub(crate) static LOST_IN: HashMap<Lane, u64> = HashMap::with_max_entries(65536, 0);
/// Losses of threads that [`LOST_IN`] had no room for: then every open call is in doubt.
#[map]
pub(crate) static LOST_UNKNOWN: Array<u64> = Array::with_max_entries(1, 0);
/// Depth of the outermost open call of each thread or goroutine: only where more is told of outermost calls.
#[map]
pub(crate) static OUTERMOST: LruHashMap<Lane, u64> = LruHashMap::with_max_entries(65536, 0);
/// With [`MIN_DURATION`], by lane: entries held back. A lane without one has no call open that was told of, as long as
/// [`DEFERRED_FULL`] is 0.
#[map]
pub(crate) static DEFERRED: HashMap<Lane, Deferred> = HashMap::with_max_entries(1, 0);
/// 1: [`DEFERRED`] had no room for a lane.
#[map]
pub(crate) static DEFERRED_FULL: Array<u64> = Array::with_max_entries(1, 0);
/// With [`MIN_DURATION`], by point: its function's number, or `NO_FUNCTION`.
#[map]
pub(crate) static FUNCTION_OF: Array<u32> = Array::with_max_entries(1, 0);
/// Events of short calls that were not told of, by point.
#[map]
pub(crate) static LEFT_OUT_AT: Array<u64> = Array::with_max_entries(1, 0);
/// Outermost calls among them.
#[map]
pub(crate) static LEFT_OUT_OUTERMOST: Array<u64> = Array::with_max_entries(1, 0);
/// With [`TRAPS_TIMED`], by thread id.
#[map]
pub(crate) static TRAPS: LruHashMap<u32, ThreadTraps> = LruHashMap::with_max_entries(1, 0);
