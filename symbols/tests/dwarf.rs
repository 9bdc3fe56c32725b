//! Lines and inlined functions, compared with llvm-symbolizer.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::llvm;
use common::llvm::symbolizer_of as symbolizer;
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::{Index, Matched};

fn index(program: &Path) -> Index {
    Index::new(Arc::new(Binary::open(program).unwrap())).unwrap()
}

/// How many addresses were compared, and how many of them lie in inlined code.
struct Agreed {
    addresses: usize,
    inlined: usize,
}

/// Compares every `step`th address of every function whose name is `wanted`.
fn agrees(program: &Path, index: &Index, step: u64, wanted: impl Fn(&str) -> bool) -> Agreed {
    let functions = index.functions().filter(|f| wanted(f.symbol));
    let addresses: Vec<u64> =
        functions.flat_map(|f| (0..f.size).step_by(step as usize).map(move |i| f.address.0 + i)).collect();
    let mut agreed = Agreed { addresses: addresses.len(), inlined: 0 };
    let answers = symbolizer(program, &addresses);
    let names = llvm::demangled(answers.iter().flatten().map(|(name, ..)| name.as_str()).collect());
    for (&address, expected) in addresses.iter().zip(&answers) {
        let frames = index.inlined(Vaddr(address));
        let at = format!("{} {address:#x}\n{expected:#?}\n{frames:#?}", program.display());
        let known = expected[0].1 != "??" && expected[0].2 != 0;
        let line = index.line(Vaddr(address)).map(|l| (l.file.to_owned(), l.line));
        assert_eq!(line, known.then(|| (expected[0].1.clone(), expected[0].2)), "{at}");
        if !known {
            continue;
        }
        assert_eq!(frames.len(), expected.len(), "{at}");
        agreed.inlined += usize::from(frames.len() > 1);
        for (level, (frame, expected)) in frames.iter().zip(expected).enumerate() {
            let place = frame.source.map(|s| (s.file, s.line));
            let expected_place = (expected.2 != 0).then_some((&*expected.1, expected.2));
            assert_eq!(place, expected_place, "{at}");
            if level + 1 < frames.len() {
                assert!(llvm::is_name(&frame.name, &expected.0, &names[&expected.0]), "{at}");
            }
        }
    }
    agreed
}

const INLINED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int innermost(int x) {
    return x * atoi("3");
}
static inline __attribute__((always_inline)) int middle(int x) {
    int y = innermost(x + 1);
    return y > 100 ? innermost(y) : y;
}
__attribute__((noinline)) int outer(int x) {
    if (__builtin_expect(x == 77, 0)) abort();
    return middle(x) + middle(x * 2);
}
int main(int argc, char **argv) {
    printf("%d\n", outer(argc));
    return 0;
}
"#;

/// A type that gets a unit of its own, and whose method is described there.
const TYPES: &str = r#"
struct Pair { int a, b; };
extern struct Pair pair;
struct Pair pair;
#ifdef __cplusplus
struct Order { int n; int outer_price(int m); };
__attribute__((noinline)) int Order::outer_price(int m) { return n * m; }
#endif
"#;

/// A C and a C++ program, built with each of `flags`.
fn programs(dir: &Path, flags: &[&[&str]]) -> Vec<PathBuf> {
    let mut built = Vec::new();
    for (number, flags) in flags.iter().enumerate() {
        for (compiler, extension) in [("gcc", "c"), ("g++", "cc")] {
            let source = dir.join(format!("source/inlined.{extension}"));
            std::fs::create_dir_all(source.parent().unwrap()).unwrap();
            std::fs::write(&source, INLINED).unwrap();
            std::fs::write(dir.join("types.h"), TYPES).unwrap();
            let program = dir.join(format!("{number}-{extension}"));
            // A path relative to where the compiler runs.
            let source = Path::new("source").join(source.file_name().unwrap());
            common::run(Command::new(compiler).current_dir(dir).args(*flags).arg("-o").arg(&program).arg(source));
            built.push(program);
        }
    }
    built
}

#[test]
fn lines_and_inlined_functions_agree_with_llvm_symbolizer() {
    let dir = tempfile::tempdir().unwrap();
    // Debian builds its packages so: the folder of the compiler's is no absolute path.
    let relative = format!("-fdebug-prefix-map={}=./place", dir.path().display());
    let flags: &[&[&str]] = &[
        &["-O2", "-g", "-gdwarf-4"],
        &["-O2", "-g", "-gdwarf-5"],
        &["-O0", "-g", "-gdwarf-5"],
        &["-O2", "-g", "-gdwarf-5", "-gdwarf64"],
        &["-O2", "-g", "-gdwarf-4", "-ffunction-sections", "-Wl,--gc-sections", "-no-pie"],
        &["-O2", "-g", "-gz=zlib"],
        &["-O2", "-g", "-gz=zlib-gnu"],
        &["-O2", "-g", "-gdwarf-5", "-flto"],
        &["-O2", "-g", "-gdwarf-4", "-fdebug-types-section", "-include", "types.h"],
        &["-O2", "-g", "-gdwarf-5", "-fdebug-types-section", "-include", "types.h"],
        &["-O2", "-g", "-gdwarf-4", &relative],
        &["-O2", "-g", "-gdwarf-5", &relative],
    ];
    for program in programs(dir.path(), flags) {
        let agreed = agrees(&program, &index(&program), 1, |name| name.contains("outer") || name == "main");
        assert!(agreed.addresses > 40, "{}: {}", program.display(), agreed.addresses);
        if !program.file_name().unwrap().to_str().unwrap().starts_with('2') {
            assert!(agreed.inlined > 10, "{}: {}", program.display(), agreed.inlined);
        }
    }
}

/// The same answers from another build of `plain`, whose debug information is stored in another way.
fn answers_as(plain: &Path, other: &Path) {
    let (plain, other) = (index(plain), index(other));
    let mut seen = 0;
    for function in plain.functions() {
        for address in (0..function.size).map(|i| Vaddr(function.address.0 + i)) {
            assert_eq!(plain.line(address), other.line(address), "{address}");
            assert_eq!(plain.inlined(address), other.inlined(address), "{address}");
            seen += usize::from(plain.inlined(address).len() > 1);
        }
    }
    assert!(seen > 10);
}

#[test]
fn compressed_sections_answer_as_plain_ones() {
    let dir = tempfile::tempdir().unwrap();
    let programs = programs(dir.path(), &[&["-O2", "-g"]]);
    for method in ["zstd", "zlib", "zlib-gnu", "zlib-gabi"] {
        let other = dir.path().join(method);
        let option = format!("--compress-debug-sections={method}");
        common::run(Command::new("objcopy").arg(option).arg(&programs[0]).arg(&other));
        assert_ne!(std::fs::read(&other).unwrap(), std::fs::read(&programs[0]).unwrap());
        answers_as(&programs[0], &other);
    }
}

#[test]
fn lines_and_inlined_functions_of_rust_agree_with_llvm_symbolizer() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("inlined.rs");
    std::fs::write(&source, RUST).unwrap();
    for (number, flags) in [
        &["-O", "-g"][..],
        &["-O", "-g", "-C", "debuginfo=line-tables-only"],
        &["-g", "-C", "symbol-mangling-version=v0", "-Z", "dwarf-version=5"],
    ]
    .iter()
    .enumerate()
    {
        let program = dir.path().join(number.to_string());
        let mut rustc = Command::new("rustc");
        common::run(rustc.env("RUSTC_BOOTSTRAP", "1").args(*flags).arg("-o").arg(&program).arg(&source));
        let agreed = agrees(&program, &index(&program), 1, |name| name.contains("inlined"));
        assert!(agreed.addresses > 100 && agreed.inlined > 10, "{number}: {} {}", agreed.addresses, agreed.inlined);
    }
}

const RUST: &str = r#"
use std::collections::BTreeMap;
struct Counter(BTreeMap<String, u32>);
impl Counter {
    #[inline(always)]
    fn add(&mut self, word: &str) -> u32 {
        let count = self.0.entry(word.to_owned()).or_default();
        *count += 1;
        *count
    }
    #[inline(never)]
    fn add_all(&mut self, words: &[&str]) -> u32 {
        words.iter().map(|word| self.add(word)).filter(|n| n % 2 == 0).sum()
    }
}
fn main() {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(|w| w.as_str()).collect();
    println!("{}", Counter(BTreeMap::new()).add_all(&words));
}
"#;

#[test]
fn files_and_lines_find_functions_and_points() {
    let dir = tempfile::tempdir().unwrap();
    let line_of = |text: &str| INLINED.lines().position(|l| l.contains(text)).unwrap() + 1;
    for program in programs(dir.path(), &[&["-O0", "-g", "-gdwarf-5"], &["-O2", "-g", "-gdwarf-4"]]) {
        let index = index(&program);
        let file = if program.to_str().unwrap().ends_with("-cc") { "inlined.cc" } else { "source/inlined.c" };
        let select = |pattern: &str| index.select(&[pattern.parse().unwrap()], false).matches;
        let mut names: Vec<String> = select(&format!("@{file}")).into_iter().map(|m| m.name).collect();
        names.retain(|name| name != "innermost" && name != "middle");
        names.sort();
        assert_eq!(names, ["main", "outer"]);
        // The line on which a function begins means the function.
        let found = select(&format!("@{file}:{}", line_of("int outer(int x)")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(matches!(found[0].what, Matched::Function(_)));
        // A line within one: each function that has its code, inlined or not.
        let found = select(&format!("@{file}:{}", line_of("int y = innermost")));
        assert!(!found.is_empty());
        for found in found {
            let Matched::Point { address, .. } = found.what else { panic!("{found:?}") };
            let oracle = symbolizer(&program, &[address.0]);
            assert!(oracle[0][0].2 as usize == line_of("int y = innermost"), "{oracle:?}");
        }
        assert_eq!(select(&format!("@{file}:9999")), []);
        assert_eq!(select("@nlined.c"), [], "not a whole element of the path");
    }
}
