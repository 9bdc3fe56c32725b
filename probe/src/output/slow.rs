//! `--slow D`: outermost calls that took at least D, with all that they called; nothing of the others.
//!
//! What happens in an outermost call is held back until it is known to be slow: at its end, or as soon as it has been
//! open for D. Then everything is passed on, and from there on as it comes.

use std::io;

use rustc_hash::FxHashMap;

use super::{Notes, Sink};
use crate::calls::{CallId, Enter, Leave, NewFile, Point, Shed, Spent, Summary, TraceInfo, surely_open_ns};

/// Entries and points held for one outermost call, and for all. An event takes about 130 bytes.
const HELD_MAX: Held = Held { block: 100_000, total: 500_000 };

/// Limits of what is held.
#[derive(Clone, Copy, Debug)]
struct Held {
    block: usize,
    total: usize,
}

enum Event {
    Enter(Enter),
    Leave(Leave),
    Point(Point),
}

/// An open call.
#[derive(Clone, Copy)]
struct OpenCall {
    outermost: CallId,
    /// There was room for it and for all around it.
    kept: bool,
}

/// What is known of one outermost call.
#[derive(Default)]
struct Block {
    start_ns: u64,
    spent: Option<Spent>,
    held: Vec<Event>,
    /// Calls and points in it for which there was no room.
    dropped: u64,
    /// It is known to be slow: events are passed on.
    slow: bool,
}

/// Holds events back.
pub(super) struct Slow {
    inner: Box<dyn Sink>,
    threshold_ns: u64,
    notes: Notes,
    limit: Held,
    open: FxHashMap<CallId, OpenCall>,
    blocks: FxHashMap<CallId, Block>,
    held: usize,
    latest_ns: u64,
    dropped: u64,
}

impl Slow {
    pub(super) fn new(threshold_ns: u64, notes: Notes, inner: Box<dyn Sink>) -> Slow {
        Slow {
            inner,
            threshold_ns,
            notes,
            limit: HELD_MAX,
            open: FxHashMap::default(),
            blocks: FxHashMap::default(),
            held: 0,
            latest_ns: 0,
            dropped: 0,
        }
    }

    fn is_slow_by(&self, block: &Block, now_ns: u64) -> bool {
        surely_open_ns(block.start_ns, block.spent.as_ref(), now_ns) >= self.threshold_ns
    }

    /// The outermost call itself is always held: else a slow one might go unseen.
    fn has_room(&self, id: CallId) -> bool {
        self.blocks.get(&id).is_some_and(|block| {
            let room = block.held.len() < self.limit.block && self.held < self.limit.total;
            block.slow || room || block.held.is_empty()
        })
    }

    fn take_or_drop(&mut self, id: CallId, kept: bool, event: Event) -> io::Result<()> {
        if kept {
            return self.take(id, event);
        }
        if let Some(block) = self.blocks.get_mut(&id) {
            block.dropped += 1;
        }
        Ok(())
    }

    /// Passes an event of `block` on, or holds it.
    fn take(&mut self, id: CallId, event: Event) -> io::Result<()> {
        match self.blocks.get_mut(&id) {
            Some(block) if !block.slow => {
                block.held.push(event);
                self.held += 1;
                Ok(())
            }
            Some(_) => pass(&mut *self.inner, &event),
            None => Ok(()),
        }
    }

    /// Passes on what is held of a call that has turned out to be slow.
    fn release(&mut self, id: CallId) -> io::Result<()> {
        let Some(block) = self.blocks.get_mut(&id).filter(|block| !block.slow) else { return Ok(()) };
        block.slow = true;
        self.dropped += std::mem::take(&mut block.dropped);
        let held = std::mem::take(&mut block.held);
        self.held = self.held.saturating_sub(held.len());
        held.iter().try_for_each(|event| pass(&mut *self.inner, event))
    }

    /// Forgets a call that is over.
    fn forget(&mut self, id: CallId) {
        if let Some(block) = self.blocks.remove(&id) {
            self.held = self.held.saturating_sub(block.held.len());
            self.dropped += if block.slow { block.dropped } else { 0 };
        }
    }
}

fn pass(inner: &mut dyn Sink, event: &Event) -> io::Result<()> {
    match event {
        Event::Enter(enter) => inner.enter(enter),
        Event::Leave(leave) => inner.leave(leave),
        Event::Point(point) => inner.point(point),
    }
}

impl Sink for Slow {
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()> {
        self.inner.begin(trace)
    }

    fn enter(&mut self, enter: &Enter) -> io::Result<()> {
        self.latest_ns = self.latest_ns.max(enter.start_ns);
        let around = enter.parent.and_then(|parent| self.open.get(&parent).copied());
        let call = around.unwrap_or_else(|| {
            self.blocks
                .insert(enter.id, Block { start_ns: enter.start_ns, spent: enter.spent.clone(), ..Block::default() });
            OpenCall { outermost: enter.id, kept: true }
        });
        let kept = call.kept && self.has_room(call.outermost);
        self.open.insert(enter.id, OpenCall { kept, ..call });
        self.take_or_drop(call.outermost, kept, Event::Enter(enter.clone()))
    }

    fn leave(&mut self, leave: &Leave) -> io::Result<()> {
        self.latest_ns = self.latest_ns.max(leave.end_ns.unwrap_or(0));
        let id = leave.call.id;
        let Some(call) = self.open.remove(&id) else { return Ok(()) };
        if call.kept {
            self.take(call.outermost, Event::Leave(leave.clone()))?;
        }
        if call.outermost != id {
            return Ok(());
        }
        // A call whose end is not known lasted until now at the most.
        if leave.duration_ns().unwrap_or_else(|| leave.call.open_ns(self.latest_ns)) >= self.threshold_ns {
            self.release(id)?;
        }
        self.forget(id);
        Ok(())
    }

    /// A point outside all calls is part of no slow one.
    fn point(&mut self, point: &Point) -> io::Result<()> {
        self.latest_ns = self.latest_ns.max(point.at_ns);
        let around = point.parent.and_then(|parent| self.open.get(&parent).copied());
        let Some(call) = around else { return Ok(()) };
        let kept = call.kept && self.has_room(call.outermost);
        self.take_or_drop(call.outermost, kept, Event::Point(point.clone()))
    }

    fn grown(&mut self, trace: &TraceInfo, file: &NewFile) -> io::Result<()> {
        self.inner.grown(trace, file)
    }

    /// Part of no call: it is told at once.
    fn shed(&mut self, shed: &Shed) -> io::Result<()> {
        self.inner.shed(shed)
    }

    fn tick(&mut self, now_ns: u64) -> io::Result<()> {
        self.latest_ns = self.latest_ns.max(now_ns);
        let slow = self.blocks.iter().filter(|(_, block)| !block.slow && self.is_slow_by(block, now_ns));
        let mut ids: Vec<CallId> = slow.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.into_iter().try_for_each(|id| self.release(id))?;
        self.inner.tick(now_ns)
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        if self.dropped > 0 {
            self.notes.add(format!(
                "--slow: {} calls and points inside slow calls are missing: more than {} events would have had to be held for one \
                 outermost call, or {} for all",
                self.dropped, self.limit.block, self.limit.total
            ));
        }
        self.inner.end(summary)
    }
}

#[cfg(test)]
mod tests;
