//! Separate debug files: symbols, lines and inlined functions of stripped programs, compared with the unstripped twin.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;
#[path = "common/debug.rs"]
mod debug;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use debug::{objcopy, open, search};
use symbols::addr::Vaddr;
use symbols::debugfile::DebugSearch;
use symbols::index::{Index, LeftOut, Matched};

const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int innermost(int x) { return x * atoi("3"); }
static __attribute__((noinline)) int hidden(int x) {
    if (__builtin_expect(x == 77, 0)) abort();
    return innermost(x) + 1;
}
int main(int argc, char **argv) {
    printf("%d\n", hidden(argc) + innermost(2));
    return 0;
}
"#;

/// A program with debug information; `flags` beside `-O2 -g`.
fn program(dir: &Path, flags: &[&str]) -> PathBuf {
    let (source, program) = (dir.join("program.c"), dir.join("program"));
    std::fs::write(&source, PROGRAM).unwrap();
    common::run(
        Command::new("gcc").current_dir(dir).args(["-O2", "-g"]).args(flags).arg("-o").arg(&program).arg("program.c"),
    );
    program
}

fn names(index: &Index) -> BTreeMap<u64, (String, u64)> {
    let named = index.functions().filter(|f| f.left_out != Some(LeftOut::Nameless));
    named.map(|f| (f.address.0, (f.symbol.to_owned(), f.size))).collect()
}

/// The stripped program with its debug file says the same as the unstripped one.
fn answers_as(full: &Path, stripped: &Index) {
    let full = Index::new(open(full)).unwrap();
    let mut expected = names(&full);
    // Symbols without a type, which the linker made (`_init`), may be known by `.dynsym` or not at all.
    expected.retain(|_, (_, size)| *size > 0);
    let found = names(stripped);
    assert!(expected.iter().all(|(address, name)| found.get(address) == Some(name)), "{expected:#?}\n{found:#?}");
    let mut inlined = 0;
    for function in full.functions() {
        for address in (0..function.size).map(|i| Vaddr(function.address.0 + i)) {
            assert_eq!(full.line(address), stripped.line(address), "{address}");
            assert_eq!(full.inlined(address), stripped.inlined(address), "{address}");
            inlined += usize::from(full.inlined(address).len() > 1);
        }
    }
    assert!(inlined > 10);
}

fn build_id(path: &Path) -> String {
    let notes = common::run(Command::new("readelf").arg("-n").arg(path));
    notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// `program` without symbols, and its debug file as objcopy or eu-strip makes it.
fn split_off(dir: &Path, program: &Path, with_eu_strip: bool) -> (PathBuf, PathBuf) {
    let (stripped, debug) = (dir.join("stripped"), dir.join("debug-file"));
    if with_eu_strip {
        common::run(Command::new("eu-strip").arg("-f").arg(&debug).arg("-o").arg(&stripped).arg(program));
    } else {
        objcopy(&["--only-keep-debug"], program, &debug);
        objcopy(&["--strip-all"], program, &stripped);
    }
    (stripped, debug)
}

#[test]
fn a_debug_file_is_found_by_build_id_in_folders_caches_and_other_roots() {
    for with_eu_strip in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), &[]);
        let (stripped, debug) = split_off(dir.path(), &program, with_eu_strip);
        let id = build_id(&program);
        let inner = format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
        let cached = format!("cache/{id}/debuginfo");
        for place in [&inner, &cached] {
            let place = dir.path().join(place);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(&debug, place).unwrap();
        }
        let in_folder = DebugSearch { folders: vec![dir.path().join("usr/lib/debug")], ..search(&stripped) };
        let in_cache = DebugSearch { caches: vec![dir.path().join("cache")], ..search(&stripped) };
        let in_root = DebugSearch {
            path: Some("/bin/stripped".into()),
            roots: vec![dir.path().join("nowhere"), dir.path().to_owned()],
            ..DebugSearch::default()
        };
        for (search, place) in [(in_folder, &inner), (in_cache, &cached), (in_root, &inner)] {
            let index = Index::with_debug(open(&stripped), &search).unwrap();
            assert_eq!(index.debug_report().used, Some(dir.path().join(place)));
            assert!(!index.is_stripped());
            answers_as(&program, &index);
        }
    }
}

#[test]
fn a_debug_link_is_followed_beside_the_file_and_in_folders() {
    for flags in [&[][..], &["-Wl,--build-id=none"]] {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), flags);
        let (stripped, debug) = split_off(dir.path(), &program, false);
        let linked = dir.path().join("linked");
        objcopy(&[&format!("--add-gnu-debuglink={}", debug.display())], &stripped, &linked);
        let global = dir.path().join("global");
        let mirrored = global.join(dir.path().strip_prefix("/").unwrap());
        for folder in [dir.path().to_owned(), dir.path().join(".debug"), mirrored] {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::rename(dir.path().join("debug-file"), folder.join("debug-file")).unwrap_or_default();
            let moved = folder.join("debug-file");
            let search = DebugSearch { folders: vec![global.clone()], ..search(&linked) };
            let index = Index::with_debug(open(&linked), &search).unwrap();
            assert_eq!(index.debug_report().used.as_ref(), Some(&moved));
            answers_as(&program, &index);
            std::fs::rename(&moved, dir.path().join("debug-file")).unwrap();
        }
    }
}

#[test]
fn a_debug_file_of_another_build_is_not_used_and_the_report_says_where_was_looked() {
    let dir = tempfile::tempdir().unwrap();
    let program_file = program(dir.path(), &[]);
    let (stripped, debug) = split_off(dir.path(), &program_file, false);
    let linked = dir.path().join("linked");
    objcopy(&[&format!("--add-gnu-debuglink={}", debug.display())], &stripped, &linked);
    let other = program(dir.path(), &["-DOTHER", "-O1"]);
    objcopy(&["--only-keep-debug"], &other, &debug);
    let index = Index::with_debug(open(&linked), &search(&linked)).unwrap();
    let report = index.debug_report();
    assert_eq!(report.used, None);
    assert!(report.missing.contains(&debug), "{report:?}");
    assert_eq!(report.build_id.as_deref(), Some(build_id(&linked).as_str()));
    assert!(index.is_stripped());
}

#[test]
fn mini_debuginfo_names_functions() {
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path(), &[]);
    let (mini, stripped) = (dir.path().join("mini"), dir.path().join("stripped"));
    objcopy(&["--strip-debug", "--remove-section=.rodata"], &program, &mini);
    common::run(Command::new("xz").arg("-k").arg(&mini));
    objcopy(&["--strip-all"], &program, &dir.path().join("bare"));
    let section = format!("--add-section=.gnu_debugdata={}", dir.path().join("mini.xz").display());
    objcopy(&[&section], &dir.path().join("bare"), &stripped);
    let index = Index::with_debug(open(&stripped), &search(&stripped)).unwrap();
    assert!(index.debug_report().mini);
    let mut expected = names(&Index::new(open(&program)).unwrap());
    expected.retain(|_, (_, size)| *size > 0);
    let found = names(&index);
    assert!(expected.iter().all(|(address, name)| found.get(address) == Some(name)), "{expected:#?}\n{found:#?}");
    let selection = index.select(&["hidden".parse().unwrap()], false);
    assert_eq!(selection.matches.len(), 1);
}

/// What prelink did, and what a linker does that puts the same code elsewhere: the debug file has the old addresses. In one
/// case all sections were moved by as much, in the other one section by itself.
#[test]
fn addresses_of_a_debug_file_are_those_of_its_own_sections() {
    let id = "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567";
    for (moved, others) in [("-Wl,-Ttext-segment=0x10000000", true), ("-Wl,--section-start=.text=0x20000000", false)] {
        let dir = tempfile::tempdir().unwrap();
        let debug = dir.path().join("debug-file");
        let first = program(dir.path(), &["-no-pie", id]);
        objcopy(&["--only-keep-debug"], &first, &debug);
        let before = names(&Index::new(open(&first)).unwrap());
        let after = program(dir.path(), &["-no-pie", id, moved]);
        let address = |names: &BTreeMap<u64, (String, u64)>, wanted: &str| {
            names.iter().find(|(_, (name, _))| name == wanted).map(|(address, _)| *address).unwrap()
        };
        let now = names(&Index::new(open(&after)).unwrap());
        assert_ne!(address(&before, "main"), address(&now, "main"));
        assert_eq!(address(&before, "_init") != address(&now, "_init"), others);
        for stripper in ["objcopy", "eu-strip"] {
            let stripped = dir.path().join(stripper);
            if stripper == "objcopy" {
                objcopy(&["--strip-all", &format!("--add-gnu-debuglink={}", debug.display())], &after, &stripped);
            } else {
                let link = ["-o".as_ref(), stripped.as_os_str(), "-f".as_ref(), dir.path().join("unused").as_os_str()]
                    .map(std::ffi::OsStr::to_owned);
                common::run(Command::new("eu-strip").args(link).arg(&after));
                std::fs::create_dir_all(dir.path().join("by-id/.build-id/01")).unwrap();
                let place = dir.path().join("by-id/.build-id/01/23456789abcdef0123456789abcdef01234567.debug");
                std::fs::copy(&debug, place).unwrap();
            }
            let search = DebugSearch { folders: vec![dir.path().join("by-id")], ..search(&stripped) };
            let index = Index::with_debug(open(&stripped), &search).unwrap();
            assert!(index.debug_report().used.is_some(), "{:?}", index.debug_report());
            answers_as(&after, &index);
        }
    }
}

/// Debian's libc6-dbg: the symbols and lines of the C library.
#[test]
fn the_c_library_finds_its_debug_file() {
    let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    let index = Index::with_debug(open(libc), &DebugSearch { path: Some(libc.to_owned()), ..DebugSearch::default() });
    let index = index.unwrap();
    assert!(index.debug_report().used.is_some(), "libc6-dbg is needed: {:?}", index.debug_report());
    // Not exported.
    let selection = index.select(&["_int_malloc".parse().unwrap()], false);
    let [found] = &*selection.matches else { panic!("{selection:?}") };
    let Matched::Function(id) = found.what else { panic!("{found:?}") };
    let line = index.line(index.function(id).address).unwrap();
    assert!(line.file.ends_with("malloc/malloc.c"), "{line:?}");
}

#[test]
fn functions_of_a_stripped_program_are_known_by_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path(), &[]);
    let stripped = dir.path().join("stripped");
    objcopy(&["--strip-all"], &program, &stripped);
    let full = Index::new(open(&program)).unwrap();
    let index = Index::with_debug(open(&stripped), &search(&stripped)).unwrap();
    // Oracle: the unwind tables as readelf shows them.
    let frames = common::run(Command::new("readelf").args(["--debug-dump=frames"]).arg(&program));
    let ranges = frames.lines().filter_map(|line| line.split_once(" FDE ")?.1.split_once("pc=")?.1.split_once(".."));
    let ranges = ranges.map(|(start, end)| [start, end].map(|n| u64::from_str_radix(n.trim(), 16).unwrap()));
    let ranges: Vec<[u64; 2]> = ranges.collect();
    let mut compared = 0;
    for function in full.functions().filter(|f| f.size > 0 && ["main", "hidden", "_start"].contains(&f.symbol)) {
        let found = index.at(function.address).unwrap();
        assert_eq!((found.address, found.left_out), (function.address, Some(LeftOut::Nameless)));
        assert!(ranges.contains(&[found.address.0, found.address.0 + found.size]), "{found:?}");
        assert_eq!(found.name, format!("stripped+{:#x}", found.address.0));
        assert!(!index.starts_function(found.address));
        for pattern in [format!("{:#x}", found.address.0), found.name.to_owned()] {
            let selection = index.select(&[pattern.parse().unwrap()], false);
            assert_eq!(selection.matches.len(), 1, "{pattern}");
            assert_eq!(selection.matches[0].what, Matched::Function(found.id));
        }
        compared += 1;
    }
    assert_eq!(compared, 3);
    assert!(index.select(&["*".parse().unwrap()], false).left_out.iter().any(|(_, why)| *why == LeftOut::Nameless));
    let all = index.select(&["*".parse().unwrap()], true).matches;
    let plt = |v: u64| index.binary().in_plt(Vaddr(v));
    let wanted = ranges.iter().filter(|r| !plt(r[0])).count();
    assert_eq!(all.iter().filter(|m| m.name.starts_with("stripped+")).count(), wanted);
    for pattern in ["stripped+*", r"/^stripped\+0x/", "/0x/"] {
        assert_eq!(index.select(&[pattern.parse().unwrap()], true).matches.len(), wanted, "{pattern}");
    }
    // All are in order of address.
    let addresses: Vec<Vaddr> = index.functions().map(|function| function.address).collect();
    assert_eq!(addresses.len(), index.len());
    assert!(addresses.is_sorted(), "{addresses:?}");
}

/// The functions are in `.dwo` files, then in a package, then in a package beside a stripped program's debug file.
#[test]
fn split_debug_information_is_found_in_objects_and_packages() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let dir = tempfile::tempdir().unwrap();
        let plain_dir = dir.path().join("plain");
        std::fs::create_dir_all(&plain_dir).unwrap();
        let path = program(dir.path(), &[version, "-gsplit-dwarf", "-fdebug-prefix-map=/nothing=/"]);
        let skeleton = Index::new(open(&path)).unwrap();
        let main = skeleton.functions().find(|f| f.symbol == "hidden").unwrap();
        let addresses = || (0..main.size).map(|i| Vaddr(main.address.0 + i));
        let inlined = |index: &Index| addresses().filter(|v| index.inlined(*v).len() > 1).count();
        assert_eq!(inlined(&skeleton), 0, "nothing is read unless asked for");
        let object = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        let object = object.into_iter().find(|p| p.extension().is_some_and(|e| e == "dwo")).unwrap();
        let by_object = Index::with_debug(open(&path), &search(&path)).unwrap();
        assert!(inlined(&by_object) > 3);
        for v in addresses() {
            let oracle =
                common::run(Command::new("llvm-symbolizer").arg("--obj").arg(&path).arg(format!("{:#x}", v.0)));
            let lines: Vec<&str> = oracle.trim().lines().collect();
            let ours: Vec<String> = by_object
                .inlined(v)
                .iter()
                .flat_map(|f| {
                    let place = f.source.map_or("??:0".to_owned(), |s| format!("{}:{}", s.file, s.line));
                    [f.name.clone(), place]
                })
                .collect();
            let theirs = lines.chunks(2).flat_map(|pair| [pair[0], pair[1].rsplit_once(':').unwrap().0]);
            let theirs: Vec<&str> = theirs.collect();
            if theirs[1].ends_with(":0") {
                continue;
            }
            assert_eq!(ours, theirs, "{version} {v}");
        }
        // A package made by dwp, which then is all there is.
        let package = dir.path().join("program.dwp");
        common::run(Command::new("llvm-dwp").arg(&object).arg("-o").arg(&package));
        std::fs::remove_file(&object).unwrap();
        let by_package = Index::with_debug(open(&path), &search(&path)).unwrap();
        for v in addresses() {
            assert_eq!(by_package.inlined(v), by_object.inlined(v), "{version} {v}");
        }
        // An object of another build is no use.
        std::fs::remove_file(&package).unwrap();
        let other = dir.path().join("other");
        std::fs::create_dir_all(&other).unwrap();
        program(&other, &[version, "-gsplit-dwarf", "-DOTHER", "-O1"]);
        let foreign = std::fs::read_dir(&other).unwrap().map(|e| e.unwrap().path());
        let foreign = foreign.into_iter().find(|p| p.extension().is_some_and(|e| e == "dwo")).unwrap();
        std::fs::copy(foreign, &object).unwrap();
        assert_eq!(inlined(&Index::with_debug(open(&path), &search(&path)).unwrap()), 0);
    }
}
