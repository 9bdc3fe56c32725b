//! Patterns that match nothing, or are none: errors that lead on.

use super::{fails, program};

#[track_caller]
fn pattern_fails(pattern: &str, status: i32, words: &[&str]) {
    let path = program("c/counts");
    let path = path.to_str().expect("UTF-8");
    fails(&["-x", path, pattern], status, words);
    fails(&["list", "-x", path, pattern], status, words);
}

#[test]
fn no_match_shows_the_nearest_names_and_attaches_nothing() {
    pattern_fails("nested_parrent", 1, &["no function matches 'nested_parrent'", "c/counts", "nested_parent"]);
    pattern_fails("recurze", 1, &["no function matches 'recurze'", "\n  recurse\n"]);
    pattern_fails("Zxqw*", 1, &["no function matches 'Zxqw*'"]);
    pattern_fails("{work", 1, &["no function matches '{work'"]);
    pattern_fails("0x1", 1, &["0x1"]);
    let path = program("c/counts");
    // One of several is enough to keep everything from being attached.
    fails(&["-x", path.to_str().expect("UTF-8"), "work", "laef"], 1, &["'laef'", "\n  leaf\n"]);
}

#[test]
fn a_broken_pattern_is_wrong_usage_and_quoted_once() {
    pattern_fails("/(/", 2, &["\"/(/\"", "regular expression", "unclosed group"]);
    pattern_fails("/[z-a]/", 2, &["regular expression"]);
    pattern_fails("0xfffffffffffffffff", 2, &["not an address"]);
    pattern_fails("", 2, &["empty"]);
}

#[test]
fn a_point_amid_an_instruction_says_so() {
    let path = program("c/counts");
    fails(&["-x", path.to_str().expect("UTF-8"), "cond_from+0x1"], 1, &["inside an instruction", "begin at", "(+0x0)"]);
}
