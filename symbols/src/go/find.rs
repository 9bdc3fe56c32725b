//! Where Go's tables are: by section name, else by scanning what the loader maps.
//!
//! The function table is `.gopclntab`, in position-independent executables up to Go 1.25 `.data.rel.ro.gopclntab` or, linked
//! externally, the middle of `.data.rel.ro`. The module data has no section of its own before Go 1.26 (`.go.module`): it
//! is known by its first word, which points to the function table, and by the words after that point into it.

use super::pclntab::Pclntab;
use super::{MODULE_WORDS, Module, WORD_TEXT};
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::{Binary, Machine, Segment};
use crate::bytes::u64_at;

const MARKER_SECTIONS: [&str; 5] =
    [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo", ".note.go.buildid", ".go.module"];

/// More candidates than any real file has; each costs a search for its module data.
const MAX_CANDIDATES: usize = 64;

/// The function table, with its text address filled in, and the module data.
pub(super) fn tables(binary: &Binary) -> Result<Option<(Pclntab, Option<Module>)>, Error> {
    if !looks_like_go(binary) {
        return Ok(None);
    }
    let named = MARKER_SECTIONS.iter().take(2).filter_map(|name| binary.section(name));
    let named: Vec<_> = named.map(|(address, bytes)| (address, bytes.len() as u64)).collect();
    let mut problem = None;
    for (address, len) in named.into_iter().chain(Scan::new(binary).take(MAX_CANDIDATES)) {
        match at(binary, address, len) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    // Without sections nothing but a table says "Go"; a file that only might be one is not.
    problem.map_or(Ok(None), Err)
}

fn looks_like_go(binary: &Binary) -> bool {
    let sections = binary.sections();
    binary.layout().go_note
        || sections.sections.is_empty()
        || MARKER_SECTIONS.iter().any(|name| sections.named(binary.data(), name).is_some())
}

fn at(binary: &Binary, address: Vaddr, len: u64) -> Result<(Pclntab, Option<Module>), Error> {
    let mut table = Pclntab::parse(binary, address, len)?;
    let module = module(binary, &table);
    let text = module.as_ref().and_then(|m| m.words.get(WORD_TEXT).copied()).map(Vaddr);
    // Go 1.26+ leaves textStart 0; before, both say the same.
    let text = text.filter(|&t| binary.is_executable(t)).or_else(|| table.header_text(binary));
    match text {
        Some(text) if binary.is_executable(text) => table.set_text(binary, text)?,
        _ if table.needs_text() => {
            return Err(Error::GoTable("the address of the code is not known"));
        }
        _ => {}
    }
    table.check(binary)?;
    Ok((table, module))
}

/// Places at which a function table may begin.
struct Scan<'a> {
    binary: &'a Binary,
    header: regex::bytes::Regex,
    segment: usize,
    into: usize,
}

impl<'a> Scan<'a> {
    fn new(binary: &'a Binary) -> Self {
        // Magic numbers of Go 1.16, 1.18 and 1.20, two zero bytes, the instruction quantum, the pointer size.
        let quantum = match binary.machine() {
            Machine::X86_64 => r"\x01",
            Machine::Aarch64 => r"\x04",
        };
        let pattern = format!(r"(?-u)[\xf0\xf1\xfa]\xff\xff\xff\x00\x00{quantum}\x08");
        let header = regex::bytes::Regex::new(&pattern).expect("the pattern is ours");
        Self { binary, header, segment: 0, into: 0 }
    }
}

impl Iterator for Scan<'_> {
    type Item = (Vaddr, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let segment = self.binary.segments().get(self.segment)?;
            let bytes = self.binary.bytes_at(segment.vaddr, segment.file_size).unwrap_or_default();
            let Some(found) = bytes.get(self.into..).and_then(|rest| self.header.find(rest)) else {
                (self.segment, self.into) = (self.segment + 1, 0);
                continue;
            };
            let at = self.into + found.start();
            self.into = at + 1;
            let address = Vaddr(segment.vaddr.0.checked_add(at as u64)?);
            if address.0.is_multiple_of(8) {
                return Some((address, (bytes.len() - at) as u64));
            }
        }
    }
}

/// The module data that belongs to `table`.
fn module(binary: &Binary, table: &Pclntab) -> Option<Module> {
    let pointed = binary.relocations().filter(|&(_, target)| target == table.address()).map(|(place, _)| place);
    pointed.chain(plain_words(binary, table.address())).take(MAX_CANDIDATES).find_map(|place| {
        let module = read_module(binary, place)?;
        let [names, units] = table.landmarks();
        (module.words[1] == names.0 && module.words[4] == units.0).then_some(module)
    })
}

/// Aligned words in writable, then in other data segments, that hold `value`.
fn plain_words(binary: &Binary, value: Vaddr) -> impl Iterator<Item = Vaddr> {
    let of = |writable: bool| binary.segments().iter().filter(move |s| !s.executable && s.writable == writable);
    of(true).chain(of(false)).flat_map(move |s: &Segment| {
        let bytes = binary.bytes_at(s.vaddr, s.file_size).unwrap_or_default();
        let skew = (s.vaddr.0.wrapping_neg() % 8) as usize;
        let words = bytes.get(skew..).unwrap_or_default().chunks_exact(8).enumerate();
        let hits = words.filter(move |(_, word)| u64_at(word, 0) == Some(value.0));
        hits.map(move |(i, _)| Vaddr(s.vaddr.0.wrapping_add((skew + 8 * i) as u64)))
    })
}

fn read_module(binary: &Binary, address: Vaddr) -> Option<Module> {
    let end = address.checked_add(8 * MODULE_WORDS as u64)?;
    let mut words = [0; MODULE_WORDS];
    for (i, word) in words.iter_mut().enumerate() {
        let place = address.checked_add(8 * i as u64)?;
        // Its last words are of no interest, and may lie beyond a short segment.
        *word = binary.bytes_at(place, 8).and_then(|b| u64_at(b, 0)).unwrap_or(0);
    }
    for (place, target) in binary.relocations_in(address..end) {
        if let Some(word) = words.get_mut(((place.0 - address.0) / 8) as usize) {
            *word = target.0;
        }
    }
    Some(Module { address, words })
}
