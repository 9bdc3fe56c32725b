//! What patterns match, on programs of each language.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::index::{Index, LeftOut, Matched, Selection};
use symbols::pattern::Pattern;

fn index(path: &Path) -> Index {
    Index::new(Arc::new(Binary::open(path).unwrap())).unwrap()
}

fn select(index: &Index, patterns: &[&str]) -> Selection {
    let patterns: Vec<Pattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
    index.select(&patterns, false)
}

fn names(selection: &Selection) -> BTreeSet<&str> {
    selection.matches.iter().map(|m| m.name.as_str()).collect()
}

/// Each row: patterns, and exactly the names that they match.
fn check(index: &Index, rows: &[(&[&str], &[&str])]) {
    for (patterns, expected) in rows {
        let selection = select(index, patterns);
        assert_eq!(names(&selection), expected.iter().copied().collect(), "{patterns:?}");
        assert_eq!(selection.unmatched.is_empty(), !expected.is_empty(), "{patterns:?}");
    }
}

fn go_index(dir: &Path) -> Index {
    common::write_go_program(dir, true);
    let program = dir.join("program");
    common::run(common::go(dir).env("CGO_ENABLED", "1").args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg("."));
    index(&program)
}

#[test]
fn go_functions_are_found_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let index = go_index(dir.path());
    check(
        &index,
        &[
            (&["main.(*Store).Get"], &["main.(*Store).Get"]),
            (&[r"main.(\*Store).Get"], &["main.(*Store).Get"]),
            (&["(*Store).Get"], &["main.(*Store).Get"]),
            (&["Store.Get"], &["main.(*Store).Get"]),
            // The wrapper `(*Store).Len` calls it.
            (&["Store.Len"], &["main.Store.Len"]),
            (&["main.(*Store).*"], &["main.(*Store).Get"]),
            (&["*[Ss]tore).*"], &["main.(*Store).Get"]),
            (&["main.(*Store).Get-fm"], &["main.(*Store).Get-fm"]),
            (&["main.(*List).Push"], &["main.(*List[go.shape.string]).Push"]),
            (&["main.(*List[...]).Push"], &["main.(*List[go.shape.string]).Push"]),
            (&["main.Gen"], &["main.Gen[go.shape.int]", "main.Gen[go.shape.string]"]),
            (&["main.Gen[int]"], &["main.Gen[go.shape.int]"]),
            (&["main.Gen[...]"], &["main.Gen[go.shape.int]", "main.Gen[go.shape.string]"]),
            (&["main"], &["main.main"]),
            (&["example.com/ge.v2/foo%2ev1.F"], &["example.com/ge.v2/foo.v1.F"]),
            (&["example.com/ge.v2/foo.v1.F"], &["example.com/ge.v2/foo.v1.F"]),
            (&["example.com/ge.v2/foo.v1.*"], &["example.com/ge.v2/foo.v1.F"]),
            (&["/^main\\.c$/"], &["main.c"]),
            (&["main.{c,main}"], &["main.c", "main.main"]),
            (&["main.{c,main}", "!main.c"], &["main.main"]),
            (&["@foo.v1/foo.go"], &["example.com/ge.v2/foo.v1.F"]),
            (&["main.nothing"], &[]),
        ],
    );
}

#[test]
fn go_left_outs_are_taken_in_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let index = go_index(dir.path());
    let all = select(&index, &["*"]);
    assert!(all.matches.iter().all(|m| !m.name.starts_with("runtime.") && !m.name.starts_with("internal/")));
    assert!(names(&all).contains("main.main"));
    let kinds: BTreeSet<LeftOut> = all.left_out.iter().map(|(_, why)| *why).collect();
    assert!(kinds.is_superset(&[LeftOut::GoRuntime, LeftOut::GoInternal, LeftOut::GoWrapper].into()), "{kinds:?}");
    assert!(select(&index, &["runtime.gc*"]).matches.iter().all(|m| m.name.starts_with("runtime.gc")));
    assert_eq!(names(&select(&index, &["runtime.mallocgc"])), ["runtime.mallocgc"].into());
    let everything = index.select(&["*".parse().unwrap()], true);
    assert_eq!(everything.matches.len(), index.len());
    // The assembly and the wrapper that calls it share a name: one call is one.
    assert_eq!(select(&index, &["internal/bytealg.IndexByteString"]).matches.len(), 1);
    let without = select(&index, &["!runtime.*"]);
    assert_eq!(names(&without), names(&all));
    assert_eq!(
        select(&index, &["*", "!main.*"]).matches.len() + select(&index, &["main.*"]).matches.len(),
        all.matches.len()
    );
}

#[test]
fn functions_of_c_in_a_go_program_come_from_its_symbols() {
    let dir = tempfile::tempdir().unwrap();
    common::write_go_program(dir.path(), true);
    let program = dir.path().join("program");
    common::run(common::go(dir.path()).env("CGO_ENABLED", "1").args(["build", "-o"]).arg(&program).arg("."));
    let index = index(&program);
    let selection = select(&index, &["c_add"]);
    let Matched::Function(id) = selection.matches[0].what else { panic!("{selection:?}") };
    assert_eq!(index.function(id).language, symbols::index::Language::C);
    assert!(index.functions().all(|f| !f.symbol.ends_with(".abi0")));
}

#[test]
fn places_in_go_functions_are_points() {
    let dir = tempfile::tempdir().unwrap();
    let index = go_index(dir.path());
    let get = select(&index, &["main.(*Store).Get"]);
    let Matched::Function(id) = get.matches[0].what else { panic!("{get:?}") };
    let function = index.function(id);
    let by_address = select(&index, &[&function.address.to_string()]);
    assert_eq!(by_address.matches[0].what, Matched::Function(id));
    let inside = select(&index, &["main.(*Store).Get+0x4"]);
    let address = function.address.checked_add(4).unwrap();
    assert_eq!(inside.matches[0].what, Matched::Point { address, function: Some(id), offset: 4 });
    assert_eq!(inside.matches[0].name, "main.(*Store).Get+0x4");
    assert_eq!(select(&index, &[&address.to_string()]).matches[0].what, inside.matches[0].what);
    assert!(select(&index, &["main.(*Store).Get+0x10000"]).matches.is_empty());
    assert!(select(&index, &["0x1"]).matches.is_empty());
    let line = common::GO_PROGRAM.lines().position(|l| l.contains("list.Push")).unwrap() + 1;
    let at_line = select(&index, &[&format!("@main.go:{line}")]);
    assert!(at_line.matches.iter().any(|m| m.name.starts_with("main.main+0x")), "{at_line:?}");
    for found in &at_line.matches {
        if let Matched::Point { address, .. } = found.what {
            assert_eq!(index.line(address).unwrap().line as usize, line);
        }
    }
}

#[test]
fn cpp_functions_are_found_with_and_without_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let index = index(&common::cpp_program(dir.path()));
    check(
        &index,
        &[
            (&["shop::over"], &["shop::over"]),
            (&["shop::Order::price"], &["shop::Order::price"]),
            (&["Order::price"], &["shop::Order::price"]),
            (&["shop::Order::Order"], &["shop::Order::Order"]),
            (&["shop::Order::operator()"], &["shop::Order::operator()"]),
            (&["shop::Order::operator<"], &["shop::Order::operator<"]),
            (&["shop::operator<<"], &["shop::operator<<"]),
            (&["shop::Stack<int>::push"], &["shop::Stack<int>::push"]),
            (
                &["shop::Stack::push"],
                &[
                    "shop::Stack<int>::push",
                    "shop::Stack<std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > >::push",
                ],
            ),
            (
                &["shop::Stack<std::string>::push"],
                &[
                    "shop::Stack<std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > >::push",
                ],
            ),
            (&["shop::scale"], &["shop::scale<int, 3>"]),
            (&["shop::scale<int>"], &["shop::scale<int, 3>"]),
            (&["std::vector<int>::push_back"], &["std::vector<int, std::allocator<int> >::push_back"]),
            (&["shop::tagged"], &["shop::tagged"]),
            (&["hidden"], &["(anonymous namespace)::hidden"]),
            (&["(anonymous namespace)::hidden"], &["(anonymous namespace)::hidden"]),
            (&["plain"], &["plain"]),
            (&["main"], &["main"]),
            (&["_ZN4shop4overEi"], &["shop::over"]),
            (&["shop::ov*"], &["shop::over"]),
            (&["shop::overr"], &[]),
        ],
    );
    assert_eq!(select(&index, &["shop::over"]).matches.len(), 2);
    assert_eq!(select(&index, &["shop::over(int)"]).matches.len(), 1);
    assert_eq!(select(&index, &["shop::over(int, char const*)"]).matches.len(), 1);
    assert_eq!(select(&index, &["shop::Order::price(int)"]).matches.len(), 1);
    // Two constructors; C1 and C2 are at one address or count as one name.
    assert!(select(&index, &["shop::Order::Order(int)"]).matches.len() <= 2);
    let vectors = select(&index, &["std::vector::push_back"]);
    assert!(vectors.matches.len() >= 2 && vectors.matches.iter().all(|m| m.name.ends_with("::push_back")));
    let all = select(&index, &["*"]);
    assert!(!names(&all).contains("_start") && !names(&all).contains("frame_dummy"));
    assert!(names(&select(&index, &["_start"])).contains("_start"));
    assert!(all.left_out.iter().any(|(_, why)| *why == LeftOut::Thunk));
    assert!(all.matches.iter().all(|m| !m.exact));
    assert!(index.nearest(&"shop::overr".parse().unwrap(), 3).contains(&"shop::over".to_owned()));
}

#[inline(never)]
fn bait<T: std::fmt::Debug>(t: T) -> String {
    let times = |n: usize| format!("{t:?}").repeat(n);
    times(std::hint::black_box(2))
}

struct Square(u32);

trait Area {
    fn area(&self) -> u32;
}

impl Area for Square {
    #[inline(never)]
    fn area(&self) -> u32 {
        std::hint::black_box(self.0) * self.0
    }
}

impl Square {
    #[inline(never)]
    fn grow(&mut self) {
        self.0 += std::hint::black_box(1);
    }
}

#[test]
fn rust_functions_are_found_with_and_without_their_generics() {
    // The program is this test.
    let mut square = Square(2);
    square.grow();
    let shapes: [&dyn Area; 1] = [&square];
    assert_eq!((shapes[0].area(), bait(1u8).len(), bait("x").len()), (9, 2, 6));
    let index = index(&std::env::current_exe().unwrap());
    let only = |pattern: &str| {
        let selection = select(&index, &[pattern]);
        assert!(!selection.matches.is_empty(), "{pattern}");
        selection
    };
    assert_eq!(only("patterns::bait").matches.len(), 2);
    assert_eq!(only("bait").matches.len(), 2);
    assert_eq!(
        names(&only("<patterns::Square as patterns::Area>::area")),
        ["<patterns::Square as patterns::Area>::area"].into()
    );
    for tail in ["Square::area", "patterns::Square::area"] {
        assert_eq!(names(&only(tail)), ["<patterns::Square as patterns::Area>::area"].into());
    }
    assert_eq!(only("patterns::Square::grow").matches.len(), 1);
    assert_eq!(only("Square::grow").matches.len(), 1);
    assert!(only("patterns::bait::{{closure}}").matches.len() >= 2);
    assert_eq!(only("patterns::bait::{closure#0}").matches.len(), only("patterns::bait::{{closure}}").matches.len());
    assert_eq!(names(&only("main")), ["patterns::main"].into());
    assert!(only("patterns::Square::*").matches.len() >= 2);
    let raw =
        index.functions().find(|f| f.name == "patterns::bait" || f.name.starts_with("patterns::bait::<")).unwrap();
    assert_eq!(only(raw.symbol).matches.len(), 1);
    assert!(index.functions().all(|f| !f.name.contains("::h0123456789abcdef")));
}

#[test]
fn c_functions_lose_their_version_and_resolvers_are_left_out() {
    let index = index(Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6"));
    for pattern in ["malloc", "getpid"] {
        let selection = select(&index, &[pattern]);
        assert_eq!((selection.matches.len(), selection.left_out.len()), (1, 0));
        assert_eq!(selection.matches[0].name, pattern);
    }
    let copy = select(&index, &["strlen"]);
    assert!(copy.matches.is_empty() && copy.unmatched.is_empty());
    assert_eq!(copy.left_out[0].1, LeftOut::Ifunc);
}
