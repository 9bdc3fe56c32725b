//! From symbol tables and Go's function table to one list of names in order of address.

use rustc_hash::FxHashMap;

use super::Index;
use super::name::{Name, Rank, Source};
use super::sort;
use super::tables::View;
use crate::addr::Vaddr;
use crate::binary::{Binary, Segment};
use crate::demangle;
use crate::elf::{
    SHN_ABS, SHN_COMMON, SHN_UNDEF, STB_LOCAL, STB_WEAK, STT_FILE, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, SYMBOL_SIZE,
    Sections, Symbol,
};

/// All names, by address and rank. No text is looked at, but for the few that decide whether there is a function: most questions are about a
/// handful of names, and to touch them all would cost more than the answers.
pub(super) fn names(binary: &Binary, tables: &[View<'_>]) -> Vec<Name> {
    let go = binary.go();
    let bytes: usize = tables.iter().map(|table| table.symbols.entries.len()).sum();
    let mut names = Vec::with_capacity(bytes / SYMBOL_SIZE + go.map_or(0, |program| program.addresses(binary).len()));
    // What Go's linker took in of C stands before Go's own code. The symbols know more of it.
    let foreign = go.map_or(0, |program| program.foreign(binary));
    let go_start = go.and_then(|program| program.function(binary, foreign)).map(|first| first.address);
    let go_text = go.map(|program| program.text_range(binary)).map(|text| go_start.unwrap_or(text.start)..text.end);
    for (number, table) in (0..).zip(tables) {
        let before = names.len();
        add_elf_names(table, number, &mut names);
        if let Some(go) = &go_text {
            // There the function table knows more: the symbols call an assembly body `f.abi0`.
            let mut kept = names.split_off(before);
            kept.retain(|n: &Name| !go.contains(&n.address()) && !is_go_mark(table, n));
            names.append(&mut kept);
        }
    }
    if let Some(program) = go {
        let foreign_text = program.text_range(binary).start..go_start.unwrap_or(Vaddr(0));
        let is_told = names.iter().any(|name| foreign_text.contains(&name.address()));
        let functions = program.addresses(binary).skip(if is_told { foreign } else { 0 });
        let functions = functions.filter_map(|(position, address)| {
            let position = u32::try_from(position).ok()?;
            Some(Name::of_go(address?, position))
        });
        names.extend(functions);
    }
    sort::sort(&mut names);
    if names.iter().any(|name| name.is_untyped()) {
        names = without_labels(tables, &names);
    }
    names
}

/// `runtime.text` and `runtime.etext`: bounds, not functions. The latter may be where C's first function begins. And what
/// Go's linker calls the sections of object files: `runtime/cgo(.text)`.
fn is_go_mark(table: &View<'_>, name: &Name) -> bool {
    let name = table.name(name.position()).unwrap_or_default();
    let is_section = || name.ends_with(b")") && memchr::memmem::find(name, b"(.text").is_some();
    matches!(name, b"runtime.text" | b"runtime.etext" | b"runtime.textpad") || is_section()
}

fn add_elf_names(table: &View<'_>, number: u8, names: &mut Vec<Name>) {
    let mut code = CodeSegment::default();
    for (position, symbol) in (0..).zip(table.symbols()) {
        names.extend(elf_name(table, &symbol, number, position, &mut code));
    }
}

/// The name of a symbol, if it is a function's.
pub(super) fn elf_name(
    table: &View<'_>,
    symbol: &Symbol,
    number: u8,
    position: u32,
    code: &mut CodeSegment,
) -> Option<Name> {
    let typed = matches!(symbol.kind, STT_FUNC | STT_GNU_IFUNC);
    if matches!(symbol.section, SHN_UNDEF | SHN_ABS | SHN_COMMON) || !(typed || symbol.kind == STT_NOTYPE) {
        return None;
    }
    let address = table.address(symbol)?;
    if symbol.name == 0 || !code.holds(table.binary, address) {
        return None;
    }
    if !typed {
        let raw = table.name(position)?;
        if !is_in_own_code_section(table.sections, symbol) || MARKS.iter().any(|mark| raw.starts_with(mark)) {
            return None;
        }
    }
    let rank = match (symbol.kind, symbol.binding) {
        (STT_NOTYPE, _) => Rank::Untyped,
        (_, STB_LOCAL) => Rank::Local,
        (_, STB_WEAK) => Rank::Weak,
        _ => Rank::Global,
    };
    let (ifunc, local) = (symbol.kind == STT_GNU_IFUNC, symbol.binding == STB_LOCAL);
    Some(Name::of_elf(address, rank, ifunc, local, number, position))
}

/// Labels without a type that are places, not functions: an assembler's local ones, arm64's `$x` that mark code and data,
/// the notes of gcc's plugin annobin.
const MARKS: [&[u8]; 3] = [b".L", b"$", b".annobin_"];

/// The executable segment that held the symbol before: it most often holds the next one too.
#[derive(Default)]
pub(super) struct CodeSegment(std::ops::Range<u64>);

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
fn without_labels(tables: &[View<'_>], names: &[Name]) -> Vec<Name> {
    let end = |name: &Name| Some(name.address().0.saturating_add(symbol(tables, *name)?.size));
    let covers = |name: &Name, label: &Name| {
        !name.is_untyped() && name.address() != label.address() && end(name).is_some_and(|e| label.address().0 < e)
    };
    let is_label = |at: usize, name: &Name| {
        let before = names.get(at.saturating_sub(MAX_LOOKED_BACK)..at).unwrap_or_default();
        name.is_untyped() && before.iter().rev().any(|earlier| covers(earlier, name))
    };
    names.iter().enumerate().filter(|(at, name)| !is_label(*at, name)).map(|(_, name)| *name).collect()
}

/// Names before a label among which the function that holds it is looked for.
const MAX_LOOKED_BACK: usize = 64;

fn symbol(tables: &[View<'_>], name: Name) -> Option<Symbol> {
    match name.source() {
        Source::Elf(table) => tables.get(usize::from(table))?.symbol(name.position()),
        Source::Go | Source::Nameless => None,
    }
}

/// Where the names of each function begin.
pub(super) fn functions(names: &[Name]) -> Vec<u32> {
    // What is not used of it is not touched.
    let mut first = Vec::with_capacity(names.len());
    let mut last = None;
    for (i, name) in names.iter().enumerate().map_while(|(i, name)| Some((u32::try_from(i).ok()?, name))) {
        if last.replace(name.address()) != Some(name.address()) {
            first.push(i);
        }
    }
    first
}

/// For each function the nearest earlier one that reaches beyond its start.
pub(super) fn enclosing(index: &Index) -> Vec<u32> {
    let mut open: Vec<(u64, u32)> = Vec::new();
    let mut enclosing = Vec::with_capacity(index.len());
    for i in 0..index.functions.len() {
        let start = index.start(i);
        while open.last().is_some_and(|&(end, _)| end <= start.0) {
            open.pop();
        }
        enclosing.push(open.last().map_or(u32::MAX, |&(_, i)| i));
        // Functions of Go do not overlap.
        let name = index.names_of(i).next().and_then(|at| index.entry(at));
        let size = name.filter(|name| !name.is_go()).map_or(0, |name| index.size(&name));
        if size > 0 {
            open.push((start.0.saturating_add(size), i as u32));
        }
    }
    enclosing
}

/// For each function that has some, its parts. A part belongs to the function of its name: among local namesakes to
/// that from the same source file, else to the global one.
pub(super) fn parts(index: &Index) -> FxHashMap<u32, Vec<u32>> {
    let files: Vec<Vec<u32>> = index.numbered_tables().map(|(_, table)| source_files(&table)).collect();
    let file_of = |name: &Name| match name.source() {
        Source::Elf(table) => files.get(usize::from(table)).map(|f| f.partition_point(|&at| at < name.position())),
        Source::Go | Source::Nameless => None,
    };
    let mut wanted: FxHashMap<&[u8], Vec<(u32, Name)>> = FxHashMap::default();
    for function in 0..index.functions.len() {
        if let Some(name) = index.first_name(function).filter(|n| !n.is_go())
            && let Some(whole) = demangle::whole_of_part(index.raw(&name))
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
        for name in index.names_of(function).filter_map(|at| index.entry(at)) {
            // A part of a part is no owner.
            if name.is_go() || index.is_part_name(&name) {
                continue;
            }
            let parts = wanted.get(demangle::unversioned(index.raw(&name))).map(Vec::as_slice).unwrap_or_default();
            for &(part, part_name) in parts.iter().take(MAX_NAMESAKES) {
                let fit = match (name.is_local(), file_of(&name) == file_of(&part_name)) {
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

/// Positions of the symbols that begin those of another source file.
fn source_files(table: &View<'_>) -> Vec<u32> {
    let symbols = (0..).zip(table.symbols());
    symbols.filter(|(_, symbol)| symbol.kind == STT_FILE).map(|(position, _)| position).collect()
}

/// Parts of one name; a file with more is hostile, and pairing them all would take quadratic time.
const MAX_NAMESAKES: usize = 1000;
