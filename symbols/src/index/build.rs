//! From symbol tables and Go's function table to one list of names in order of address.

use rustc_hash::FxHashMap;

use super::{FLAG_IFUNC, FLAG_LOCAL, FLAG_PART, Index, Name, Source};
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::bytes::name_at;
use crate::demangle;
use crate::elf::{Symbol, SymbolTable};

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

/// All names, by address; the one to show first.
pub(super) fn names(binary: &Binary) -> Result<Vec<Name>, Error> {
    let mut names = Vec::new();
    let go_text = binary.go().map(|program| program.text_range(binary));
    for table in binary.symbol_tables() {
        let before = names.len();
        names.extend(elf_names(binary, &table));
        if let Some(go) = &go_text {
            // There the function table knows more: the symbols call an assembly body `f.abi0`.
            let mut kept = names.split_off(before);
            kept.retain(|n: &Name| !go.contains(&n.address) && !is_go_mark(binary, n));
            names.append(&mut kept);
        }
    }
    if let Some(program) = binary.go() {
        names.extend(program.functions(binary).filter_map(|f| {
            let (_, text) = f.name_place()?;
            let extra = u32::try_from(f.position).ok()?;
            let (source, text) = (Source::Go, text as u64);
            Some(Name { address: f.address, size: 0, text, extra, source, rank: 0, flags: 0 })
        }));
    }
    if names.is_empty() {
        return Err(match binary.go_error() {
            Some(Error::GoTable(why)) => Error::GoTable(why),
            _ => Error::NoSymbols,
        });
    }
    order(binary, &mut names);
    names.retain(labels_in_functions());
    Ok(names)
}

/// `runtime.text` and `runtime.etext`: bounds, not functions. The latter may be where C's first function begins.
fn is_go_mark(binary: &Binary, name: &Name) -> bool {
    let text = usize::try_from(name.text).ok().and_then(|at| name_at(binary.data(), at));
    matches!(text, Some(b"runtime.text" | b"runtime.etext" | b"runtime.textpad"))
}

fn elf_names(binary: &Binary, table: &SymbolTable) -> Vec<Name> {
    let mut file = 0;
    let mut names = Vec::new();
    for symbol in table.symbols(binary.data()) {
        if symbol.kind == STT_FILE {
            file += 1;
        }
        names.extend(elf_name(binary, table, symbol, file));
    }
    names
}

fn elf_name(binary: &Binary, table: &SymbolTable, symbol: Symbol, file: u32) -> Option<Name> {
    let address = Vaddr(symbol.value);
    let typed = matches!(symbol.kind, STT_FUNC | STT_GNU_IFUNC);
    if matches!(symbol.section, SHN_UNDEF | SHN_ABS | SHN_COMMON) || !(typed || symbol.kind == STT_NOTYPE) {
        return None;
    }
    if !binary.is_executable(address) || !typed && !is_in_own_code_section(binary, &symbol) {
        return None;
    }
    let text =
        table.strings.start.checked_add(usize::try_from(symbol.name).ok()?).filter(|&t| t < table.strings.end)?;
    let raw = name_at(binary.data().get(..table.strings.end)?, text).filter(|raw| !raw.is_empty())?;
    // Assembler's local labels, and arm64's `$x` that mark code and data.
    if !typed && (raw.starts_with(b".L") || raw.starts_with(b"$")) {
        return None;
    }
    let mut flags = 0;
    if symbol.kind == STT_GNU_IFUNC {
        flags |= FLAG_IFUNC;
    }
    if demangle::whole_of_part(raw).is_some() {
        flags |= FLAG_PART;
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
    Some(Name { address, size: symbol.size, text: text as u64, extra: file, source: Source::Elf, rank, flags })
}

/// A symbol without a type is a function only if its own section holds code: `__executable_start` and `_etext` are none.
fn is_in_own_code_section(binary: &Binary, symbol: &Symbol) -> bool {
    let section = binary.sections().sections.get(usize::from(symbol.section));
    section.is_some_and(|s| s.executable && s.holds(Vaddr(symbol.value)))
}

/// By address, rank, then the name that looks least internal; the same name twice (`.symtab` and `.dynsym`) only once.
fn order(binary: &Binary, names: &mut Vec<Name>) {
    let raw = |n: &Name| usize::try_from(n.text).ok().and_then(|at| name_at(binary.data(), at)).unwrap_or_default();
    let look = |text: &[u8]| {
        let underscores = text.iter().take_while(|&&b| b == b'_').count();
        let mangled = text.starts_with(b"_Z") || text.starts_with(b"_R");
        (if mangled { 0 } else { underscores }, text.len())
    };
    // Few addresses have more than one name: only there the texts are looked at.
    names.sort_unstable_by_key(|n| (n.address, n.rank));
    for twins in names.chunk_by_mut(|a, b| (a.address, a.rank) == (b.address, b.rank)).filter(|twins| twins.len() > 1) {
        twins.sort_unstable_by(|a, b| {
            let (x, y) = (demangle::unversioned(raw(a)), demangle::unversioned(raw(b)));
            look(x).cmp(&look(y)).then_with(|| x.cmp(y)).then_with(|| b.size.cmp(&a.size))
        });
    }
    names.dedup_by(|later, kept| {
        later.address == kept.address && demangle::unversioned(raw(later)) == demangle::unversioned(raw(kept))
    });
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

/// The first name of each address. What it lacks (a size) it takes from the others.
pub(super) fn functions(names: &[Name]) -> Vec<u32> {
    let first =
        |i: usize, name: &Name| i.checked_sub(1).and_then(|p| names.get(p)).map(|p| p.address) != Some(name.address);
    names.iter().enumerate().filter(|(i, name)| first(*i, name)).filter_map(|(i, _)| u32::try_from(i).ok()).collect()
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
        if let Some(name) = index.first_name(function).filter(|n| n.flags & FLAG_PART != 0)
            && let Some(whole) = demangle::whole_of_part(index.raw(name))
        {
            wanted.entry(whole).or_default().push((function as u32, name));
        }
    }
    // For each part the best owner so far.
    let mut owners: FxHashMap<u32, (u8, u32)> = FxHashMap::default();
    for function in 0..index.functions.len() {
        for name in index.names_of(function).filter_map(|at| index.names.get(at)) {
            if wanted.is_empty() || name.flags & FLAG_PART != 0 {
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
