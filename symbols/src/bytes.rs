//! Little-endian integers and strings out of untrusted bytes: `None` outside.

/// `len` bytes at `at`.
pub(crate) fn slice(data: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    let len = usize::try_from(len).ok()?;
    data.get(start..start.checked_add(len)?)
}

pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The bytes from `at` up to the next NUL, without it. `None` if there is none.
pub(crate) fn c_bytes(data: &[u8], at: usize) -> Option<&[u8]> {
    let rest = data.get(at..)?;
    rest.get(..memchr::memchr(0, rest)?)
}

/// Longer names are cut: symbols that all point into one long string must not cost its square.
/// The longest mangled name seen (node) has a few thousand bytes.
const MAX_NAME: usize = 16 << 10;

/// A symbol's name at `at`, up to the next NUL or [`MAX_NAME`].
pub(crate) fn name_at(data: &[u8], at: usize) -> Option<&[u8]> {
    let rest = data.get(at..)?;
    let rest = rest.get(..MAX_NAME).unwrap_or(rest);
    rest.get(..memchr::memchr(0, rest).unwrap_or(rest.len()))
}

/// The bytes from `at` up to a NUL that comes within `most`: what stands in a table that many places may point into.
pub(crate) fn short_bytes(data: &[u8], at: usize, most: usize) -> Option<&[u8]> {
    let rest = data.get(at..)?;
    c_bytes(rest.get(..most.saturating_add(1)).unwrap_or(rest), 0)
}

/// As [`short_bytes`], and it must be UTF-8.
pub(crate) fn short_str(data: &[u8], at: usize, most: usize) -> Option<&str> {
    std::str::from_utf8(short_bytes(data, at, most)?).ok()
}

/// As [`c_bytes`], and it must be UTF-8.
pub(crate) fn c_str(data: &[u8], at: usize) -> Option<&str> {
    std::str::from_utf8(c_bytes(data, at)?).ok()
}
