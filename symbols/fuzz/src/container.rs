//! ELF files around parts that a fuzzer or a test makes up: what it changes is then a table, not the way to it.

use symbols::binary::Binary;

/// A section that a part can become.
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    /// The section that it speaks of, as a position in [`SECTIONS`].
    link: usize,
    entry_size: u64,
}

const PROGBITS: u32 = 1;
const STRTAB: u32 = 3;
const WRITE: u64 = 1;
const ALLOC: u64 = 2;
const EXEC: u64 = 4;
const COMPRESSED: u64 = 0x800;

const fn section(name: &'static str, flags: u64) -> Section {
    Section { name, kind: PROGBITS, flags, link: 0, entry_size: 0 }
}

const fn table(name: &'static str, kind: u32, flags: u64, link: usize, entry_size: u64) -> Section {
    Section { name, kind, flags, link, entry_size }
}

/// What parts become, by number. The order is part of the format of the inputs: new ones go to the end.
const SECTIONS: [Section; 40] = [
    section(".text", ALLOC | EXEC),
    table(".symtab", 2, 0, 2, 24),
    table(".strtab", STRTAB, 0, 0, 0),
    section(".gopclntab", ALLOC),
    section(".go.buildinfo", ALLOC | WRITE),
    section(".go.module", ALLOC | WRITE),
    section(".rodata", ALLOC),
    section(".data", ALLOC | WRITE),
    section(".eh_frame", ALLOC),
    section(".eh_frame_hdr", ALLOC),
    section(".debug_abbrev", 0),
    section(".debug_info", 0),
    section(".debug_line", 0),
    section(".debug_str", 0),
    section(".debug_line_str", 0),
    section(".debug_ranges", 0),
    section(".debug_rnglists", 0),
    section(".debug_addr", 0),
    section(".debug_str_offsets", 0),
    section(".debug_types", 0),
    table(".note.gnu.build-id", 7, ALLOC, 0, 0),
    section(".gnu_debugdata", 0),
    section(".gnu_debuglink", 0),
    table(".dynamic", 6, ALLOC | WRITE, 25, 16),
    table(".dynsym", 11, ALLOC, 25, 24),
    table(".dynstr", STRTAB, ALLOC, 0, 0),
    table(".rela.dyn", 4, ALLOC, 24, 24),
    table(".gnu.version", 0x6fff_ffff, ALLOC, 24, 2),
    table(".gnu.version_d", 0x6fff_fffd, ALLOC, 25, 0),
    table(".note.go.buildid", 7, ALLOC, 0, 0),
    section(".plt", ALLOC | EXEC),
    section(".text.more", ALLOC | EXEC),
    section(".interp", ALLOC),
    section(".debug_abbrev.dwo", 0),
    section(".debug_info.dwo", 0),
    section(".debug_line.dwo", 0),
    section(".debug_str.dwo", 0),
    section(".debug_rnglists.dwo", 0),
    section(".debug_str_offsets.dwo", 0),
    section(".debug_cu_index", 0),
];

/// Part numbers beyond those of sections: files beside the program.
pub const SPLIT_OBJECT: u8 = 0xf0;
pub const SPLIT_PACKAGE: u8 = 0xf1;
pub const DEBUG_FILE: u8 = 0xf2;

/// Addresses between the starts of two sections. Part N begins at (N + 1) times this, whatever the others are.
pub const SLOT: u64 = 0x10_0000;

/// The file has no section table.
pub const NO_SECTIONS: u8 = 1;
/// It is a shared object.
pub const SHARED: u8 = 2;
/// It is for aarch64.
pub const ARM: u8 = 4;
/// Its debug sections are said to be compressed.
pub const COMPRESSED_DEBUG: u8 = 8;

/// The number of a section's part.
pub fn number(name: &str) -> Option<u8> {
    SECTIONS.iter().position(|s| s.name == name).map(|n| n as u8)
}

/// Where a section's part begins.
pub fn address(name: &str) -> u64 {
    number(name).map_or(0, |n| (u64::from(n) + 1) * SLOT)
}

/// Flags and parts: (number, bytes).
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pub flags: u8,
    pub parts: Vec<(u8, Vec<u8>)>,
}

impl Parts {
    /// Reads what [`Self::encode`] writes; any bytes are some parts.
    pub fn decode(input: &[u8]) -> Self {
        let Some((&flags, mut rest)) = input.split_first() else { return Self::default() };
        let mut parts = Vec::new();
        while let [number, a, b, c, after @ ..] = rest {
            let len = (usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16).min(after.len());
            let (part, others) = after.split_at(len);
            parts.push((*number, part.to_vec()));
            rest = others;
        }
        Self { flags, parts }
    }

    /// The flags, then for each part its number (one byte), its length (three) and its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.flags];
        for (number, bytes) in &self.parts {
            out.push(*number);
            out.extend(&(bytes.len() as u32).to_le_bytes()[..3]);
            out.extend(bytes);
        }
        out
    }

    /// The parts that a program has, at whatever addresses.
    pub fn of(program: &Binary) -> Self {
        let part = |(n, section): (usize, &Section)| Some((n as u8, program.section(section.name)?.1.to_vec()));
        Self { flags: 0, parts: SECTIONS.iter().enumerate().filter_map(part).collect() }
    }

    pub fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.parts.extend(number(name).map(|n| (n, bytes.into())));
        self
    }

    pub fn get(&self, wanted: u8) -> Option<&[u8]> {
        self.parts.iter().find(|(number, _)| *number == wanted).map(|(_, bytes)| bytes.as_slice())
    }

    /// The ELF file. Of parts with one number the first counts.
    pub fn file(&self) -> Vec<u8> {
        let mut sections: Vec<(usize, &Section, &[u8])> = Vec::new();
        for (n, section) in SECTIONS.iter().enumerate() {
            sections.extend(self.get(n as u8).map(|bytes| (n, section, bytes)));
        }
        let names = section_names(&sections);
        let segments: Vec<_> = sections.iter().flat_map(|(n, s, bytes)| segments(*n, s, bytes)).collect();
        let mut at: usize = 64 + 56 * segments.len();
        let mut headers = vec![[0u64; 10]];
        let mut body = Vec::new();
        let mut places = [0usize; SECTIONS.len()];
        for (n, section, bytes) in &sections {
            let padding = at.next_multiple_of(8) - at;
            body.resize(body.len() + padding, 0);
            at += padding;
            places[*n] = at;
            let position = |n: usize| sections.iter().position(|(other, ..)| *other == n).map_or(0, |p| p as u64 + 1);
            let name = names.1.get(headers.len() - 1).copied().unwrap_or(0);
            let debug = section.name.starts_with(".debug") && self.flags & COMPRESSED_DEBUG != 0;
            let flags = section.flags | if debug { COMPRESSED } else { 0 };
            let address = if section.flags & ALLOC != 0 { (*n as u64 + 1) * SLOT } else { 0 };
            let kind = u64::from(section.kind);
            let (link, size) = (if section.link == 0 { 0 } else { position(section.link) }, bytes.len() as u64);
            headers.push([name, kind, flags, address, at as u64, size, link, 0, 1, section.entry_size]);
            body.extend_from_slice(bytes);
            at += bytes.len();
        }
        headers.push([0, u64::from(STRTAB), 0, 0, at as u64, names.0.len() as u64, 0, 0, 1, 0]);
        body.extend(&names.0);
        let table = at + names.0.len();
        let has_sections = self.flags & NO_SECTIONS == 0;
        let count = if has_sections { headers.len() } else { 0 };
        let mut out = self.elf_header(segments.len(), count, if has_sections { table } else { 0 });
        for segment in segments {
            out.extend(segment.bytes(places[segment.part]));
        }
        out.extend(body);
        if has_sections {
            headers.iter().for_each(|h| out.extend(section_header(h)));
        }
        out
    }

    fn elf_header(&self, segments: usize, sections: usize, table: usize) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        let (kind, machine) =
            (if self.flags & SHARED != 0 { 3 } else { 2 }, if self.flags & ARM != 0 { 183 } else { 62 });
        push16(&mut out, &[kind, machine]);
        push32(&mut out, &[1]);
        push64(&mut out, &[SLOT, 64, table as u64]);
        push32(&mut out, &[0]);
        push16(&mut out, &[64, 56, segments as u16, 64, sections as u16, sections.saturating_sub(1) as u16]);
        out
    }
}

/// The strings of the section names, and where each begins.
fn section_names(sections: &[(usize, &Section, &[u8])]) -> (Vec<u8>, Vec<u64>) {
    let mut text = vec![0];
    let mut starts = Vec::new();
    for (_, section, _) in sections {
        starts.push(text.len() as u64);
        text.extend(section.name.as_bytes());
        text.push(0);
    }
    (text, starts)
}

struct Segment {
    part: usize,
    kind: u32,
    flags: u32,
    len: u64,
}

fn segments(part: usize, section: &Section, bytes: &[u8]) -> Vec<Segment> {
    if section.flags & ALLOC == 0 {
        return Vec::new();
    }
    let flags = 4 | if section.flags & WRITE != 0 { 2 } else { 0 } | u32::from(section.flags & EXEC != 0);
    let extra = match section.name {
        ".eh_frame_hdr" => Some(0x6474_e550),
        ".dynamic" => Some(2),
        ".interp" => Some(3),
        name if name.starts_with(".note") => Some(4),
        _ => None,
    };
    let of = |kind| Segment { part, kind, flags, len: bytes.len() as u64 };
    [Some(1), extra].into_iter().flatten().map(of).collect()
}

impl Segment {
    fn bytes(&self, place: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let (address, place) = ((self.part as u64 + 1) * SLOT, place as u64);
        push32(&mut out, &[self.kind, self.flags]);
        push64(&mut out, &[place, address, address, self.len, self.len, 1]);
        out
    }
}

fn section_header(fields: &[u64; 10]) -> Vec<u8> {
    let [name, kind, flags, address, at, size, link, info, align, entry] = *fields;
    let mut out = Vec::new();
    push32(&mut out, &[name as u32, kind as u32]);
    push64(&mut out, &[flags, address, at, size]);
    push32(&mut out, &[link as u32, info as u32]);
    push64(&mut out, &[align, entry]);
    out
}

pub fn push16(out: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|w| out.extend(w.to_le_bytes()));
}

pub fn push32(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|w| out.extend(w.to_le_bytes()));
}

pub fn push64(out: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|w| out.extend(w.to_le_bytes()));
}

/// A symbol of `.symtab`: a global function, or whatever `info` says.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    pub name: u32,
    pub info: u8,
    pub address: u64,
    pub size: u64,
}

pub const GLOBAL_FUNCTION: u8 = 0x12;

/// `.symtab`: all symbols in section 1, which is the one of the lowest part.
pub fn symbols(symbols: &[Symbol]) -> Vec<u8> {
    let mut out = vec![0; 24];
    for symbol in symbols {
        push32(&mut out, &[symbol.name]);
        out.extend([symbol.info, 0, 1, 0]);
        push64(&mut out, &[symbol.address, symbol.size]);
    }
    out
}

/// A program of functions of 16 bytes with these names, in this order.
pub fn named<'a>(names: impl Iterator<Item = &'a [u8]>) -> Parts {
    let (mut strings, mut table) = (vec![0], Vec::new());
    for (n, name) in names.enumerate() {
        let address = SLOT + 16 * n as u64;
        table.push(Symbol { name: strings.len() as u32, info: GLOBAL_FUNCTION, address, size: 16 });
        strings.extend_from_slice(name);
        strings.push(0);
    }
    let text = vec![0xc3; 16 * table.len() + 16];
    Parts::default().with(".text", text).with(".symtab", symbols(&table)).with(".strtab", strings)
}
