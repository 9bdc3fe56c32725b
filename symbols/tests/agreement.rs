//! The functions of large real programs, compared with readelf and nm: the same names at the same addresses.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::index::Index;

/// What a file is known for: 92,000 functions of Rust in v0 mangling, moved about by BOLT; 43,000 of C++, found by their
/// dynamic symbols alone; 40,000 of Rust and C with debug information; a C library with versions.
fn files() -> Vec<PathBuf> {
    let sysroot = common::run(Command::new("rustc").args(["--print", "sysroot"]));
    let sysroot = Path::new(sysroot.trim());
    let driver = std::fs::read_dir(sysroot.join("lib")).unwrap().map(|entry| entry.unwrap().path());
    let driver = driver.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("librustc_driver-"));
    let mut files: Vec<PathBuf> = driver.collect();
    assert_eq!(files.len(), 1, "the compiler is in {}", sysroot.display());
    files.push(sysroot.join("bin/cargo"));
    files.extend(
        ["libLLVM.so.22.1", "libstdc++.so.6", "libc.so.6"].map(|n| Path::new("/usr/lib/x86_64-linux-gnu").join(n)),
    );
    files
}

/// A symbol of readelf's.
#[derive(Debug)]
struct Symbol {
    kind: String,
    section: String,
    size: u64,
}

/// Defined functions and labels: (address, name) → what readelf says of it.
fn readelf(path: &Path) -> BTreeMap<(u64, String), Symbol> {
    let out = common::run(Command::new("readelf").args(["--symbols", "--wide"]).arg(path));
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, value, size, kind, _, _, section, name, ..] = words.as_slice() else {
            return None;
        };
        if !matches!(*kind, "FUNC" | "IFUNC" | "NOTYPE") || matches!(*section, "UND" | "ABS" | "COM") {
            return None;
        }
        let size = size.strip_prefix("0x").map_or_else(|| size.parse().ok(), |h| u64::from_str_radix(h, 16).ok())?;
        let name = name.split('@').next()?.to_owned();
        let symbol = Symbol { kind: (*kind).to_owned(), section: (*section).to_owned(), size };
        Some(((u64::from_str_radix(value, 16).ok()?, name), symbol))
    };
    out.lines().filter_map(parse).collect()
}

/// Numbers of the sections that hold code, by readelf.
fn code_sections(path: &Path) -> BTreeSet<String> {
    let out = common::run(Command::new("readelf").args(["--sections", "--wide"]).arg(path));
    let number = |line: &str| {
        let (number, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
        let is_code = rest.split_whitespace().any(|word| word.starts_with("AX"));
        is_code.then(|| number.trim().to_owned())
    };
    out.lines().filter_map(number).collect()
}

#[test]
fn names_and_addresses_are_those_of_readelf() {
    for path in files() {
        let (theirs, code) = (readelf(&path), code_sections(&path));
        let index = Index::new(Arc::new(Binary::open(&path).unwrap())).unwrap();
        let mut ours = BTreeSet::new();
        let mut sizes = BTreeMap::new();
        for function in index.functions() {
            sizes.insert(function.address.0, function.size);
            for symbol in index.symbols(function.id) {
                ours.insert((function.address.0, symbol.split('@').next().unwrap().to_owned()));
            }
        }
        // Each that is ours is theirs: a function, or a label of an assembler in a section of code.
        for name in &ours {
            let symbol = theirs.get(name).unwrap_or_else(|| panic!("{}: {name:?} is ours alone", path.display()));
            assert!(symbol.kind != "NOTYPE" || code.contains(&symbol.section), "{name:?} {symbol:?}");
        }
        // Each function that is theirs is ours, unless its address is not in code at all (librustc_driver has one whose
        // section number is wrong).
        let missing: Vec<_> = theirs.iter().filter(|(name, s)| s.kind != "NOTYPE" && !ours.contains(*name)).collect();
        assert!(missing.iter().all(|(_, s)| !code.contains(&s.section)), "{}: {missing:?}", path.display());
        assert!(missing.len() <= 1, "{}: {missing:?}", path.display());
        // Each label that is theirs is ours, unless it is local to the assembler or a place inside a function.
        let inside = |address: u64| {
            let before = sizes.range(..address).rev().take(64);
            before.into_iter().any(|(start, size)| address < start + size)
        };
        for ((address, name), symbol) in theirs.iter().filter(|(_, s)| s.kind == "NOTYPE" && code.contains(&s.section))
        {
            let explained = name.starts_with(".L") || name.starts_with('$') || inside(*address);
            assert!(explained || ours.contains(&(*address, name.clone())), "{}: {name} {symbol:?}", path.display());
        }
        // And the size of each function is one that readelf shows at its address.
        let of_address = |address: u64| theirs.range((address, String::new())..(address + 1, String::new()));
        for (address, size) in &sizes {
            assert!(of_address(*address).any(|(_, s)| s.size == *size), "{}: {address:#x}", path.display());
        }
    }
}

/// What is listed under one name is what is found by that name: looking in the string tables first loses nothing.
#[test]
fn every_listed_name_finds_its_function() {
    for path in files() {
        let index = Index::new(Arc::new(Binary::open(&path).unwrap())).unwrap();
        let all = index.select(&["*".parse().unwrap()], false).matches;
        let step = (all.len() / 20).max(1);
        for wanted in all.iter().step_by(step) {
            // A `*` of C++'s pointers would be a glob's.
            let name = wanted.name.replace('\\', r"\\").replace('*', r"\*").replace('?', r"\?");
            let Ok(pattern) = name.parse() else { panic!("{name} is no pattern") };
            let found = index.select(&[pattern], false);
            assert!(found.matches.iter().any(|m| m.what == wanted.what), "{}: {name}", path.display());
        }
    }
}
