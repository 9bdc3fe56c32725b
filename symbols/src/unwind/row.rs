//! One row of an unwind table, and what it makes of registers: registers, memory and a row in, the caller's registers
//! out.
//!
//! Source: DWARF 5, 6.4 "Call Frame Information"; System V ABI, AMD64 supplement, 3.6.2 (numbers of registers).

use gimli::{
    CfaRule, Encoding, EndianSlice, EvaluationResult, Expression, Format, LittleEndian, Location, Piece, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

/// DWARF's numbers of AMD64's registers.
pub mod register {
    /// rbx
    pub const RBX: u8 = 3;
    /// rbp, the frame pointer
    pub const RBP: u8 = 6;
    /// rsp, the stack pointer
    pub const RSP: u8 = 7;
    /// The return address.
    pub const RA: u8 = 16;
}

/// Registers of one frame, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Where it executes, or will go on when what it called returns.
    pub ip: u64,
    values: [u64; 16],
    known: u16,
}

/// rbx, rbp, rsp, r12 to r15: what a function leaves to its caller as it found it.
const PRESERVED: u16 = 1 << 3 | 1 << 6 | 1 << 7 | 0xf << 12;

impl Registers {
    /// A frame of which three registers are known.
    pub fn new(ip: u64, sp: u64, fp: u64) -> Self {
        let mut registers = Self { ip, ..Self::default() };
        registers.set(register::RSP, sp);
        registers.set(register::RBP, fp);
        registers
    }

    /// A register by DWARF's number; `None` where it is not known.
    pub fn get(&self, register: u8) -> Option<u64> {
        if register == register::RA {
            return Some(self.ip);
        }
        let known = register < 16 && self.known >> register & 1 != 0;
        known.then(|| self.values.get(usize::from(register)).copied())?
    }

    /// Says what a register (0–15) holds.
    pub fn set(&mut self, register: u8, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(register)) {
            *place = value;
            self.known |= 1 << register;
        }
    }

    fn forget(&mut self, register: u8) {
        if register < 16 {
            self.known &= !(1 << register);
        }
    }

    /// The stack pointer; 0 where it is not known.
    pub fn sp(&self) -> u64 {
        self.get(register::RSP).unwrap_or(0)
    }
}

/// Where a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cfa {
    /// A register, and what to add to it.
    Offset(u8, i64),
    Expression(Box<[u8]>),
}

/// Where a register of the caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere.
    Lost,
    /// In memory, so many bytes from the frame's address.
    At(i64),
    /// It is the frame's address, plus so many bytes.
    Value(i64),
    Register(u8),
    AtExpression(Box<[u8]>),
    ValueExpression(Box<[u8]>),
}

/// What the tables say of one place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The frame's address: the stack pointer before the call.
    cfa: Cfa,
    /// `None`: nothing called this code.
    return_address: Option<Place>,
    /// Only what differs.
    registers: Box<[(u8, Place)]>,
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing called this code: the thread or the process begins here.
    End,
    /// This address could not be read.
    Unreadable(u64),
    /// The row asks for what is not known, or makes no sense here.
    Senseless,
}

impl Row {
    pub(super) fn new<'a, S: UnwindSection<EndianSlice<'a, LittleEndian>>>(
        row: &UnwindTableRow<usize>,
        section: &S,
    ) -> Option<Self> {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Offset(u8::try_from(register.0).ok()?, *offset),
            CfaRule::Expression(expression) => Cfa::Expression(bytes(expression, section)?),
        };
        let mut registers = Vec::new();
        let mut return_address = None;
        for (number, rule) in row.registers() {
            let Ok(number) = u8::try_from(number.0) else { continue };
            let place = match rule {
                RegisterRule::Undefined => Place::Lost,
                RegisterRule::SameValue => continue,
                RegisterRule::Offset(offset) => Place::At(*offset),
                RegisterRule::ValOffset(offset) => Place::Value(*offset),
                RegisterRule::Register(other) => Place::Register(u8::try_from(other.0).ok()?),
                RegisterRule::Expression(expression) => Place::AtExpression(bytes(expression, section)?),
                RegisterRule::ValExpression(expression) => Place::ValueExpression(bytes(expression, section)?),
                _ => return None,
            };
            if number == register::RA {
                return_address = (place != Place::Lost).then_some(place);
            } else if number < 16 {
                registers.push((number, place));
            }
        }
        Some(Self { cfa, return_address, registers: registers.into() })
    }

    /// Whether all it takes is to add a number to rsp or rbp, and to read what is saved there: nearly every row.
    pub fn is_regular(&self) -> bool {
        let by_offset = |place: &Place| matches!(place, Place::At(_));
        matches!(self.cfa, Cfa::Offset(register::RSP | register::RBP, _))
            && self.return_address.as_ref().is_none_or(by_offset)
            && self.registers.iter().all(|(_, place)| by_offset(place))
    }

    /// Whether nothing calls this code.
    pub fn is_end(&self) -> bool {
        self.return_address.is_none()
    }

    /// Makes the frame's registers its caller's.
    ///
    /// # Errors
    /// There is no caller, or it cannot be found. The registers are then as before.
    pub fn step(&self, registers: &mut Registers, memory: &mut impl FnMut(u64) -> Option<u64>) -> Result<(), Stop> {
        let Some(return_address) = &self.return_address else { return Err(Stop::End) };
        let cfa = match &self.cfa {
            Cfa::Offset(register, offset) => {
                registers.get(*register).ok_or(Stop::Senseless)?.wrapping_add_signed(*offset)
            }
            Cfa::Expression(bytes) => evaluate(bytes, None, registers, memory)?,
        };
        let mut caller = *registers;
        caller.known &= PRESERVED;
        caller.set(register::RSP, cfa);
        for (number, place) in &self.registers {
            match find(place, cfa, registers, memory)? {
                Some(value) => caller.set(*number, value),
                None => caller.forget(*number),
            }
        }
        caller.ip = find(return_address, cfa, registers, memory)?.ok_or(Stop::Senseless)?;
        if caller.ip == 0 {
            return Err(Stop::End);
        }
        *registers = caller;
        Ok(())
    }
}

fn find(
    place: &Place,
    cfa: u64,
    registers: &Registers,
    memory: &mut impl FnMut(u64) -> Option<u64>,
) -> Result<Option<u64>, Stop> {
    let mut read = |address| memory(address).map(Some).ok_or(Stop::Unreadable(address));
    match place {
        Place::Lost => Ok(None),
        Place::At(offset) => read(cfa.wrapping_add_signed(*offset)),
        Place::Value(offset) => Ok(Some(cfa.wrapping_add_signed(*offset))),
        Place::Register(other) => Ok(registers.get(*other)),
        Place::AtExpression(bytes) => {
            let address = evaluate(bytes, Some(cfa), registers, memory)?;
            memory(address).map(Some).ok_or(Stop::Unreadable(address))
        }
        Place::ValueExpression(bytes) => evaluate(bytes, Some(cfa), registers, memory).map(Some),
    }
}

fn bytes<'a, S: UnwindSection<EndianSlice<'a, LittleEndian>>>(
    expression: &UnwindExpression<usize>,
    section: &S,
) -> Option<Box<[u8]>> {
    /// Real ones have a dozen.
    const MOST: usize = 1024;
    let bytes = expression.get(section).ok()?.0.slice();
    (bytes.len() <= MOST).then(|| bytes.into())
}

/// Operations of one expression at most: they may loop.
const MAX_OPERATIONS: u32 = 1000;

fn evaluate(
    bytes: &[u8],
    initial: Option<u64>,
    registers: &Registers,
    memory: &mut impl FnMut(u64) -> Option<u64>,
) -> Result<u64, Stop> {
    let encoding = Encoding { format: Format::Dwarf32, version: 5, address_size: 8 };
    let mut evaluation = Expression(EndianSlice::new(bytes, LittleEndian)).evaluation(encoding);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut state = evaluation.evaluate();
    loop {
        state = match state {
            Ok(EvaluationResult::Complete) => break,
            Ok(EvaluationResult::RequiresRegister { register, .. }) => {
                let value = u8::try_from(register.0).ok().and_then(|register| registers.get(register));
                evaluation.resume_with_register(Value::Generic(value.ok_or(Stop::Senseless)?))
            }
            Ok(EvaluationResult::RequiresMemory { address, size: 8, .. }) => {
                let value = memory(address).ok_or(Stop::Unreadable(address))?;
                evaluation.resume_with_memory(Value::Generic(value))
            }
            _ => return Err(Stop::Senseless),
        };
    }
    match evaluation.as_result() {
        [Piece { location: Location::Address { address }, .. }] => Ok(*address),
        _ => Err(Stop::Senseless),
    }
}

/// The row of a record for the code at `v`.
pub(super) fn row_at<'a, S: UnwindSection<EndianSlice<'a, LittleEndian>>>(
    record: &gimli::FrameDescriptionEntry<EndianSlice<'a, LittleEndian>>,
    section: &S,
    bases: &gimli::BaseAddresses,
    v: u64,
) -> Option<Row> {
    let mut context = UnwindContext::new();
    let row = record.unwind_info_for_address(section, bases, &mut context, v).ok()?;
    // The column of the return address is 16 in all AMD64 code.
    (record.cie().return_address_register().0 == u16::from(register::RA)).then(|| Row::new(row, section))?
}
