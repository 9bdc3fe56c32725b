//! Shedding: keeps the trace within its budget while it runs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::budget::Budget;
use crate::{
    attach::{Attachment, monotonic_ns},
    calls::{Shed, tracker::Tracker, twice::Twice},
    events::Record,
    plan::Plan,
    target::TracedFile,
};

/// How often rates are looked at: also while the reader cannot keep up with the events.
const LOOK: Duration = Duration::from_millis(50);
/// Events of different threads are read in another order than that of their times, by far less than this.
const DISORDER_NS: u64 = 1_000_000_000;

/// A budget, and what it is kept with.
pub(super) struct Shedding {
    budget: Budget,
    twice: Twice,
    looked: Instant,
}

impl Shedding {
    /// `limit`: events a second.
    ///
    /// # Errors
    /// The kernel half does not count.
    pub(super) fn new(attachment: &Attachment, plan: &Plan, limit: u64) -> Result<Self> {
        let budget = Budget::new(plan, limit, monotonic_ns(), counts(attachment)?);
        Ok(Self { budget, twice: Twice::default(), looked: Instant::now() })
    }

    /// The plan has grown.
    pub(super) fn grow(&mut self, plan: &Plan) {
        self.budget.grow(plan);
    }

    /// Whether it is time for [`Self::shed`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now - self.looked >= LOOK
    }

    /// Detaches what is too hot. `is_any_spoilt`: a file that probes are in is not what was read any more.
    ///
    /// # Errors
    /// The rest could not be attached anew: the trace cannot be kept within its budget.
    pub(super) fn shed(
        &mut self,
        attachment: &mut Attachment,
        plan: &Plan,
        files: &[TracedFile],
        tracker: &mut Tracker,
        is_any_spoilt: impl FnOnce() -> bool,
    ) -> Result<()> {
        for (lane, depth) in tracker.take_shed_outermost() {
            attachment.forget_outermost(lane, depth);
        }
        let counts = self::counts(attachment)?;
        let mut shed = self.budget.look(monotonic_ns(), &counts);
        // New probes must not go into code that is not the one that was read; its file is watched, and told of.
        if !shed.is_empty() && !is_any_spoilt() {
            let functions: BTreeSet<u32> = shed.iter().map(|shed| shed.function).collect();
            let called = self.budget.called(&counts);
            let exchange = attachment
                .shed(plan, files, &functions, &|function| called.contains(&function))
                .context("failed to detach what is beyond --budget")?;
            shed.iter_mut().for_each(|shed: &mut Shed| shed.at_ns = exchange.cut_ns);
            tracker.shed(&shed);
            self.twice.exchanged(exchange.begin_ns..=exchange.end_ns, exchange.cut_ns, exchange.generation);
            log::debug!(
                "{} functions shed: the others attached anew in {} us, all of the old ones detached in {} us",
                shed.len(),
                (exchange.cut_ns - exchange.begin_ns) / 1000,
                (exchange.end_ns - exchange.cut_ns) / 1000
            );
            self.budget.begin_anew(exchange.end_ns, self::counts(attachment)?);
        }
        self.looked = Instant::now();
        Ok(())
    }

    /// Whether the same event was told by another link.
    #[inline]
    pub(super) fn is_repeated(&mut self, record: &Record<'_>) -> bool {
        if self.twice.is_over() {
            return false;
        }
        self.twice.forget(record.event.time_ns.saturating_sub(DISORDER_NS));
        record.event.point < probe_ebpf::abi::POINT_RESERVED && self.twice.is_repeated(&record.event, record.generation)
    }
}

fn counts(attachment: &Attachment) -> Result<Vec<u64>> {
    Ok(attachment.counters().context("the kernel half does not count")?.read())
}
