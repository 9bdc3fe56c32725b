//! `probe list`: what it says agrees with readelf; it ends quietly when its reader does.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{probe, program, text};

/// Functions as `readelf` knows them: sizes and names by address.
fn readelf_functions(path: &str) -> BTreeMap<u64, (u64, Vec<String>)> {
    let output = Command::new("readelf").args(["-sW", path]).output().expect("readelf runs");
    assert!(output.status.success());
    let mut functions: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    for line in text(&output.stdout).lines() {
        // Num: Value Size Type Bind Vis Ndx Name
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, value, size, "FUNC", _, _, section, name, ..] = fields[..] else { continue };
        if section == "UND" || size == "0" {
            continue;
        }
        let address = u64::from_str_radix(value, 16).expect("an address");
        let entry = functions.entry(address).or_default();
        entry.0 = size.parse().expect("a size");
        entry.1.push(name.to_owned());
    }
    functions
}

/// `readelf -lW`: (offset, address, size in the file) of what is loaded.
fn readelf_segments(path: &str) -> Vec<(u64, u64, u64)> {
    let output = Command::new("readelf").args(["-lW", path]).output().expect("readelf runs");
    let hex = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).expect("a number");
    let segment = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["LOAD", offset, address, _, size, ..] => Some((hex(offset), hex(address), hex(size))),
            _ => None,
        }
    };
    text(&output.stdout).lines().filter_map(segment).collect()
}

/// `f` of `f.cold`, `f.part.0`: gcc's clones.
fn without_suffix(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn json_lines(args: &[&str]) -> Vec<Value> {
    let output = probe(args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn hex(value: &Value) -> u64 {
    let text = value.as_str().expect("a hexadecimal number in a string");
    u64::from_str_radix(text.strip_prefix("0x").expect("0x"), 16).expect("hexadecimal")
}

#[test]
fn json_lines_agree_with_readelf() {
    for name in ["c/counts", "c/counts-nopie", "c/counts-O0"] {
        let path = program(name);
        let path = path.to_str().expect("UTF-8");
        let truth = readelf_functions(path);
        let segments = readelf_segments(path);
        let mut seen = BTreeMap::new();
        let mut last = 0;
        for line in json_lines(&["list", "-x", path, "--json", "--all"]) {
            let address = hex(&line["address"]);
            assert!(last <= address, "sorted by address");
            last = address;
            let Some((size, names)) = truth.get(&address) else { continue };
            assert_eq!(line["size"].as_u64(), Some(*size), "{line}");
            // A part that gcc split off is shown under its function's name, and its own name beside it.
            let name = line["mangled"].as_str().or(line["function"].as_str()).expect("a name");
            assert!(names.iter().any(|known| known == name), "{line}: {names:?}");
            assert_eq!(Some(without_suffix(name)), line["function"].as_str());
            let (offset, vaddr, _) = segments
                .iter()
                .find(|(_, vaddr, size)| (*vaddr..vaddr + size).contains(&address))
                .expect("a segment holds it");
            assert_eq!(hex(&line["offset"]), address - vaddr + offset, "{line}");
            assert_eq!(line["binary"], path);
            assert_eq!(line["probeable"], line["reason"].is_null(), "{line}");
            seen.insert(address, ());
        }
        let missing: Vec<_> = truth.iter().filter(|(address, _)| !seen.contains_key(address)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn json_lines_have_every_field_and_null_for_what_is_unknown() {
    let path = program("c/counts");
    let lines = json_lines(&["list", "-x", path.to_str().expect("UTF-8"), "--json", "lock_first", "work"]);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        for field in [
            "function",
            "mangled",
            "binary",
            "address",
            "offset",
            "size",
            "language",
            "file",
            "line",
            "probeable",
            "reason",
            "inlined_at",
        ] {
            assert!(line.get(field).is_some(), "no {field} in {line}");
        }
        assert_eq!(line["mangled"], Value::Null, "C names are not mangled");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    for name in ["go/server", "c/counts"] {
        for json in [&[][..], &["--json"]] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_probe"))
                .args(["list", "--all", "-x"])
                .arg(program(name))
                .args(json)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("probe can be started");
            let mut stdout = BufReader::with_capacity(16, child.stdout.take().expect("a pipe"));
            let mut first = String::new();
            stdout.read_line(&mut first).expect("a line");
            drop(stdout);
            let mut stderr = String::new();
            child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
            assert_eq!(child.wait().expect("its end").code(), Some(0), "{stderr}");
            assert!(!first.is_empty());
            assert!(!stderr.contains("rror") && !stderr.contains("pipe") && !stderr.contains("panic"), "{stderr}");
        }
    }
}

/// glibc's `strlen` is an IFUNC: readelf says so. What its symbol names chooses an implementation, once.
#[test]
fn of_indirect_functions_it_is_said_that_they_cannot_be_probed_by_name() {
    let libc = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    let symbols = Command::new("readelf").args(["--dyn-syms", "-W", libc]).output().expect("readelf runs");
    assert!(text(&symbols.stdout).lines().any(|l| l.contains(" IFUNC ") && l.contains(" strlen@")));
    let list = probe(&["list", "-x", libc, "--all", "strlen"]);
    assert_eq!(text(&list.stdout), "");
    assert!(
        text(&list.stderr).contains("(an indirect function: the symbol names its resolver); not probeable by name")
    );
    let trace = probe(&["-x", libc, "--dry-run", "strlen"]);
    assert_eq!(trace.status.code(), Some(1));
    assert!(text(&trace.stderr).contains("can be probed by name: an indirect function"), "{}", text(&trace.stderr));
}
