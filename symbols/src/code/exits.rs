//! Which of a function's returns and jumps leave it.

use std::cell::OnceCell;

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::depth::{self, Depths};
use super::sweep::{Leaving, Sweep, direct_target};
use super::{Body, Condition, Entry, Exit, ExitKind, JumpOperand, Refusal, Shape, uprobes};
use crate::addr::Vaddr;

/// The ways out of a function.
#[derive(Default)]
pub(super) struct Found {
    pub(super) exits: Vec<Exit>,
    pub(super) refused: Vec<(Vaddr, Refusal)>,
    pub(super) unprobed_jumps: bool,
    pub(super) strays: Vec<Vaddr>,
}

/// Sorts a function's returns and jumps.
pub(super) fn find(body: &Body<'_>, sweep: &Sweep, starts_function: &dyn Fn(Vaddr) -> bool) -> Found {
    let mut found = Found { unprobed_jumps: sweep.incomplete || sweep.runs_past_end, ..Found::default() };
    let depths = OnceCell::new();
    for Leaving { instruction: i, by_table } in &sweep.leaving {
        let way = match i.flow_control() {
            FlowControl::Return => Way::Out(ExitKind::Return),
            FlowControl::IndirectBranch if *by_table => Way::Inside,
            FlowControl::IndirectBranch => indirect(body, i, &depths),
            _ => direct(body, i, starts_function, &depths),
        };
        let bytes = body.piece_from(i.ip()).map_or(&[][..], |(_, bytes)| bytes);
        found.add(Vaddr(i.ip()), way, || uprobes::refusal_of(i, bytes));
    }
    found
}

/// Whether an instruction leaves the function.
pub(super) enum Way {
    Inside,
    Out(ExitKind),
    /// Out, if the target is a function and no nameless part of this one.
    MaybeOut(ExitKind),
    /// With a frame on the stack to code that no name is known for: to a part of this function.
    Stray(Vaddr),
    /// Out or to a nameless part of this function, and no probe can tell.
    Untold,
}

impl Found {
    pub(super) fn into_shape(self, entry: Result<Entry, Refusal>) -> Shape {
        let Self { exits, refused, unprobed_jumps, strays } = self;
        Shape { entry, exits, refused_exits: refused, unprobed_jumps, strays }
    }

    /// Takes in one instruction; `probe` says whether it may be probed.
    pub(super) fn add(&mut self, address: Vaddr, way: Way, probe: impl FnOnce() -> Result<(), Refusal>) {
        let kind = match way {
            Way::Inside => return,
            Way::Untold => return self.unprobed_jumps = true,
            Way::Stray(target) => {
                self.unprobed_jumps = true;
                return self.strays.push(target);
            }
            Way::MaybeOut(kind) => {
                self.unprobed_jumps = true;
                kind
            }
            Way::Out(kind) => kind,
        };
        match probe() {
            Ok(()) => self.exits.push(Exit { address, kind }),
            Err(why) => {
                self.refused.push((address, why));
                self.unprobed_jumps |= kind != ExitKind::Return;
            }
        }
    }
}

fn direct(body: &Body<'_>, i: &Instruction, starts_function: &dyn Fn(Vaddr) -> bool, depths: &OnceCell<Depths>) -> Way {
    let Some(target) = direct_target(i) else { return Way::Untold };
    if body.holds(target) {
        return Way::Inside;
    }
    // jrcxz, loop, loope: the kernel half does not follow them.
    if is_counted(i) {
        return Way::Untold;
    }
    let condition = condition(i.condition_code());
    let target = Vaddr(target);
    let kind = ExitKind::TailJump { target, condition };
    if starts_function(target) {
        Way::Out(kind)
    } else if depth_at(body, i, depths).is_some_and(|d| d != 0) {
        Way::Stray(target)
    } else {
        Way::MaybeOut(kind)
    }
}

fn is_counted(i: &Instruction) -> bool {
    use Mnemonic::{Jcxz, Jecxz, Jrcxz, Loop, Loope, Loopne};
    matches!(i.mnemonic(), Jcxz | Jecxz | Jrcxz | Loop | Loope | Loopne)
}

fn indirect(body: &Body<'_>, i: &Instruction, depths: &OnceCell<Depths>) -> Way {
    // GCC and Clang put notrack on jump tables only (-fcf-protection); Go's indexed jumps are all tables.
    let is_table = has_notrack(body, i) || body.is_go && i.memory_index() != Register::None;
    if is_table {
        return Way::Inside;
    }
    // Behind a call that never returns the depth is a guess, so this is told to the reader of the events.
    if depth_at(body, i, depths).is_some_and(|d| d != 0) {
        return Way::Untold;
    }
    operand(i).map_or(Way::Untold, |operand| Way::Out(ExitKind::IndirectJump { operand }))
}

fn has_notrack(body: &Body<'_>, i: &Instruction) -> bool {
    body.piece_from(i.ip()).is_some_and(|(_, bytes)| bytes.first() == Some(&0x3e))
}

fn depth_at(body: &Body<'_>, i: &Instruction, depths: &OnceCell<Depths>) -> Option<i64> {
    depths.get_or_init(|| depth::at_jumps(body)).get(&i.ip()).copied()
}

fn operand(i: &Instruction) -> Option<JumpOperand> {
    match i.op0_kind() {
        OpKind::Register => register(i.op0_register()).map(JumpOperand::Register),
        // A segment other than DS cannot be followed from the registers alone.
        OpKind::Memory if i.memory_segment() == Register::DS || i.memory_segment() == Register::SS => memory(i),
        _ => None,
    }
}

fn memory(i: &Instruction) -> Option<JumpOperand> {
    if i.is_ip_rel_memory_operand() {
        let displacement = i.ip_rel_memory_address().cast_signed();
        return Some(JumpOperand::Memory { base: None, index: None, scale: 1, displacement, rip_relative: true });
    }
    Some(JumpOperand::Memory {
        base: optional(i.memory_base())?,
        index: optional(i.memory_index())?,
        scale: u8::try_from(i.memory_index_scale()).ok()?,
        displacement: i.memory_displacement64().cast_signed(),
        rip_relative: false,
    })
}

/// `Some(None)`: no register; `None`: one that is not a 64-bit general register.
fn optional(r: Register) -> Option<Option<u8>> {
    if r == Register::None { Some(None) } else { register(r).map(Some) }
}

fn register(r: Register) -> Option<u8> {
    r.is_gpr64().then(|| u8::try_from(r.number()).ok()).flatten()
}

fn condition(code: ConditionCode) -> Option<Condition> {
    Some(match code {
        ConditionCode::o => Condition::Overflow,
        ConditionCode::no => Condition::NotOverflow,
        ConditionCode::b => Condition::Below,
        ConditionCode::ae => Condition::AboveOrEqual,
        ConditionCode::e => Condition::Equal,
        ConditionCode::ne => Condition::NotEqual,
        ConditionCode::be => Condition::BelowOrEqual,
        ConditionCode::a => Condition::Above,
        ConditionCode::s => Condition::Sign,
        ConditionCode::ns => Condition::NotSign,
        ConditionCode::p => Condition::Parity,
        ConditionCode::np => Condition::NotParity,
        ConditionCode::l => Condition::Less,
        ConditionCode::ge => Condition::GreaterOrEqual,
        ConditionCode::le => Condition::LessOrEqual,
        ConditionCode::g => Condition::Greater,
        _ => return None,
    })
}
