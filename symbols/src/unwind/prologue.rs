//! Frame set-up as the instructions show it: Go assembly, and C without unwind tables.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::addr::Vaddr;
use crate::binary::{Binary, Machine};

/// A prologue is done after this many instructions: Go's stack check takes up to eight, V8's interpreter looks at what it is
/// to run for 23 before it sets up its frame.
const LONGEST: usize = 40;

/// Whether the function (`.0` its start, `.1` its bytes) has set up rbp before it comes to `v`: `push %rbp; mov %rsp,
/// %rbp`, or as Go's assembler did up to 1.20, a store of rbp into the frame and `lea n(%rsp),%rbp`.
pub(super) fn sets_up_frame(binary: &Binary, function: (Vaddr, u64), v: Vaddr) -> bool {
    let before = v.0.checked_sub(function.0.0).filter(|&n| n > 0 && n <= function.1);
    let Some(code) = before.and_then(|n| binary.bytes_at(function.0, n)) else { return false };
    if binary.machine() != Machine::X86_64 {
        return false;
    }
    let (mut saved, mut resumes) = (false, function.0.0);
    for i in Decoder::with_ip(64, code, function.0.0, DecoderOptions::NONE).into_iter().take(LONGEST) {
        if saved && sets_rbp(&i) {
            return true;
        }
        // What a jump leads over must not have been the saving.
        saved |= i.ip() >= resumes && saves_rbp(&i);
        // The stack check's branches come first; a call means that the prologue is over.
        match i.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            // Between two ways that meet again.
            FlowControl::UnconditionalBranch if !saved && i.near_branch_target() > i.ip() => {
                resumes = resumes.max(i.near_branch_target());
            }
            _ => return false,
        }
    }
    false
}

fn saves_rbp(i: &Instruction) -> bool {
    let stores = i.mnemonic() == Mnemonic::Mov
        && i.op0_kind() == OpKind::Memory
        && i.memory_base() == Register::RSP
        && i.op1_register() == Register::RBP;
    stores || i.code() == Code::Push_r64 && i.op0_register() == Register::RBP
}

fn sets_rbp(i: &Instruction) -> bool {
    let from_stack = match i.mnemonic() {
        Mnemonic::Mov => i.op1_kind() == OpKind::Register && i.op1_register() == Register::RSP,
        Mnemonic::Lea => i.memory_base() == Register::RSP && i.memory_index() == Register::None,
        _ => false,
    };
    from_stack && i.op0_kind() == OpKind::Register && i.op0_register() == Register::RBP
}
