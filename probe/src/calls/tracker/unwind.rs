//! Calls that an unwinder took away, with the time at which it did.
//!
//! When it enters the frame it unwound to, its event has that frame's stack pointer. Whatever called the unwinder, and
//! all that was called from there, is as deep or deeper; the frame's own function began further out.

use std::io;

use super::{End, Ended, Step, Trap, overhead::When};

impl Step<'_> {
    /// Calls as deep as the event and deeper are over, now.
    pub(super) fn landed(&mut self, trap: Trap) -> io::Result<()> {
        if !self.tracker.lanes.knows(self.lane) {
            return Ok(());
        }
        self.on_lane(|step, lane| {
            step.pay(lane, trap, None, When::First);
            while lane.calls.last().is_some_and(|top| top.depth >= step.event.depth) {
                let lost = step.is_in_doubt(lane);
                let end_ns = Some(step.event.time_ns);
                step.pop(lane, Ended { end: End::Unwind, end_ns, ..step.ended(lost) })?;
            }
            Ok(())
        })
    }
}
