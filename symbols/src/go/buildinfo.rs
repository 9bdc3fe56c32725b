//! The build info blob: which toolchain built the program. It survives every kind of stripping.

use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::bytes::{slice, u64_at};

/// Go: src/debug/buildinfo/buildinfo.go. The blob is 16-byte aligned.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: usize = 16;
/// Flag: the strings follow the header (Go 1.18+) instead of being pointed to.
const INLINE: u8 = 2;
/// No version string is longer ("go1.27-devel_0123abcdef Mon Jan 2 … X:experiment").
const MAX_VERSION: u64 = 256;

/// The version of the Go toolchain, for example `go1.27.3`.
pub(super) fn version(binary: &Binary) -> Option<String> {
    let blob = match binary.section(".go.buildinfo") {
        Some((_, bytes)) => find_in(bytes)?,
        None => scan(binary)?,
    };
    let text = if blob.get(15)? & INLINE != 0 { inline(blob)? } else { pointed_to(binary, blob)? };
    let text = std::str::from_utf8(text).ok()?;
    text.starts_with("go").then(|| text.to_owned()).or_else(|| text.starts_with("devel").then(|| text.to_owned()))
}

/// Linkers place the blob at the start of a writable segment; look there first.
fn scan(binary: &Binary) -> Option<&[u8]> {
    let segments = binary.segments();
    let ordered = segments.iter().filter(|s| s.writable).chain(segments.iter().filter(|s| !s.writable));
    ordered.filter_map(|s| binary.bytes_at(s.vaddr, s.file_size)).find_map(find_in)
}

fn find_in(bytes: &[u8]) -> Option<&[u8]> {
    let at = (0..bytes.len()).step_by(ALIGN).find(|&at| bytes.get(at..).is_some_and(|b| b.starts_with(MAGIC)))?;
    bytes.get(at..)
}

fn inline(blob: &[u8]) -> Option<&[u8]> {
    let rest = blob.get(32..)?;
    let mut at = 0;
    let len = super::values::uvarint(rest, &mut at)?;
    if u64::from(len) > MAX_VERSION {
        return None;
    }
    slice(rest, at as u64, u64::from(len))
}

fn pointed_to<'a>(binary: &'a Binary, blob: &'a [u8]) -> Option<&'a [u8]> {
    let header = Vaddr(u64_at(blob, 16)?);
    let text = binary.pointer_at(header)?;
    let len = u64_at(binary.bytes_at(header.checked_add(8)?, 8)?, 0)?;
    if len > MAX_VERSION {
        return None;
    }
    binary.bytes_at(text, len)
}
