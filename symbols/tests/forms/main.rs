//! The forms of patterns, each with a table: patterns, and the names of exactly those functions that they match, in programs
//! whose sources are beside this file. That each match is where its name is, `nm` and `go tool nm` say.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod choice;
#[path = "../common/mod.rs"]
mod common;

mod exact;
mod places;
mod programs;
mod refused;
mod wide;

use std::path::Path;

use symbols::index::{Matched, Selection};
use symbols::pattern::Pattern;

use programs::Program;

const PUSH: [&str; 2] = ["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"];
const GEN: [&str; 3] = ["main.Gen[go.shape.int]", "main.Gen[go.shape.string]", "main.Gen[go.shape.struct {}]"];
const ALL_FUNC1: [&str; 2] = ["main.(*List[go.shape.int]).All.func1", "main.(*List[go.shape.string]).All.func1"];
const FUNC: [&str; 5] = ["func_a", "func_b", "func_c", "func_d", "func_e"];

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

/// The number of the first line of a source that has this text.
fn line_of(source: &str, text: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forms/sources").join(source);
    std::fs::read_to_string(path).unwrap().lines().position(|line| line.contains(text)).unwrap() + 1
}
