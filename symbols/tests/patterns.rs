//! What patterns take in of whole programs, and what they leave out. What each form of a pattern means: `forms`.
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

fn go_index(dir: &Path) -> Index {
    common::write_go_program(dir, true);
    let program = dir.join("program");
    common::run(common::go(dir).env("CGO_ENABLED", "1").args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg("."));
    index(&program)
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
