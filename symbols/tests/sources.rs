//! Where names and lines come from besides a file's own symbols, one test for each source. The oracle is the program before
//! it was stripped, or the tool that shows the same (objdump, readelf, llvm-symbolizer, gdb).
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;
#[path = "common/debug.rs"]
mod debug;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use debug::{objcopy, open, search};
use symbols::addr::{FileOffset, Vaddr};
use symbols::debugfile::{self, DebugSearch};
use symbols::index::{Function, Index, Language, LeftOut, Matched};

/// Static twins in two files, a split function each, and functions inlined into them.
const ONE: &str = r#"
#include <stdlib.h>
static inline __attribute__((always_inline)) int inlined(int x) { return x * atoi("3"); }
static __attribute__((noinline)) int twin(int x) { if (__builtin_expect(x == 77, 0)) abort(); return inlined(x) + NUMBER; }
int __attribute__((noinline)) NAME(int x) { return twin(x); }
"#;
const MAIN: &str = r#"
#include <stdio.h>
int one(int), two(int);
int main(int argc, char **argv) { printf("%d\n", one(argc) + two(argc)); return 0; }
"#;

/// A program with debug information; `flags` beside `-O2 -g`.
fn program(dir: &Path, flags: &[&str]) -> PathBuf {
    for (name, number) in [("one", "11"), ("two", "22")] {
        std::fs::write(dir.join(format!("{name}.c")), ONE.replace("NAME", name).replace("NUMBER", number)).unwrap();
    }
    std::fs::write(dir.join("main.c"), MAIN).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.current_dir(dir).args(["-O2", "-g"]).args(flags).args(["-o", "program", "main.c", "one.c", "two.c"]);
    common::run(&mut gcc);
    dir.join("program")
}

fn index(path: &Path) -> Index {
    Index::with_debug(open(path), &search(path)).unwrap()
}

fn named<'a>(index: &'a Index, name: &str) -> Function<'a> {
    index.functions().find(|f| f.symbol == name).unwrap()
}

/// Functions by `nm`: address → (size, name), those of the program's own sources.
fn nm(program: &Path) -> BTreeMap<u64, (u64, String)> {
    let listed = common::run(Command::new("nm").args(["-S", "--defined-only"]).arg(program));
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let parse = |line: &str| {
        let [address, size, kind, name] = *line.split(' ').collect::<Vec<_>>() else { return None };
        let is_ours = "tT".contains(kind) && name != "_start";
        is_ours.then(|| (number(address), (number(size), name.to_owned())))
    };
    listed.lines().filter_map(parse).collect()
}

#[test]
fn functions_that_only_debug_information_names_have_its_names_sizes_and_parts() {
    for flags in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gdwarf-5", "-gsplit-dwarf"], &["-gdwarf-4", "-gsplit-dwarf"]]
    {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), flags);
        let stripped = dir.path().join("stripped");
        objcopy(&["--strip-all", "--keep-section=.debug_*"], &program, &stripped);
        let sections = common::run(Command::new("readelf").arg("-SW").arg(&stripped));
        assert!(!sections.contains(".symtab") && sections.contains(".debug_info"));
        let (expected, index) = (nm(&program), index(&stripped));
        assert!(expected.len() >= 7, "{expected:?}");
        for (address, (size, name)) in &expected {
            let found = index.at(Vaddr(*address)).unwrap();
            assert_eq!((found.address.0, found.size, found.name), (*address, *size, name.trim_end_matches(".cold")));
            assert_eq!(found.left_out, name.ends_with(".cold").then_some(LeftOut::Part), "{flags:?}");
        }
        assert!(!index.is_stripped());
        // Each twin has its own part, as in the program with symbols.
        let full = Index::new(open(&program)).unwrap();
        let twins = |index: &Index| {
            let selection = index.select(&["twin".parse().unwrap()], false);
            let parts = |what: &Matched| match what {
                Matched::Function(id) => (index.function(*id).address, index.parts(*id)),
                Matched::Point { .. } => panic!("a point"),
            };
            selection.matches.iter().map(|m| parts(&m.what)).collect::<Vec<_>>()
        };
        assert_eq!(twins(&index), twins(&full), "{flags:?}");
        assert!(twins(&index).iter().all(|(_, parts)| parts.len() == 1));
        assert_eq!(twins(&index).len(), 2);
    }
}

const LOCAL: &str = r#"
#include <cstdlib>
namespace shop {
namespace {
struct Order {
    int n;
    Order(int n);
    int price(int by);
    template <typename T> int scale(T by) { return n * by + atoi("7"); }
    struct Line { int tell(int x); };
};
Order::Order(int n) : n(n + atoi("1")) {}
int Order::price(int by) { return n * by + atoi("2"); }
int Order::Line::tell(int x) { return x + atoi("3"); }
}
static int inner(int x) { return x * atoi("6"); }
int shown(int x) { return inner(x) + atoi("8"); }
}
static int outer(int x) {
    struct Within { int tell(int y) { return y + atoi("4"); } };
    return Within().tell(x) + atoi("5");
}
int main(int argc, char **) {
    shop::Order order(argc);
    return order.price(1) + order.scale(2) + shop::Order::Line().tell(3) + shop::inner(4) + outer(5) + shop::shown(6);
}
"#;

/// gcc states no linkage name of what C++ has in one file only. The oracle is the symbol table that was taken away.
#[test]
fn functions_of_one_file_of_cpp_that_only_debug_information_names_are_called_as_in_the_source() {
    for flags in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gdwarf-5", "-gsplit-dwarf"]] {
        let dir = tempfile::tempdir().unwrap();
        let (program, stripped) = (dir.path().join("local"), dir.path().join("stripped"));
        std::fs::write(dir.path().join("local.cc"), LOCAL).unwrap();
        let mut gcc = Command::new("g++");
        gcc.current_dir(dir.path()).args(["-O0", "-o", "local", "local.cc"]).args(flags);
        common::run(&mut gcc);
        objcopy(&["--strip-all", "--keep-section=.debug_*"], &program, &stripped);
        let (full, found) = (Index::new(open(&program)).unwrap(), index(&stripped));
        for (name, tail) in [
            ("shop::(anonymous namespace)::Order::Order", "Order::Order"),
            ("shop::(anonymous namespace)::Order::price", "price"),
            ("shop::(anonymous namespace)::Order::scale", "Order::scale"),
            ("shop::(anonymous namespace)::Order::Line::tell", "Line::tell"),
            ("shop::inner", "inner"),
            ("shop::shown", "shown"),
            ("outer::Within::tell", "Within::tell"),
            ("outer", "outer"),
            ("main", "main"),
        ] {
            let address = |index: &Index, pattern: &str| {
                let selection = index.select(&[pattern.parse().unwrap()], false);
                let [one] = &selection.matches[..] else { panic!("{flags:?}: {pattern}: {:?}", selection.matches) };
                let Matched::Function(id) = one.what else { panic!("a point") };
                index.function(id).address
            };
            let expected = address(&full, name);
            assert_eq!(address(&found, name), expected, "{flags:?}: {name}");
            assert_eq!(address(&found, tail), expected, "{flags:?}: {tail}");
            let shown = found.at(expected).unwrap();
            let bare = |name: &str| name.split(['<', '[']).next().unwrap().to_owned();
            let without_parameters = shown.name.rsplit_once('(').filter(|_| shown.name.ends_with(')'));
            assert_eq!(bare(without_parameters.map_or(shown.name, |(name, _)| name)), name, "{flags:?}");
            let is_plain = !name.contains(':');
            assert!(is_plain || shown.language == Language::Cpp, "{flags:?}: {name}: {:?}", shown.language);
        }
        // A glob and an expression see the whole name, too.
        let count = |pattern: &str| found.select(&[pattern.parse().unwrap()], false).matches.len();
        assert_eq!((count("shop::(anonymous namespace)::Order::*"), count("/Order::/"), count("shop::*")), (4, 4, 6));
    }
}

/// gdb, too, takes functions from such units; compilers do not write them any more.
#[test]
fn a_unit_that_does_not_say_where_its_code_is_has_it_where_its_functions_have_it() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), &[version]);
        // The attribute that says it gets another meaning, of the same form.
        let assembly: Vec<PathBuf> = ["main", "one", "two"].map(|name| dir.path().join(format!("{name}.s"))).into();
        for (name, out) in ["main.c", "one.c", "two.c"].iter().zip(&assembly) {
            let mut gcc = Command::new("gcc");
            common::run(gcc.current_dir(dir.path()).args(["-O2", "-g", version, "-dA", "-S", name, "-o"]).arg(out));
            std::fs::write(out, without_unit_ranges(&std::fs::read_to_string(out).unwrap())).unwrap();
        }
        let vague = dir.path().join("vague");
        common::run(Command::new("gcc").arg("-o").arg(&vague).args(&assembly));
        let dump = common::run(Command::new("readelf").args(["--debug-dump=info"]).arg(&vague));
        let units: Vec<&str> = dump.split("(DW_TAG_compile_unit)").skip(1).collect();
        let roots: Vec<&str> = units.iter().map(|unit| unit.split("Abbrev Number").next().unwrap()).collect();
        assert_eq!(roots.len(), 3);
        assert!(
            roots.iter().all(|root| !root.contains("DW_AT_high_pc") && !root.contains("DW_AT_ranges")),
            "{roots:?}"
        );
        let (plain, found) = (index(&program), index(&vague));
        let mut compared = 0;
        for name in ["main", "one", "two"] {
            let (plain_at, found_at) = (named(&plain, name), named(&found, name));
            assert_eq!(plain_at.size, found_at.size);
            for offset in 0..plain_at.size {
                let there = |start: Vaddr| Vaddr(start.0 + offset);
                assert_eq!(plain.inlined(there(plain_at.address)), found.inlined(there(found_at.address)));
                compared += plain.inlined(there(plain_at.address)).len();
            }
        }
        assert!(compared > 30, "{compared}");
    }
}

/// gcc's assembly with the `DW_AT_low_pc`, `DW_AT_high_pc` and `DW_AT_ranges` of its unit's abbreviation turned into an
/// attribute that nobody knows.
fn without_unit_ranges(assembly: &str) -> String {
    let mut in_unit = false;
    let changed = assembly.lines().map(|line| {
        if line.contains("TAG: ") {
            in_unit = line.contains("DW_TAG_compile_unit");
        }
        let says_where = ["(DW_AT_low_pc)", "(DW_AT_high_pc)", "(DW_AT_ranges)"].iter().any(|a| line.contains(a));
        if in_unit && says_where && line.starts_with("\t.uleb128") { "\t.uleb128 0x3ffe" } else { line }
    });
    changed.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_dwz_moved_to_a_supplementary_file_is_found_there() {
    for (version, flags) in [("-gdwarf-4", &[][..]), ("-gdwarf-5", &[]), ("-gdwarf-5", &["--dwarf-5"])] {
        let dir = tempfile::tempdir().unwrap();
        let plain = program(dir.path(), &[version]);
        let (folder, build_ids) = (dir.path().join("debug"), dir.path().join("debug/.build-id"));
        std::fs::create_dir_all(folder.join(".dwz")).unwrap();
        let copies = ["a", "b", "c"].map(|name| folder.join(name));
        for copy in &copies {
            std::fs::copy(&plain, copy).unwrap();
        }
        let mut dwz = Command::new("dwz");
        dwz.current_dir(&folder).args(flags).args(["-m", ".dwz/common", "-M", "/usr/lib/debug/.dwz/common"]);
        common::run(dwz.args(["a", "b", "c"]));
        let links = common::run(Command::new("readelf").args(["--debug-dump=links"]).arg(&copies[0]));
        assert!(links.contains("/usr/lib/debug/.dwz/common"), "{links}");
        // Without it names are missing; with it the answers are those of the plain program.
        let expected = index(&plain);
        let inlined = |index: &Index| {
            let one = expected.functions().find(|f| f.symbol == "twin").unwrap();
            (0..one.size)
                .map(|i| index.inlined(Vaddr(one.address.0 + i)).iter().map(|f| f.name.clone()).collect())
                .collect()
        };
        let names: Vec<Vec<String>> = inlined(&expected);
        assert!(names.iter().any(|names| *names == ["inlined", "twin"]));
        assert_ne!(names, inlined(&index(&copies[0])), "{version} {flags:?}: it was not needed");
        // By its path in the target's root, then by its build id.
        let root = dir.path().join("root");
        let place = root.join("usr/lib/debug/.dwz/common");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(folder.join(".dwz/common"), &place).unwrap();
        let in_root = DebugSearch { path: Some("/bin/a".into()), roots: vec![root], ..DebugSearch::default() };
        assert_eq!(names, inlined(&Index::with_debug(open(&copies[0]), &in_root).unwrap()), "{version} {flags:?}");
        // In the manner of DWARF 5 it has a checksum and no build id.
        let Some(id) = debugfile::build_id_of(&place) else {
            assert_eq!(flags, ["--dwarf-5"]);
            continue;
        };
        let by_id = build_ids.join(&id[..2]).join(format!("{}.debug", &id[2..]));
        std::fs::create_dir_all(by_id.parent().unwrap()).unwrap();
        std::fs::copy(&place, &by_id).unwrap();
        let by_id = DebugSearch { folders: vec![folder.clone()], ..search(&copies[0]) };
        assert_eq!(names, inlined(&Index::with_debug(open(&copies[0]), &by_id).unwrap()), "{version} {flags:?}");
    }
}

#[test]
fn links_in_another_root_lead_nowhere_outside_it() {
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path(), &[]);
    let (stripped, debug) = (dir.path().join("stripped"), dir.path().join("debug-file"));
    objcopy(&["--only-keep-debug"], &program, &debug);
    objcopy(&["--strip-all"], &program, &stripped);
    let id = debugfile::build_id_of(&debug).unwrap();
    let root = dir.path().join("root");
    let place = root.join(format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let search =
        DebugSearch { path: Some("/bin/stripped".into()), roots: vec![root.clone()], ..DebugSearch::default() };
    let used = || Index::with_debug(open(&stripped), &search).unwrap().debug_report().used.clone();
    // The file is outside: no way leads there.
    let up = format!("{}{}", "../".repeat(32), debug.strip_prefix("/").unwrap().display());
    for target in [&debug, Path::new(&up)] {
        symlink(target, &place).unwrap();
        assert!(std::fs::metadata(&place).is_ok(), "the link works from here");
        assert_eq!(used(), None, "{}", target.display());
        std::fs::remove_file(&place).unwrap();
    }
    // What they mean to the target.
    std::fs::create_dir_all(root.join("store")).unwrap();
    std::fs::copy(&debug, root.join("store/file")).unwrap();
    for target in ["/store/file", "../../../../../../../../store/file"] {
        symlink(target, &place).unwrap();
        assert_eq!(used(), Some(place.clone()), "{target}");
        std::fs::remove_file(&place).unwrap();
    }
    // Nothing is opened that could block.
    common::run(Command::new("mkfifo").arg(&place));
    assert_eq!(used(), None);
}

/// Addresses by `objdump -d`: name → address of what ends in `@plt`, for those that call functions.
fn objdump_stubs(program: &Path) -> BTreeMap<String, u64> {
    let dump = common::run(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(program));
    let parse = |line: &str| {
        let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
        let is_stub = name.ends_with("@plt") && !name.starts_with('*');
        is_stub.then(|| (name.to_owned(), u64::from_str_radix(address, 16).unwrap()))
    };
    dump.lines().filter_map(parse).collect()
}

#[test]
fn stubs_are_those_of_objdump() {
    let gold = ["-fuse-ld=gold"];
    let lazy_ibt = ["-Wl,-z,lazy", "-Wl,-z,ibtplt", "-fcf-protection=full"];
    let flags = [
        &["-Wl,-z,lazy"][..],
        &["-Wl,-z,now"],
        &lazy_ibt,
        &["-Wl,-z,now", "-Wl,-z,ibtplt"],
        &["-no-pie"],
        &["-fno-plt"],
        &gold,
    ];
    let mut sections = Vec::new();
    for flags in flags {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), flags);
        let stripped = dir.path().join("stripped");
        objcopy(&["--strip-all"], &program, &stripped);
        let expected = objdump_stubs(&program);
        assert!(expected.contains_key("abort@plt") || flags == ["-fno-plt"], "{flags:?} {expected:?}");
        for index in [index(&program), index(&stripped)] {
            let stubs = index.functions().filter(|f| f.left_out == Some(LeftOut::PltStub));
            let found: BTreeMap<String, u64> = stubs.map(|f| (f.name.to_owned(), f.address.0)).collect();
            assert_eq!(found, expected, "{flags:?}");
            for (name, address) in &expected {
                let selection = index.select(&[name.parse().unwrap()], false);
                let [only] = &*selection.matches else { panic!("{selection:?}") };
                let Matched::Function(id) = only.what else { panic!("{only:?}") };
                assert_eq!((index.function(id).address.0, &only.name), (*address, name));
            }
            let everything = index.select(&["*".parse().unwrap()], false);
            assert!(everything.matches.iter().all(|m| !m.name.ends_with("@plt")));
            let left_out = everything.left_out.iter().filter(|(_, why)| *why == LeftOut::PltStub).count();
            assert_eq!(left_out, expected.len());
            // The function of that name is another file's.
            assert_eq!(index.select(&["abort".parse().unwrap()], true).unmatched, [0]);
        }
        sections.push(common::run(Command::new("readelf").arg("-SW").arg(&program)));
    }
    for kind in [" .plt ", " .plt.sec ", " .plt.got "] {
        assert!(sections.iter().any(|s| s.contains(kind)), "no{kind}was tested");
    }
}

#[test]
fn stubs_of_a_cpp_library_have_demangled_names() {
    let dir = tempfile::tempdir().unwrap();
    let program = common::cpp_program(dir.path());
    let index = index(&program);
    let expected = objdump_stubs(&program);
    let flush = expected.keys().find(|name| name.starts_with("_ZNSt")).unwrap();
    let by_symbol = index.select(&[flush.parse().unwrap()], false);
    let shown = &by_symbol.matches[0].name;
    assert!(shown.starts_with("std::") && shown.ends_with("@plt"), "{shown}");
    let by_name = index.select(&[shown.parse().unwrap()], false);
    assert_eq!(by_name.matches.len(), by_symbol.matches.len());
    assert_eq!(by_name.matches[0].what, by_symbol.matches[0].what);
}

/// Oracle: `dlsym` of the loader that runs this test.
#[test]
fn an_ifunc_means_what_its_resolver_chose_once_a_process_shows_it() {
    let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    let mut index = index(libc);
    let nothing = index.select(&["strlen".parse().unwrap()], false);
    assert!(nothing.matches.is_empty() && nothing.left_out.len() == 1);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    // The index has mapped the file too, but not to run it.
    let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/libc.so.6")).unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let offset = hex(code.split(' ').nth(2).unwrap());
    let base = hex(code.split('-').next().unwrap()) - open(libc).vaddr(FileOffset(offset)).unwrap().0;
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    index.learn_ifuncs(|place| {
        let mut word = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut word, base + place.0).unwrap();
        Some(Vaddr(u64::from_le_bytes(word).wrapping_sub(base)))
    });
    for (name, oracle) in [("strlen", libc::strlen as *const () as u64), ("memcpy", libc::memcpy as *const () as u64)] {
        let selection = index.select(&[name.parse().unwrap()], false);
        let at = |what: &Matched| match what {
            Matched::Function(id) => index.function(*id).address.0,
            Matched::Point { .. } => panic!("a point"),
        };
        let chosen = selection.matches.iter().find(|m| m.name.starts_with(&format!("{name} (IFUNC: ")));
        let chosen = chosen.unwrap_or_else(|| panic!("{name}: {selection:?}"));
        assert_eq!(at(&chosen.what), oracle - base, "{chosen:?}");
    }
}
