//! Lines and inlined functions of real programs, compared with llvm-symbolizer.
//!
//! Each way in which a file can carry its DWARF has a program that nobody here wrote. No difference is allowed for.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::{FunctionId, Index};

use common::llvm;

fn index(program: &Path) -> Index {
    let folders = vec![common::corpus_folder().join("debug")];
    let search = DebugSearch { path: Some(program.to_owned()), folders, ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::open(program).unwrap()), &search).unwrap()
}

/// Addresses in functions with lines, and in one of thirty of those without: one in each chosen function, somewhere.
fn addresses(index: &Index) -> Vec<u64> {
    let outlines = (0..index.len()).map(|id| index.outline(FunctionId(id as u32))).filter(|o| o.size > 0);
    let (with, without): (Vec<_>, Vec<_>) = outlines.partition(|o| index.line(o.address).is_some());
    let chosen = every(&with, with.len().div_ceil(WANTED)).chain(every(&without, without.len().div_ceil(WANTED / 30)));
    let mut addresses: Vec<u64> = chosen.zip(0_u64..).map(|(o, n)| o.address.0 + n * 7919 % o.size).collect();
    // The long functions, where most is inlined, several times.
    let mut long = with;
    long.sort_by_key(|o| std::cmp::Reverse(o.size));
    let parts = long.iter().take(WANTED / 10).flat_map(|o| (1..6).map(move |part| o.address.0 + o.size * part / 6));
    addresses.extend(parts);
    addresses
}

/// Functions of each program that are looked into.
const WANTED: usize = 3000;

fn every<T>(of: &[T], step: usize) -> impl Iterator<Item = &T> {
    of.iter().step_by(step.max(1))
}

/// How many addresses have lines, lie in inlined code, have no lines.
#[derive(Debug, Default)]
struct Agreed {
    lines: usize,
    inlined: usize,
    unknown: usize,
}

/// Compares `program` with what llvm-symbolizer says of `oracle`, the same program.
fn agrees(program: &Path, oracle: &mut Command) -> Agreed {
    let index = index(program);
    let addresses = addresses(&index);
    let answers = llvm::symbolizer(oracle, &addresses);
    let names = llvm::demangled(answers.iter().flatten().map(|(name, ..)| name.as_str()).collect());
    let mut agreed = Agreed::default();
    for (&address, theirs) in addresses.iter().zip(&answers) {
        let frames = index.inlined(Vaddr(address));
        let at = format!("{} {address:#x}\n{theirs:#?}\n{frames:#?}", program.display());
        let line = index.line(Vaddr(address)).map(|l| (l.file, l.line));
        assert_eq!(line, place(&theirs[0]), "{at}");
        if line.is_none() && frames.is_empty() {
            // What the symbol tables call it, without lines.
            assert!(theirs.iter().all(|frame| place(frame).is_none()), "{at}");
            agreed.unknown += 1;
            continue;
        }
        let places: Vec<_> = frames.iter().map(|f| f.source.map(|s| (s.file, s.line))).collect();
        assert_eq!(places, theirs.iter().map(place).collect::<Vec<_>>(), "{at}");
        // What has the code may be shown by another of its names; what was inlined has one.
        for (frame, (name, ..)) in frames.iter().zip(theirs).take(frames.len() - 1) {
            assert!(llvm::is_name(&frame.name, name, &names[name]), "{at}");
        }
        agreed.lines += 1;
        agreed.inlined += usize::from(frames.len() > 1);
    }
    agreed
}

fn place(frame: &(String, String, u32)) -> Option<(&str, u32)> {
    (frame.1 != "??" && frame.2 != 0).then_some((&frame.1, frame.2))
}

fn symbolizer(program: &Path) -> Command {
    let mut command = Command::new("llvm-symbolizer-22");
    command.arg("--obj").arg(program).arg("--debug-file-directory").arg(common::corpus_folder().join("debug"));
    command
}

/// The programs as they are, and how many of the addresses must have lines and lie in inlined code.
fn agree(programs: &[&str], lines: usize, inlined: usize) {
    for program in programs.iter().map(|name| common::corpus(name)) {
        let agreed = agrees(&program, &mut symbolizer(&program));
        assert!(agreed.lines > lines && agreed.inlined > inlined, "{}: {agreed:?}", program.display());
    }
}

#[test]
fn of_rust_whose_dwarf_is_in_a_package() {
    agree(&["rg-dwarf"], 3000, 2000);
}

/// The standard library's and some of C's; the rest of the program has none.
#[test]
fn of_rust_and_cpp_with_dwarf_of_some_parts() {
    agree(&["cargo", "node"], 2000, 800);
}

#[test]
fn of_c_with_a_separate_debug_file() {
    agree(&["python3.11", "libc.so.6"], 3000, 500);
}

#[test]
fn of_c_whose_dwarf_is_in_a_package_or_compressed() {
    agree(&["sqlite-split.so", "sqlite-zstd.so"], 2500, 1000);
}

/// LLVM has given up `.zdebug` sections: it is asked of a copy that objcopy has unpacked.
#[test]
fn of_c_in_sections_compressed_the_old_way() {
    let dir = tempfile::tempdir().unwrap();
    let (program, unpacked) = (common::corpus("sqlite-zdebug.so"), dir.path().join("unpacked"));
    common::run(Command::new("objcopy").arg("--decompress-debug-sections").arg(&program).arg(&unpacked));
    let agreed = agrees(&program, &mut symbolizer(&unpacked));
    assert!(agreed.lines > 2500 && agreed.inlined > 1000, "{agreed:?}");
}
