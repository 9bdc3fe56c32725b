//! How much a function has pushed when it comes to a jump.
//!
//! A tail call happens at the stack pointer of the entry. So an indirect jump at another depth is a jump table, and a
//! jump to an unknown place at another depth leads to a part of the same function: neither is worth a probe that would
//! be hit in an interpreter's every round.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use rustc_hash::FxHashMap;

use super::Body;
use super::sweep::{direct_target, instructions};

/// For the address of each jump: bytes pushed since the entry. What is not known is not in it.
pub(super) type Depths = FxHashMap<u64, i64>;

/// One pass in address order: a depth flows along instructions and forward jumps; after an unconditional jump with no
/// known predecessor it is unknown.
pub(super) fn at_jumps(body: &Body<'_>) -> Depths {
    let mut known = FxHashMap::<u64, i64>::default();
    let mut jumps = Depths::default();
    let mut factory = InstructionInfoFactory::new();
    known.insert(body.address.0, 0);
    for (start, code) in body.pieces() {
        let mut depth = None;
        for i in instructions(start, code).take_while(|i| !i.is_invalid()) {
            depth = known.get(&i.ip()).copied().or(depth);
            if let (Some(d), true) = (depth, is_jump(&i)) {
                jumps.insert(i.ip(), d);
                if let Some(target) = direct_target(&i) {
                    known.entry(target).or_insert(d);
                }
            }
            depth = after(&mut factory, &i, depth);
        }
    }
    jumps
}

fn is_jump(i: &Instruction) -> bool {
    matches!(
        i.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::IndirectBranch
    )
}

fn after(factory: &mut InstructionInfoFactory, i: &Instruction, depth: Option<i64>) -> Option<i64> {
    match i.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return => return None,
        FlowControl::Call | FlowControl::IndirectCall => return depth,
        _ => {}
    }
    // The frame pointer's own slot is the first thing pushed where `leave` is used, as compilers do.
    if i.mnemonic() == Mnemonic::Leave {
        return Some(0);
    }
    if i.is_stack_instruction() && !writes_stack_pointer_otherwise(i) {
        return depth?.checked_sub(i64::from(i.stack_pointer_increment()));
    }
    let grows = constant_change(i);
    if grows.is_some() {
        return depth?.checked_add(grows?);
    }
    let writes = factory.info(i).used_registers().iter().any(|used| {
        used.register().full_register() == Register::RSP
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
    });
    if writes { None } else { depth }
}

/// `pop %rsp` and `enter` do more than move the stack pointer by a constant.
fn writes_stack_pointer_otherwise(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Enter || i.mnemonic() == Mnemonic::Pop && i.op0_register() == Register::RSP
}

/// By how many bytes `sub`, `add` or `lea` of the stack pointer deepens the stack.
fn constant_change(i: &Instruction) -> Option<i64> {
    if i.op_count() != 2 || i.op0_kind() != OpKind::Register || i.op0_register() != Register::RSP {
        return None;
    }
    match i.mnemonic() {
        Mnemonic::Sub | Mnemonic::Add => {
            let bytes = i.try_immediate(1).ok()?.cast_signed();
            if i.mnemonic() == Mnemonic::Sub { Some(bytes) } else { bytes.checked_neg() }
        }
        Mnemonic::Lea if i.memory_base() == Register::RSP && i.memory_index() == Register::None => {
            i.memory_displacement64().cast_signed().checked_neg()
        }
        _ => None,
    }
}
