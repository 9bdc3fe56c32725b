//! Indirect jumps, as the kernel half follows them.

use probe_ebpf::abi::{Jump, NO_REGISTER};
use symbols::{addr::Vaddr, code::JumpOperand, index::Function};

/// Linux x86-64 `struct pt_regs`: byte offset of the register with this encoding (0–15).
const PT_REGS: [u32; 16] = [
    80,  // rax
    88,  // rcx
    96,  // rdx
    40,  // rbx
    152, // rsp
    32,  // rbp
    104, // rsi
    112, // rdi
    72,  // r8
    64,  // r9
    56,  // r10
    48,  // r11
    24,  // r12
    16,  // r13
    8,   // r14
    0,   // r15
];

fn register(encoding: Option<u8>) -> u32 {
    // Linux arm64 `struct user_pt_regs` begins with x0 to x30.
    let offset = |e: u8| if cfg!(target_arch = "aarch64") { Some(u32::from(e) * 8) } else { pt_regs(e) };
    encoding.and_then(offset).unwrap_or(NO_REGISTER)
}

fn pt_regs(encoding: u8) -> Option<u32> {
    PT_REGS.get(usize::from(encoding)).copied()
}

/// What the kernel half needs to know where the jump at `address` goes, and whether that is inside the function.
pub(super) fn jump(operand: &JumpOperand, address: Vaddr, function: &Function<'_>, parts: &[(Vaddr, u64)]) -> Jump {
    let distance = |to: u64| to.wrapping_sub(address.0) as i64;
    let range = |start: Vaddr, size: u64| [distance(start.0), distance(start.0.wrapping_add(size))];
    let mut own = [range(function.address, function.size), [0, 0]];
    if let Some(&(start, size)) = parts.first() {
        own[1] = range(start, size);
    }
    let none = Jump { base: NO_REGISTER, index: NO_REGISTER, scale: 1, own, ..Jump::default() };
    match operand {
        JumpOperand::Register(encoding) => Jump { base: register(Some(*encoding)), ..none },
        JumpOperand::Memory { base, index, scale, displacement, rip_relative } => Jump {
            base: register(*base),
            index: register(*index),
            scale: u32::from(*scale),
            memory: 1,
            displacement: if *rip_relative { distance(*displacement as u64) } else { *displacement },
            ip_relative: u32::from(*rip_relative),
            ..none
        },
    }
}
