//! From symbol tables and Go's function table to one list of names in order of address.

use rustc_hash::FxHashMap;

use super::{FLAG_IFUNC, FLAG_LOCAL, Index, Name, Source};
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::{Binary, Segment};
use crate::bytes::name_at;
use crate::debugfile::{AddressMap, DebugFile};
use crate::demangle;
use crate::elf::{Sections, Symbol, SymbolTable};
use crate::unwind;

// ELF: symbol types, bindings and section indices (gABI, chapter 4).
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_FILE: u8 = 4;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const STB_WEAK: u8 = 2;
const SHN_UNDEF: u16 = 0;
const SHN_ABS: u16 = 0xfff1;
const SHN_COMMON: u16 = 0xfff2;

/// All names, by address and rank. No text is looked at, but for the few that decide whether there is a function: most
/// questions are about a handful of names, and to touch them all would cost more than the answers.
pub(super) fn names(binary: &Binary, debug_files: &[DebugFile], nameless: bool) -> Result<Vec<Name>, Error> {
    let mut names = Vec::new();
    let go_text = binary.go().map(|program| program.text_range(binary));
    for (table, file) in symbol_tables(binary, debug_files) {
        let before = names.len();
        add_elf_names(&file, &table, &mut names);
        if let Some(go) = &go_text {
            // There the function table knows more: the symbols call an assembly body `f.abi0`.
            let mut kept = names.split_off(before);
            kept.retain(|n: &Name| !go.contains(&n.address) && !is_go_mark(binary, n));
            names.append(&mut kept);
        }
    }
    if let Some(program) = binary.go() {
        names.extend(program.addresses(binary).filter_map(|(position, address)| {
            let extra = u32::try_from(position).ok()?;
            Some(Name { address, size: 0, text: 0, extra, source: Source::Go, rank: 0, flags: 0 })
        }));
    }
    let mut names = in_order(names);
    names.retain(labels_in_functions());
    if nameless {
        add_nameless(binary, &mut names);
        names = in_order(names);
    }
    if names.is_empty() {
        return Err(match binary.go_error() {
            Some(Error::GoTable(why)) => Error::GoTable(why),
            _ => Error::NoSymbols,
        });
    }
    Ok(names)
}

/// Where a symbol table is from.
struct SymbolFile<'a> {
    /// The file that runs.
    binary: &'a Binary,
    /// The file that has the table.
    data: &'a [u8],
    sections: &'a Sections,
    /// None: they are the same file.
    map: Option<&'a AddressMap>,
    /// What places of texts in the file are counted from.
    base: usize,
}

/// The tables of the file, then those of its debug files. Texts of the latter count as if the files lay one behind the
/// other.
fn symbol_tables<'a>(binary: &'a Binary, debug_files: &'a [DebugFile]) -> Vec<(SymbolTable, SymbolFile<'a>)> {
    let own =
        |table| (table, SymbolFile { binary, data: binary.data(), sections: binary.sections(), map: None, base: 0 });
    let mut tables: Vec<_> = binary.symbol_tables().map(own).collect();
    let mut base = binary.data().len();
    for file in debug_files {
        if let Some(table) = &file.sections.symtab {
            let from = SymbolFile { binary, data: &file.data, sections: &file.sections, map: Some(&file.map), base };
            tables.push((table.clone(), from));
        }
        base = base.saturating_add(file.data.len());
    }
    tables
}

/// Functions that only the unwind tables know, where no named one is.
fn add_nameless(binary: &Binary, names: &mut Vec<Name>) {
    let mut found = Vec::new();
    let mut named = names.iter().peekable();
    let mut covered = 0;
    for (address, size) in unwind::code_ranges(binary) {
        while let Some(name) = named.next_if(|n| n.address <= address) {
            covered = covered.max(name.address.0.saturating_add(name.size.max(1)));
        }
        if address.0 >= covered && !binary.in_plt(address) {
            covered = address.0.saturating_add(size);
            found.push(Name { address, size, text: 0, extra: 0, source: Source::Nameless, rank: UNNAMED, flags: 0 });
        }
    }
    names.append(&mut found);
}

/// The rank behind all others.
const UNNAMED: u8 = 9;

/// By address and rank. Of numbers, not of the names themselves: those are long, and one pass puts them in place.
fn in_order(names: Vec<Name>) -> Vec<Name> {
    let key = |n: &Name| (n.address, n.rank);
    if names.is_sorted_by_key(key) {
        return names;
    }
    let number = |(i, n): (usize, &Name)| u128::from(n.address.0) << 64 | u128::from(n.rank) << 56 | i as u128;
    let mut order: Vec<u128> = names.iter().enumerate().map(number).collect();
    order.sort_unstable();
    const POSITION: u128 = (1 << 56) - 1;
    order.iter().filter_map(|o| names.get((o & POSITION) as usize)).copied().collect()
}

/// `runtime.text` and `runtime.etext`: bounds, not functions. The latter may be where C's first function begins.
fn is_go_mark(binary: &Binary, name: &Name) -> bool {
    let text = usize::try_from(name.text).ok().and_then(|at| name_at(binary.data(), at));
    matches!(text, Some(b"runtime.text" | b"runtime.etext" | b"runtime.textpad"))
}

fn add_elf_names(from: &SymbolFile<'_>, table: &SymbolTable, names: &mut Vec<Name>) {
    let mut file = 0;
    let mut code = CodeSegment::default();
    for symbol in table.symbols(from.data) {
        if symbol.kind == STT_FILE {
            file += 1;
        }
        names.extend(elf_name(from, table, symbol, file, &mut code));
    }
}

fn elf_name(
    from: &SymbolFile<'_>,
    table: &SymbolTable,
    symbol: Symbol,
    file: u32,
    code: &mut CodeSegment,
) -> Option<Name> {
    let address = Vaddr(from.map.map_or(Some(symbol.value), |map| map.to_program(symbol.value))?);
    let typed = matches!(symbol.kind, STT_FUNC | STT_GNU_IFUNC);
    if matches!(symbol.section, SHN_UNDEF | SHN_ABS | SHN_COMMON) || !(typed || symbol.kind == STT_NOTYPE) {
        return None;
    }
    if !code.holds(from.binary, address) || !typed && !is_in_own_code_section(from.sections, &symbol) {
        return None;
    }
    let text =
        table.strings.start.checked_add(usize::try_from(symbol.name).ok()?).filter(|&t| t < table.strings.end)?;
    let raw = from.data.get(text..table.strings.end)?;
    // Nameless; assembler's local labels, and arm64's `$x` that mark code and data.
    if raw.first() == Some(&0) || !typed && (raw.starts_with(b".L") || raw.starts_with(b"$")) {
        return None;
    }
    let mut flags = 0;
    if symbol.kind == STT_GNU_IFUNC {
        flags |= FLAG_IFUNC;
    }
    if symbol.binding == STB_LOCAL {
        flags |= FLAG_LOCAL;
    }
    let rank = 1 + match (symbol.kind, symbol.binding) {
        (STT_NOTYPE, _) => 4,
        (_, STB_LOCAL) => 3,
        (_, STB_WEAK) => 2,
        _ => 1,
    };
    let text = from.base.checked_add(text)? as u64;
    Some(Name { address, size: symbol.size, text, extra: file, source: Source::Elf, rank, flags })
}

/// The executable segment that held the symbol before: it most often holds the next one too.
#[derive(Default)]
struct CodeSegment(std::ops::Range<u64>);

impl CodeSegment {
    fn holds(&mut self, binary: &Binary, address: Vaddr) -> bool {
        if !self.0.contains(&address.0) {
            let holding = binary.segments().iter().filter(|s| s.executable);
            let range = |s: &Segment| s.vaddr.0..s.vaddr.0.saturating_add(s.mem_size);
            match holding.map(range).find(|r| r.contains(&address.0)) {
                Some(range) => self.0 = range,
                None => return false,
            }
        }
        true
    }
}

/// A symbol without a type is a function only if its own section holds code: `__executable_start` and `_etext` are none.
fn is_in_own_code_section(sections: &Sections, symbol: &Symbol) -> bool {
    let section = sections.sections.get(usize::from(symbol.section));
    section.is_some_and(|s| s.executable && s.holds(Vaddr(symbol.value)))
}

/// Drops untyped labels inside a function that has a size: they are places in it, not functions.
fn labels_in_functions() -> impl FnMut(&Name) -> bool {
    const UNTYPED: u8 = 5;
    let mut covered = 0u64;
    let mut start = 0u64;
    move |name| {
        if name.rank == UNTYPED && name.address.0 < covered && name.address.0 != start {
            return false;
        }
        let end = name.address.0.saturating_add(name.size);
        if name.size > 0 && name.rank != UNTYPED && end > covered {
            (start, covered) = (name.address.0, end);
        }
        true
    }
}

/// Addresses of functions, ascending, and for each where its names begin.
pub(super) fn functions(names: &[Name]) -> (Vec<Vaddr>, Vec<u32>) {
    let (mut starts, mut first) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for (i, name) in names.iter().enumerate().map_while(|(i, name)| Some((u32::try_from(i).ok()?, name))) {
        if starts.last() != Some(&name.address) {
            starts.push(name.address);
            first.push(i);
        }
    }
    (starts, first)
}

/// For each function the nearest earlier one that reaches beyond its start.
pub(super) fn enclosing(names: &[Name], functions: &[u32]) -> Vec<u32> {
    let mut open: Vec<(u64, u32)> = Vec::new();
    let mut enclosing = Vec::with_capacity(functions.len());
    for (i, name) in functions.iter().enumerate().filter_map(|(i, &n)| Some((i as u32, names.get(n as usize)?))) {
        while open.last().is_some_and(|&(end, _)| end <= name.address.0) {
            open.pop();
        }
        enclosing.push(open.last().map_or(u32::MAX, |&(_, i)| i));
        // Functions of Go do not overlap, and their sizes are not known here.
        if name.size > 0 {
            open.push((name.address.0.saturating_add(name.size), i));
        }
    }
    enclosing
}

/// For each function that has some, its parts. A part belongs to the function of its name: among local namesakes to
/// that from the same source file, else to the global one.
pub(super) fn parts(index: &Index) -> FxHashMap<u32, Vec<u32>> {
    let mut wanted: FxHashMap<&[u8], Vec<(u32, &Name)>> = FxHashMap::default();
    for function in 0..index.functions.len() {
        if let Some(name) = index.first_name(function).filter(|n| n.source == Source::Elf)
            && let Some(whole) = demangle::whole_of_part(index.raw(name))
        {
            wanted.entry(whole).or_default().push((function as u32, name));
        }
    }
    if wanted.is_empty() {
        return FxHashMap::default();
    }
    // For each part the best owner so far.
    let mut owners: FxHashMap<u32, (u8, u32)> = FxHashMap::default();
    for function in 0..index.functions.len() {
        for name in index.names_of(function).filter_map(|at| index.names.get(at)) {
            // A part of a part is no owner.
            if name.source != Source::Elf || index.is_part_name(name) {
                continue;
            }
            let parts = wanted.get(demangle::unversioned(index.raw(name))).map(Vec::as_slice).unwrap_or_default();
            for &(part, part_name) in parts.iter().take(MAX_NAMESAKES) {
                let fit = match (name.flags & FLAG_LOCAL != 0, name.extra == part_name.extra) {
                    (true, true) => 2,
                    (false, _) => 1,
                    (true, false) => continue,
                };
                let owner = owners.entry(part).or_insert((0, 0));
                if fit > owner.0 {
                    *owner = (fit, function as u32);
                }
            }
        }
    }
    let mut parts: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
    for (part, (_, owner)) in owners {
        parts.entry(owner).or_default().push(part);
    }
    parts.values_mut().for_each(|of| of.sort_unstable());
    parts
}

/// Parts of one name; a file with more is hostile, and pairing them all would take quadratic time.
const MAX_NAMESAKES: usize = 1000;
