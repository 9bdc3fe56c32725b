//! Output: what became known about calls, as text or JSON lines.
//!
//! In: [`Enter`], [`Leave`] and [`Point`] in the order in which they became known. Out: bytes to one writer.

use std::io;

use crate::calls::{Enter, Leave, Point, Summary, TraceInfo};

/// One way to show a trace. A `BrokenPipe` error ends the trace quietly, any other is reported.
pub trait Sink {
    /// The probes are in place.
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()>;
    /// A call began.
    fn enter(&mut self, enter: &Enter) -> io::Result<()>;
    /// A call ended.
    fn leave(&mut self, leave: &Leave) -> io::Result<()>;
    /// A point was passed.
    fn point(&mut self, point: &Point) -> io::Result<()>;
    /// Called some times a second, and when the events run dry, with the time up to which all events have been
    /// told (`CLOCK_MONOTONIC`, ns): what is open for more than a second is shown, buffers are flushed.
    fn tick(&mut self, now_ns: u64) -> io::Result<()>;
    /// The trace is over: everything still open has been told with [`crate::calls::End::Open`].
    fn end(&mut self, summary: &Summary) -> io::Result<()>;
}
