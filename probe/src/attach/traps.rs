//! Timing of traps: programs where the kernel tells its uprobes of breakpoints and steps, gives processors away, and is interrupted
//! (`probe-ebpf/src/trap.rs`).

use anyhow::{Context as _, Result};
use aya::{Ebpf, Pod, programs::RawTracePoint};
use probe_ebpf::abi::TrapOffsets;

use super::{btf, error::explain};

/// Programs, and the tracepoints of each.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("notified", &["notifier_run"]),
    ("switched", &["sched_switch"]),
    ("interrupt_begins", &["local_timer_entry", "softirq_entry"]),
    ("interrupt_ends", &["local_timer_exit", "softirq_exit"]),
];
/// What the kernel's type information has of the first, which is the younger one.
pub(super) const NOTIFIED_TYPE: &str = "btf_trace_notifier_run";

/// Threads whose traps are timed at once; of those beyond, the ones that had no trap for longest are forgotten.
const THREADS: u32 = 1 << 16;

/// What the kernel half is told.
pub(super) struct Globals {
    /// 0: traps are not timed.
    pub(super) timed: u32,
    pub(super) offsets: Offsets,
    /// Threads that there is room for.
    pub(super) threads: u32,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Offsets(TrapOffsets);

// SAFETY: `repr(C)`, of fixed width, without hidden padding (asserted beside its definition).
#[expect(unsafe_code, reason = "aya wants it of globals")]
unsafe impl Pod for Offsets {}

/// `timed`: if traps are to be.
///
/// # Errors
/// The kernel's type information does not say where to look.
pub(super) fn globals(timed: bool, btf: Option<&[u8]>) -> Result<Globals> {
    if !timed {
        return Ok(Globals { timed: 0, offsets: Offsets(TrapOffsets::default()), threads: 1 });
    }
    let offsets = btf.and_then(btf::trap_offsets).context("the kernel's type information lacks what it takes")?;
    Ok(Globals { timed: 1, offsets: Offsets(offsets), threads: THREADS })
}

/// Attaches the programs, for as long as `ebpf` lives.
///
/// # Errors
/// The kernel has no such tracepoint, or does not let us have it.
pub(super) fn attach(ebpf: &mut Ebpf) -> Result<()> {
    for (name, tracepoints) in PROGRAMS {
        let program: &mut RawTracePoint =
            ebpf.program_mut(name).context("the kernel half lacks a program")?.try_into()?;
        program.load().map_err(|error| explain("failed to load the kernel half", error))?;
        for tracepoint in tracepoints {
            program.attach(tracepoint).map_err(|error| explain(&format!("failed to watch {tracepoint}"), error))?;
        }
    }
    Ok(())
}
