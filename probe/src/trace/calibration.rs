//! Calibration: what probes cost on this machine, measured on functions of our own just before the trace
//! (`--subtract-overhead`).
//!
//! In: the plan, and how it is to be attached. Out: [`Costs`] of the kinds of traps that its points make. The same
//! programs with the same settings are attached to specimens, which are called in a loop; from the times of their events
//! follows what a trap costs.

mod figures;

use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use probe_ebpf::abi::{Cookie, Event, GoProgram, POINT_TRAP};
use symbols::code::EntryCost;

use self::figures::{Callers, Figures, Seen, TIMED};
use crate::{
    attach::{
        self, Attachment, Groups, Scope, TrapsNotTimed,
        features::{Feature, Features},
        specimens::{self, Frames, GOID_OFFSET, Specimen},
    },
    calls::{TracedFunction, overhead::Costs},
    events,
    plan::{Plan, PlannedFile, PlannedFunction, PlannedPoint, PointKind},
    request::Returns,
    target::{TracedFile, containers, proc},
};

/// Rounds in which everything is measured in turn, so that a slow moment of the machine befalls all alike. The first one
/// only warms up.
const ROUNDS: usize = 21;
/// Calls of one specimen in one round.
const CALLS: u32 = 20;
/// Callers beside the immediate one, to measure what a caller costs.
const CALLERS: usize = 32;
/// Holds far more than the records of one round.
const BUFFER_BYTES: u32 = 4 << 20;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) costs: Costs,
    /// Why traps are not to be timed one by one ([`attach::Options::traps`]); none: they are.
    pub(super) untimed: Option<String>,
}

/// Measures what the points of `plan` cost when attached with these options. `awaits`: libraries of any kind may come.
///
/// # Errors
/// The kernel refuses probes on our own program, or they do not fire.
pub(super) fn measure(
    plan: &Plan,
    features: &Features,
    options: &attach::Options,
    returns: Returns,
    awaits: bool,
) -> Result<Measured> {
    // A new thread's stack is as short as that of most traced calls, and where it is copied that makes a difference.
    thread::scope(|scope| {
        let measuring =
            thread::Builder::new().spawn_scoped(scope, || measure_here(plan, features, options, returns, awaits));
        let measured = measuring.context("failed to start a thread")?.join();
        measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure_here(
    plan: &Plan,
    features: &Features,
    options: &attach::Options,
    returns: Returns,
    awaits: bool,
) -> Result<Measured> {
    let mut measured = Measured::default();
    if !features.has(Feature::TrapTimes) {
        measured.untimed = Some(format!("it takes {}", Feature::TrapTimes.since()));
    } else if returns == Returns::Uretprobe {
        measured.untimed = Some("return probes have no breakpoints".to_owned());
    }
    let mut options = attach::Options { traps: measured.untimed.is_none(), ..options.clone() };
    // With what else tells of functions: installed, it may have no symbols.
    let file = TracedFile::open("/proc/self/exe".as_ref(), "probe itself")?;
    for go in [false, true] {
        if awaits || plan.points.iter().any(|point| (point.cookie.goid_offset() != 0) == go) {
            let points = Points { go, returns };
            let bench = match Bench::attach(&file, features, &options, points) {
                Err(error) if error.is::<TrapsNotTimed>() && options.traps => {
                    options.traps = false;
                    measured.untimed = Some(error.root_cause().to_string());
                    Bench::attach(&file, features, &options, points)
                }
                bench => bench,
            };
            bench?.measure(&mut measured)?;
        }
    }
    Ok(measured)
}

/// How specimens are probed.
#[derive(Clone, Copy)]
struct Points {
    go: bool,
    returns: Returns,
}

impl Points {
    /// A plan of all specimens: the points 2n and 2n + 1 are entry and exit of [`TIMED`]'s n-th.
    fn plan(self, counted: bool) -> Result<Plan> {
        let mut plan = Plan::default();
        plan.files.push(PlannedFile { shown: "probe itself".to_owned(), only_unwinds: false });
        plan.go_programs.push(GoProgram::default());
        for (number, specimen) in (0_u32..).zip(TIMED.into_iter().chain([Specimen::Around])) {
            let place = specimen.place()?;
            plan.functions.push(function());
            let entry = if specimen == Specimen::Point { PointKind::Passed } else { PointKind::Entry };
            let (exit, exit_at) = match (specimen, self.returns) {
                (Specimen::Open | Specimen::Point, _) | (_, Returns::None) => (None, place.exit),
                (_, Returns::Uretprobe) => (Some(PointKind::AfterReturn), place.entry),
                (Specimen::Jumps, Returns::Ret) => (Some(PointKind::TailJump), place.exit),
                (_, Returns::Ret) => (Some(PointKind::Return), place.exit),
            };
            for (half, kind, offset) in [(0, Some(entry), place.entry), (1, exit, exit_at)] {
                let Some(kind) = kind else { continue };
                let point = number * 2 + half;
                let cookie = if self.go { Cookie::go(point, GOID_OFFSET, 0) } else { Cookie::native(point) };
                let cookie = if counted { cookie.counted() } else { cookie };
                plan.points.push(PlannedPoint { file: 0, offset, kind, function: number, cookie });
            }
        }
        Ok(plan)
    }
}

fn function() -> PlannedFunction {
    PlannedFunction {
        traced: TracedFunction { name: String::new(), binary: String::new(), address: 0, point: None },
        may_repeat: false,
        unprobed_jumps: false,
        cost: EntryCost::SingleStep,
        exact: true,
        standard: false,
    }
}

/// Under which circumstances a specimen is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    /// Within another call.
    inner: bool,
    frames: Frames,
}

impl Setting {
    fn call(self, specimen: Specimen) {
        let run = || specimens::run(specimen, self.inner, CALLS, self.frames);
        // Where the stack is copied, it is that which makes the difference.
        if matches!(self.frames, Frames::Chain(1..)) { deeper(run) } else { run() }
    }
}

/// Runs on a stack that is longer by a typical copy of one.
#[inline(never)]
fn deeper(run: impl FnOnce()) {
    let room = [0_u8; 8 << 10];
    std::hint::black_box(&room);
    run();
    std::hint::black_box(&room);
}

/// Probed specimens.
struct Bench {
    points: Points,
    attachment: Attachment,
    /// As [`Callers`] says.
    settings: Vec<Setting>,
    callers: Callers,
}

impl Bench {
    fn attach(file: &TracedFile, features: &Features, options: &attach::Options, points: Points) -> Result<Self> {
        let callers = match (options.stack_depth, options.stack_all) {
            (0, _) => Callers::Nobody,
            (_, false) => Callers::Outermost,
            (_, true) => Callers::All,
        };
        let far = CALLERS.min((options.stack_depth as usize).saturating_sub(1));
        let collected =
            |inner| [Frames::Chain(0), Frames::Chain(far), Frames::Unreadable].map(|frames| (inner, frames));
        let settings = match callers {
            Callers::Nobody => vec![(true, Frames::Chain(0))],
            Callers::Outermost => [&[(true, Frames::Chain(0))][..], &collected(false)].concat(),
            Callers::All => collected(true).to_vec(),
        };
        let settings = settings.into_iter().map(|(inner, frames)| Setting { inner, frames }).collect();
        let own = attach::Options {
            scope: own_scope(&options.scope)?,
            groups: options.groups.as_ref().and_then(own_group),
            buffer_bytes: BUFFER_BYTES,
            force: true,
            ..options.clone()
        };
        let mut plan = points.plan(options.counted)?;
        let attached = plan.points.len();
        // Another `probe` that does the same must not pay for our traps, nor we for its.
        let process = Some(std::process::id());
        let attachment = attach::attach_within(process, &mut plan, std::slice::from_ref(file), features, &own, None)
            .context("failed to measure the probes' own cost (--subtract-overhead)")?;
        ensure!(
            plan.points.len() == attached,
            "the kernel refuses probes on our own program, to measure what they cost"
        );
        Ok(Self { points, attachment, settings, callers })
    }

    fn measure(&mut self, measured: &mut Measured) -> Result<()> {
        let mut seen: Vec<Vec<Seen>> =
            TIMED.iter().map(|_| self.settings.iter().map(|_| Seen::default()).collect()).collect();
        for round in 0..ROUNDS {
            for (number, specimen) in TIMED.into_iter().enumerate() {
                for (at, setting) in self.settings.clone().into_iter().enumerate() {
                    setting.call(specimen);
                    let mut ignored = Seen::default();
                    let seen = if round == 0 { &mut ignored } else { &mut seen[number][at] };
                    self.read(number as u32, seen)?;
                }
            }
        }
        Figures::of(seen).conclude(self.points, self.callers, &mut measured.costs);
        Ok(())
    }

    /// Reads the records of one specimen's calls.
    fn read(&mut self, number: u32, seen: &mut Seen) -> Result<()> {
        let (mut entries, mut exits) = (Vec::new(), Vec::new());
        let (mut trap, mut entry_traps, mut exit_traps) = (None, Vec::new(), Vec::new());
        self.attachment.rings().look();
        while let Some(bytes) = self.attachment.rings().next() {
            let Some(record) = events::decode(bytes) else { continue };
            if record.event.point == POINT_TRAP {
                trap = Some(record.event).filter(|trap| trap.lost == 0);
            } else if record.event.point == number * 2 {
                seen.callers = record.frames.map(|frames| frames.collected());
                entries.push(record.event.time_ns);
                entry_traps.push(trap.take());
            } else if record.event.point == number * 2 + 1 {
                exits.push(record.event.time_ns);
                exit_traps.push(trap.take());
            }
        }
        let calls = CALLS as usize;
        ensure!(
            entries.len() == calls && (exits.is_empty() || exits.len() == calls),
            "failed to measure the probes' own cost (--subtract-overhead): of {calls} calls of our own, {} entries and {} \
             returns were seen",
            entries.len(),
            exits.len()
        );
        // The first call finds nothing in the caches.
        seen.cycles.extend(entries.windows(2).skip(1).map(|pair| pair[1].saturating_sub(pair[0])));
        let behind_entry = |(entry, exit): (&u64, &Option<Event>)| Some(exit.as_ref()?.time_ns.saturating_sub(*entry));
        seen.behind_entries.extend(entries.iter().zip(&exit_traps).skip(1).filter_map(behind_entry));
        seen.behind_steps.extend(entry_traps.windows(2).skip(1).filter_map(|pair| behind_step(pair[0]?, pair[1]?)));
        seen.insides.extend(entries.iter().zip(&exits).skip(1).map(|(entry, exit)| exit.saturating_sub(*entry)));
        Ok(())
    }
}

/// From the end of one trap's step to the breakpoint of the next; none where there was no step, or more than one.
fn behind_step(trap: Event, next: Event) -> Option<u64> {
    let stepped_ns = next.depth.wrapping_sub(trap.depth);
    (next.goid.wrapping_sub(trap.goid) == 1)
        .then(|| next.time_ns.saturating_sub(trap.time_ns).saturating_sub(stepped_ns))
}

/// Ours, chosen in the way in which the trace chooses: that costs.
fn own_scope(scope: &Scope) -> Result<Scope> {
    let own = proc::own_pid();
    Ok(match scope {
        Scope::Everyone => Scope::Processes { pids: vec![own], follow: false },
        Scope::Processes { follow, .. } => Scope::Processes { pids: vec![own], follow: *follow },
        Scope::Threads(_) => Scope::Threads(vec![own_thread().context("failed to read /proc/thread-self")?]),
        Scope::Comm { .. } => Scope::Processes { pids: vec![own], follow: true },
    })
}

/// Ours, told in the same way.
fn own_group(groups: &Groups) -> Option<Groups> {
    let own = containers::own_number(&groups.kind)?;
    Some(Groups { kind: groups.kind.clone(), numbers: vec![own], selected: None })
}

/// `PID/task/TID` is what the link says.
fn own_thread() -> Option<u32> {
    fs::read_link(proc::root().join("thread-self")).ok()?.file_name()?.to_str()?.parse().ok()
}
