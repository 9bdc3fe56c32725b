//! Attach: carries out a plan. The only room that talks to the kernel's tracing.
//!
//! In: a [`Plan`] and the open files. Out: an [`Attachment`], from which records are read, and which leaves nothing
//! behind when dropped or killed: everything hangs on file descriptors of this process and of its [`holder`].

pub mod btf;
mod counters;
mod deferred;
mod error;
pub mod features;
mod groups;
mod growing;
mod holder;
mod links;
pub mod losses;
pub mod recorder;
mod rehearsal;
pub mod rights;
pub mod rings;
pub mod specimens;
mod targets;
mod traps;

use std::{collections::BTreeSet, fs, sync::LazyLock};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap},
};
use probe_ebpf::abi::{self, FILTER_NONE, FILTER_PIDS, FILTER_TIDS};

use crate::{
    calls::Skipped,
    plan::{NO_FUNCTION, Plan},
    target::{TracedFile, containers::Selected},
};
pub use counters::Counters;
pub use deferred::Deferred;
pub use error::denied;
use error::explain;
use features::{Feature, Features};
pub use groups::Groups;
use holder::Holder;
pub use links::Exchange;
use links::Links;
pub use rehearsal::{Choose, Rehearsal};
use rings::Rings;

/// The compiled kernel half of this architecture.
#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf/prebuilt/probe-x86_64.bpf.o"));
#[cfg(target_arch = "aarch64")]
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf/prebuilt/probe-aarch64.bpf.o"));

/// Whose calls are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process that runs the files.
    Everyone,
    /// These processes; with `follow` their children too.
    Processes {
        /// At the start.
        pids: Vec<u32>,
        /// Children join.
        follow: bool,
    },
    /// These threads.
    Threads(Vec<u32>),
    /// Processes of this name, now and later.
    Comm {
        /// The name, cut to 15 bytes as the kernel does.
        comm: Vec<u8>,
        /// Those that have it at the start.
        pids: Vec<u32>,
    },
}

/// Where stacks are copied for the reading half to unwind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackCopies {
    /// Nowhere.
    None,
    /// In all code but Go's, which keeps frame pointers.
    WithoutFramePointers,
    /// Everywhere.
    Everywhere,
}

/// Bytes of a stack that are copied where it is not known how much of it is in use: main loops of real servers lie within a
/// few KiB.
const STACK_COPY_BYTES: u32 = 16 << 10;

/// How to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose calls.
    pub scope: Scope,
    /// Of these only those in these containers; none: all.
    pub groups: Option<Groups>,
    /// Callers to collect; 0: none.
    pub stack_depth: u32,
    /// For inner calls too.
    pub stack_all: bool,
    /// Tell with callers the kernel's own frames.
    pub kernel_stack: bool,
    /// Tell with outermost calls of goroutines who made them.
    pub origins: bool,
    /// Where the stack is copied, and not walked by frame pointers.
    pub stack_copy: StackCopies,
    /// Size of the ring buffer of all CPUs, bytes: a power of two of pages. Their own have a quarter of that at most.
    pub buffer_bytes: u32,
    /// More than [`MANY_SINGLE`] points one by one.
    pub force: bool,
    /// Count how often the points are passed whose functions share in a budget.
    pub counted: bool,
    /// Calls that take less need not be told of, ns; 0: all are. Without callers only: at a call's end they are not known
    /// any more.
    pub min_duration_ns: u64,
    /// Each trap is timed, and told of before its record.
    pub traps: bool,
}

/// Points beyond which attaching one by one wants `--force`.
pub const MANY_SINGLE: usize = 200;

/// Loaded programs and their links.
pub struct Attachment {
    ebpf: Ebpf,
    rings: Rings,
    links: Links,
    deferred: Option<Deferred>,
    /// Where [`Options::counted`] asked for them.
    counters: Option<Counters>,
    /// What files that come later have room for.
    room: growing::Room,
    /// Whose calls.
    scope: Scope,
    /// Of these only those in these containers.
    groups: Option<Groups>,
    /// Unwinders in files that others share are told apart by who runs what is traced.
    shared_unwinders: bool,
    times_traps: bool,
}

/// In errors: the kernel does not let traps be timed, where [`Options::traps`] asked for it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("failed to time each trap")]
pub struct TrapsNotTimed;

/// The refused points' functions were taken out of the plan; attach again.
struct Refused {
    points: BTreeSet<u32>,
    reason: String,
}

/// Loads the programs and attaches every point of the plan. Functions that the kernel refuses are moved from the
/// plan's functions to its skipped ones: the plan is then as if they had been found unprobeable before.
///
/// With `choose`, large plans of functions that share in a budget are rehearsed before: see [`Rehearsal`].
///
/// # Errors
/// No permission, a kernel too old, nothing left to attach.
pub fn attach(
    plan: &mut Plan,
    files: &[TracedFile],
    features: &Features,
    options: &Options,
    choose: Option<&mut Choose<'_>>,
) -> Result<Attachment> {
    attach_within(None, plan, files, features, options, choose)
}

/// The same for a process of which it is known that nobody else is meant, whatever the scope says: where the kernel can,
/// the links are confined to it. The kernel half chooses as the scope says.
///
/// # Errors
/// As [`attach`].
pub fn attach_within(
    process: Option<u32>,
    plan: &mut Plan,
    files: &[TracedFile],
    features: &Features,
    options: &Options,
    mut choose: Option<&mut Choose<'_>>,
) -> Result<Attachment> {
    if let Some(missing) = features.indispensable_missing() {
        bail!("this kernel lacks {}: probe needs {} or newer", missing.name(), missing.since());
    }
    let multi = features.has(Feature::UprobeMulti);
    if !multi && plan.points.len() > MANY_SINGLE && !options.force {
        bail!(
            "this kernel attaches probes one by one (before {}): {} points would take about {} s to remove; \
             name fewer functions, or use --force",
            Feature::UprobeMulti.since(),
            plan.points.len(),
            plan.points.len() / 10
        );
    }
    loop {
        let mut attachment = Attachment::load(process, plan, features, options, multi)?;
        match attachment.attach_all(plan, files, choose.as_deref_mut())? {
            Ok(()) => return Ok(attachment),
            Err(refused) => {
                drop(attachment);
                without(plan, &refused)?;
            }
        }
    }
}

/// Takes the functions of refused points out of the plan.
fn without(plan: &mut Plan, refused: &Refused) -> Result<()> {
    let functions: BTreeSet<u32> =
        refused.points.iter().filter_map(|&p| plan.points.get(p as usize)).map(|p| p.function).collect();
    plan.remove(&functions, |function| Skipped { function, reason: refused.reason.clone() });
    if functions.contains(&NO_FUNCTION) {
        plan.unwatched.push(refused.reason.clone());
    }
    if plan.functions.is_empty() && functions.iter().any(|&function| function != NO_FUNCTION) {
        bail!("the kernel refused every probe: {}", refused.reason);
    }
    Ok(())
}

impl Attachment {
    fn load(process: Option<u32>, plan: &Plan, features: &Features, options: &Options, multi: bool) -> Result<Self> {
        let btf = features.has(Feature::Btf).then(|| fs::read(features::BTF).ok()).flatten();
        let kernel = btf.as_deref().and_then(btf::kernel_offsets).unwrap_or_default();
        let groups = groups::globals(options.groups.as_ref(), btf.as_deref())?;
        let filter = match &options.scope {
            Scope::Everyone => FILTER_NONE,
            Scope::Processes { .. } | Scope::Comm { .. } => FILTER_PIDS,
            Scope::Threads(_) => FILTER_TIDS,
        };
        let follow = u32::from(matches!(options.scope, Scope::Processes { follow: true, .. } | Scope::Comm { .. }));
        if follow != 0 && kernel.task_tgid == 0 {
            bail!("failed to follow children: the kernel's type information is missing ({})", Feature::Btf.since());
        }
        let comm = comm_bytes(&options.scope);
        let by_comm = u32::from(matches!(options.scope, Scope::Comm { .. }));
        let links_filter = u32::from(link_pids(options, features, multi).is_some() && filter != FILTER_TIDS);
        let stack_depth = options.stack_depth.min(abi::MAX_FRAMES as u32);
        let stack_all = u32::from(options.stack_all);
        let kernel_stack = u32::from(options.kernel_stack && stack_depth > 0);
        if kernel_stack != 0 && btf.is_none() {
            bail!(
                "failed to attach with --kernel-stack: the kernel's type information is missing ({})",
                Feature::Btf.since()
            );
        }
        let origins = u32::from(options.origins);
        let stack_copy = if options.stack_copy == StackCopies::None { 0 } else { STACK_COPY_BYTES };
        let stack_copy_go = u32::from(options.stack_copy == StackCopies::Everywhere);
        let room = growing::Room::beyond(plan, options, multi)?;
        let points = room.points;
        let rows = counters::rows();
        let rings = rings::Sizes::of(options.buffer_bytes);
        let counted = if options.counted { points } else { 0 };
        let min_duration = if deferred::is_possible(plan) { options.min_duration_ns } else { 0 };
        let (deferring_lanes, deferring_points) = deferred::sizes(min_duration, points);
        let everyone = filter == FILTER_NONE && options.groups.is_none();
        let traps = traps::globals(options.traps, btf.as_deref()).context(TrapsNotTimed)?;
        let shared_unwinders = u32::from(everyone && plan.watches_shared_files());
        let mut ebpf = EbpfLoader::new()
            .override_global("PID_FILTER", &filter, true)
            .override_global("LINKS_FILTER", &links_filter, true)
            .override_global("GROUPS_BY", &groups.by, true)
            .override_global("GROUP_OFFSETS", &groups.offsets, true)
            .override_global("FOLLOW", &follow, true)
            .override_global("BY_COMM", &by_comm, true)
            .override_global("COMM", &comm, true)
            .override_global("STACK_DEPTH", &stack_depth, true)
            .override_global("STACK_ALL", &stack_all, true)
            .override_global("KERNEL_STACK", &kernel_stack, true)
            .override_global("ORIGINS", &origins, true)
            .override_global("STACK_COPY", &stack_copy, true)
            .override_global("STACK_COPY_GO", &stack_copy_go, true)
            .override_global("TASK_MM", &kernel.task_mm, true)
            .override_global("MM_START_STACK", &kernel.mm_start_stack, true)
            .override_global("SHARED_UNWINDERS", &shared_unwinders, true)
            .override_global("MIN_DURATION", &min_duration, true)
            .override_global("TASK_TGID", &kernel.task_tgid, true)
            .override_global("TASK_SIGNAL", &kernel.task_signal, true)
            .override_global("SIGNAL_LIVE", &kernel.signal_live, true)
            .override_global("TASK_TP", &kernel.task_tp, true)
            .override_global("COUNTS_ROW", &counted, true)
            .override_global("COUNTS_LAST_ROW", &(rows - 1), true)
            .override_global("TASK_ALTERNATE", &kernel.task_alternate, true)
            .override_global("TASK_UTASK", &kernel.returns.task_utask, true)
            .override_global("UTASK_RETURNS", &kernel.returns.first, true)
            .override_global("RETURN_STACK", &kernel.returns.stack, true)
            .override_global("RETURN_ADDRESS", &kernel.returns.address, true)
            .override_global("RETURN_NEXT", &kernel.returns.next, true)
            .override_global("TRAPS_TIMED", &traps.timed, true)
            .override_global("TRAP_OFFSETS", &traps.offsets, true)
            .map_max_entries("TRAPS", traps.threads)
            .override_global("CPU_RINGS", &rings.of_cpus(), true)
            .map_max_entries("RINGS", rings.rings())
            .map_max_entries("COUNTS", counted.max(1).saturating_mul(rows))
            .map_max_entries("LOST_AT", points)
            .map_max_entries("DEFERRED", deferring_lanes)
            .map_max_entries("FUNCTION_OF", deferring_points)
            .map_max_entries("LEFT_OUT_AT", deferring_points)
            .map_max_entries("JUMPS", room.jumps)
            .load(OBJECT)
            .map_err(|error| explain("failed to load the kernel half", error))?;
        let holder = Holder::start(&mut ebpf, !multi)?;
        let rings = Rings::make(&mut ebpf, rings)?;
        let deferred = if min_duration > 0 { Some(Deferred::take(&mut ebpf, plan)?) } else { None };
        let within = process.filter(|_| multi && features.has(Feature::UprobeMultiPid)).map(|process| vec![process]);
        let pids = within.or_else(|| link_pids(options, features, multi));
        let links = Links::new(holder, plan, multi, deferred.is_some(), pids);
        let counters =
            options.counted.then(|| Counters::take(&mut ebpf, points as usize, plan.points.len())).transpose()?;
        let mut attachment = Self {
            ebpf,
            rings,
            links,
            deferred,
            counters,
            room,
            scope: options.scope.clone(),
            groups: options.groups.clone(),
            shared_unwinders: shared_unwinders != 0,
            times_traps: traps.timed != 0,
        };
        attachment.fill_maps(plan, &options.scope)?;
        if let Some(groups) = &options.groups {
            groups::change(&mut attachment.ebpf, &[], &groups.numbers)?;
        }
        Ok(attachment)
    }

    fn fill_maps(&mut self, plan: &Plan, scope: &Scope) -> Result<()> {
        self.tell_programs(plan)?;
        self.tell_jumps(&plan.jumps)?;
        let ids = match scope {
            Scope::Everyone => return Ok(()),
            Scope::Processes { pids, .. } | Scope::Comm { pids, .. } => pids,
            Scope::Threads(tids) => tids,
        };
        let mut traced: HashMap<_, u32, u32> = self.map("PIDS")?.try_into()?;
        for id in ids {
            traced.insert(id, &1, 0).context("too many processes")?;
        }
        Ok(())
    }

    /// Takes containers in, and others out, where [`Options::groups`] asks for some: from the next event on.
    ///
    /// # Errors
    /// There are too many.
    pub fn change_groups(&mut self, gone: &[u64], new: &[u64], selected: &Selected) -> Result<()> {
        if let Some(groups) = &mut self.groups {
            groups.selected = Some(selected.clone());
        }
        groups::change(&mut self.ebpf, gone, new)
    }

    fn tell_programs(&mut self, plan: &Plan) -> Result<()> {
        let mut programs: Array<_, GoProgram> = self.map("GO_PROGRAMS")?.try_into()?;
        for (position, program) in plan.go_programs.iter().enumerate() {
            programs.set(position as u32, &GoProgram(*program), 0)?;
        }
        Ok(())
    }

    fn tell_jumps(&mut self, planned: &[(u32, abi::Jump)]) -> Result<()> {
        let mut jumps: HashMap<_, u32, Jump> = self.map("JUMPS")?.try_into()?;
        for (point, jump) in planned {
            jumps.insert(point, &Jump(*jump), 0)?;
        }
        Ok(())
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the kernel half has no {name}"))
    }

    /// What is held back and left out, where [`Options::min_duration_ns`] asked for it and the plan allows it.
    pub fn deferred(&mut self) -> Option<&mut Deferred> {
        self.deferred.as_mut()
    }

    /// Whether the trace is of chosen processes, and none of them is left.
    pub fn traced_processes_ended(&self) -> bool {
        let ends_with_them = matches!(self.scope, Scope::Processes { .. } | Scope::Threads(_));
        // The kernel half takes out those that ended.
        ends_with_them && self.traced_ids().is_some_and(|traced| traced.keys().next().is_none())
    }

    /// Whether the probes are gone, though nobody removed them: how the process that held them came to its end.
    pub fn lost_its_probes(&self) -> Option<String> {
        self.links.are_lost()
    }

    /// The records.
    pub fn rings(&mut self) -> &mut Rings {
        &mut self.rings
    }

    /// Processes that were not traced because there are too many.
    pub fn not_traced(&mut self) -> u64 {
        let count = |map| -> Option<u64> { Array::<_, u64>::try_from(map).ok()?.get(&0, 0).ok() };
        self.ebpf.map("NOT_TRACED").and_then(count).unwrap_or(0)
    }

    /// The account of lost records.
    ///
    /// # Errors
    /// The maps are not there.
    pub fn losses(&mut self) -> Result<losses::Losses> {
        losses::Losses::take(&mut self.ebpf)
    }

    /// How often points are passed, where [`Options::counted`] asked for it.
    pub fn counters(&self) -> Option<&Counters> {
        self.counters.as_ref()
    }

    fn attach_all(
        &mut self,
        plan: &mut Plan,
        files: &[TracedFile],
        choose: Option<&mut Choose<'_>>,
    ) -> Result<Result<(), Refused>> {
        self.attach_lifecycle()?;
        if self.times_traps {
            traps::attach(&mut self.ebpf).context(TrapsNotTimed)?;
        }
        if let Some(choose) = choose.filter(|_| self.links.are_worth_a_rehearsal())
            && let Err(refused) = self.rehearse(plan, files, choose)?
        {
            return Ok(Err(refused));
        }
        let attached = self.links.attach_all(plan, files)?;
        plan.unwatched.append(&mut self.links.unwatched);
        if plan.functions.is_empty() {
            self.links.load_programs()?;
        }
        Ok(attached)
    }

    /// Goes on without these functions: see [`Links::shed`].
    ///
    /// # Errors
    /// The others could not be attached anew. Nothing was detached then.
    pub fn shed(
        &mut self,
        plan: &Plan,
        files: &[TracedFile],
        functions: &BTreeSet<u32>,
        called: &dyn Fn(u32) -> bool,
    ) -> Result<Exchange> {
        self.links.shed(plan, files, functions, called)
    }

    /// No call at this depth is open any more: the next one of the lane is an outermost one.
    pub fn forget_outermost(&mut self, lane: abi::Lane, depth: u64) {
        let map = self.ebpf.map_mut("OUTERMOST").and_then(|map| HashMap::<_, Lane, u64>::try_from(map).ok());
        // Gone or another call's by now: all is well.
        if let Some(mut outermost) = map
            && outermost.get(&Lane(lane), 0).is_ok_and(|known| known == depth)
        {
            let _ = outermost.remove(&Lane(lane));
        }
    }

    /// Removes every probe: entries first, so that the last calls are seen to end.
    pub fn detach(&mut self) {
        self.links.detach();
        self.rings.end();
    }

    fn attach_lifecycle(&mut self) -> Result<()> {
        for (program, tracepoint) in [
            ("process_fork", "sched_process_fork"),
            ("process_exec", "sched_process_exec"),
            ("process_exit", "sched_process_exit"),
        ] {
            let program: &mut aya::programs::RawTracePoint =
                self.ebpf.program_mut(program).context("the kernel half lacks a program")?.try_into()?;
            program.load().map_err(|error| explain("failed to load the kernel half", error))?;
            program.attach(tracepoint).map_err(|error| explain(&format!("failed to watch {tracepoint}"), error))?;
        }
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Processes that the links themselves can be confined to: none when the kernel half has to choose.
fn link_pids(options: &Options, features: &Features, multi: bool) -> Option<Vec<u32>> {
    // The kernel takes numbers as our own PID namespace has them.
    if !multi || !features.has(Feature::UprobeMultiPid) || !crate::target::proc::has_our_numbers() {
        return None;
    }
    match &options.scope {
        Scope::Processes { pids, follow: false } => Some(pids.clone()),
        Scope::Threads(tids) => {
            let mut pids: Vec<u32> = tids.iter().filter_map(|&tid| crate::target::process_of_thread(tid)).collect();
            pids.sort_unstable();
            pids.dedup();
            Some(pids)
        }
        _ => None,
    }
}

fn comm_bytes(scope: &Scope) -> [u8; abi::COMM_LEN] {
    let mut bytes = [0; abi::COMM_LEN];
    if let Scope::Comm { comm, .. } = scope {
        for (to, from) in bytes.iter_mut().take(abi::COMM_LEN - 1).zip(comm) {
            *to = *from;
        }
    }
    bytes
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct GoProgram(abi::GoProgram);
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Jump(abi::Jump);
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Lane(abi::Lane);

// SAFETY: `repr(C)`, of fixed width, without hidden padding (asserted beside their definitions).
#[expect(unsafe_code, reason = "aya wants it of map values")]
unsafe impl Pod for GoProgram {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "aya wants it of map values")]
unsafe impl Pod for Jump {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "aya wants it of map keys")]
unsafe impl Pod for Lane {}

/// Removes all probes, and waits until they are gone: to be called before `exit`.
pub fn remove_all() {
    holder::end();
}

/// `CLOCK_MONOTONIC`, ns: the clock of the events, which is the machine's own also where this process is in a time namespace.
pub fn monotonic_ns() -> u64 {
    static AHEAD_NS: LazyLock<i64> = LazyLock::new(|| {
        // time_namespaces(7), Linux 5.6. The offsets are those of the namespace that children will be in, which without a fork may
        // be another.
        let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
        if namespace("time") != namespace("time_for_children") {
            return 0;
        }
        fs::read_to_string("/proc/self/timens_offsets").map_or(0, |offsets| monotonic_offset(&offsets))
    });
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let ours = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64);
    ours.saturating_add_signed(-*AHEAD_NS)
}

/// What a time namespace adds to the clock, ns: `monotonic SECONDS NANOSECONDS`, one of the lines.
fn monotonic_offset(offsets: &str) -> i64 {
    let words = offsets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut offsets = words.filter_map(|words| match words[..] {
        ["monotonic", seconds, ns] => {
            Some(seconds.parse::<i64>().ok()?.saturating_mul(1_000_000_000).saturating_add(ns.parse().ok()?))
        }
        _ => None,
    });
    offsets.next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::monotonic_offset;

    #[test]
    fn what_a_time_namespace_adds_is_read_as_the_kernel_writes_it() {
        let offsets = "monotonic       -1000         500000000\nboottime            7         0\n";
        assert_eq!(monotonic_offset(offsets), -999_500_000_000);
        assert_eq!(monotonic_offset("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(monotonic_offset(""), 0);
    }
}
