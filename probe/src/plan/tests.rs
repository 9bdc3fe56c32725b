//! Plans of small programs made by gcc here.

use std::{path::PathBuf, process::Command};

use super::*;

struct Program {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// Compiles C with gcc -O2 and these options.
fn compile(source: &str, options: &[&str]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let (code, path) = (folder.path().join("p.c"), folder.path().join("p"));
    std::fs::write(&code, source).unwrap();
    let mut gcc = Command::new("gcc");
    let status = gcc.arg("-O2").args(options).arg("-o").arg(&path).arg(&code).status().expect("gcc is installed");
    assert!(status.success());
    Program { _folder: folder, path }
}

fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().expect("binutils are installed");
    assert!(output.status.success(), "{command} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn plan_of(program: &Program, pattern: &str, returns: Returns) -> Result<Plan> {
    let file = TracedFile::open(&program.path, "p")?;
    plan(&[file], &[pattern.parse().unwrap()], Options { all: false, returns, thorough: false })
}

/// `step` keeps a frame, and its cold path, moved away as gcc moves it, returns by itself.
const SPLIT: &str = r#"
__asm__(".text\n.globl step\n.type step,@function\nstep: .cfi_startproc\n push %rbx\n .cfi_def_cfa_offset 16\n"
    "cmp $7,%rdi\n je step.cold\n lea 1(%rdi),%rax\n pop %rbx\n .cfi_def_cfa_offset 8\n ret\n.cfi_endproc\n.size step,.-step\n"
    ".section .text.unlikely,\"ax\"\n.type step.cold,@function\nstep.cold: .cfi_startproc\n.cfi_def_cfa_offset 16\n"
    "xor %eax,%eax\n pop %rbx\n .cfi_def_cfa_offset 8\n ret\n.cfi_endproc\n.size step.cold,.-step.cold\n.text\n");
long step(long);
int main(int n, char **a) { long sum = 0; for (int i = 0; i < 100; i++) sum += step(i + n); return sum == 1; }
"#;

/// A function with a name, a frame and a callee.
const COLD: &str = r#"
#include <stdio.h>
__attribute__((cold, noinline)) void complain(long *p) { printf("%ld\n", *p); }
__attribute__((noinline)) long step(long n) {
    long kept[4] = { n, n, n, n };
    __asm__ volatile("" : : "r"(kept) : "memory", "rbx", "rbp");
    if (__builtin_expect(n == 7, 0)) { complain(kept); return kept[1]; }
    return kept[2] + 1;
}
int main(int n, char **a) { long sum = 0; for (int i = 0; i < 100; i++) sum += step(i + n); return sum == 1; }
"#;

#[test]
fn a_part_that_only_the_unwind_tables_know_has_its_exits_probed() {
    let program = compile(SPLIT, &["-rdynamic"]);
    let path = program.path.to_str().unwrap();
    let symbols = run("nm", &["-S", path]);
    let cold = symbols.lines().find(|line| line.ends_with(" step.cold")).expect("it is named");
    let mut words = cold.split(' ').map(|word| u64::from_str_radix(word, 16));
    let (start, size) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
    let with_symbols = plan_of(&program, "step", Returns::Ret).unwrap();
    run("strip", &[path]);
    let stripped = plan_of(&program, "step", Returns::Ret).unwrap();
    let offsets = |plan: &Plan| {
        let exits = plan.points.iter().filter(|p| p.kind == PointKind::Return);
        exits.map(|p| p.offset.0).collect::<Vec<u64>>()
    };
    // Text is mapped at its own offset in such a small program.
    assert!(offsets(&stripped).iter().any(|o| (start..start + size).contains(o)), "{stripped:?}");
    assert_eq!(offsets(&stripped), offsets(&with_symbols));
    assert!(!stripped.functions[0].unprobed_jumps);
}

#[test]
fn a_tail_call_into_the_linkage_table_is_a_probed_exit_like_any_other() {
    let source = "#include <stdio.h>\n__attribute__((noinline)) int say(const char *s) { return puts(s); }\n\
                  int main(int n, char **a) { for (int i = 0; i < n; i++) say(a[i]); return 0; }";
    let program = compile(source, &["-fcf-protection=none"]);
    let plan = plan_of(&program, "say", Returns::Ret).unwrap();
    let exits: Vec<PointKind> = plan.points.iter().map(|p| p.kind).filter(|k| *k != PointKind::Entry).collect();
    assert_eq!(exits, [PointKind::TailJump]);
    assert!(!plan.functions[0].unprobed_jumps);
}

#[test]
fn uretprobes_sit_where_the_entries_do_and_replace_exits() {
    let program = compile(COLD, &[]);
    let plan = plan_of(&program, "step", Returns::Uretprobe).unwrap();
    let kinds: Vec<PointKind> = plan.points.iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [PointKind::Entry, PointKind::AfterReturn]);
    assert_eq!(plan.points[0].offset, plan.points[1].offset);
}

#[test]
fn without_returns_a_function_is_one_point() {
    let program = compile(COLD, &[]);
    let plan = plan_of(&program, "step", Returns::None).unwrap();
    assert_eq!(plan.points.len(), 1);
}

#[test]
fn a_pattern_that_matches_nothing_names_what_comes_near() {
    let program = compile(COLD, &[]);
    let error = plan_of(&program, "stepp", Returns::Ret).unwrap_err().to_string();
    assert!(error.starts_with("no function matches 'stepp' in p"), "{error}");
    assert!(error.contains("\n  step"), "{error}");
}

#[test]
fn an_address_amid_an_instruction_is_refused_with_the_reason() {
    let program = compile(COLD, &[]);
    let error = plan_of(&program, "step+0x1", Returns::Ret);
    let listing = run("objdump", &["-d", "--no-show-raw-insn", program.path.to_str().unwrap()]);
    let at = listing.lines().skip_while(|l| !l.ends_with("<step>:")).nth(2).expect("a second instruction");
    let second = u64::from_str_radix(at.trim().split(':').next().unwrap(), 16).unwrap();
    let first = listing.lines().find(|l| l.ends_with("<step>:")).and_then(|l| l.split(' ').next()).unwrap();
    let length = second - u64::from_str_radix(first, 16).unwrap();
    match (error, length) {
        (Ok(plan), 1) => assert_eq!(plan.points[0].kind, PointKind::Passed),
        (Err(error), _) => assert!(error.to_string().contains("inside an instruction"), "{error}"),
        (Ok(plan), length) => panic!("an instruction of {length} bytes was split: {plan:?}"),
    }
}

/// Calls, and the libraries that unwind for them.
fn watched(program: &Program) -> Plan {
    let file = TracedFile::open(&program.path, "p").unwrap();
    let options = Options { all: false, returns: Returns::Ret, thorough: false };
    let mut plan = plan(std::slice::from_ref(&file), &["*".parse().unwrap()], options).unwrap();
    let libraries = crate::target::unwinders::find(std::slice::from_ref(&file), &[], true).files;
    plan.watch_unwinders(std::slice::from_ref(&file), &libraries);
    plan
}

fn internal(plan: &Plan, kind: PointKind) -> Vec<&str> {
    let points = plan.points.iter().filter(|point| point.kind == kind);
    let mut files: Vec<&str> = points.map(|point| plan.files[point.file].shown.as_str()).collect();
    files.dedup();
    files
}

#[test]
fn longjmp_is_watched_for_programs_that_use_it_and_no_others() {
    let source = "#include <setjmp.h>\njmp_buf b;\n__attribute__((noinline)) void f(void) { longjmp(b, 1); }\n\
                  int main(void) { if (!setjmp(b)) f(); return 0; }";
    let plan = watched(&compile(source, &[]));
    let [library] = internal(&plan, PointKind::LongJump)[..] else { panic!("{plan:?}") };
    assert!(library.contains("/libc.so"), "{library}");
    assert!(plan.unwatched.is_empty(), "{:?}", plan.unwatched);
    let plan = watched(&compile(COLD, &[]));
    assert!(plan.points.iter().all(|point| point.function != NO_FUNCTION), "{plan:?}");
    assert!(plan.unwatched.is_empty(), "{:?}", plan.unwatched);
}

#[test]
fn a_program_that_can_unwind_and_has_no_known_unwinder_is_said() {
    let plan = watched(&compile(COLD, &["-x", "c++"]));
    assert_eq!(plan.unwatched, ["no unwinder was found, neither in the program nor in what it needs"]);
    let plan = watched(&compile(COLD, &["-x", "c++", "-Wl,--no-as-needed", "-lgcc_s"]));
    let [library] = internal(&plan, PointKind::Landing)[..] else { panic!("{plan:?}") };
    assert!(library.contains("/libgcc_s.so"), "{library}");
    assert!(plan.unwatched.is_empty(), "{:?}", plan.unwatched);
}

/// `small` is only inlined; `both` is inlined once and has code of its own.
const INLINED: &str = r#"
#include <stdlib.h>
static inline __attribute__((always_inline)) int small(int x) { return x * atoi("3"); }
int both(int x) { return x * atoi("4"); }
int (*volatile pointer)(int) = both;
__attribute__((noinline)) int outer(int x) { return small(x) + small(x + 1) + both(x); }
int main(int argc, char **argv) { return outer(argc) + pointer(argc); }
"#;

#[test]
fn calls_that_were_inlined_away_are_counted_and_those_of_named_functions_said() {
    let program = compile(INLINED, &["-g"]);
    let inlined = |pattern| plan_of(&program, pattern, Returns::Ret).unwrap().inlined.unwrap();
    let both = inlined("both");
    assert_eq!((both.copies, both.functions, both.only), (1, 1, 0));
    assert_eq!(both.named, ["not seen of both: 1 inlined into outer"]);
    let all = inlined("{both,small,outer}");
    assert_eq!((all.copies, all.functions, all.only, all.named.len()), (1, 1, 1, 0));
    assert_eq!(all.others, ["not seen of both: 1 inlined into outer", "not probeable: small: 2 inlined into outer"]);
    let error = plan_of(&program, "small", Returns::Ret).unwrap_err().to_string();
    assert!(error.contains("2 inlined into outer; not probeable by name"), "{error}");
}

#[test]
fn a_removed_function_takes_its_points_along_and_the_rest_is_numbered_anew() {
    let program = compile(COLD, &[]);
    let mut plan = plan_of(&program, "{step,complain,main}", Returns::Ret).unwrap();
    let before = plan.functions.len();
    let removed = plan.functions[0].traced.name.clone();
    plan.remove(&BTreeSet::from([0]), |function| Skipped { function, reason: "test".to_owned() });
    assert_eq!(plan.functions.len(), before - 1);
    assert_eq!(plan.skipped, [Skipped { function: removed, reason: "test".to_owned() }]);
    for (number, point) in (0_u32..).zip(&plan.points) {
        assert_eq!(point.cookie.point(), number);
        assert!((point.function as usize) < plan.functions.len());
    }
}

const OVERLAPPING: usize = 20_000;

/// Each function is one byte, `instruction`, and all behind it: 200 million bytes to read.
fn overlapping(instruction: &str) -> Program {
    let body: String = (0..OVERLAPPING)
        .map(|n| format!(".globl f{n}\n.type f{n},@function\nf{n}: {instruction}\n.size f{n}, end-f{n}\n"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let (code, path) = (folder.path().join("p.s"), folder.path().join("p"));
    std::fs::write(&code, format!("{body} incl (%rdi)\n ret\nend:\n")).unwrap();
    run("gcc", &["-shared", "-nostdlib", "-o", path.to_str().unwrap(), code.to_str().unwrap()]);
    Program { _folder: folder, path }
}

const SHARED: &str = "it shares its code with so many other functions";

#[test]
fn functions_that_overlap_each_other_whole_are_skipped_beyond_a_bound_on_what_is_read() {
    let plan = plan_of(&overlapping("nop"), "f*", Returns::Ret).unwrap();
    assert_eq!((plan.matched, plan.functions.len() + plan.skipped.len()), (OVERLAPPING as u64, OVERLAPPING));
    assert!(plan.functions.len() > 100 && plan.skipped.len() > OVERLAPPING / 2, "{}", plan.skipped.len());
    assert!(plan.skipped.iter().all(|skipped| skipped.reason.starts_with(SHARED)), "{:?}", plan.skipped[0]);
}

/// Whether there is another place for the probe, the rest of the function tells.
#[test]
fn whether_such_functions_can_be_probed_is_found_out_within_the_same_bound() {
    let program = overlapping("lock");
    let file = TracedFile::open(&program.path, "p").unwrap();
    let matches = file.index.select(&["f*".parse().unwrap()], false).matches;
    assert_eq!(matches.len(), OVERLAPPING);
    let reading = Reading::of(file.index.binary());
    let reasons = matches.iter().map(|found| match probeable(&file.index, &found.what, &reading) {
        Probeable::Yes => panic!("{} begins with a prefix that no probe may be put on", found.name),
        Probeable::No(reason) => reason,
    });
    let unread = reasons.filter(|reason| reason.starts_with(SHARED)).count();
    assert!((OVERLAPPING / 2..OVERLAPPING - 100).contains(&unread), "{unread}");
}

/// Jumps away through a pointer, as glibc's and others' do.
const JUMPS: &str = "int (*to)(int);\n__attribute__((noinline)) int step(int n) { return to(n + 1); }\n\
                     __attribute__((noinline)) int other(int n) { return n * 3; }\n\
                     int main(int n, char **a) { to = other; return step(n); }";

#[test]
fn what_comes_later_is_appended_whole_behind_what_was_there() {
    let (first, second) = (compile(JUMPS, &[]), compile(JUMPS, &["-DSECOND"]));
    let patterns = ["step".parse().unwrap(), "oth*".parse().unwrap()];
    let options = Options { all: false, returns: Returns::Ret, thorough: false };
    let open = |program: &Program| TracedFile::open(&program.path, "p").unwrap();
    let files = [open(&first), open(&second)];
    let expected = plan(&files, &patterns, options).unwrap();
    let mut grown = plan(&files[..1], &patterns, options).unwrap();
    let alone = plan_alone(&files[1], &patterns, options, grown.go_programs.clone());
    let before = (grown.functions.len(), grown.points.len(), grown.jumps.len());
    let added = grown.append(alone, &[1]);
    assert_eq!((added.functions.start, added.points.start, added.jumps.start), before);
    assert_eq!(added.points.end, grown.points.len());
    // The same as if both had been planned at once.
    for (grown, expected) in grown.points.iter().zip(&expected.points) {
        assert_eq!(format!("{grown:?}"), format!("{expected:?}"));
    }
    assert!(!added.jumps.is_empty() && grown.jumps == expected.jumps, "{:?} {:?}", grown.jumps, expected.jumps);
    assert_eq!((grown.functions.len(), grown.matched), (expected.functions.len(), expected.matched));
    assert_eq!(grown.files, expected.files);
}

#[test]
fn what_unwinds_for_both_is_watched_once() {
    let source = "#include <setjmp.h>\njmp_buf b;\n__attribute__((noinline)) void f(void) { longjmp(b, 1); }\n\
                  int main(void) { if (!setjmp(b)) f(); return 0; }";
    let program = compile(source, &[]);
    let (mut grown, added) = (watched(&program), watched(&program));
    let count = |plan: &Plan| plan.points.iter().filter(|point| point.kind == PointKind::LongJump).count();
    let before = count(&grown);
    // The program is a new file, its libraries are known.
    let positions: Vec<usize> = [grown.files.len()].into_iter().chain(1..added.files.len()).collect();
    grown.append(added, &positions);
    assert!(before > 0);
    assert_eq!(count(&grown), before);
}

#[test]
fn an_address_is_one_of_the_file_that_was_there_and_says_nothing_of_the_next() {
    let program = compile(COLD, &[]);
    let file = TracedFile::open(&program.path, "p").unwrap();
    let options = Options { all: false, returns: Returns::Ret, thorough: false };
    let listing = run("nm", &[program.path.to_str().unwrap()]);
    let line = listing.lines().find(|line| line.ends_with(" step")).unwrap();
    let address = format!("0x{}", line.split(' ').next().unwrap());
    let matched = |patterns: &[&str]| {
        let patterns: Vec<Pattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        plan_alone(&file, &patterns, options, Vec::new()).matched
    };
    assert_eq!(matched(&[&address]), 0);
    assert_eq!(matched(&[&address, "!main"]), 0, "a negation alone would mean everything else");
    assert_eq!(matched(&[&address, "main"]), 1);
}
