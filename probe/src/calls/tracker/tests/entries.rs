//! Where exits are not watched: a lane's next call is made from the one before.

use super::*;

/// A process of which something becomes known, or cannot be known.
struct Named {
    name: &'static str,
    changes: Option<u64>,
}

impl World for Named {
    fn process(&mut self, _: u32) -> (Rc<str>, Rc<Home>) {
        (self.name.into(), Rc::default())
    }

    fn changes(&self) -> Option<u64> {
        self.changes
    }

    fn callers(&mut self, pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack> {
        OneLoss.callers(pid, frames, at_point)
    }

    fn last_loss(&mut self, _: Lane, _: u32) -> Option<u64> {
        None
    }
}

/// Who called.
#[derive(Default)]
struct Callers(Vec<String>);

impl Sink for Callers {
    fn begin(&mut self, _: &TraceInfo) -> io::Result<()> {
        Ok(())
    }
    fn enter(&mut self, _: &Enter) -> io::Result<()> {
        Ok(())
    }
    fn leave(&mut self, l: &Leave) -> io::Result<()> {
        let Enter { id, function, start_ns, thread, comm, goroutine, stack, .. } = &l.call;
        let tid = (thread.tid == l.end_tid).then_some(thread.tid);
        let frames = stack.as_ref().map_or(0, |stack| stack.frames.len());
        self.0.push(format!("{id}: {function} at {start_ns} by {comm} {tid:?} {goroutine:?} from {frames}"));
        Ok(())
    }
    fn point(&mut self, _: &Point) -> io::Result<()> {
        Ok(())
    }
    fn grown(&mut self, _: &TraceInfo, _: &NewFile) -> io::Result<()> {
        Ok(())
    }
    fn shed(&mut self, _: &Shed) -> io::Result<()> {
        Ok(())
    }
    fn tick(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn end(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }
}

struct Entries {
    tracker: Tracker,
    world: Named,
    told: Callers,
}

fn entries(outermost: Option<u64>) -> Entries {
    let tracker = tracker(Limits { entries_only: true, outermost });
    Entries { tracker, world: Named { name: "old", changes: Some(1) }, told: Callers::default() }
}

impl Entries {
    fn enter(&mut self, time_ns: u64, (goid, tid): (u64, u64), function: u32, callers: &[u8]) -> &mut Self {
        let event = Event { time_ns, depth: 100, goid, pid_tgid: 1 << 32 | tid, point: entry(function), lost: 0 };
        let frames = (!callers.is_empty()).then(|| Frames::from_bytes(callers, WALK_END));
        let record = Record { event, generation: 0, origin: None, frames };
        self.tracker.record(&record, &mut self.world, &mut self.told).expect("made-up sinks do not fail");
        self
    }

    fn tell(&self, expected: &[&str]) {
        assert_eq!(self.told.0, expected);
    }
}

#[test]
fn each_entry_has_its_own_number_function_and_time() {
    let mut e = entries(None);
    e.enter(10, (0, 1), F, &[]).enter(20, (0, 1), G, &[]).enter(30, (0, 2), F, &[]).enter(40, (0, 1), F, &[]);
    e.tell(&[
        "1: 0 at 10 by old Some(1) None from 0",
        "2: 1 at 20 by old Some(1) None from 0",
        "3: 0 at 30 by old Some(2) None from 0",
        "4: 0 at 40 by old Some(1) None from 0",
    ]);
}

#[test]
fn a_process_that_changes_its_name_has_the_new_one_from_then_on() {
    let mut e = entries(None);
    e.enter(10, (0, 1), F, &[]);
    e.world = Named { name: "new", changes: Some(2) };
    e.enter(20, (0, 1), F, &[]);
    // Not known for good: it is asked for again.
    e.world = Named { name: "?", changes: None };
    e.enter(30, (0, 1), F, &[]);
    e.world.name = "found";
    e.enter(40, (0, 1), F, &[]);
    e.tell(&[
        "1: 0 at 10 by old Some(1) None from 0",
        "2: 0 at 20 by new Some(1) None from 0",
        "3: 0 at 30 by ? Some(1) None from 0",
        "4: 0 at 40 by found Some(1) None from 0",
    ]);
}

#[test]
fn a_goroutine_that_moves_is_told_on_the_thread_that_it_is_on() {
    let mut e = entries(None);
    e.enter(10, (7, 1), F, &[]).enter(20, (7, 2), F, &[]).enter(30, (8, 2), F, &[]).enter(40, (7, 2), F, &[]);
    e.tell(&[
        "1: 0 at 10 by old Some(1) Some(7) from 0",
        "2: 0 at 20 by old Some(2) Some(7) from 0",
        "3: 0 at 30 by old Some(2) Some(8) from 0",
        "4: 0 at 40 by old Some(2) Some(7) from 0",
    ]);
}

#[test]
fn callers_are_those_of_the_call_itself() {
    let mut e = entries(None);
    let callers = [0xabc_u64, 0xdef].map(u64::to_ne_bytes).concat();
    e.enter(10, (0, 1), F, &[]).enter(20, (0, 1), F, &callers).enter(30, (0, 1), F, &callers[..8]);
    e.enter(40, (0, 1), F, &[]);
    e.tell(&[
        "1: 0 at 10 by old Some(1) None from 0",
        "2: 0 at 20 by old Some(1) None from 2",
        "3: 0 at 30 by old Some(1) None from 1",
        "4: 0 at 40 by old Some(1) None from 0",
    ]);
}

#[test]
fn beyond_the_limit_nothing_is_told() {
    let mut e = entries(Some(2));
    for at in 1..5 {
        e.enter(at, (0, 1), F, &[]);
    }
    e.tell(&["1: 0 at 1 by old Some(1) None from 0", "2: 0 at 2 by old Some(1) None from 0"]);
    assert!(e.tracker.is_done());
}
