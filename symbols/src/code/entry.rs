//! The cheapest right place for the entry probe.
//!
//! Right: the stack pointer, the frame pointer and the argument registers are still the caller's; every call comes by,
//! once. Cheap: the kernel carries the instruction out itself, which costs a third to an eighth of a single step.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::sweep::{Leaving, Sweep, direct_target, instructions};
use super::{Body, Entry, EntryCost, Refusal, uprobes};
use crate::addr::Vaddr;

/// How far into a function to look, in instructions. Compilers move at most a handful of them before the first push.
const WINDOW: usize = 64;

/// System V AMD64: integer arguments, the count of vector arguments (al), the static chain (r10).
const C_ARGUMENTS: &[Register] = &[
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::RAX,
    Register::R10,
];

/// Go's ABIInternal: integer arguments, the closure (rdx), g (r14). Some assembly follows it too (`runtime.memmove`).
const GO_ARGUMENTS: &[Register] = &[
    Register::RAX,
    Register::RBX,
    Register::RCX,
    Register::RDI,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::RDX,
    Register::R14,
];

/// Where the entry probe goes.
pub(super) fn place(body: &Body<'_>, sweep: &Sweep) -> Result<Entry, Refusal> {
    let window: Vec<Instruction> =
        instructions(body.address, body.code).take(WINDOW).take_while(|i| !i.is_invalid()).collect();
    let mut check = if body.is_go { stack_check(&window) } else { None };
    let mut places = places(body, sweep, &window, check.as_ref());
    if places.is_empty() {
        check = None;
        places = self::places(body, sweep, &window, None);
    }
    let cheap = places.iter().find(|p| p.refusal.is_ok() && p.cost < EntryCost::SingleStep && !p.uncertain);
    // A conditional tail call is probed as an exit, and one place serves one probe.
    let cheap = cheap.filter(|p| !p.may_leave);
    let chosen = cheap.or_else(|| places.iter().find(|p| p.refusal.is_ok() && !p.rounds));
    if let Some(p) = chosen.or_else(|| places.iter().find(|p| p.refusal.is_ok())) {
        let may_repeat = p.rounds || repeats(body, sweep, p, check.as_ref());
        return Ok(Entry { address: Vaddr(p.address), cost: p.cost, may_repeat });
    }
    match places.first() {
        Some(first) => Err(first.refusal.err().unwrap_or(Refusal::Undecodable)),
        None => uprobes::refusal(body.code, body.address).and(Err(Refusal::Undecodable)),
    }
}

/// Whether there is a place, whatever the rest of the function looks like: both the first instruction and, in Go, the
/// first behind the stack check can take a probe, and one of them is always among the places.
pub(super) fn is_certain(body: &Body<'_>) -> bool {
    if !body.is_go && uprobes::is_surely_accepted(body.code) {
        return true;
    }
    let mut instructions = instructions(body.address, body.code).take_while(|i| !i.is_invalid());
    let can_be_probed = |i: &Instruction| Place::new(body, i).refusal.is_ok();
    if !body.is_go {
        return instructions.next().is_some_and(|i| can_be_probed(&i));
    }
    let mut window = Vec::new();
    // To the instruction behind the first that is none of a check's.
    for i in instructions.take(LONGEST_CHECK + 1) {
        let is_behind = window.last().is_some_and(|last| !goes_on(last));
        window.push(i);
        if is_behind {
            break;
        }
    }
    let behind = stack_check(&window).map_or(0, |check| check.len);
    [0, behind].iter().all(|&n| window.get(n).is_some_and(can_be_probed))
}

/// Whether a stack check may go on behind this instruction.
fn goes_on(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Sub | Mnemonic::Cmp | Mnemonic::Jb)
}

/// A place that every call passes with its registers still those of the entry.
struct Place {
    address: u64,
    refusal: Result<(), Refusal>,
    cost: EntryCost,
    is_push: bool,
    /// The probe is hit once for each round of a repeated string instruction.
    rounds: bool,
    /// A jump table might lead to a place between the entry and this one.
    uncertain: bool,
    /// A conditional jump out of the function.
    may_leave: bool,
}

/// Go's check for stack space: the branches to the slow path, which comes back to the entry.
struct StackCheck {
    /// How many instructions it takes.
    len: usize,
    slow_path: u64,
}

fn places(body: &Body<'_>, sweep: &Sweep, window: &[Instruction], check: Option<&StackCheck>) -> Vec<Place> {
    let kept = if body.is_go { GO_ARGUMENTS } else { C_ARGUMENTS };
    let first = check.map_or(0, |c| c.len);
    let has_table = sweep.leaving.iter().any(may_be_jump_table);
    let mut factory = InstructionInfoFactory::new();
    let mut places = Vec::new();
    for (n, i) in window.iter().enumerate() {
        if n > 0 && sweep.first_inner_target.is_some_and(|target| target <= i.ip()) {
            break;
        }
        if n >= first {
            let mut place = Place::new(body, i);
            place.uncertain = n > 0 && has_table && !place.is_push && check.is_none();
            places.push(place);
            if i.flow_control() != FlowControl::Next {
                break;
            }
        }
        if n >= first && changes(&mut factory, i, kept) {
            break;
        }
    }
    places
}

impl Place {
    fn new(body: &Body<'_>, i: &Instruction) -> Self {
        let offset = usize::try_from(i.ip() - body.address.0).unwrap_or(usize::MAX);
        let bytes = body.code.get(offset..).unwrap_or_default();
        Self {
            address: i.ip(),
            refusal: uprobes::refusal_of(i, bytes),
            cost: uprobes::cost(i, bytes),
            is_push: bytes.get(..i.len()).is_some_and(uprobes::is_push),
            rounds: uprobes::is_hit_every_round(i),
            uncertain: false,
            may_leave: i.flow_control() == FlowControl::ConditionalBranch
                && direct_target(i).is_some_and(|target| !body.holds(target)),
        }
    }
}

/// Whether the instruction writes the stack pointer, the frame pointer or a register that must be kept.
fn changes(factory: &mut InstructionInfoFactory, i: &Instruction, kept: &[Register]) -> bool {
    factory.info(i).used_registers().iter().any(|used| {
        let writes = matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        let full = used.register().full_register();
        writes && (full == Register::RSP || full == Register::RBP || kept.contains(&full))
    })
}

/// Whether a branch inside the function leads to the place once more.
fn repeats(body: &Body<'_>, sweep: &Sweep, p: &Place, check: Option<&StackCheck>) -> bool {
    let comes_back = match check {
        // The slow path comes back to the entry, but had not passed the place.
        Some(check) => sweep.back_to_entry.iter().any(|&from| from < check.slow_path),
        None => !sweep.back_to_entry.is_empty(),
    };
    let by_table = check.is_none() && !p.is_push && !body.is_go && sweep.leaving.iter().any(may_be_jump_table);
    comes_back || by_table
}

/// A tail call through memory has no index; a jump table has one, or its target in a register.
fn may_be_jump_table(leaving: &Leaving) -> bool {
    let i = &leaving.instruction;
    i.flow_control() == FlowControl::IndirectBranch
        && (i.op0_kind() == OpKind::Register || i.memory_index() != Register::None)
}

/// Instructions of the longest stack check: mov, mov, mov, sub, jb, cmp, jbe.
const LONGEST_CHECK: usize = 8;

/// Go's stack check at the start of `window`, in all its forms (cmd/internal/obj/x86/obj6.go, stacksplit):
/// small frames compare SP with g.stackguard, larger ones `lea -N(SP)` in r12 (rax or others before 1.17), huge ones
/// subtract first and have one more branch; g is in r14, or in assembly loaded from thread-local storage.
fn stack_check(window: &[Instruction]) -> Option<StackCheck> {
    let mut compared = false;
    for (n, i) in window.iter().take(LONGEST_CHECK).enumerate() {
        match i.mnemonic() {
            Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Sub => {
                if !is_stack_check_step(i) {
                    return None;
                }
                compared = false;
            }
            Mnemonic::Cmp if is_guard_compare(i) => compared = true,
            Mnemonic::Jb => {}
            Mnemonic::Jbe if compared => {
                return Some(StackCheck { len: n + 1, slow_path: i.near_branch_target() });
            }
            _ => return None,
        }
    }
    None
}

/// A step towards the comparison: it sets a scratch register and leaves the stack pointer alone.
fn is_stack_check_step(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register
        && i.op0_register().is_gpr64()
        && i.op0_register() != Register::RSP
        && (i.memory_segment() == Register::FS
            || i.is_ip_rel_memory_operand()
            || i.memory_base() == Register::RSP
            || i.mnemonic() == Mnemonic::Sub
            || i.mnemonic() == Mnemonic::Mov && i.op1_kind() != OpKind::Memory)
}

/// `cmp 0x10(g), SP-or-scratch` (stackguard0) or `0x18(g)` (stackguard1).
fn is_guard_compare(i: &Instruction) -> bool {
    let register = match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Register, OpKind::Memory) => i.op0_register(),
        (OpKind::Memory, OpKind::Register) => i.op1_register(),
        _ => return false,
    };
    register.is_gpr64()
        && i.memory_base().is_gpr64()
        && i.memory_index() == Register::None
        && matches!(i.memory_displacement64(), 0x10 | 0x18)
}
