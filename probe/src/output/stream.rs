//! `--layout=stream`: a line for each entry and each exit, in the order of events, indented by depth.
//!
//! A call that called nothing is one line if nothing happened between its entry and its exit.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use rustc_hash::FxHashMap;

use super::text::{FAINT, LABEL, Names, Painter, end_label, push_callers, push_origin, push_shed, push_thread};
use super::time::{Clock, DURATION_WIDTH, TimeFormat, push_duration};
use super::{OutputOptions, Sink};
use crate::calls::{CallId, CallerStack, Enter, Home, Leave, NewFile, Origin, Point, Shed, Summary, Thread, TraceInfo};

/// Columns of a time of day; other times are brought to the same width.
const TIME_WIDTH: usize = 15;
/// The column of threads grows to at most this.
const WHO_WIDTH_MAX: usize = 40;
/// Levels that are indented.
const LEVELS_DRAWN: u32 = 256;

/// A call whose end was not told yet.
struct OpenCall {
    enter: Enter,
    shown: bool,
    /// Points passed in it while it was not shown.
    points: Vec<Point>,
}

/// What stands before the text of a line.
struct Lead<'a> {
    at_ns: Option<u64>,
    comm: &'a str,
    home: &'a Home,
    thread: Thread,
    goroutine: Option<u64>,
    duration_ns: Option<u64>,
    depth: u32,
}

/// The stream.
pub(super) struct Stream {
    out: Box<dyn Write>,
    text: String,
    clock: Clock,
    timed: bool,
    painter: Painter,
    names: Names,
    entries_only: bool,
    min_duration_ns: u64,
    who_width: usize,
    open: FxHashMap<CallId, OpenCall>,
    /// The last event, if it was an entry: its exit may come next.
    last: Option<CallId>,
}

impl Stream {
    pub(super) fn new(options: &OutputOptions, zone: TimeZone, out: Box<dyn Write>) -> Stream {
        Stream {
            out,
            text: String::new(),
            clock: Clock::new(options.time, zone),
            timed: options.time != TimeFormat::None,
            painter: Painter { color: options.color },
            names: Names::default(),
            entries_only: options.entries_only,
            min_duration_ns: options.min_duration_ns.unwrap_or(0),
            who_width: 0,
            open: FxHashMap::default(),
            last: None,
        }
    }

    fn write_text(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.text.as_bytes());
        self.text.clear();
        written
    }

    /// Writes the entry that was held back for its exit.
    fn show_last(&mut self) {
        if let Some(id) = self.last.take() {
            self.show(id);
        }
    }

    /// Writes the entries, as far as they were not, of the call and the calls around it.
    fn show(&mut self, id: CallId) {
        let mut hidden = Vec::new();
        let mut next = Some(id);
        while let Some(call) = next.and_then(|id| self.open.get_mut(&id)).filter(|call| !call.shown) {
            call.shown = true;
            next = call.enter.parent;
            hidden.push((call.enter.clone(), std::mem::take(&mut call.points)));
        }
        for (enter, points) in hidden.iter().rev() {
            self.entry(enter, points);
        }
    }

    fn entry(&mut self, enter: &Enter, points: &[Point]) {
        self.lead(&Lead { duration_ns: None, ..Lead::of(enter) });
        self.text.push_str(self.names.get(enter.function));
        self.text.push_str(" {");
        self.origin(enter.depth, enter.origin.as_deref());
        self.text.push('\n');
        self.callers(enter.depth, enter.stack.as_deref());
        for point in points {
            self.point_line(point);
        }
    }

    fn exit(&mut self, leave: &Leave) {
        let call = &leave.call;
        let thread = if leave.has_ended() { Thread { tid: leave.end_tid, ..call.thread } } else { call.thread };
        self.lead(&Lead { at_ns: leave.end_ns, thread, duration_ns: leave.duration_ns(), ..Lead::of(call) });
        self.text.push_str("} ");
        self.text.push_str(self.names.get(call.function));
        self.label(end_label(leave.end, leave.lost), leave.lost);
        self.text.push('\n');
    }

    /// Entry and exit in one.
    fn leaf(&mut self, leave: &Leave) {
        let call = &leave.call;
        self.lead(&Lead { duration_ns: leave.duration_ns(), ..Lead::of(call) });
        self.text.push_str(self.names.get(call.function));
        if leave.has_ended() && leave.end_tid != call.thread.tid {
            self.label(&format!(" →{}", leave.end_tid), true);
        }
        self.label(end_label(leave.end, leave.lost), leave.lost);
        self.origin(call.depth, call.origin.as_deref());
        self.text.push('\n');
        self.callers(call.depth, call.stack.as_deref());
    }

    fn label(&mut self, label: &str, always: bool) {
        if !label.is_empty() && (always || !self.entries_only) {
            self.painter.paint(&mut self.text, LABEL, |text| text.push_str(label));
        }
    }

    /// Who made the goroutine: where an outermost call begins.
    fn origin(&mut self, depth: u32, origin: Option<&Origin>) {
        if depth == 0 {
            self.painter.paint(&mut self.text, FAINT, |text| push_origin(text, origin));
        }
    }

    fn point_line(&mut self, point: &Point) {
        self.lead(&Lead {
            at_ns: Some(point.at_ns),
            comm: &point.comm,
            home: &point.home,
            thread: point.thread,
            goroutine: point.goroutine,
            duration_ns: None,
            depth: point.depth,
        });
        self.text.push_str(self.names.get(point.function));
        self.origin(point.depth, point.origin.as_deref());
        self.text.push('\n');
        self.callers(point.depth, point.stack.as_deref());
    }

    fn lead(&mut self, lead: &Lead<'_>) {
        let (clock, timed, width) = (&self.clock, self.timed, &mut self.who_width);
        self.painter.paint(&mut self.text, FAINT, |text| {
            if timed {
                let mut time = String::new();
                if let Some(ns) = lead.at_ns {
                    clock.push(&mut time, ns);
                }
                text.extend(std::iter::repeat_n(' ', TIME_WIDTH.saturating_sub(time.len())));
                text.push_str(&time);
                text.push_str("  ");
            }
            let mut who = String::new();
            push_thread(&mut who, lead.comm, lead.thread, lead.goroutine, lead.home);
            let columns = who.chars().count();
            *width = columns.min(WHO_WIDTH_MAX).max(*width);
            text.push_str(&who);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(columns) + 2));
        });
        push_duration(&mut self.text, lead.duration_ns);
        self.text.push_str("  ");
        self.text.extend(std::iter::repeat_n("  ", lead.depth.min(LEVELS_DRAWN) as usize));
    }

    fn callers(&mut self, depth: u32, stack: Option<&CallerStack>) {
        let Some(stack) = stack else { return };
        let time = if self.timed { TIME_WIDTH + 2 } else { 0 };
        let tree = (depth.min(LEVELS_DRAWN) as usize + 1) * 2;
        let margin = " ".repeat(time + self.who_width + 2 + DURATION_WIDTH + 2 + tree);
        push_callers(&mut self.text, self.painter, &margin, stack);
    }
}

impl<'a> Lead<'a> {
    fn of(enter: &'a Enter) -> Lead<'a> {
        Lead {
            at_ns: Some(enter.start_ns),
            comm: &enter.comm,
            home: &enter.home,
            thread: enter.thread,
            goroutine: enter.goroutine,
            duration_ns: None,
            depth: enter.depth,
        }
    }
}

impl Sink for Stream {
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()> {
        self.clock.begin(trace);
        self.names = Names::new(trace);
        Ok(())
    }

    fn enter(&mut self, enter: &Enter) -> io::Result<()> {
        self.show_last();
        self.open.insert(enter.id, OpenCall { enter: enter.clone(), shown: false, points: Vec::new() });
        // With --min-duration an entry is written when the call is known to be long enough.
        self.last = (self.min_duration_ns == 0).then_some(enter.id);
        self.write_text()
    }

    fn leave(&mut self, leave: &Leave) -> io::Result<()> {
        let id = leave.call.id;
        if self.last != Some(id) {
            self.show_last();
        }
        self.last = None;
        let call = self.open.remove(&id);
        if call.as_ref().is_some_and(|call| call.shown) {
            self.exit(leave);
            return self.write_text();
        }
        if leave.duration_ns().is_some_and(|ns| ns < self.min_duration_ns) {
            return Ok(());
        }
        if let Some(parent) = leave.call.parent {
            self.show(parent);
        }
        match call.map(|call| call.points).filter(|points| !points.is_empty()) {
            Some(points) => {
                self.entry(&leave.call, &points);
                self.exit(leave);
            }
            None => self.leaf(leave),
        }
        self.write_text()
    }

    fn point(&mut self, point: &Point) -> io::Result<()> {
        self.show_last();
        match point.parent.and_then(|parent| self.open.get_mut(&parent)).filter(|call| !call.shown) {
            Some(call) => call.points.push(point.clone()),
            None => self.point_line(point),
        }
        self.write_text()
    }

    /// Talk says it.
    fn grown(&mut self, trace: &TraceInfo, _: &NewFile) -> io::Result<()> {
        self.names.grow(trace);
        Ok(())
    }

    fn shed(&mut self, shed: &Shed) -> io::Result<()> {
        self.show_last();
        push_shed(&mut self.text, self.painter, &self.clock, self.names.get(shed.function), shed);
        self.write_text()
    }

    fn tick(&mut self, now_ns: u64) -> io::Result<()> {
        self.show_last();
        if self.min_duration_ns > 0 {
            let old = |call: &OpenCall| call.enter.surely_open_ns(now_ns) >= self.min_duration_ns;
            let open = self.open.iter().filter(|(_, call)| !call.shown && old(call));
            let mut ids: Vec<CallId> = open.map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.into_iter().for_each(|id| self.show(id));
        }
        self.write_text()?;
        self.out.flush()
    }

    fn end(&mut self, _: &Summary) -> io::Result<()> {
        self.show_last();
        self.write_text()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
