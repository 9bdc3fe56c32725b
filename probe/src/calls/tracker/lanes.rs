//! Lanes: whose calls nest in each other. A goroutine, the stack of a coroutine, else a thread.

use std::collections::BTreeMap;

use probe_ebpf::abi::{DEPTH_ALTERNATE, Event, Lane, thread_sp};
use rustc_hash::FxHashMap;

use super::OpenCalls;

/// What names a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneKey {
    /// `tgid << 32 | tid`; the lower half is 0 of goroutines and coroutines, which change threads.
    thread: u64,
    /// Goroutine id, or 0.
    goid: u64,
    /// Lowest address of a coroutine's stack, or 0.
    stack: u64,
}

impl LaneKey {
    pub(super) fn thread(pid_tgid: u64) -> Self {
        Self { thread: pid_tgid, goid: 0, stack: 0 }
    }

    /// The lane as the kernel half knows it; none of a coroutine.
    pub(super) fn in_kernel(self) -> Option<Lane> {
        (self.stack == 0).then_some(Lane { thread: self.thread, goid: self.goid })
    }
}

fn process(pid_tgid: u64) -> u64 {
    pid_tgid & !0xffff_ffff
}

/// Lanes that are kept without a look at whether they are empty.
pub(super) const MANY_LANES: usize = 4096;

/// Coroutines' stacks that are known at once, in one process. A program with more makes and drops them without end.
pub(super) const MAX_STACKS: usize = 1 << 16;

/// The lanes, and each one's open calls.
pub(super) struct Lanes {
    /// Where in `open` a lane's calls are. Empty ones stay until there are many: most call again soon.
    places: FxHashMap<LaneKey, usize>,
    /// None while they are worked on, and before there were any.
    open: Vec<Option<Box<OpenCalls>>>,
    /// Places in `open` that no lane has.
    spare: Vec<usize>,
    /// Lanes at which empty ones are let go.
    sweep_at: usize,
    /// Stacks of coroutines, by process: lowest address, and the address after the last.
    stacks: FxHashMap<u32, BTreeMap<u64, u64>>,
    /// Of those, given up for want of room.
    pub(super) forgotten: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            open: Vec::new(),
            spare: Vec::new(),
            sweep_at: MANY_LANES,
            stacks: FxHashMap::default(),
            forgotten: 0,
        }
    }
}

impl Lanes {
    /// Whose event it is.
    pub(super) fn lane_of(&self, event: &Event) -> LaneKey {
        if event.goid != 0 {
            return LaneKey { thread: process(event.pid_tgid), goid: event.goid, stack: 0 };
        }
        match if self.stacks.is_empty() { None } else { self.stack_of(event) } {
            Some(stack) => LaneKey { thread: process(event.pid_tgid), goid: 0, stack },
            None => LaneKey::thread(event.pid_tgid),
        }
    }

    /// The coroutine's stack that it runs on.
    fn stack_of(&self, event: &Event) -> Option<u64> {
        if event.depth & DEPTH_ALTERNATE != 0 {
            return None;
        }
        let stacks = self.stacks.get(&((event.pid_tgid >> 32) as u32))?;
        let sp = thread_sp(event.depth);
        // An empty stack's pointer is behind its last byte.
        stacks.range(..sp).next_back().filter(|&(_, &end)| sp <= end).map(|(&lowest, _)| lowest)
    }

    /// A process made a stack of so many bytes. Out: the lanes whose stacks it replaces.
    pub(super) fn add_stack(&mut self, pid: u32, lowest: u64, bytes: u64) -> Vec<LaneKey> {
        let stacks = self.stacks.entry(pid).or_default();
        let end = lowest.saturating_add(bytes);
        let mut replaced = Vec::new();
        while let Some((&old, _)) = stacks.range(..end).next_back().filter(|&(_, &old_end)| old_end > lowest) {
            stacks.remove(&old);
            replaced.push(LaneKey { thread: u64::from(pid) << 32, goid: 0, stack: old });
        }
        if stacks.len() >= MAX_STACKS {
            // Which of them is still in use is not known. Calls on it are taken for the thread's from now on.
            stacks.pop_first();
            self.forgotten += 1;
        }
        stacks.insert(lowest, end);
        replaced.retain(|key| self.places.contains_key(key));
        replaced
    }

    /// The process has another address space, or none.
    pub(super) fn forget_stacks(&mut self, pid: u32) {
        self.stacks.remove(&pid);
    }

    /// Whether the lane ever had calls.
    pub(super) fn knows(&self, key: LaneKey) -> bool {
        self.places.contains_key(&key)
    }

    /// A lane's calls, if it ever had some.
    pub(super) fn known(&mut self, key: LaneKey) -> Option<&mut OpenCalls> {
        self.places.get(&key).and_then(|&place| self.open[place].as_deref_mut())
    }

    /// The place of a lane's calls.
    pub(super) fn place(&mut self, key: LaneKey) -> usize {
        if let Some(&place) = self.places.get(&key) {
            return place;
        }
        if self.places.len() >= self.sweep_at {
            self.sweep();
        }
        let place = self.spare.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.places.insert(key, place);
        place
    }

    /// So many places are there, with lanes or without.
    pub(super) fn places(&self) -> usize {
        self.open.len()
    }

    /// The calls at a place.
    pub(super) fn at(&mut self, place: usize) -> &mut OpenCalls {
        self.open[place].get_or_insert_default()
    }

    /// The calls at a place, to be put back once the event is worked on.
    pub(super) fn take(&mut self, place: usize) -> Box<OpenCalls> {
        self.open[place].take().unwrap_or_default()
    }

    /// See [`Self::take`].
    pub(super) fn put_back(&mut self, place: usize, calls: Box<OpenCalls>) {
        self.open[place] = Some(calls);
    }

    /// All lanes, in an order that does not depend on chance.
    pub(super) fn keys(&self) -> Vec<LaneKey> {
        let mut keys: Vec<LaneKey> = self.places.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// The lanes of one process.
    pub(super) fn of_process(&self, pid: u32) -> Vec<LaneKey> {
        let mut keys = self.keys();
        keys.retain(|key| key.thread >> 32 == u64::from(pid));
        keys
    }

    /// Lets go of empty lanes: goroutines end without a word.
    fn sweep(&mut self) {
        let (open, spare) = (&mut self.open, &mut self.spare);
        self.places.retain(|_, &mut place| {
            let calls = open[place].get_or_insert_default();
            let empty = calls.calls.is_empty();
            if empty {
                calls.has_another_use();
                spare.push(place);
            }
            !empty
        });
        self.sweep_at = self.places.len() * 2 + MANY_LANES;
    }

    /// Lets go of an empty lane.
    pub(super) fn forget(&mut self, key: LaneKey) {
        if let Some(place) = self.places.remove(&key) {
            self.at(place).has_another_use();
            self.spare.push(place);
        }
    }
}
