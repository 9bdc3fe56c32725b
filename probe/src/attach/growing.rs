//! Files that come while a trace runs: room for them in the kernel half's maps, whose sizes are set when it is loaded, and
//! their links.

use anyhow::{Context as _, Result, bail};
use probe_ebpf::abi;

use super::{Attachment, MANY_SINGLE, Options, deferred};
use crate::{
    plan::{Appended, Plan},
    target::TracedFile,
};

/// Points that there is room for, whatever a trace begins with.
const POINTS: u32 = 65_536;
/// Points beyond those that a trace begins with, at most: each takes up to 144 bytes of the kernel's memory.
const MORE_POINTS: u32 = 1 << 18;
/// Jumps whose targets are computed: the same.
const JUMPS: u32 = 4096;
/// Files that come are mostly the old ones' next builds: there is room for so many of what is there.
const BUILDS: u32 = 4;

/// What the kernel half's maps can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) points: u32,
    pub(super) jumps: u32,
}

impl Room {
    /// Room for a plan and for files that come later.
    pub(super) fn beyond(plan: &Plan, options: &Options, multi: bool) -> Result<Self> {
        let is_possible = |points: &u32| *points <= abi::MAX_POINTS;
        let points = u32::try_from(plan.points.len()).ok().filter(is_possible).context("too many points")?;
        let jumps = u32::try_from(plan.jumps.len()).context("too many jumps")?;
        let beyond = |now: u32, least: u32, more: u32| {
            now.saturating_mul(BUILDS).max(least).min(now.saturating_add(more)).min(abi::MAX_POINTS)
        };
        let room = Self { points: beyond(points, POINTS, MORE_POINTS), jumps: beyond(jumps, JUMPS, MORE_POINTS) };
        // What takes 0.1 s each to remove is not to become too much later.
        let single = Self { points: room.points.min(points.max(MANY_SINGLE as u32)), ..room };
        Ok(if multi || options.force { room } else { single })
    }
}

impl Attachment {
    /// Whether there is room for what was planned alone.
    pub fn has_room(&self, plan: &Plan, added: &Plan) -> bool {
        let sum = |now: usize, more: usize| u32::try_from(now.saturating_add(more)).unwrap_or(u32::MAX);
        sum(plan.points.len(), added.points.len()) <= self.room.points
            && sum(plan.jumps.len(), added.jumps.len()) <= self.room.jumps
    }

    /// Attaches what was appended to the plan: exits first, entries last. What of it the kernel refuses is left out:
    /// functions, and why; of unwinders the plan is told.
    ///
    /// # Errors
    /// It could not be attached, and nothing of it is.
    pub fn grow(&mut self, plan: &mut Plan, files: &[TracedFile], added: &Appended) -> Result<Vec<(u32, String)>> {
        if plan.points.len() > self.room.points as usize || plan.jumps.len() > self.room.jumps as usize {
            bail!("there is no room for more points");
        }
        self.tell_programs(plan)?;
        self.tell_jumps(&plan.jumps[added.jumps.clone()])?;
        if self.deferred.is_some() {
            deferred::tell_functions(&mut self.ebpf, plan, added.points.clone())?;
        }
        if let Some(counters) = &mut self.counters {
            counters.grow(plan.points.len());
        }
        let left_out = self.links.add(plan, files, added);
        plan.unwatched.append(&mut self.links.unwatched);
        left_out
    }

    /// Whether calls of the points of a plan can be told of as the kernel half was loaded: see [`deferred::is_possible`].
    pub fn can_tell(&self, added: &Plan) -> bool {
        self.deferred.is_none() || deferred::is_possible(added)
    }

    /// Removes the probes of one file (its position in the plan), for good; whether any others are left.
    pub fn detach_file(&mut self, plan: &Plan, file: usize) -> bool {
        self.links.detach_file(plan, file);
        self.links.any()
    }
}
