//! The forms of patterns, each with a table: patterns, and the names of exactly those functions that they match, in programs
//! whose sources are beside this file. That each match is where its name is, `nm` and `go tool nm` say.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

#[path = "../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::{Index, LeftOut, Matched, Selection};
use symbols::pattern::Pattern;

/// A program, and its symbols by address as the oracle has them.
struct Program {
    path: PathBuf,
    index: Index,
    symbols: BTreeMap<u64, BTreeSet<String>>,
}

struct Programs {
    _dir: tempfile::TempDir,
    go: Program,
    legacy: Program,
    v0: Program,
    cpp: Program,
    c: Program,
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forms/sources");
    Programs {
        go: go(&sources, dir.path()),
        legacy: rust(&sources, dir.path(), "legacy"),
        v0: rust(&sources, dir.path(), "v0"),
        cpp: cpp(&sources, dir.path()),
        c: c(&sources, dir.path()),
        _dir: dir,
    }
});

fn index(path: &Path) -> Index {
    let search = DebugSearch { path: Some(path.to_owned()), folders: Vec::new(), ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::open(path).unwrap()), &search).unwrap()
}

fn go(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("go");
    common::run(common::go(&sources.join("go")).args(["build", "-o"]).arg(&path).arg("."));
    let text = common::run(Command::new(common::go_tool()).args(["tool", "nm"]).arg(&path).env("GOTOOLCHAIN", "local"));
    // Names may have spaces in them.
    let symbol = |line: &str| {
        let (address, rest) = line.trim().split_once(' ')?;
        let name = rest.strip_prefix("T ").or(rest.strip_prefix("t "))?;
        Some((address.to_owned(), name.to_owned()))
    };
    Program { index: index(&path), symbols: by_address(text.lines().filter_map(symbol)), path }
}

fn rust(sources: &Path, dir: &Path, mangling: &str) -> Program {
    let path = dir.join(mangling);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2021", "-O", "-Zunstable-options"]).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
    rustc.arg(format!("-Csymbol-mangling-version={mangling}"));
    common::run(rustc.arg("-o").arg(&path).arg(sources.join("names.rs")));
    elf(path)
}

fn cpp(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("cpp");
    common::run(Command::new("g++").args(["-std=c++17", "-O0", "-g", "-o"]).arg(&path).arg(sources.join("names.cc")));
    elf(path)
}

fn c(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("libforms.so");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(sources).args(["-shared", "-fPIC", "-O2", "-g", "-Wl,--version-script=versions.map", "-o"]);
    common::run(gcc.arg(&path).args(["lib.c", "one.c", "two.c"]));
    elf(path)
}

fn elf(path: PathBuf) -> Program {
    let text = common::run(Command::new("nm").args(["--defined-only"]).arg(&path));
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    Program { index: index(&path), symbols: by_address(text.lines().filter_map(symbol)), path }
}

fn by_address(symbols: impl Iterator<Item = (String, String)>) -> BTreeMap<u64, BTreeSet<String>> {
    let mut all: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (address, name) in symbols {
        all.entry(u64::from_str_radix(&address, 16).unwrap()).or_default().insert(name);
    }
    all
}

fn select(program: &Program, patterns: &[&str], all: bool) -> Selection {
    let patterns: Vec<Pattern> = patterns.iter().map(|p| p.parse().unwrap_or_else(|e| panic!("{p}: {e}"))).collect();
    program.index.select(&patterns, all)
}

/// The names of what matched, as often as they did, in order.
fn names(program: &Program, selection: &Selection) -> Vec<String> {
    for found in &selection.matches {
        if let Matched::Function(id) = found.what {
            let (address, symbol) = (program.index.function(id).address, program.index.symbol(id));
            let known = &program.symbols[&address.0];
            assert!(known.contains(symbol) || known.contains(&format!("{symbol}.abi0")), "{symbol}: {known:?}");
        }
    }
    let mut names: Vec<String> = selection.matches.iter().map(|found| found.name.clone()).collect();
    names.sort();
    names
}

/// A table: one pattern in each row.
fn check(program: &Program, rows: &[(&str, &[&str])]) {
    for (pattern, expected) in rows {
        let selection = select(program, &[pattern], false);
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(names(program, &selection), expected, "{pattern}");
        assert_eq!(selection.unmatched.is_empty(), !expected.is_empty(), "{pattern}");
    }
}

/// Whether all that a pattern matches was named exactly or by a tail.
fn is_exact(program: &Program, pattern: &str) -> bool {
    let matches = select(program, &[pattern], false).matches;
    assert!(!matches.is_empty(), "{pattern}");
    matches.iter().all(|found| found.exact)
}

const PUSH: [&str; 2] = ["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"];
const GEN: [&str; 3] = ["main.Gen[go.shape.int]", "main.Gen[go.shape.string]", "main.Gen[go.shape.struct {}]"];
const ALL_FUNC1: [&str; 2] = ["main.(*List[go.shape.int]).All.func1", "main.(*List[go.shape.string]).All.func1"];

#[test]
fn exact_names_of_go() {
    check(
        &PROGRAMS.go,
        &[
            ("main.(*Store).Get", &["main.(*Store).Get"]),
            (r"main.(\*Store).Get", &["main.(*Store).Get"]),
            (r"main\.\(\*Store\)\.Get", &["main.(*Store).Get"]),
            ("main.Store.Len", &["main.Store.Len"]),
            ("main.(*Store).Get-fm", &["main.(*Store).Get-fm"]),
            // The last element of a package's path, as the linker escapes it and as it is written.
            ("example.com/ge.v2/foo%2ev1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("example.com/ge.v2/foo.v1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("example.com/ge.v2/foo.v1.(*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            (r"example.com/ge.v2/foo.v1.(\*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("example.com/ge%2ev2/foo.v1.F", &[]),
            ("main.Größe", &["main.Größe"]),
            // Type arguments: as the table has them, as they are written, abridged, left out.
            ("main.(*List[go.shape.int]).Push", &PUSH[..1]),
            ("main.(*List[int]).Push", &PUSH[..1]),
            ("main.(*List[...]).Push", &PUSH),
            ("main.(*List).Push", &PUSH),
            ("main.Gen[go.shape.struct {}]", &GEN[2..]),
            ("main.Gen[struct {}]", &GEN[2..]),
            ("main.Gen[...]", &GEN),
            ("main.Gen", &GEN),
            ("main.Gen[float64]", &[]),
            ("main.Pair[string,int].Swap", &["main.Pair[go.shape.string,go.shape.int].Swap"]),
            ("main.Pair.Swap", &["main.Pair[go.shape.string,go.shape.int].Swap"]),
            // Closures, in generic methods too; bodies of loops over functions; what `go` starts.
            ("main.closures.func1", &["main.closures.func1"]),
            ("main.closures.func1.1", &["main.closures.func1.1"]),
            ("main.(*List[...]).All.func1", &ALL_FUNC1),
            ("main.(*List).All.func1", &ALL_FUNC1),
            ("main.ranged", &["main.ranged"]),
            ("main.ranged-range1", &["main.ranged-range1"]),
            ("main.ranged-range1.1", &["main.ranged-range1.1"]),
            ("main.main.gowrap1", &["main.main.gowrap1"]),
            ("main.init.0", &["main.init.0"]),
            ("main.init.func1", &["main.init.func1"]),
            ("main.(*Store).get", &[]),
            ("main.nothing", &[]),
        ],
    );
    assert!(is_exact(&PROGRAMS.go, "main.ranged") && is_exact(&PROGRAMS.go, "(*Store).Get"));
}

const ORDER: &str = "shop::Order";
const STRING: &str = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";

#[test]
fn exact_names_of_cpp() {
    let order = |name: &str| format!("{ORDER}::{name}");
    let strings = format!("shop::Stack<{STRING} >::push");
    let convert = order(&format!("operator {STRING}"));
    // Each operator is its own name.
    for operator in ["operator()", "operator<", "operator==", "operator->", "operator[]", "operator int", "operator+="]
    {
        check(&PROGRAMS.cpp, &[(&order(operator), &[&order(operator)])]);
    }
    for operator in ["operator new", "operator new[]", "operator delete", "operator delete[]"] {
        check(&PROGRAMS.cpp, &[(&order(operator), &[&order(operator)])]);
    }
    check(
        &PROGRAMS.cpp,
        &[
            ("shop::over", &["shop::over", "shop::over"]),
            ("shop::over(int)", &["shop::over"]),
            ("shop::over(int, char const*)", &["shop::over"]),
            ("shop::over(int,char const*)", &["shop::over"]),
            ("shop::over(long)", &[]),
            ("shop::Order::price(int)", &["shop::Order::price"]),
            ("shop::Order::price(int) const", &["shop::Order::price"]),
            // Each of the two constructors once, whatever number of symbols they have; the deleting destructor is one.
            ("shop::Order::Order", &["shop::Order::Order", "shop::Order::Order"]),
            ("shop::Order::Order(int)", &["shop::Order::Order"]),
            ("shop::Order::Order(std::string)", &["shop::Order::Order"]),
            ("shop::Order::~Order", &["shop::Order::~Order", "shop::Order::~Order"]),
            ("shop::Order::operator()(int)", &["shop::Order::operator()"]),
            ("shop::Order::operator<(shop::Order const&)", &["shop::Order::operator<"]),
            ("shop::Order::operator new[](unsigned long)", &["shop::Order::operator new[]"]),
            ("shop::Order::operator std::string", &[&convert]),
            ("shop::Order::operator std::string() const", &[&convert]),
            ("shop::operator<<", &["shop::operator<<"]),
            ("shop::operator<<(std::ostream&, shop::Order const&)", &["shop::operator<<"]),
            ("shop::operator\"\" _kg", &["shop::operator\"\" _kg"]),
            ("shop::operator\"\"_kg", &["shop::operator\"\" _kg"]),
            ("shop::Order::label(std::string const&)", &["shop::Order::label"]),
            ("shop::Order::count(std::vector<std::string> const&)", &["shop::Order::count"]),
            ("shop::each(int (*)(int))", &["shop::each"]),
            // Arguments of templates given, in part, or not.
            ("shop::scale<int, 3>", &["shop::scale<int, 3>"]),
            ("shop::scale<int>", &["shop::scale<int, 3>"]),
            ("shop::scale", &["shop::scale<int, 3>", "shop::scale<long, 2>"]),
            ("shop::Stack<int>::push", &["shop::Stack<int>::push"]),
            ("shop::Stack<std::string>::push", &[&strings]),
            ("shop::Stack<std::string>::push(std::string)", &[&strings]),
            ("shop::Stack::push", &["shop::Stack<int>::push", &strings]),
            ("std::vector<int>::push_back", &["std::vector<int, std::allocator<int> >::push_back"; 2]),
            ("shop::tagged", &["shop::tagged"]),
            ("shop::Box::open", &["shop::Box::open"]),
            ("(anonymous namespace)::hidden", &["(anonymous namespace)::hidden"]),
            ("(anonymous namespace)::Secret::tell()", &["(anonymous namespace)::Secret::tell"]),
            ("main::{lambda(int)#1}::operator()", &["main::{lambda(int)#1}::operator()"]),
            ("virtual thunk to shop::Order::weight()", &["virtual thunk to shop::Order::weight"]),
            ("plain", &["plain"]),
            // As the linker spells it: that symbol alone.
            ("_ZN4shop4overEi", &["shop::over"]),
            ("_ZN4shop5OrderC1Ei", &["shop::Order::Order"]),
            ("shop::Over", &[]),
        ],
    );
}

#[test]
fn exact_names_of_rust() {
    for (program, is_v0) in [(&PROGRAMS.legacy, false), (&PROGRAMS.v0, true)] {
        // The old mangling records what is generic, but not for what it was made.
        let only = |in_v0: usize, in_legacy: usize| if is_v0 { in_v0 } else { in_legacy };
        let of_trait = "<names::Square<u32> as names::Area>::area";
        check(
            program,
            &[
                (of_trait, &[of_trait]),
                ("<names::Square as names::Area>::area", &[of_trait]),
                ("names::Square<u32>::area", &[of_trait]),
                ("names::Square::area", &[of_trait]),
                ("<[u8] as names::Area>::area", &["<[u8] as names::Area>::area"]),
                ("<[u8]>::area", &["<[u8] as names::Area>::area"]),
                ("names::Guard::drop", &["<names::Guard as core::ops::drop::Drop>::drop"]),
                ("names::apply", &["names::apply"]),
                ("names::main", &["names::main"]),
                ("plain_c", &["plain_c"]),
                ("names::Apply", &[]),
            ],
        );
        for (pattern, count) in [
            ("names::Square::show", 2),
            ("<names::Square<T>>::show", only(0, 2)),
            ("names::Square<T>::show", only(0, 2)),
            ("names::Square<char>::show", only(1, 0)),
            ("<names::Square<char>>::show", only(1, 0)),
            ("names::deep::down::pair", 2),
            ("names::deep::down::pair::<u8, u32>", only(1, 0)),
            ("names::deep::down::pair<u8, u32>", only(1, 0)),
            ("names::main::{{closure}}", 1),
            ("names::main::{closure#0}", 1),
            ("names::main::{closure#7}", 1),
            ("<names::Square<u32> as names::Area>::twice", only(1, 0)),
            ("names::Area::twice", only(0, 1)),
            ("core::fmt::Formatter::pad", 1),
            ("std::rt::lang_start_internal", 1),
        ] {
            let matches = select(program, &[pattern], false).matches;
            assert_eq!(matches.len(), count, "{pattern}: {matches:#?}");
        }
        // Every mangled name finds its own function.
        for function in program.index.functions().filter(|f| f.name.contains("names::")) {
            let matches = select(program, &[function.symbol], false).matches;
            assert!(matches.iter().any(|m| m.what == Matched::Function(function.id)), "{}", function.symbol);
        }
    }
}

#[test]
fn exact_names_of_c() {
    check(
        &PROGRAMS.c,
        &[
            ("twice", &["twice"]),
            // Of two files.
            ("same", &["same", "same"]),
            // What was split off is meant by its own symbol only.
            ("same.cold", &["same", "same"]),
            ("twice.cold", &["twice"]),
            ("versioned", &["versioned", "versioned"]),
            ("versioned@V_1.0", &["versioned"]),
            ("versioned@@V_2.0", &["versioned"]),
            ("versioned@V_2.0", &["versioned"]),
            ("versioned@V_3", &[]),
            ("versioned_new", &["versioned_new"]),
            ("choose", &["choose"]),
            ("Twice", &[]),
        ],
    );
    let address = |pattern: &str| match select(&PROGRAMS.c, &[pattern], false).matches[0].what {
        Matched::Function(id) => PROGRAMS.c.index.function(id).address,
        Matched::Point { address, .. } => address,
    };
    assert_eq!(address("versioned@V_1.0"), address("versioned_old"));
    assert_eq!(address("versioned@V_2.0"), address("versioned_new"));
    // The symbol is the resolver's, and the library does not call what it chooses.
    let chosen = select(&PROGRAMS.c, &["chosen"], true);
    assert!(chosen.matches.is_empty() && chosen.left_out[0].1 == LeftOut::UncalledIfunc);
}

#[test]
fn tails_begin_at_a_separator() {
    check(
        &PROGRAMS.go,
        &[
            ("Get", &["main.(*Store).Get", "sync.(*Pool).Get"]),
            ("Store.Get", &["main.(*Store).Get"]),
            ("(*Store).Get", &["main.(*Store).Get"]),
            ("tore.Get", &[]),
            ("Store.Len", &["main.Store.Len"]),
            ("List.Push", &PUSH),
            ("(*List[...]).Push", &PUSH),
            ("List.All.func1", &ALL_FUNC1),
            ("foo.v1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("foo%2ev1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("ge.v2/foo.v1.(*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("Box.Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("internal/deep.Down", &["example.com/ge.v2/internal/deep.Down"]),
            ("Größe", &["main.Größe"]),
            ("röße", &[]),
            ("ranged-range1.1", &["main.ranged-range1.1"]),
            ("range1", &[]),
            ("main", &["main.main"]),
        ],
    );
    let both = ["(anonymous namespace)::Secret::tell"];
    check(
        &PROGRAMS.cpp,
        &[
            ("Order::price", &["shop::Order::price"]),
            ("Order::Order(int)", &["shop::Order::Order"]),
            // The thunks jump to it: they are no calls of their own.
            ("~Order", &["shop::Order::~Order", "shop::Order::~Order"]),
            ("weight", &["shop::Order::weight", "shop::Other::weight"]),
            ("rder::price", &[]),
            ("Secret::tell", &both),
            ("tell", &both),
            ("hidden", &["(anonymous namespace)::hidden"]),
            (
                "operator()(int)",
                &["main::{lambda(int)#1}::operator()", "main::{lambda(int)#2}::operator()", "shop::Order::operator()"],
            ),
            ("operator->", &["shop::Order::operator->"]),
            ("Order::operator new[]", &["shop::Order::operator new[]"]),
            ("operator int", &["shop::Order::operator int"]),
            ("Stack<int>::push", &["shop::Stack<int>::push"]),
            ("main", &["main"]),
        ],
    );
    for program in [&PROGRAMS.legacy, &PROGRAMS.v0] {
        check(
            program,
            &[
                ("Square::area", &["<names::Square<u32> as names::Area>::area"]),
                ("Guard::drop", &["<names::Guard as core::ops::drop::Drop>::drop"]),
                ("[u8]::area", &["<[u8] as names::Area>::area"]),
                ("apply", &["names::apply"]),
                ("pply", &[]),
                // The crate's, not the C function that the loader calls.
                ("main", &["names::main"]),
            ],
        );
        for (pattern, count) in [("pair", 2), ("down::pair", 2), ("Square::show", 2), ("main::{{closure}}", 1)] {
            assert_eq!(select(program, &[pattern], false).matches.len(), count, "{pattern}");
        }
    }
    check(&PROGRAMS.c, &[("wice", &[]), ("cold", &[])]);
    let many = select(&PROGRAMS.go, &["func1"], false);
    assert!(many.matches.len() > 100 && many.notes.len() == 1, "{:?}", many.notes);
}

const FUNC: [&str; 5] = ["func_a", "func_b", "func_c", "func_d", "func_e"];

#[test]
fn globs_are_over_the_full_name() {
    check(
        &PROGRAMS.go,
        &[
            ("main.(*Store).*", &["main.(*Store).Get"]),
            ("main.(*List).P*", &PUSH),
            ("main.(*List[...]).P*", &PUSH),
            ("main.(*List[int]).P*", &PUSH[..1]),
            ("*[go.shape.int]).Push", &PUSH[..1]),
            ("main.Gen[[]*", &[]),
            ("main.Gen[*", &GEN),
            ("main.Gen[st*", &GEN[1..]),
            ("main.{call,closures}", &["main.call", "main.closures"]),
            ("main.{call,closures.{func1,no}}", &["main.call", "main.closures.func1"]),
            ("main.[cG]a*", &["main.call"]),
            ("main.ma?n", &["main.main"]),
            ("main.Gr??e", &["main.Größe"]),
            ("main.Größ?", &["main.Größe"]),
            ("*/deep.*", &["example.com/ge.v2/internal/deep.Down"]),
            ("*/foo.v1.*", &["example.com/ge.v2/foo.v1.(*Box).Open", "example.com/ge.v2/foo.v1.F"]),
            ("*/foo%2ev1.F*", &["example.com/ge.v2/foo.v1.F"]),
            ("main.ranged-*", &["main.ranged-range1", "main.ranged-range1.1"]),
            (r"main.(\*Store).*", &["main.(*Store).Get"]),
            ("ain.main*", &[]),
            ("main.store*", &[]),
        ],
    );
    check(
        &PROGRAMS.cpp,
        &[
            ("shop::Order::pri*", &["shop::Order::price"]),
            ("shop::O*::price", &["shop::Order::price"]),
            ("shop::*::operator[]", &["shop::Order::operator[]"]),
            ("shop::Order::operator{()*,->*}", &["shop::Order::operator()", "shop::Order::operator->"]),
            ("shop::sc*<int*", &["shop::scale<int, 3>"]),
            ("main::{lambda(int)#1}::*", &["main::{lambda(int)#1}::operator()"]),
            ("(anonymous namespace)::h*", &["(anonymous namespace)::hidden"]),
            // Behind `::` braces are part of the name.
            ("shop::{over,tagged}*", &[]),
            ("shop:{:over,:tagged}", &["shop::over", "shop::over", "shop::tagged"]),
        ],
    );
    for program in [&PROGRAMS.legacy, &PROGRAMS.v0] {
        let closures = names(program, &select(program, &["names::*::{{closure}}"], false));
        assert!(closures.len() == 1 && closures == names(program, &select(program, &["names::*{closure#0}"], false)));
        for (pattern, count) in [("names::deep::*", 2), ("<names::Guard as *", 1), ("*Guard*::drop", 1), ("*::area", 2)]
        {
            let matches = select(program, &[pattern], false).matches;
            let own = matches.iter().filter(|m| m.name.contains("names::"));
            assert_eq!(own.count(), count, "{pattern}: {matches:#?}");
        }
    }
    check(
        &PROGRAMS.c,
        &[
            ("func_*", &FUNC),
            ("func_?", &FUNC),
            ("func_[a-c]", &FUNC[..3]),
            ("func_[!a-c]", &FUNC[3..]),
            ("func_[^a-c]", &FUNC[3..]),
            ("func_{a,b}", &FUNC[..2]),
            ("{func_a,twi*}", &["func_a", "twice"]),
            ("func_[abx]", &FUNC[..2]),
            (r"func_\*", &[]),
            ("sam*", &["same", "same"]),
            ("versioned*", &["versioned", "versioned"]),
        ],
    );
    assert!(!is_exact(&PROGRAMS.c, "func_*"));
}

#[test]
fn regular_expressions_search_the_full_name() {
    check(
        &PROGRAMS.go,
        &[
            (r"/^main\.(ranged|call)$/", &["main.call", "main.ranged"]),
            (r"/\(\*Store\)/", &["main.(*Store).Get"]),
            ("/(?i)größe/", &["main.Größe"]),
            (r"/foo\.v1\.F/", &["example.com/ge.v2/foo.v1.F"]),
            (r"/foo%2ev1\.F/", &["example.com/ge.v2/foo.v1.F"]),
            (r"/^main\.Gen$/", &GEN),
            ("/nosuchthing/", &[]),
        ],
    );
    check(&PROGRAMS.c, &[("/^func_[ab]$/", &FUNC[..2]), ("/unc_e/", &FUNC[4..]), ("/^unc/", &[])]);
    check(
        &PROGRAMS.cpp,
        &[
            ("/^shop::ov/", &["shop::over", "shop::over"]),
            (
                r"/^(shop|main).*operator\(\)$/",
                &["main::{lambda(int)#1}::operator()", "main::{lambda(int)#2}::operator()", "shop::Order::operator()"],
            ),
        ],
    );
}

/// The number of the first line of a source that has this text.
fn line_of(source: &str, text: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forms/sources").join(source);
    std::fs::read_to_string(path).unwrap().lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn files_and_lines_are_named_by_the_end_of_the_path() {
    check(
        &PROGRAMS.go,
        &[
            ("@foo.v1/foo.go", &["example.com/ge.v2/foo.v1.(*Box).Open", "example.com/ge.v2/foo.v1.F"]),
            ("@deep/deep.go", &["example.com/ge.v2/internal/deep.Down"]),
            ("@eep.go", &[]),
            ("@nothing.go", &[]),
            ("@deep.go:4000", &[]),
            (
                &format!("@deep.go:{}", line_of("go/internal/deep/deep.go", "func Down")),
                &["example.com/ge.v2/internal/deep.Down"],
            ),
        ],
    );
    check(
        &PROGRAMS.c,
        &[
            ("@one.c", &["one", "same"]),
            ("@lib.c", &[&FUNC[..], &["calls", "twice", "versioned", "versioned"]].concat()),
            (&format!("@lib.c:{}", line_of("lib.c", "int func_d")), &["func_d"]),
            ("@ib.c", &[]),
        ],
    );
    // Every place of a line, as llvm-symbolizer has it.
    for (program, file, line) in [
        (&PROGRAMS.go, "main.go", line_of("go/main.go", "slices.Collect")),
        (&PROGRAMS.cpp, "names.cc", line_of("names.cc", "shop::Order::count(t.items)")),
    ] {
        let matches = select(program, &[&format!("@{file}:{line}")], false).matches;
        assert!(!matches.is_empty());
        for found in matches {
            let Matched::Point { address, offset, .. } = found.what else { panic!("{found:?}") };
            assert!(found.name.starts_with("main") && found.name.ends_with(&format!("+{offset:#x}")), "{found:?}");
            let frames = &common::llvm::symbolizer_of(&program.path, &[address.0])[0];
            assert!(frames.iter().any(|(_, path, at)| path.ends_with(file) && *at as usize == line), "{frames:?}");
        }
    }
}

#[test]
fn addresses_and_offsets_mean_functions_at_their_start_and_points_inside() {
    for (program, name) in [
        (&PROGRAMS.go, "main.(*Store).Get"),
        (&PROGRAMS.cpp, "shop::Order::label"),
        (&PROGRAMS.v0, "names::apply"),
        (&PROGRAMS.c, "calls"),
    ] {
        let Matched::Function(id) = select(program, &[name], false).matches[0].what else { panic!("{name}") };
        let function = program.index.function(id);
        let start = function.address;
        for same in [start.to_string(), format!("{name}+0x0"), format!("{:#X}", start.0).replace("0X", "0x")] {
            assert_eq!(select(program, &[&same], false).matches[0].what, Matched::Function(id), "{same}");
        }
        let inside = Matched::Point { address: Vaddr(start.0 + 4), function: Some(id), offset: 4 };
        for same in [format!("{:#x}", start.0 + 4), format!("{name}+0x4"), format!("{name}+0x04")] {
            let found = &select(program, &[&same], false).matches[0];
            assert_eq!((found.what, &*found.name, found.exact), (inside, &*format!("{name}+0x4"), true), "{same}");
        }
        for nothing in [format!("{name}+{:#x}", function.size), "0x1".to_owned(), "0xffffffffffffffff".to_owned()] {
            assert!(select(program, &[&nothing], false).matches.is_empty(), "{nothing}");
        }
    }
    // One of several functions of a name is long enough.
    let longer = select(&PROGRAMS.cpp, &["shop::Order::Order+0x60"], false);
    assert_eq!((longer.matches.len(), longer.notes.len()), (1, 1));
}

#[test]
fn negations_take_away_wherever_they_stand() {
    for (patterns, expected) in [
        (&["func_*", "!func_c"][..], &["func_a", "func_b", "func_d", "func_e"][..]),
        (&["!func_c", "func_*"], &["func_a", "func_b", "func_d", "func_e"]),
        (&["func_*", "!func_[b-d]"], &["func_a", "func_e"]),
        (&["func_*", "!/[ab]$/"], &["func_c", "func_d", "func_e"]),
        (&["func_a", "!func_*"], &[]),
        (&["!func_*", "!versioned*", "!@one.c", "!@two.c", "!twice"], &["calls"]),
    ] {
        assert_eq!(names(&PROGRAMS.c, &select(&PROGRAMS.c, patterns, false)), expected, "{patterns:?}");
    }
    // What is left out stays so, and what a negation names is not said to be unmatched.
    let rest = select(&PROGRAMS.go, &["!main.*", "!nothing"], false);
    assert!(rest.unmatched.is_empty());
    assert!(rest.matches.iter().all(|m| !m.name.starts_with("main.") && !m.name.starts_with("runtime.")));
    let address = select(&PROGRAMS.c, &["func_a"], false).matches[0].what;
    let Matched::Function(id) = address else { panic!() };
    let by_address = format!("!{}", PROGRAMS.c.index.function(id).address);
    assert_eq!(names(&PROGRAMS.c, &select(&PROGRAMS.c, &["func_{a,b}", &by_address], false)), ["func_b"]);
}

/// What of each kind is there, which patterns do not take it in, and which do.
#[test]
fn what_is_left_out_is_taken_in_by_name() {
    for (program, kind, name, not_by, by) in [
        (
            &PROGRAMS.go,
            LeftOut::GoRuntime,
            "runtime.gcMark",
            &["*gcMark", "/gcMark$/", "!main.*"][..],
            &["runtime.gcMark", "gcMark", "runtime.gcMar*", "/^runtime\\.gcMark$/", "runtime.*"][..],
        ),
        (
            &PROGRAMS.go,
            LeftOut::GoInternal,
            "internal/abi.BoundsDecode",
            &["*BoundsDecode"],
            &["internal/abi.BoundsDecode", "abi.BoundsDecode", "internal/abi.*", "internal/*"],
        ),
        (
            &PROGRAMS.go,
            LeftOut::GoWrapper,
            "main.main.gowrap1",
            &["main.*", "main.main.*"],
            &["main.main.gowrap1", "main.gowrap1"],
        ),
        (&PROGRAMS.go, LeftOut::GoWrapper, "main.(*Store).Get-fm", &["main.*", "*-fm"], &["Store.Get-fm"]),
        (
            &PROGRAMS.cpp,
            LeftOut::Thunk,
            "virtual thunk to shop::Order::weight",
            &["*weight", "Order::weight"],
            &["virtual thunk to shop::Order::weight()"],
        ),
        (&PROGRAMS.cpp, LeftOut::Startup, "_start", &["*", "_sta*"], &["_start"]),
        (&PROGRAMS.c, LeftOut::Startup, "frame_dummy", &["*", "/^frame/"], &["frame_dummy"]),
        (&PROGRAMS.c, LeftOut::Part, "twice", &["!*"], &["twice.cold"]),
    ] {
        let has = |patterns: &[&str], all: bool| {
            let selection = select(program, patterns, all);
            let ids = selection.matches.iter().filter(|m| m.name == name).filter_map(|m| match m.what {
                Matched::Function(id) => Some(id),
                Matched::Point { .. } => None,
            });
            ids.into_iter().any(|id| program.index.function(id).left_out == Some(kind))
        };
        for pattern in not_by {
            assert!(!has(&[pattern], false), "{pattern} takes in {name}");
        }
        for pattern in by {
            assert!(has(&[pattern], false), "{pattern} does not take in {name}");
        }
        assert!(has(&["*"], true), "--all takes in {name}");
        let counted = select(program, &["*"], false).left_out;
        assert!(counted.iter().any(|(_, why)| *why == kind), "{kind}");
    }
}

#[test]
fn what_is_no_pattern_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "is empty"),
        ("  ", "is empty"),
        ("!", "is empty"),
        ("! ", "is empty"),
        ("@", "is empty"),
        ("//", "is empty"),
        ("0x", "up to 16 hexadecimal digits"),
        ("0xZZ", "up to 16 hexadecimal digits"),
        ("0x10000000000000000", "up to 16 hexadecimal digits"),
        ("main.main+0x", "up to 16 hexadecimal digits"),
        ("main.main+0xq", "\"main.main+0xq\""),
        ("@main.go:0", "lines count from 1"),
        ("@main.go:99999999999", "lines count from 1"),
        ("/(/", "unclosed group"),
        ("/[z-a]/", "invalid character class range"),
        ("/a{2,1}/", "invalid repetition"),
    ] {
        let error = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    // Strange, but names or globs.
    for text in
        ["-x", "--all", "./main", "/usr/bin/true", "a b", "[", "{", "}", "f(", "<", "::", ".", "\\", "0", "+0x1", "=f"]
    {
        let pattern: Pattern = text.parse().unwrap();
        assert!(PROGRAMS.c.index.select(&[pattern], false).matches.is_empty(), "{text}");
    }
}

#[test]
fn what_matches_nothing_has_something_near() {
    for (program, typed, near) in [
        (&PROGRAMS.go, "main.(*Store).Gett", "main.(*Store).Get"),
        (&PROGRAMS.go, "main.(*store).get", "main.(*Store).Get"),
        (&PROGRAMS.go, "main.(*Store).Len", "main.Store.Len"),
        (&PROGRAMS.go, "main.Shop.Get", "main.(*Store).Get"),
        (&PROGRAMS.go, "example.com/ge/foo.v1.F", "example.com/ge.v2/foo.v1.F"),
        (&PROGRAMS.go, "main.Gen[float64]", "main.Gen[go.shape.int]"),
        (&PROGRAMS.go, r"/MAIN\.CALL$/", "main.call"),
        (&PROGRAMS.go, "@mian.go", "/main.go"),
        (&PROGRAMS.go, "@foo/foo.go", "/foo.v1/foo.go"),
        (&PROGRAMS.cpp, "shop::Ordr::price", "shop::Order::price"),
        (&PROGRAMS.cpp, "shop::Order::prise(int)", "shop::Order::price"),
        (&PROGRAMS.cpp, "shop::versioned", "shop::v1::versioned"),
        (&PROGRAMS.cpp, "shop::scael<int>", "shop::scale<int, 3>"),
        (&PROGRAMS.v0, "names::Squre::show", "<names::Square<char>>::show"),
        (&PROGRAMS.legacy, "names::Squre::show", "names::Square<T>::show"),
        (&PROGRAMS.legacy, "std::rt::lang_start_intern", "std::rt::lang_start_internal"),
        (&PROGRAMS.c, "twise", "twice"),
        (&PROGRAMS.c, "FUNC_A", "func_a"),
        (&PROGRAMS.c, "@on.c", "one.c"),
    ] {
        let pattern: Pattern = typed.parse().unwrap();
        assert!(program.index.select(std::slice::from_ref(&pattern), false).matches.is_empty(), "{typed}");
        let nearest = program.index.nearest(&pattern, 5);
        assert!(nearest.iter().any(|name| name.ends_with(near)), "{typed}: {nearest:?}");
    }
    let go = &PROGRAMS.go.index;
    let nothing: Pattern = "@deep.go:1".parse().unwrap();
    let line = line_of("go/internal/deep/deep.go", "func Down");
    assert_eq!(go.nearest(&nothing, 5), [format!("@deep.go:{line}")]);
    assert!(go.why_no_match(&nothing).unwrap().contains("line 1 of deep.go has no code"));
    assert!(go.why_no_match(&"0x1".parse().unwrap()).unwrap().contains("not code"));
    assert!(go.why_no_match(&"main.call+0x1000".parse().unwrap()).unwrap().contains("main.call ends at +0x"));
    assert!(go.why_no_match(&"shop::{a,b}".parse().unwrap()).unwrap().contains("behind `::`"));
    let before = PROGRAMS.c.index.nearest(&"0x1".parse().unwrap(), 5);
    assert!(before.len() == 1 && before[0].starts_with("0x"), "{before:?}");
}
