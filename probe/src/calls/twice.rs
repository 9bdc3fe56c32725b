//! Events told twice: while links are exchanged, two see the same point.
//!
//! Until all new links are there the old ones tell everything, and from then on the new ones do. Only a trap amid which that
//! was so needs care: the kernel runs the youngest probe of a place first (Linux: `consumer_add` in
//! kernel/events/uprobes.c), so an old link's event is a repetition if the new link's, of the same point, came just before
//! it on its thread.
//!
//! It would not do to take the first of two events also before: where a function's entry is its exit, the new exit's
//! probe is there before the new entry's, and would be told before the old entry's.

use std::{collections::VecDeque, ops::RangeInclusive};

use probe_ebpf::abi::Event;
use rustc_hash::FxHashMap;

/// New links' events whose old ones may still come, for each thread: at one place begin and end at most two functions.
const AWAITED: usize = 4;

/// Links that were exchanged.
struct Exchanged {
    /// While both were there (`CLOCK_MONOTONIC`, ns).
    both_ns: RangeInclusive<u64>,
    /// From here on the new ones were complete.
    cut_ns: u64,
    /// Generation of the new ones.
    generation: u32,
}

/// Finds the repetitions.
#[derive(Default)]
pub struct Twice {
    /// In order of time; those before the events are forgotten.
    exchanges: VecDeque<Exchanged>,
    /// Points that new links told of, by thread.
    told: FxHashMap<u64, Vec<u32>>,
}

impl Twice {
    /// Links were exchanged. To be told before an event of that time is asked about.
    pub fn exchanged(&mut self, both_ns: RangeInclusive<u64>, cut_ns: u64, generation: u32) {
        self.exchanges.push_back(Exchanged { both_ns, cut_ns, generation });
    }

    /// Whether all exchanges are over: no event is told twice.
    pub fn is_over(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Whether this event, from a link of this generation, was told already.
    pub fn is_repeated(&mut self, event: &Event, generation: u32) -> bool {
        let time = event.time_ns;
        let Some(exchange) = self.exchanges.iter().find(|exchange| time <= *exchange.both_ns.end()) else {
            // All are over. Events of other threads may be a little older, by less than the trap of one.
            return false;
        };
        if !exchange.both_ns.contains(&time) {
            return false;
        }
        if time <= exchange.cut_ns {
            return generation == exchange.generation;
        }
        let told = self.told.entry(event.pid_tgid).or_default();
        if generation == exchange.generation {
            told.push(event.point);
            if told.len() > AWAITED {
                told.remove(0);
            }
            return false;
        }
        let before = told.iter().position(|point| *point == event.point);
        before.map(|at| told.remove(at)).is_some()
    }

    /// All events up to this time (`CLOCK_MONOTONIC`, ns) were asked about.
    pub fn forget(&mut self, time_ns: u64) {
        while self.exchanges.front().is_some_and(|exchange| *exchange.both_ns.end() < time_ns) {
            self.exchanges.pop_front();
            self.told.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u32 = 4;
    const EXIT: u32 = 5;

    fn event(tid: u64, point: u32, time_ns: u64) -> Event {
        Event { time_ns, pid_tgid: 7 << 32 | tid, point, ..Event::default() }
    }

    /// Links of generation 0 are exchanged for those of generation 1 between 100 and 200; at 150 these are complete.
    fn exchanging() -> Twice {
        let mut twice = Twice::default();
        twice.exchanged(100..=200, 150, 1);
        twice
    }

    #[test]
    fn what_both_links_saw_is_told_once() {
        let mut twice = exchanging();
        for (at, generation, repeated) in [(110, 1, true), (110, 0, false), (160, 1, false), (161, 0, true)] {
            assert_eq!(twice.is_repeated(&event(1, ENTRY, at), generation), repeated, "{at}");
        }
    }

    #[test]
    fn what_one_link_saw_is_told() {
        let mut twice = exchanging();
        // Before the new link was there, and after the old one was.
        for (at, generation) in [(90, 0), (110, 0), (151, 0), (155, 1), (160, 1), (210, 1)] {
            assert!(!twice.is_repeated(&event(1, ENTRY, at), generation), "{at}");
        }
    }

    #[test]
    fn threads_do_not_disturb_each_other() {
        let mut twice = exchanging();
        assert!(!twice.is_repeated(&event(1, ENTRY, 160), 1));
        assert!(!twice.is_repeated(&event(2, ENTRY, 161), 0));
        assert!(twice.is_repeated(&event(1, ENTRY, 162), 0));
    }

    #[test]
    fn an_entry_that_is_an_exit_is_told_once_as_both() {
        let mut twice = exchanging();
        let told = [(ENTRY, 1), (EXIT, 1), (ENTRY, 0), (EXIT, 0)];
        let repeated = told.map(|(point, generation)| twice.is_repeated(&event(1, point, 160), generation));
        assert_eq!(repeated, [false, false, true, true]);
    }

    #[test]
    fn a_new_exit_is_not_told_before_the_old_entry_at_its_place() {
        let mut twice = exchanging();
        // The new entry is not yet there.
        let told = [(EXIT, 1), (ENTRY, 0), (EXIT, 0)];
        let repeated = told.map(|(point, generation)| twice.is_repeated(&event(1, point, 110), generation));
        assert_eq!(repeated, [true, false, false]);
    }

    #[test]
    fn a_trap_amid_which_the_new_links_were_complete_is_told_once() {
        let mut twice = exchanging();
        assert!(twice.is_repeated(&event(1, ENTRY, 150), 1));
        assert!(!twice.is_repeated(&event(1, ENTRY, 151), 0));
    }

    #[test]
    fn a_second_exchange_has_its_own_generations() {
        let mut twice = exchanging();
        twice.exchanged(300..=400, 320, 2);
        assert!(!twice.is_repeated(&event(1, ENTRY, 350), 2));
        assert!(twice.is_repeated(&event(1, ENTRY, 350), 1));
        twice.forget(500);
        assert!(!twice.is_repeated(&event(1, ENTRY, 550), 1));
    }

    #[test]
    fn a_lost_record_hides_no_later_call() {
        let mut twice = exchanging();
        // The old link's records of these calls were lost.
        for at in 160..170 {
            assert!(!twice.is_repeated(&event(1, ENTRY, at), 1));
        }
        assert!(!twice.is_repeated(&event(1, EXIT, 180), 1));
        assert!(twice.is_repeated(&event(1, EXIT, 180), 0));
    }
}
