//! Machine code: where to put a function's entry probe, where it is left, what must not be probed.
//!
//! Input: the bytes of a function and of its split-off parts. Output: a [`Shape`]. Nothing here reads a file, and
//! nothing is guessed: what cannot be told is said in [`Shape::unprobed_jumps`] or a [`Refusal`].
//!
//! x86-64 takes six modules, AArch64, whose instructions all have four bytes, one (`aarch64`):
//!
//! * `uprobes`: what Linux does with a probe on one instruction: refuse, emulate, single-step.
//! * `sweep`: one pass over a function's instructions; keeps its branches and exits.
//! * `entry`: the cheapest right place for the entry probe.
//! * `exits`: which of the branches leave the function.
//! * `depth`: how much a function has pushed at a jump, which tells a jump table from a tail call.
//! * `landing`: where an unwinder enters the frame that it unwound to.
//!
//! The facts and their sources: `docs/uprobes.md`.

mod aarch64;
mod depth;
mod entry;
mod exits;
mod landing;
mod sweep;
mod uprobes;

use std::fmt;

use crate::addr::Vaddr;
use crate::binary::Machine;
use sweep::Sweep;

pub use landing::{callees, landings, restores_guarded_buffer};

/// What a hit of the entry probe costs the target, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryCost {
    /// The five-byte no-op, which Linux 6.18 and later turn into a call: no trap.
    Nop,
    /// An instruction that the kernel carries out itself: one trap.
    Emulated,
    /// Any other instruction, run in a copy under the trap flag: two traps.
    SingleStep,
}

/// Where the entry probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The probe's place. It may be that of an exit too (a function that is one jump): the entry comes first.
    pub address: Vaddr,
    /// What a hit costs.
    pub cost: EntryCost,
    /// A branch inside the function can reach the place again within one call.
    pub may_repeat: bool,
}

/// How an exit leaves the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// A near return.
    Return,
    /// A jump with a fixed target outside the function: a tail call where the stack pointer is the entry's, which
    /// is for the reader of the event to compare.
    TailJump {
        /// Where it goes.
        target: Vaddr,
        /// When it is taken; `None`: always.
        condition: Option<Condition>,
    },
    /// A jump through a register or memory: a tail call if its target, computed from the operand, lies outside.
    IndirectJump {
        /// Where the target is found.
        operand: JumpOperand,
    },
}

/// An instruction by which a function can be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The instruction's address.
    pub address: Vaddr,
    /// How it leaves.
    pub kind: ExitKind,
}

/// An x86 condition code; the discriminant is the low nibble of the jump's opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "Intel SDM volume 2, appendix B.1.4: the names say it")]
pub enum Condition {
    Overflow = 0,
    NotOverflow = 1,
    Below = 2,
    AboveOrEqual = 3,
    Equal = 4,
    NotEqual = 5,
    BelowOrEqual = 6,
    Above = 7,
    Sign = 8,
    NotSign = 9,
    Parity = 10,
    NotParity = 11,
    Less = 12,
    GreaterOrEqual = 13,
    LessOrEqual = 14,
    Greater = 15,
}

/// Where an indirect jump finds its target. Registers are in the machine's encoding: 0 = rax, 1 = rcx … 15 = r15; 0 = x0
/// … 30 = x30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JumpOperand {
    /// The target is the register's value.
    Register(u8),
    /// The target is the 8-byte word at `base + index * scale + displacement`.
    Memory {
        /// The register added as it is.
        base: Option<u8>,
        /// The register added `scale` times.
        index: Option<u8>,
        /// 1, 2, 4 or 8.
        scale: u8,
        /// Added to the registers; with `rip_relative` the word's [`Vaddr`] itself.
        displacement: i64,
        /// There are no registers; the displacement is an address of the file.
        rip_relative: bool,
    },
}

/// Why an instruction gets no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The function has no bytes in the file, or its size is unknown.
    #[error("the file holds no code for it")]
    NoCode,
    /// The bytes are not an instruction.
    #[error("the bytes there are no instruction")]
    Undecodable,
    /// `-ENOTSUPP` of some, wrong execution of others: see `docs/uprobes.md`.
    #[error("the instruction to probe is {0}-encoded, which the kernel cannot run under a probe")]
    Vector(Encoding),
    /// `lock`, or a segment prefix.
    #[error("the instruction to probe has a {0} prefix, which the kernel refuses to probe")]
    Prefix(&'static str),
    /// A privileged instruction, an interrupt, a breakpoint.
    #[error("the instruction to probe is `{0}`, which the kernel refuses to probe")]
    Refused(&'static str),
    /// The kernel would take the probe, and the program would break.
    #[error("the instruction to probe is `{0}`, which a probe would make go wrong")]
    BreaksTarget(&'static str),
}

/// How an instruction newer than the kernel's opcode tables is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// AVX and BMI.
    Vex,
    /// AVX-512.
    Evex,
    /// AMD's XOP and 3DNow!.
    Amd,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vex => "VEX",
            Self::Evex => "EVEX",
            Self::Amd => "XOP",
        })
    }
}

/// Where to probe a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The entry probe's place, or why there is none.
    pub entry: Result<Entry, Refusal>,
    /// By address; parts after the body.
    pub exits: Vec<Exit>,
    /// Exits whose instruction must not be probed.
    pub refused_exits: Vec<(Vaddr, Refusal)>,
    /// It can leave by a jump that has no probe, or through code that could not be read.
    pub unprobed_jumps: bool,
    /// Where jumps lead, with the function's frame on the stack, to code that belongs to no known function: into parts
    /// of this one that no symbol names. Given as parts of the body, they are read too.
    pub strays: Vec<Vaddr>,
}

/// A function's code.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    /// What the bytes are instructions of.
    pub machine: Machine,
    /// The first instruction's address.
    pub address: Vaddr,
    /// The bytes from there to the function's end.
    pub code: &'a [u8],
    /// The function's code elsewhere (`.cold`): address and bytes.
    pub parts: Vec<(Vaddr, &'a [u8])>,
    /// It follows Go's conventions: stack check, ABIInternal registers.
    pub is_go: bool,
    /// It was written in Go's assembler.
    pub go_asm: bool,
}

/// Where to probe a function. `starts_function` tells whether a function is known to begin at an address: a jump to
/// any other place outside the body may lead to a part that nobody named.
pub fn shape(body: &Body<'_>, starts_function: &dyn Fn(Vaddr) -> bool) -> Shape {
    if body.code.is_empty() {
        return Shape::refused(Refusal::NoCode);
    }
    if body.machine == Machine::Aarch64 {
        return aarch64::shape(body, starts_function);
    }
    let sweep = Sweep::of(body);
    exits::find(body, &sweep, starts_function).into_shape(entry::place(body, &sweep))
}

/// Why a function's entry cannot be probed, as [`shape`] says it. Where the first instructions decide, nothing else is read.
pub fn entry_refusal(body: &Body<'_>) -> Result<(), Refusal> {
    if is_entry_certain(body) {
        return Ok(());
    }
    shape(body, &|_| true).entry.map(|_| ())
}

/// Whether a function's first instructions tell, as they nearly always do, that its entry can be probed.
pub fn is_entry_certain(body: &Body<'_>) -> bool {
    body.machine == Machine::X86_64 && !body.code.is_empty() && entry::is_certain(body)
}

/// Whether the one instruction at the start of `code` may be probed.
pub fn refusal(machine: Machine, code: &[u8], address: Vaddr) -> Result<(), Refusal> {
    match machine {
        Machine::X86_64 => uprobes::refusal(code, address),
        Machine::Aarch64 => aarch64::refusal(code, address),
    }
}

/// What is at an address, as far as a function's code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An instruction begins there.
    Start,
    /// It is inside the instruction from `begin` to `end`.
    Inside {
        /// Where the instruction begins.
        begin: Vaddr,
        /// Where the next one begins.
        end: Vaddr,
    },
    /// It is outside the body and its parts, or behind bytes that are not instructions.
    Unknown,
}

/// What is at `v` in a function.
pub fn place(body: &Body<'_>, v: Vaddr) -> Place {
    if body.machine == Machine::Aarch64 {
        return aarch64::place(body, v);
    }
    let piece = body.pieces().find(|(start, code)| v.0.checked_sub(start.0).is_some_and(|o| o < code.len() as u64));
    let Some((start, code)) = piece else { return Place::Unknown };
    let before = sweep::instructions(start, code).take_while(|i| !i.is_invalid() && i.ip() <= v.0);
    match before.last() {
        Some(i) if i.ip() == v.0 => Place::Start,
        Some(i) if v.0 < i.next_ip() => Place::Inside { begin: Vaddr(i.ip()), end: Vaddr(i.next_ip()) },
        _ => Place::Unknown,
    }
}

/// The call instructions in a function's code (which begins at `address`) that call `target` directly.
pub fn calls_to(machine: Machine, code: &[u8], address: Vaddr, target: Vaddr) -> Vec<Vaddr> {
    if machine == Machine::Aarch64 {
        return aarch64::calls_to(code, address, target);
    }
    sweep::instructions(address, code)
        .filter(|i| i.is_call_near() && i.near_branch_target() == target.0)
        .map(|i| Vaddr(i.ip()))
        .collect()
}

impl Shape {
    fn refused(why: Refusal) -> Self {
        Self { entry: Err(why), exits: Vec::new(), refused_exits: Vec::new(), unprobed_jumps: true, strays: Vec::new() }
    }
}
