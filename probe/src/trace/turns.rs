//! Where the reader runs: by turns on all CPUs, when all are busy.
//!
//! A thread that sleeps and wakes many times a second wakes where it ran before, unless another CPU is idle (Linux 6.18:
//! `select_task_rq_fair` in kernel/sched/fair.c). What the target runs there would pay for all that is read: of two threads that
//! did nothing but call, on two CPUs, one had 72 % of its CPU, and the other all of it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

/// A turn is as long as this at least.
const TURN: Duration = Duration::from_millis(100);
/// The reader moves on when it had to wait for more than a hundredth of its turn: an idle CPU would have had it at once.
const WAITED: u128 = 100;
/// Without a limit to real-time threads one of them may keep a CPU for ever: -1 (Linux: Documentation/scheduler/sched-rt-group.rst).
const REAL_TIME_LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// The turns of the thread that made it.
pub(super) struct Turns {
    /// None where it stays wherever the kernel puts it.
    schedstat: Option<File>,
    since: Instant,
    waited_ns: u64,
}

impl Turns {
    pub(super) fn new() -> Self {
        let has_limit = fs::read_to_string(REAL_TIME_LIMIT).is_ok_and(|limit| !limit.starts_with('-'));
        let schedstat = File::open("/proc/thread-self/schedstat").ok().filter(|_| has_limit);
        let waited_ns = schedstat.as_ref().and_then(waited_ns).unwrap_or(0);
        Self { schedstat, since: Instant::now(), waited_ns }
    }

    /// Moves on, if it is time.
    pub(super) fn look(&mut self, now: Instant) {
        let turn = now - self.since;
        if turn < TURN {
            return;
        }
        let Some(waited_ns) = self.schedstat.as_ref().and_then(waited_ns) else { return };
        let waited = waited_ns.saturating_sub(self.waited_ns);
        (self.since, self.waited_ns) = (now, waited_ns);
        if u128::from(waited) * WAITED > turn.as_nanos()
            && let Err(error) = move_on()
        {
            log::debug!("the reader stays on its CPU: {error}");
            self.schedstat = None;
        }
    }
}

/// How long the thread was ready to run, and did not: ns (Linux: Documentation/scheduler/sched-stats.rst).
fn waited_ns(schedstat: &File) -> Option<u64> {
    let mut text = [0; 64];
    let length = schedstat.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.split(' ').nth(1)?.parse().ok()
}

/// To another of the CPUs that the thread may run on. It may run on all of them afterwards, too.
fn move_on() -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut others = allowed;
    others.unset(sched_getcpu());
    if others.count() > 0 {
        sched_setaffinity(None, &others)?;
        sched_setaffinity(None, &allowed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn who_moves_on_is_elsewhere_and_may_run_wherever_it_might() {
        let allowed = sched_getaffinity(None).expect("our own");
        assert!(allowed.count() > 1, "this is a test for machines with two CPUs and more");
        let moved = || {
            let before = sched_getcpu();
            move_on().expect("it may");
            sched_getcpu() != before
        };
        // The kernel may put it back at once.
        assert!((0..20).any(|_| moved()));
        assert!(sched_getaffinity(None).expect("our own") == allowed);
    }

    /// How often it moves on, of so many turns. What else moves a thread seldom does just then.
    fn moves(turns: usize, mut turn: impl FnMut() -> Turns) -> usize {
        let has_moved = |mut turns: Turns| {
            let before = sched_getcpu();
            turns.look(turns.since + TURN);
            sched_getcpu() != before
        };
        (0..turns).filter(|_| has_moved(turn())).count()
    }

    #[test]
    fn the_reader_moves_on_from_where_others_kept_it_waiting_and_only_then() {
        let done = AtomicBool::new(false);
        let busy = || {
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        thread::scope(|scope| {
            for _ in 0..2 * thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(busy);
            }
            let waiting = moves(10, || {
                let (turns, start) = (Turns::new(), Instant::now());
                while start.elapsed() < TURN {}
                turns
            });
            let not_waiting = moves(10, || Turns { waited_ns: u64::MAX, ..Turns::new() });
            let stays = moves(10, || Turns { schedstat: None, waited_ns: 0, ..Turns::new() });
            done.store(true, Ordering::Relaxed);
            assert!(waiting > 5 && not_waiting < 5 && stays < 5, "{waiting}, {not_waiting}, {stays} of 10");
        });
    }
}
