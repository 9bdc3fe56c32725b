//! Calibration: what probes cost on this machine, measured on functions of our own just before the trace
//! (`--subtract-overhead`).
//!
//! In: the plan, and how it is to be attached. Out: [`Costs`] of the kinds of traps that its points make. The same
//! programs with the same settings are attached to specimens, which are called in a loop; from the times of their events
//! follows what a trap costs.

use anyhow::{Context as _, Result, ensure};
use probe_ebpf::abi::{Cookie, GoProgram};
use symbols::code::EntryCost;

use crate::{
    attach::{
        self, Attachment, Scope,
        features::Features,
        specimens::{self, Frames, GOID_OFFSET, Specimen},
    },
    calls::{
        TracedFunction,
        overhead::{Cost, Costs, Trap, TrapKind},
    },
    events,
    plan::{Plan, PlannedFunction, PlannedPoint, PointKind},
    request::Returns,
    target::TracedFile,
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

/// Specimens whose calls are timed.
const TIMED: [Specimen; 6] =
    [Specimen::Nop, Specimen::Emulated, Specimen::Stepped, Specimen::Jumps, Specimen::Open, Specimen::Point];

/// Measures what the points of `plan` cost when attached with these options.
///
/// # Errors
/// The kernel refuses probes on our own program, or they do not fire.
pub(super) fn measure(plan: &Plan, features: &Features, options: &attach::Options, returns: Returns) -> Result<Costs> {
    let mut costs = Costs::default();
    let file = TracedFile::plain("/proc/self/exe".as_ref(), "probe itself")?;
    for go in [false, true] {
        if plan.points.iter().any(|point| (point.cookie.goid_offset() != 0) == go) {
            Bench::attach(&file, features, options, Points { go, returns })?.measure(&mut costs)?;
        }
    }
    Ok(costs)
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
        let mut plan = Plan { files: vec!["probe itself".to_owned()], ..Plan::default() };
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

/// Probed specimens.
struct Bench {
    points: Points,
    attachment: Attachment,
    /// The first one is that of an inner call with one caller, or without any if they are not collected.
    settings: Vec<Setting>,
    /// What the kernel half collects callers of.
    callers: Callers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Callers {
    Nobody,
    Outermost,
    All,
}

/// What was seen of one specimen in one setting, ns.
#[derive(Default)]
struct Seen {
    /// From one call's entry to the next one's.
    cycles: Vec<u64>,
    /// From a call's entry to its exit.
    insides: Vec<u64>,
    /// Callers in each record of an entry.
    callers: usize,
}

impl Bench {
    fn attach(file: &TracedFile, features: &Features, options: &attach::Options, points: Points) -> Result<Self> {
        let callers = match (options.stack_depth, options.stack_all) {
            (0, _) => Callers::Nobody,
            (_, false) => Callers::Outermost,
            (_, true) => Callers::All,
        };
        let far = CALLERS.min((options.stack_depth as usize).saturating_sub(1));
        let settings = match callers {
            Callers::Nobody => vec![(true, Frames::Chain(0))],
            Callers::Outermost => vec![(true, Frames::Chain(0)), (false, Frames::Chain(0))],
            Callers::All => [Frames::Chain(0), Frames::Chain(far), Frames::Unreadable].map(|f| (true, f)).to_vec(),
        };
        let settings = settings.into_iter().map(|(inner, frames)| Setting { inner, frames }).collect();
        let own = attach::Options {
            scope: own_scope(&options.scope),
            buffer_bytes: BUFFER_BYTES,
            force: true,
            ..options.clone()
        };
        let mut plan = points.plan(options.counted)?;
        let attached = plan.points.len();
        let attachment = attach::attach(&mut plan, std::slice::from_ref(file), features, &own)
            .context("failed to measure the probes' own cost (--subtract-overhead)")?;
        ensure!(
            plan.points.len() == attached,
            "the kernel refuses probes on our own program, to measure what they cost"
        );
        Ok(Self { points, attachment, settings, callers })
    }

    fn measure(&mut self, costs: &mut Costs) -> Result<()> {
        let mut seen: Vec<Vec<Seen>> =
            TIMED.iter().map(|_| self.settings.iter().map(|_| Seen::default()).collect()).collect();
        for round in 0..ROUNDS {
            for (number, specimen) in TIMED.into_iter().enumerate() {
                for (at, setting) in self.settings.clone().into_iter().enumerate() {
                    specimens::run(specimen, setting.inner, CALLS, setting.frames);
                    let mut ignored = Seen::default();
                    let seen = if round == 0 { &mut ignored } else { &mut seen[number][at] };
                    self.read(number as u32, seen)?;
                }
            }
        }
        let figures: Vec<Vec<Figures>> =
            seen.into_iter().map(|settings| settings.into_iter().map(Figures::of).collect()).collect();
        self.tell(&figures, costs);
        Ok(())
    }

    /// Reads the records of one specimen's calls.
    fn read(&mut self, number: u32, seen: &mut Seen) -> Result<()> {
        let (mut entries, mut exits) = (Vec::new(), Vec::new());
        while let Some(item) = self.attachment.ring().next() {
            let Some(record) = events::decode(&item) else { continue };
            if record.event.point == number * 2 {
                seen.callers = record.frames.map_or(0, |frames| frames.len());
                entries.push(record.event.time_ns);
            } else if record.event.point == number * 2 + 1 {
                exits.push(record.event.time_ns);
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
        seen.insides.extend(entries.iter().zip(&exits).skip(1).map(|(entry, exit)| exit.saturating_sub(*entry)));
        Ok(())
    }

    /// Draws the conclusions.
    ///
    /// Of what lies between an entry's time and its exit's, the exit's part cannot be told apart, and all is taken for
    /// the entry's. An entry alone, of [`Specimen::Open`], tells the return's whole cost by what a call costs more.
    fn tell(&self, figures: &[Vec<Figures>], costs: &mut Costs) {
        let of = |specimen: Specimen, setting: usize| {
            let number = TIMED.iter().position(|timed| *timed == specimen);
            number.and_then(|number| figures.get(number)?.get(setting).copied()).unwrap_or_default()
        };
        let index = |kind| Trap { kind, go: self.points.go }.index();
        let exits = |setting| {
            let alone = of(Specimen::Open, setting).cycle_ns;
            match self.points.returns {
                Returns::Ret => {
                    [Specimen::Emulated, Specimen::Jumps].map(|s| of(s, setting).cycle_ns.saturating_sub(alone))
                }
                // Where there is no entry without a return, the entry stands for both.
                Returns::Uretprobe | Returns::None => [0; 2],
            }
        };
        let [return_ns, jump_ns] = exits(0);
        let entries = |setting| {
            [
                (TrapKind::NopEntry, Specimen::Nop),
                (TrapKind::EmulatedEntry, Specimen::Emulated),
                (TrapKind::Entry, Specimen::Stepped),
            ]
            .map(|(kind, specimen)| {
                let figures = of(specimen, setting);
                let whole_ns = figures.cycle_ns.saturating_sub(return_ns);
                (kind, Cost { whole_ns, inside_ns: figures.inside_ns.min(whole_ns) })
            })
        };
        let later = of(Specimen::Jumps, 0).inside_ns.saturating_sub(of(Specimen::Emulated, 0).inside_ns);
        let others = |setting| {
            [
                (TrapKind::Return, Cost { whole_ns: return_ns, inside_ns: 0 }),
                (TrapKind::Jump, Cost { whole_ns: jump_ns, inside_ns: later.min(jump_ns) }),
                (TrapKind::Passed, Cost { whole_ns: of(Specimen::Point, setting).cycle_ns, inside_ns: 0 }),
            ]
        };
        let near = if self.callers == Callers::Outermost { 1 } else { 0 };
        for (kind, cost) in entries(0).into_iter().chain(others(0)) {
            costs.bare[index(kind)] = cost;
        }
        for (kind, cost) in entries(near).into_iter().chain(others(near)) {
            costs.with_callers[index(kind)] = cost;
        }
        // Callers of outermost calls are collected before any call's time.
        if self.callers == Callers::All {
            let [none, far, unreadable] = [0, 1, 2].map(|setting| of(Specimen::Open, setting));
            let more = far.callers.saturating_sub(none.callers).max(1) as u64;
            costs.caller_ns = far.cycle_ns.saturating_sub(none.cycle_ns) / more;
            costs.unreadable_ns = unreadable.cycle_ns.saturating_sub(none.cycle_ns);
        }
    }
}

/// Ours, chosen in the way in which the trace chooses: that costs.
fn own_scope(scope: &Scope) -> Scope {
    let own = std::process::id();
    match scope {
        Scope::Everyone => Scope::Processes { pids: vec![own], follow: false },
        Scope::Processes { follow, .. } => Scope::Processes { pids: vec![own], follow: *follow },
        // Traces are made on the first thread.
        Scope::Threads(_) => Scope::Threads(vec![own]),
        Scope::Comm { .. } => Scope::Processes { pids: vec![own], follow: true },
    }
}

/// What was [`Seen`] at an undisturbed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    cycle_ns: u64,
    inside_ns: u64,
    callers: usize,
}

impl Figures {
    fn of(seen: Seen) -> Self {
        Self { cycle_ns: undisturbed(seen.cycles), inside_ns: undisturbed(seen.insides), callers: seen.callers }
    }
}

/// The lower quartile: nothing makes a trap much cheaper, and much makes it dearer. What is subtracted then is rather too
/// little than too much. 0 of nothing.
fn undisturbed(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 4).copied().unwrap_or(0)
}
