//! AArch64: where a function is entered and left, and what Linux does with a probe on one instruction.
//!
//! Encodings: Arm Architecture Reference Manual (DDI 0487), C4.1. What the kernel does: Linux
//! arch/arm64/kernel/probes/decode-insn.c, `arm_probe_decode_insn`: it carries out branches, `adr`, loads of literals and
//! (6.13) `nop` itself, refuses what it can neither carry out nor run elsewhere, and single-steps the rest.

use super::exits::{Found, Way};
use super::{Body, Entry, EntryCost, ExitKind, JumpOperand, Place, Refusal, Shape};
use crate::addr::Vaddr;

/// Bytes of an instruction.
const SIZE: u64 = 4;
/// The encoding of the stack pointer as a base register, and of the zero register as a destination.
const SP_OR_ZERO: u32 = 31;

/// An instruction and its address.
#[derive(Clone, Copy)]
struct Instruction {
    at: u64,
    word: u32,
}

/// Where it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    /// Comes back, unless what is called never returns.
    Call(Option<u64>),
    Jump(u64),
    Conditional(u64),
    /// Through a register.
    Indirect(u8),
    Return,
    /// `brk`, `udf` and other deliberate ends.
    Trap,
}

impl Instruction {
    fn is(self, mask: u32, value: u32) -> bool {
        self.word & mask == value
    }

    fn bits(self, at: u32, count: u32) -> u32 {
        self.word >> at & ((1 << count) - 1)
    }

    /// A distance in instructions from here.
    fn target(self, at: u32, count: u32) -> u64 {
        let distance = i64::from(self.bits(at, count)) << (64 - count) >> (64 - count);
        self.at.wrapping_add_signed(distance.wrapping_mul(SIZE.cast_signed()))
    }

    fn flow(self) -> Flow {
        if self.is(0xfc00_0000, 0x1400_0000) {
            Flow::Jump(self.target(0, 26))
        } else if self.is(0xfc00_0000, 0x9400_0000) {
            Flow::Call(Some(self.target(0, 26)))
        } else if self.is(0xff00_0000, 0x5400_0000) || self.is(0x7e00_0000, 0x3400_0000) {
            // b.cond, bc.cond; cbz, cbnz
            Flow::Conditional(self.target(5, 19))
        } else if self.is(0x7e00_0000, 0x3600_0000) {
            // tbz, tbnz
            Flow::Conditional(self.target(5, 14))
        } else if self.is(0xffff_fc1f, 0xd65f_0000) || self.is(0xffff_fbff, 0xd65f_0bff) {
            // ret; retaa, retab
            Flow::Return
        } else if self.is(0xffff_fc1f, 0xd61f_0000) || self.is(0xfeff_f800, 0xd61f_0800) {
            // br; braa and its like
            Flow::Indirect(self.bits(5, 5) as u8)
        } else if self.is(0xffff_fc1f, 0xd63f_0000) || self.is(0xfeff_f800, 0xd63f_0800) {
            Flow::Call(None)
        } else if self.is(0xffff_0000, 0) || self.is(0xffe0_001f, 0xd420_0000) || self.is(0xffe0_001f, 0xd440_0000) {
            // udf, brk, hlt
            Flow::Trap
        } else {
            Flow::Next
        }
    }

    fn is_nop(self) -> bool {
        self.word == 0xd503_201f
    }

    /// `adr`, `adrp`, `ldr Xt, literal`, `ldrsw Xt, literal`: relative to the instruction's own address.
    fn is_simulated_load(self) -> bool {
        self.is(0x1f00_0000, 0x1000_0000) || self.is(0xbf00_0000, 0x1800_0000) || self.is(0xff00_0000, 0x9800_0000)
    }

    fn refusal(self) -> Result<(), Refusal> {
        use Refusal::{BreaksTarget, Refused};
        // aarch64_insn_is_exclusive(): load_ex, store_ex; by their masks the ordered and compare-and-swap ones too.
        if self.is(0x3f40_0000, 0x0840_0000) || self.is(0x3f40_0000, 0x0800_0000) {
            return Err(Refused("exclusive or ordered"));
        }
        // The kernel's list has the loads of general registers only; these would read beside the copy that it runs.
        if self.is(0xbf00_0000, 0x1c00_0000) || self.is(0xff00_0000, 0x9c00_0000) {
            return Err(BreaksTarget("ldr of a vector literal"));
        }
        if self.is(0xff00_0000, 0xd800_0000) {
            return Err(Refused("prfm"));
        }
        match self.flow() {
            Flow::Trap => return Err(Refused("brk")),
            _ if self.is(0xffff_fbff, 0xd65f_0bff) => return Err(Refused("retaa")),
            _ if self.is(0xfeff_f800, 0xd61f_0800) => return Err(Refused("braa")),
            _ if self.is(0xfeff_f800, 0xd63f_0800) => return Err(Refused("blraa")),
            _ => {}
        }
        // svc, hvc, smc, brk, hlt, dcps; eret; msr; and mrs, but of DAIF only.
        if self.is(0xff00_0000, 0xd400_0000) || self.is(!0, 0xd69f_03e0) || self.is(0xffff_fbff, 0xd69f_0bff) {
            return Err(Refused("svc"));
        }
        if self.is(0xfff8_f01f, 0xd500_401f) || self.is(0xfff0_0000, 0xd510_0000) {
            return Err(Refused("msr"));
        }
        if self.is(0xffff_f01f, 0xd503_201f) && !self.is_steppable_hint() {
            return Err(Refused("hint"));
        }
        Ok(())
    }

    /// `aarch64_insn_is_steppable_hint`: nop, bti, and those that sign a return address. Authentication may fault.
    fn is_steppable_hint(self) -> bool {
        matches!(self.bits(5, 7), 0 | 7 | 8 | 10 | 24..=27 | 32 | 34 | 36 | 38)
    }

    fn cost(self) -> EntryCost {
        let simulated = !matches!(self.flow(), Flow::Next | Flow::Trap) || self.is_nop() || self.is_simulated_load();
        if simulated { EntryCost::Emulated } else { EntryCost::SingleStep }
    }
}

fn instructions(start: Vaddr, code: &[u8]) -> impl Iterator<Item = Instruction> + '_ {
    let (words, _) = code.as_chunks::<{ SIZE as usize }>();
    (0..)
        .zip(words)
        .map(move |(n, word)| Instruction { at: start.0.saturating_add(n * SIZE), word: u32::from_le_bytes(*word) })
}

/// Where to probe a function.
pub(super) fn shape(body: &Body<'_>, starts_function: &dyn Fn(Vaddr) -> bool) -> Shape {
    let mut found = Found::default();
    for (start, code) in body.pieces() {
        let mut seen = Seen::default();
        let mut last = None;
        for i in instructions(start, code) {
            let way = way(body, i, &seen, starts_function);
            found.add(Vaddr(i.at), way, || i.refusal());
            seen.note(i);
            last = Some(i);
        }
        let runs_on = |i: Instruction| matches!(i.flow(), Flow::Next | Flow::Conditional(_)) && !i.is_nop();
        found.unprobed_jumps |= last.is_none_or(runs_on);
    }
    found.into_shape(entry(body))
}

/// Whether the instruction at the start of `code` may be probed.
pub(super) fn refusal(code: &[u8], address: Vaddr) -> Result<(), Refusal> {
    let first = instructions(address, code).next().filter(|i| i.at.is_multiple_of(SIZE));
    first.ok_or(Refusal::Undecodable)?.refusal()
}

/// The calls of `target` in a function's code.
pub(super) fn calls_to(code: &[u8], address: Vaddr, target: Vaddr) -> Vec<Vaddr> {
    let calls = instructions(address, code).filter(|i| i.flow() == Flow::Call(Some(target.0)));
    calls.map(|i| Vaddr(i.at)).collect()
}

/// What is at `v`: all instructions are of one size.
pub(super) fn place(body: &Body<'_>, v: Vaddr) -> Place {
    let begin = v.0 - v.0 % SIZE;
    match (body.holds(v.0), begin.checked_add(SIZE)) {
        (true, _) if begin == v.0 => Place::Start,
        (true, Some(end)) => Place::Inside { begin: Vaddr(begin), end: Vaddr(end) },
        _ => Place::Unknown,
    }
}

fn way(body: &Body<'_>, i: Instruction, seen: &Seen, starts_function: &dyn Fn(Vaddr) -> bool) -> Way {
    match i.flow() {
        Flow::Next | Flow::Call(_) | Flow::Trap => Way::Inside,
        Flow::Return => Way::Out(ExitKind::Return),
        Flow::Jump(target) | Flow::Conditional(target) if body.holds(target) => Way::Inside,
        // The kernel half follows no conditions of this machine.
        Flow::Conditional(_) => Way::Untold,
        Flow::Jump(target) => {
            let target = Vaddr(target);
            let kind = ExitKind::TailJump { target, condition: None };
            if starts_function(target) {
                Way::Out(kind)
            } else if seen.depth.is_some_and(|depth| depth != 0) {
                Way::Stray(target)
            } else {
                Way::MaybeOut(kind)
            }
        }
        Flow::Indirect(register) if seen.reads_table(register, body.is_go) => Way::Inside,
        Flow::Indirect(_) if seen.depth.is_some_and(|depth| depth != 0) => Way::Untold,
        Flow::Indirect(register) => Way::Out(ExitKind::IndirectJump { operand: JumpOperand::Register(register) }),
    }
}

/// How many instructions before an indirect jump its table is looked up.
const LOOKUP: usize = 8;

/// What the instructions so far tell.
struct Seen {
    recent: [u32; LOOKUP],
    count: usize,
    /// Bytes on the stack since the entry; none: not known.
    depth: Option<i64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { recent: [0; LOOKUP], count: 0, depth: Some(0) }
    }
}

impl Seen {
    fn note(&mut self, i: Instruction) {
        self.recent[self.count % LOOKUP] = i.word;
        self.count = self.count.wrapping_add(1);
        self.depth = match i.flow() {
            // What follows is reached from elsewhere.
            Flow::Jump(_) | Flow::Indirect(_) | Flow::Return | Flow::Trap => None,
            _ => deepened(i).map_or(self.depth, |by| self.depth?.checked_add(by?)),
        };
    }

    /// Whether a jump's target was just taken from a table. GCC and Clang add a distance from a table to a base: `add
    /// Xn, Xm, Wk, sxtw #2`. Go (1.19, cmd/internal/obj/arm64) loads the address itself: `ldr Xn, [Xm, Xk, lsl #3]`.
    fn reads_table(&self, register: u8, is_go: bool) -> bool {
        let back = (1..=LOOKUP.min(self.count)).map(|n| self.recent[self.count.wrapping_sub(n) % LOOKUP]);
        let written = back.map(|word| Instruction { at: 0, word }).find(|i| i.bits(0, 5) == u32::from(register));
        written.is_some_and(|i| {
            let is_sum = i.is(0xffe0_0000, 0x8b20_0000) || i.is(0xff20_0000, 0x8b00_0000);
            let is_indexed = i.is(0xffe0_0c00, 0xf860_0800);
            is_sum || is_go && is_indexed
        })
    }
}

/// By how many bytes an instruction deepens the stack: none, if it leaves the stack pointer alone; `Some(None)`, if that
/// is not known.
fn deepened(i: Instruction) -> Option<Option<i64>> {
    let signed = |at: u32, count: u32| i64::from(i.bits(at, count)) << (64 - count) >> (64 - count);
    // ldp, stp of 64 bits: post- and pre-indexed. ldr, str of 64 bits: the same.
    if i.bits(5, 5) == SP_OR_ZERO && (i.is(0xff80_0000, 0xa880_0000) || i.is(0xff80_0000, 0xa980_0000)) {
        return Some(signed(15, 7).checked_mul(-8));
    }
    let is_indexed_single = i.is(0xffa0_0400, 0xf800_0400);
    if i.bits(5, 5) == SP_OR_ZERO && is_indexed_single {
        return Some(signed(12, 9).checked_neg());
    }
    // The same of the lower half of a pair or of vectors: as much as compilers do not write.
    if i.bits(5, 5) == SP_OR_ZERO && i.is(0x3a80_0000, 0x2880_0000) {
        return Some(None);
    }
    if i.bits(0, 5) != SP_OR_ZERO {
        return None;
    }
    // add, sub (immediate) with the stack pointer as destination.
    if i.is(0xbf80_0000, 0x9100_0000) {
        let from_sp = i.bits(5, 5) == SP_OR_ZERO;
        let bytes = i64::from(i.bits(10, 12)) << if i.bits(22, 1) == 1 { 12 } else { 0 };
        let grows = if i.bits(30, 1) == 1 { bytes } else { -bytes };
        return Some(from_sp.then_some(grows));
    }
    // add, sub (extended register), which writes the stack pointer; and (immediate) to align it.
    let writes = i.is(0xbfe0_0000, 0x8b20_0000) || i.is(0xff80_0000, 0x9200_0000);
    writes.then_some(None)
}

fn entry(body: &Body<'_>) -> Result<Entry, Refusal> {
    let window: Vec<Instruction> = instructions(body.address, body.code).take(LONGEST_CHECK + 1).collect();
    let check = if body.is_go { stack_check(&window) } else { None };
    // Behind the check nothing has changed, and nothing comes by twice: see entry.rs.
    let behind = check.and_then(|(length, slow_path)| Some((*window.get(length)?, Some(slow_path))));
    let first = window.first().map(|i| (*i, None));
    let (place, slow_path) = behind.or(first).ok_or(Refusal::Undecodable)?;
    place.refusal()?;
    Ok(Entry { address: Vaddr(place.at), cost: place.cost(), may_repeat: repeats(body, place, slow_path) })
}

/// Whether a branch inside the function leads to the place once more. The slow path of a stack check comes back to the
/// entry, but had not passed the place.
fn repeats(body: &Body<'_>, place: Instruction, slow_path: Option<u64>) -> bool {
    let back = |i: Instruction| match i.flow() {
        Flow::Jump(target) | Flow::Conditional(target) => {
            target == place.at || target == body.address.0 && slow_path.is_none_or(|slow_path| i.at < slow_path)
        }
        _ => false,
    };
    body.pieces().any(|(start, code)| instructions(start, code).any(back))
}

/// Instructions of the longest stack check: ldr, movz, movk, sub, b.lo, cmp, b.ls.
const LONGEST_CHECK: usize = 7;
const CONDITION_LOWER: u32 = 3;
const CONDITION_LOWER_OR_SAME: u32 = 9;

/// Go's check for stack space at the start of `window`: its length, and where its slow path is (Go 1.21+:
/// cmd/internal/obj/arm64/obj7.go, stacksplit; g is in x28, x16 and x17 are free).
fn stack_check(window: &[Instruction]) -> Option<(usize, u64)> {
    let guard = window.first()?;
    // ldr x16, [x28, #16] (stackguard0) or #24 (stackguard1)
    if !matches!(guard.word, 0xf940_0b90 | 0xf940_0f90) {
        return None;
    }
    for (n, i) in window.iter().enumerate().skip(1) {
        match i.flow() {
            Flow::Conditional(slow_path) if i.is(0xff00_0010, 0x5400_0000) => match i.bits(0, 4) {
                CONDITION_LOWER_OR_SAME => return Some((n + 1, slow_path)),
                CONDITION_LOWER => {}
                _ => return None,
            },
            // It sets x17, another scratch register for a large constant (x27), or flags alone.
            Flow::Next if matches!(i.bits(0, 5), 17 | 27 | SP_OR_ZERO) => {}
            _ => return None,
        }
    }
    None
}
