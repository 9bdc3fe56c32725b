//! The tracker: which entry an exit belongs to.
//!
//! Calls are paired per lane (a goroutine, a coroutine with a stack of its own, else a thread) by the depth of the
//! stack, which is the same at a function's entry and at its exits. The rule that keeps everything right: an event at
//! some depth proves that every deeper call is over. An unwinder that is watched gives such an event (`unwind`).

mod cost;
mod lanes;
mod origin;
mod overhead;
mod shed;
mod traps;
mod unwind;

use std::{cell::Cell, collections::VecDeque, io, ops::Range, rc::Rc};

use probe_ebpf::abi::{
    Event, Lane, POINT_EXEC, POINT_PROCESS_EXIT, POINT_RESERVED, POINT_STACK, POINT_THREAD_EXIT, POINT_TRAP,
};

use self::{
    cost::Total,
    lanes::{LaneKey, Lanes},
    overhead::When,
    traps::{Owed, Traps},
};
use crate::{
    calls::{
        CallId, CallerStack, End, Enter, Home, Leave, Origin, Point, Shed, Spent, Summary, Thread,
        overhead::{Costs, Trap},
    },
    events::{Frames, Record},
    output::Sink,
    plan::{NO_FUNCTION, PlannedFunction, PlannedPoint, PointKind},
};

/// What the tracker asks of the world.
pub trait World {
    /// What a process is called, and where it lives.
    fn process(&mut self, pid: u32) -> (Rc<str>, Rc<Home>);
    /// A number that stays the same as long as [`Self::process`]'s answers do; none where these may change at any time.
    fn changes(&self) -> Option<u64>;
    /// Names for callers. `at_point`: the first address is the point itself, which is no caller.
    fn callers(&mut self, pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack>;
    /// When this lane last lost a record (`CLOCK_MONOTONIC`, ns), as known once the trace had lost `lost` records;
    /// `u64::MAX` when that is not known.
    fn last_loss(&mut self, lane: Lane, lost: u32) -> Option<u64>;
}

/// Limits on what is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Outermost calls to tell.
    pub outermost: Option<u64>,
    /// Exits are not watched: every call ends at once, with an unknown duration.
    pub entries_only: bool,
}

struct Open {
    /// What will be told at its end, with the call in place: it is too large to be copied there for each event.
    leave: Leave,
    depth: u64,
    lost: u32,
    told: bool,
    /// What the calls made in it took, ns.
    inner_ns: u64,
}

impl Open {
    fn call(&self) -> &Enter {
        &self.leave.call
    }
}

#[derive(Default)]
struct OpenCalls {
    calls: Vec<Open>,
    /// The limit of outermost calls was reached before this lane's outermost call.
    muted: bool,
    /// Where exits are not watched, the call that was told last, and [`World::changes`] then: the next is the same but for its
    /// function, its number and its time.
    entered: Option<(u64, Box<Open>)>,
    /// The last event, for [`Total`].
    last: Option<(Trap, u64)>,
    /// Who made the goroutine, once it was told.
    origin: Option<Rc<Origin>>,
    /// What the probes cost it so far, ns; where it is subtracted, and since the first of them.
    spent_ns: Option<Rc<Cell<u64>>>,
    /// What it will have cost once the last trap is over.
    owed: Option<Owed>,
}

impl OpenCalls {
    /// The next lane's.
    fn has_another_use(&mut self) {
        self.entered = None;
        self.last = None;
        self.origin = None;
        self.owed = None;
    }
}

#[derive(Clone, Copy)]
struct PointInfo {
    kind: PointKind,
    function: u32,
    trap: Trap,
    /// Later events do not count: its function was shed (`CLOCK_MONOTONIC`, ns).
    until_ns: u64,
}

#[derive(Clone, Copy)]
struct FunctionInfo {
    may_repeat: bool,
    unprobed_jumps: bool,
    shed: bool,
    /// Returns before say nothing: its entry was not yet probed (`CLOCK_MONOTONIC`, ns).
    since_ns: u64,
}

impl FunctionInfo {
    fn new(function: &PlannedFunction, since_ns: u64) -> Self {
        Self { may_repeat: function.may_repeat, unprobed_jumps: function.unprobed_jumps, shed: false, since_ns }
    }
}

/// Pairs events into calls.
pub struct Tracker {
    points: Vec<PointInfo>,
    functions: Vec<FunctionInfo>,
    lanes: Lanes,
    /// While entries are seen (`CLOCK_MONOTONIC`, ns): returns outside are of calls that no probe could see begin.
    entries_ns: Range<u64>,
    limits: Limits,
    /// Functions to be shed once the events are so far.
    to_shed: VecDeque<Shed>,
    /// Outermost calls that ended by that, by lane and depth.
    shed_outermost: Vec<(Lane, u64)>,
    last_id: CallId,
    outermost_begun: u64,
    outermost_ended: u64,
    total: Total,
    /// What is to be subtracted from durations.
    costs: Option<Costs>,
    traps: Traps,
    summary: Summary,
}

impl Tracker {
    /// A tracker of the plan's points and functions.
    pub fn new(points: &[PlannedPoint], functions: &[PlannedFunction], limits: Limits) -> Self {
        Self {
            points: points.iter().map(|p| point_info(p, functions)).collect(),
            functions: functions.iter().map(|function| FunctionInfo::new(function, 0)).collect(),
            lanes: Lanes::default(),
            entries_ns: 0..u64::MAX,
            limits,
            to_shed: VecDeque::new(),
            shed_outermost: Vec::new(),
            last_id: 0,
            outermost_begun: 0,
            outermost_ended: 0,
            total: Total::default(),
            costs: None,
            traps: Traps::default(),
            summary: Summary::default(),
        }
    }

    /// The plan has grown: these are all of its points and functions. The entries of the new ones are seen from that time on
    /// (`CLOCK_MONOTONIC`, ns).
    pub fn grow(&mut self, points: &[PlannedPoint], functions: &[PlannedFunction], since_ns: u64) {
        self.points.extend(points.iter().skip(self.points.len()).map(|point| point_info(point, functions)));
        let new = functions.iter().skip(self.functions.len());
        self.functions.extend(new.map(|function| FunctionInfo::new(function, since_ns)));
    }

    /// From durations is subtracted what the traps in them cost, from now on.
    pub fn subtract(&mut self, costs: Costs) {
        self.costs = Some(costs);
    }

    /// Whether as many outermost calls as wanted have ended.
    pub fn is_done(&self) -> bool {
        self.limits.outermost.is_some_and(|limit| self.outermost_ended >= limit)
    }

    /// Takes in one record.
    ///
    /// # Errors
    /// The sink's.
    pub fn record(&mut self, record: &Record<'_>, world: &mut dyn World, sink: &mut dyn Sink) -> io::Result<()> {
        let event = &record.event;
        if self.to_shed.front().is_some_and(|shed| shed.at_ns < event.time_ns) {
            self.shed_until(event.time_ns, sink)?;
        }
        if event.point >= POINT_RESERVED {
            return self.lifecycle(event, world, sink);
        }
        let point = self.points.get(event.point as usize).copied();
        if point.is_some_and(|point| event.time_ns > point.until_ns) {
            return Ok(());
        }
        self.summary.events += u64::from(point.is_none_or(|point| !point.kind.is_landing()));
        let Some(point) = point else { return Ok(()) };
        let lane = self.lanes.lane_of(event);
        let mut step = Step { tracker: self, event, lane, spent_ns: 0, world, sink };
        match point.kind {
            PointKind::Entry => step.entry(point, record),
            PointKind::Return | PointKind::AfterReturn => step.exit(point, End::Return),
            PointKind::TailJump | PointKind::MaybeJump => step.exit(point, End::TailCall),
            PointKind::Passed => step.passed(point, record),
            PointKind::GoroutineEnd => step.close_lane(Some(point.trap), End::Unwind),
            PointKind::Landing | PointKind::LongJump | PointKind::Recovery => step.landed(point.trap),
            // They tell of themselves: POINT_STACK.
            PointKind::Context | PointKind::BoostContext => Ok(()),
        }
    }

    /// The kernel half left out short calls whole: their events by point, and the outermost calls among them.
    pub fn left_out(&mut self, events: &[(u32, u64)], outermost: u64) {
        self.summary.outermost += outermost;
        for &(point, events) in events {
            let Some(point) = self.points.get(point as usize) else { continue };
            self.summary.events += events;
            self.summary.calls += if point.kind == PointKind::Entry { events } else { 0 };
            self.total.unseen(point.trap, events);
        }
    }

    /// Entries are seen from this time on (`CLOCK_MONOTONIC`, ns): returns before it say nothing.
    pub fn entries_begin(&mut self, time_ns: u64) {
        self.entries_ns.start = time_ns;
    }

    /// Entries are not seen any more from this time on (`CLOCK_MONOTONIC`, ns).
    pub fn entries_end(&mut self, time_ns: u64) {
        self.entries_ns.end = time_ns;
    }

    /// A thread or a process ended, or executed another program.
    fn lifecycle(&mut self, event: &Event, world: &mut dyn World, sink: &mut dyn Sink) -> io::Result<()> {
        let (whole_process, end) = match event.point {
            POINT_THREAD_EXIT => (false, End::Exit),
            POINT_PROCESS_EXIT => (true, End::Exit),
            POINT_EXEC => (true, End::Exec),
            POINT_STACK => return self.stack_made(event, world, sink),
            POINT_TRAP => {
                self.traps.told(event);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if !whole_process {
            let lane = LaneKey::thread(event.pid_tgid);
            self.traps.forget(event.pid_tgid);
            return Step { tracker: self, event, lane, spent_ns: 0, world, sink }.close_lane(None, end);
        }
        let pid = (event.pid_tgid >> 32) as u32;
        self.traps.forget_process(pid);
        for lane in self.lanes.of_process(pid) {
            Step { tracker: self, event, lane, spent_ns: 0, world, sink }.close_with_process(end)?;
            self.lanes.forget(lane);
        }
        self.lanes.forget_stacks(pid);
        Ok(())
    }

    /// A coroutine gets a stack: what ran there before can never return.
    fn stack_made(&mut self, event: &Event, world: &mut dyn World, sink: &mut dyn Sink) -> io::Result<()> {
        for lane in self.lanes.add_stack((event.pid_tgid >> 32) as u32, event.depth, event.goid) {
            Step { tracker: self, event, lane, spent_ns: 0, world, sink }.close_abandoned()?;
            self.lanes.forget(lane);
        }
        Ok(())
    }

    /// A call is over.
    fn tell(&mut self, open: &mut Open, ended: Ended, overhead_ns: u64, sink: &mut dyn Sink) -> io::Result<()> {
        if open.call().depth == 0 && open.told {
            self.outermost_ended += 1;
        }
        let ended = if ended.end_ns.is_none() && self.is_shed(open.call().function) {
            Ended { end: End::Shed, lost: false, ..ended }
        } else {
            ended
        };
        self.summary.marked_lost += u64::from(ended.lost);
        if !open.told {
            return Ok(());
        }
        let leave = &mut open.leave;
        leave.end_ns = if ended.lost { None } else { ended.end_ns };
        (leave.end, leave.end_tid, leave.lost) = (ended.end, ended.end_tid, ended.lost);
        leave.overhead_ns = overhead_ns;
        sink.leave(leave)
    }

    /// The trace is over: tells what is still open, and returns the counts.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(&mut self, sink: &mut dyn Sink) -> io::Result<Summary> {
        self.shed_until(u64::MAX, sink)?;
        for key in self.lanes.keys() {
            let place = self.lanes.place(key);
            self.total.measured(self.lanes.at(place).settle_as_usual());
            while let Some(mut open) = self.lanes.at(place).calls.pop() {
                self.summary.open += u64::from(open.told && !self.is_shed(open.call().function));
                let end_tid = open.call().thread.tid;
                self.tell(&mut open, Ended { end: End::Open, end_ns: None, end_tid, lost: false }, 0, sink)?;
            }
        }
        if self.lanes.forgotten > 0 {
            let note = "stacks of coroutines were too many to be told apart: calls on them may be told as unwound";
            self.summary.notes.push(format!("{} {note}", self.lanes.forgotten));
        }
        self.summary.probes_ns = self.total.total_ns();
        Ok(self.summary.clone())
    }
}

#[derive(Clone, Copy)]
struct Ended {
    end: End,
    end_ns: Option<u64>,
    end_tid: u32,
    lost: bool,
}

/// One event, and everything it is worked on with.
struct Step<'a> {
    tracker: &'a mut Tracker,
    event: &'a Event,
    lane: LaneKey,
    /// What the probes had cost the lane at the event's time, ns; 0 where it is not subtracted.
    spent_ns: u64,
    world: &'a mut dyn World,
    sink: &'a mut dyn Sink,
}

impl Step<'_> {
    fn entry(&mut self, point: PointInfo, record: &Record<'_>) -> io::Result<()> {
        self.on_lane(|step, lane| {
            step.count(lane, point.trap);
            step.pay(lane, point.trap, record.frames.as_ref(), When::Last);
            step.learn(lane, record.origin);
            step.enter(lane, point.function, record.frames.as_ref())
        })
    }

    fn count(&mut self, lane: &mut OpenCalls, trap: Trap) {
        self.tracker.total.event(trap, lane.last, self.event.time_ns);
        lane.last = Some((trap, self.event.time_ns));
    }

    fn enter(&mut self, lane: &mut OpenCalls, function: u32, frames: Option<&Frames<'_>>) -> io::Result<()> {
        self.close_deeper(lane)?;
        if let Some(top) = lane.calls.last()
            && top.depth == self.event.depth
        {
            let repeats = self.info(function).may_repeat && top.call().function == function;
            if repeats && !self.is_in_doubt(lane) {
                return Ok(());
            }
            self.close_left(lane)?;
        }
        let depth = lane.calls.len() as u32;
        if depth == 0 {
            lane.muted = self.tracker.limits.outermost.is_some_and(|limit| self.tracker.outermost_begun >= limit);
            self.tracker.outermost_begun += 1;
            self.tracker.summary.outermost += u64::from(!lane.muted);
        }
        self.tracker.summary.calls += u64::from(!lane.muted);
        if self.tracker.limits.entries_only {
            return self.enter_only(lane, function, frames);
        }
        let open = self.begun(lane, function, depth, frames);
        if open.told {
            self.sink.enter(open.call())?;
        }
        lane.calls.push(open);
        Ok(())
    }

    /// Tells of a call of which no more will be known.
    fn enter_only(&mut self, lane: &mut OpenCalls, function: u32, frames: Option<&Frames<'_>>) -> io::Result<()> {
        let changes = self.world.changes();
        let before = lane.entered.take().filter(|(then, before)| Some(*then) == changes && self.is_alike(before, lane));
        let mut open = match before {
            Some((_, mut open)) if frames.is_none() => {
                self.tracker.last_id += 1;
                let call = &mut open.leave.call;
                (call.id, call.function, call.start_ns) = (self.tracker.last_id, function, self.event.time_ns);
                open
            }
            _ => Box::new(self.begun(lane, function, 0, frames)),
        };
        if open.told {
            self.sink.enter(open.call())?;
        }
        let told = self.tracker.tell(&mut open, Ended { end: End::Open, ..self.ended(false) }, 0, self.sink);
        lane.entered = changes.map(|changes| (changes, open));
        told
    }

    /// Whether an outermost call that is made now, without callers, is like this one of the lane.
    fn is_alike(&self, before: &Open, lane: &OpenCalls) -> bool {
        let call = before.call();
        call.thread == self.thread()
            && before.told != lane.muted
            && call.origin.is_some() == lane.origin.is_some()
            && call.stack.is_none()
            && call.spent.is_none()
            && lane.spent_ns.is_none()
    }

    fn begun(&mut self, lane: &OpenCalls, function: u32, depth: u32, frames: Option<&Frames<'_>>) -> Open {
        let thread = self.thread();
        self.tracker.last_id += 1;
        let around = lane.calls.last().map(Open::call);
        let (comm, home) = match around {
            Some(call) => (call.comm.clone(), call.home.clone()),
            None => self.world.process(thread.pid),
        };
        let call = Enter {
            id: self.tracker.last_id,
            parent: around.map(|call| call.id),
            depth,
            function,
            start_ns: self.event.time_ns,
            thread,
            comm,
            home,
            goroutine: (self.event.goid != 0).then_some(self.event.goid),
            origin: lane.origin.clone(),
            stack: frames.filter(|_| !lane.muted).map(|frames| self.world.callers(thread.pid, *frames, false)),
            spent: lane.spent_ns.clone().map(|lane_ns| Spent { lane_ns, before_ns: self.spent_ns }),
        };
        let leave = Leave { call, end_ns: None, end_tid: thread.tid, end: End::Open, lost: false, overhead_ns: 0 };
        Open { leave, depth: self.event.depth, lost: self.event.lost, told: !lane.muted, inner_ns: 0 }
    }

    fn exit(&mut self, point: PointInfo, end: End) -> io::Result<()> {
        self.on_lane(|step, lane| {
            step.count(lane, point.trap);
            step.pay(lane, point.trap, None, When::First);
            step.leave(lane, point.function, end)
        })
    }

    fn leave(&mut self, lane: &mut OpenCalls, function: u32, end: End) -> io::Result<()> {
        self.close_deeper(lane)?;
        match lane.calls.last() {
            Some(top) if top.depth == self.event.depth && top.call().function == function => {
                let lost = self.is_in_doubt(lane);
                self.pop(lane, Ended { end, end_ns: Some(self.event.time_ns), ..self.ended(lost) })
            }
            Some(top) if top.depth == self.event.depth => {
                self.unmatched(function);
                self.close_left(lane)
            }
            _ => {
                self.unmatched(function);
                Ok(())
            }
        }
    }

    fn passed(&mut self, point: PointInfo, record: &Record<'_>) -> io::Result<()> {
        self.on_lane(|step, lane| {
            step.pay(lane, point.trap, record.frames.as_ref(), When::Last);
            step.learn(lane, record.origin);
            step.pass(lane, point.function, record.frames.as_ref())
        })
    }

    fn unmatched(&mut self, function: u32) {
        let info = self.info(function);
        let time_ns = self.event.time_ns;
        let counts = self.tracker.entries_ns.contains(&time_ns) && time_ns >= info.since_ns && !info.shed;
        self.tracker.summary.unmatched_returns += u64::from(counts);
    }

    fn pass(&mut self, lane: &mut OpenCalls, function: u32, frames: Option<&Frames<'_>>) -> io::Result<()> {
        let thread = self.thread();
        let parent = lane.calls.iter().rev().find(|open| open.depth <= self.event.depth);
        let (comm, home) = self.world.process(thread.pid);
        let point = Point {
            function,
            parent: parent.map(|open| open.call().id),
            depth: lane.calls.iter().filter(|open| open.depth <= self.event.depth).count() as u32,
            at_ns: self.event.time_ns,
            thread,
            comm,
            home,
            goroutine: (self.event.goid != 0).then_some(self.event.goid),
            origin: lane.origin.clone(),
            stack: frames.map(|frames| self.world.callers(thread.pid, *frames, true)),
        };
        if point.depth == 0 {
            let limits = self.tracker.limits;
            if limits.outermost.is_some_and(|limit| self.tracker.outermost_begun >= limit) {
                return Ok(());
            }
            self.tracker.outermost_begun += 1;
            self.tracker.outermost_ended += 1;
        }
        self.sink.point(&point)
    }

    /// Every call of the lane is over, now. `trap`: a probe told so.
    fn close_lane(&mut self, trap: Option<Trap>, end: End) -> io::Result<()> {
        self.on_lane(|step, lane| {
            match trap {
                Some(trap) => step.pay(lane, trap, None, When::First),
                None => step.pay_rest(lane),
            }
            while !lane.calls.is_empty() {
                let lost = step.is_in_doubt(lane);
                step.pop(lane, Ended { end, end_ns: Some(step.event.time_ns), ..step.ended(lost) })?;
            }
            Ok(())
        })
    }

    /// The process is over, whichever thread told so: the calls are not known to have gone to another.
    fn close_with_process(&mut self, end: End) -> io::Result<()> {
        self.on_lane(|step, lane| {
            step.pay_rest(lane);
            while let Some(top) = lane.calls.last() {
                let end_tid = top.call().thread.tid;
                let lost = step.is_in_doubt(lane);
                step.pop(lane, Ended { end, end_ns: Some(step.event.time_ns), end_tid, lost })?;
            }
            Ok(())
        })
    }

    /// The lane's stack has another use now.
    fn close_abandoned(&mut self) -> io::Result<()> {
        self.on_lane(|step, lane| {
            while !lane.calls.is_empty() {
                let lost = step.is_in_doubt(lane);
                step.pop(lane, Ended { end: End::Unwind, end_ns: None, ..step.ended(lost) })?;
            }
            Ok(())
        })
    }

    /// Calls deeper than the event are over, and their exits were not seen.
    #[inline]
    fn close_deeper(&mut self, lane: &mut OpenCalls) -> io::Result<()> {
        while lane.calls.last().is_some_and(|top| top.depth > self.event.depth) {
            let lost = self.is_in_doubt(lane);
            self.pop(lane, Ended { end: End::Unwind, end_ns: None, ..self.ended(lost) })?;
        }
        Ok(())
    }

    /// The top call is at the event's own depth, and is over.
    fn close_left(&mut self, lane: &mut OpenCalls) -> io::Result<()> {
        let Some(top) = lane.calls.last() else { return Ok(()) };
        let jumped = self.info(top.call().function).unprobed_jumps;
        let lost = self.is_in_doubt(lane);
        let (end, end_ns) = if jumped { (End::TailCall, Some(self.event.time_ns)) } else { (End::Unwind, None) };
        self.pop(lane, Ended { end, end_ns, ..self.ended(lost) })
    }

    fn ended(&self, lost: bool) -> Ended {
        Ended { end: End::Return, end_ns: None, end_tid: self.event.pid_tgid as u32, lost }
    }

    fn pop(&mut self, lane: &mut OpenCalls, ended: Ended) -> io::Result<()> {
        match lane.calls.pop() {
            Some(mut open) => {
                let (overhead_ns, took_ns) = self.overhead(&open, &ended);
                if let Some(around) = lane.calls.last_mut() {
                    around.inner_ns = around.inner_ns.saturating_add(took_ns);
                }
                self.tracker.tell(&mut open, ended, overhead_ns, self.sink)
            }
            None => Ok(()),
        }
    }

    /// Whether a record of this lane was lost since its top call began: then what looks like that call's end may be
    /// another's.
    fn is_in_doubt(&mut self, lane: &OpenCalls) -> bool {
        lane.calls.last().is_some_and(|top| {
            top.lost != self.event.lost
                && match self.lane.in_kernel() {
                    Some(lane) => {
                        self.world.last_loss(lane, self.event.lost).is_some_and(|at| at >= top.call().start_ns)
                    }
                    // A coroutine changes threads: whose loss was it?
                    None => true,
                }
        })
    }

    fn info(&self, function: u32) -> FunctionInfo {
        let none = FunctionInfo { may_repeat: false, unprobed_jumps: false, shed: false, since_ns: 0 };
        if function == NO_FUNCTION {
            return none;
        }
        self.tracker.functions.get(function as usize).copied().unwrap_or(none)
    }

    fn thread(&self) -> Thread {
        Thread { pid: (self.event.pid_tgid >> 32) as u32, tid: self.event.pid_tgid as u32 }
    }

    /// Works on the lane's calls, which are out of the tracker meanwhile.
    fn on_lane(&mut self, work: impl FnOnce(&mut Self, &mut OpenCalls) -> io::Result<()>) -> io::Result<()> {
        let place = self.tracker.lanes.place(self.lane);
        let mut lane = self.tracker.lanes.take(place);
        self.spent_ns = lane.spent_ns.as_ref().map_or(0, |spent| spent.get());
        let mut result = work(self, &mut lane);
        if !self.tracker.summary.shed.is_empty() && result.is_ok() {
            result = self.tracker.close_shed(&mut lane, self.sink);
        }
        self.tracker.lanes.put_back(place, lane);
        result
    }
}

fn point_info(point: &PlannedPoint, functions: &[PlannedFunction]) -> PointInfo {
    PointInfo { kind: point.kind, function: point.function, trap: Trap::of(point, functions), until_ns: u64::MAX }
}

#[cfg(test)]
mod left_out;
#[cfg(test)]
mod tests;
