//! Patterns that match nothing, or are none: errors that lead on.

use super::{fails, probe, program, text};

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

#[test]
fn places_that_match_nothing_say_why_and_what_is_near() {
    pattern_fails("0x1", 1, &["0x1 is not code, which is at 0x", "\nnearest:\n  0x"]);
    pattern_fails("work+0x100000", 1, &["work ends at +0x", "\n  work\n"]);
    pattern_fails("@count.c", 1, &["nearest:\n  @", "counts.c"]);
    pattern_fails("/^RECURSE$/", 1, &["\n  recurse\n"]);
    let path = program("c/counts");
    pattern_fails(path.to_str().expect("UTF-8"), 1, &["is a file: -x names the file to look into"]);
    pattern_fails("   ", 2, &["empty"]);
}

#[test]
fn patterns_that_take_everything_away_are_named_as_the_reason() {
    let path = program("c/counts");
    let path = path.to_str().expect("UTF-8");
    for (patterns, listed, traced) in [
        (
            &["work", "!work"][..],
            "0 matched in PATH; 1 taken away by `!` patterns\n",
            "the only matched function is taken away",
        ),
        (
            &["work", "leaf", "!{work,leaf}"],
            "0 matched in PATH; 2 taken away by `!` patterns\n",
            "all 2 matched functions are",
        ),
        (
            &["{work,_start}", "!work"],
            "; 1 taken away by `!` patterns; 1 left out (",
            "left of 2 matched functions: 1 taken away by `!` patterns, 1 left out by default (--all",
        ),
    ] {
        let list = probe(&[&["list", "-x", path], patterns].concat());
        let stderr = text(&list.stderr);
        assert_eq!((list.status.code(), text(&list.stdout)), (Some(0), String::new()), "{stderr}");
        assert!(stderr.contains(&listed.replace("PATH", path)), "{stderr}");
        fails(&[&["-x", path, "--dry-run"], patterns].concat(), 1, &[traced]);
    }
    // A negation that takes nothing of what is matched is not counted.
    let list = probe(&["list", "-x", path, "leaf", "!work"]);
    assert!(text(&list.stderr).ends_with(&format!("1 matched in {path}\n")), "{}", text(&list.stderr));
}
