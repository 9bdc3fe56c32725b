//! Offsets of the runtime's structures and the version, found in every build. Oracle of the first: the DWARF of the same
//! program unstripped, by llvm-dwarfdump; of the second: the tool that built it.

use std::path::Path;
use std::process::Command;

use symbols::binary::Binary;
use symbols::go::RuntimeOffsets;

use crate::cells::{self, LINKS, STRIPPINGS};
use crate::common;

/// What llvm-dwarfdump prints of a structure.
fn structure(file: &Path, name: &str) -> String {
    let text = common::run(Command::new("llvm-dwarfdump").args(["-c", "--name", name]).arg(file));
    let (_, after) = text.split_once("DW_TAG_structure_type").unwrap_or_else(|| panic!("{name} in {text}"));
    after.to_owned()
}

/// The offset of a structure's member.
fn member(structure: &str, member: &str) -> Option<u32> {
    let (_, after) = structure.split_once(&format!("DW_AT_name\t(\"{member}\")"))?;
    let (_, location) = after.split_once("DW_AT_data_member_location\t(")?;
    let number = location.split(')').next()?;
    number.strip_prefix("0x").map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

/// The symbol's place in the TLS segment, from its end rounded up to its alignment; without a segment -8.
fn tls(file: &Path) -> i64 {
    let headers = common::run(Command::new("readelf").args(["-lW"]).arg(file));
    let Some(line) = headers.lines().find(|line| line.trim_start().starts_with("TLS")) else { return -8 };
    let number = |s: &str| i64::from_str_radix(s.trim_start_matches("0x"), 16).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (size, align) = (number(fields[5]), number(fields[fields.len() - 1]).max(1));
    let symbols = common::run(Command::new("nm").arg(file));
    let Some(symbol) = symbols.lines().find(|line| line.ends_with(" runtime.tlsg")) else {
        // Go's own linker leaves the symbol out; the segment is g's word alone.
        assert_eq!(size, 8);
        return -8;
    };
    number(symbol.split(' ').next().unwrap()) - (size + align - 1) / align * align
}

fn oracle(file: &Path) -> RuntimeOffsets {
    let (g, m, bounds) = (structure(file, "runtime.g"), structure(file, "runtime.m"), structure(file, "runtime.stack"));
    let stack = member(&g, "stack").unwrap();
    RuntimeOffsets {
        goid: member(&g, "goid").unwrap(),
        stack_lo: stack + member(&bounds, "lo").unwrap(),
        stack_hi: stack + member(&bounds, "hi").unwrap(),
        m: member(&g, "m").unwrap(),
        m_curg: member(&m, "curg").unwrap(),
        sched_sp: member(&g, "sched").unwrap() + member(&structure(file, "runtime.gobuf"), "sp").unwrap(),
        syscall_sp: member(&g, "syscallsp"),
        parent_goid: member(&g, "parentGoid"),
        gopc: member(&g, "gopc"),
        tls: tls(file),
    }
}

/// `go1.27.3`, as the Makefile noted it of the tool that built.
fn built_by(twin: &Path) -> String {
    let said = std::fs::read_to_string(twin.with_file_name(".compiler")).unwrap();
    said.split_whitespace().nth(2).unwrap().to_owned()
}

fn agree(version: &str) {
    for link in LINKS {
        let twin = cells::twin(version, link);
        let expected = oracle(&twin);
        // C's thread-local variables lie between Go's and the thread pointer.
        assert_eq!(expected.tls != -8, link.starts_with("cgo"), "{version} {link}: {expected:?}");
        for stripping in STRIPPINGS {
            let index = cells::index(&twin, stripping);
            let program = index.binary().go().unwrap();
            assert_eq!(program.runtime_offsets(index.binary()).unwrap(), expected, "{version} {link} {stripping:?}");
            assert_eq!(program.version(), Some(&*built_by(&twin)), "{version} {link} {stripping:?}");
        }
    }
}

cells::for_each_version!(agree);

#[test]
fn a_shared_library_has_no_fixed_place_for_g() {
    let dir = tempfile::tempdir().unwrap();
    let source = "package main\n\nimport \"C\"\n\n//export F\nfunc F() {}\n\nfunc main() {}\n";
    std::fs::write(dir.path().join("go.mod"), "module example.com/library\n\ngo 1.19\n").unwrap();
    std::fs::write(dir.path().join("main.go"), source).unwrap();
    let mut go = common::go(dir.path());
    common::run(go.env("CGO_ENABLED", "1").args(["build", "-buildmode=c-shared", "-o", "lib.so", "."]));
    let binary = Binary::open(&dir.path().join("lib.so")).unwrap();
    let error = binary.go().unwrap().runtime_offsets(&binary).unwrap_err();
    assert!(error.to_string().contains("shared library"), "{error}");
}
