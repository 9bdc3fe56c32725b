//! Go's compressed tables of a value for each address of a function.
//!
//! Source: src/runtime/symtab.go, `step`: pairs of varints, a zigzag difference of the value and the bytes of code that
//! have it.

/// A table of values by address: runs of (end offset from the function's start, value).
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    at: usize,
    quantum: u32,
    value: i32,
    offset: u64,
    first: bool,
}

impl<'a> Values<'a> {
    /// The table at the start of `bytes`; addresses advance in steps of `quantum` bytes.
    pub(super) fn new(bytes: &'a [u8], quantum: u32) -> Self {
        Self { bytes, at: 0, quantum, value: -1, offset: 0, first: true }
    }
}

impl Iterator for Values<'_> {
    /// (the offset at which the run ends, its value)
    type Item = (u64, i32);

    fn next(&mut self) -> Option<Self::Item> {
        let delta = uvarint(self.bytes, &mut self.at)?;
        if delta == 0 && !self.first {
            return None;
        }
        self.first = false;
        let step = (delta >> 1) as i32;
        self.value = self.value.wrapping_add(if delta & 1 == 1 { !step } else { step });
        let span = u64::from(uvarint(self.bytes, &mut self.at)?).checked_mul(u64::from(self.quantum))?;
        self.offset = self.offset.checked_add(span)?;
        Some((self.offset, self.value))
    }
}

/// An unsigned varint of at most 32 bits. Moves `at` past it.
pub(super) fn uvarint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
