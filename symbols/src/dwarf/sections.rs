//! The DWARF sections of one file: in the file, or decompressed (zlib, zstd, and GNU's old `.zdebug_*`).

use std::ops::Range;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, SectionId};
use object::{CompressedData, CompressionFormat};

use super::budget::Budget;
use super::{Dwarf, Reader};
use crate::bytes::{u32_at, u64_at};
use crate::elf;
use crate::mmap::Data;
use crate::unwind::SharedBytes;

/// The sections that are read; those of locations and macros are of no use.
const READ: [SectionId; 11] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugCuIndex,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

/// A package's index speaks of these too, and gimli wants all that it speaks of.
const READ_IN_PACKAGE: [SectionId; 4] =
    [SectionId::DebugLoc, SectionId::DebugLocLists, SectionId::DebugMacinfo, SectionId::DebugMacro];

/// One file's sections.
pub(super) struct Sections {
    data: Arc<Data>,
    found: Vec<(SectionId, Bytes)>,
}

enum Bytes {
    InFile(Range<usize>),
    Owned(Vec<u8>),
}

impl Sections {
    /// The sections of a file; `None` if it has neither DIEs nor line tables.
    pub(super) fn of(data: &Arc<Data>, budget: &Budget) -> Option<Self> {
        let found = Self::read(data, budget, &READ, |id| Some(id.name()));
        let has = |wanted| found.found.iter().any(|(id, _)| *id == wanted);
        (has(SectionId::DebugInfo) && has(SectionId::DebugAbbrev)).then_some(found)
    }

    /// Those of a `.dwo` or `.dwp` file.
    pub(super) fn of_split(data: &Arc<Data>, budget: &Budget) -> Self {
        let wanted = [&READ[..], &READ_IN_PACKAGE].concat();
        Self::read(data, budget, &wanted, SectionId::dwo_name)
    }

    fn read(
        data: &Arc<Data>,
        budget: &Budget,
        wanted: &[SectionId],
        name: impl Fn(SectionId) -> Option<&'static str>,
    ) -> Self {
        let mut found = Vec::new();
        let bytes: &[u8] = data;
        let sections = elf::Sections::parse(bytes);
        for &id in wanted {
            if let Some(bytes) = name(id).and_then(|name| section(bytes, &sections, name, budget)) {
                found.push((id, bytes));
            }
        }
        Self { data: data.clone(), found }
    }

    /// A section's bytes; none if it is missing.
    pub(super) fn get(&self, id: SectionId) -> &[u8] {
        match self.found.iter().find(|(found, _)| *found == id) {
            Some((_, Bytes::InFile(range))) => self.data.get(range.clone()).unwrap_or_default(),
            Some((_, Bytes::Owned(bytes))) => bytes,
            None => &[],
        }
    }

    /// A section that gimli does not know, as the file has it.
    pub(super) fn raw(&self, name: &str) -> Option<&[u8]> {
        let sections = crate::elf::Sections::parse(&self.data);
        self.data.get(sections.named(&self.data, name)?.file.clone())
    }

    /// A view of them for gimli. Costs nothing: only slices are made.
    pub(super) fn dwarf(&self) -> Dwarf<'_> {
        let load = |id| Ok::<Reader<'_>, ()>(EndianSlice::new(self.get(id), LittleEndian));
        Dwarf::load(load).unwrap_or_default()
    }
}

/// The `.debug_frame` of a file.
pub(crate) fn debug_frame(data: &Arc<Data>) -> Option<SharedBytes> {
    let sections = elf::Sections::parse(data);
    match section(data, &sections, SectionId::DebugFrame.name(), &Budget::for_file(data.len()))? {
        Bytes::InFile(range) => Some(SharedBytes::new(data.clone(), range)),
        Bytes::Owned(bytes) => Some(SharedBytes::owned(bytes)),
    }
}

/// Where `.debug_info` is, and how it is packed. GNU's old way has names of its own: `.zdebug_info`.
fn section(data: &[u8], sections: &elf::Sections, name: &str, budget: &Budget) -> Option<Bytes> {
    if let Some(found) = sections.named(data, name) {
        if !found.compressed {
            return Some(Bytes::InFile(found.file.clone()));
        }
        return decompressed(chdr(data.get(found.file.clone())?)?, budget);
    }
    let old = format!(".z{}", name.strip_prefix('.')?);
    decompressed(zlib(data.get(sections.named(data, &old)?.file.clone())?)?, budget)
}

fn decompressed(compressed: CompressedData<'_>, budget: &Budget) -> Option<Bytes> {
    budget.take(usize::try_from(compressed.uncompressed_size).ok()?)?;
    compressed.decompress().ok().map(|bytes| Bytes::Owned(bytes.into_owned()))
}

/// gABI, chapter 4, "Compressed Sections": type (4 bytes), 4 bytes of nothing, size, alignment (8 each).
fn chdr(bytes: &[u8]) -> Option<CompressedData<'_>> {
    let format = match u32_at(bytes, 0)? {
        1 => CompressionFormat::Zlib,
        2 => CompressionFormat::Zstandard,
        _ => return None,
    };
    Some(CompressedData { format, uncompressed_size: u64_at(bytes, 8)?, data: bytes.get(24..)? })
}

/// `ZLIB`, and the size with the highest byte first.
fn zlib(bytes: &[u8]) -> Option<CompressedData<'_>> {
    let (size, data) = bytes.strip_prefix(b"ZLIB")?.split_first_chunk::<8>()?;
    Some(CompressedData { format: CompressionFormat::Zlib, uncompressed_size: u64::from_be_bytes(*size), data })
}
