//! Calls: entries and exits paired into calls, per thread and per goroutine.
//!
//! In: decoded events ([`crate::events`]). Out: what became known about calls, told to a [`crate::output::Sink`]
//! in the order in which it became known. No kernel, no files: tests feed it made-up events.

pub mod overhead;
pub mod tracker;
pub mod twice;

use std::{cell::Cell, rc::Rc};

use overhead::Trap;

/// Identifies a call within a trace. Counts from 1.
pub type CallId = u64;

/// A function that is traced: what the plan knows of it, by its position in [`TraceInfo::functions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedFunction {
    /// The name that matched, as a person writes it.
    pub name: String,
    /// Path of the file it is in, as the user or the loader names it.
    pub binary: String,
    /// Address as `nm` shows it.
    pub address: u64,
    /// For a point inside a function (or at a bare address): its offset in bytes from [`Self::name`]'s start.
    pub point: Option<u64>,
}

/// A function that was matched and is not traced, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub function: String,
    /// Why it cannot be probed.
    pub reason: String,
}

/// What is known when the trace begins.
#[derive(Clone, Debug, Default)]
pub struct TraceInfo {
    /// Wall-clock time of `CLOCK_MONOTONIC` 0 of this trace's times: ns since 1970. `start_ns` values are
    /// `CLOCK_MONOTONIC` minus [`Self::origin_ns`].
    pub epoch_ns: u64,
    /// `CLOCK_MONOTONIC` (ns) at `epoch_ns`. Every time in [`Enter`], [`Leave`] and [`Point`] is absolute
    /// `CLOCK_MONOTONIC`; sinks subtract this.
    pub origin_ns: u64,
    /// Functions and points that the patterns matched, probeable or not.
    pub matched: u64,
    /// Functions and points that are attached.
    pub functions: Vec<TracedFunction>,
    /// Matched, not attached, with the reason.
    pub skipped: Vec<Skipped>,
    /// Durations are less what the probes cost: what each kind of trap does, ns, as measured; none when they are not.
    pub subtracted: Option<Vec<(Trap, u64)>>,
}

/// A file that came while the trace ran, and is traced from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its path, as the functions' own [`TracedFunction::binary`].
    pub binary: String,
    /// Why it is traced.
    pub cause: Cause,
    /// `CLOCK_MONOTONIC`, ns: what is called from then on is seen.
    pub at_ns: u64,
    /// Functions and points that are attached.
    pub attached: u64,
    /// Functions and points that the patterns matched in it, probeable or not.
    pub matched: u64,
    /// Matched, not attached, with the reason.
    pub skipped: Vec<Skipped>,
}

/// What made a file come into a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It took the place of a traced file, at its path.
    Replaced,
    /// A traced process loaded it.
    Loaded,
}

/// What the probes cost a thread or goroutine since a call of it began.
#[derive(Clone, Debug)]
pub struct Spent {
    /// All that they cost it so far, ns.
    pub(crate) lane_ns: Rc<Cell<u64>>,
    /// The same when the call began.
    pub(crate) before_ns: u64,
}

/// The thread (and process) an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Process id as the host sees it.
    pub pid: u32,
    /// Thread id as the host sees it.
    pub tid: u32,
}

/// Where a process lives, if that is not simply this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// Its container's name, else the beginning of that one's ID (untrusted: escape it); none outside of containers.
    pub container: Option<Rc<str>>,
    /// Its process id there, where it is another than the host's.
    pub inner_pid: Option<u32>,
}

/// A function that is not traced any more: it was too hot for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Position in [`TraceInfo::functions`].
    pub function: u32,
    /// Its events a second, until then.
    pub rate: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned.
    Return,
    /// It jumped to another function, which returns in its place.
    TailCall,
    /// A panic, an exception, a longjmp or Goexit took its frame away.
    Unwind,
    /// Its thread or process ended.
    Exit,
    /// Its process executed another program.
    Exec,
    /// It had not ended when the trace did (or its end is not watched: `--returns=none`).
    Open,
    /// It had not ended when its function was shed.
    Shed,
}

/// A call began.
#[derive(Clone, Debug)]
pub struct Enter {
    /// This call.
    pub id: CallId,
    /// The traced call it was made from, in the same thread or goroutine.
    pub parent: Option<CallId>,
    /// Open traced calls around it: 0 for an outermost call.
    pub depth: u32,
    /// Position in [`TraceInfo::functions`].
    pub function: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub start_ns: u64,
    /// Where it began.
    pub thread: Thread,
    /// Name of the process (untrusted: escape it).
    pub comm: Rc<str>,
    /// Where it lives.
    pub home: Rc<Home>,
    /// Goroutine id; none outside Go.
    pub goroutine: Option<u64>,
    /// Who made that goroutine; none where not collected (`--goroutines`).
    pub origin: Option<Rc<Origin>>,
    /// Its callers, innermost first; none when not collected.
    pub stack: Option<Rc<CallerStack>>,
    /// What the probes cost, where durations are less that; none where they are not.
    pub spent: Option<Spent>,
}

impl Enter {
    /// How long the call, if it is open still, has taken at a time (`CLOCK_MONOTONIC`, ns) up to which events were told:
    /// ns, less what the probes cost where durations are.
    pub fn open_ns(&self, now_ns: u64) -> u64 {
        open_ns(self.start_ns, self.spent.as_ref(), now_ns)
    }

    /// The least that the call, if it is open still, will turn out to have taken at that time: ns.
    pub fn surely_open_ns(&self, now_ns: u64) -> u64 {
        surely_open_ns(self.start_ns, self.spent.as_ref(), now_ns)
    }
}

/// So long a thread may wait within a trap, ns. Where what probes cost is subtracted, that is known when the trap is over: an
/// open call that has taken longer may still turn out to be shorter.
const WAIT_NS: u64 = 1_000_000_000;

/// See [`Enter::open_ns`].
pub(crate) fn open_ns(start_ns: u64, spent: Option<&Spent>, now_ns: u64) -> u64 {
    let overhead_ns = spent.map_or(0, |spent| spent.lane_ns.get().saturating_sub(spent.before_ns));
    now_ns.saturating_sub(start_ns).saturating_sub(overhead_ns)
}

/// See [`Enter::surely_open_ns`].
pub(crate) fn surely_open_ns(start_ns: u64, spent: Option<&Spent>, now_ns: u64) -> u64 {
    open_ns(start_ns, spent, now_ns).saturating_sub(if spent.is_some() { WAIT_NS } else { 0 })
}

/// A call ended (or the trace did). Children end before their parents, always.
#[derive(Clone, Debug)]
pub struct Leave {
    /// What [`Enter`] said when it began.
    pub call: Enter,
    /// `CLOCK_MONOTONIC`, ns; none when the end or its time is not known.
    pub end_ns: Option<u64>,
    /// The thread it ended on (a goroutine may have moved).
    pub end_tid: u32,
    /// How it ended.
    pub end: End,
    /// Events were lost such that its true end is not known: `end_ns` is none then.
    pub lost: bool,
    /// Of the time from its start to its end, what the probes cost and its duration is less by, ns.
    pub overhead_ns: u64,
}

impl Leave {
    /// Whether its end was seen.
    pub fn has_ended(&self) -> bool {
        !matches!(self.end, End::Open | End::Shed) && !self.lost
    }

    /// How long it took, ns; none when not known.
    pub fn duration_ns(&self) -> Option<u64> {
        self.end_ns.map(|end| end.saturating_sub(self.call.start_ns).saturating_sub(self.overhead_ns))
    }
}

/// A point probe was passed.
#[derive(Clone, Debug)]
pub struct Point {
    /// Position in [`TraceInfo::functions`] (its `point` is set).
    pub function: u32,
    /// The open traced call around it.
    pub parent: Option<CallId>,
    /// Open traced calls around it.
    pub depth: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Where.
    pub thread: Thread,
    /// Name of the process (untrusted: escape it).
    pub comm: Rc<str>,
    /// Where it lives.
    pub home: Rc<Home>,
    /// Goroutine id; none outside Go.
    pub goroutine: Option<u64>,
    /// Who made that goroutine; none where not collected (`--goroutines`).
    pub origin: Option<Rc<Origin>>,
    /// Its callers, innermost first; none when not collected.
    pub stack: Option<Rc<CallerStack>>,
}

/// Who made a goroutine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Id of the goroutine that did; none of a program's first one, and before Go 1.21, which does not keep it.
    pub parent: Option<u64>,
    /// The place of its `go` statement; none where not known.
    pub go_statement: Option<Rc<Frame>>,
}

/// One caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Function name; none where the file has no name for the address (show [`Self::binary`] + address).
    pub function: Option<String>,
    /// Source file; none when not known.
    pub file: Option<String>,
    /// Line in it; none when not known.
    pub line: Option<u32>,
    /// Path of the file the code is in, of the kernel's its module in brackets; none for memory that belongs to no file.
    pub binary: Option<String>,
    /// Return address as `nm` would show it; none where [`Self::binary`] is.
    pub address: Option<u64>,
    /// Return address at run time.
    pub ip: u64,
    /// The frame was inlined into the next one.
    pub inlined: bool,
}

/// The callers of a call.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CallerStack {
    /// Innermost first.
    pub frames: Vec<Rc<Frame>>,
    /// Why it does not reach the thread's start; none when it does.
    pub cut: Option<Cut>,
    /// The kernel's frames below them, innermost first; none when not collected.
    pub kernel: Option<KernelFrames>,
}

/// A stack of the kernel's: many calls share it.
pub type KernelFrames = Rc<[Rc<Frame>]>;

/// Why a caller stack is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The outermost shown function's module keeps no frame pointers there.
    NoFramePointers,
    /// Nothing says how the outermost shown function's caller is found.
    NoRules,
    /// More of the stack was in use than was copied.
    CopyTooShort,
    /// It goes on in a stack of which nothing was copied.
    OtherStack,
    /// A return probe has put its own address in the place of the caller's.
    ReturnProbe,
    /// `--stack-depth` was reached.
    Depth,
    /// The stack could not be read (paged out, or not a stack).
    Unreadable,
    /// The address belongs to no known mapping.
    UnknownCode,
}

/// What the trace saw, at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Calls begun.
    pub calls: u64,
    /// Outermost calls among them.
    pub outermost: u64,
    /// Events read.
    pub events: u64,
    /// Entries that the kernel half could not pass on, by function position, only where > 0.
    pub lost_entries: Vec<(u32, u64)>,
    /// Exits that the kernel half could not pass on, by function position, only where > 0.
    pub lost_exits: Vec<(u32, u64)>,
    /// Returns that no entry belongs to (functions entered before the probes came, or whose entry was lost).
    pub unmatched_returns: u64,
    /// Calls still open.
    pub open: u64,
    /// Calls marked lost.
    pub marked_lost: u64,
    /// Functions that were shed, in order.
    pub shed: Vec<Shed>,
    /// Length of the trace, ns.
    pub duration_ns: u64,
    /// Estimated time the probes themselves took in the target, ns, summed over threads.
    pub probes_ns: u64,
    /// Sentences for the user about what was lost or cut elsewhere (mapping records, `--slow` memory).
    pub notes: Vec<String>,
}

impl Summary {
    /// All events lost.
    pub fn lost(&self) -> u64 {
        let sum = |v: &[(u32, u64)]| v.iter().map(|(_, n)| n).sum::<u64>();
        sum(&self.lost_entries) + sum(&self.lost_exits)
    }
}
