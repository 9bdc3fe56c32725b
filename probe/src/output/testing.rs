//! Made-up traces for the outputs' tests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;

use jiff::tz::TimeZone;

use super::{OutputOptions, Sink};
use crate::calls::{
    CallId, CallerStack, End, Enter, Frame, Home, Leave, NewFile, Origin, Point, Shed, Spent, Summary, Thread,
    TraceInfo, TracedFunction,
};

/// `CLOCK_MONOTONIC` at the trace's begin. Times of [`Story`] count from here.
pub(super) const ORIGIN_NS: u64 = 5_000_000_000;
pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// Memory that can be read while a sink writes to it.
#[derive(Clone, Default)]
pub(super) struct Written(Rc<RefCell<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// What was written since the last look.
    pub(super) fn take(&self) -> String {
        String::from_utf8(self.0.take()).expect("sinks write UTF-8")
    }
}

/// A sink and what is told to it: calls by their ids, each on the thread it was entered on.
pub(super) struct Story {
    sink: Box<dyn Sink>,
    written: Written,
    entered: HashMap<CallId, Enter>,
    pub(super) trace: TraceInfo,
    pub(super) thread: Thread,
    pub(super) comm: Rc<str>,
    pub(super) home: Rc<Home>,
    pub(super) goroutine: Option<u64>,
    /// Who made it.
    pub(super) origin: Option<Rc<Origin>>,
    /// What the probes cost so far, where it is subtracted.
    pub(super) spent_ns: Option<Rc<Cell<u64>>>,
}

impl Story {
    /// A trace of `functions` at 12:00:00 UTC, shown as `options` say.
    pub(super) fn new(options: &OutputOptions, functions: &[&str]) -> Story {
        let written = Written::default();
        let sink = super::wrapped(options, TimeZone::UTC, Box::new(written.clone()));
        Story::told_to(sink, written, functions)
    }

    pub(super) fn told_to(sink: Box<dyn Sink>, written: Written, functions: &[&str]) -> Story {
        let function = |name: &&str| {
            let (name, point) = match name.split_once("+0x") {
                Some((name, offset)) => (name, u64::from_str_radix(offset, 16).ok()),
                None => (*name, None),
            };
            TracedFunction { name: name.to_owned(), binary: "/srv".to_owned(), address: 0x6c98a0, point }
        };
        let trace = TraceInfo {
            // date -u -d @1700049600 says 12:00:00.
            epoch_ns: 1_700_049_600 * SECOND,
            origin_ns: ORIGIN_NS,
            matched: 9,
            functions: functions.iter().map(function).collect(),
            skipped: Vec::new(),
            subtracted: None,
        };
        let mut story = Story {
            sink,
            written,
            entered: HashMap::new(),
            trace,
            thread: Thread { pid: 4711, tid: 4715 },
            comm: Rc::from("srv"),
            home: Rc::default(),
            goroutine: Some(42),
            origin: None,
            spent_ns: None,
        };
        story.sink.begin(&story.trace).expect("memory can be written");
        story
    }

    /// Tells the sink anew how the trace begins.
    pub(super) fn begin(&mut self) {
        self.sink.begin(&self.trace).expect("memory can be written");
    }

    /// An outermost call.
    pub(super) fn enter(&mut self, id: CallId, function: u32, at_ns: u64) {
        self.enter_with(id, None, function, at_ns, None);
    }

    /// A call out of call `parent`.
    pub(super) fn call(&mut self, id: CallId, parent: CallId, function: u32, at_ns: u64) {
        self.enter_with(id, Some(parent), function, at_ns, None);
    }

    pub(super) fn enter_with(
        &mut self,
        id: CallId,
        parent: Option<CallId>,
        function: u32,
        at_ns: u64,
        stack: Option<CallerStack>,
    ) {
        let depth = parent.map_or(0, |parent| self.entered(parent).depth + 1);
        let enter = Enter {
            id,
            parent,
            depth,
            function,
            start_ns: ORIGIN_NS + at_ns,
            thread: self.thread,
            comm: Rc::clone(&self.comm),
            home: Rc::clone(&self.home),
            goroutine: self.goroutine,
            origin: self.origin.clone(),
            stack: stack.map(Rc::new),
            spent: self.spent_ns.clone().map(|lane_ns| Spent { before_ns: lane_ns.get(), lane_ns }),
        };
        self.sink.enter(&enter).expect("memory can be written");
        self.entered.insert(id, enter);
    }

    fn entered(&self, id: CallId) -> &Enter {
        self.entered.get(&id).expect("a call that was entered")
    }

    /// It returned, on the thread it began on.
    pub(super) fn leave(&mut self, id: CallId, at_ns: u64) {
        let tid = self.entered(id).thread.tid;
        self.ends(id, Some(at_ns), tid, End::Return, false);
    }

    pub(super) fn ends(&mut self, id: CallId, at_ns: Option<u64>, end_tid: u32, end: End, lost: bool) {
        let call = self.entered(id).clone();
        let overhead_ns = call.spent.as_ref().map_or(0, |spent| spent.lane_ns.get() - spent.before_ns);
        let leave = Leave { call, end_ns: at_ns.map(|ns| ORIGIN_NS + ns), end_tid, end, lost, overhead_ns };
        self.sink.leave(&leave).expect("memory can be written");
    }

    pub(super) fn point(&mut self, parent: Option<CallId>, function: u32, at_ns: u64) {
        let point = Point {
            function,
            parent,
            depth: parent.map_or(0, |parent| self.entered(parent).depth + 1),
            at_ns: ORIGIN_NS + at_ns,
            thread: self.thread,
            comm: Rc::clone(&self.comm),
            home: Rc::clone(&self.home),
            goroutine: self.goroutine,
            origin: self.origin.clone(),
            stack: None,
        };
        self.sink.point(&point).expect("memory can be written");
    }

    /// A file with these functions comes.
    pub(super) fn grown(&mut self, functions: &[&str], file: &NewFile) {
        let new = functions.iter().map(|name| TracedFunction {
            name: (*name).to_owned(),
            binary: file.binary.clone(),
            address: 0x1000,
            point: None,
        });
        self.trace.functions.extend(new);
        self.sink.grown(&self.trace, file).expect("memory can be written");
    }

    /// A function is not traced from here on.
    pub(super) fn shed(&mut self, function: u32, rate: u64, at_ns: u64) {
        self.sink.shed(&Shed { function, rate, at_ns: ORIGIN_NS + at_ns }).expect("memory can be written");
    }

    /// A tick, and what was written until then.
    pub(super) fn tick(&mut self, at_ns: u64) -> String {
        self.sink.tick(ORIGIN_NS + at_ns).expect("memory can be written");
        self.written.take()
    }

    /// A tick that may fail.
    pub(super) fn try_tick(&mut self, at_ns: u64) -> io::Result<()> {
        self.sink.tick(ORIGIN_NS + at_ns)
    }

    /// The trace's end, and what was written until then.
    pub(super) fn end(mut self, summary: &Summary) -> String {
        self.sink.end(summary).expect("memory can be written");
        self.written.take()
    }
}

/// A caller with a name and a place.
pub(super) fn frame(function: &str, file: &str, line: u32) -> Rc<Frame> {
    Rc::new(Frame {
        function: Some(function.to_owned()),
        file: Some(file.to_owned()),
        line: Some(line),
        binary: Some("/srv".to_owned()),
        address: Some(0x1234),
        ip: 0x5555_5555_1234,
        inlined: false,
    })
}
