//! Inlined copies of functions: compared with llvm-dwarfdump and llvm-symbolizer.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::llvm::symbolizer_of as symbolizer;
use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::{Index, Inlined};
use symbols::pattern::Pattern;

fn index(program: &Path) -> Index {
    let nowhere = DebugSearch { path: Some(program.to_owned()), folders: Vec::new(), ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::open(program).unwrap()), &nowhere).unwrap()
}

/// What is inlined of the functions that patterns mean.
fn inlined<'a>(index: &'a Index, patterns: &[&str]) -> Vec<Inlined<'a>> {
    let patterns: Vec<Pattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
    index.inlined_copies(&patterns, &index.select(&patterns, false), false)
}

/// (name, whether it has code of its own, copies), by name.
fn counts(index: &Index, patterns: &[&str]) -> Vec<(String, bool, usize)> {
    inlined(index, patterns).into_iter().map(|one| (one.name, one.function.is_some(), one.copies.len())).collect()
}

/// At each copy's address llvm-symbolizer sees the inlined function, called from where the copy says, in the function that
/// it says. `twin`: the same program with debug information.
fn agrees(index: &Index, twin: &Path, one: &Inlined<'_>) {
    let copies: Vec<_> = one.copies.iter().filter_map(|copy| Some((copy.address?, copy))).collect();
    assert!(!copies.is_empty());
    let addresses: Vec<u64> = copies.iter().map(|(address, _)| address.0).collect();
    for ((address, copy), frames) in copies.iter().zip(symbolizer(twin, &addresses)) {
        let at = frames.iter().position(|(name, ..)| *name == one.symbol);
        let at = at.unwrap_or_else(|| panic!("{address}: no {} in {frames:?}", one.symbol));
        assert_eq!(copy.call.map(|call| call.line), Some(frames[at + 1].2), "{address}: {frames:?}");
        assert!(frames[at + 1].1.ends_with(copy.call.unwrap().file.trim_start_matches("./")), "{copy:?} {frames:?}");
        assert_eq!(frames.last().unwrap().0, index.symbol(copy.into), "{address}");
    }
}

/// What the inlined subroutines in an output of llvm-dwarfdump are copies of.
fn inlined_subroutines(dump: &str) -> impl Iterator<Item = &str> {
    let entries = dump.split("\n\n").filter(|e| e.contains("DW_TAG_inlined_subroutine"));
    entries.filter_map(|e| e.lines().find(|line| line.contains("DW_AT_abstract_origin")))
}

const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int small(int x) {
    return x * atoi("3");
}
static inline __attribute__((always_inline)) int middle(int x) {
    int y = small(x + 1);
    return y > 100 ? small(y) : y;
}
int both(int x) {
    return x * atoi("4");
}
int (*volatile pointer)(int) = both;
__attribute__((noinline)) int outer(int x) {
    return middle(x) + middle(x * 2) + both(x) + both(x + 1);
}
int main(int argc, char **argv) {
    printf("%d\n", outer(argc) + pointer(argc));
    return 0;
}
"#;

fn build(dir: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let compiler = if name.ends_with(".c") { "gcc" } else { "g++" };
    let program = dir.join(name.replace('.', "-"));
    std::fs::write(dir.join(name), source).unwrap();
    common::run(Command::new(compiler).current_dir(dir).args(arguments).arg("-o").arg(&program).arg(name));
    program
}

#[test]
fn copies_are_those_that_the_debug_information_has() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("a.c", &["-O2", "-g", "-gdwarf-5"][..]),
        ("b.c", &["-O2", "-g", "-gdwarf-4"]),
        ("c.cc", &["-O2", "-g"]),
        ("d.c", &["-O2", "-g", "-gsplit-dwarf"]),
    ] {
        let program = build(dir.path(), name, SOURCE, flags);
        let index = index(&program);
        let dump = match name {
            "d.c" => common::run(Command::new("llvm-dwarfdump").arg(dir.path().join("d-c-d.dwo"))),
            _ => common::run(Command::new("llvm-dwarfdump").arg(&program)),
        };
        for (pattern, own_code) in [("small", false), ("both", true)] {
            let [one] = &*inlined(&index, &[pattern]) else { panic!("{name}: {pattern}") };
            assert_eq!((&*one.name, one.function.is_some(), one.exact), (pattern, own_code, true));
            let known = inlined_subroutines(&dump).filter(|origin| origin.contains(pattern)).count();
            assert!(known >= 2);
            assert_eq!(one.copies.len(), known, "{name}: {pattern}");
            if name != "d.c" {
                agrees(&index, &program, one);
            }
        }
        assert_eq!(counts(&index, &["nothing_of_that_name"]), []);
    }
}

#[test]
fn what_a_pattern_does_not_mean_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
#include <cstdlib>
#define SMALL static inline __attribute__((always_inline)) int
namespace one { SMALL get(int x) { return x * atoi("3"); } }
namespace two { __attribute__((noinline)) int get(int x) { return x * atoi("5"); } }
SMALL getter(int x) { return x * atoi("7"); }
struct Shop { int n; __attribute__((always_inline)) explicit Shop(int x) : n(atoi("9") + x) {} };
template <typename T> SMALL scaled(T x) { return int(x) * atoi("2"); }
int main(int argc, char **) {
    Shop shop(argc);
    return one::get(argc) + two::get(argc) + getter(argc) + shop.n + scaled(1) + scaled(2L);
}
"#;
    let index = index(&build(dir.path(), "names.cc", source, &["-O2", "-g"]));
    let names = |patterns: &[&str]| -> Vec<String> { counts(&index, patterns).into_iter().map(|(n, ..)| n).collect() };
    let nothing: [&str; 0] = [];
    // Matched as a tail: the namesake that is only inlined is meant too.
    assert_eq!(names(&["get"]), ["one::get"]);
    assert_eq!(names(&["two::get"]), nothing);
    assert_eq!(names(&["one::get"]), ["one::get"]);
    assert_eq!(names(&["*get*"]), ["getter", "one::get"]);
    assert_eq!(names(&["*get*", "!getter"]), ["one::get"]);
    assert_eq!(names(&["/::get|^getter/"]), ["getter", "one::get"]);
    assert_eq!(names(&["main"]), nothing);
    // The debug information has yet another symbol for a constructor than those two that code may have.
    assert_eq!(counts(&index, &["Shop::Shop"]), [("Shop::Shop".to_owned(), false, 1)]);
    assert!(!inlined(&index, &["gett*"])[0].exact && inlined(&index, &["getter"])[0].exact);
    let all: Vec<Pattern> = vec!["!get*".parse().unwrap()];
    let rest = index.inlined_copies(&all, &index.select(&all, false), false);
    assert!(rest.iter().any(|one| one.name == "Shop::Shop") && rest.iter().all(|one| one.name != "getter"));
}

/// Compilers state no linkage name of what C++ has in one file only.
#[test]
fn functions_of_one_file_of_cpp_are_found_by_their_full_name() {
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
#include <cstdlib>
namespace { int hidden(int x) { return x * atoi("3"); } struct Shop { int n; int tell() { return n * atoi("4"); } }; }
static int twin(int x) { return x * atoi("5"); }
namespace shop { static int inner(int x) { return x * atoi("6"); } }
int (*volatile a)(int) = hidden;
int (*volatile b)(int) = twin;
int (*volatile c)(int) = shop::inner;
int main(int argc, char **) {
    Shop s{argc};
    return hidden(argc) + twin(argc) + shop::inner(argc) + s.tell() + a(1) + b(2) + c(3);
}
"#;
    for (name, flags) in [("five.cc", "-gdwarf-5"), ("four.cc", "-gdwarf-4")] {
        let program = build(dir.path(), name, source, &["-O2", flags]);
        let index = index(&program);
        for (pattern, name, own_code) in [
            ("hidden", "(anonymous namespace)::hidden", true),
            ("(anonymous namespace)::hidden", "(anonymous namespace)::hidden", true),
            ("twin", "twin", true),
            ("shop::inner", "shop::inner", true),
            ("inner", "shop::inner", true),
            ("tell", "(anonymous namespace)::Shop::tell", false),
            ("Shop::tell", "(anonymous namespace)::Shop::tell", false),
        ] {
            assert_eq!(counts(&index, &[pattern]), [(name.to_owned(), own_code, 1)], "{pattern}");
        }
    }
}

/// The same where they were inlined. The oracle is the symbol table of a program into which nothing is.
#[test]
fn inlined_functions_of_one_file_of_cpp_have_their_full_name() {
    let dir = tempfile::tempdir().unwrap();
    let source = r#"
#include <cstdlib>
namespace shop {
namespace { SMALL int hidden(int x) { return x * atoi("3"); } struct Till { SMALL int tell(int x) { return hidden(x) + atoi("4"); } }; }
static SMALL int helper(int x) { return Till().tell(x) * atoi("5"); }
struct Cart { int n; SMALL int total(int x) { return helper(x) + n; } };
WHOLE int outer(int x) { return Cart{x}.total(x); }
}
int main(int argc, char **) { return shop::outer(argc); }
"#;
    let small = "-DSMALL=__attribute__((always_inline)) inline";
    let inlined = build(dir.path(), "in.cc", source, &["-O2", "-g", small, "-DWHOLE=__attribute__((noipa))"]);
    let whole = build(dir.path(), "out.cc", source, &["-O0", "-DSMALL=__attribute__((used))", "-DWHOLE="]);
    let symbols = common::run(Command::new("nm").arg("-C").arg(&whole));
    let without_parameters = |name: &str| name.strip_suffix("(int)").unwrap_or(name).to_owned();
    let known: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.splitn(3, ' ').nth(2))
        .filter(|name| name.starts_with("shop::") && name.ends_with("(int)"))
        .map(without_parameters)
        .collect();
    assert_eq!(known.len(), 5, "{known:?}");
    let index = index(&inlined);
    let outer = index.functions().find(|f| f.name == "shop::outer(int)").unwrap();
    let frames = (0..outer.size).flat_map(|at| index.inlined(outer.address.checked_add(at).unwrap()));
    let mut found: BTreeSet<String> = frames.map(|frame| without_parameters(&frame.name)).collect();
    // The C library's header has one to be inlined.
    found.remove("atoi");
    assert_eq!(found, known);
}

const RUST: &str = r#"
struct Shop { n: u32 }
impl Shop {
    #[inline(always)]
    fn price(&self, by: u32) -> u32 { std::hint::black_box(self.n) * by }
}
#[inline(always)]
fn twice<T: Copy + std::ops::Add<Output = T>>(x: T) -> T { std::hint::black_box(x) + x }
#[inline(never)]
fn sum(shop: &Shop) -> u32 { shop.price(2) + shop.price(3) + twice(4u32) + twice(5u64) as u32 }
fn main() { println!("{}", sum(&Shop { n: std::env::args().count() as u32 })); }
"#;

#[test]
fn inlined_functions_of_rust_are_found_in_both_manglings() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("shop.rs");
    std::fs::write(&source, RUST).unwrap();
    for mangling in ["legacy", "v0"] {
        let program = dir.path().join(mangling);
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2021", "-O", "-g", "-Zunstable-options"]).env("RUSTC_BOOTSTRAP", "1");
        rustc.arg(format!("-Csymbol-mangling-version={mangling}")).arg("-o").arg(&program).arg(&source);
        common::run(rustc.env_remove("RUSTFLAGS"));
        let index = index(&program);
        for pattern in ["shop::Shop::price", "Shop::price", "price", "shop::*::price"] {
            let found = inlined(&index, &[pattern]);
            let [one] = &*found else { panic!("{mangling}: {pattern}: {found:?}") };
            assert_eq!((one.copies.len(), one.function), (2, None), "{mangling}: {pattern}");
            agrees(&index, &program, one);
        }
        let copies: usize = inlined(&index, &["shop::twice"]).iter().map(|one| one.copies.len()).sum();
        assert_eq!(copies, 2, "{mangling}: one of each type");
    }
}

const GO: &str = "package main

import \"os\"

func tiny(n int) int { return n*n + 1 }

func nested(n int) int { return tiny(n) + 3 }

//go:noinline
func big(n int) int { return tiny(n) + tiny(n+2) + nested(n+5) }

var pointer = nested

func main() { os.Exit(big(len(os.Args)) + pointer(3)) }
";

#[test]
fn a_stripped_go_program_says_where_its_functions_are_inlined() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("go.mod"), "module example.com/small\n\ngo 1.19\n").unwrap();
    std::fs::write(dir.path().join("main.go"), GO).unwrap();
    for tool in [common::go_tool(), PathBuf::from("/usr/bin/go")] {
        let build = |name: &str, flags: &str| {
            let program = dir.path().join(name);
            common::run(common::go_with(&tool, dir.path()).args(["build", flags, "-o"]).arg(&program).arg("."));
            program
        };
        let (twin, stripped) = (build("twin", "-ldflags="), build("stripped", "-ldflags=-s -w"));
        let index = index(&stripped);
        let dump = common::run(Command::new("llvm-dwarfdump").arg(&twin));
        // In `nested`, and three times in `big`, once with that; Go 1.19 has no entry for the first.
        let tiny = inlined_subroutines(&dump).filter(|origin| origin.contains("\"main.tiny\"")).count();
        assert!(tiny >= 3);
        assert_eq!(counts(&index, &["main.tiny"]), [("main.tiny".to_owned(), false, tiny)]);
        assert_eq!(counts(&index, &["main.nested"]), [("main.nested".to_owned(), true, 1)]);
        assert_eq!(counts(&index, &["main.{tiny,nested}", "!main.tiny"]), [("main.nested".to_owned(), true, 1)]);
        for pattern in ["main.tiny", "nested", "os.Exit", "sync/atomic.(*Int32).Load", "strings.*"] {
            for one in inlined(&index, &[pattern]) {
                agrees(&index, &twin, &one);
            }
        }
        assert!(counts(&index, &["*"]).iter().all(|(name, ..)| !name.starts_with("runtime.")));
        assert!(counts(&index, &["runtime.*"]).len() > 100);
    }
}
