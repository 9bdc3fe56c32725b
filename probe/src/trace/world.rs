//! What the tracker asks of the world: names of processes and of callers, and what was lost.

use std::{
    hash::{Hash as _, Hasher as _},
    rc::Rc,
};

use probe_ebpf::abi::{Lane, WALK_DEPTH, WALK_END};
use rustc_hash::{FxHashMap, FxHasher};
use symbols::addr::{ReturnAddr, RuntimeAddr};

use crate::{
    attach::losses::Losses,
    calls::{CallerStack, Cut, tracker::World},
    events::Frames,
    target::{
        modules::{self, Modules},
        processes::Processes,
    },
};

/// Stacks remembered at most.
const MAX_STACKS: usize = 65_536;

/// The live world.
pub(super) struct Live {
    pub(super) processes: Processes,
    pub(super) modules: Modules,
    pub(super) losses: Losses,
    stacks: FxHashMap<u64, Remembered>,
}

/// A stack that was named before: a process that calls in a loop has few.
struct Remembered {
    /// Process, generation of its memory, how the walk ended, whether it began at a point.
    kind: (u32, u32, u16, bool),
    key: Box<[u8]>,
    stack: Rc<CallerStack>,
}

impl Live {
    pub(super) fn new(processes: Processes, modules: Modules, losses: Losses) -> Self {
        Self { processes, modules, losses, stacks: FxHashMap::default() }
    }

    fn name(&mut self, pid: u32, frames: Frames<'_>, at_point: bool) -> CallerStack {
        let mut stack = CallerStack::default();
        let mut true_next = true;
        for (number, address) in frames.addresses().enumerate() {
            if !true_next {
                stack.cut = Some(Cut::NoFramePointers);
                return stack;
            }
            let address = ReturnAddr(RuntimeAddr(address));
            let Some(mapping) = self.processes.mapping(pid, address.for_lookup().0) else {
                stack.frames.push(Rc::new(modules::nameless(address)));
                stack.cut = Some(Cut::UnknownCode);
                return stack;
            };
            let named = self.modules.name(pid, mapping, address);
            true_next = named.keeps_frame_pointer;
            if at_point && number == 0 {
                continue;
            }
            let is_root = named.frame.function.as_deref().is_some_and(is_root);
            stack.frames.push(named.frame);
            if is_root {
                return stack;
            }
        }
        stack.cut = match frames.detail {
            WALK_DEPTH => Some(Cut::Depth),
            _ if !true_next => Some(Cut::NoFramePointers),
            WALK_END => None,
            _ => Some(Cut::Unreadable),
        };
        stack
    }
}

/// Functions that nothing calls: where threads and goroutines begin.
fn is_root(function: &str) -> bool {
    matches!(
        function,
        "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" | "_start" | "clone" | "__clone" | "clone3" | "__clone3"
    )
}

impl World for Live {
    fn comm(&mut self, pid: u32) -> Rc<str> {
        self.processes.comm(pid)
    }

    fn callers(&mut self, pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack> {
        let generation = self.processes.generation(pid);
        let mut hasher = FxHasher::default();
        (pid, generation, at_point, frames.key()).hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.stacks.get(&hash)
            && known.kind == (pid, generation, frames.detail, at_point)
            && *known.key == *frames.key()
        {
            return known.stack.clone();
        }
        let stack = Rc::new(self.name(pid, frames, at_point));
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        // A first sight of a process may have read its mappings: ask again what their state is.
        let generation = self.processes.generation(pid);
        let key = frames.key().into();
        self.stacks
            .insert(hash, Remembered { kind: (pid, generation, frames.detail, at_point), key, stack: stack.clone() });
        stack
    }

    fn last_loss(&mut self, lane: Lane, lost: u32) -> Option<u64> {
        self.losses.last_loss(lane, lost)
    }
}
