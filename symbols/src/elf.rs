//! An ELF file as a debugger sees it: sections and symbol tables. Read with the object crate.
//!
//! Everything here may be missing or broken; then it is absent, and the rest of the file still serves.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{FileHeader64, SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB};
use object::read::elf::{FileHeader as _, SectionHeader as _};

use crate::addr::Vaddr;
use crate::bytes::{short_bytes, u32_at, u64_at};

// Symbol types, bindings and section indices (gABI, chapter 4).
pub(crate) const STT_NOTYPE: u8 = 0;
pub(crate) const STT_FUNC: u8 = 2;
pub(crate) const STT_FILE: u8 = 4;
pub(crate) const STT_GNU_IFUNC: u8 = 10;
pub(crate) const STB_LOCAL: u8 = 0;
pub(crate) const STB_WEAK: u8 = 2;
pub(crate) const SHN_UNDEF: u16 = 0;
pub(crate) const SHN_ABS: u16 = 0xfff1;
pub(crate) const SHN_COMMON: u16 = 0xfff2;

/// Bytes of one symbol in an ELF64 file.
pub(crate) const SYMBOL_SIZE: usize = 24;

/// Longer names of sections are not looked at: many may point into one long text.
const MAX_SECTION_NAME: usize = 255;
/// Sections that overlap at one address: `.tbss` and its neighbour, and more in broken files.
const MAX_OVERLAP: usize = 64;

/// One section that takes part in the running program, or holds symbols.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: Range<usize>,
    pub(crate) address: Vaddr,
    pub(crate) size: u64,
    /// Its bytes in the file; empty for `.bss` and for what lies outside the file.
    pub(crate) file: Range<usize>,
    pub(crate) executable: bool,
    pub(crate) allocated: bool,
    /// `SHF_COMPRESSED`: a header says how.
    pub(crate) compressed: bool,
}

/// A symbol table as ranges of the file.
#[derive(Clone, Debug)]
pub(crate) struct SymbolTable {
    pub(crate) entries: Range<usize>,
    pub(crate) strings: Range<usize>,
    /// `.dynsym`, not `.symtab`.
    pub(crate) dynamic: bool,
}

/// The section table of a file, empty if there is none.
#[derive(Default)]
pub(crate) struct Sections {
    pub(crate) sections: Vec<Section>,
    pub(crate) symtab: Option<SymbolTable>,
    pub(crate) dynsym: Option<SymbolTable>,
    /// Positions of the allocated ones by address, each with the furthest end of it and all before it.
    by_address: Vec<(Vaddr, usize, Vaddr)>,
    /// Positions by name.
    by_name: Vec<usize>,
}

/// One symbol, with its name as an offset into the table's strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub(crate) name: u32,
    pub(crate) kind: u8,
    pub(crate) binding: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl Sections {
    pub(crate) fn parse(data: &[u8]) -> Self {
        Self::try_parse(data).unwrap_or_default()
    }

    fn try_parse(data: &[u8]) -> object::read::Result<Self> {
        let header = FileHeader64::<LittleEndian>::parse(data)?;
        let table = header.section_headers(LittleEndian, data)?;
        let names = header
            .section_strings_index(LittleEndian, data)
            .ok()
            .and_then(|index| table.get(index.0))
            .and_then(|s| s.file_range(LittleEndian))
            .and_then(|(at, len)| in_file(data, at, len));
        let file = |s: &object::elf::SectionHeader64<LittleEndian>| {
            s.file_range(LittleEndian).and_then(|(at, len)| in_file(data, at, len))
        };
        let mut found = Self::default();
        for header in table {
            let kind = header.sh_type(LittleEndian);
            let name = name_range(data, names.as_ref(), header.sh_name.get(LittleEndian));
            if kind == SHT_SYMTAB || kind == SHT_DYNSYM {
                let linked = usize::try_from(header.sh_link(LittleEndian)).ok().and_then(|i| table.get(i));
                let symbols = file(header).zip(linked.and_then(file));
                let dynamic = kind == SHT_DYNSYM;
                let symbols = symbols.map(|(entries, strings)| SymbolTable { entries, strings, dynamic });
                let place = if kind == SHT_SYMTAB { &mut found.symtab } else { &mut found.dynsym };
                *place = place.take().or(symbols);
            }
            let flags = header.sh_flags(LittleEndian).0;
            found.sections.push(Section {
                name,
                address: Vaddr(header.sh_addr(LittleEndian)),
                size: header.sh_size(LittleEndian),
                file: if kind == SHT_NOBITS { 0..0 } else { file(header).unwrap_or(0..0) },
                executable: flags & SHF_EXECINSTR.0 != 0,
                allocated: flags & SHF_ALLOC.0 != 0,
                compressed: flags & SHF_COMPRESSED.0 != 0,
            });
        }
        found.sort(data);
        Ok(found)
    }

    /// No sections but one symbol table.
    pub(crate) fn of_symbols(symtab: SymbolTable) -> Self {
        Self { symtab: Some(symtab), ..Self::default() }
    }

    fn sort(&mut self, data: &[u8]) {
        let allocated = self.sections.iter().enumerate().filter(|(_, s)| s.allocated && s.size > 0);
        self.by_address = allocated.map(|(n, s)| (s.address, n, s.end())).collect();
        self.by_address.sort_unstable();
        let mut reach = Vaddr(0);
        for (_, _, end) in &mut self.by_address {
            reach = reach.max(*end);
            *end = reach;
        }
        self.by_name = (0..self.sections.len()).collect();
        // Of sections with one name the first counts: the sort is stable.
        self.by_name.sort_by_key(|&n| name_of(&self.sections, data, n));
    }

    /// The section called `name`.
    pub(crate) fn named(&self, data: &[u8], name: &str) -> Option<&Section> {
        let before = self.by_name.partition_point(|&n| name_of(&self.sections, data, n) < name.as_bytes());
        let found = *self.by_name.get(before)?;
        self.sections.get(found).filter(|_| name_of(&self.sections, data, found) == name.as_bytes())
    }

    /// The allocated section that holds `v`: of several the one that begins last.
    pub(crate) fn at(&self, v: Vaddr) -> Option<&Section> {
        let after = self.by_address.partition_point(|&(start, ..)| start <= v);
        let before = self.by_address.get(..after).unwrap_or_default().iter().rev();
        let near = before.take_while(|&&(_, _, reach)| v < reach).take(MAX_OVERLAP);
        near.filter_map(|&(_, n, _)| self.sections.get(n)).find(|s| s.holds(v))
    }
}

fn name_of<'a>(sections: &[Section], data: &'a [u8], n: usize) -> &'a [u8] {
    sections.get(n).and_then(|s| data.get(s.name.clone())).unwrap_or_default()
}

impl Section {
    pub(crate) fn holds(&self, v: Vaddr) -> bool {
        v.0.checked_sub(self.address.0).is_some_and(|into| into < self.size)
    }

    /// The address after its last byte.
    pub(crate) fn end(&self) -> Vaddr {
        Vaddr(self.address.0.saturating_add(self.size))
    }
}

impl SymbolTable {
    pub(crate) fn symbols<'a>(&self, data: &'a [u8]) -> impl Iterator<Item = Symbol> + use<'a> {
        let entries = data.get(self.entries.clone()).unwrap_or_default();
        entries.chunks_exact(SYMBOL_SIZE).filter_map(Symbol::parse)
    }

    /// Symbol number `position`.
    pub(crate) fn symbol(&self, data: &[u8], position: u32) -> Option<Symbol> {
        let entries = data.get(self.entries.clone())?;
        let at = usize::try_from(position).ok()?.checked_mul(SYMBOL_SIZE)?;
        Symbol::parse(entries.get(at..at.checked_add(SYMBOL_SIZE)?)?)
    }

    /// Where the name of symbol number `position` begins in the file.
    pub(crate) fn text(&self, data: &[u8], position: u32) -> Option<usize> {
        self.place_of(&self.symbol(data, position)?)
    }

    /// Where a symbol's name begins in the file.
    pub(crate) fn place_of(&self, symbol: &Symbol) -> Option<usize> {
        let name = usize::try_from(symbol.name).ok()?;
        self.strings.start.checked_add(name).filter(|&at| at < self.strings.end)
    }
}

impl Symbol {
    fn parse(entry: &[u8]) -> Option<Self> {
        let info = *entry.get(4)?;
        Some(Self {
            name: u32_at(entry, 0)?,
            kind: info & 0xf,
            binding: info >> 4,
            section: u16::from_le_bytes([*entry.get(6)?, *entry.get(7)?]),
            value: u64_at(entry, 8)?,
            size: u64_at(entry, 16)?,
        })
    }
}

fn in_file(data: &[u8], at: u64, len: u64) -> Option<Range<usize>> {
    let start = usize::try_from(at).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    data.get(start..end).map(|_| start..end)
}

fn name_range(data: &[u8], names: Option<&Range<usize>>, offset: u32) -> Range<usize> {
    let found = names.and_then(|names| {
        let start = names.start.checked_add(usize::try_from(offset).ok()?)?;
        let len = short_bytes(data.get(start..names.end)?, 0, MAX_SECTION_NAME)?.len();
        Some(start..start + len)
    });
    found.unwrap_or(0..0)
}
