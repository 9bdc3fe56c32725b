//! What the kernel half holds back for `--min-duration`, and what it left out.

use std::ops::Range;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use probe_ebpf::{abi::Event, deferred};

use super::Lane;
use crate::plan::{Plan, PointKind};

/// Lanes whose entries can be held back at once. Beyond them every call is told of.
const LANES: u32 = 16_384;

/// Sizes of the maps that are only needed when calls are left out: lanes, and points.
pub(super) fn sizes(min_duration_ns: u64, points: u32) -> (u32, u32) {
    if min_duration_ns == 0 { (1, 1) } else { (LANES, points.max(1)) }
}

/// Whether short calls can be left out before they are told of. A point's line names the calls around it, short or not;
/// coroutines' stacks are told apart by the reading half alone; and after uretprobes it is not sure whose return it is.
pub(super) fn is_possible(plan: &Plan) -> bool {
    use PointKind::{AfterReturn, BoostContext, Context, Passed};
    !plan.points.iter().any(|point| matches!(point.kind, Passed | Context | BoostContext | AfterReturn))
}

/// Tells the kernel half whose these points are.
pub(super) fn tell_functions(ebpf: &mut Ebpf, plan: &Plan, points: Range<usize>) -> Result<()> {
    let functions = ebpf.map_mut("FUNCTION_OF").context("the kernel half has no FUNCTION_OF")?;
    let mut functions: Array<_, u32> = functions.try_into()?;
    for number in points {
        functions.set(number as u32, &plan.points[number].function, 0)?;
    }
    Ok(())
}

/// The maps of it.
pub struct Deferred {
    lanes: HashMap<MapData, Lane, State>,
    left_out: Array<MapData, u64>,
    outermost: Array<MapData, u64>,
}

impl Deferred {
    /// Takes the maps out of the loaded kernel half, after telling it whose points are whose.
    pub(super) fn take(ebpf: &mut Ebpf, plan: &Plan) -> Result<Self> {
        // Borrowed: programs are loaded later, and want it open.
        tell_functions(ebpf, plan, 0..plan.points.len())?;
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("the kernel half has no {name}"));
        Ok(Self {
            lanes: map("DEFERRED")?.try_into()?,
            left_out: map("LEFT_OUT_AT")?.try_into()?,
            outermost: map("LEFT_OUT_OUTERMOST")?.try_into()?,
        })
    }

    /// Entries that were held back when their process ended, or executed another program, or when the trace ended: in
    /// order within each lane. `pid` none: of all; `before_ns`: of that time (`CLOCK_MONOTONIC`). They are forgotten here.
    /// `is_gone`: nothing of the process runs any more.
    pub fn take_held(&mut self, pid: Option<u32>, before_ns: u64, is_gone: bool) -> Vec<Event> {
        let mut taken = Vec::new();
        let keys: Vec<Lane> = self.lanes.keys().flatten().collect();
        for lane in keys.into_iter().filter(|lane| pid.is_none_or(|pid| lane.0.thread >> 32 == u64::from(pid))) {
            let Ok(State(state)) = self.lanes.get(&lane, 0) else { continue };
            let held = state.entries();
            // A later one is of the process's next program, or of one that has got its number. That program may be about
            // to hold one back where nothing is held: such a lane is only forgotten when the process is gone.
            let is_old = held.iter().all(|entry| entry.time_ns < before_ns);
            if is_old && (is_gone || !held.is_empty()) {
                taken.extend_from_slice(held);
                let _ = self.lanes.remove(&lane);
            }
        }
        taken
    }

    /// Events that were left out, by point, of so many: only where any were. Two for each call, at its entry and at its exit.
    pub fn left_out(&self, points: usize) -> Vec<(u32, u64)> {
        let numbered = (0_u32..).zip(self.left_out.iter().take(points));
        numbered.filter_map(|(point, n)| Some((point, n.ok()?))).filter(|&(_, n)| n > 0).collect()
    }

    /// Outermost calls that were left out.
    pub fn outermost_left_out(&self) -> u64 {
        self.outermost.get(&0, 0).unwrap_or(0)
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct State(deferred::Deferred);

// SAFETY: `repr(C)`, of fixed width, without hidden padding (asserted beside its definition).
#[expect(unsafe_code, reason = "aya wants it of map values")]
unsafe impl Pod for State {}
