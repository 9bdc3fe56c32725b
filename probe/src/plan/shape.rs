//! Shapes: where a function is entered and left, and whether it can be probed at all.

use super::reading::Reading;
use symbols::{
    addr::Vaddr,
    binary::Binary,
    code::{self, Body, ExitKind, Place, Shape},
    index::{Function, FunctionId, Index, Language, LeftOut, Matched},
    unwind,
};

/// Whether something can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probeable {
    /// It can.
    Yes,
    /// It cannot, and why.
    No(String),
}

/// Whether a probe on what was matched is possible, as far as the file tells.
pub fn probeable(index: &Index, what: &Matched, reading: &Reading) -> Probeable {
    let checked = match what {
        Matched::Function(id) => check_entry(index, *id, reading),
        Matched::Point { address, function, .. } => check_point(index, *address, *function, reading),
    };
    match checked {
        Ok(()) => Probeable::Yes,
        Err(reason) => Probeable::No(reason),
    }
}

fn body<'a>(binary: &'a Binary, function: &Function<'_>, parts: &[(Vaddr, u64)]) -> Option<Body<'a>> {
    let code = binary.bytes_at(function.address, function.size).filter(|code| !code.is_empty())?;
    let part = |&(start, size): &(Vaddr, u64)| Some((start, binary.bytes_at(start, size)?));
    Some(Body {
        machine: binary.machine(),
        address: function.address,
        code,
        parts: parts.iter().filter_map(part).collect(),
        is_go: function.language == Language::Go,
        go_asm: function.go_asm,
    })
}

/// Whether it does nothing but jump to a function of another file.
pub(super) fn is_stub(function: &Function<'_>) -> bool {
    function.left_out == Some(LeftOut::PltStub)
}

/// Functions whose parts have parts are followed so far.
const MAX_PARTS: usize = 8;

/// The function's shape, and the parts that it has elsewhere: those that symbols name, and those that its own jumps
/// lead to and that only the unwind tables know (a stripped program's).
pub(super) fn shape(
    index: &Index,
    function: &Function<'_>,
    reading: &Reading,
) -> Result<(Shape, Vec<(Vaddr, u64)>), String> {
    let binary = index.binary();
    let mut parts = index.parts(function.id);
    let is_function = |address| index.starts_function(address) || binary.in_plt(address);
    loop {
        let body = body(binary, function, &parts).ok_or_else(|| no_code(function.size))?;
        reading.take(body.code_len())?;
        let mut shape = code::shape(&body, &is_function);
        if is_stub(function) {
            // Behind its jump stands, the first time, what finds the function: that is no way out of its own.
            shape.exits.retain(|exit| matches!(exit.kind, ExitKind::IndirectJump { .. }));
            shape.unprobed_jumps = shape.exits.is_empty();
        }
        let known = parts.len();
        for &stray in &shape.strays {
            let part = unwind::code_range(binary, stray).filter(|&(start, _)| !is_function(start));
            let is_new = |part: &(Vaddr, u64)| part.0 != function.address && !parts.contains(part);
            if parts.len() < MAX_PARTS
                && let Some(part) = part.filter(is_new)
            {
                parts.push(part);
            }
        }
        if parts.len() == known {
            return Ok((shape, parts));
        }
    }
}

fn check_entry(index: &Index, id: FunctionId, reading: &Reading) -> Result<(), String> {
    let (binary, function) = (index.binary(), index.outline(id));
    let code = binary.bytes_at(function.address, function.size).filter(|code| !code.is_empty());
    let body = Body {
        machine: binary.machine(),
        address: function.address,
        code: code.ok_or_else(|| no_code(function.size))?,
        parts: Vec::new(),
        is_go: function.is_go,
        go_asm: function.go_asm,
    };
    if code::is_entry_certain(&body) {
        return Ok(());
    }
    reading.take(body.code_len())?;
    code::entry_refusal(&body).map_err(|refusal| refusal.to_string())
}

pub(super) fn check_point(
    index: &Index,
    address: Vaddr,
    function: Option<FunctionId>,
    reading: &Reading,
) -> Result<(), String> {
    let binary = index.binary();
    if !binary.is_executable(address) {
        return Err("it is not code".to_owned());
    }
    let code = (1..=15).rev().find_map(|len| binary.bytes_at(address, len)).ok_or("it is not in the file")?;
    match function {
        Some(id) => check_start(index, address, id, reading)?,
        // Entries of a PLT begin there.
        None if binary.in_plt(address) && address.0.is_multiple_of(16) => {}
        None => return Err("no known function holds it, so nobody knows where its instructions begin".to_owned()),
    }
    code::refusal(binary.machine(), code, address).map_err(|refusal| refusal.to_string())
}

fn check_start(index: &Index, address: Vaddr, id: FunctionId, reading: &Reading) -> Result<(), String> {
    let (function, extent) = (index.function(id), index.extent(id));
    let sized = Function { size: extent, ..function };
    let Some(body) = body(index.binary(), &sized, &[]) else { return Err(NO_CODE.to_owned()) };
    reading.take(
        usize::try_from(address.0.saturating_sub(function.address.0)).unwrap_or(usize::MAX).min(body.code_len()),
    )?;
    match code::place(&body, address) {
        Place::Start => Ok(()),
        Place::Inside { begin, end } => Err(format!(
            "{address} is inside an instruction; instructions begin at {begin} (+{:#x}) and {end} (+{:#x})",
            begin.0.saturating_sub(function.address.0),
            end.0.saturating_sub(function.address.0),
        )),
        Place::Unknown => Err(format!("{address} is behind bytes that are no instructions")),
    }
}

const NO_CODE: &str = "its code is not in the file";

/// Why there is no code to look at.
fn no_code(size: u64) -> &'static str {
    if size == 0 { "the file does not say how long it is" } else { NO_CODE }
}
