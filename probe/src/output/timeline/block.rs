//! What is held of one outermost call: its lines in order of entry, each with its level, and the path of open calls.

use std::ops::Range;
use std::rc::Rc;

use crate::calls::{
    CallId, CallerStack, End, Enter, Home, Leave, Origin, Point, Spent, Thread, open_ns, surely_open_ns,
};

/// Open calls that are repeated when a block goes on: the outermost and the innermost ones.
const REPEATED_MAX: usize = 32;

/// What a line shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// A call that has not ended.
    Open,
    /// A call that has.
    Ended {
        /// None when not known.
        duration_ns: Option<u64>,
        /// How.
        end: End,
        /// Whether events were lost in it.
        lost: bool,
    },
    /// A point.
    Point,
}

/// A call or point.
#[derive(Debug)]
pub(super) struct Line {
    id: Option<CallId>,
    /// 0 for the outermost call.
    pub(super) level: usize,
    pub(super) function: u32,
    start_ns: u64,
    spent: Option<Spent>,
    tid: u32,
    /// It began on another thread than what was before it ended on.
    pub(super) moved_in: Option<u32>,
    /// It ended on another thread than it began on.
    pub(super) moved_out: Option<u32>,
    pub(super) state: State,
    shown: bool,
    /// Its callers, until they are shown.
    pub(super) stack: Option<Rc<CallerStack>>,
}

impl Line {
    /// See [`Enter::open_ns`].
    fn open_ns(&self, now_ns: u64) -> u64 {
        open_ns(self.start_ns, self.spent.as_ref(), now_ns)
    }

    /// See [`Enter::surely_open_ns`].
    fn surely_open_ns(&self, now_ns: u64) -> u64 {
        surely_open_ns(self.start_ns, self.spent.as_ref(), now_ns)
    }
}

/// An outermost call and what is held of the calls under it.
#[derive(Debug)]
pub(super) struct Block {
    /// The outermost call.
    pub(super) id: CallId,
    pub(super) start_ns: u64,
    pub(super) comm: Rc<str>,
    pub(super) home: Rc<Home>,
    pub(super) thread: Thread,
    pub(super) goroutine: Option<u64>,
    pub(super) origin: Option<Rc<Origin>>,
    /// In order of entry: a line's callees follow it, one level deeper.
    pub(super) lines: Vec<Line>,
    /// Positions of the open calls in `lines`, outermost first.
    path: Vec<usize>,
    /// A part of it was shown.
    pub(super) in_parts: bool,
    /// When a part was last shown; 0 if none was.
    pub(super) shown_ns: u64,
    repeated: usize,
    tid_now: u32,
}

impl Block {
    pub(super) fn new(outermost: &Enter) -> Block {
        Block {
            id: outermost.id,
            start_ns: outermost.start_ns,
            comm: Rc::clone(&outermost.comm),
            home: Rc::clone(&outermost.home),
            thread: outermost.thread,
            goroutine: outermost.goroutine,
            origin: outermost.origin.clone(),
            lines: Vec::new(),
            path: Vec::new(),
            in_parts: false,
            shown_ns: 0,
            repeated: 0,
            tid_now: outermost.thread.tid,
        }
    }

    pub(super) fn enter(&mut self, enter: &Enter) {
        let level = self.path.len();
        self.path.push(self.lines.len());
        let moved_in = self.moved_to(enter.thread.tid);
        self.lines.push(Line {
            id: Some(enter.id),
            level,
            function: enter.function,
            start_ns: enter.start_ns,
            spent: enter.spent.clone(),
            tid: enter.thread.tid,
            moved_in,
            moved_out: None,
            state: State::Open,
            shown: false,
            stack: enter.stack.clone(),
        });
    }

    pub(super) fn point(&mut self, point: &Point) {
        let moved_in = self.moved_to(point.thread.tid);
        // Calls deeper than its parent are over, though that was not told yet.
        let is_parent = |at: &usize| self.lines.get(*at).is_some_and(|line| line.id == point.parent);
        let level = self.path.iter().rposition(is_parent).map_or(self.path.len(), |parent| parent + 1);
        self.lines.push(Line {
            id: None,
            level,
            function: point.function,
            start_ns: point.at_ns,
            spent: None,
            tid: point.thread.tid,
            moved_in,
            moved_out: None,
            state: State::Point,
            shown: false,
            stack: point.stack.clone(),
        });
    }

    fn moved_to(&mut self, tid: u32) -> Option<u32> {
        let moved = (tid != self.tid_now).then_some(tid);
        self.tid_now = tid;
        moved
    }

    /// Ends a call, and forgets it if it was shorter than `min_ns` and holds nothing that was not.
    pub(super) fn leave(&mut self, leave: &Leave, min_ns: u64) {
        let lines = &mut self.lines;
        let is_it = |at: &usize| lines.get(*at).is_some_and(|line| line.id == Some(leave.call.id));
        let Some(depth) = self.path.iter().rposition(is_it) else { return };
        let at = self.path[depth];
        self.path.truncate(depth);
        let line = &mut lines[at];
        let duration_ns = leave.duration_ns();
        line.state = State::Ended { duration_ns, end: leave.end, lost: leave.lost };
        if leave.has_ended() {
            line.moved_out = (leave.end_tid != line.tid).then_some(leave.end_tid);
            self.tid_now = leave.end_tid;
        }
        if !line.shown && duration_ns.is_some_and(|ns| ns < min_ns) {
            self.forget(at);
        }
    }

    /// Forgets a call and the points in it, unless a call in it is to be shown.
    fn forget(&mut self, at: usize) {
        let level = self.lines[at].level;
        let inside = self.lines[at + 1..].iter().take_while(|line| line.level > level);
        let (count, calls) = inside
            .fold((0, 0), |(count, calls), line| (count + 1, calls + usize::from(!matches!(line.state, State::Point))));
        if calls == 0 {
            self.lines.drain(at..=at + count);
        }
    }

    /// The outermost call has ended.
    pub(super) fn is_over(&self) -> bool {
        self.path.is_empty()
    }

    /// Lines that are held and not shown yet.
    pub(super) fn held(&self) -> usize {
        self.lines.len().saturating_sub(self.repeated)
    }

    /// Is there anything that can be shown and was not, other than calls open for less than `wait_ns`?
    pub(super) fn has_news(&self, now_ns: u64, wait_ns: u64, min_ns: u64) -> bool {
        self.lines[..self.settled(now_ns, min_ns)].iter().any(|line| match line.state {
            State::Open => !line.shown && line.open_ns(now_ns) >= wait_ns,
            State::Ended { .. } | State::Point => true,
        })
    }

    /// How many lines can be shown: all up to the first open call that may still turn out to be shorter than `min_ns`.
    pub(super) fn settled(&self, now_ns: u64, min_ns: u64) -> usize {
        let young = |line: &Line| !line.shown && line.surely_open_ns(now_ns) < min_ns;
        self.path.iter().copied().find(|at| young(&self.lines[*at])).unwrap_or(self.lines.len())
    }

    /// Keeps, of the first `shown` lines, the calls that are still open.
    pub(super) fn shown_so_far(&mut self, shown: usize, now_ns: u64) {
        if shown == 0 {
            return;
        }
        self.in_parts = true;
        self.shown_ns = now_ns;
        let mut at = 0;
        self.lines.retain_mut(|line| {
            let was_shown = at < shown;
            at += 1;
            if was_shown {
                line.shown = true;
                line.stack = None;
                line.moved_in = None;
            }
            !was_shown || matches!(line.state, State::Open)
        });
        self.repeated = self.lines.iter().take_while(|line| line.shown).count();
        let open = self.lines.iter().enumerate().filter(|(_, line)| matches!(line.state, State::Open));
        self.path = open.map(|(at, _)| at).collect();
    }

    /// Which of `lines` (the block's first) not to repeat: the middle of a long path of calls that are still open.
    pub(super) fn elided(&self, lines: &[Line]) -> Range<usize> {
        let again = lines.iter().take_while(|line| line.shown && matches!(line.state, State::Open)).count();
        match again.checked_sub(REPEATED_MAX) {
            Some(more) if more > 0 => REPEATED_MAX / 2..REPEATED_MAX / 2 + more,
            _ => 0..0,
        }
    }
}
