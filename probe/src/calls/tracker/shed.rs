//! Functions that are shed while the trace goes on.
//!
//! What was said of a function up to then stays; later events of it, which its links still made, do not count. Its open
//! calls are over for the trace, with an unknown duration, as soon as no other call is open in them; what a shed
//! function calls from then on is shown under what called the shed one.

use std::{collections::BTreeMap, io};

use probe_ebpf::abi::Lane;

use super::{Ended, OpenCalls, Tracker};
use crate::{
    calls::{End, Shed, Thread},
    output::Sink,
};

impl Tracker {
    /// These functions are not traced any more from their time on; all are of one time, later than any told before. To
    /// be told before an event of that time is read.
    pub fn shed(&mut self, functions: &[Shed]) {
        let until: BTreeMap<u32, u64> = functions.iter().map(|shed| (shed.function, shed.at_ns)).collect();
        for point in &mut self.points {
            point.until_ns = until.get(&point.function).copied().unwrap_or(point.until_ns);
        }
        self.to_shed.extend(functions);
    }

    /// Lanes and depths of outermost calls that ended because their functions were shed, since this was last asked. The
    /// kernel half takes them for open still, and collects no callers in them.
    pub fn take_shed_outermost(&mut self) -> Vec<(Lane, u64)> {
        std::mem::take(&mut self.shed_outermost)
    }

    /// Functions that were shed so far, or are to be.
    pub fn all_shed(&self) -> impl Iterator<Item = u32> {
        self.summary.shed.iter().chain(&self.to_shed).map(|shed| shed.function)
    }

    pub(super) fn is_shed(&self, function: u32) -> bool {
        self.functions.get(function as usize).is_some_and(|info| info.shed)
    }

    /// The events are so far (`CLOCK_MONOTONIC`, ns).
    pub(super) fn shed_until(&mut self, time_ns: u64, sink: &mut dyn Sink) -> io::Result<()> {
        let mut any = false;
        while let Some(shed) = self.to_shed.pop_front_if(|shed| shed.at_ns < time_ns) {
            if let Some(info) = self.functions.get_mut(shed.function as usize) {
                info.shed = true;
            }
            self.summary.shed.push(shed);
            sink.shed(&shed)?;
            any = true;
        }
        if !any {
            return Ok(());
        }
        for place in 0..self.lanes.places() {
            let mut lane = self.lanes.take(place);
            let closed = self.close_shed(&mut lane, sink);
            self.lanes.put_back(place, lane);
            closed?;
        }
        Ok(())
    }

    /// Ends the innermost calls whose functions were shed.
    pub(super) fn close_shed(&mut self, lane: &mut OpenCalls, sink: &mut dyn Sink) -> io::Result<()> {
        while let Some(mut open) = lane.calls.pop_if(|open| self.is_shed(open.call().function)) {
            let Thread { pid, tid: end_tid } = open.call().thread;
            if lane.calls.is_empty() {
                let goid = open.call().goroutine.unwrap_or(0);
                let tid = if goid == 0 { end_tid } else { 0 };
                self.shed_outermost.push((Lane { thread: u64::from(pid) << 32 | u64::from(tid), goid }, open.depth));
            }
            let ended = Ended { end: End::Shed, end_ns: None, end_tid, lost: false };
            self.tell(&mut open, ended, 0, sink)?;
        }
        Ok(())
    }
}
