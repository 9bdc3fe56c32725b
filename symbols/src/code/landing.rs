//! Where an unwinder lets go: the instruction with which it enters the frame that it unwound to.
//!
//! An unwinder (`_Unwind_RaiseException`, `longjmp`) ends by loading a stack pointer that is no frame of its own and
//! jumping. libgcc: `mov %rcx,%rsp; pop %rcx; jmp *%rcx`, before GCC 8 `mov %rcx,%rsp; ret`, and
//! `lea 16(%rsp,%rdi),%rsp; ret` without a frame pointer (`__builtin_eh_return`: gcc/config/i386/i386.cc,
//! `ix86_expand_epilogue`). LLVM's libunwind: `mov 56(%rdi),%rsp; … ret`, or `pop %rcx; jmp *%rcx`
//! (libunwind/src/UnwindRegistersRestore.S). glibc: `mov %r8,%rsp; mov %r9,%rbp; jmp *%rdx`
//! (sysdeps/x86_64/__longjmp.S). musl: `mov 48(%rdi),%rsp; jmp *56(%rdi)` (src/setjmp/x86_64/longjmp.s).

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::sweep::instructions;
use super::uprobes;
use crate::addr::Vaddr;
use crate::binary::Machine;

/// The jumps and returns in a function's code (which begins at `address`) that leave with a stack pointer from
/// elsewhere. When one of them is about to be executed, the stack pointer is that of the frame gone to; at a return,
/// one word below. Those that cannot be probed are left out.
pub fn landings(machine: Machine, code: &[u8], address: Vaddr) -> Vec<Vaddr> {
    if machine != Machine::X86_64 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut switched = false;
    for i in instructions(address, code) {
        match i.flow_control() {
            FlowControl::Next => switched |= switches_stack(&i),
            FlowControl::IndirectBranch | FlowControl::Return if switched => {
                let bytes = i.ip().checked_sub(address.0).and_then(|at| code.get(usize::try_from(at).ok()?..));
                if uprobes::refusal_of(&i, bytes.unwrap_or_default()).is_ok() {
                    found.push(Vaddr(i.ip()));
                }
                switched = false;
            }
            _ => switched = false,
        }
    }
    found
}

/// Whether the stack pointer is now no frame of this function: `leave`, `mov %rbp,%rsp` and sums with constants keep
/// within it.
fn switches_stack(i: &Instruction) -> bool {
    let writes = i.op_count() > 0 && i.op0_kind() == OpKind::Register && i.op0_register() == Register::RSP;
    if !writes {
        return false;
    }
    match i.mnemonic() {
        Mnemonic::Mov if i.op1_kind() == OpKind::Register => i.op1_register() != Register::RBP,
        Mnemonic::Mov => i.op1_kind() == OpKind::Memory,
        Mnemonic::Add => i.op1_kind() == OpKind::Register,
        Mnemonic::Lea => i.memory_index() != Register::None || !is_frame(i.memory_base()),
        _ => false,
    }
}

fn is_frame(base: Register) -> bool {
    matches!(base, Register::RSP | Register::RBP)
}

/// Whether this is glibc's `__longjmp`: the frame's stack pointer is word 6 of the buffer in rdi, rotated and combined
/// with the word at `fs:0x30` (sysdeps/x86_64/__longjmp.S; sysdeps/unix/sysv/linux/x86_64/pointer_guard.h). So a call
/// of it tells where it lands, by an instruction that costs a twentieth of the jump's.
pub fn restores_guarded_buffer(machine: Machine, code: &[u8], address: Vaddr) -> bool {
    const STACK_POINTER: u64 = 6 * 8;
    if machine != Machine::X86_64 {
        return false;
    }
    let mut all = instructions(address, code);
    let is_load = |i: &Instruction| {
        let from_buffer = i.memory_base() == Register::RDI && i.memory_index() == Register::None;
        i.mnemonic() == Mnemonic::Mov && from_buffer && i.memory_displacement64() == STACK_POINTER
    };
    let Some(register) = all.find(is_load).map(|i| i.op0_register()) else { return false };
    let mut next = |is_it: &dyn Fn(&Instruction) -> bool| all.any(|i| is_it(&i));
    next(&|i| i.mnemonic() == Mnemonic::Ror && i.op0_register() == register && matches!(i.try_immediate(1), Ok(17)))
        && next(&|i| {
            let guard = i.memory_segment() == Register::FS && i.memory_displacement64() == 0x30;
            i.mnemonic() == Mnemonic::Xor && i.op0_register() == register && guard
        })
        && next(&|i| switches_stack(i) && i.op1_register() == register)
}

/// Where a function's code (which begins at `address`) calls or jumps to outside of itself, directly.
pub fn callees(machine: Machine, code: &[u8], address: Vaddr) -> Vec<Vaddr> {
    if machine != Machine::X86_64 {
        return Vec::new();
    }
    let own = address.0..address.0.saturating_add(code.len() as u64);
    let mut found: Vec<Vaddr> = instructions(address, code)
        .filter_map(|i| super::sweep::direct_target(&i))
        .filter(|target| !own.contains(target))
        .map(Vaddr)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
