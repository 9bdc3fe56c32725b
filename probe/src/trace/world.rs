//! What the tracker asks of the world: names of processes and of callers, and what was lost.

use std::{
    hash::{Hash as _, Hasher as _},
    rc::Rc,
};

use probe_ebpf::abi::{Event, Lane, WALK_DEPTH, WALK_END};
use rustc_hash::{FxHashMap, FxHasher};

use crate::{
    attach::losses::Losses,
    calls::{CallerStack, Cut, Frame, Home, KernelFrames, tracker::World},
    events::{Frames, Record},
    stacks::{CodeAddress, StackCopy, Step, Unwinder},
    target::{
        modules::{self, Modules, Named, Of},
        processes::Processes,
    },
};

use super::kernel::KernelStacks;

/// Stacks remembered at most.
const MAX_STACKS: usize = 65_536;

/// Processes of which something is remembered at once; more begin anew.
const MAX_PROCESSES: usize = 4096;
/// Names remembered at most, for one process.
const MAX_NAMES: usize = 65_536;

/// Nobody maps anything below (Linux: `vm.mmap_min_addr`, 64 KiB by default, one page at least).
const LOWEST_CODE: u64 = 4096;

/// The live world.
pub(super) struct Live {
    pub(super) processes: Processes,
    pub(super) modules: Modules,
    pub(super) losses: Losses,
    kernel: Option<KernelStacks>,
    /// The kernel's frames below the event that is worked on.
    below: Option<KernelFrames>,
    stacks: FxHashMap<u64, Remembered>,
    of_process: FxHashMap<u32, OfProcess>,
    /// Callers of one stack.
    callers: Vec<CodeAddress>,
    /// At most so many.
    stack_depth: usize,
}

/// What is remembered of a process, while what it has mapped stays the same.
#[derive(Default)]
struct OfProcess {
    generation: u32,
    unwinder: Unwinder,
    names: FxHashMap<CodeAddress, Rc<Named>>,
}

/// A stack that was named before: a process that calls in a loop has few.
struct Remembered {
    of: Kind,
    key: Box<[CodeAddress]>,
    stack: Rc<CallerStack>,
}

/// What else than its addresses makes a stack what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    pid: u32,
    /// Of the process's memory.
    generation: u32,
    ended: Ended,
    at_point: bool,
    /// Where the kernel's frames below are: those that are remembered stay there.
    below: Option<*const Rc<Frame>>,
}

/// How the addresses were found, and why there are not more.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ended {
    /// By frame pointers, `WALK_…`.
    Walk(u16),
    /// By unwinding.
    Unwound(Option<Cut>),
}

impl Live {
    pub(super) fn new(
        processes: Processes,
        modules: Modules,
        losses: Losses,
        kernel: Option<KernelStacks>,
        stack_depth: u32,
    ) -> Self {
        Self {
            processes,
            modules,
            losses,
            kernel,
            below: None,
            stacks: FxHashMap::default(),
            of_process: FxHashMap::default(),
            callers: Vec::new(),
            stack_depth: stack_depth as usize,
        }
    }

    /// The kernel's frames came, of an event that is to follow.
    pub(super) fn kernel_frames(&mut self, record: &Record<'_>) {
        if let Some(kernel) = &mut self.kernel {
            kernel.take(record);
        }
    }

    /// To be told of each event of a point before it is worked on.
    pub(super) fn begin(&mut self, event: &Event) {
        self.below = self.kernel.as_mut().and_then(|kernel| kernel.of(event));
    }

    fn of_process(&mut self, pid: u32) -> &mut OfProcess {
        if self.of_process.len() >= MAX_PROCESSES {
            self.of_process.clear();
        }
        let known = self.of_process.entry(pid).or_default();
        let generation = self.processes.generation(pid);
        if known.generation != generation {
            *known = OfProcess { generation, ..OfProcess::default() };
        }
        known
    }

    /// Finds the callers in a copy of the stack; why there are not more.
    fn unwind(&mut self, pid: u32, stack: &StackCopy<'_>) -> Option<Cut> {
        // A first look reads the process's mappings.
        self.processes.know(pid);
        let mut unwinder = std::mem::take(&mut self.of_process(pid).unwinder);
        let Self { processes, modules, callers, stack_depth, .. } = self;
        let dump = processes.jitdump(pid);
        let mut code = |address: CodeAddress| match processes.mapping(pid, address.for_lookup().0) {
            Some(mapping) => modules.step(Of { pid, dump: dump.as_deref() }, mapping, address),
            None => Step::Cut(unmapped(address)),
        };
        let cut = unwinder.unwind(stack, *stack_depth, &mut code, callers);
        self.of_process(pid).unwinder = unwinder;
        cut
    }

    /// Names the callers.
    fn name(&mut self, of: Kind) -> CallerStack {
        let callers = std::mem::take(&mut self.callers);
        let stack = match of.ended {
            Ended::Walk(detail) => self.name_walked(of, &callers, detail),
            Ended::Unwound(cut) => self.name_unwound(of.pid, &callers, cut),
        };
        self.callers = callers;
        stack
    }

    /// The name of an address; none where nothing is mapped.
    fn name_address(&mut self, pid: u32, address: CodeAddress) -> Option<Rc<Named>> {
        if let Some(named) = self.of_process(pid).names.get(&address) {
            return Some(named.clone());
        }
        let dump = self.processes.jitdump(pid);
        let mapping = self.processes.mapping(pid, address.for_lookup().0)?;
        let named = Rc::new(self.modules.name(Of { pid, dump: dump.as_deref() }, mapping, address));
        if !named.is_known() {
            // A map of code made at run time may come to know it.
            return Some(named);
        }
        let names = &mut self.of_process(pid).names;
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(address, named.clone());
        Some(named)
    }

    fn name_unwound(&mut self, pid: u32, callers: &[CodeAddress], cut: Option<Cut>) -> CallerStack {
        let mut stack = CallerStack { frames: Vec::with_capacity(callers.len()), cut, kernel: None };
        for &address in callers.iter().filter(|&&address| !address.is_return_probe()) {
            match self.name_address(pid, address) {
                Some(named) => stack.frames.extend(named.frames.iter().cloned()),
                None => stack.frames.push(Rc::new(modules::nameless(address))),
            }
        }
        stack
    }

    /// What was walked by frame pointers is true only as long as every function on the way keeps one.
    fn name_walked(&mut self, of: Kind, callers: &[CodeAddress], detail: u16) -> CallerStack {
        let mut stack = CallerStack::default();
        let mut true_next = true;
        for (number, &address) in callers.iter().enumerate() {
            if !true_next {
                stack.cut = Some(Cut::NoFramePointers);
                return stack;
            }
            // Where a program begins stands the number of its arguments, and no code is ever there.
            if number == 0 && address.ip().0 < LOWEST_CODE {
                return stack;
            }
            let Some(named) = self.name_address(of.pid, address) else {
                let cut = unmapped(address);
                if cut == Cut::UnknownCode {
                    stack.frames.push(Rc::new(modules::nameless(address)));
                }
                stack.cut = Some(cut);
                return stack;
            };
            true_next = named.keeps_frame_pointer;
            if of.at_point && number == 0 {
                continue;
            }
            stack.frames.extend(named.frames.iter().cloned());
            if named.is_root {
                return stack;
            }
        }
        stack.cut = match detail {
            WALK_DEPTH => Some(Cut::Depth),
            _ if !true_next => Some(Cut::NoFramePointers),
            WALK_END => None,
            _ => Some(Cut::Unreadable),
        };
        stack
    }
}

/// Why a stack that leads to where nothing is mapped is cut.
fn unmapped(address: CodeAddress) -> Cut {
    if address.is_return_probe() { Cut::ReturnProbe } else { Cut::UnknownCode }
}

impl World for Live {
    fn process(&mut self, pid: u32) -> (Rc<str>, Rc<Home>) {
        self.processes.who(pid)
    }

    fn changes(&self) -> Option<u64> {
        self.processes.changes()
    }

    fn callers(&mut self, pid: u32, frames: Frames<'_>, at_point: bool) -> Rc<CallerStack> {
        self.callers.clear();
        let ended = match &frames.stack {
            Some(stack) => Ended::Unwound(self.unwind(pid, stack)),
            None => {
                self.callers.extend(frames.addresses().map(CodeAddress::after_call));
                Ended::Walk(frames.detail)
            }
        };
        let below = self.below.as_ref().map(|frames| frames.as_ptr());
        let kind = |generation| Kind { pid, generation, ended, at_point, below };
        let of = kind(self.processes.generation(pid));
        let mut hasher = FxHasher::default();
        (of, &self.callers).hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.stacks.get(&hash)
            && known.of == of
            && *known.key == *self.callers
        {
            return known.stack.clone();
        }
        let stack = Rc::new(CallerStack { kernel: self.below.clone(), ..self.name(of) });
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        // A first sight of a process may have read its mappings: ask again what their state is.
        let of = kind(self.processes.generation(pid));
        let key = self.callers.as_slice().into();
        self.stacks.insert(hash, Remembered { of, key, stack: stack.clone() });
        stack
    }

    fn last_loss(&mut self, lane: Lane, lost: u32) -> Option<u64> {
        self.losses.last_loss(lane, lost)
    }
}
