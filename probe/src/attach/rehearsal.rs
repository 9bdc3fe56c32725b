//! The rehearsal: what of a large plan would be too hot is found out before it is traced.
//!
//! A server under all of its probes stands nearly still, and it stands still while it is told which of them are too many.
//! So for a moment only the entries are probed, of which the kernel emulates most, and only counted: that leaves the server
//! some percent of its speed, which is enough to see what is hot. It is then not attached at all, and what was called
//! is put apart from what was not ([`Links::prepare`](super::links::Links::prepare)), so that later exchanges touch few
//! points.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::Result;

use super::{Attachment, Refused, monotonic_ns};
use crate::{plan::Plan, target::TracedFile};

/// How long entries are counted: as long as requests may take, and no longer than a person waits.
const REHEARSAL: Duration = Duration::from_millis(100);

/// How often the entries of functions that share in a budget were passed, for a moment before they are traced.
#[derive(Debug)]
pub struct Rehearsal {
    /// From then (`CLOCK_MONOTONIC`, ns)
    pub begin_ns: u64,
    /// until then.
    pub end_ns: u64,
    /// By point: entries only.
    pub counts: Vec<u64>,
}

/// Says what functions of a plan are to be left out, in view of its rehearsal.
pub type Choose<'a> = dyn FnMut(&Plan, &Rehearsal) -> BTreeSet<u32> + 'a;

impl Attachment {
    pub(super) fn rehearse(
        &mut self,
        plan: &Plan,
        files: &[TracedFile],
        choose: &mut Choose<'_>,
    ) -> Result<Result<(), Refused>> {
        let Some(counters) = &self.counters else { return Ok(Ok(())) };
        let attached = self.links.attach_counting(plan, files);
        let Ok(Ok(())) = attached else { return attached };
        let (begin_ns, before) = (monotonic_ns(), counters.read());
        thread::sleep(REHEARSAL);
        let (end_ns, after) = (monotonic_ns(), counters.read());
        self.links.detach_counting();
        let counts: Vec<u64> = after.iter().zip(before).map(|(after, before)| after.wrapping_sub(before)).collect();
        let called = plan.points.iter().zip(&after).filter(|(_, count)| **count > 0).map(|(point, _)| point.function);
        let called: BTreeSet<u32> = called.collect();
        let without = choose(plan, &Rehearsal { begin_ns, end_ns, counts });
        log::debug!(
            "rehearsed in {} us: {} functions called, {} too hot; counting ended in {} us",
            (end_ns - begin_ns) / 1000,
            called.len(),
            without.len(),
            (monotonic_ns() - end_ns) / 1000
        );
        self.links.prepare(&without, &called);
        Ok(Ok(()))
    }
}
