//! Broken files: real ones cut short and with bytes changed. Errors are fine; panics, hangs and memory hogs are not.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;
#[path = "common/fuzz.rs"]
mod fuzz;
#[path = "common/time.rs"]
mod time;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuzz::targets;
use proptest::prelude::*;
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::Index;
use symbols::pattern::Pattern;
use time::took;

/// No file here is larger than a few megabytes; an unbroken one takes a fraction of this, in a debug build. Processor time.
const LIMIT: Duration = Duration::from_secs(20);

/// Does with a file all that the library offers.
fn exercise(bytes: Vec<u8>) {
    let took = took(|| targets::elf(&bytes));
    assert!(took < LIMIT, "{took:?}");
}

/// Numbers that do not repeat for long, the same in every run.
fn numbers() -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((state >> 16) as usize)
    })
}

/// Flips bytes all over the file, and more of them where structures are: the headers and `places`.
fn break_in_many_ways(good: &[u8], places: &[usize], rounds: usize) {
    exercise(good.to_vec());
    let mut numbers = numbers();
    let mut next = |below: usize| numbers.next().unwrap() % below.max(1);
    for round in 0..rounds {
        let mut bytes = good.to_vec();
        for _ in 0..1 + next(6) {
            let place = match round % 3 {
                0 => next(bytes.len()),
                1 => next(0x400),
                _ => places.get(next(places.len())).copied().unwrap_or(0) + next(0x200),
            };
            let value = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        exercise(bytes);
    }
    for round in 0..rounds / 4 {
        // Cut, and cut with the rest filled up: then the headers' promises are kept by zeros.
        let cut = if round % 2 == 0 { next(good.len()) } else { next(0x1000) };
        let mut bytes = good[..cut].to_vec();
        exercise(bytes.clone());
        bytes.resize(good.len(), 0);
        exercise(bytes);
    }
}

/// Where sections lie in a file, by readelf.
fn section_starts(path: &Path) -> Vec<usize> {
    let out = common::run(std::process::Command::new("readelf").args(["--sections", "--wide"]).arg(path));
    let starts = out.lines().filter_map(|line| {
        let (_, rest) = line.split_once(']')?;
        usize::from_str_radix(rest.split_whitespace().nth(3)?, 16).ok()
    });
    starts.collect()
}

#[test]
fn broken_go_programs_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    common::write_go_program(dir.path(), false);
    for flags in ["-buildmode=exe", "-buildmode=pie"] {
        let program = dir.path().join("program");
        common::run(common::go(dir.path()).args(["build", flags, "-ldflags=-s -w", "-o"]).arg(&program).arg("."));
        let good = std::fs::read(&program).unwrap();
        break_in_many_ways(&good, &section_starts(&program), 24);
    }
}

#[test]
fn broken_programs_of_c_and_cpp_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    for program in [common::cpp_program(dir.path()), common::c_program(dir.path())] {
        let good = std::fs::read(&program).unwrap();
        break_in_many_ways(&good, &section_starts(&program), 120);
    }
}

/// Debug information of both versions, plain and compressed, as the only source of names, and mini-debuginfo.
#[test]
fn broken_debug_information_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("inlined.c");
    std::fs::write(&source, INLINED).unwrap();
    let gcc = |flags: &[&str]| {
        let program = dir.path().join("inlined");
        let mut gcc = std::process::Command::new("gcc");
        common::run(gcc.args(["-O2", "-g"]).args(flags).arg("-o").arg(&program).arg(&source));
        program
    };
    for flags in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gdwarf-5", "-gz=zlib"]] {
        let program = gcc(flags);
        let good = std::fs::read(&program).unwrap();
        let debug = section_starts(&program).split_off(25);
        break_in_many_ways(&good, &debug, 400);
    }
    let objcopy = |arguments: &[&str], to: &Path| {
        common::run(std::process::Command::new("objcopy").args(arguments).arg(dir.path().join("inlined")).arg(to));
        to.to_owned()
    };
    let only = objcopy(&["--strip-all", "--keep-section=.debug_*"], &dir.path().join("only"));
    break_in_many_ways(&std::fs::read(&only).unwrap(), &section_starts(&only).split_off(25), 200);
    let zstd = objcopy(&["--compress-debug-sections=zstd"], &dir.path().join("zstd"));
    break_in_many_ways(&std::fs::read(&zstd).unwrap(), &section_starts(&zstd).split_off(25), 200);
    let mini = objcopy(&["--strip-debug"], &dir.path().join("mini"));
    common::run(std::process::Command::new("xz").arg(&mini));
    let section = format!("--add-section=.gnu_debugdata={}.xz", mini.display());
    let stripped = objcopy(&["--strip-all", &section], &dir.path().join("stripped"));
    break_in_many_ways(&std::fs::read(&stripped).unwrap(), &section_starts(&stripped).split_off(25), 200);
}

const INLINED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int innermost(int x) { return x * atoi("3"); }
static inline __attribute__((always_inline)) int middle(int x) { return x > 100 ? innermost(x) : x; }
__attribute__((noinline)) int outer(int x) { if (x == 77) abort(); return middle(x) + middle(x * 2); }
int main(int argc, char **argv) { printf("%d\n", outer(argc)); return 0; }
"#;

/// Abbreviations, line programs and names that thousands of units share must not be read for each in full.
#[test]
fn units_that_share_everything_take_no_quadratic_time_or_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("many.s"), dir.path().join("many"));
    let mut text = String::from(".text\n.globl _start\n_start: ret\n.fill 4000,1,0x90\n.size _start,4001\n");
    text.push_str(".type _start,@function\n.section .debug_abbrev,\"\",@progbits\n.Labbrev:\n");
    // compile unit: stmt_list sec_offset, low_pc addr, high_pc udata
    text.push_str(".byte 1,0x11,0,0x10,0x17,0x11,1,0x12,0x0f,0,0\n");
    for code in 2..20_000 {
        text.push_str(&format!(".uleb128 {code}\n.byte 0x2e,0,3,8,0,0\n"));
    }
    text.push_str(".byte 0\n.section .debug_info,\"\",@progbits\n");
    for _ in 0..20_000 {
        text.push_str(".long 7+1+4+8+2+1\n.short 4\n.long .Labbrev\n.byte 8\n.byte 1\n.long .Lline\n.quad _start\n.uleb128 4000\n.byte 0\n");
    }
    text.push_str(".section .debug_line,\"\",@progbits\n.Lline:\n.long .Lend-.Lstart\n.Lstart: .short 4\n");
    text.push_str(".long .Lprogram-.Lheader\n.Lheader: .byte 1,1,1,-5,14,13,0,1,1,1,1,0,0,0,1,0,0,1\n.byte 0\n");
    for file in 0..20_000 {
        text.push_str(&format!(".asciz \"f{file}.c\"\n.byte 0,0,0\n"));
    }
    text.push_str(".byte 0\n.Lprogram: .byte 0,9,2\n.quad _start\n.fill 200000,1,0x20\n.byte 2,1,0,1,1\n.Lend:\n");
    std::fs::write(&source, text).unwrap();
    common::run(std::process::Command::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source));
    let binary = Arc::new(Binary::open(&program).unwrap());
    let index = Index::new(binary).unwrap();
    let start = index.functions().next().unwrap().address;
    assert_eq!(index.line(Vaddr(start.0 + 8)).map(|line| line.file), Some("f0.c"));
    exercise(std::fs::read(&program).unwrap());
}

/// Attributes without bytes of their own: each entry may have as many as its abbreviation, which all share.
#[test]
fn entries_that_share_countless_attributes_take_no_quadratic_time() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("many.s"), dir.path().join("many"));
    // DW_AT_lo_user + 0x1ffe, DW_FORM_flag_present.
    let countless = ".rept 50000\n.uleb128 0x3ffe\n.byte 0x19\n.endr\n";
    let function = ".byte 0x2e,0,3,8,0x11,1,0x12,0x0f\n";
    let mut text = String::from(".text\n.globl _start\n_start: ret\n.fill 4000,1,0x90\n");
    text.push_str(".section .debug_abbrev,\"\",@progbits\n");
    for (name, unit_has, function_has) in [("a", countless, ""), ("b", "", countless)] {
        text.push_str(&format!(".Labbrev_{name}:\n.byte 1,0x11,1,0x11,1,0x12,0x0f\n{unit_has}.byte 0,0\n"));
        text.push_str(&format!(".byte 2\n{function}{function_has}.byte 0,0,0\n"));
    }
    text.push_str(".section .debug_info,\"\",@progbits\n");
    for name in ["a", "b"] {
        text.push_str(&format!(
            ".long .Lend_{name}-.Lstart_{name}\n.Lstart_{name}: .short 4\n.long .Labbrev_{name}\n.byte 8\n"
        ));
        text.push_str(".byte 1\n.quad _start\n.uleb128 4000\n");
        text.push_str(".rept 50000\n.byte 2\n.asciz \"f\"\n.quad _start\n.uleb128 1\n.endr\n");
        text.push_str(&format!(".byte 0\n.Lend_{name}:\n"));
    }
    std::fs::write(&source, text).unwrap();
    common::run(std::process::Command::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source));
    let bytes = std::fs::read(&program).unwrap();
    exercise(bytes);
    let stripped = dir.path().join("stripped");
    let mut objcopy = std::process::Command::new("objcopy");
    common::run(objcopy.args(["--strip-all", "--keep-section=.debug_*"]).arg(&program).arg(&stripped));
    let took = took(|| {
        let found = Index::with_debug(Arc::new(Binary::open(&stripped).unwrap()), &DebugSearch::default());
        assert!(found.is_err(), "no real function has so many attributes");
    });
    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn a_hundred_thousand_symbols_of_one_name_take_no_quadratic_time() {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("many.s"), dir.path().join("many"));
    let mut text = String::from(".text\n.globl _start\n_start: ret\n");
    for i in 0..100_000 {
        // The same name for all, as local symbols of one file cannot have: renamed below.
        text.push_str(&format!(".type s{i:05},@function\ns{i:05}: nop\n.size s{i:05},1\n"));
    }
    for i in 0..20_000 {
        text.push_str(&format!(".type t{i:05}.cold,@function\n.set t{i:05}.cold, _start\n"));
    }
    std::fs::write(&source, text).unwrap();
    common::run(std::process::Command::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(&object).arg(&source));
    let mut bytes = std::fs::read(&object).unwrap();
    let names = bytes.windows(7).position(|w| w == b"s00000\0").unwrap();
    for at in (names..bytes.len()).step_by(7).take(100_000) {
        if bytes[at] == b's' {
            bytes[at..at + 6].copy_from_slice(b"same\0x");
        }
    }
    assert_eq!(bytes.windows(5).filter(|w| w == b"same\0").count(), 100_000);
    exercise(bytes);
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_an_error(text in "\\PC{0,40}") {
        let _ = text.parse::<Pattern>();
    }

    #[test]
    fn text_that_looks_like_names_is_a_pattern_or_an_error(text in "[a-z:<>(){}\\[\\]*?,.\\\\/@!+0x# &~-]{0,60}") {
        let _ = text.parse::<Pattern>();
    }
}
