//! An ELF file as the loader sees it: segments, dynamic section, notes, needed libraries. Read with goblin.
//!
//! The section table plays no part here: a file without one runs, and must be readable all the same.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_AARCH64, EM_X86_64, ET_DYN, ET_REL, machine_to_str,
};
use goblin::elf::program_header::{PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS, ProgramHeader};
use goblin::elf::{Dynamic, Elf, dynamic};

use crate::Error;
use crate::addr::{FileOffset, Vaddr};
use crate::binary::{Machine, Segment};
use crate::bytes::{c_str, short_str, slice, u32_at, u64_at};

/// More program headers than any linker writes. Addresses are looked for in one after the other.
const MAX_PROGRAM_HEADERS: usize = 256;
/// Longer names of libraries are no paths (PATH_MAX), and more of them nobody links.
const MAX_LIBRARY_NAME: usize = 4096;
const MAX_LIBRARIES: usize = 4096;
/// ELF64 header size in bytes.
const HEADER_SIZE: u64 = 64;
const NOTE_GNU_BUILD_ID: u32 = 3;

/// What the loader knows of a file.
pub(crate) struct Layout {
    pub(crate) machine: Machine,
    pub(crate) is_pie: bool,
    pub(crate) segments: Vec<Segment>,
    pub(crate) build_id: Option<Vec<u8>>,
    /// A note of owner `Go` exists.
    pub(crate) go_note: bool,
    pub(crate) interpreter: Option<String>,
    pub(crate) soname: Option<String>,
    pub(crate) needed: Vec<String>,
    pub(crate) runpath: Option<String>,
    pub(crate) tls: Option<Tls>,
    /// The dynamic symbol table and its strings, as ranges of the file.
    pub(crate) dynamic_symbols: Option<DynamicSymbols>,
    /// `.rela.dyn` as (start, length) in the file.
    pub(crate) rela: Option<(usize, usize)>,
    /// So many relocations at the beginning of `.rela.dyn` are relative ones.
    pub(crate) relative: usize,
    pub(crate) init: Option<Vaddr>,
    pub(crate) fini: Option<Vaddr>,
    pub(crate) entry: Vaddr,
}

/// The thread-local storage template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Bytes of the block in memory.
    pub mem_size: u64,
    /// Alignment in bytes.
    pub align: u64,
}

/// The dynamic symbol table found without sections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicSymbols {
    pub(crate) table: usize,
    pub(crate) count: usize,
    pub(crate) strings: usize,
    pub(crate) strings_len: usize,
}

impl Layout {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Error> {
        check_identity(data)?;
        let header = Elf::parse_header(data).map_err(malformed)?;
        let machine = match header.e_machine {
            EM_X86_64 => Machine::X86_64,
            EM_AARCH64 => Machine::Aarch64,
            other => {
                return Err(Error::OtherMachine { found: machine_to_str(other).to_owned() });
            }
        };
        if header.e_type == ET_REL {
            return Err(Error::ObjectFile);
        }
        let count = usize::from(header.e_phnum);
        if count > MAX_PROGRAM_HEADERS {
            return Err(Error::Malformed(format!("{count} program headers; linkers write a dozen")));
        }
        let table_end = header.e_phoff.saturating_add((count as u64).saturating_mul(u64::from(header.e_phentsize)));
        check_end(data, "the program header table", table_end)?;
        let ctx = Ctx::new(Container::Big, Endian::Little);
        let offset = usize::try_from(header.e_phoff).map_err(|_| Error::Malformed("program header offset".into()))?;
        let headers = ProgramHeader::parse(data, offset, count, ctx).map_err(malformed)?;
        let mut layout = Self {
            machine,
            is_pie: header.e_type == ET_DYN,
            segments: segments(data, &headers)?,
            build_id: None,
            go_note: false,
            interpreter: None,
            soname: None,
            needed: Vec::new(),
            runpath: None,
            tls: None,
            dynamic_symbols: None,
            rela: None,
            relative: 0,
            init: None,
            fini: None,
            entry: Vaddr(header.e_entry),
        };
        for header in &headers {
            layout.read_header(data, header);
        }
        // What the dynamic section points to, goblin reads with the segments; a broken one is as good as none.
        if headers.iter().any(|h| h.p_type == PT_DYNAMIC)
            && let Ok(Some(dynamic)) = Dynamic::parse(data, &headers, ctx)
        {
            layout.read_dynamic(data, &dynamic);
        }
        Ok(layout)
    }

    /// The place in the file of a file-backed address, and how many file-backed bytes follow it there.
    pub(crate) fn locate(&self, v: Vaddr) -> Option<(FileOffset, u64)> {
        locate(&self.segments, v)
    }

    fn read_header(&mut self, data: &[u8], header: &ProgramHeader) {
        let Some(bytes) = slice(data, header.p_offset, header.p_filesz) else {
            return;
        };
        match header.p_type {
            PT_INTERP => self.interpreter = c_str(bytes, 0).map(str::to_owned),
            PT_TLS => self.tls = Some(Tls { mem_size: header.p_memsz, align: header.p_align.max(1) }),
            PT_NOTE => self.read_notes(bytes, header.p_align),
            _ => {}
        }
    }

    fn read_notes(&mut self, bytes: &[u8], align: u64) {
        let align = if align == 8 { 8 } else { 4 };
        let mut at = 0usize;
        while let (Some(name_len), Some(desc_len), Some(kind)) =
            (u32_at(bytes, at), u32_at(bytes, at.saturating_add(4)), u32_at(bytes, at.saturating_add(8)))
        {
            let name_at = at + 12;
            let Some(desc_at) = name_at.checked_add(name_len as usize).map(|n| n.next_multiple_of(align)) else {
                return;
            };
            let Some(end) = desc_at.checked_add(desc_len as usize) else {
                return;
            };
            let (Some(name), Some(desc)) = (bytes.get(name_at..name_at + name_len as usize), bytes.get(desc_at..end))
            else {
                return;
            };
            if name == b"GNU\0" && kind == NOTE_GNU_BUILD_ID && self.build_id.is_none() && !desc.is_empty() {
                self.build_id = Some(desc.to_vec());
            }
            self.go_note |= name == b"Go\0\0";
            at = end.next_multiple_of(align);
        }
    }

    fn read_dynamic(&mut self, data: &[u8], dynamic: &Dynamic) {
        // goblin turns the addresses into file offsets for its own use only; ours go through `locate`.
        let segments = self.segments.clone();
        let value = |tag: u64| dynamic.dyns.iter().find(|d| d.d_tag == tag).map(|d| d.d_val);
        let at = |tag: u64| value(tag).and_then(|v| locate(&segments, Vaddr(v)));
        let strings = at(dynamic::DT_STRTAB).and_then(|(offset, left)| {
            let len = value(dynamic::DT_STRSZ).unwrap_or(0).min(left);
            Some((usize::try_from(offset.0).ok()?, usize::try_from(len).ok()?))
        });
        if let Some((start, len)) = strings {
            let table = data.get(start..start.saturating_add(len)).unwrap_or_default();
            let text =
                |offset: u64| short_str(table, usize::try_from(offset).ok()?, MAX_LIBRARY_NAME).map(str::to_owned);
            self.soname = value(dynamic::DT_SONAME).and_then(text);
            let needed = dynamic.dyns.iter().filter(|d| d.d_tag == dynamic::DT_NEEDED).take(MAX_LIBRARIES);
            self.needed = needed.filter_map(|d| text(d.d_val)).collect();
            self.runpath = value(dynamic::DT_RUNPATH).or_else(|| value(dynamic::DT_RPATH)).and_then(text);
            self.dynamic_symbols = at(dynamic::DT_SYMTAB).and_then(|(offset, left)| {
                let hash = at(dynamic::DT_HASH).and_then(|(o, l)| slice(data, o.0, l));
                let gnu = at(dynamic::DT_GNU_HASH).and_then(|(o, l)| slice(data, o.0, l));
                let count = hash.and_then(|h| u32_at(h, 4)).map(u64::from).or_else(|| gnu_hash_count(gnu?))?;
                Some(DynamicSymbols {
                    table: usize::try_from(offset.0).ok()?,
                    count: usize::try_from(count.min(left / 24)).ok()?,
                    strings: start,
                    strings_len: len,
                })
            });
        }
        self.rela = at(dynamic::DT_RELA).and_then(|(offset, left)| {
            let len = value(dynamic::DT_RELASZ)?.min(left);
            Some((usize::try_from(offset.0).ok()?, usize::try_from(len).ok()?))
        });
        self.relative = value(dynamic::DT_RELACOUNT).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let code = |tag| value(tag).map(Vaddr);
        (self.init, self.fini) = (code(dynamic::DT_INIT), code(dynamic::DT_FINI));
    }
}

fn locate(segments: &[Segment], v: Vaddr) -> Option<(FileOffset, u64)> {
    segments.iter().find_map(|s| {
        let into = v.0.checked_sub(s.vaddr.0)?;
        let left = s.file_size.checked_sub(into).filter(|&left| left > 0)?;
        Some((FileOffset(s.file_offset.0.checked_add(into)?), left))
    })
}

/// Symbols that a GNU hash table covers: the end of the chain that starts last.
/// Source: glibc elf/dl-lookup.c, `_dl_setup_hash` and `do_lookup_x`.
fn gnu_hash_count(table: &[u8]) -> Option<u64> {
    let (buckets, first, bloom) = (u32_at(table, 0)?, u32_at(table, 4)?, u32_at(table, 8)?);
    let buckets_at = 16usize.checked_add(usize::try_from(bloom).ok()?.checked_mul(8)?)?;
    let chains_at = buckets_at.checked_add(usize::try_from(buckets).ok()?.checked_mul(4)?)?;
    let heads = table.get(buckets_at..chains_at)?;
    let last = heads.chunks_exact(4).filter_map(|c| u32_at(c, 0)).max().unwrap_or(0);
    if last < first {
        return Some(u64::from(first));
    }
    let mut symbol = last;
    loop {
        let at = chains_at.checked_add(usize::try_from(symbol - first).ok()?.checked_mul(4)?)?;
        symbol = symbol.checked_add(1)?;
        if u32_at(table, at)? & 1 == 1 {
            return Some(u64::from(symbol));
        }
    }
}

fn check_identity(data: &[u8]) -> Result<(), Error> {
    if data.is_empty() {
        return Err(Error::Empty);
    }
    if !data.starts_with(b"\x7fELF") {
        return Err(Error::NotElf);
    }
    check_end(data, "the ELF header", HEADER_SIZE)?;
    let (class, order) = (data.get(EI_CLASS), data.get(EI_DATA));
    if class != Some(&ELFCLASS64) {
        return Err(Error::OtherMachine { found: "a 32-bit file".into() });
    }
    if order != Some(&ELFDATA2LSB) {
        return Err(Error::OtherMachine { found: "a big-endian file".into() });
    }
    Ok(())
}

fn segments(data: &[u8], headers: &[ProgramHeader]) -> Result<Vec<Segment>, Error> {
    let loads = headers.iter().filter(|h| h.p_type == PT_LOAD);
    loads
        .map(|h| {
            check_end(data, "a segment", h.p_offset.saturating_add(h.p_filesz))?;
            if h.p_vaddr.checked_add(h.p_memsz.max(h.p_filesz)).is_none() {
                return Err(Error::Malformed("a segment wraps around the address space".into()));
            }
            Ok(Segment {
                vaddr: Vaddr(h.p_vaddr),
                file_offset: FileOffset(h.p_offset),
                file_size: h.p_filesz,
                mem_size: h.p_memsz,
                executable: h.p_flags & PF_X != 0,
                writable: h.p_flags & PF_W != 0,
            })
        })
        .collect()
}

fn check_end(data: &[u8], what: &'static str, end: u64) -> Result<(), Error> {
    let length = data.len() as u64;
    if end > length { Err(Error::Truncated { what, end, length }) } else { Ok(()) }
}

/// Whether the section headers, with which symbols are found, are cut off. Without any (`e_shoff` is 0) nothing is.
pub(crate) fn check_section_headers(data: &[u8]) -> Result<(), Error> {
    let header = Elf::parse_header(data).map_err(malformed)?;
    if header.e_shoff == 0 {
        return Ok(());
    }
    // gABI, chapter 4: with 0 here, the first section header states the number.
    let count = u64::from(header.e_shnum.max(1));
    let size = count.saturating_mul(u64::from(header.e_shentsize));
    check_end(data, "the section header table", header.e_shoff.saturating_add(size))
}

fn malformed(error: goblin::error::Error) -> Error {
    Error::Malformed(error.to_string())
}

/// Entries of a RELA table that say "the word at .0 is the load address plus .1".
pub(crate) fn relative_relocations(machine: Machine, table: &[u8]) -> impl Iterator<Item = (Vaddr, Vaddr)> {
    let relative = match machine {
        Machine::X86_64 => u64::from(goblin::elf::reloc::R_X86_64_RELATIVE),
        Machine::Aarch64 => u64::from(goblin::elf::reloc::R_AARCH64_RELATIVE),
    };
    table.chunks_exact(24).filter_map(move |entry| {
        (u64_at(entry, 8)? & 0xffff_ffff == relative).then_some(())?;
        Some((Vaddr(u64_at(entry, 0)?), Vaddr(u64_at(entry, 16)?)))
    })
}
