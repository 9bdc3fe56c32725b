//! The timeline: one block for each outermost call, printed when it ends, never mixed with another thread's.
//!
//! A call that is open for longer, or has more calls under it than should be held, is shown so far; its block goes on
//! later under the same header and number, with the calls that were still open repeated.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::rc::Rc;

use jiff::tz::TimeZone;
use rustc_hash::FxHashMap;

use super::text::{FAINT, HEADER, LABEL, Names, Painter, end_label, push_callers, push_origin, push_shed, push_thread};
use super::time::{Clock, DURATION_WIDTH, push_duration};
use super::{OutputOptions, Sink};
use crate::calls::{CallId, CallerStack, Enter, Home, Leave, NewFile, Origin, Point, Shed, Summary, Thread, TraceInfo};

mod block;
use block::{Block, Line, State};

/// A call open for longer is shown so far, and then at most as often.
const SHOW_AFTER_NS: u64 = 1_000_000_000;
/// Lines held for one block before they are shown: after a call's end, so that few calls are shown as open.
const HELD_MAX: usize = 10_000;
/// The same where no call ends.
const HELD_OPEN_MAX: usize = 2 * HELD_MAX;
/// Levels that are drawn; a line nested deeper says how deep it is.
const LEVELS_DRAWN: usize = 256;
/// Columns before the tree.
const MARGIN: usize = DURATION_WIDTH + 2;

/// The timeline.
pub(super) struct Timeline {
    out: Box<dyn Write>,
    page: Page,
    min_duration_ns: u64,
    /// The block (by its outermost call) that an open call belongs to.
    open: FxHashMap<CallId, CallId>,
    blocks: FxHashMap<CallId, Block>,
}

impl Timeline {
    pub(super) fn new(options: &OutputOptions, zone: TimeZone, out: Box<dyn Write>) -> Timeline {
        Timeline {
            out,
            page: Page {
                text: String::new(),
                clock: Clock::new(options.time, zone),
                painter: Painter { color: options.color },
                names: Names::default(),
                entries_only: options.entries_only,
            },
            min_duration_ns: options.min_duration_ns.unwrap_or(0),
            open: FxHashMap::default(),
            blocks: FxHashMap::default(),
        }
    }

    fn write_page(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.page.text.as_bytes());
        self.page.text.clear();
        written
    }

    /// Shows what a block holds if that is more than `most` lines.
    fn bound(&mut self, block: CallId, most: usize, now_ns: u64) -> io::Result<()> {
        match self.blocks.get_mut(&block) {
            Some(block) if block.held() >= most => {
                let shown = block.lines.len();
                self.page.part(block, shown);
                block.shown_so_far(shown, now_ns);
                self.write_page()
            }
            _ => Ok(()),
        }
    }

    /// Shows what is open for long and has something new.
    fn show_open(&mut self, now_ns: u64) -> io::Result<()> {
        let wait = SHOW_AFTER_NS.max(self.min_duration_ns);
        let due = |block: &Block| {
            now_ns.saturating_sub(block.start_ns) >= wait
                && now_ns.saturating_sub(block.shown_ns) >= SHOW_AFTER_NS
                && block.has_news(now_ns, wait, self.min_duration_ns)
        };
        let mut ids: Vec<CallId> = self.blocks.iter().filter(|(_, block)| due(block)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(block) = self.blocks.get_mut(&id) {
                let shown = block.settled(now_ns, self.min_duration_ns);
                self.page.part(block, shown);
                block.shown_so_far(shown, now_ns);
            }
            self.write_page()?;
        }
        Ok(())
    }
}

impl Sink for Timeline {
    fn begin(&mut self, trace: &TraceInfo) -> io::Result<()> {
        self.page.clock.begin(trace);
        self.page.names = Names::new(trace);
        Ok(())
    }

    fn enter(&mut self, enter: &Enter) -> io::Result<()> {
        let block = enter.parent.and_then(|parent| self.open.get(&parent).copied()).unwrap_or(enter.id);
        self.open.insert(enter.id, block);
        self.blocks.entry(block).or_insert_with(|| Block::new(enter)).enter(enter);
        self.bound(block, HELD_OPEN_MAX, enter.start_ns)
    }

    fn leave(&mut self, leave: &Leave) -> io::Result<()> {
        if !self.open.contains_key(&leave.call.id) {
            self.enter(&leave.call)?;
        }
        let Some(id) = self.open.remove(&leave.call.id) else { return Ok(()) };
        let Some(block) = self.blocks.get_mut(&id) else { return Ok(()) };
        block.leave(leave, self.min_duration_ns);
        if !block.is_over() {
            return self.bound(id, HELD_MAX, leave.end_ns.unwrap_or(leave.call.start_ns));
        }
        if let Some(block) = self.blocks.remove(&id) {
            self.page.rest(&block);
        }
        self.write_page()
    }

    fn point(&mut self, point: &Point) -> io::Result<()> {
        match point.parent.and_then(|parent| self.open.get(&parent).copied()) {
            Some(id) => {
                if let Some(block) = self.blocks.get_mut(&id) {
                    block.point(point);
                }
                self.bound(id, HELD_OPEN_MAX, point.at_ns)
            }
            None => {
                self.page.lone_point(point);
                self.write_page()
            }
        }
    }

    /// Talk says it.
    fn grown(&mut self, trace: &TraceInfo, _: &NewFile) -> io::Result<()> {
        self.page.names.grow(trace);
        Ok(())
    }

    fn shed(&mut self, shed: &Shed) -> io::Result<()> {
        let page = &mut self.page;
        push_shed(&mut page.text, page.painter, &page.clock, page.names.get(shed.function), shed);
        self.write_page()
    }

    fn tick(&mut self, now_ns: u64) -> io::Result<()> {
        self.show_open(now_ns)?;
        self.out.flush()
    }

    fn end(&mut self, _: &Summary) -> io::Result<()> {
        self.out.flush()
    }
}

/// Text being made.
struct Page {
    text: String,
    clock: Clock,
    painter: Painter,
    names: Names,
    entries_only: bool,
}

impl Page {
    /// The first `shown` lines of a block that goes on.
    fn part(&mut self, block: &Block, shown: usize) {
        if shown > 0 {
            self.header(block, true);
            self.lines(block, &block.lines[..shown]);
        }
    }

    /// All that is left of a block that is over; nothing if all of it was too short to show.
    fn rest(&mut self, block: &Block) {
        if !block.lines.is_empty() {
            self.header(block, block.in_parts);
            self.lines(block, &block.lines);
        }
    }

    fn header(&mut self, block: &Block, numbered: bool) {
        self.who(block.start_ns, &block.comm, block.thread, block.goroutine, &block.home, block.origin.as_deref());
        if numbered {
            let _ = write!(self.text, "  #{}", block.id);
        }
        self.text.push('\n');
    }

    fn who(
        &mut self,
        ns: u64,
        comm: &str,
        thread: Thread,
        goroutine: Option<u64>,
        home: &Home,
        origin: Option<&Origin>,
    ) {
        let clock = &self.clock;
        self.painter.paint(&mut self.text, HEADER, |text| {
            let before = text.len();
            clock.push(text, ns);
            if text.len() > before {
                text.push_str("  ");
            }
            push_thread(text, comm, thread, goroutine, home);
            push_origin(text, origin);
        });
    }

    fn lines(&mut self, block: &Block, lines: &[Line]) {
        let last = last_siblings(lines);
        let elided = block.elided(lines);
        // By level: does the tree's vertical bar end there?
        let mut ended: Vec<bool> = Vec::new();
        // Stacks stand below what their call called.
        let mut stacks: Vec<(usize, String, Rc<CallerStack>)> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            while let Some((_, margin, stack)) = stacks.pop_if(|(level, ..)| *level >= line.level) {
                push_callers(&mut self.text, self.painter, &margin, &stack);
            }
            ended.truncate(line.level);
            if elided.contains(&at) {
                if at == elided.start {
                    let _ = writeln!(self.text, "{:MARGIN$}⋮  {} more open calls", "", elided.len());
                }
            } else {
                self.line(line, &ended, last[at]);
            }
            ended.resize(line.level, true);
            ended.push(last[at]);
            if let Some(stack) = &line.stack {
                stacks.push((line.level, format!("{:MARGIN$}{}", "", bars(&ended)), Rc::clone(stack)));
            }
        }
        while let Some((_, margin, stack)) = stacks.pop() {
            push_callers(&mut self.text, self.painter, &margin, &stack);
        }
    }

    fn line(&mut self, line: &Line, ended: &[bool], last: bool) {
        let duration = match line.state {
            State::Ended { duration_ns, .. } => duration_ns,
            State::Open | State::Point => None,
        };
        push_duration(&mut self.text, duration);
        self.text.push_str("  ");
        if line.level > 0 {
            self.painter.paint(&mut self.text, FAINT, |text| {
                text.push_str(&bars(ended));
                text.push_str(if last { "└─ " } else { "├─ " });
                if line.level > LEVELS_DRAWN {
                    let _ = write!(text, "[level {}] ", line.level);
                }
            });
        }
        self.text.push_str(self.names.get(line.function));
        self.labels(line);
        self.text.push('\n');
    }

    fn labels(&mut self, line: &Line) {
        for tid in line.moved_in.iter().chain(&line.moved_out) {
            self.painter.paint(&mut self.text, LABEL, |text| {
                let _ = write!(text, " →{tid}");
            });
        }
        let label = match line.state {
            State::Ended { end, lost, .. } if !self.entries_only || lost => end_label(end, lost),
            State::Open => " …",
            State::Ended { .. } | State::Point => "",
        };
        if !label.is_empty() {
            self.painter.paint(&mut self.text, LABEL, |text| text.push_str(label));
        }
    }

    fn lone_point(&mut self, point: &Point) {
        self.who(point.at_ns, &point.comm, point.thread, point.goroutine, &point.home, point.origin.as_deref());
        let _ = writeln!(self.text, "\n{:MARGIN$}{}", "", self.names.get(point.function));
        if let Some(stack) = &point.stack {
            push_callers(&mut self.text, self.painter, &" ".repeat(MARGIN), stack);
        }
    }
}

/// The bars of the levels from 1 on; level 0 has none.
fn bars(ended: &[bool]) -> String {
    let levels = ended.iter().skip(1).take(LEVELS_DRAWN - 1);
    levels.map(|ended| if *ended { "   " } else { "│  " }).collect()
}

/// For each line: does no sibling follow it?
fn last_siblings(lines: &[Line]) -> Vec<bool> {
    // By level: does a line of that level follow, under the same parent?
    let mut follows: Vec<bool> = Vec::new();
    let mut last = vec![false; lines.len()];
    for (at, line) in lines.iter().enumerate().rev() {
        follows.truncate(line.level + 1);
        follows.resize(line.level + 1, false);
        last[at] = !std::mem::replace(&mut follows[line.level], true);
    }
    last
}

#[cfg(test)]
mod tests;
