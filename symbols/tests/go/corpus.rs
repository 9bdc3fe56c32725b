//! Large programs of Go that nobody here wrote (`testdata/corpus.sh`).

use std::path::Path;

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::{Index, Language};

use crate::cells::Stripping;
use crate::{cells, common, functions, places};

/// The functions and lines of `name`, against those of an unstripped `twin`, which was built by Go 1.27.
fn agrees_with_twin(name: &str, twin: &str, stripping: Stripping, has_dwarf: bool) {
    let (twin, index) = (common::corpus(twin), cells::read(&common::corpus(name)));
    let odd = functions::differences("go1.27", &index, stripping, &functions::nm(&twin));
    assert!(odd.is_empty(), "{name}: {} differ:\n{}", odd.len(), odd.join("\n"));
    let oracle = places::Oracle::of("go1.27", &twin, has_dwarf);
    let odd = oracle.differences(&index);
    assert!(odd.is_empty(), "{name}: {} differ:\n{}", odd.len(), odd.join("\n"));
}

#[test]
fn the_go_compiler_without_debug_information() {
    agrees_with_twin("go-compile", "go-compile", Stripping::Nothing, false);
}

#[test]
fn a_program_linked_with_c() {
    agrees_with_twin("go-dwarf5", "go-dwarf5", Stripping::Nothing, true);
}

/// Go's linker took them in from object files. Stripped of their symbols, Go's table has their names.
#[test]
fn functions_of_c_in_go_code_are_c_with_and_without_symbols() {
    let path = common::corpus("go-dwarf5");
    let (whole, bare) = (cells::read(&path), cells::index(&path, Stripping::Strip));
    let go = whole.binary().go().unwrap().text_range(whole.binary());
    let c = whole.functions().filter(|f| f.language == Language::C && go.contains(&f.address)).collect::<Vec<_>>();
    assert!(c.len() > 25, "{}", c.len());
    for function in &c {
        let found = bare.at(function.address).unwrap_or_else(|| panic!("{} is gone", function.name));
        assert_eq!((found.address, found.symbol, found.language), (function.address, function.symbol, Language::C));
        let next = bare.functions().find(|f| f.address > found.address).unwrap().address;
        assert!(found.size >= function.size && found.address.0 + found.size == next.0, "{}", function.name);
    }
}

#[test]
fn a_program_linked_by_gcc() {
    agrees_with_twin("go-extld", "go-extld", Stripping::Nothing, true);
}

#[test]
fn a_stripped_position_independent_program() {
    agrees_with_twin("go-pie-s", "go-pie", Stripping::Flags, true);
}

/// Stripped programs against Go's own reader of function tables.
fn agrees_with_gosym(name: &str, at_least: usize) {
    let path = common::corpus(name);
    let gosym = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/gosym");
    let listed = common::run(common::go(&gosym).args(["run", "main.go"]).arg(&path));
    let lines: Vec<&str> = listed.lines().collect();
    let index = cells::read(&path);
    let mut odd = Vec::new();
    for function in lines.chunks_exact(3) {
        let words: Vec<&str> = function[0].splitn(3, ' ').collect();
        let [start, end] = [words[0], words[1]].map(|word| u64::from_str_radix(word, 16).unwrap());
        odd.extend(difference(&index, start, end, words[2], &function[1..]));
    }
    assert!(odd.is_empty(), "{name}: {} differ:\n{}", odd.len(), odd.join("\n"));
    let ours = index.functions().filter(|f| f.language == Language::Go).count();
    assert_eq!(ours, lines.len() / 3, "{name}");
    assert!(ours >= at_least, "{name}: {ours}");
}

fn difference(index: &Index, start: u64, end: u64, name: &str, lines: &[&str]) -> Option<String> {
    if functions::is_one_byte_mark(name) {
        return (!index.starts_function(Vaddr(start))).then(|| format!("{start:#x}: {name} is missing"));
    }
    let Some(function) = index.at(Vaddr(start)).filter(|f| f.address.0 == start) else {
        return Some(format!("{start:#x}: {name} is missing"));
    };
    if function.symbol != name {
        return Some(format!("{start:#x}: {} is {name}", function.symbol));
    }
    // What lies between a function's end and the next function is padding: int3, which no code runs into.
    let gap = (start + function.size..end).map(|at| index.binary().bytes_at(Vaddr(at), 1).map(|b| b[0]));
    if function.size == 0 || gap.into_iter().any(|byte| byte != Some(0xcc)) {
        return Some(format!("{start:#x}: {name} does not end at {:#x}", start + function.size));
    }
    let line = |at: u64| index.line(Vaddr(at)).map_or(":0".to_owned(), |l| format!("{}:{}", l.file, l.line));
    let middle = start + (end - start) / 2;
    let ours = [line(start), if middle < start + function.size { line(middle) } else { lines[1].to_owned() }];
    (ours != lines).then(|| format!("{start:#x}: {name}: {ours:?} is {lines:?}"))
}

#[test]
fn esbuild() {
    agrees_with_gosym("esbuild", 8_900);
    // Its build info was taken out: all else goes without.
    assert_eq!(Binary::open(&common::corpus("esbuild")).unwrap().go().unwrap().version(), None);
}

#[test]
fn hugo() {
    agrees_with_gosym("hugo", 88_000);
}

#[test]
fn etcd() {
    agrees_with_gosym("etcd", 26_000);
}
