//! Overhead: what a probe costs the thread that passes it, by kind of trap.
//!
//! Measured at the start of a trace (`trace::calibration`), or estimated from its events (`tracker::cost`).

use symbols::code::EntryCost;

use crate::plan::{PlannedFunction, PlannedPoint, PointKind};

/// What kind of trap an event is made in. They differ tenfold in cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapKind {
    /// An entry at the five-byte no-op.
    NopEntry,
    /// An entry at an instruction that the kernel emulates.
    EmulatedEntry,
    /// An entry at one that it single-steps.
    Entry,
    /// A RET.
    Return,
    /// A jump that leaves, or a call: emulated, unless it is indirect.
    Jump,
    /// The kernel's return probe.
    AfterReturn,
    /// A point named by the user.
    Passed,
}

impl TrapKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::NopEntry, Self::EmulatedEntry, Self::Entry, Self::Return, Self::Jump, Self::AfterReturn, Self::Passed];
}

/// A kind of trap, and whether the kernel half looks for a goroutine in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Which instruction, and what for.
    pub kind: TrapKind,
    /// In a Go program.
    pub go: bool,
}

impl Trap {
    /// Different traps.
    pub const COUNT: usize = TrapKind::ALL.len() * 2;

    /// That of a point.
    pub fn of(point: &PlannedPoint, functions: &[PlannedFunction]) -> Self {
        let entry = functions.get(point.function as usize).map_or(EntryCost::SingleStep, |function| function.cost);
        let kind = match (point.kind, entry) {
            (PointKind::Entry, EntryCost::Nop) => TrapKind::NopEntry,
            (PointKind::Entry, EntryCost::Emulated) => TrapKind::EmulatedEntry,
            (PointKind::Entry, EntryCost::SingleStep) => TrapKind::Entry,
            (PointKind::AfterReturn, _) => TrapKind::AfterReturn,
            (PointKind::Passed, _) => TrapKind::Passed,
            (PointKind::TailJump | PointKind::MaybeJump, _) => TrapKind::Jump,
            // At calls: plan/internal.rs.
            (PointKind::LongJump | PointKind::Recovery | PointKind::GoroutineEnd, _) => TrapKind::Jump,
            (PointKind::Return | PointKind::Landing | PointKind::Context | PointKind::BoostContext, _) => {
                TrapKind::Return
            }
        };
        Self { kind, go: point.cookie.goid_offset() != 0 }
    }

    /// In a sentence that says what it costs.
    pub fn name(self) -> &'static str {
        match self.kind {
            TrapKind::NopEntry => "an entry at a no-op",
            TrapKind::EmulatedEntry => "an emulated entry",
            TrapKind::Entry => "a single-stepped entry",
            TrapKind::Return => "a return",
            TrapKind::Jump => "a jump",
            TrapKind::AfterReturn => "a uretprobe",
            TrapKind::Passed => "a point",
        }
    }

    /// In JSON.
    pub fn key(self) -> &'static str {
        match (self.kind, self.go) {
            (TrapKind::NopEntry, false) => "nop_entry",
            (TrapKind::NopEntry, true) => "go_nop_entry",
            (TrapKind::EmulatedEntry, false) => "emulated_entry",
            (TrapKind::EmulatedEntry, true) => "go_emulated_entry",
            (TrapKind::Entry, false) => "entry",
            (TrapKind::Entry, true) => "go_entry",
            (TrapKind::Return, false) => "return",
            (TrapKind::Return, true) => "go_return",
            (TrapKind::Jump, false) => "jump",
            (TrapKind::Jump, true) => "go_jump",
            (TrapKind::AfterReturn, false) => "uretprobe",
            (TrapKind::AfterReturn, true) => "go_uretprobe",
            (TrapKind::Passed, false) => "point",
            (TrapKind::Passed, true) => "go_point",
        }
    }

    /// Below [`Self::COUNT`].
    pub fn index(self) -> usize {
        self.kind as usize * 2 + usize::from(self.go)
    }
}

/// What a trap costs the thread that makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// All of it, ns.
    pub whole_ns: u64,
    /// The part of it that lies inside of the call that it begins (behind the event's time) or ends (before it), ns.
    pub inside_ns: u64,
}

/// What the traps of a trace cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Without callers, by [`Trap::index`].
    pub bare: [Cost; Trap::COUNT],
    /// With a first caller, or a copy of the stack of [`Self::copy_bytes`].
    pub with_callers: [Cost; Trap::COUNT],
    /// Of each further caller, ns.
    pub caller_ns: u64,
    /// Of finding that the next one cannot be read, ns.
    pub unreadable_ns: u64,
    /// Bytes of the stack that were copied when it was measured.
    pub copy_bytes: u64,
    /// Of each further 1024 bytes, ns.
    pub copy_kib_ns: u64,
    /// Of entries without callers and of those with some, the part from the event's time to the breakpoint of what follows at
    /// once, ns, by [`Trap::index`]; 0: not known.
    pub behind_entry_ns: [[u64; Trap::COUNT]; 2],
    /// The same from the end of a step, ns.
    pub behind_step_ns: u64,
}

/// Callers, as they were collected in a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// By frame pointers.
    Walked {
        /// So many.
        count: usize,
        /// The next one could not be read.
        unreadable: bool,
    },
    /// By a copy of so many bytes of the stack.
    Copied(usize),
}

impl Costs {
    /// Of a trap in which these callers were collected.
    pub fn of(&self, trap: Trap, callers: Option<Callers>) -> Cost {
        let Some(callers) = callers else { return self.bare[trap.index()] };
        let first = self.with_callers[trap.index()];
        let whole_ns = match callers {
            Callers::Walked { count, unreadable } => {
                let further = self.caller_ns.saturating_mul((count as u64).saturating_sub(1));
                first.whole_ns.saturating_add(further).saturating_add(if unreadable { self.unreadable_ns } else { 0 })
            }
            Callers::Copied(bytes) => {
                let of = |bytes: u64| bytes.saturating_mul(self.copy_kib_ns) / 1024;
                first.whole_ns.saturating_add(of(bytes as u64)).saturating_sub(of(self.copy_bytes))
            }
        };
        Cost { whole_ns, inside_ns: first.inside_ns.min(whole_ns) }
    }

    /// What was measured of those traps that some points make, each once.
    pub fn told(&self, points: &[PlannedPoint], functions: &[PlannedFunction]) -> Vec<(Trap, u64)> {
        let mut told: Vec<(Trap, u64)> = Vec::new();
        for trap in points.iter().map(|point| Trap::of(point, functions)) {
            let whole_ns = self.bare[trap.index()].whole_ns;
            if whole_ns > 0 && !told.iter().any(|(known, _)| *known == trap) {
                told.push((trap, whole_ns));
            }
        }
        told.sort_by_key(|(trap, _)| trap.index());
        told
    }
}
