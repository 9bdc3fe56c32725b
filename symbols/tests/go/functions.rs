//! Names, addresses and sizes of functions, against `go tool nm`. Every difference has a rule here, or fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use symbols::addr::Vaddr;
use symbols::index::Index;

use crate::cells::{self, LINKS, STRIPPINGS, Stripping};
use crate::common;

/// Functions as `go tool nm` lists them: address → name → size.
pub(crate) type Listed = BTreeMap<u64, BTreeMap<String, u64>>;

pub(crate) fn nm(file: &Path) -> Listed {
    let out = common::run(common::go(Path::new("/")).args(["tool", "nm", "-size", "-sort", "address"]).arg(file));
    let mut functions = Listed::new();
    for line in out.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(size), Some("T" | "t")) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let name = words.collect::<Vec<_>>().join(" ");
        if !is_mark(&name) {
            let names = functions.entry(u64::from_str_radix(address, 16).unwrap()).or_default();
            names.insert(name, size.parse().unwrap());
        }
    }
    functions
}

/// The linker's marks of where code begins and ends, and of sections of object files: no functions.
fn is_mark(name: &str) -> bool {
    matches!(name, "runtime.text" | "runtime.etext") || name.ends_with(")") && name.contains("(.text")
}

/// Go 1.24 and later: a byte before and after the code of a FIPS module. The function table gives it a name alone.
pub(crate) fn is_one_byte_mark(name: &str) -> bool {
    matches!(name, "go:textfipsstart" | "go:textfipsend")
}

/// A symbol as the function table spells it: without the calling convention, and before Go 1.21 without what a generic
/// function was made for.
pub(crate) fn in_table(version: &str, symbol: &str) -> String {
    let name = symbol.strip_suffix(".abi0").or(symbol.strip_suffix(".abiinternal")).unwrap_or(symbol);
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if version == "go1.19" => format!("{}[...]{}", &name[..open], &name[close + 1..]),
        _ => name.to_owned(),
    }
}

/// The linker writes no middle dots into symbols (`type:.eq.net.dialResult·1`).
pub(crate) fn as_symbol(name: &str) -> String {
    name.replace('·', ".")
}

/// What differs, in words. Empty: nothing.
pub(crate) fn differences(version: &str, index: &Index, stripping: Stripping, listed: &Listed) -> Vec<String> {
    let go = index.binary().go().unwrap().text_range(index.binary());
    let mut odd = Vec::new();
    let mut ours = BTreeSet::new();
    for function in index.functions() {
        let address = function.address.0;
        ours.insert(address);
        let names: BTreeSet<String> = index.symbols(function.id).map(as_symbol).collect();
        let theirs = listed.get(&address);
        let theirs_in_table = theirs.map(|of| of.keys().map(|name| in_table(version, name)).collect::<BTreeSet<_>>());
        let sizes: BTreeSet<u64> = theirs.into_iter().flat_map(|of| of.values().copied()).collect();
        let is_sized = sizes.contains(&function.size) || names.iter().all(|name| is_one_byte_mark(name));
        if theirs_in_table.as_ref() != Some(&names) || !is_sized {
            odd.push(format!("{address:#x}: {names:?} {} is {theirs:?}", function.size));
        }
        let at = |into: u64| index.id_at(Vaddr(address + into));
        if function.size > 0 && (at(function.size - 1), at(0)) != (Some(function.id), Some(function.id)) {
            odd.push(format!("{address:#x}: {names:?} does not hold its last byte"));
        }
        if function.size > 0 && at(function.size) == Some(function.id) {
            odd.push(format!("{address:#x}: {names:?} goes on after its end"));
        }
    }
    // Functions of C go with the symbols.
    let stays = |address: u64| stripping == Stripping::Nothing || go.contains(&Vaddr(address));
    let missing = listed.iter().filter(|(address, _)| stays(**address) && !ours.contains(address));
    odd.extend(missing.map(|(address, names)| format!("{address:#x}: {names:?} is missing")));
    odd
}

fn agree(version: &str) {
    for link in LINKS {
        let twin = cells::twin(version, link);
        let listed = nm(&twin);
        assert!(listed.len() > 2000, "{}", twin.display());
        for stripping in STRIPPINGS {
            let odd = differences(version, &cells::index(&twin, stripping), stripping, &listed);
            assert!(odd.is_empty(), "{version} {link} {stripping:?}: {} differ:\n{}", odd.len(), odd.join("\n"));
        }
    }
}

cells::for_each_version!(agree);
