//! The kernel's frames below a call (`--kernel-stack`).
//!
//! In: the kernel half's records of them, each before the record of the event that it belongs to. Out: named frames, each stack
//! of them made once: there are hardly more than there are ways into a probe.

use std::rc::Rc;

use probe_ebpf::abi::{Event, position};
use rustc_hash::FxHashMap;

use crate::{
    attach::rights,
    calls::{Frame, KernelFrames},
    events::Record,
    output::talk,
    target::kallsyms::{Kallsyms, KernelFunction},
};

/// Stacks, and threads whose next event is awaited, remembered at most.
const MOST: usize = 65_536;

/// What is known of the kernel's stacks.
pub(super) struct KernelStacks {
    names: Kallsyms,
    /// By addresses.
    known: FxHashMap<Box<[u8]>, KernelFrames>,
    /// Of the thread's next event, by thread.
    waiting: FxHashMap<u64, Waiting>,
}

/// The event that a stack belongs to.
struct Waiting {
    point: u32,
    depth: u64,
    frames: KernelFrames,
}

impl KernelStacks {
    /// To be made while we have all rights: names are shown to who has them.
    pub(super) fn new() -> Self {
        let names = Kallsyms::open();
        if names.as_ref().map_or(true, Kallsyms::is_hidden) {
            talk::say(format_args!("{}", rights::why_kernel_has_no_names()));
        }
        Self {
            names: names.unwrap_or_else(|_| Kallsyms::none()),
            known: FxHashMap::default(),
            waiting: FxHashMap::default(),
        }
    }

    /// A record of frames came.
    pub(super) fn take(&mut self, record: &Record<'_>) {
        let Event { pid_tgid, depth, goid, .. } = record.event;
        let addresses = record.frames.as_ref().map_or(&[][..], |frames| frames.key());
        let frames = match self.known.get(addresses) {
            Some(known) => known.clone(),
            None => self.named(addresses),
        };
        if self.waiting.len() >= MOST {
            self.waiting.clear();
        }
        self.waiting.insert(pid_tgid, Waiting { point: position(goid as u32), depth, frames });
    }

    /// The frames that were told of for this event.
    pub(super) fn of(&mut self, event: &Event) -> Option<KernelFrames> {
        let waiting = self.waiting.get(&event.pid_tgid)?;
        // Of an event that two links told, one is passed over.
        let is_its_own = waiting.point == event.point && waiting.depth == event.depth;
        is_its_own.then(|| self.waiting.remove(&event.pid_tgid)).flatten().map(|waiting| waiting.frames)
    }

    fn named(&mut self, addresses: &[u8]) -> KernelFrames {
        let words = addresses.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes));
        let names = &mut self.names;
        // Behind the first each is where a call returns to.
        let frames: KernelFrames =
            words.enumerate().map(|(at, ip)| frame(names.name(ip - u64::from(at > 0 && ip > 0)), ip)).collect();
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(addresses.into(), frames.clone());
        frames
    }
}

fn frame(found: Option<&KernelFunction>, ip: u64) -> Rc<Frame> {
    Rc::new(Frame {
        function: found.map(|found| found.name.to_string()),
        file: None,
        line: None,
        binary: Some(found.map_or("[kernel]", |found| &*found.module).to_owned()),
        address: None,
        ip,
        inlined: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Frames;

    fn record<'a>(pid_tgid: u64, point: u32, depth: u64, addresses: &'a [u8]) -> Record<'a> {
        let event = Event { pid_tgid, depth, goid: point.into(), ..Event::default() };
        Record { frames: Some(Frames::from_bytes(addresses, 0)), ..Record::of(event) }
    }

    #[test]
    fn frames_belong_to_the_threads_next_event_at_that_point_and_depth_and_to_no_other() {
        let mut stacks =
            KernelStacks { names: Kallsyms::none(), known: FxHashMap::default(), waiting: FxHashMap::default() };
        let words = [0xffff_ffff_8100_0010_u64, 0xffff_ffff_8100_0020].map(u64::to_ne_bytes).concat();
        let of_generation_3 = 5 | 3 << probe_ebpf::abi::POINT_BITS;
        stacks.take(&record(7, of_generation_3, 100, &words));
        let event = |pid_tgid, point, depth| Event { pid_tgid, point, depth, ..Event::default() };
        for other in [event(8, 5, 100), event(7, 6, 100), event(7, 5, 101)] {
            assert_eq!(stacks.of(&other), None);
        }
        let frames = stacks.of(&event(7, 5, 100)).expect("its own");
        assert_eq!(
            frames.iter().map(|frame| frame.ip).collect::<Vec<_>>(),
            [0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020]
        );
        assert_eq!(stacks.of(&event(7, 5, 100)), None, "only once");
    }
}
