//! How the caller of the code at an address is found: whether it keeps a frame pointer, so that a stack walk may trust
//! it, and which tables say it else.
//!
//! * `tables`: `.eh_frame` and `.debug_frame`, prepared for an unwinder.
//! * `row`: what they say of one place, and how it makes a caller's registers of a frame's.
//! * `eh_frame`: what the unwind tables say, which is exact.
//! * `prologue`: what the instructions say, for code without unwind tables.

mod eh_frame;
mod prologue;
mod row;
mod tables;

pub use row::{Registers, Row, Stop, register};
pub(crate) use tables::SharedBytes;
pub use tables::{Rule, Tables};

use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::index::Index;

/// The range of code around `v` that has unwind rules of its own: a function, or a part that the compiler moved away
/// (`.cold`), also where no symbol names it. Address and bytes.
pub fn code_range(binary: &Binary, v: Vaddr) -> Option<(Vaddr, u64)> {
    eh_frame::range(binary, v)
}

/// All ranges that have unwind rules of their own, by address, each once: (address, bytes).
pub(crate) fn code_ranges(binary: &Binary) -> Vec<(Vaddr, u64)> {
    let mut ranges = eh_frame::ranges(binary);
    ranges.retain(|&(start, size)| size > 0 && binary.is_executable(start));
    ranges.sort_unstable();
    ranges.dedup_by_key(|(start, _)| *start);
    ranges
}

/// Whether the frame pointer (rbp, x29) points to the frame of the function at `v` when `v` is executed: to the pair
/// of the caller's frame pointer and the return address. False where that is not known.
///
/// Go's compiler keeps it in every function that calls another; its assembly does so if it has a frame. Other code is
/// believed when its unwind tables find the frame by it.
pub fn keeps_frame_pointer(binary: &Binary, index: Option<&Index>, v: Vaddr) -> bool {
    if let Some(kept) = go_keeps_frame_pointer(binary, v) {
        return kept;
    }
    match eh_frame::frame_pointer_rule(binary, v) {
        Some(kept) => kept,
        None => {
            index.and_then(|index| index.at(v)).is_some_and(|f| prologue::sets_up_frame(binary, (f.address, f.size), v))
        }
    }
}

/// The same for a function of Go; `None` for others.
fn go_keeps_frame_pointer(binary: &Binary, v: Vaddr) -> Option<bool> {
    const ASSEMBLY: u8 = 4;
    let function = binary.go()?.function_at(binary, v)?;
    let range = (function.address, function.size());
    // A C function's entry in Go's table covers a range but no lines (cgo).
    (range.1 > 0).then(|| function.flags() & ASSEMBLY == 0 || prologue::sets_up_frame(binary, range, v))
}
