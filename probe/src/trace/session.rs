//! A running trace: reads records as they come, and knows when to end.

mod growing;

use std::{
    io, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use probe_ebpf::abi::{Event, POINT_EXEC, POINT_KERNEL_STACK, POINT_PROCESS_EXIT, POINT_RESERVED, exec_numbers};

use super::{
    arrivals::Arrivals,
    inside::Inside,
    kernel::KernelStacks,
    shedding::Shedding,
    signals::{INTERRUPTED, Signals},
    turns::Turns,
    world::Live,
};
use crate::{
    attach::{Attachment, monotonic_ns, recorder::Recorder},
    calls::{Shed, Summary, TraceInfo, overhead::Costs, tracker::Tracker},
    events::{self, Record},
    output::{self, Notes, Sink, talk},
    plan::{NO_FUNCTION, Plan, PointKind},
    request::Trace,
    target::{
        self, TracedFile, WATCH_INTERVAL,
        command::{Running, Waiting},
        modules::Modules,
        processes::{Change, Processes},
    },
};

/// Records worked on before anything else is looked at.
const BATCH: usize = 4096;
/// Records after which the recorder of mappings is read, also if it has told of all before them.
const RECORDER_AFTER: usize = 512;
/// The reader's shortest and longest sleep when it has read all: a full buffer takes far longer to fill. It does not look at
/// once for what came meanwhile: to read few records costs as much as many, and takes them out of the writers' caches.
const SLEEP: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(8);
/// How often sinks hear of the time.
const TICK: Duration = Duration::from_millis(100);

/// Why a trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Ctrl-C, `--limit`, `--duration`.
    Asked,
    /// The traced processes did, or the command.
    Target,
    /// Nothing is attached any more.
    Detached,
}

/// What a trace is made from.
pub(super) struct Sources {
    /// The containers that are traced, if it is these.
    pub(super) inside: Option<Inside>,
    pub(super) attachment: Attachment,
    /// Found too hot before anything was attached.
    pub(super) shed: Vec<Shed>,
    pub(super) recorder: Recorder,
    pub(super) signals: Signals,
    pub(super) clocks: Clocks,
    pub(super) processes: Processes,
    /// Where the kernel's frames are asked for.
    pub(super) kernel: Option<KernelStacks>,
    /// What is to be subtracted from durations.
    pub(super) costs: Option<Costs>,
    /// What finds files that come later.
    pub(super) arrivals: Arrivals,
}

/// A running trace.
pub(super) struct Session<'a> {
    request: &'a Trace,
    info: TraceInfo,
    plan: Plan,
    files: Vec<TracedFile>,
    inside: Option<Inside>,
    attachment: Attachment,
    recorder: Recorder,
    signals: Signals,
    sink: Box<dyn Sink>,
    tracker: Tracker,
    shedding: Option<Shedding>,
    world: Live,
    notes: Notes,
    /// Mapping records are applied up to here (`CLOCK_MONOTONIC`, ns).
    horizon_ns: u64,
    /// While all probes were in place (`CLOCK_MONOTONIC`, ns).
    attached_ns: u64,
    detached_ns: u64,
    /// Of each file.
    states: Vec<growing::FileState>,
    arrivals: Arrivals,
    /// The recorder's numbers of processes are those of events; else what it has is of no use.
    has_records: bool,
    /// When it was looked at what traced processes have mapped, and are called, where that is not recorded.
    looked_around: Instant,
    /// Processes that have given themselves new names.
    renamed: Vec<u32>,
    /// Processes that got the name which is traced when there was no room for more.
    no_room_for: u64,
    remarks: Vec<String>,
    /// That the probes are gone.
    has_told_of_loss: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        request: &'a Trace,
        plan: Plan,
        files: Vec<TracedFile>,
        sources: Sources,
        sink: Box<dyn Sink>,
    ) -> Result<Self> {
        let Sources { inside, mut attachment, shed, recorder, signals, clocks, processes, kernel, costs, arrivals } =
            sources;
        let world = Live::new(processes, Modules::default(), attachment.losses()?, kernel, request.stack_depth);
        let mut tracker = Tracker::new(&plan.points, &plan.functions, super::limits(request));
        // Before their ends were watched.
        attachment.forget_ended();
        let attached_ns = monotonic_ns();
        tracker.entries_begin(attached_ns);
        tracker.shed(&shed);
        let shedding = request.budget.map(|limit| Shedding::new(&attachment, &plan, limit.get())).transpose()?;
        let subtracted = costs.as_ref().map(|costs| costs.told(&plan.points, &plan.functions));
        if let Some(costs) = costs {
            tracker.subtract(costs);
        }
        let info = TraceInfo { subtracted, ..info(&plan, clocks) };
        let mut session = Self {
            notes: request.output.notes.clone(),
            states: files.iter().map(growing::FileState::of).collect(),
            arrivals,
            has_records: target::proc::has_machines_records(),
            looked_around: Instant::now(),
            renamed: Vec::new(),
            no_room_for: 0,
            request,
            info,
            plan,
            files,
            inside,
            attachment,
            recorder,
            signals,
            sink,
            tracker,
            shedding,
            world,
            horizon_ns: 0,
            attached_ns,
            detached_ns: u64::MAX,
            remarks: Vec::new(),
            has_told_of_loss: false,
        };
        for number in 0..session.files.len() {
            session.know_file(number);
        }
        // Since these were read, and before mappings were recorded.
        session.arrivals.look_anew();
        Ok(session)
    }

    /// Starts the command, reads until the end, tells the summary; the exit status.
    pub(super) fn run(mut self, waiting: Option<Waiting>) -> Result<u8> {
        if self.signals.any()
            && let Some(waiting) = waiting
        {
            waiting.cancel();
            return Ok(INTERRUPTED);
        }
        let begun = self.sink.begin(&self.info);
        // Attaching may have taken seconds: what the command maps finds room.
        self.read_mapped();
        let mut command = match waiting.map(Waiting::start).transpose() {
            Ok(command) => command,
            Err(not_started) => {
                talk::say(not_started.message);
                return Ok(not_started.status);
            }
        };
        let mut status = None;
        let read = begun.and_then(|()| self.read(command.as_mut(), &mut status));
        let result = self.close(read);
        let Some(mut command) = command else { return result.map(|()| 0) };
        // The command may run on for days: what went wrong is said now.
        if let Err(error) = &result {
            talk::say_error(error);
        }
        let status = status.unwrap_or_else(|| self.wait(&mut command));
        Ok(if result.is_ok() { status } else { crate::FAILED })
    }

    /// Until the trace is to end.
    fn read(&mut self, mut command: Option<&mut Running>, status: &mut Option<u8>) -> io::Result<Ended> {
        let started = Instant::now();
        let (mut ticked, mut watched) = (started, started);
        let mut turns = Turns::new();
        let mut sleep = *SLEEP.start();
        loop {
            let records = self.read_batch()?;
            let has_caught_up = records.max(self.attachment.rings().new_ones()) < BATCH;
            let now = Instant::now();
            if self.signals.enough() || self.tracker.is_done() {
                return Ok(Ended::Asked);
            }
            if let Some(shedding) = &mut self.shedding
                && shedding.is_due(now)
                && let Err(error) =
                    shedding.shed(&mut self.attachment, &self.plan, &self.files, &mut self.tracker, || {
                        self.states.iter().zip(&self.files).any(|(state, file)| state.is_spoilt(file))
                    })
            {
                talk::say_error(&error);
                return Ok(Ended::Detached);
            }
            if now - watched >= WATCH_INTERVAL {
                watched = now;
                if let Some(ended) = self.watch(started, command.as_deref_mut(), status) {
                    return Ok(ended);
                }
                if let Some(ended) = self.watch_files(has_caught_up)? {
                    return Ok(ended);
                }
            }
            turns.look(now);
            if now - ticked >= TICK {
                ticked = now;
                self.sink.tick(self.attachment.rings().complete_ns())?;
            }
            if has_caught_up {
                sleep = if records > 0 { *SLEEP.start() } else { (sleep * 2).min(*SLEEP.end()) };
                if self.recorder.wait(sleep) {
                    self.read_mapped();
                }
            }
        }
    }

    /// Takes in what was mapped until now; when that was (`CLOCK_MONOTONIC`, ns).
    fn read_mapped(&mut self) -> u64 {
        self.horizon_ns = monotonic_ns();
        let Self { recorder, world, arrivals, renamed, remarks, .. } = self;
        read_recorder(recorder, self.has_records, world, arrivals, renamed, remarks);
        self.horizon_ns
    }

    /// Works on up to [`BATCH`] records; how many there were.
    fn read_batch(&mut self) -> io::Result<usize> {
        let mut count = 0;
        self.attachment.rings().look();
        while count < BATCH {
            let Some(bytes) = self.attachment.rings().next() else { break };
            count += 1;
            // Not moved out: with what may stand in it, it is large.
            let decoded = events::decode(bytes);
            let Some(record) = &decoded else { continue };
            let time_ns = record.event.time_ns;
            // What was mapped before this event was recorded before it. While there are many events, the recorder's buffers fill.
            if time_ns > self.horizon_ns || count % RECORDER_AFTER == 0 {
                self.horizon_ns = monotonic_ns();
                let Self { recorder, world, arrivals, renamed, remarks, .. } = self;
                read_recorder(recorder, self.has_records, world, arrivals, renamed, remarks);
            }
            self.world.processes.advance(time_ns);
            if record.event.point == POINT_KERNEL_STACK {
                self.world.kernel_frames(record);
                continue;
            }
            if record.event.point >= POINT_RESERVED {
                let event = record.event;
                self.lifecycle(event)?;
                continue;
            }
            if self.shedding.as_mut().is_some_and(|shedding| shedding.is_repeated(record)) {
                continue;
            }
            self.world.begin(&record.event);
            self.tracker.record(record, &mut self.world, self.sink.as_mut())?;
        }
        Ok(count)
    }

    /// A thread or process ended, or executed another program; or made a stack.
    fn lifecycle(&mut self, event: Event) -> io::Result<()> {
        let event = if event.point == POINT_EXEC { self.executed(event) } else { event };
        if matches!(event.point, POINT_PROCESS_EXIT | POINT_EXEC)
            && let Some(deferred) = self.attachment.deferred()
        {
            let is_gone = event.point == POINT_PROCESS_EXIT;
            let held = deferred.take_held(Some((event.pid_tgid >> 32) as u32), event.time_ns, is_gone);
            self.tell(held)?;
        }
        self.tell([event])?;
        if event.point == POINT_PROCESS_EXIT && !self.has_records {
            self.world.processes.is_another((event.pid_tgid >> 32) as u32);
        }
        Ok(())
    }

    /// What is known of a process when it executes a program.
    fn executed(&mut self, event: Event) -> Event {
        if !self.has_records {
            self.world.processes.is_another((event.pid_tgid >> 32) as u32);
        }
        let (number, group) = exec_numbers(event.depth);
        self.world.processes.is_inside((event.pid_tgid >> 32) as u32, number, group);
        Event { depth: 0, ..event }
    }

    /// Tells of events without callers, as the kernel half makes them.
    fn tell(&mut self, events: impl IntoIterator<Item = Event>) -> io::Result<()> {
        for event in events {
            let record = Record::of(event);
            if !self.shedding.as_mut().is_some_and(|shedding| shedding.is_repeated(&record)) {
                self.tracker.record(&record, &mut self.world, self.sink.as_mut())?;
            }
        }
        Ok(())
    }

    /// Looks at everything that is not an event: whether the trace is to end.
    fn watch(&mut self, started: Instant, command: Option<&mut Running>, status: &mut Option<u8>) -> Option<Ended> {
        if self.request.duration_ns.is_some_and(|limit| started.elapsed() >= Duration::from_nanos(limit)) {
            return Some(Ended::Asked);
        }
        if let Some(command) = command {
            *status = command.poll();
            if status.is_some() {
                return Some(Ended::Target);
            }
        } else if self.attachment.traced_processes_ended() {
            return Some(Ended::Target);
        }
        if self.has_lost_its_probes() {
            return Some(Ended::Detached);
        }
        if let Some(inside) = &mut self.inside
            && inside.look(&mut self.attachment, &mut self.files)
        {
            self.world.processes.live_in(inside.names());
        }
        None
    }

    /// Whether the probes are gone, though nobody removed them: says so, once.
    fn has_lost_its_probes(&mut self) -> bool {
        if !self.has_told_of_loss
            && let Some(how) = self.attachment.lost_its_probes()
        {
            self.has_told_of_loss = true;
            talk::say(format_args!("the process that held the probes {how}: they are gone"));
        }
        self.has_told_of_loss
    }

    /// Removes the probes, reads what is left, and tells the end.
    fn close(&mut self, read: io::Result<Ended>) -> Result<()> {
        self.detached_ns = monotonic_ns();
        self.tracker.entries_end(self.detached_ns);
        self.attachment.detach();
        let outcome = read.and_then(|ended| {
            let ended = if self.has_lost_its_probes() { Ended::Detached } else { ended };
            while !self.tracker.is_done() && self.read_batch()? > 0 {}
            Ok(ended)
        });
        let outcome = outcome.and_then(|ended| self.tell_end().map(|()| ended));
        match outcome {
            Ok(Ended::Detached) => anyhow::bail!("the trace ended early"),
            Ok(Ended::Asked | Ended::Target) => Ok(()),
            // Nobody reads the output any more: no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error).context(match &self.request.output_file {
                Some(path) => format!("failed to write {}", path.display()),
                None => "failed to write the trace".to_owned(),
            }),
        }
    }

    fn tell_end(&mut self) -> io::Result<()> {
        if let Some(deferred) = self.attachment.deferred() {
            let held = deferred.take_held(None, u64::MAX, true);
            self.tracker.left_out(&deferred.left_out(self.plan.points.len()), deferred.outermost_left_out());
            self.tell(held)?;
        }
        let mut summary = self.tracker.finish(self.sink.as_mut())?;
        self.complete(&mut summary);
        self.sink.end(&summary)?;
        let _ = output::summary::write(
            &mut io::stderr().lock(),
            &self.info,
            &summary,
            &self.notes.take(),
            self.request.quiet,
        );
        Ok(())
    }

    /// Adds what the tracker does not know.
    fn complete(&mut self, summary: &mut Summary) {
        summary.duration_ns = self.detached_ns.saturating_sub(self.attached_ns);
        if summary.events == 0 && summary.lost() == 0 {
            summary.notes.push(self.nothing_seen());
        }
        for (point, lost) in self.world.losses.by_point(self.plan.points.len()) {
            let Some(point) = self.plan.points.get(point as usize) else { continue };
            if point.function == NO_FUNCTION {
                continue;
            }
            let into = match point.kind {
                PointKind::Entry | PointKind::Passed => &mut summary.lost_entries,
                _ => &mut summary.lost_exits,
            };
            match into.iter_mut().find(|(function, _)| *function == point.function) {
                Some((_, sum)) => *sum += lost,
                None => into.push((point.function, lost)),
            }
        }
        let of_points = summary.lost();
        if self.world.losses.total() > of_points {
            let others = self.world.losses.total() - of_points;
            summary.notes.push(format!("{others} records of ended threads and processes, and of unwinding, were lost"));
        }
        let not_traced = self.attachment.not_traced() + self.no_room_for;
        if not_traced > 0 {
            summary.notes.push(format!("{not_traced} processes were not traced: at most 65,536 are at once"));
        }
        summary.notes.append(&mut self.remarks);
    }

    /// What to look at when no event came.
    fn nothing_seen(&self) -> String {
        if self.plan.traced_files().next().is_none() {
            return "nothing was called: no traced process loaded what was awaited".to_owned();
        }
        format!(
            "nothing was called: did the traced processes run {}? (/proc/PID/maps shows what a process runs)",
            self.plan.traced_files().map(output::escape::escaped).collect::<Vec<_>>().join(" or ")
        )
    }

    /// The trace is over, the command goes on.
    fn wait(&self, command: &mut Running) -> u8 {
        loop {
            if let Some(status) = command.poll() {
                return status;
            }
            if self.signals.enough() {
                return INTERRUPTED;
            }
            thread::sleep(WATCH_INTERVAL);
        }
    }
}

/// Takes in what was mapped until now.
fn read_recorder(
    recorder: &mut Recorder,
    has_records: bool,
    world: &mut Live,
    arrivals: &mut Arrivals,
    renamed: &mut Vec<u32>,
    remarks: &mut Vec<String>,
) {
    let recorded = recorder.drain();
    if !has_records {
        return;
    }
    world.processes.record(recorded.inspect(|recorded| match &recorded.change {
        Change::Map(mapping) => arrivals.mapped(recorded.pid, mapping),
        Change::Name { exec: false, .. } => renamed.push(recorded.pid),
        _ => {}
    }));
    if recorder.take_lost() > 0 {
        world.processes.reseed_all();
        arrivals.look_anew();
        let remark = "records of mappings were lost: some callers may have no names";
        if !remarks.iter().any(|known| known == remark) {
            remarks.push(remark.to_owned());
        }
    }
}

/// The same moment on two clocks, before the first event.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    monotonic_ns: u64,
    epoch_ns: u64,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { monotonic_ns: monotonic_ns(), epoch_ns: u64::try_from(epoch.as_nanos()).unwrap_or(0) }
    }
}

fn info(plan: &Plan, clocks: Clocks) -> TraceInfo {
    TraceInfo {
        epoch_ns: clocks.epoch_ns,
        origin_ns: clocks.monotonic_ns,
        matched: plan.matched,
        functions: plan.functions.iter().map(|f| f.traced.clone()).collect(),
        skipped: plan.skipped.clone(),
        subtracted: None,
    }
}
