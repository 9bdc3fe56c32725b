//! Callers from a copy of the stack: registers, memory and what is known of the code in, addresses out.
//!
//! Nothing here reads a process or a file, and no step needs more than a few words of memory: an unwinder in the kernel
//! half would take the same steps.

use std::rc::Rc;

use probe_ebpf::abi::{self, COPY_AT_ENTRY, COPY_LIMIT, COPY_WHOLE};
use rustc_hash::FxHashMap;
use symbols::{
    addr::RuntimeAddr,
    unwind::{Registers, Row, Stop, register},
};

use crate::calls::Cut;

#[cfg(test)]
mod tests;

/// What is further away than this is another stack, bytes.
const LARGEST_STACK: i64 = 256 << 20;
/// Steps remembered at most, for one process.
const MAX_STEPS: usize = 1 << 16;

/// A place in the code that a stack leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeAddress(u64);

impl CodeAddress {
    /// Addresses of user space have no such bit.
    const EXACT: u64 = 1 << 63;

    /// Where a call returns to.
    pub fn after_call(ip: u64) -> Self {
        Self(ip & !Self::EXACT)
    }

    /// The next instruction of what was interrupted, or stands at a probe.
    pub fn exact(ip: u64) -> Self {
        Self(ip | Self::EXACT)
    }

    /// The instruction pointer.
    pub fn ip(self) -> RuntimeAddr {
        RuntimeAddr(self.0 & !Self::EXACT)
    }

    /// An address within the instruction that is executing: a call may be its function's last one.
    pub fn for_lookup(self) -> RuntimeAddr {
        RuntimeAddr(if self.0 & Self::EXACT != 0 { self.ip().0 } else { self.0.wrapping_sub(1) })
    }

    /// Whether a function with a return probe returns there: to a page near the end of the address space, which no record
    /// of mappings tells of (Linux: kernel/events/uprobes.c, `xol_add_vma`).
    pub fn is_return_probe(self) -> bool {
        // Of four levels of page tables, and of five.
        [47, 56].iter().any(|bits| self.ip().0 & !0xfff == (1 << bits) - 0x2000)
    }

    /// Whether the instruction there is the next to execute, and not the one after a call.
    pub fn is_exact(self) -> bool {
        self.0 & Self::EXACT != 0
    }
}

/// What leads from a frame to its caller.
#[derive(Clone, Debug)]
pub enum Step {
    /// Unwind tables.
    Row(Rc<Row>),
    /// The frame pointer.
    FramePointer,
    /// Go's `asmcgocall`, which calls C on another stack.
    SwitchOfStacks,
    /// The kernel interrupted something to call a signal handler, which returns here.
    Signal,
    /// Nothing called this code.
    End,
    /// It is not known.
    Cut(Cut),
}

/// A piece of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Region<'a> {
    /// Address of its first byte.
    pub start: u64,
    /// What is there.
    pub bytes: &'a [u8],
}

impl Region<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(8)?).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes)
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Whether it could be the stack pointer of a frame here.
    fn holds(&self, sp: u64) -> bool {
        (self.start..=self.end()).contains(&sp)
    }
}

/// Return addresses that return probes have replaced on a stack: pairs of words, where it was and what it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct HiddenReturns<'a>(&'a [u8]);

impl<'a> HiddenReturns<'a> {
    const PAIR: usize = size_of::<abi::HiddenReturn>();

    /// The first `count` of these.
    pub fn of(bytes: &'a [u8], count: usize) -> Self {
        let used = count.saturating_mul(Self::PAIR).min(bytes.len());
        Self(bytes.get(..used).unwrap_or_default())
    }

    /// The return address that was at this place.
    pub fn at(&self, place: u64) -> Option<u64> {
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).ok();
        let mut pairs = self.0.chunks_exact(Self::PAIR).filter_map(|pair| pair.split_at_checked(8));
        pairs.find(|(at, _)| word(at) == Some(place)).and_then(|(_, address)| word(address))
    }
}

/// A part of the stack of a goroutine that called C, or of one that a signal handler interrupted.
#[derive(Clone, Copy, Debug, Default)]
pub struct OuterStack<'a> {
    /// What was copied; empty where there is none.
    pub copied: Region<'a>,
    /// Where the stack ends.
    pub end: u64,
}

/// A copy of a stack.
#[derive(Clone, Copy, Debug)]
pub struct StackCopy<'a> {
    /// At the event.
    pub registers: abi::Registers,
    /// From the stack pointer on.
    pub bytes: &'a [u8],
    /// Where it goes on: the stack of the goroutine that called C, or what a handler on an alternate stack interrupted.
    pub outer: OuterStack<'a>,
    /// What return probes have put their own address in the place of.
    pub hidden: HiddenReturns<'a>,
    /// `COPY_…`
    pub detail: u16,
}

impl StackCopy<'_> {
    fn inner(&self) -> Region<'_> {
        Region { start: self.registers.sp, bytes: self.bytes }
    }

    fn word(&self, address: u64) -> Option<u64> {
        let word = self.inner().word(address).or_else(|| self.outer.copied.word(address))?;
        // What the kernel keeps of a frame that `longjmp` took away is out of date, and not to be looked at.
        let hidden = || if CodeAddress::exact(word).is_return_probe() { self.hidden.at(address) } else { None };
        Some(hidden().unwrap_or(word))
    }

    /// Why an address could not be read.
    fn missing(&self, address: u64) -> Cut {
        let is_behind = |region: Region<'_>| {
            address.wrapping_add(8) > region.end() && address.wrapping_sub(region.end()) as i64 <= LARGEST_STACK
        };
        if !self.outer.copied.bytes.is_empty() && is_behind(self.outer.copied) {
            return Cut::CopyTooShort;
        }
        match self.detail & !COPY_AT_ENTRY {
            _ if !is_behind(self.inner()) => Cut::OtherStack,
            COPY_LIMIT => Cut::CopyTooShort,
            _ => Cut::Unreadable,
        }
    }
}

/// How far the walk has come on the two stacks: further out on each, always, or it would not end. It goes from the inner to
/// the outer one and back where Go calls C that calls Go.
struct Reached {
    inner: u64,
    outer: u64,
}

impl Reached {
    /// Whether a frame with this stack pointer lies further out than all before it.
    fn advances(&mut self, stack: &StackCopy<'_>, sp: u64) -> bool {
        let reached = if stack.outer.copied.holds(sp) { &mut self.outer } else { &mut self.inner };
        let advances = sp > *reached;
        *reached = sp;
        advances
    }
}

/// Unwinds the stacks of one process, as long as what it has mapped stays the same.
#[derive(Default)]
pub struct Unwinder {
    steps: FxHashMap<CodeAddress, Step>,
}

impl Unwinder {
    /// Appends the callers, innermost first, but at most `most`. Says why there are not more; nothing when the last one is
    /// where the thread begins. `code` says what is known of a place, and is asked once for each.
    pub fn unwind(
        &mut self,
        stack: &StackCopy<'_>,
        most: usize,
        code: &mut dyn FnMut(CodeAddress) -> Step,
        callers: &mut Vec<CodeAddress>,
    ) -> Option<Cut> {
        let abi::Registers { ip, sp, fp, saved } = stack.registers;
        let mut registers = Registers::new(ip, sp, fp);
        for (number, value) in [register::RBX, 12, 13, 14, 15].into_iter().zip(saved) {
            registers.set(number, value);
        }
        let mut place = CodeAddress::exact(ip);
        if stack.detail & COPY_AT_ENTRY != 0 {
            // At the stack's base nothing was pushed: the program begins here.
            if stack.detail & !COPY_AT_ENTRY == COPY_WHOLE && stack.bytes.is_empty() {
                return None;
            }
            let Some(address) = stack.word(sp) else { return Some(stack.missing(sp)) };
            registers.ip = address;
            registers.set(register::RSP, sp.wrapping_add(8));
            place = CodeAddress::after_call(address);
            callers.push(place);
        }
        let mut reached = Reached { inner: registers.sp(), outer: 0 };
        loop {
            let step = self.step(place, code);
            if callers.len() >= most && !matches!(step, Step::End | Step::Cut(_)) {
                return Some(Cut::Depth);
            }
            match take(&step, &mut registers, stack, &mut reached) {
                Ok(next) => place = next,
                Err(over) => return over,
            }
            callers.push(place);
        }
    }

    fn step(&mut self, place: CodeAddress, code: &mut dyn FnMut(CodeAddress) -> Step) -> Step {
        if let Some(known) = self.steps.get(&place) {
            return known.clone();
        }
        if self.steps.len() >= MAX_STEPS {
            self.steps.clear();
        }
        let step = code(place);
        // What is not known now may be known later: code that is made at run time.
        if !matches!(step, Step::Cut(Cut::UnknownCode)) {
            self.steps.insert(place, step.clone());
        }
        step
    }
}

/// Makes a frame's registers its caller's. Else why not; nothing where the stack ends.
fn take(
    step: &Step,
    registers: &mut Registers,
    stack: &StackCopy<'_>,
    reached: &mut Reached,
) -> Result<CodeAddress, Option<Cut>> {
    match step {
        Step::End => return Err(None),
        Step::Cut(cut) => return Err(Some(*cut)),
        Step::Signal => return interrupted(registers, stack).map_err(Some),
        Step::FramePointer => follow_frame_pointer(registers, stack)?,
        Step::SwitchOfStacks => {
            let frame = frame_before_switch(registers, stack).map_err(Some)?;
            registers.set(register::RBP, frame);
            follow_frame_pointer(registers, stack)?;
        }
        Step::Row(row) => row.step(registers, &mut |address| stack.word(address)).map_err(|stop| match stop {
            Stop::End => None,
            Stop::Unreadable(address) => Some(stack.missing(address)),
            Stop::Senseless => Some(Cut::NoRules),
        })?,
    }
    if !reached.advances(stack, registers.sp()) {
        return Err(Some(Cut::NoRules));
    }
    Ok(CodeAddress::after_call(registers.ip))
}

fn follow_frame_pointer(registers: &mut Registers, stack: &StackCopy<'_>) -> Result<(), Option<Cut>> {
    let fp = registers.get(register::RBP).filter(|&fp| fp != 0).ok_or(None)?;
    let read = |address| stack.word(address).ok_or(Some(stack.missing(address)));
    let mut frame = fp;
    let mut next = read(frame)?;
    // Go's `crosscall2` pushes rbp twice: of two pairs of words that overlap, the outer one is the frame.
    if next == frame.wrapping_add(8) {
        frame = next;
        next = read(frame)?;
    }
    let ip = read(frame.wrapping_add(8))?;
    if ip == 0 {
        return Err(None);
    }
    *registers = Registers::new(ip, frame.wrapping_add(16), next);
    Ok(())
}

/// Where Go's `asmcgocall` has its frame. On the stack that it switched to it leaves g, and how far its frame is from the end
/// of g's stack; rbp is of no use, because C may call back, and the goroutine's stack may be moved meanwhile. Where it
/// need not switch, it leaves 0 and its stack pointer (Go: src/runtime/asm_amd64.s).
fn frame_before_switch(registers: &Registers, stack: &StackCopy<'_>) -> Result<u64, Cut> {
    let sp = registers.sp();
    let read = |address| stack.word(address).ok_or(stack.missing(address));
    let (place, g) = (read(sp)?, read(sp.wrapping_add(8))?);
    Ok(if g == 0 { place } else { stack.outer.end.wrapping_sub(place) })
}

/// On the stack pointer stands a `ucontext_t`: flags, link, the alternate stack (40 bytes), then r8–r15, rdi, rsi, rbp,
/// rbx, rdx, rax, rcx, rsp, rip (Linux: arch/x86/include/uapi/asm/{ucontext,sigcontext}.h).
fn interrupted(registers: &mut Registers, stack: &StackCopy<'_>) -> Result<CodeAddress, Cut> {
    /// By position there, the number that DWARF gives.
    const SAVED: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7];
    let first = registers.sp().wrapping_add(40);
    let read = |position: usize| {
        let address = first.wrapping_add(8 * position as u64);
        stack.word(address).ok_or(stack.missing(address))
    };
    let mut caller = Registers::new(read(SAVED.len())?, 0, 0);
    for (position, number) in SAVED.into_iter().enumerate() {
        caller.set(number, read(position)?);
    }
    *registers = caller;
    Ok(CodeAddress::exact(caller.ip))
}
