//! The functions of real programs in Rust, C++ and C, compared with readelf: the same names at the same addresses, of the
//! same sizes.
//!
//! What the one shows and the other does not needs a [`Rule`], which is checked for each symbol that it excuses. What no
//! rule explains fails, and so does a rule that excuses nothing.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::{Function, Index, LeftOut};

use Rule::*;

/// With symbol tables of their own: Rust of several compilers and both manglings, moved about by BOLT, linked with musl;
/// C++ beside C; C of two compilers.
const NAMED: [&str; 8] = [
    "rg-dwarf",
    "py-spy",
    "librustc_driver.so",
    "cargo",
    "node",
    "sqlite-split.so",
    "sqlite-zstd.so",
    "sqlite-zdebug.so",
];

/// Whose symbols are in another file, or compressed in this one.
const NAMED_ELSEWHERE: [&str; 3] = ["python3.11", "libc.so.6", "sqlite-mini.so"];

/// Stripped: what they export is named, the rest is known by its bounds.
const STRIPPED: [&str; 8] =
    ["ruff", "rg", "libLLVM.so", "libstdc++.so", "redis-server", "nginx", "sqlite3", "libsqlite3.so"];

/// Why a symbol of readelf's is no function, or a record of the unwind tables has no function of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// Of type OBJECT, TLS or COMMON.
    Data,
    /// Of type FILE or SECTION, or an absolute number.
    Note,
    /// Imported.
    Undefined,
    /// Without a type, and not in a section of code.
    LabelInData,
    /// Where annobin, a plugin of gcc that takes notes, has seen a file's code begin and end.
    AnnobinLabel,
    /// Without a type, and inside a function that has a size.
    LabelInside,
    /// Ours: a stub of the PLT, which relocations name and no symbol does.
    Stub,
    /// Unwind tables: a record of no bytes.
    Empty,
    /// Unwind tables: the record of a function that has a name, or of a part of it.
    Named,
    /// Unwind tables: the PLT, which is one record.
    Plt,
    /// Unwind tables: code that BOLT has moved elsewhere, and left.
    BoltOriginal,
    /// Unwind tables: glibc's `__restore_rt`, whose record begins a byte early, for debuggers that look up the address
    /// before a return address (sysdeps/unix/sysv/linux/x86_64/libc_sigaction.c).
    SignalReturn,
}

/// What was excused by which rule, and what by none.
#[derive(Debug, Default)]
struct Differences {
    excused: BTreeMap<Rule, usize>,
    unexplained: Vec<String>,
}

impl Differences {
    fn add(&mut self, rule: Option<Rule>, what: impl FnOnce() -> String) {
        match rule {
            Some(rule) => *self.excused.entry(rule).or_default() += 1,
            None => self.unexplained.push(what()),
        }
    }
}

/// A symbol of readelf's.
#[derive(Debug)]
struct Symbol {
    address: u64,
    size: u64,
    kind: String,
    section: String,
    name: String,
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// All named symbols of a file.
fn symbols(file: &Path) -> Vec<Symbol> {
    let out = common::run(Command::new("readelf").args(["--symbols", "--wide"]).arg(file));
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, value, size, kind, _, _, section, name, ..] = words.as_slice() else {
            return None;
        };
        Some(Symbol {
            address: hex(value)?,
            size: size.strip_prefix("0x").map_or_else(|| size.parse().ok(), hex)?,
            kind: (*kind).to_owned(),
            section: (*section).to_owned(),
            name: unversioned(name).to_owned(),
        })
    };
    out.lines().filter_map(parse).collect()
}

fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// Sections of code: (number, name, addresses).
fn code_sections(file: &Path) -> Vec<(String, String, Range<u64>)> {
    let out = common::run(Command::new("readelf").args(["--sections", "--wide"]).arg(file));
    let section = |line: &str| {
        let (number, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [name, _, address, _, size, _, flags, ..] = words.as_slice() else {
            return None;
        };
        let start = hex(address)?;
        flags
            .starts_with("AX")
            .then(|| (number.trim().to_owned(), (*name).to_owned(), start..start + hex(size).unwrap()))
    };
    out.lines().filter_map(section).collect()
}

/// What each record of the unwind tables covers: address and bytes.
fn records(file: &Path) -> BTreeSet<(u64, u64)> {
    let out = common::run(
        Command::new("readelf").args(["--debug-dump=frames", "--debug-dump=no-follow-links", "--wide"]).arg(file),
    );
    let ranges = out.lines().filter(|l| l.contains(" FDE ")).filter_map(|l| l.split_once("pc=")?.1.split_once(".."));
    ranges.map(|(start, end)| (hex(start).unwrap(), hex(end.trim()).unwrap() - hex(start).unwrap())).collect()
}

fn index(file: &Path) -> Index {
    let folders = vec![common::corpus_folder().join("debug")];
    let search = DebugSearch { path: Some(file.to_owned()), folders, ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::open(file).unwrap()), &search).unwrap()
}

/// Where the symbols of a program are: in it, in its debug file, in what its `.gnu_debugdata` unpacks to.
fn symbol_files(name: &str, index: &Index, dir: &Path) -> Vec<PathBuf> {
    let program = common::corpus(name);
    let mut files = vec![program.clone()];
    files.extend(index.debug_report().used.clone());
    if index.debug_report().mini {
        let (packed, unpacked) = (dir.join("mini.xz"), dir.join("mini"));
        let section = format!(".gnu_debugdata={}", packed.display());
        common::run(Command::new("objcopy").arg("--dump-section").arg(section).arg(&program).arg(dir.join("copy")));
        common::run(Command::new("xz").arg("--decompress").arg(&packed));
        files.push(unpacked);
    }
    files
}

/// One program, as both see it.
struct Compared {
    name: String,
    index: Index,
    theirs: Vec<Symbol>,
    code: Vec<(String, String, Range<u64>)>,
    records: BTreeSet<(u64, u64)>,
}

impl Compared {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = common::corpus(name);
        let index = index(&program);
        let theirs = symbol_files(name, &index, dir.path()).iter().flat_map(|file| symbols(file)).collect();
        Self { name: name.to_owned(), theirs, code: code_sections(&program), records: records(&program), index }
    }

    /// The section of code that an address is in.
    fn code_at(&self, address: u64) -> Option<&str> {
        self.code.iter().find(|(.., range)| range.contains(&address)).map(|(_, name, _)| &**name)
    }

    /// Names, addresses and sizes of the symbol tables.
    fn symbols_agree(&self, found: &mut Differences) {
        let typed = |s: &&Symbol| matches!(&*s.kind, "FUNC" | "IFUNC");
        let mut sizes: BTreeMap<(u64, &str), Vec<u64>> = BTreeMap::new();
        for symbol in self.theirs.iter().filter(|s| typed(s) || s.kind == "NOTYPE") {
            sizes.entry((symbol.address, &symbol.name)).or_default().push(symbol.size);
        }
        let mut ours = BTreeSet::new();
        for function in self.index.functions().filter(|f| f.left_out != Some(LeftOut::Nameless)) {
            if self.is_stub(&function) {
                found.add(Some(Stub), String::new);
                continue;
            }
            let shown = sizes.get(&(function.address.0, unversioned(function.symbol)));
            if !shown.is_some_and(|sizes| sizes.contains(&function.size)) {
                found.add(None, || format!("{}: {function:?} has {shown:?} bytes", self.name));
            }
            for symbol in self.index.symbols(function.id) {
                let name = (function.address.0, unversioned(symbol).to_owned());
                if !sizes.contains_key(&(name.0, &name.1)) {
                    found.add(None, || format!("{}: {name:?} is ours alone", self.name));
                }
                ours.insert(name);
            }
        }
        let bodies = Bodies::of(self.theirs.iter().filter(typed).map(|s| (s.address, s.size)));
        for symbol in self.theirs.iter().filter(|s| !ours.contains(&(s.address, s.name.clone()))) {
            let rule = self.no_function(symbol, &bodies);
            found.add(rule, || format!("{}: {symbol:?} is theirs alone", self.name));
        }
    }

    fn is_stub(&self, function: &Function<'_>) -> bool {
        let in_plt = self.code_at(function.address.0).is_some_and(|section| section.starts_with(".plt"));
        in_plt && function.left_out == Some(LeftOut::PltStub) && function.symbol.ends_with("@plt")
    }

    fn no_function(&self, symbol: &Symbol, bodies: &Bodies) -> Option<Rule> {
        match (&*symbol.kind, &*symbol.section) {
            (_, "UND") => Some(Undefined),
            ("OBJECT" | "TLS" | "COMMON", _) => Some(Data),
            ("FILE" | "SECTION", _) | (_, "ABS") => Some(Note),
            ("NOTYPE", section) if !self.code.iter().any(|(number, ..)| number == section) => Some(LabelInData),
            ("NOTYPE", _) if symbol.name.starts_with(".annobin_") => Some(AnnobinLabel),
            ("NOTYPE", _) if bodies.hold_inside(symbol.address) => Some(LabelInside),
            _ => None,
        }
    }

    /// Functions without a name, and where the unwind tables know of code that is in no function.
    fn bounds_agree(&self, found: &mut Differences) {
        let nameless = |f: &Function<'_>| f.left_out == Some(LeftOut::Nameless);
        let functions: Vec<_> = self.index.functions().collect();
        let ours: BTreeSet<_> = functions.iter().filter(|f| nameless(f)).map(|f| (f.address.0, f.size)).collect();
        assert!(ours.is_subset(&self.records), "{}: {:?}", self.name, ours.difference(&self.records).next());
        let named = Bodies::of(functions.iter().filter(|f| !nameless(f)).map(|f| (f.address.0, f.size.max(1))));
        let signal_return: Vec<u64> =
            self.theirs.iter().filter(|s| s.name == "__restore_rt").map(|s| s.address).collect();
        for &(start, size) in self.records.difference(&ours) {
            let rule = match self.code_at(start) {
                _ if size == 0 => Some(Empty),
                _ if named.hold(start) => Some(Named),
                Some(section) if section.starts_with(".plt") => Some(Plt),
                Some(".bolt.org.text") => Some(BoltOriginal),
                _ if signal_return.contains(&(start + 1)) => Some(SignalReturn),
                _ => None,
            };
            found.add(rule, || format!("{}: {start:#x}, {size} bytes, in no function", self.name));
        }
    }
}

/// Ranges of code, which may overlap.
struct Bodies(BTreeMap<u64, u64>);

impl Bodies {
    fn of(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut longest = BTreeMap::new();
        for (start, size) in ranges {
            let longest: &mut u64 = longest.entry(start).or_default();
            *longest = size.max(*longest);
        }
        Self(longest)
    }

    fn hold(&self, address: u64) -> bool {
        self.0.contains_key(&address) || self.hold_inside(address)
    }

    /// Behind the first byte of one. Few reach over a hundred others.
    fn hold_inside(&self, address: u64) -> bool {
        self.0.range(..address).rev().take(100).any(|(start, size)| address < start + size)
    }
}

/// Compares the programs and sees to it that each of the rules is needed.
fn agree(programs: &[&str], least: usize, rules: &[Rule]) {
    let mut found = Differences::default();
    for name in programs {
        let compared = Compared::new(name);
        assert!(compared.index.len() > least, "{name}: {}", compared.index.len());
        compared.symbols_agree(&mut found);
        compared.bounds_agree(&mut found);
    }
    let some: Vec<_> = found.unexplained.iter().take(20).collect();
    assert!(some.is_empty(), "{} differences, such as {some:#?}", found.unexplained.len());
    assert_eq!(found.excused.keys().copied().collect::<Vec<_>>(), rules, "{found:?}");
}

#[test]
fn functions_of_programs_with_symbols_are_those_of_readelf() {
    agree(
        &NAMED,
        1500,
        &[Data, Note, Undefined, LabelInData, AnnobinLabel, LabelInside, Stub, Named, Plt, BoltOriginal],
    );
}

#[test]
fn functions_of_programs_whose_symbols_are_elsewhere_are_those_of_readelf() {
    agree(&NAMED_ELSEWHERE, 1500, &[Data, Note, Undefined, LabelInData, Stub, Named, Plt, SignalReturn]);
}

#[test]
fn functions_of_stripped_programs_are_those_of_readelf() {
    agree(&STRIPPED, 300, &[Data, Undefined, LabelInData, Stub, Empty, Named, Plt]);
}

/// What is listed under one name is what is found by that name: looking in the string tables first loses nothing.
#[test]
fn every_listed_name_finds_its_function() {
    for path in ["librustc_driver.so", "cargo", "libLLVM.so", "libstdc++.so", "libc.so.6"].map(common::corpus) {
        let index = index(&path);
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
