//! `testdata/go/names` by every version of Go, one way of linking and stripping for each.

use std::path::{Path, PathBuf};

use crate::{counts::Truth, harness};

const ADD: &str = "example.com/ge.v2/foo.v1.(*Counter).Add";

/// One method, called 3,000 times: all calls are seen, each with its duration and goroutine.
fn check(program: &Path) {
    let program = program.to_str().expect("a path in UTF-8");
    let traced = harness::trace(&["--stack=none", "foo.(*Counter).Add"], &[program, "-n", "3000"]);
    assert_eq!(traced.ended.code(), 0, "{program}: {}", traced.ended.stderr);
    let truth = Truth::of(&traced.ended.stdout);
    assert_eq!(truth.calls().collect::<Vec<_>>(), [(ADD, 3000)], "{program}");
    super::assert_counts(program, &traced, &truth);
    assert_eq!(traced.lost_total(), 0, "{program}");
    for call in &traced.trace.calls {
        assert!(call.duration_ns.is_some() && call.goroutine == Some(1), "{program}: {call:?}");
    }
}

fn built(version: &str, link: &str) -> PathBuf {
    harness::program(&format!("names/{version}/{link}"))
}

/// Makes a copy with a tool that takes `-o`, and checks it.
fn check_after(tool: &str, options: &[&str], version: &str, link: &str) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let copy = folder.path().join("bare");
    let mut args: Vec<&Path> = options.iter().map(Path::new).collect();
    let whole = built(version, link);
    args.extend([Path::new("-o"), &copy, &whole]);
    harness::tool(tool, &args);
    check(&copy);
}

#[test]
fn go_1_21_position_independent() {
    check(&built("go1.21", "pie"));
}

#[test]
fn go_1_22_position_independent_without_section_headers() {
    check_after("llvm-strip", &["--strip-sections"], "go1.22", "pie");
}

#[test]
fn go_1_23_with_cgo_stripped() {
    check_after("strip", &[], "go1.23", "cgo");
}

#[test]
fn go_1_24_with_cgo_position_independent_without_symbols() {
    check(&built("go1.24", "cgo-pie-s"));
}

#[test]
fn go_1_25_with_cgo_position_independent_without_section_headers() {
    check_after("llvm-strip", &["--strip-sections"], "go1.25", "cgo-pie");
}

#[test]
fn go_1_26_without_section_headers() {
    check_after("llvm-strip", &["--strip-sections"], "go1.26", "exe");
}

#[test]
fn go_1_27_with_cgo() {
    check(&built("go1.27", "cgo"));
}
