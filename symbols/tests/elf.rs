//! Functions of ELF symbol tables, compared with readelf and nm.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use symbols::addr::{FileOffset, Vaddr};
use symbols::binary::Binary;
use symbols::index::{Index, LeftOut};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![
        std::env::current_exe().unwrap(),
        "/usr/lib/x86_64-linux-gnu/libc.so.6".into(),
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6".into(),
        common::cpp_program(dir),
    ];
    // A library of C with a full symbol table and split parts.
    files.push(common::c_program(dir));
    files
}

fn index(path: &Path) -> Index {
    Index::new(Arc::new(Binary::open(path).unwrap())).unwrap()
}

/// One line of `readelf --symbols`.
struct Line {
    address: u64,
    size: u64,
    name: String,
}

/// Defined functions, by readelf.
fn readelf(path: &Path) -> Vec<Line> {
    let out = common::run(Command::new("readelf").args(["--symbols", "--wide"]).arg(path));
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, value, size, kind, _, _, section, name, ..] = words.as_slice() else {
            return None;
        };
        if !matches!(*kind, "FUNC" | "IFUNC") || matches!(*section, "UND" | "ABS" | "COM") {
            return None;
        }
        let size = size.strip_prefix("0x").map_or_else(|| size.parse().ok(), |h| u64::from_str_radix(h, 16).ok())?;
        let name = name.split('@').next()?.to_owned();
        Some(Line { address: u64::from_str_radix(value, 16).ok()?, size, name })
    };
    out.lines().filter_map(parse).collect()
}

#[test]
fn functions_and_sizes_are_those_of_readelf() {
    let dir = tempfile::tempdir().unwrap();
    for path in files(dir.path()) {
        let index = index(&path);
        let mut by_address: BTreeMap<u64, Vec<Line>> = BTreeMap::new();
        for line in readelf(&path) {
            by_address.entry(line.address).or_default().push(line);
        }
        let ours: BTreeMap<u64, _> = index.functions().map(|f| (f.address.0, f)).collect();
        for (address, lines) in &by_address {
            let function = ours.get(address).unwrap_or_else(|| panic!("{}: {}", path.display(), lines[0].name));
            assert!(lines.iter().any(|l| l.name == function.symbol.split('@').next().unwrap()), "{function:?}");
            assert!(lines.iter().any(|l| l.size == function.size), "{function:?}");
            assert!(index.starts_function(Vaddr(*address)) || function.left_out == Some(LeftOut::Part));
        }
        // What is there besides has no type: assembly, `_start`.
        let untyped = ours.keys().filter(|a| !by_address.contains_key(a)).count();
        assert!(untyped * 50 <= ours.len().max(200), "{}: {untyped} of {}", path.display(), ours.len());
    }
}

#[test]
fn demangled_names_are_those_of_nm() {
    let dir = tempfile::tempdir().unwrap();
    for path in files(dir.path()) {
        let index = index(&path);
        let mut nm = common::run(Command::new("nm").args(["-C", "--defined-only"]).arg(&path));
        nm.push_str(&common::run(Command::new("nm").args(["-CD", "--defined-only"]).arg(&path)));
        let mut names: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for line in nm.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            names.entry(u64::from_str_radix(address, 16).unwrap()).or_default().insert(comparable(name));
        }
        let (mut same, mut different) = (0, Vec::new());
        for function in index.functions() {
            let known = &names[&function.address.0];
            for name in index.aliases(function.id).iter().map(String::as_str).chain([function.name]) {
                let ours = comparable(name);
                if known.contains(&ours) { same += 1 } else { different.push(format!("{name} / {known:?}")) }
            }
        }
        // The demanglers disagree on constructors of typedefs (`std::string::string`).
        let total = same + different.len();
        assert!(
            different.len() * 50 <= total,
            "{}: {} of {total}\n{}",
            path.display(),
            different.len(),
            different[..different.len().min(30)].join("\n")
        );
    }
}

/// Without what differs by design (spaces, Rust's hash, versions, clone marks).
fn comparable(name: &str) -> String {
    let name = name.split("@").next().unwrap();
    let name = name.split(" [clone").next().unwrap();
    let hashless = match name.rfind("::h") {
        Some(at) if name.len() - at == 19 && name[at + 3..].bytes().all(|b| b.is_ascii_hexdigit()) => &name[..at],
        _ => name,
    };
    let base = ["cold", "part", "isra", "constprop", "lto_priv", "llvm"]
        .iter()
        .filter_map(|s| hashless.find(&format!(".{s}")))
        .min()
        .map_or(hashless, |at| &hashless[..at]);
    let text = base.replace(' ', "");
    // Typedefs, which the demanglers write out or not.
    ["istream", "ostream", "iostream"].iter().fold(text, |text, stream| {
        text.replace(&format!("std::basic_{stream}<char,std::char_traits<char>>"), &format!("std::{stream}"))
    })
}

#[test]
fn addresses_are_attributed_to_the_function_that_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    for path in files(dir.path()) {
        let index = index(&path);
        let functions: Vec<_> = index.functions().collect();
        for (i, f) in functions.iter().enumerate().filter(|(_, f)| f.size > 0) {
            assert_eq!(index.at(f.address).unwrap().address, f.address, "{f:?}");
            let last = f.address.checked_add(f.size - 1).unwrap();
            let holder = index.at(last).unwrap();
            assert!(holder.address >= f.address && holder.address <= last, "{f:?} {holder:?}");
            // Padding behind the function is nobody's.
            let end = f.address.checked_add(f.size).unwrap();
            let covered = functions[..=i].iter().rev().take(2000).any(|g| g.address.0 + g.size > end.0);
            let next = functions.get(i + 1).is_none_or(|n| n.address > end);
            if next && !covered {
                assert!(index.at(end).is_none_or(|g| g.size == 0), "{f:?} {:?}", index.at(end));
            }
        }
        assert!(index.at(Vaddr(0)).is_none());
        assert!(index.at(Vaddr(u64::MAX)).is_none());
    }
}

#[test]
fn addresses_and_file_offsets_are_those_of_readelf() {
    for path in [std::env::current_exe().unwrap(), "/usr/lib/x86_64-linux-gnu/libc.so.6".into()] {
        let binary = Binary::open(&path).unwrap();
        let out = common::run(Command::new("readelf").args(["--segments", "--wide"]).arg(&path));
        let mut loads = 0;
        for line in out.lines().filter(|l| l.trim_start().starts_with("LOAD")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let hex = |i: usize| u64::from_str_radix(words[i].trim_start_matches("0x"), 16).unwrap();
            let (offset, vaddr, file_size) = (hex(1), hex(2), hex(4));
            let last = file_size - 1;
            assert_eq!(binary.file_offset(Vaddr(vaddr + last)), Some(FileOffset(offset + last)));
            assert!(binary.file_offset(Vaddr(vaddr + file_size)).is_none_or(|o| o.0 != offset + file_size));
            if line.contains(" E ") {
                assert_eq!(binary.vaddr(FileOffset(offset + last)), Some(Vaddr(vaddr + last)));
                assert!(binary.is_executable(Vaddr(vaddr)));
            }
            loads += 1;
        }
        assert_eq!(loads, binary.segments().len());
        let notes = common::run(Command::new("readelf").args(["--notes", "--dynamic", "--wide"]).arg(&path));
        let id: String = binary.build_id().unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect();
        assert!(id.is_empty() || notes.contains(&format!("Build ID: {id}")));
        assert!(binary.needed().iter().all(|n| notes.contains(&format!("[{n}]"))));
        assert_eq!(binary.needed().len(), notes.matches("(NEEDED)").count());
    }
}

#[test]
fn functions_of_a_file_without_sections_come_from_the_dynamic_section() {
    let dir = tempfile::tempdir().unwrap();
    for library in ["libc.so.6", "libstdc++.so.6"] {
        let library = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
        let bare = dir.path().join("bare.so");
        std::fs::copy(&library, &bare).unwrap();
        common::run(Command::new("llvm-strip").arg("--strip-sections").arg(&bare));
        let (full, bare) = (index(&library), index(&bare));
        let addresses = |i: &Index| i.functions().filter(|f| f.size > 0).map(|f| f.address).collect::<Vec<_>>();
        assert_eq!(addresses(&full), addresses(&bare));
    }
}

#[test]
fn cold_parts_belong_to_their_function() {
    let dir = tempfile::tempdir().unwrap();
    let path = common::c_program(dir.path());
    let index = index(&path);
    let part = index.functions().find(|f| f.symbol == "twice.cold").expect("gcc split the function");
    assert_eq!((part.name, part.left_out), ("twice", Some(LeftOut::Part)));
    assert!(!index.starts_function(part.address));
    let whole = index.functions().find(|f| f.symbol == "twice").unwrap();
    assert_eq!(index.parts(whole.id), [(part.address, part.size)]);
    // Two files each have a static `same`, split each.
    let twins: Vec<_> = index.functions().filter(|f| f.symbol == "same").collect();
    assert_eq!(twins.len(), 2);
    let parts: BTreeSet<_> = twins.iter().flat_map(|t| index.parts(t.id)).collect();
    assert_eq!(parts.len(), 2);
    assert!(twins.iter().all(|t| index.parts(t.id).len() == 1));
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let say = |bytes: &[u8]| {
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        Binary::open(&path).unwrap_err().to_string()
    };
    let good = std::fs::read("/usr/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    assert_eq!(say(b""), "the file is empty");
    assert_eq!(say(b"#!/bin/sh\n"), "not an ELF file");
    assert!(say(&good[..40]).starts_with("truncated: the ELF header"));
    assert!(say(&good[..100]).starts_with("truncated: the program header table"));
    assert!(say(&good[..good.len() / 2]).starts_with("truncated: a segment"));
    let mut other = good.clone();
    other[18] = 243;
    assert!(say(&other).contains("made for another machine: RISC"), "{}", say(&other));
    assert!(Binary::open(Path::new("/")).unwrap_err().to_string().contains("directory"));
    let no_symbols = Binary::open(Path::new("/usr/bin/true")).unwrap();
    let stripped = Index::new(Arc::new(no_symbols));
    assert!(stripped.is_err_and(|e| e.to_string().starts_with("no symbols")));
    let mut cut = std::fs::read("/usr/bin/true").unwrap();
    cut.pop();
    let cut = Index::new(Arc::new(Binary::from_bytes(cut).unwrap()));
    assert!(cut.is_err_and(|e| e.to_string().starts_with("truncated: the section header table ends at byte ")));
}
