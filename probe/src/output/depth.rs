//! `--max-depth`: calls nested deeper are not passed on.

use std::io;

use super::Sink;
use crate::calls::{Enter, Leave, NewFile, Point, Shed, Summary, TraceInfo};

/// Passes the first levels of calls on.
pub(super) struct MaxDepth {
    levels: u32,
    inner: Box<dyn Sink>,
}

impl MaxDepth {
    pub(super) fn new(levels: u32, inner: Box<dyn Sink>) -> MaxDepth {
        MaxDepth { levels, inner }
    }
}

impl Sink for MaxDepth {
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()> {
        self.inner.begin(trace)
    }

    fn enter(&mut self, enter: &Enter) -> io::Result<()> {
        if enter.depth < self.levels { self.inner.enter(enter) } else { Ok(()) }
    }

    fn leave(&mut self, leave: &Leave) -> io::Result<()> {
        if leave.call.depth < self.levels { self.inner.leave(leave) } else { Ok(()) }
    }

    /// A point is part of the call around it, so the innermost level keeps its points.
    fn point(&mut self, point: &Point) -> io::Result<()> {
        if point.depth <= self.levels { self.inner.point(point) } else { Ok(()) }
    }

    fn grown(&mut self, trace: &TraceInfo, file: &NewFile) -> io::Result<()> {
        self.inner.grown(trace, file)
    }

    fn shed(&mut self, shed: &Shed) -> io::Result<()> {
        self.inner.shed(shed)
    }

    fn tick(&mut self, now_ns: u64) -> io::Result<()> {
        self.inner.tick(now_ns)
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        self.inner.end(summary)
    }
}
