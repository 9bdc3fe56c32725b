//! Where unwinders enter the frame that they unwound to: gcc's `__builtin_eh_return` in its forms, and the libraries
//! installed here, with objdump as the oracle of what the instructions are.

use std::path::Path;
use std::process::Command;

use symbols::addr::Vaddr;
use symbols::binary::{Binary, Machine};
use symbols::code::{callees, landings, restores_guarded_buffer};
use symbols::unwind::code_range;

const SOURCE: &str = r#"
typedef long (*target)(long);
__attribute__((noinline)) void let_go(long adjustment, void *handler) { __builtin_eh_return(adjustment, handler); }
__attribute__((noinline)) long jumps(target to, long x) { return to(x + 1); }
__attribute__((noinline)) long on_stack(target to, long n) {
    char *room = __builtin_alloca(n);
    room[n - 1] = 1;
    return to((long)room) + room[0];
}
int main(int n, char **a) { (void)a; if (n > 9) let_go(0, main); return jumps((target)main, n) + on_stack((target)main, n); }
"#;

fn run(command: &str, args: &[&str]) -> String {
    let out = Command::new(command).args(args).output().unwrap_or_else(|e| panic!("failed to run {command}: {e}"));
    assert!(out.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// The landings of the function at an address, whose end the unwind tables know.
fn found(binary: &Binary, address: u64) -> Vec<u64> {
    let (start, size) = code_range(binary, Vaddr(address)).expect("unwind tables");
    let code = binary.bytes_at(start, size).expect("code");
    landings(Machine::X86_64, code, start).iter().map(|v| v.0).collect()
}

/// objdump's text of the instruction at an address, and of the few before it.
fn listing(file: &str, address: u64) -> (String, String) {
    let (from, to) = (format!("--start-address={:#x}", address - 64), format!("--stop-address={:#x}", address + 15));
    let text = run("objdump", &["-d", "--no-show-raw-insn", &from, &to, file]);
    let (before, here) = text.split_once(&format!(" {address:x}:\t")).expect("an instruction begins there");
    (here.lines().next().unwrap_or_default().trim().to_owned(), before.to_owned())
}

#[test]
fn an_unwinder_lets_go_at_the_jump_or_return_behind_its_new_stack_pointer_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (source, program) = (folder.path().join("p.c"), folder.path().join("p"));
    std::fs::write(&source, SOURCE).expect("written");
    let (source, program) = (source.to_str().expect("UTF-8"), program.to_str().expect("UTF-8"));
    for options in ["-fcf-protection=none", "-fcf-protection=full", "-fno-omit-frame-pointer"] {
        run("gcc", &["-O2", options, "-o", program, source]);
        let binary = Binary::open(Path::new(program)).expect("an ELF file");
        let at = |name| binary.symbol_value(name).expect("a symbol");
        let [landing] = found(&binary, at("let_go"))[..] else { panic!("{options}: one landing is expected") };
        let (instruction, before) = listing(program, landing);
        assert!(instruction.starts_with("ret") || instruction.contains("jmp"), "{options}: {instruction}");
        assert!(before.contains(",%rsp"), "{options}: {before}");
        for ordinary in ["jumps", "on_stack", "main"] {
            assert_eq!(found(&binary, at(ordinary)), [0_u64; 0], "{options} {ordinary}");
        }
    }
}

#[test]
fn the_installed_unwinder_and_longjmp_let_go_by_an_indirect_jump_to_a_register() {
    let libgcc = run("gcc", &["-print-file-name=libgcc_s.so.1"]);
    let binary = Binary::open(Path::new(libgcc.trim())).expect("libgcc_s is installed");
    for name in ["_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_ForcedUnwind", "_Unwind_Resume_or_Rethrow"] {
        let landings = found(&binary, binary.symbol_value(name).expect("exported"));
        assert_eq!(landings.len(), 1, "{name}: {landings:x?}");
        let (instruction, _) = listing(libgcc.trim(), landings[0]);
        assert!(instruction.contains("jmp") && instruction.contains("*%") || instruction == "ret", "{instruction}");
    }
    let backtrace = found(&binary, binary.symbol_value("_Unwind_Backtrace").expect("exported"));
    assert_eq!(backtrace, [0_u64; 0], "it comes back to its caller");

    let libc = run("gcc", &["-print-file-name=libc.so.6"]);
    let binary = Binary::open(Path::new(libc.trim())).expect("libc is installed");
    for name in ["longjmp", "__longjmp_chk"] {
        let address = Vaddr(binary.symbol_value(name).expect("exported"));
        let (start, size) = code_range(&binary, address).expect("unwind tables");
        let code = binary.bytes_at(start, size).expect("code");
        let callees = callees(Machine::X86_64, code, start);
        let landings: Vec<u64> = callees.iter().flat_map(|callee| found(&binary, callee.0)).collect();
        let [landing] = landings[..] else { panic!("{name}: {landings:x?}") };
        let (instruction, before) = listing(libc.trim(), landing);
        assert!(instruction.contains("jmp"), "{name}");
        let guarded = |function: &Vaddr| {
            let (start, size) = code_range(&binary, *function).expect("unwind tables");
            restores_guarded_buffer(Machine::X86_64, binary.bytes_at(start, size).expect("code"), start)
        };
        assert_eq!(callees.iter().filter(|callee| guarded(callee)).count(), 1, "{name}");
        assert!(before.contains("%fs:0x30") || before.contains("(%rdi)"), "{before}");
    }
}

#[test]
fn what_a_program_imports_is_what_nm_calls_undefined() {
    let libc = run("gcc", &["-print-file-name=libgcc_s.so.1"]);
    let binary = Binary::open(Path::new(libc.trim())).expect("libgcc_s is installed");
    let undefined = run("nm", &["-D", "--undefined-only", "--without-symbol-versions", libc.trim()]);
    let names: Vec<&str> = undefined.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(names.contains(&"abort"), "{names:?}");
    assert!(names.iter().all(|name| binary.imports(&[name])));
    assert!(!binary.imports(&["_Unwind_Resume", "longjmp"]));
}
