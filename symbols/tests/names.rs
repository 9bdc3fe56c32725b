//! The patterns of the manual on real names: each finds the functions that `nm` shows under that name, and no others.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use regex::Regex;
use symbols::binary::Binary;
use symbols::index::{Index, Matched};
use symbols::pattern::Pattern;

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const LIBSTDCXX: &str = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6";

fn index(path: &Path) -> Index {
    Index::new(Arc::new(Binary::open(path).unwrap())).unwrap()
}

/// Addresses that a pattern selects.
fn found(index: &Index, pattern: &str) -> BTreeSet<u64> {
    let pattern: Pattern = pattern.parse().unwrap();
    let function = |what| match what {
        Matched::Function(id) => index.function(id).address.0,
        Matched::Point { address, .. } => address.0,
    };
    index.select(&[pattern], false).matches.iter().map(|m| function(m.what)).collect()
}

/// Functions as `nm -C` shows them: address → names, from both symbol tables.
fn nm(path: &Path) -> BTreeMap<u64, Vec<String>> {
    let mut functions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for flags in ["-C", "-CD"] {
        for line in common::run(Command::new("nm").args([flags, "--defined-only"]).arg(path)).lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(address), Some("T" | "t" | "W" | "w"), Some(name)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            functions.entry(u64::from_str_radix(address, 16).unwrap()).or_default().push(name.to_owned());
        }
    }
    functions
}

/// Each row: a pattern, and an expression for all names in `nm -C` that it means.
fn agree(path: &Path, rows: &[(&str, &str)]) {
    let (index, nm) = (index(path), nm(path));
    for (pattern, names) in rows {
        let names = Regex::new(&format!("^(?:{names})$")).unwrap();
        let fits = |of: &[String]| of.iter().any(|name| names.is_match(name));
        let expected: BTreeSet<u64> = nm.iter().filter(|(_, of)| fits(of)).map(|(address, _)| *address).collect();
        assert!(!expected.is_empty(), "nm knows none of {names}");
        let found = found(&index, pattern);
        let odd: Vec<_> =
            found.symmetric_difference(&expected).map(|address| (format!("{address:#x}"), nm.get(address))).collect();
        assert!(odd.is_empty(), "{pattern}: {odd:?}");
    }
}

#[test]
fn names_of_the_c_library() {
    agree(
        Path::new(LIBC),
        &[
            ("fopen", "fopen@@.*"),
            ("realpath", "realpath@.*"),
            ("realpath@GLIBC_2.3", "realpath@@GLIBC_2.3"),
            ("realpath@@GLIBC_2.3", "realpath@@GLIBC_2.3"),
            ("realpath@GLIBC_2.2.5", "realpath@GLIBC_2.2.5"),
            ("pthread_cond_*wait", "pthread_cond_.*wait@.*"),
            ("pthread_mutex_{lock,unlock}", "pthread_mutex_(un)?lock@.*"),
            ("posix_spaw?", "posix_spawn@.*"),
            ("[fp]open", "[fp]open@.*"),
            ("/^reg(exec|comp)$/", "reg(exec|comp)@.*"),
        ],
    );
    assert!(found(&index(Path::new(LIBC)), "realpath@GLIBC_2.99").is_empty());
}

#[test]
fn names_of_the_cpp_library() {
    let string = r"std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
    agree(
        Path::new(LIBSTDCXX),
        &[
            ("std::thread::join", r"std::thread::join\(\)@.*"),
            ("thread::join", r"std::thread::join\(\)@.*"),
            ("std::thread::join()", r"std::thread::join\(\)@.*"),
            ("std::condition_variable::wait", r"std::condition_variable::wait\(.*"),
            ("operator new", r"operator new\(.*"),
            ("operator new(unsigned long)", r"operator new\(unsigned long\)@.*"),
            ("operator delete[]", r"operator delete\[\]\(.*"),
            ("std::chrono::system_clock::now", r"std::chrono::(_V2::)?system_clock::now\(\)@.*"),
            // The old strings and the new.
            ("std::string::append(char const*)", &format!(r"(std::string|{string})::append\(char const\*\)@.*")),
            ("std::string::push_back", &format!(r"(std::string|{string})::push_back\(.*")),
            (
                "std::__cxx11::basic_string::push_back",
                r"(std::string|std::(__cxx11::)?basic_string<.*>)::push_back\(.*",
            ),
            ("std::basic_istream<wchar_t>::get", r"std::basic_istream<wchar_t, std::char_traits<wchar_t> >::get\(.*"),
            ("std::basic_istream::get", r"std::(basic_istream<.*>|istream)::get\(.*"),
            (
                "std::ostream::operator<<(double)",
                r"std::(ostream|basic_ostream<char, std::char_traits<char> >)::operator<<\(double\)@.*",
            ),
            ("std::filesystem::path::has_filename", r"std::filesystem::(__cxx11::)?path::has_filename\(.*"),
            ("std::filesystem::path::_M_split_cmpts", r"std::filesystem::(__cxx11::)?path::_M_split_cmpts\(.*"),
            ("std::random_device::_M_init", r"std::random_device::_M_init\(.*"),
            ("std::locale::locale", r"std::locale::locale\(.*"),
            ("_ZNSt6thread4joinEv", r"std::thread::join\(\)@.*"),
            ("__cxa_throw", "__cxa_throw@.*"),
            ("*condition_variable::notify_*", r".*condition_variable(_any)?::notify_.*"),
            ("std::thread::*", r"std::thread::.*"),
        ],
    );
}

const RUST_PROGRAM: &str = r#"
use std::fmt;
pub struct Square<T>(T);
pub trait Area { fn area(&self) -> u32; }
impl Area for Square<u32> {
    #[inline(never)]
    fn area(&self) -> u32 { std::hint::black_box(self.0) * 2 }
}
impl Area for Square<u8> {
    #[inline(never)]
    fn area(&self) -> u32 { u32::from(std::hint::black_box(self.0)) * 3 }
}
impl<T: fmt::Display> Square<T> {
    #[inline(never)]
    pub fn show(&self) -> String { let text = |n: usize| format!("{}{n}", self.0); text(std::hint::black_box(3)) }
}
impl fmt::Display for Square<u32> {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(if self.0 > 3 { "big" } else { "small" }) }
}
pub mod deep { pub mod down {
    #[inline(never)]
    pub fn pair<A: Copy, B: Copy>(a: A, b: B) -> (B, A) { std::hint::black_box((b, a)) }
} }
#[inline(never)]
fn apply(f: &dyn Fn(u32) -> u32) -> u32 { f(std::hint::black_box(2)) }
fn main() {
    let (s, t) = (Square(4u32), Square(5u8));
    let offset = std::env::args().count() as u32;
    let n = apply(std::hint::black_box(&|x| std::hint::black_box(x) + offset));
    println!("{} {} {} {} {s} {n}", s.area(), t.area(), s.show(), t.show());
    println!("{:?} {:?}", deep::down::pair(1u8, 2u32), deep::down::pair('a', "b"));
}
"#;

/// Both manglings: what a name is called must not depend on it, but for what the old one does not record.
#[test]
fn names_of_rust_programs_of_both_manglings() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("names.rs");
    std::fs::write(&source, RUST_PROGRAM).unwrap();
    for mangling in ["legacy", "v0"] {
        let program = dir.path().join(mangling);
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2021", "-O", "-Zunstable-options"]).env("RUSTC_BOOTSTRAP", "1");
        rustc.arg(format!("-Csymbol-mangling-version={mangling}")).arg("-o").arg(&program).arg(&source);
        common::run(rustc.env_remove("RUSTFLAGS"));
        let index = index(&program);
        let rows: &[(&str, usize)] = &[
            ("names::apply", 1),
            ("apply", 1),
            ("names::deep::down::pair", 2),
            ("down::pair", 2),
            ("pair", 2),
            ("names::Square::area", 2),
            ("Square::area", 2),
            ("<names::Square<u32> as names::Area>::area", 1),
            ("<names::Square<u8> as names::Area>::area", 1),
            ("<names::Square as names::Area>::area", 2),
            ("<Square<u8> as Area>::area", 1),
            ("<Square as Area>::area", 2),
            ("names::Square<T>::show", if mangling == "legacy" { 2 } else { 0 }),
            ("names::Square<u8>::show", if mangling == "legacy" { 0 } else { 1 }),
            ("names::Square::show", 2),
            ("<names::Square<u32> as core::fmt::Display>::fmt", 1),
            ("names::main::{{closure}}", 1),
            ("names::main::{closure#0}", 1),
            ("main", 1),
            ("<names::Square<*> as *", 3),
            ("names::deep::*", 2),
            ("*::area", 2),
            ("*[Aa]rea", 2),
            ("names::deep::*::pair*", 2),
            ("/^names::(apply|main)$/", 2),
        ];
        for (pattern, count) in rows {
            let shown = index.select(&[pattern.parse().unwrap()], false).matches;
            assert_eq!(shown.len(), *count, "{mangling}: {pattern}: {shown:#?}");
        }
        assert_eq!(found(&index, "names::deep::down::pair::<u8, u32>").len(), usize::from(mangling == "v0"));
    }
}

#[test]
fn parts_clones_and_namesakes_of_c() {
    let dir = tempfile::tempdir().unwrap();
    let index = index(&common::c_program(dir.path()));
    let count = |pattern: &str| found(&index, pattern).len();
    // Two static functions of one name, and what gcc split off them.
    assert_eq!((count("same"), count("same.cold"), count("sam?")), (2, 2, 2));
    assert_eq!((count("twice"), count("twice.cold"), count("tw*")), (1, 1, 2));
    assert_eq!(index.select(&["same*".parse().unwrap()], true).matches.len(), 4);
}

/// The compiler of Go is a large program of Go.
#[test]
fn names_of_a_go_program() {
    let tool = common::go_tool();
    let root = common::run(Command::new(&tool).args(["env", "GOROOT"]).env("GOTOOLCHAIN", "local"));
    let compiler = PathBuf::from(root.trim()).join("pkg/tool/linux_amd64/compile");
    let out = common::run(Command::new(&tool).args(["tool", "nm"]).arg(&compiler).env("GOTOOLCHAIN", "local"));
    let mut nm: BTreeMap<u64, String> = BTreeMap::new();
    for line in out.lines() {
        let mut words = line.split_whitespace();
        if let (Some(address), Some("T" | "t")) = (words.next(), words.next()) {
            nm.insert(u64::from_str_radix(address, 16).unwrap(), words.collect::<Vec<_>>().join(" "));
        }
    }
    let index = index(&compiler);
    for (pattern, names) in [
        ("cmd/compile/internal/ssa.Compile", r"cmd/compile/internal/ssa\.Compile"),
        ("ssa.Compile", r"cmd/compile/internal/ssa\.Compile"),
        ("cmd/compile/internal/ssa.(*Func).NewBlock", r"cmd/compile/internal/ssa\.\(\*Func\)\.NewBlock"),
        (r"cmd/compile/internal/ssa.(\*Func).NewBlock", r"cmd/compile/internal/ssa\.\(\*Func\)\.NewBlock"),
        ("(*Func).NewBlock", r"cmd/compile/internal/ssa\.\(\*Func\)\.NewBlock"),
        ("Func.NewBlock", r"cmd/compile/internal/ssa\.\(\*Func\)\.NewBlock"),
        ("NewBlock", r"cmd/compile/internal/ssa\.\(\*Func\)\.NewBlock"),
        ("slices.SortFunc[...]", r"slices\.SortFunc\[.*\]"),
        ("slices.SortFunc", r"slices\.SortFunc\[.*\]"),
        ("slices.breakPatternsOrdered[...]*", r"slices\.breakPatternsOrdered\[.*\]"),
        ("slices.breakPatternsOrdered[string]", r"slices\.breakPatternsOrdered\[go\.shape\.string\]"),
        ("main", r"main\.main"),
        ("cmd/compile/internal/ssa.(*Block).[A-Z]*", r"cmd/compile/internal/ssa\.\(\*Block\)\.[A-Z].*"),
        ("*ssa.(*Block).[Ss]et*", r"cmd/compile/internal/ssa\.\(\*Block\)\.[Ss]et.*"),
        ("cmd/compile/internal/ssa.{fuse,cse}", r"cmd/compile/internal/ssa\.(fuse|cse)"),
        (
            "/ssa\\.rewriteValueAMD64_OpAMD64ADDQ(const)?$/",
            r"cmd/compile/internal/ssa\.rewriteValueAMD64_OpAMD64ADDQ(const)?",
        ),
        ("runtime.gcMark*", r"runtime\.gcMark.*"),
        ("runtime.memmove", r"runtime\.memmove(\.abi0)?"),
    ] {
        let names = Regex::new(&format!("^(?:{names})$")).unwrap();
        let expected: BTreeSet<u64> = nm.iter().filter(|(_, name)| names.is_match(name)).map(|(a, _)| *a).collect();
        let found = found(&index, pattern);
        let odd: Vec<_> = found.symmetric_difference(&expected).map(|address| nm.get(address)).collect();
        assert!(odd.is_empty() && !expected.is_empty(), "{pattern}: {odd:?}");
    }
}
