//! `.eh_frame`, searched through `.eh_frame_hdr` where there is one.
//!
//! Source: Linux Standard Base Core 5.0, 10.6 "Exception Frames". The header is found by its program header, which
//! files without sections have too. Only the encoding that linkers write is read (GNU ld, gold, lld and mold agree on
//! it): a sorted table of 4-byte offsets from the header.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, EhFrame, EhFrameOffset, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Section as _, UnwindContext, UnwindSection,
};

use crate::addr::Vaddr;
use crate::binary::{Binary, Machine};
use crate::bytes::{slice, u32_at, u64_at};
use crate::parallel;

const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// DW_EH_PE_pcrel | DW_EH_PE_sdata4
pub(super) const POINTER: u8 = 0x1b;
/// DW_EH_PE_udata4
pub(super) const COUNT: u8 = 0x03;
/// DW_EH_PE_datarel | DW_EH_PE_sdata4
pub(super) const TABLE: u8 = 0x3b;
/// Bytes before the table.
const HEADER: usize = 12;
/// Bytes of an entry: where a function starts, where its record is.
const ENTRY: usize = 8;
/// Records that one thread reads at a time.
const CHUNK: usize = 8192;

/// Whether the frame is found by the frame pointer at `v`; `None` if the tables do not cover it.
pub(super) fn frame_pointer_rule(binary: &Binary, v: Vaddr) -> Option<bool> {
    let (register, offset) = match binary.machine() {
        Machine::X86_64 => (gimli::X86_64::RBP, Some(16)),
        // AAPCS64: the pair may lie anywhere in the frame.
        Machine::Aarch64 => (gimli::AArch64::X29, None),
    };
    match cfa(binary, v)? {
        CfaRule::RegisterAndOffset { register: base, offset: bytes } => {
            Some(base == register && offset.is_none_or(|o| o == bytes))
        }
        CfaRule::Expression(_) => Some(false),
    }
}

type Frames<'a> = EhFrame<EndianSlice<'a, LittleEndian>>;
type Record<'a> = FrameDescriptionEntry<EndianSlice<'a, LittleEndian>>;

/// The code that one record covers, which for compiled code is a function or a part of one: address and bytes.
pub(super) fn range(binary: &Binary, v: Vaddr) -> Option<(Vaddr, u64)> {
    let (record, ..) = record(binary, v)?;
    Some((Vaddr(record.initial_address()), record.len()))
}

/// What each record covers. Records that cannot be read are passed over.
pub(super) fn ranges<'a>(binary: &'a Binary) -> Vec<(Vaddr, u64)> {
    if let Some(ranges) = Header::find(binary).and_then(|header| header.ranges(binary)) {
        return ranges;
    }
    let Some((start, bytes)) = section(binary) else { return Vec::new() };
    let frames = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(start.0);
    let mut ranges = Vec::new();
    let mut common = None;
    let mut entries = frames.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        // Most records share the one before's common part.
        let parse = |frames: &Frames<'a>, bases: &BaseAddresses, at: EhFrameOffset| match &common {
            Some((known, entry)) if *known == at => Ok(Clone::clone(entry)),
            _ => common_part(frames, bases, at),
        };
        if let Ok(record) = partial.parse(parse) {
            ranges.push((Vaddr(record.initial_address()), record.len()));
            common = Some((EhFrameOffset(record.cie().offset()), record.cie().clone()));
        }
    }
    ranges
}

/// `.eh_frame`. Where only the search table says where it begins, whatever stands behind it is taken for part of it: the
/// records end with a length of 0.
pub(super) fn section(binary: &Binary) -> Option<(Vaddr, &[u8])> {
    let by_header = || {
        let start = Header::find(binary)?.frames;
        Some((start, binary.bytes_from(start)?))
    };
    binary.section(".eh_frame").filter(|(_, bytes)| !bytes.is_empty()).or_else(by_header)
}

/// What a record shares with others. Longer ones, which only broken files have, would be read again for each record.
pub(super) fn common_part<'a>(
    frames: &Frames<'a>,
    bases: &BaseAddresses,
    at: EhFrameOffset,
) -> gimli::Result<CommonInformationEntry<EndianSlice<'a, LittleEndian>>> {
    EhFrame::new(near(frames.reader().slice(), at.0), LittleEndian).cie_from_offset(bases, at)
}

/// What of a section may be read for the common part at `at`.
pub(super) fn near(bytes: &[u8], at: usize) -> &[u8] {
    const MOST: usize = 1024;
    bytes.get(..at.saturating_add(MOST)).unwrap_or(bytes)
}

fn cfa(binary: &Binary, v: Vaddr) -> Option<CfaRule<usize>> {
    let (record, frames, bases) = record(binary, v)?;
    let mut context = UnwindContext::new();
    let row = record.unwind_info_for_address(&frames, &bases, &mut context, v.0).ok()?;
    Some(row.cfa().clone())
}

fn record(binary: &Binary, v: Vaddr) -> Option<(Record<'_>, Frames<'_>, BaseAddresses)> {
    let (start, bytes, at) = match Header::find(binary) {
        Some(header) => (header.frames, binary.bytes_from(header.frames)?, Some(header.record_for(v)?)),
        // Statically linked programs have no header.
        None => binary.section(".eh_frame").map(|(start, bytes)| (start, bytes, None))?,
    };
    let frames = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(start.0);
    let record = match at {
        Some(at) => {
            let at = usize::try_from(at.0.checked_sub(start.0)?).ok()?;
            let read = |at: usize| frames.fde_from_offset(&bases, EhFrameOffset(at), common_part).ok();
            let mut places = std::iter::once(at).chain(following(bytes, at)).filter(|&at| at < bytes.len());
            places.find_map(|at| read(at).filter(|record| record.contains(v.0)))?
        }
        None => search(&frames, &bases, v)?,
    };
    record.contains(v.0).then_some((record, frames, bases))
}

/// One record after the other, up to a number that takes about a millisecond.
fn search<'a>(frames: &Frames<'a>, bases: &BaseAddresses, v: Vaddr) -> Option<Record<'a>> {
    const MOST: usize = 20_000;
    let mut entries = frames.entries(bases);
    for _ in 0..MOST {
        if let CieOrFde::Fde(partial) = entries.next().ok()??
            && let Ok(record) = partial.parse(common_part)
            && record.contains(v.0)
        {
            return Some(record);
        }
    }
    None
}

struct Header<'a> {
    address: Vaddr,
    /// `.eh_frame`
    frames: Vaddr,
    /// Whole entries only.
    table: &'a [u8],
}

impl<'a> Header<'a> {
    fn find(binary: &'a Binary) -> Option<Self> {
        let (address, bytes) = segment(binary).or_else(|| binary.section(".eh_frame_hdr"))?;
        let (encodings, _) = bytes.split_first_chunk::<4>()?;
        if *encodings != [1, POINTER, COUNT, TABLE] {
            return None;
        }
        let frames = offset(Vaddr(address.0.checked_add(4)?), u32_at(bytes, 4)?);
        let count = usize::try_from(u32_at(bytes, 8)?).ok()?;
        let table = bytes.get(HEADER..)?;
        let len = count.min(table.len() / ENTRY).checked_mul(ENTRY)?;
        Some(Self { address, frames, table: table.get(..len)? })
    }

    /// What all records cover, without reading the records' common parts: those say how addresses are written, but where
    /// a record's address, read as the usual signed 4-byte distance from itself, is that of the table, it is written so,
    /// and the length behind it is of the same size. `None` if one is written in another way.
    fn ranges(&self, binary: &Binary) -> Option<Vec<(Vaddr, u64)>> {
        let frames = binary.bytes_from(self.frames)?;
        let range = |entry: &[u8]| {
            let (start, record) = (offset(self.address, u32_at(entry, 0)?), offset(self.address, u32_at(entry, 4)?));
            let at = usize::try_from(record.0.checked_sub(self.frames.0)?).ok()?;
            let bytes = |at: usize| {
                // A record: length, distance to the common part, address, length of the code.
                let place = at.checked_add(8)?;
                let usual = offset(self.frames.checked_add(place as u64)?, u32_at(frames, place)?) == start;
                usual.then_some(u64::from(u32_at(frames, place.checked_add(4)?)?))
            };
            let size = match bytes(at)? {
                0 => following(frames, at).find_map(|at| bytes(at).filter(|&size| size > 0)).unwrap_or(0),
                size => size,
            };
            Some((start, size))
        };
        // The records' memory is waited for most of the time, by all processors at once.
        let entries = self.table.as_chunks::<ENTRY>().0;
        let chunks = parallel::map_chunks(entries, CHUNK, |entries| {
            entries.iter().map(|entry| range(entry)).collect::<Option<Vec<_>>>()
        });
        Some(chunks.into_iter().collect::<Option<Vec<_>>>()?.concat())
    }

    /// The record of the last function that starts at `v` or before.
    fn record_for(&self, v: Vaddr) -> Option<Vaddr> {
        let word = |n: usize, at: usize| Some(offset(self.address, u32_at(self.table, n.checked_mul(ENTRY)? + at)?));
        let (mut low, mut high) = (0, self.table.len() / ENTRY);
        while low < high {
            let middle = low.midpoint(high);
            if word(middle, 0)? <= v {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        word(low.checked_sub(1)?, 4)
    }
}

/// Where the records behind that at `at` begin. A linker enters one record for each address into the table, be it that of
/// a function without code (one that can never be called), which begins where the next one does.
fn following(frames: &[u8], at: usize) -> impl Iterator<Item = usize> {
    /// Records; in libLLVM up to twenty such functions follow each other.
    const MOST: usize = 64;
    // A longer form of the length (all ones) occurs in no file below 4 GiB.
    let next = |&at: &usize| at.checked_add(4)?.checked_add(usize::try_from(u32_at(frames, at)?).ok()?);
    std::iter::successors(Some(at), next).skip(1).take(MOST)
}

/// `base` plus a signed 4-byte offset.
fn offset(base: Vaddr, by: u32) -> Vaddr {
    Vaddr(base.0.wrapping_add_signed(i64::from(by.cast_signed())))
}

/// `.eh_frame_hdr` by its program header (ELF64: e_phoff 32, e_phentsize 54, e_phnum 56).
fn segment(binary: &Binary) -> Option<(Vaddr, &[u8])> {
    let data = binary.data();
    let half = |at: usize| Some(u16::from_le_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let (start, size, count) = (u64_at(data, 32)?, u64::from(half(54)?), u64::from(half(56)?));
    (0..count).find_map(|n| {
        let header = slice(data, start.checked_add(n.checked_mul(size)?)?, 56)?;
        (u32_at(header, 0)? == PT_GNU_EH_FRAME).then_some(())?;
        let address = Vaddr(u64_at(header, 16)?);
        Some((address, binary.bytes_at(address, u64_at(header, 32)?)?))
    })
}
