//! AArch64 code of cross-compilers (C, Go, a static glibc), with `aarch64-linux-gnu-objdump` as the oracle: the same
//! returns, jumps out of functions, and Go's stack checks. Nothing of it is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::addr::Vaddr;
use symbols::binary::{Binary, Machine};
use symbols::code::{Body, EntryCost, ExitKind, JumpOperand, Place, Refusal, Shape, calls_to, place, refusal, shape};
use symbols::index::Index;

mod common;
use common::run;

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
typedef int (*fn)(int);
__attribute__((noipa)) int leaf(int a, int b) { return a * b + 3; }
__attribute__((noipa)) int tail(int a) { return leaf(a + 1, 2); }
__attribute__((noipa)) int through(fn f, int a) { return f(a); }
__attribute__((noipa)) int framed(int n) { volatile int v[64]; for (int i = 0; i < n; i++) v[i % 64] = i; return v[3] + leaf(n, n); }
__attribute__((noipa)) int choose(int a, int b) {
  switch (a) { case 0: return leaf(b, 1) + 1; case 1: return leaf(b, 9) + 7; case 2: return b * 3; case 3: return b - 9;
    case 4: return b ^ 5; case 5: return leaf(b, 2) * 2; case 6: abort(); case 7: return leaf(b, 4) - 8;
    case 8: return leaf(b, 5) * b; case 9: return leaf(b, 6) / 3; case 10: return leaf(b, 7) + 4; case 11: return b & 6;
    case 12: return leaf(a, b) ^ 1; case 13: return leaf(b, 8) - b; default: return 0; }
}
static int plain(int a) { return a; }
int main(int n, char **v) { (void)v; printf("%d", leaf(n, 2) + tail(n) + through(plain, n) + framed(n) + choose(n, n)); }
"#;

fn compile(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let (source, out) = (dir.join("arm.c"), dir.join(name));
    std::fs::write(&source, C).expect("written");
    run(Command::new("aarch64-linux-gnu-gcc").args(options).arg("-o").arg(&out).arg(&source));
    out
}

/// objdump's instructions by address: mnemonic and operands.
struct Listing(BTreeMap<u64, (String, String)>);

impl Listing {
    fn of(file: &Path) -> Self {
        let text = run(Command::new("aarch64-linux-gnu-objdump")
            .args(["-d", "--no-show-raw-insn", "-M", "no-aliases"])
            .arg(file));
        let lines = text.lines().filter_map(|line| {
            let (address, text) = line.trim_start().split_once(":\t")?;
            let (mnemonic, operands) = text.split_once('\t').unwrap_or((text, ""));
            Some((u64::from_str_radix(address, 16).ok()?, (mnemonic.trim().to_owned(), operands.trim().to_owned())))
        });
        Self(lines.collect())
    }

    fn of_function<'a>(&'a self, f: &Found) -> impl Iterator<Item = (u64, &'a str, &'a str)> {
        self.0.range(f.start..f.end).map(|(&at, (mnemonic, operands))| (at, mnemonic.as_str(), operands.as_str()))
    }
}

/// The address in `b 400580 <leaf>`, `cbz x0, 400580 <leaf+0x8>`.
fn target(operands: &str) -> u64 {
    let before = operands.split(" <").next().unwrap_or_default();
    let last = before.rsplit([',', ' ', '\t']).next().unwrap_or_default();
    u64::from_str_radix(last.trim_start_matches("0x"), 16).unwrap_or_else(|e| panic!("{e}: {operands}"))
}

struct Found {
    name: String,
    start: u64,
    end: u64,
    shape: Shape,
}

/// All functions of a file with their shapes; parts of functions are none.
fn functions(file: &Path) -> Vec<Found> {
    let index = Index::new(Binary::open(file).expect("readable").into()).expect("it has symbols");
    let binary = index.binary();
    assert_eq!(binary.machine(), Machine::Aarch64);
    let mut found = Vec::new();
    for function in index.functions().filter(|f| f.size > 0) {
        let Some(code) = binary.bytes_at(function.address, function.size) else { continue };
        let body = Body {
            machine: binary.machine(),
            address: function.address,
            code,
            parts: Vec::new(),
            is_go: function.language == symbols::index::Language::Go,
            go_asm: function.go_asm,
        };
        let shape = shape(&body, &|v| index.starts_function(v));
        let (start, end) = (function.address.0, function.address.0 + function.size);
        found.push(Found { name: function.name.to_owned(), start, end, shape });
    }
    found
}

/// Returns, jumps and conditional jumps out of each function are what objdump shows.
fn agree(file: &Path) -> usize {
    let (functions, listing) = (functions(file), Listing::of(file));
    for f in &functions {
        let inside = |at: u64| (f.start..f.end).contains(&at);
        let refused: Vec<u64> = f.shape.refused_exits.iter().map(|(at, _)| at.0).collect();
        let (mut returns, mut jumps) = (Vec::new(), Vec::new());
        for (at, mnemonic, operands) in listing.of_function(f) {
            match mnemonic {
                "ret" => returns.push(at),
                "retaa" | "retab" => assert!(refused.contains(&at), "{}: {at:x} {mnemonic}", f.name),
                "b" if !inside(target(operands)) => jumps.push((at, target(operands))),
                "cbz" | "cbnz" | "tbz" | "tbnz" if !inside(target(operands)) => assert!(f.shape.unprobed_jumps),
                _ if mnemonic.starts_with("b.") && !inside(target(operands)) => assert!(f.shape.unprobed_jumps),
                _ => {}
            }
        }
        let found = f.shape.exits.iter().filter(|e| e.kind == ExitKind::Return).map(|e| e.address.0);
        assert_eq!(found.collect::<Vec<_>>(), returns, "returns of {}", f.name);
        let direct = f.shape.exits.iter().filter_map(|e| match e.kind {
            ExitKind::TailJump { target, .. } => Some((e.address.0, target.0)),
            _ => None,
        });
        // Those to code without a name that are no calls, with a frame on the stack, are told as strays.
        let strays: Vec<u64> = f.shape.strays.iter().map(|v| v.0).collect();
        let jumps: Vec<_> = jumps.into_iter().filter(|(_, target)| !strays.contains(target)).collect();
        assert_eq!(direct.collect::<Vec<_>>(), jumps, "jumps out of {}", f.name);
    }
    functions.len()
}

fn named<'a>(functions: &'a [Found], name: &str) -> &'a Found {
    functions.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name} is compiled in"))
}

#[test]
fn compiled_c_and_a_whole_c_library_agree_with_objdump() {
    let dir = tempfile::tempdir().expect("a directory");
    for (n, options) in [
        &["-O0"][..],
        &["-O2"],
        &["-O2", "-mbranch-protection=standard"],
        &["-O2", "-march=armv8.3-a", "-mbranch-protection=standard"],
        &["-Os", "-fno-pie", "-no-pie"],
    ]
    .iter()
    .enumerate()
    {
        assert!(agree(&compile(dir.path(), &format!("c{n}"), options)) > 5, "{options:?}");
    }
    let number = agree(&compile(dir.path(), "static", &["-O2", "-static"]));
    assert!(number > 500, "{number}");
}

#[test]
fn tail_calls_are_exits_and_jump_tables_are_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = compile(dir.path(), "tail", &["-O2"]);
    let (functions, listing) = (functions(&file), Listing::of(&file));
    let kinds = |name: &str| named(&functions, name).shape.exits.iter().map(|e| e.kind).collect::<Vec<_>>();
    let leaf = Vaddr(named(&functions, "leaf").start);
    assert_eq!(kinds("tail"), [ExitKind::TailJump { target: leaf, condition: None }]);
    assert!(matches!(
        kinds("through")[..],
        [ExitKind::IndirectJump { operand: JumpOperand::Register(register) }] if register < 31
    ));
    let choose = named(&functions, "choose");
    let by_register = listing.of_function(choose).filter(|(_, mnemonic, _)| *mnemonic == "br").count();
    assert_eq!(by_register, 1, "the compiler made a jump table");
    assert!(!kinds("choose").iter().any(|kind| matches!(kind, ExitKind::IndirectJump { .. })));
    assert!(!choose.shape.unprobed_jumps, "all ways out are known");
}

#[test]
fn the_places_of_go_functions_are_behind_their_stack_checks() {
    let dir = tempfile::tempdir().expect("a directory");
    common::write_go_program(dir.path(), false);
    let file = dir.path().join("arm");
    run(common::go(dir.path()).env("GOARCH", "arm64").args(["build", "-o"]).arg(&file).arg("."));
    assert!(agree(&file) > 1500);
    let (functions, listing) = (functions(&file), Listing::of(&file));
    let mut checked = 0;
    for f in &functions {
        let mut code = listing.of_function(f);
        let Some((first, mnemonic, operands)) = code.next() else { continue };
        let guard = mnemonic == "ldr" && ["x16, [x28, #16]", "x16, [x28, #24]"].contains(&operands);
        let Ok(entry) = &f.shape.entry else { continue };
        if guard {
            checked += 1;
            let slow = code.find(|(_, mnemonic, _)| *mnemonic == "b.ls").expect("a check ends with a branch").0;
            assert_eq!(entry.address.0, slow + 4, "{}", f.name);
            // Where the slow path comes back the place is not passed twice.
            let loops = code.any(|(at, m, o)| at > slow && m == "b" && target(o) == first && at < f.end - 8);
            assert!(loops || !entry.may_repeat, "{}", f.name);
        } else {
            assert_eq!(entry.address.0, f.start, "{}", f.name);
        }
    }
    assert!(checked > 1000, "{checked} functions with a stack check");
}

/// Assembles, and gives back the words.
fn assembled(lines: &[&str]) -> Vec<[u8; 4]> {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, object, raw) = (dir.path().join("a.s"), dir.path().join("a.o"), dir.path().join("a.bin"));
    std::fs::write(&source, format!(".arch armv8.5-a\nlabel:\n{}\n", lines.join("\n"))).expect("written");
    run(Command::new("aarch64-linux-gnu-as").arg("-o").args([&object, &source]));
    run(Command::new("aarch64-linux-gnu-objcopy").args(["-O", "binary", "-j", ".text"]).args([&object, &raw]));
    let bytes = std::fs::read(raw).expect("written");
    bytes.chunks_exact(4).map(|word| word.try_into().expect("four bytes")).collect()
}

fn of(code: &[u8]) -> Body<'_> {
    let parts = Vec::new();
    Body { machine: Machine::Aarch64, address: Vaddr(0x1000), code, parts, is_go: false, go_asm: false }
}

/// Linux: arch/arm64/kernel/probes/decode-insn.c.
#[test]
fn what_the_kernel_refuses_simulates_or_steps() {
    let simulated = [
        "b label",
        "bl label",
        "b.eq label",
        "cbz x0, label",
        "cbnz w1, label",
        "tbz x2, #3, label",
        "tbnz w2, #3, label",
        "br x16",
        "blr x1",
        "ret",
        "ret x1",
        "adr x0, label",
        "adrp x0, label",
        "ldr x0, label",
        "ldr w0, label",
        "ldrsw x0, label",
        "nop",
    ];
    let stepped = [
        "stp x29, x30, [sp, #-32]!",
        "sub sp, sp, #64",
        "mov x0, x1",
        "ldr x0, [x1]",
        "paciasp",
        "bti c",
        "bti jc",
        "mrs x0, tpidr_el0",
        "add v0.4s, v1.4s, v2.4s",
        "str d8, [sp, #-16]!",
        "ldadd x0, x1, [x2]",
        "dmb ish",
    ];
    let refused = [
        "ldxr x0, [x1]",
        "stxr w0, x1, [x2]",
        "ldaxp x0, x1, [x2]",
        "ldar x0, [x1]",
        "stlr x0, [x1]",
        "svc #0",
        "brk #1",
        "hlt #1",
        "udf #0",
        "msr tpidr_el0, x0",
        "msr daifset, #2",
        "autiasp",
        "wfe",
        "yield",
        "sevl",
        "retaa",
        "retab",
        "braa x0, x1",
        "blraaz x0",
        "prfm pldl1keep, label",
        "ldr d0, label",
        "ldr q0, label",
        "ldr s0, label",
    ];
    for (lines, expected) in
        [(&simulated[..], Ok(EntryCost::Emulated)), (&stepped[..], Ok(EntryCost::SingleStep)), (&refused[..], Err(()))]
    {
        let words = assembled(lines);
        assert_eq!(words.len(), lines.len());
        for (line, word) in lines.iter().zip(words) {
            let shape = shape(&of(&word), &|_| true);
            let cost = shape.entry.map(|entry| entry.cost);
            assert_eq!(cost.map_err(|_| ()), expected, "{line}");
            assert_eq!(refusal(Machine::Aarch64, &word, Vaddr(0x1000)).is_ok(), expected.is_ok(), "{line}");
        }
    }
}

#[test]
fn a_call_has_its_target_and_instructions_begin_at_multiples_of_four() {
    let words = assembled(&["nop", "bl label", "bl . + 8", "ret"]).concat();
    let body = of(&words);
    assert_eq!(calls_to(Machine::Aarch64, &words, body.address, Vaddr(0x1000)), [Vaddr(0x1004)]);
    assert_eq!(calls_to(Machine::Aarch64, &words, body.address, Vaddr(0x1010)), [Vaddr(0x1008)]);
    let starts = (0xff0..0x1020).filter(|&v| place(&body, Vaddr(v)) == Place::Start);
    assert_eq!(starts.collect::<Vec<_>>(), [0x1000, 0x1004, 0x1008, 0x100c]);
    assert_eq!(refusal(Machine::Aarch64, &words[2..], Vaddr(0x1002)), Err(Refusal::Undecodable));
}

#[test]
fn cut_code_of_any_length_is_no_panic() {
    let words = assembled(&["stp x29, x30, [sp, #-16]!", "cbz x0, label", "b . + 64", "br x0", "ret"]).concat();
    for len in 0..words.len() {
        let shape = shape(&of(&words[..len]), &|_| false);
        assert_eq!(shape.entry.is_ok(), len >= 4, "{len} bytes");
    }
}
