//! Offsets of Go's runtime structures, found in stripped programs, with the DWARF of the same program unstripped as the
//! oracle. Needs gcc, llvm-dwarfdump, readelf, nm and Go (`PROBE_TEST_GO`, else `.testdeps/go1.27`); Debian's Go 1.19
//! (`/usr/lib/go-1.19/bin/go`) is used beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::binary::Binary;
use symbols::go::RuntimeOffsets;

const PLAIN: &str = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"x\") }\n";
/// C's thread-local variables lie between Go's and the thread pointer, so the offset is not the usual one.
const WITH_C: &str = r#"package main

// __thread char before[40]; __thread int after = 7;
// static int get(int i) { return before[i] + after; }
import "C"

func main() { println(C.get(3)) }
"#;

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn new_go() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/go1.27/go/bin/go");
    std::env::var_os("PROBE_TEST_GO").map_or_else(default, PathBuf::from)
}

fn build(go: &Path, dir: &Path, name: &str, source: &str, args: &[&str]) -> PathBuf {
    std::fs::write(dir.join("go.mod"), "module example.com/offsets\n\ngo 1.19\n").expect("written");
    std::fs::write(dir.join("main.go"), source).expect("written");
    let mut command = Command::new(go);
    command.current_dir(dir).env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    run(command.env("CGO_ENABLED", "1").args(["build", "-o", name]).args(args).arg("."));
    dir.join(name)
}

/// The member's offset in a struct, from DWARF.
fn member(file: &Path, structure: &str, member: &str) -> Option<u32> {
    let text = run(Command::new("llvm-dwarfdump").args(["-c", "--name", structure]).arg(file));
    let (_, after) = text.split_once("DW_TAG_structure_type")?;
    let (_, after) = after.split_once(&format!("DW_AT_name\t(\"{member}\")"))?;
    let (_, location) = after.split_once("DW_AT_data_member_location\t(")?;
    let number = location.split(')').next()?;
    number.strip_prefix("0x").map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

/// The symbol's place in the TLS segment, from its end rounded up to its alignment; without a segment -8.
fn tls(file: &Path) -> i64 {
    let headers = run(Command::new("readelf").args(["-lW"]).arg(file));
    let Some(line) = headers.lines().find(|line| line.trim_start().starts_with("TLS")) else { return -8 };
    let number = |s: &str| i64::from_str_radix(s.trim_start_matches("0x"), 16).expect("hexadecimal");
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (size, align) = (number(fields[5]), number(fields[fields.len() - 1]).max(1));
    let symbols = run(Command::new("nm").arg(file));
    let Some(symbol) = symbols.lines().find(|line| line.ends_with(" runtime.tlsg")) else {
        // Go's own linker leaves the symbol out; the segment is g's word alone.
        assert_eq!(size, 8);
        return -8;
    };
    number(symbol.split(' ').next().expect("an address")) - (size + align - 1) / align * align
}

fn oracle(file: &Path) -> RuntimeOffsets {
    let g = |name| member(file, "runtime.g", name);
    let stack = g("stack").expect("in every version");
    RuntimeOffsets {
        goid: g("goid").expect("in every version"),
        stack_lo: stack + member(file, "runtime.stack", "lo").expect("in every version"),
        stack_hi: stack + member(file, "runtime.stack", "hi").expect("in every version"),
        m: g("m").expect("in every version"),
        m_curg: member(file, "runtime.m", "curg").expect("in every version"),
        sched_sp: g("sched").expect("in every version") + member(file, "runtime.gobuf", "sp").expect("in every version"),
        syscall_sp: g("syscallsp"),
        parent_goid: g("parentGoid"),
        gopc: g("gopc"),
        tls: tls(file),
    }
}

fn ours(file: &Path) -> RuntimeOffsets {
    let binary = Binary::open(file).expect("readable");
    binary.go().expect("a Go program").runtime_offsets(&binary).expect("found")
}

fn check(go: &Path, source: &str, args: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = build(go, dir.path(), "full", source, args);
    let expected = oracle(&file);
    assert!(source == PLAIN || expected.tls != -8, "C's variables take their place");
    assert_eq!(ours(&file), expected, "{} {args:?}", go.display());
    let bare = dir.path().join("bare");
    run(Command::new("strip").arg("-o").args([&bare, &file]));
    assert_eq!(ours(&bare), expected, "{} {args:?}, stripped", go.display());
}

#[test]
fn static_go_programs() {
    check(&new_go(), PLAIN, &[]);
    check(Path::new("/usr/lib/go-1.19/bin/go"), PLAIN, &[]);
}

#[test]
fn position_independent_go_programs() {
    check(&new_go(), PLAIN, &["-buildmode=pie"]);
    check(Path::new("/usr/lib/go-1.19/bin/go"), PLAIN, &["-buildmode=pie"]);
}

#[test]
fn go_programs_with_thread_local_variables_of_c() {
    check(&new_go(), WITH_C, &[]);
    check(&new_go(), WITH_C, &["-buildmode=pie"]);
}

#[test]
fn a_shared_library_has_no_fixed_place_for_g() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = "package main\n\nimport \"C\"\n\n//export F\nfunc F() {}\n\nfunc main() {}\n";
    let file = build(&new_go(), dir.path(), "lib.so", source, &["-buildmode=c-shared"]);
    let binary = Binary::open(&file).expect("readable");
    let error = binary.go().expect("Go code").runtime_offsets(&binary).unwrap_err();
    assert!(error.to_string().contains("shared library"), "{error}");
}
