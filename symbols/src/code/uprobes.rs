//! What Linux does with a uprobe on one x86-64 instruction. Sources: `docs/uprobes.md`.

use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic, Register};

use super::{Encoding, EntryCost, Refusal};
use crate::addr::Vaddr;

/// The bytes that matter to the kernel: `arch/x86/kernel/uprobes.c` looks at prefixes and opcodes, not at operands.
struct Opcode {
    prefixes: Prefixes,
    rex: Option<u8>,
    first: u8,
    second: Option<u8>,
}

#[derive(Default)]
struct Prefixes {
    refused: Option<&'static str>,
    operand_size: bool,
}

impl Opcode {
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut prefixes = Prefixes::default();
        let mut rest = bytes.iter().copied();
        let mut byte = rest.next()?;
        while prefixes.take(byte) {
            byte = rest.next()?;
        }
        let rex = (byte & 0xf0 == 0x40).then_some(byte);
        if rex.is_some() {
            byte = rest.next()?;
        }
        Some(Self { prefixes, rex, first: byte, second: rest.next() })
    }

    /// A relative branch, as `branch_setup_xol_ops` knows them.
    fn is_relative_branch(&self) -> bool {
        matches!(self.first, 0x70..=0x7f | 0xe8 | 0xe9 | 0xeb)
            || self.first == 0x0f && matches!(self.second, Some(0x80..=0x8f))
    }
}

impl Prefixes {
    /// Whether `byte` is a legacy prefix.
    fn take(&mut self, byte: u8) -> bool {
        match byte {
            // is_prefix_bad()
            0x26 => self.refused = Some("es"),
            0x2e => self.refused = Some("cs"),
            0x36 => self.refused = Some("ss"),
            0x3e => self.refused = Some("ds (notrack)"),
            0xf0 => self.refused = Some("lock"),
            0x66 => self.operand_size = true,
            0x64 | 0x65 | 0x67 | 0xf2 | 0xf3 => {}
            _ => return false,
        }
        true
    }
}

/// Whether the instruction at the start of `code` may be probed.
pub(super) fn refusal(code: &[u8], address: Vaddr) -> Result<(), Refusal> {
    let instruction = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE).decode();
    refusal_of(&instruction, code)
}

/// Whether the instruction at the start of `code` may be probed for sure, whatever follows its first bytes: those that
/// nearly all functions begin with. To decode them takes most of the time that a look at all of a program's entries takes.
pub(super) fn is_surely_accepted(code: &[u8]) -> bool {
    // What is cut off might be no instruction.
    if code.len() < LONGEST_INSTRUCTION {
        return false;
    }
    let (rex, rest) = match code {
        [rex @ 0x40..=0x4f, rest @ ..] => (Some(*rex), rest),
        _ => (None, code),
    };
    match rest {
        // push
        [0x50..=0x57, ..] => rex.is_none_or(|rex| rex == 0x41),
        // add, sub, xor, cmp, test and mov with a register and a ModRM operand, and with a register and a constant
        [
            0x01 | 0x03 | 0x29 | 0x2b | 0x31 | 0x33 | 0x39 | 0x3b | 0x85 | 0x89 | 0x8b | 0x81 | 0x83 | 0xb8..=0xbf,
            ..,
        ] => true,
        // lea, whose operand is in memory
        [0x8d, modrm, ..] => *modrm < 0xc0,
        // endbr64
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => rex.is_none(),
        _ => false,
    }
}

/// Bytes.
const LONGEST_INSTRUCTION: usize = 15;

/// Whether the decoded instruction, whose bytes `code` begins with, may be probed.
pub(super) fn refusal_of(instruction: &Instruction, code: &[u8]) -> Result<(), Refusal> {
    if instruction.is_invalid() {
        return Err(Refusal::Undecodable);
    }
    let opcode = Opcode::of(code).ok_or(Refusal::Undecodable)?;
    if let Some(name) = opcode.prefixes.refused {
        return Err(Refusal::Prefix(name));
    }
    match instruction.encoding() {
        EncodingKind::Legacy => {}
        // Opcodes are looked up without their map: vpor (eb) would be carried out as a jump, vpsubsb (e8) as a call.
        EncodingKind::VEX => return Err(Refusal::Vector(Encoding::Vex)),
        EncodingKind::EVEX => return Err(Refusal::Vector(Encoding::Evex)),
        _ => return Err(Refusal::Vector(Encoding::Amd)),
    }
    // branch_setup_xol_ops(): "CALLW (66 e8 nn nn) are not supported".
    if opcode.prefixes.operand_size && opcode.is_relative_branch() {
        return Err(Refusal::Prefix("16-bit operand"));
    }
    refused_opcode(instruction, &opcode).map_or(Ok(()), Err)
}

/// The zeroes of `good_insns_64` that are instructions in 64-bit mode, and what must not be probed though it can be.
fn refused_opcode(instruction: &Instruction, opcode: &Opcode) -> Option<Refusal> {
    use Refusal::{BreaksTarget, Refused};
    Some(match opcode.first {
        0x6c..=0x6f | 0xe4..=0xe7 | 0xec..=0xef => Refused("in/out"),
        0xcc => Refused("int3"),
        0xcd => Refused("int"),
        0xcf => Refused("iret"),
        0xf1 => Refused("int1"),
        0xf4 => Refused("hlt"),
        0xfa | 0xfb => Refused("cli/sti"),
        // APX: 6.18 takes it, older kernels do not know it.
        0xd5 => Refused("rex2"),
        // insn_masking_exception(): the trap after a load of SS is put off by one instruction.
        0x8e if instruction.op0_register() == Register::SS => Refused("mov to ss"),
        0x9c => BreaksTarget("pushf"),
        0xca | 0xcb => BreaksTarget("retf"),
        // `41 90` is xchg %r8,%rax, but the kernel takes every 90 for a no-op and passes over it.
        0x90 if opcode.rex.is_some_and(|rex| rex & 1 != 0) => BreaksTarget("xchg"),
        _ => return breaks_target(instruction).map(BreaksTarget),
    })
}

fn breaks_target(instruction: &Instruction) -> Option<&'static str> {
    Some(match instruction.mnemonic() {
        Mnemonic::Syscall => "syscall",
        Mnemonic::Sysenter => "sysenter",
        Mnemonic::Sysret | Mnemonic::Sysretq => "sysret",
        Mnemonic::Sysexit | Mnemonic::Sysexitq => "sysexit",
        Mnemonic::Xbegin => "xbegin",
        Mnemonic::Lss => "lss",
        _ => match instruction.code() {
            Code::Call_m1616 | Code::Call_m1632 | Code::Call_m1664 => "far call",
            Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664 => "far jmp",
            _ => return None,
        },
    })
}

/// What a hit costs on an instruction that is not refused.
pub(super) fn cost(instruction: &Instruction, code: &[u8]) -> EntryCost {
    let bytes = code.get(..instruction.len()).unwrap_or(code);
    let Some(opcode) = Opcode::of(bytes) else { return EntryCost::SingleStep };
    // is_nop5_insn()
    if bytes == [0x0f, 0x1f, 0x44, 0x00, 0x00] {
        EntryCost::Nop
    } else if opcode.is_relative_branch() || is_push(bytes) || is_nop(bytes, &opcode) {
        EntryCost::Emulated
    } else {
        EntryCost::SingleStep
    }
}

/// `push_setup_xol_ops`: one byte, or two with REX.B alone.
pub(super) fn is_push(bytes: &[u8]) -> bool {
    matches!(bytes, [0x50..=0x57] | [0x41, 0x50..=0x57])
}

/// `90` behind any prefix, and since 6.18 the no-ops that the kernel itself would write (`x86_nops`).
fn is_nop(bytes: &[u8], opcode: &Opcode) -> bool {
    opcode.first == 0x90
        || matches!(
            bytes,
            [0x0f, 0x1f, 0x00]
                | [0x0f, 0x1f, 0x40, 0]
                | [0x66, 0x0f, 0x1f, 0x44, 0, 0]
                | [0x0f, 0x1f, 0x80, 0, 0, 0, 0]
                | [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]
        )
}

/// A repeated string instruction: the trap flag stops it after each round, so a probe on it is hit once a round.
pub(super) fn is_hit_every_round(instruction: &Instruction) -> bool {
    instruction.has_rep_prefix() || instruction.has_repne_prefix()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoder and the list of refusals are the oracle, over all beginnings of two bytes and many that follow.
    #[test]
    fn what_is_surely_accepted_is_what_the_decoder_accepts() {
        let mut state = 1_u64;
        let (mut sure, mut accepted) = (0_u32, 0_u32);
        for beginning in 0..=u16::MAX {
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut code = [0; 18];
                code[..2].copy_from_slice(&beginning.to_le_bytes());
                code[2..10].copy_from_slice(&(state ^ state >> 29).to_le_bytes());
                code[10..].copy_from_slice(&state.rotate_left(31).to_le_bytes());
                let is_accepted = refusal(&code, Vaddr(0x1000)).is_ok();
                assert!(is_accepted || !is_surely_accepted(&code), "{code:02x?}");
                accepted += u32::from(is_accepted);
                sure += u32::from(is_surely_accepted(&code));
            }
        }
        assert!(sure > accepted / 10, "{sure} of {accepted}");
    }

    #[test]
    fn what_is_cut_off_is_not_sure() {
        for code in [&[0x55][..], &[0x48, 0x89, 0xe5], &[0x41, 0x57], &[]] {
            assert!(!is_surely_accepted(code), "{code:02x?}");
        }
    }
}
