//! Compiled functions, with `objdump -d` as the oracle: the same instruction boundaries, the same returns, and entry
//! places that its text shows to be right. Needs gcc, objdump and Go (`PROBE_TEST_GO`, else `.testdeps/go1.27`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::code::{Body, EntryCost, ExitKind, JumpOperand, Place, Shape, place, shape};

const C: &str = r"
#include <stdlib.h>
typedef int (*fn)(int);
extern int other(int), printf(const char *, ...);
extern void grow(int *);
__attribute__((noinline)) int leaf(int a, int b) { return a * b + 3; }
__attribute__((noinline)) int tail(int a) { return other(a + 1); }
__attribute__((noinline)) int maybe_tail(int a) { if (a > 3) return other(a); return a * 7; }
__attribute__((noinline)) int through(fn f, int a) { return f(a); }
__attribute__((noinline)) int framed(int n) { int v[64]; for (int i = 0; i < n; i++) v[i % 64] = i; grow(v); return v[3]; }
__attribute__((noinline)) long loop(long *p, long n) { long s = 0; do { s += *p++; } while (--n); return s; }
__attribute__((noinline)) int choose(int a, int b) {
  switch (a) { case 0: return b + 1; case 1: return other(b); case 2: return b * 3; case 3: return b - 9;
    case 4: return b ^ 5; case 5: return leaf(b, 2); case 6: abort(); default: return 0; }
}
__attribute__((noinline)) int recursive(int n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
__attribute__((noinline)) int cold(int n) { if (__builtin_expect(n < 0, 0)) { printf(`bad %d`, n); exit(1); } return n + other(n); }
__attribute__((noinline)) double floats(double a, double b) { return a / b + other((int)a); }
int main(int n, char **v) { (void)v; return leaf(n, 2) + tail(n) + maybe_tail(n) + through(other, n) + framed(n)
  + choose(n, n) + recursive(n) + cold(n) + (int)floats(n, 2) + (int)loop((long[]){1, 2}, 2); }
";
const OTHER: &str = "int other(int a) { return a; } void grow(int *v) { v[3]++; }";

struct Line {
    text: String,
}

/// objdump's instructions by address.
type Listing = BTreeMap<u64, Line>;

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn objdump(file: &Path) -> Listing {
    let text = run(Command::new("objdump").args(["-d", "--no-show-raw-insn", "-w"]).arg(file));
    let lines = text.lines().filter_map(|line| {
        let (address, text) = line.strip_prefix(' ')?.trim_start().split_once(":\t")?;
        Some((u64::from_str_radix(address, 16).ok()?, Line { text: text.trim().to_owned() }))
    });
    lines.collect()
}

/// Functions by address: (name, size), from nm.
fn nm(file: &Path) -> BTreeMap<u64, (String, u64)> {
    let text = run(Command::new("nm").args(["-S", "--defined-only"]).arg(file));
    let functions = text.lines().filter_map(|line| {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [address, size, kind, name] = parts[..] else { return None };
        let number = |s: &str| u64::from_str_radix(s, 16).ok();
        "tTwW".contains(kind).then_some(())?;
        Some((number(address)?, (name.to_owned(), number(size).filter(|&s| s > 0)?)))
    });
    functions.collect()
}

struct Function {
    name: String,
    start: u64,
    end: u64,
    shape: Shape,
}

/// Checks boundaries and returns of `body` against the listing, and gives its shape.
fn check(name: &str, body: &Body<'_>, listing: &Listing, starts: &dyn Fn(Vaddr) -> bool) -> Function {
    let (start, end) = (body.address.0, body.address.0 + body.code.len() as u64);
    // Each question reads the function from its start: of a long one, ask about its beginning.
    let asked = start..end.min(start + 400);
    let shown: BTreeSet<u64> = listing.range(asked.clone()).map(|(&a, _)| a).collect();
    let ours: BTreeSet<u64> = asked.filter(|&v| place(body, Vaddr(v)) == Place::Start).collect();
    assert_eq!(ours, shown, "instruction boundaries of {name}");
    let shape = shape(body, starts);
    let is_return = |text: &str| ["ret", "repz ret", "bnd ret"].iter().any(|r| text == *r || text.starts_with("ret "));
    let returns: Vec<u64> =
        listing.range(start..end).filter(|(_, line)| is_return(&line.text)).map(|(&a, _)| a).collect();
    let found = shape.exits.iter().filter(|e| e.kind == ExitKind::Return && (start..end).contains(&e.address.0));
    assert_eq!(found.map(|e| e.address.0).collect::<Vec<_>>(), returns, "returns of {name}");
    Function { name: name.to_owned(), start, end, shape }
}

fn compile(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let (main, other, out) = (dir.join("main.c"), dir.join("other.c"), dir.join(name));
    std::fs::write(&main, C.replace('`', "\"")).expect("written");
    std::fs::write(&other, OTHER).expect("written");
    run(Command::new("gcc").args(options).arg("-o").arg(&out).args([&main, &other]));
    out
}

fn c_functions(file: &Path) -> (Vec<Function>, Listing) {
    let (listing, symbols) = (objdump(file), nm(file));
    let binary = Binary::open(file).expect("readable");
    let is_part = |name: &str| name.ends_with(".cold");
    let starts = |v: Vaddr| symbols.get(&v.0).is_some_and(|(name, _)| !is_part(name)) || !symbols.contains_key(&v.0);
    let mut functions = Vec::new();
    for (&address, (name, size)) in symbols.iter().filter(|(_, (name, _))| !is_part(name)) {
        let bytes = |v: u64, len: u64| binary.bytes_at(Vaddr(v), len).expect("in the file");
        let cold = symbols.iter().find(|(_, (part, _))| *part == format!("{name}.cold"));
        let parts = cold.map(|(&v, (_, len))| (Vaddr(v), bytes(v, *len))).into_iter().collect();
        let body = Body {
            machine: binary.machine(),
            address: Vaddr(address),
            code: bytes(address, *size),
            parts,
            is_go: false,
            go_asm: false,
        };
        functions.push(check(name, &body, &listing, &starts));
    }
    (functions, listing)
}

/// objdump's text from the entry up to the probe: nothing before it may move the stack or leave.
fn passed_over<'a>(f: &Function, listing: &'a Listing) -> Vec<&'a str> {
    let place = f.shape.entry.as_ref().expect("compiled code has an entry place").address.0;
    listing.range(f.start..place).map(|(_, line)| line.text.as_str()).collect()
}

#[test]
fn compiled_c_agrees_with_objdump() {
    let dir = tempfile::tempdir().expect("a directory");
    let sets: &[&[&str]] = &[
        &["-O0"],
        &["-O1"],
        &["-O2"],
        &["-O3", "-march=haswell"],
        &["-O2", "-fcf-protection=full"],
        &["-O2", "-fno-pie", "-no-pie"],
        &["-O2", "-fpatchable-function-entry=5"],
        &["-Os", "-static"],
    ];
    for (n, options) in sets.iter().enumerate() {
        let (functions, listing) = c_functions(&compile(dir.path(), &format!("c{n}"), options));
        assert!(functions.len() > 10);
        for f in functions {
            for text in if f.shape.entry.is_ok() { passed_over(&f, &listing) } else { Vec::new() } {
                let moves =
                    ["push", "pop", "call", "jmp", "ret", "leave", "syscall"].iter().any(|m| text.starts_with(m));
                let compares = text.starts_with("test") || text.starts_with("cmp");
                let writes = !compares && ["%rsp", "%rbp", "%rdi"].iter().any(|r| text.ends_with(&format!(",{r}")));
                assert!(!moves && !writes, "{options:?}: {} is probed behind `{text}`", f.name);
            }
        }
    }
}

fn named<'a>(functions: &'a [Function], name: &str) -> &'a Function {
    functions.iter().find(|f| f.name == name).expect("compiled in")
}

#[test]
fn tail_calls_of_compiled_c_are_exits() {
    let dir = tempfile::tempdir().expect("a directory");
    let (functions, _) = c_functions(&compile(dir.path(), "tail", &["-O2", "-fcf-protection=none"]));
    let other = named(&functions, "other").start;
    let to_other = |f: &Function| {
        let hits =
            f.shape.exits.iter().filter(|e| matches!(e.kind, ExitKind::TailJump { target, .. } if target.0 == other));
        hits.count()
    };
    assert_eq!(to_other(named(&functions, "tail")), 1);
    assert_eq!(to_other(named(&functions, "maybe_tail")), 1);
    let through = named(&functions, "through");
    let registers = through
        .shape
        .exits
        .iter()
        .filter(|e| matches!(e.kind, ExitKind::IndirectJump { operand: JumpOperand::Register(_) }));
    assert_eq!(registers.count(), 1);
    // The switch's jump table is read by distance and is no exit.
    let choose = named(&functions, "choose");
    assert!(!choose.shape.exits.iter().any(|e| matches!(e.kind, ExitKind::IndirectJump { .. })));
    // The cold part of `cold` calls exit(): no jump to it is an exit, and nothing is left unprobed.
    assert!(!named(&functions, "cold").shape.unprobed_jumps);
    for f in &functions {
        let inside = |v: u64| (f.start..f.end).contains(&v);
        let stays = |e: &symbols::code::Exit| matches!(e.kind, ExitKind::TailJump { target, .. } if inside(target.0));
        assert!(!f.shape.exits.iter().any(stays), "{} leaves to itself", f.name);
    }
}

#[test]
fn frame_setup_is_emulated_with_cet_and_without() {
    let dir = tempfile::tempdir().expect("a directory");
    for (options, offset) in [(["-O0", "-fcf-protection=none"], 0), (["-O0", "-fcf-protection=full"], 4)] {
        let (functions, _) = c_functions(&compile(dir.path(), &format!("frame{offset}"), &options));
        for name in ["leaf", "tail", "framed", "recursive"] {
            let f = named(&functions, name);
            let entry = f.shape.entry.as_ref().expect("has one");
            assert_eq!((entry.address.0 - f.start, entry.cost), (offset, EntryCost::Emulated), "{name}");
        }
    }
}

fn go_tool() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/go1.27/go/bin/go");
    std::env::var_os("PROBE_TEST_GO").map_or_else(default, PathBuf::from)
}

fn build_go(dir: &Path, args: &[&str]) -> PathBuf {
    std::fs::write(dir.join("go.mod"), "module example.com/shapes\n\ngo 1.19\n").expect("written");
    let source = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"x\") }\n";
    std::fs::write(dir.join("main.go"), source).expect("written");
    let mut go = Command::new(go_tool());
    go.current_dir(dir).env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    run(go.args(["build", "-o", "shapes"]).args(args).arg("."));
    dir.join("shapes")
}

#[test]
fn every_go_function_agrees_with_objdump_and_is_probed_after_its_stack_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = build_go(dir.path(), &[]);
    let listing = objdump(&file);
    let binary = Binary::open(&file).expect("readable");
    let go = binary.go().expect("a Go program");
    let mut checked = 0;
    for f in go.functions(&binary) {
        let Some(code) = binary.bytes_at(f.address, f.size()).filter(|code| !code.is_empty()) else { continue };
        let go_asm = f.flags() & 4 != 0;
        let body = Body { machine: binary.machine(), address: f.address, code, parts: Vec::new(), is_go: true, go_asm };
        if go_asm {
            continue;
        }
        let found = check(f.name(), &body, &listing, &|_| true);
        let Some(after) = after_stack_check(&found, &listing) else { continue };
        let entry = found.shape.entry.expect("has one");
        assert_eq!((entry.address.0, entry.may_repeat), (after, false), "{}", f.name());
        checked += 1;
    }
    assert!(checked > 1000, "only {checked} functions with a stack check");
}

/// The instruction after the `jbe` to a block that calls runtime.morestack, as objdump names it.
fn after_stack_check(f: &Function, listing: &Listing) -> Option<u64> {
    let mut lines = listing.range(f.start..f.end).take(8);
    let (_, branch) = lines.find(|(_, line)| line.text.starts_with("jbe "))?;
    let slow = u64::from_str_radix(branch.text.split_whitespace().nth(1)?, 16).ok()?;
    let morestack = listing.range(slow..f.end).take(16).any(|(_, line)| line.text.contains("runtime.morestack"));
    morestack.then(|| lines.next().map(|(&a, _)| a))?
}
