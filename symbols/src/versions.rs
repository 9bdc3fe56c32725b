//! Versions of dynamic symbols: which of several `memcpy`s is `memcpy@GLIBC_2.14`.
//!
//! `.gnu.version` has a number for each symbol of `.dynsym`; `.gnu.version_d` names the numbers that the file defines.
//! Source: Linux Standard Base Core 5.0, "Symbol Versioning".

use crate::binary::Binary;
use crate::bytes::{short_str, u32_at};

/// The bit of a number that hides a symbol from the linker: an older version.
const HIDDEN: u16 = 0x8000;
/// Numbers without a name: local, and global without a version.
const UNNAMED: u16 = 1;
/// More versions than any library defines (glibc: 40); the list is linked, and might be a ring.
const MAX_VERSIONS: usize = 1000;

/// Longer names are no versions.
const MAX_NAME: usize = 255;

/// The version of symbol number `position` of `.dynsym`, if the file defines one for it.
pub(crate) fn of_dynamic_symbol(binary: &Binary, position: u32) -> Option<&str> {
    let (_, numbers) = binary.section(".gnu.version")?;
    let at = usize::try_from(position).ok()?.checked_mul(2)?;
    let number = u16_at(numbers, at)? & !HIDDEN;
    if number <= UNNAMED { None } else { definition(binary, number) }
}

fn definition(binary: &Binary, wanted: u16) -> Option<&str> {
    let (_, definitions) = binary.section(".gnu.version_d")?;
    let (_, strings) = binary.section(".dynstr")?;
    let mut at = 0usize;
    for _ in 0..MAX_VERSIONS {
        // Elfxx_Verdef: version, flags, index, count (2 bytes each), hash, aux, next (4 each).
        if u16_at(definitions, at.checked_add(4)?)? == wanted {
            let aux = at.checked_add(usize::try_from(u32_at(definitions, at.checked_add(12)?)?).ok()?)?;
            return short_str(strings, usize::try_from(u32_at(definitions, aux)?).ok()?, MAX_NAME);
        }
        match u32_at(definitions, at.checked_add(16)?)? {
            0 => return None,
            next => at = at.checked_add(usize::try_from(next).ok()?)?,
        }
    }
    None
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}
