//! The DWARF sections of one file: in the file, or decompressed (zlib, zstd, and GNU's old `.zdebug_*`).

use std::ops::Range;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, SectionId};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{CompressionFormat, Object as _, ObjectSection as _};

use super::budget::Budget;
use super::{Dwarf, Reader};
use crate::mmap::Data;

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
        if let Ok(file) = ElfFile::<FileHeader64<object::LittleEndian>>::parse(bytes) {
            for &id in wanted {
                if let Some(name) = name(id)
                    && let Some(bytes) = section(&file, name, budget)
                {
                    found.push((id, bytes));
                }
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

type File<'a> = ElfFile<'a, FileHeader64<object::LittleEndian>>;

fn section(file: &File<'_>, name: &str, budget: &Budget) -> Option<Bytes> {
    // Finds `.zdebug_info` for `.debug_info` too.
    let section = file.section_by_name(name)?;
    let compressed = section.compressed_data().ok()?;
    if compressed.format == CompressionFormat::None {
        let range = section.compressed_file_range().ok()?;
        let start = usize::try_from(range.offset).ok()?;
        let end = start.checked_add(usize::try_from(range.uncompressed_size).ok()?)?;
        return (end <= file.data().len()).then_some(Bytes::InFile(start..end));
    }
    budget.take(usize::try_from(compressed.uncompressed_size).ok()?)?;
    compressed.decompress().ok().map(|bytes| Bytes::Owned(bytes.into_owned()))
}
