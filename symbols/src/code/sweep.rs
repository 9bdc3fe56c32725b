//! One pass over a function's instructions.
//!
//! Compiled code is swept from end to end, since parts of it are reached by no branch at all (C++ landing pads, the
//! place where a recovered Go panic goes on). Where that meets bytes that are no instruction, and in hand-written Go
//! assembly, data may lie between instructions, and a probe there would change it: then only what is reached from the
//! entry counts.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use rustc_hash::FxHashSet;

use super::Body;
use crate::addr::Vaddr;

/// How many instructions before an indirect jump its jump table is looked up. Compilers write three in a row, and
/// sometimes move others in between.
const LOOKUP: usize = 8;

/// A return or a jump.
pub(super) struct Leaving {
    pub(super) instruction: Instruction,
    /// The jump's target was just read from a table of 4-byte distances: `movslq (base,index,4), r; add base, r;
    /// jmp *r`, which GCC and LLVM write for `switch` and `match` in position-independent code, and for nothing else.
    pub(super) by_table: bool,
}

/// What a function's instructions tell.
#[derive(Default)]
pub(super) struct Sweep {
    /// Returns and jumps of every kind, body first, each piece by address.
    pub(super) leaving: Vec<Leaving>,
    /// The smallest address after the entry that something inside the function jumps to.
    pub(super) first_inner_target: Option<u64>,
    /// The instructions inside the function that jump to its entry.
    pub(super) back_to_entry: Vec<u64>,
    /// Some code could not be read, or was not looked at.
    pub(super) incomplete: bool,
    /// The code's last instruction runs on into whatever follows.
    pub(super) runs_past_end: bool,
    /// The last instructions seen, as a ring.
    recent: [Instruction; LOOKUP],
    seen: usize,
}

/// The instructions of a piece of code, the invalid ones too.
pub(super) fn instructions<'a>(start: Vaddr, code: &'a [u8]) -> impl Iterator<Item = Instruction> + 'a {
    let mut decoder = Decoder::with_ip(64, code, start.0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// Where a branch, call or transaction with a fixed target goes.
pub(super) fn direct_target(i: &Instruction) -> Option<u64> {
    match i.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call => {
            is_near(i).then(|| i.near_branch_target())
        }
        FlowControl::XbeginXabortXend if is_near(i) => Some(i.near_branch_target()),
        _ => None,
    }
}

fn is_near(i: &Instruction) -> bool {
    use OpKind::{NearBranch16, NearBranch32, NearBranch64};
    i.op_count() > 0 && matches!(i.op0_kind(), NearBranch16 | NearBranch32 | NearBranch64)
}

impl Sweep {
    pub(super) fn of(body: &Body<'_>) -> Self {
        if !body.go_asm
            && let Some(sweep) = Self::linear(body)
        {
            return sweep;
        }
        Self::reachable(body)
    }

    /// `None` if some bytes are no instruction.
    fn linear(body: &Body<'_>) -> Option<Self> {
        let mut sweep = Self::default();
        for (start, code) in body.pieces() {
            let mut last = None;
            for i in instructions(start, code) {
                if i.is_invalid() {
                    return None;
                }
                sweep.note(body, &i);
                last = Some(i);
            }
            sweep.runs_past_end |= last.is_some_and(|i| runs_on(&i));
        }
        Some(sweep)
    }

    /// What is reached from the entry by falling through and by direct jumps.
    fn reachable(body: &Body<'_>) -> Self {
        let mut sweep = Self { incomplete: !body.go_asm, ..Self::default() };
        let mut seen = FxHashSet::default();
        let mut todo = vec![body.address.0];
        while let Some(at) = todo.pop() {
            let Some((start, code)) = body.piece_from(at) else { continue };
            let mut fell_out = true;
            for i in instructions(start, code) {
                // Each instruction is visited once: the work is bounded by the code's length.
                if !seen.insert(i.ip()) {
                    fell_out = false;
                    break;
                }
                if i.is_invalid() {
                    (sweep.incomplete, fell_out) = (true, false);
                    break;
                }
                sweep.note(body, &i);
                todo.extend(direct_target(&i));
                if !falls_through(&i) {
                    fell_out = false;
                    break;
                }
            }
            sweep.runs_past_end |= fell_out;
        }
        sweep.leaving.sort_by_key(|l| l.instruction.ip());
        sweep
    }

    fn note(&mut self, body: &Body<'_>, i: &Instruction) {
        let flow = i.flow_control();
        if flow == FlowControl::Next {
            self.recent[self.seen % LOOKUP] = *i;
            self.seen = self.seen.wrapping_add(1);
            return;
        }
        if let Some(target) = direct_target(i) {
            self.note_target(body, i, target);
        }
        if matches!(
            flow,
            FlowControl::Return
                | FlowControl::UnconditionalBranch
                | FlowControl::ConditionalBranch
                | FlowControl::IndirectBranch
        ) {
            let by_table = flow == FlowControl::IndirectBranch && self.reads_table(i);
            self.leaving.push(Leaving { instruction: *i, by_table });
        }
    }

    fn reads_table(&self, jump: &Instruction) -> bool {
        if jump.op0_kind() != OpKind::Register {
            return false;
        }
        let mut back = (1..=LOOKUP.min(self.seen)).map(|n| &self.recent[self.seen.wrapping_sub(n) % LOOKUP]);
        let sum = back.find(|i| i.op0_kind() == OpKind::Register && i.op0_register() == jump.op0_register());
        let is_sum = sum.is_some_and(|i| i.mnemonic() == Mnemonic::Add && i.op1_kind() == OpKind::Register);
        is_sum && back.any(|i| i.mnemonic() == Mnemonic::Movsxd && i.memory_index_scale() == 4)
    }

    fn note_target(&mut self, body: &Body<'_>, i: &Instruction, target: u64) {
        let is_call = i.flow_control() == FlowControl::Call;
        if target == body.address.0 {
            // A call to the entry is recursion: another call, with an event of its own.
            if !is_call {
                self.back_to_entry.push(i.ip());
            }
        } else if body.address.0 < target && body.holds(target) {
            // `call 1f; 1: pop` reaches the inside too.
            self.first_inner_target = Some(self.first_inner_target.map_or(target, |t| t.min(target)));
        }
    }
}

fn falls_through(i: &Instruction) -> bool {
    !matches!(
        i.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception
    )
}

/// At a function's end: padding, traps and calls that never return are usual there, anything else runs on.
fn runs_on(i: &Instruction) -> bool {
    let padding = matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Hlt) || matches!(i.code(), Code::Int3 | Code::Int1);
    matches!(i.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch) && !padding
}

impl<'a> Body<'a> {
    /// The body and its parts.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Vaddr, &'a [u8])> {
        std::iter::once((self.address, self.code)).chain(self.parts.iter().copied())
    }

    /// Whether `v` lies in the body or a part.
    pub(super) fn holds(&self, v: u64) -> bool {
        self.piece_from(v).is_some()
    }

    /// Bytes of code, those of parts included: what is read to find the function's [`Shape`](super::Shape).
    pub fn code_len(&self) -> usize {
        self.pieces().map(|(_, code)| code.len()).sum()
    }

    /// The bytes from `v` to the end of the piece that holds it.
    pub(super) fn piece_from(&self, v: u64) -> Option<(Vaddr, &'a [u8])> {
        self.pieces().find_map(|(start, code)| {
            let offset = usize::try_from(v.checked_sub(start.0)?).ok()?;
            let rest = code.get(offset..).filter(|rest| !rest.is_empty())?;
            Some((Vaddr(v), rest))
        })
    }
}
