//! Specimens: functions of our own to be probed, which show what a probe costs.
//!
//! They are assembly, so that each has the one kind of instruction under its probes that it is for. They lie in our own
//! program: uprobes are on files, and no other file is sure to be there, to be mapped and to be ours.

use anyhow::{Context as _, Result};
use symbols::addr::FileOffset;

use crate::target::{proc, processes};

mod code;
use code::*;

/// A function that does nothing but what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specimen {
    /// Begins with the five-byte no-op.
    Nop,
    /// Begins with an instruction that the kernel emulates.
    Emulated,
    /// Begins with one that it single-steps.
    Stepped,
    /// Begins as [`Self::Emulated`], and leaves by a jump.
    Jumps,
    /// As [`Self::Emulated`]; none of its exits is to be probed.
    Open,
    /// Begins as [`Self::Stepped`].
    Point,
    /// Calls another one, in [`run`].
    Around,
}

/// Where a specimen's probes go, in the file of our own program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first instruction.
    pub entry: FileOffset,
    /// Its only exit.
    pub exit: FileOffset,
}

impl Specimen {
    /// First instruction and exit.
    fn code(self) -> [Code; 2] {
        match self {
            Self::Nop => [probe_specimen_nop, probe_specimen_nop_exit],
            Self::Emulated => [probe_specimen_emulated, probe_specimen_emulated_exit],
            Self::Stepped => [probe_specimen_stepped, probe_specimen_stepped_exit],
            Self::Jumps => [probe_specimen_jumps, probe_specimen_jumps_exit],
            Self::Open => [probe_specimen_open, probe_specimen_open_exit],
            Self::Point => [probe_specimen_point, probe_specimen_point_exit],
            Self::Around => [probe_specimen_traced_around, probe_specimen_traced_around_exit],
        }
    }

    /// Where its probes go.
    ///
    /// # Errors
    /// `/proc/self/maps` does not have it.
    pub fn place(self) -> Result<Place> {
        let mappings = processes::mappings_of(proc::own_pid());
        let offset = |code: Code| {
            let address = code as usize as u64;
            let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
            mapping.map(|mapping| FileOffset(address - mapping.start + mapping.offset))
        };
        let [entry, exit] = self.code().map(offset);
        let place = entry.zip(exit).map(|(entry, exit)| Place { entry, exit });
        place.context("failed to find our own code in /proc/self/maps")
    }
}

/// Bytes of the stack that is taken for a goroutine's.
const STACK_BYTES: u64 = 1 << 20;

/// Offset of `goid` in the g that specimens run with.
pub const GOID_OFFSET: u16 = 16;

/// What the frame pointer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// So many callers beside the immediate one.
    Chain(usize),
    /// Memory that cannot be read, as in code that keeps something else in that register.
    Unreadable,
}

/// Calls a specimen so many times, as on a goroutine. `around`: in a call of [`Specimen::Around`], else in one of its
/// twin, which has no probes.
#[expect(unsafe_code, reason = "functions in assembly")]
pub fn run(specimen: Specimen, around: bool, calls: u32, frames: Frames) {
    const RETURN_ADDRESS: u64 = 1;
    const NO_MEMORY: usize = 64;
    let callers = if let Frames::Chain(callers) = frames { callers } else { 0 };
    let mut chain = vec![[0, RETURN_ADDRESS]; callers];
    for at in 1..callers {
        chain[at - 1][0] = (&raw const chain[at]) as u64;
    }
    let frame = match frames {
        Frames::Chain(0) => std::ptr::null(),
        Frames::Chain(_) => chain.as_ptr(),
        Frames::Unreadable => std::ptr::without_provenance(NO_MEMORY),
    };
    // Go: src/runtime/runtime2.go, g: stack{lo, hi}, …, goid. The stack that we are on is taken to be its own.
    let mut g = [0; 3];
    let near = (&raw const g) as u64;
    g = [near - STACK_BYTES / 2, near + STACK_BYTES / 2, 1];
    let around = if around { probe_specimen_traced_around as Code } else { probe_specimen_around };
    let [function, _] = specimen.code();
    if calls > 0 {
        // SAFETY: it keeps the registers that the ABI has kept; `around` and `function` are of ours, return, and touch no
        // memory but their stack. `g` and `chain` are read by the kernel half at most, and outlive the call.
        unsafe { probe_specimen_run(around, function, u64::from(calls), g.as_ptr(), frame) };
    }
}
