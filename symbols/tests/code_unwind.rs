//! Frame pointers, with `readelf --debug-dump=frames-interp` as the oracle. Needs gcc, readelf, objcopy and Go
//! (`PROBE_TEST_GO`, else `.testdeps/go1.27`), which is a Go program itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::Index;
use symbols::unwind::keeps_frame_pointer;

const C: &str = r"
int other(int *);
__attribute__((noinline)) int framed(int n) { int v[20]; v[3] = n; return other(v) + 1; }
__attribute__((noinline)) int sized(int n) { int v[n]; v[0] = 1; return other(v) + 1; }
__attribute__((noinline)) int other(int *v) { return v[0] * 3; }
int main(int n, char **v) { (void)v; return framed(n) + sized(n); }
";

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn compile(dir: &Path, options: &[&str]) -> PathBuf {
    let (source, out) = (dir.join("main.c"), dir.join("main"));
    std::fs::write(&source, C).expect("written");
    run(Command::new("gcc").args(options).arg("-o").arg(&out).arg(&source));
    out
}

/// (start, end, whether the frame is found by rbp) of every row that readelf shows.
fn rows(file: &Path) -> Vec<(u64, u64, bool)> {
    let text = run(Command::new("readelf").args(["-W", "--debug-dump=frames-interp"]).arg(file));
    let hex = |s: &str| u64::from_str_radix(s, 16).ok();
    let mut rows: Vec<(u64, u64, bool)> = Vec::new();
    let mut end = None;
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let Some(range) = fields.iter().find_map(|f| f.strip_prefix("pc=")) {
            end = range.split_once("..").and_then(|(_, end)| hex(end));
        } else if fields.get(3) == Some(&"CIE") {
            end = None;
        } else if let ([location, cfa, ..], Some(end)) = (&fields[..], end)
            && let Some(location) = hex(location)
        {
            if let Some(last) = rows.last_mut().filter(|last| last.1 == end) {
                last.1 = location;
            }
            rows.push((location, end, *cfa == "rbp+16"));
        }
    }
    rows
}

fn agrees(file: &Path) -> usize {
    let binary = Binary::open(file).expect("readable");
    let rows = rows(file);
    for &(start, end, kept) in rows.iter().filter(|(start, end, _)| start < end) {
        for v in [start, end - 1] {
            assert_eq!(keeps_frame_pointer(&binary, None, Vaddr(v)), kept, "{} at {v:#x}", file.display());
        }
    }
    rows.iter().filter(|row| row.2).count()
}

#[test]
fn unwind_rows_agree_with_readelf() {
    let dir = tempfile::tempdir().expect("a directory");
    for options in [&["-O0"][..], &["-O2"], &["-O2", "-fno-omit-frame-pointer"], &["-O2", "-static"]] {
        let with_frame = agrees(&compile(dir.path(), options));
        assert!(with_frame > 0, "{options:?}: `sized` needs a frame pointer");
    }
}

#[test]
fn unwind_rows_are_found_without_sections() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = compile(dir.path(), &["-O0"]);
    let mut bytes = std::fs::read(&file).expect("readable");
    let rows = rows(&file);
    // e_shoff, e_shnum, e_shstrndx
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    let binary = Binary::from_bytes(bytes).expect("still an ELF file");
    for &(start, _, kept) in rows.iter().filter(|(start, end, _)| start < end) {
        assert_eq!(keeps_frame_pointer(&binary, None, Vaddr(start)), kept, "at {start:#x}");
    }
}

#[test]
fn code_without_unwind_tables_is_judged_by_its_prologue() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = ["-O1", "-fno-asynchronous-unwind-tables", "-nostartfiles", "-Wl,-emain", "-static"];
    for (frame, kept) in [("-fno-omit-frame-pointer", true), ("-fomit-frame-pointer", false)] {
        let file = compile(dir.path(), &[&options[..], &[frame]].concat());
        let binary = Arc::new(Binary::open(&file).expect("readable"));
        let index = Index::new(binary.clone()).expect("symbols");
        let framed = index.functions().find(|f| f.name == "framed").expect("compiled in");
        let inside = framed.address.checked_add(framed.size - 2).expect("an address");
        assert_eq!(keeps_frame_pointer(&binary, Some(&index), inside), kept, "{frame}");
        assert!(!keeps_frame_pointer(&binary, Some(&index), framed.address), "{frame}: nothing is set up yet");
    }
}

/// As V8's interpreter enters what it is to run: two ways meet where the frame is set up. In the second one of them leads by.
const TWO_WAYS: &str = r"
    .globl _start, meets, by
    .text
_start: ret
    .type meets, @function
meets:
    cmp %rdi,%rsi
    je 1f
    mov %rsi,%rbx
    jmp 2f
1:  incl 11(%rbx)
2:  push %rbp
    mov %rsp,%rbp
    call *%rcx
    pop %rbp
    ret
    .size meets, .-meets
    .type by, @function
by: cmp %rdi,%rsi
    je 1f
    jmp 2f
1:  push %rbp
    mov %rsp,%rbp
2:  call *%rcx
    nop
    nop
    ret
    .size by, .-by
";

#[test]
fn a_prologue_may_begin_where_two_ways_meet_but_none_may_lead_by() {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, file) = (dir.path().join("ways.s"), dir.path().join("ways"));
    std::fs::write(&source, TWO_WAYS).expect("written");
    run(Command::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(&file).arg(&source));
    let binary = Arc::new(Binary::open(&file).expect("readable"));
    let index = Index::new(binary.clone()).expect("symbols");
    for (name, kept) in [("meets", true), ("by", false)] {
        let function = index.functions().find(|f| f.name == name).expect("it is there");
        let behind_call = function.address.checked_add(function.size - 3).expect("an address");
        assert_eq!(keeps_frame_pointer(&binary, Some(&index), behind_call), kept, "{name}");
    }
}

#[test]
fn go_keeps_it_and_frameless_assembly_does_not() {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/go1.27/go/bin/go");
    let file = std::env::var_os("PROBE_TEST_GO").map_or_else(default, PathBuf::from);
    let binary = Binary::open(&file).expect("Go is installed");
    let go = binary.go().expect("a Go program");
    let middle = |name| {
        let f = go.function_named(&binary, name).expect("in every Go program");
        f.address.checked_add(f.size() / 2).expect("an address")
    };
    assert!(keeps_frame_pointer(&binary, None, middle("main.main")));
    assert!(keeps_frame_pointer(&binary, None, middle("runtime.newobject")));
    // src/runtime/memmove_amd64.s: frame size 0
    assert!(!keeps_frame_pointer(&binary, None, middle("runtime.memmove")));
    // src/runtime/asm_amd64.s, asmcgocall<>: no frame of its own either; gcWriteBarrier has one of 112 bytes
    assert!(keeps_frame_pointer(&binary, None, middle("gcWriteBarrier")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Broken tables give answers, not panics.
    #[test]
    fn broken_tables_are_survived(seed in any::<u64>(), damage in prop::collection::vec((any::<u16>(), any::<u8>()), 1..40)) {
        let file = std::env::current_exe().expect("this program");
        let original = Binary::open(&file).expect("readable");
        let (start, frames) = original.section(".eh_frame").expect("unwind tables");
        let (header_at, header) = original.section(".eh_frame_hdr").expect("unwind tables");
        let places = [(start, frames.len()), (header_at, header.len().min(64))];
        let mut bytes = original.data().to_vec();
        for (n, (place, value)) in damage.iter().enumerate() {
            let (at, len) = places[n % 2];
            let offset = original.file_offset(at).expect("in the file").0 as usize;
            bytes[offset + usize::from(*place) % len] = *value;
        }
        let broken = Binary::from_bytes(bytes).expect("the ELF header is whole");
        let (text, code) = original.section(".text").expect("code");
        for n in 0..100u64 {
            let v = text.0 + seed.wrapping_mul(n) % code.len() as u64;
            let _ = keeps_frame_pointer(&broken, None, Vaddr(v));
        }
    }
}
