//! Go's function table in every kind of build, compared with `go tool nm`.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::Index;

/// Functions as `go tool nm` lists them: address → (size, names).
fn nm(tool: &Path, dir: &Path, file: &Path) -> BTreeMap<u64, (u64, Vec<String>)> {
    let out = common::run(common::go_with(tool, dir).args(["tool", "nm", "-size"]).arg(file));
    let mut functions: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    for line in out.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(size), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let name = words.collect::<Vec<_>>().join(" ");
        if !matches!(kind, "T" | "t") || name == "runtime.text" || name == "runtime.etext" {
            continue;
        }
        let address = u64::from_str_radix(address, 16).unwrap();
        let entry = functions.entry(address).or_default();
        entry.0 = size.parse().unwrap();
        entry.1.push(name.trim_end_matches(".abi0").trim_end_matches(".abiinternal").to_owned());
    }
    functions
}

/// Every function of the table is what `go tool nm` says of its address, and none is missing.
fn agrees_with_nm(tool: &Path, stripped: &Path, dir: &Path, unstripped: &Path) {
    let binary = Binary::open(stripped).unwrap();
    let program = binary.go().unwrap_or_else(|| panic!("{}: {:?}", stripped.display(), binary.go_error()));
    let oracle = nm(tool, dir, unstripped);
    let mut seen = 0;
    for function in program.functions(&binary) {
        // `go:textfipsstart` and the like are marks without code.
        let Some((size, names)) = oracle.get(&function.address.0) else {
            continue;
        };
        if function.name().starts_with("go:") {
            continue;
        }
        assert!(
            names.iter().any(|n| n == function.name() || abridged(n) == function.name()),
            "{}: {} is {names:?}",
            stripped.display(),
            function.name()
        );
        if names.len() == 1 {
            assert_eq!(function.size(), *size, "{}: size of {}", stripped.display(), function.name());
        }
        let last = function.address.checked_add(function.size().saturating_sub(1)).unwrap();
        let found = program.function_at(&binary, last).unwrap();
        assert_eq!(found.address, function.address);
        seen += 1;
    }
    let range = program.text_range(&binary);
    let wanted =
        oracle.iter().filter(|(a, (_, names))| range.contains(&Vaddr(**a)) && !names[0].starts_with("go:")).count();
    assert_eq!(seen, wanted, "{}", stripped.display());
}

/// A name as Go 1.18 to 1.20 put it into the table. From the first bracket to the last.
fn abridged(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}[...]{}", &name[..open], &name[close + 1..])
        }
        _ => name.to_owned(),
    }
}

struct Build {
    name: &'static str,
    cgo: bool,
    flags: &'static [&'static str],
    strip: Option<&'static [&'static str]>,
}

/// Debian 12's package golang-go: Go 1.19, the layout before the present one.
const DEBIAN_GO: &str = "/usr/bin/go";

const BUILDS: &[Build] = &[
    Build { name: "exe", cgo: false, flags: &[], strip: None },
    Build { name: "pie", cgo: false, flags: &["-buildmode=pie"], strip: None },
    Build { name: "cgo", cgo: true, flags: &[], strip: None },
    Build { name: "external", cgo: true, flags: &["-ldflags=-linkmode=external"], strip: None },
    Build {
        name: "external-pie",
        cgo: true,
        flags: &["-buildmode=pie", "-ldflags=-linkmode=external"],
        strip: Some(&["strip"]),
    },
    Build { name: "stripped", cgo: false, flags: &[], strip: Some(&["strip"]) },
    Build { name: "no-sections", cgo: false, flags: &[], strip: Some(&["llvm-strip", "--strip-sections"]) },
    Build {
        name: "pie-no-sections",
        cgo: false,
        flags: &["-buildmode=pie"],
        strip: Some(&["llvm-strip", "--strip-sections"]),
    },
    Build {
        name: "external-no-sections",
        cgo: true,
        flags: &["-ldflags=-linkmode=external"],
        strip: Some(&["llvm-strip", "--strip-sections"]),
    },
];

fn agree_in_every_build(tool: &Path) {
    let dir = tempfile::tempdir().unwrap();
    for build in BUILDS {
        common::write_go_program(dir.path(), build.cgo);
        let full = dir.path().join(build.name);
        let enabled = if build.cgo { "1" } else { "0" };
        let mut go = common::go_with(tool, dir.path());
        common::run(go.env("CGO_ENABLED", enabled).arg("build").args(build.flags).arg("-o").arg(&full).arg("."));
        let mut subject = full.clone();
        if let Some(strip) = build.strip {
            subject = dir.path().join(format!("{}.stripped", build.name));
            std::fs::copy(&full, &subject).unwrap();
            common::run(Command::new(strip[0]).args(&strip[1..]).arg(&subject));
        }
        agrees_with_nm(tool, &subject, dir.path(), &full);
    }
}

#[test]
fn the_function_table_agrees_with_go_tool_nm_in_every_kind_of_build() {
    agree_in_every_build(&common::go_tool());
}

#[test]
fn the_function_table_of_go_1_19_agrees_with_go_tool_nm_in_every_kind_of_build() {
    agree_in_every_build(Path::new(DEBIAN_GO));
}

#[test]
fn the_version_survives_stripping() {
    let dir = tempfile::tempdir().unwrap();
    common::write_go_program(dir.path(), false);
    let out = common::run(common::go(dir.path()).arg("version"));
    let expected = out.split_whitespace().nth(2).unwrap();
    let program = dir.path().join("program");
    for flags in ["-buildmode=exe", "-buildmode=pie"] {
        common::run(common::go(dir.path()).args(["build", flags, "-ldflags=-s -w", "-o"]).arg(&program).arg("."));
        common::run(Command::new("llvm-strip").arg("--strip-sections").arg(&program));
        assert_eq!(Binary::open(&program).unwrap().go().unwrap().version(), Some(expected));
    }
}

/// Every function's first and middle address, by `go tool addr2line`.
#[test]
fn lines_are_those_of_go_tool_addr2line() {
    let dir = tempfile::tempdir().unwrap();
    common::write_go_program(dir.path(), false);
    for tool in [common::go_tool(), DEBIAN_GO.into()] {
        let program = dir.path().join("program");
        common::run(common::go_with(&tool, dir.path()).args(["build", "-o"]).arg(&program).arg("."));
        let index = Index::new(Arc::new(Binary::open(&program).unwrap())).unwrap();
        let places: Vec<Vaddr> = index
            .functions()
            .filter(|f| f.size > 0)
            .flat_map(|f| [f.address, f.address.checked_add(f.size / 2).unwrap()])
            .collect();
        let input = dir.path().join("addresses");
        std::fs::write(&input, places.iter().map(|p| format!("{p}\n")).collect::<String>()).unwrap();
        let mut addr2line = common::go_with(&tool, dir.path());
        addr2line.args(["tool", "addr2line"]).arg(&program).stdin(std::fs::File::open(&input).unwrap());
        let out = common::run(&mut addr2line);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 2 * places.len());
        for (place, answer) in places.iter().zip(lines.chunks_exact(2)) {
            let line = index.line(*place).map(|l| format!("{}:{}", l.file, l.line));
            // It prints `?` where the table has line 0 or no file.
            assert!(line.as_deref().is_none_or(|l| l == answer[1]), "{place}: {line:?} {answer:?}");
            assert_eq!(line.is_none(), answer[1].starts_with('?'), "{place}: {line:?} {answer:?}");
        }
    }
}
