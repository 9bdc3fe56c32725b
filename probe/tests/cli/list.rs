//! `probe list`: what it says agrees with readelf; it ends quietly when its reader does.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Folder, fails, probe, program, text};

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

/// What an IFUNC's symbol names chooses an implementation, once. No process has this library.
#[test]
fn of_an_indirect_function_it_is_said_why_nobody_knows_what_it_chose() {
    let folder = Folder::new();
    let source = folder.file(
        "indirect.c",
        b"static int one(void) { return 1; } static int (*choose(void))(void) { return one; }
          int called(void) __attribute__((ifunc(\"choose\"), visibility(\"protected\")));
          static int (*choose_too(void))(void) { return one; }
          int uncalled(void) __attribute__((ifunc(\"choose_too\")));
          int caller(void) { return called() + 1; }",
    );
    let library = folder.0.path().join("libindirect.so");
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.expect("gcc is installed").success());
    let library = library.to_str().expect("UTF-8");
    let symbols = Command::new("readelf").args(["--dyn-syms", "-W", library]).output().expect("readelf runs");
    for (name, listed, traced) in [
        (
            "called",
            "(an indirect function: the symbol names its resolver; no process shows what it chose)",
            "no process that runs the file shows which",
        ),
        (
            "uncalled",
            "(an indirect function that its own file never calls: no part of it tells what the resolver chose",
            "its own file never calls it, so that no process shows there which",
        ),
    ] {
        let is_it = |l: &str| l.contains(" IFUNC ") && l.ends_with(&format!(" {name}"));
        assert!(text(&symbols.stdout).lines().any(is_it));
        let list = probe(&["list", "-x", library, "--all", name]);
        assert_eq!(text(&list.stdout), "");
        assert!(text(&list.stderr).contains(listed), "{}", text(&list.stderr));
        let trace = probe(&["-x", library, "--dry-run", name]);
        assert_eq!(trace.status.code(), Some(1));
        assert!(text(&trace.stderr).contains(traced), "{}", text(&trace.stderr));
    }
}

/// `small` is only inlined, twice into `outer`; `both` is inlined there once and has code of its own.
const INLINED: &str = "
#include <stdlib.h>
static inline __attribute__((always_inline)) int small(int x) { return x * atoi(\"3\"); }
int both(int x) { return x * atoi(\"4\"); }
int (*volatile pointer)(int) = both;
__attribute__((noinline)) int outer(int x) { return small(x) + small(x + 1) + both(x); }
int main(int argc, char **argv) { return outer(argc) + pointer(argc); }
";

fn with_inlined(folder: &Folder) -> String {
    let (source, program) = (folder.file("inlined.c", INLINED.as_bytes()), folder.0.path().join("inlined"));
    let built = Command::new("gcc").args(["-O2", "-g", "-o"]).arg(&program).arg(source).status();
    assert!(built.expect("gcc is installed").success());
    program.to_str().expect("UTF-8").to_owned()
}

#[test]
fn inlined_functions_are_listed_with_where() {
    let folder = Folder::new();
    let path = with_inlined(&folder);
    let output = probe(&["list", "-x", &path, "small", "both"]);
    let (lines, talk) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{talk}");
    let of = |name: &str| lines.lines().filter(|line| line.contains(&format!(" {name} "))).collect::<Vec<_>>();
    assert_eq!(of("small").len(), 2, "{lines}");
    for line in of("small") {
        assert!(line.contains("inlined.c:6 [not probeable: inlined into outer]"), "{line}");
    }
    let [both] = of("both")[..] else { panic!("{lines}") };
    assert!(both.contains("inlined.c:4") && both.ends_with("[1 copy inlined too]"), "{both}");
    assert!(talk.contains("1 matched in") && talk.contains("1 only inlined"), "{talk}");
    let addresses: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(addresses.is_sorted(), "{lines}");
    // Every copy on request; by a glob, only their number is said.
    let all = text(&probe(&["list", "-v", "-x", &path, "both"]).stdout);
    assert_eq!(all.lines().filter(|line| line.contains("inlined into outer")).count(), 1, "{all}");
    let glob = probe(&["list", "-x", &path, "sm*", "main"]);
    assert!(!text(&glob.stdout).contains("small"));
    fails(&["-x", &path, "small", "--dry-run"], 1, &["2 inlined into outer; not probeable by name"]);
}

#[test]
fn json_lines_say_where_a_function_was_inlined() {
    let folder = Folder::new();
    let path = with_inlined(&folder);
    let lines = json_lines(&["list", "-x", &path, "--json", "small", "both", "outer"]);
    let line = |name: &str| lines.iter().find(|line| line["function"] == name).expect("it is listed");
    let small = line("small");
    for unknown in ["address", "offset", "size", "file", "line", "mangled"] {
        assert!(small[unknown].is_null(), "{small}");
    }
    assert_eq!((&small["probeable"], &small["reason"]), (&Value::Bool(false), &Value::from("only inlined")));
    let copies = small["inlined_at"].as_array().expect("copies");
    assert_eq!(copies.len(), 2);
    let outer =
        hex(&line("outer")["address"])..hex(&line("outer")["address"]) + line("outer")["size"].as_u64().unwrap_or(0);
    for copy in copies {
        assert_eq!((&copy["function"], &copy["line"]), (&Value::from("outer"), &Value::from(6)), "{copy}");
        assert!(copy["file"].as_str().is_some_and(|file| file.ends_with("inlined.c")), "{copy}");
        assert!(outer.contains(&hex(&copy["address"])), "{copy}");
    }
    assert_eq!(line("both")["inlined_at"].as_array().map(Vec::len), Some(1));
    assert_eq!(line("outer")["inlined_at"], serde_json::json!([]));
    // Of everything, it is not looked for: that is not the same as none.
    assert!(json_lines(&["list", "-x", &path, "--json"]).iter().all(|line| line["inlined_at"].is_null()));
    assert!(json_lines(&["list", "-x", &path, "--json", "-v"]).iter().all(|line| line["inlined_at"].is_array()));
}

#[test]
fn several_files_and_a_process_are_listed() {
    let (first, second) = (program("c/counts"), program("cpp/counts"));
    let (first, second) = (first.to_str().expect("UTF-8"), second.to_str().expect("UTF-8"));
    let lines = json_lines(&["list", "-x", first, "-x", second, "--json", "main"]);
    let files: Vec<_> = lines.iter().map(|line| line["binary"].as_str().expect("a path")).collect();
    assert_eq!(files, [first, second]);
    // This process is a program as any.
    let own = std::process::id().to_string();
    let lines = json_lines(&["list", "-p", &own, "--json", "several_files_and_a_process_are_listed"]);
    assert!(!lines.is_empty() && lines.iter().all(|line| line["language"] == "Rust"));
    let lines = json_lines(&["list", "-p", &own, "-x", "libc", "--json", "getpid"]);
    assert_eq!(lines.len(), 1);
    assert!(lines[0]["binary"].as_str().is_some_and(|path| path.ends_with("libc.so.6")));
}

/// The compiler names a function literal in a `go:linkname`d function `_.goready.func1`, though it is the runtime's.
#[test]
fn function_literals_of_gos_runtime_without_a_package_are_left_out() {
    let path = program("go/server");
    let path = path.to_str().expect("UTF-8");
    let symbols = Command::new("nm").arg(path).output().expect("nm runs");
    assert!(text(&symbols.stdout).lines().any(|line| line.ends_with(" _.goready.func1")));
    let listed = |args: &[&str]| text(&probe(&[&["list", "-x", path], args].concat()).stdout);
    assert!(!listed(&["*"]).contains(" _.") && listed(&["*"]).contains(" main.main "));
    assert!(listed(&["--all", "*"]).contains(" _.goready.func1 "));
    assert!(listed(&["_.goready.func1"]).contains(" _.goready.func1 "));
}
