//! Unwind tables, prepared for an unwinder: which code they cover, and where the record of each is.
//!
//! `.eh_frame` is read once from its beginning to its end. Its own search table (`.eh_frame_hdr`) is not relied on: it
//! is missing from statically linked programs, and where a function without code begins at the same address as the one
//! behind it, it may lead to the record of the wrong one.

use std::ops::{Deref, Range};
use std::sync::Arc;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, DebugFrameOffset, EhFrame, EndianSlice, LittleEndian,
    Section as _, UnwindOffset, UnwindSection,
};

use super::row::{Row, row_at};
use super::{eh_frame, prologue};
use crate::addr::Vaddr;
use crate::binary::{Binary, Machine};
use crate::dwarf;
use crate::index::Index;
use crate::mmap::Data;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// How to come from a place in the code to its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As the unwind tables say.
    Row(Row),
    /// The frame pointer leads to the caller's, and the return address is beside it.
    FramePointer,
    /// Nothing says it.
    Unknown,
}

/// What says how one file's code is unwound.
#[derive(Default)]
pub struct Tables {
    eh_frame: Option<Frames>,
    debug_frame: Option<Frames>,
}

impl Tables {
    /// The tables of a file, and of the debug files that an index of it has found.
    pub fn of(binary: &Binary, index: Option<&Index>) -> Self {
        if binary.machine() != Machine::X86_64 {
            return Self::default();
        }
        let debug_frame = dwarf::debug_frame(binary.shared_data());
        let debug_frame = debug_frame.or_else(|| index.and_then(Index::debug_frame));
        Self {
            eh_frame: eh_frame_bytes(binary).and_then(|(address, bytes)| Frames::of_eh_frame(address, bytes)),
            debug_frame: debug_frame.and_then(Frames::of_debug_frame),
        }
    }

    /// How the caller of the code at `v` is found, when `v` is executed.
    pub fn rule(&self, binary: &Binary, index: Option<&Index>, v: Vaddr) -> Rule {
        let by_frame_pointer = |kept| if kept { Rule::FramePointer } else { Rule::Unknown };
        // Go keeps frame pointers wherever one is needed, and its `.debug_frame` is missing from stripped programs.
        if let Some(kept) = super::go_keeps_frame_pointer(binary, v) {
            return by_frame_pointer(kept);
        }
        let mut tables = [&self.eh_frame, &self.debug_frame].into_iter().flatten();
        if let Some(row) = tables.find_map(|frames| frames.row(v)) {
            return Rule::Row(row);
        }
        let function = index.and_then(|index| index.at(v));
        by_frame_pointer(function.is_some_and(|f| prologue::sets_up_frame(binary, (f.address, f.size), v)))
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        [&self.eh_frame, &self.debug_frame].into_iter().flatten().map(|frames| frames.entries.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A part of a file's bytes, or of what was compressed in it.
pub(crate) struct SharedBytes {
    data: Arc<Data>,
    range: Range<usize>,
}

impl SharedBytes {
    pub(crate) fn new(data: Arc<Data>, range: Range<usize>) -> Self {
        Self { data, range }
    }

    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { data: Arc::new(Data::Owned(bytes)), range }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data.get(self.range.clone()).unwrap_or_default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    EhFrame,
    DebugFrame,
}

/// One section of unwind records.
struct Frames {
    kind: Kind,
    address: Vaddr,
    bytes: SharedBytes,
    /// By address, none without code, none twice.
    entries: Vec<Entry>,
}

/// A record: the code that it covers, and its offset in the section.
#[derive(Clone, Copy)]
struct Entry {
    start: Vaddr,
    size: u64,
    at: usize,
}

impl Frames {
    fn of_eh_frame(address: Vaddr, bytes: SharedBytes) -> Option<Self> {
        let bases = BaseAddresses::default().set_eh_frame(address.0);
        let entries = entries(&eh_frame_of(&bytes), &bases, eh_frame::common_part);
        Self::new(Kind::EhFrame, address, bytes, entries)
    }

    fn of_debug_frame(bytes: SharedBytes) -> Option<Self> {
        let entries = entries(&debug_frame_of(&bytes), &BaseAddresses::default(), common_part_of_debug);
        Self::new(Kind::DebugFrame, Vaddr(0), bytes, entries)
    }

    fn new(kind: Kind, address: Vaddr, bytes: SharedBytes, mut entries: Vec<Entry>) -> Option<Self> {
        entries.sort_by_key(|entry| entry.start);
        entries.dedup_by_key(|entry| entry.start);
        (!entries.is_empty()).then_some(Self { kind, address, bytes, entries })
    }

    /// What the record that covers `v` says of it.
    fn row(&self, v: Vaddr) -> Option<Row> {
        let before = self.entries.partition_point(|entry| entry.start <= v).checked_sub(1)?;
        let entry = self.entries.get(before).filter(|entry| v.0 - entry.start.0 < entry.size)?;
        let bases = BaseAddresses::default().set_eh_frame(self.address.0);
        match self.kind {
            Kind::EhFrame => {
                let frames = eh_frame_of(&self.bytes);
                let record = frames.fde_from_offset(&bases, entry.at.into(), eh_frame::common_part).ok()?;
                row_at(&record, &frames, &bases, v.0)
            }
            Kind::DebugFrame => {
                let frames = debug_frame_of(&self.bytes);
                let record = frames.fde_from_offset(&bases, entry.at.into(), common_part_of_debug).ok()?;
                row_at(&record, &frames, &bases, v.0)
            }
        }
    }
}

fn eh_frame_of(bytes: &[u8]) -> EhFrame<Reader<'_>> {
    let mut frames = EhFrame::new(bytes, LittleEndian);
    frames.set_address_size(8);
    frames
}

fn debug_frame_of(bytes: &[u8]) -> DebugFrame<Reader<'_>> {
    let mut frames = DebugFrame::new(bytes, LittleEndian);
    frames.set_address_size(8);
    frames
}

/// All records with code. Those that cannot be read are passed over.
fn entries<'a, S>(
    frames: &S,
    bases: &BaseAddresses,
    common_part: impl Fn(&S, &BaseAddresses, S::Offset) -> gimli::Result<CommonInformationEntry<Reader<'a>>>,
) -> Vec<Entry>
where
    S: UnwindSection<Reader<'a>>,
{
    let mut entries = Vec::new();
    // Most records share the one before's common part.
    let mut common: Option<(usize, CommonInformationEntry<Reader<'a>>)> = None;
    let mut all = frames.entries(bases);
    while let Ok(Some(entry)) = all.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let record = partial.parse(|frames, bases, offset| {
            let at = UnwindOffset::into(offset);
            match &common {
                Some((known, entry)) if *known == at => Ok(entry.clone()),
                _ => common_part(frames, bases, offset).inspect(|entry| common = Some((at, entry.clone()))),
            }
        });
        if let Ok(record) = record
            && record.len() > 0
        {
            let (start, size) = (Vaddr(record.initial_address()), record.len());
            entries.push(Entry { start, size, at: record.offset() });
        }
    }
    entries
}

/// As [`eh_frame::common_part`].
fn common_part_of_debug<'a>(
    frames: &DebugFrame<Reader<'a>>,
    bases: &BaseAddresses,
    at: DebugFrameOffset,
) -> gimli::Result<CommonInformationEntry<Reader<'a>>> {
    debug_frame_of(eh_frame::near(frames.reader().slice(), at.0)).cie_from_offset(bases, at)
}

fn eh_frame_bytes(binary: &Binary) -> Option<(Vaddr, SharedBytes)> {
    let (address, bytes) = eh_frame::section(binary)?;
    let start = (bytes.as_ptr() as usize).checked_sub(binary.data().as_ptr() as usize)?;
    Some((address, SharedBytes::new(binary.shared_data().clone(), start..start.checked_add(bytes.len())?)))
}
