//! Hand-encoded functions, one for each way in which code can be awkward to probe. The bytes were checked against
//! `objdump -d`; the expectations follow from the instruction set and from `docs/uprobes.md`.

use proptest::prelude::*;
use symbols::addr::Vaddr;
use symbols::binary::Machine;
use symbols::code::{
    Body, Condition, EntryCost, Exit, ExitKind, JumpOperand, Place, Refusal, Shape, calls_to, place, refusal, shape,
};

const START: u64 = 0x1000;

fn c(code: &[u8]) -> Body<'_> {
    Body { machine: Machine::X86_64, address: Vaddr(START), code, parts: Vec::new(), is_go: false, go_asm: false }
}

fn go(code: &[u8]) -> Body<'_> {
    Body { is_go: true, ..c(code) }
}

/// Every place outside is a function's start.
fn shape_of(body: &Body<'_>) -> Shape {
    shape(body, &|_| true)
}

/// (offset, cost, may_repeat) of the entry probe.
fn entry(body: &Body<'_>) -> (u64, EntryCost, bool) {
    let e = shape_of(body).entry.expect("these functions have an entry place");
    (e.address.0 - START, e.cost, e.may_repeat)
}

fn exit(offset: u64, kind: ExitKind) -> Exit {
    Exit { address: Vaddr(START + offset), kind }
}

fn exits(body: &Body<'_>) -> Vec<Exit> {
    shape_of(body).exits
}

use EntryCost::{Emulated, Nop, SingleStep};
use ExitKind::{IndirectJump, Return, TailJump};

#[test]
fn a_push_is_probed_where_it_stands() {
    assert_eq!(entry(&c(&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3])), (0, Emulated, false));
}

#[test]
fn push_after_endbr64_is_cheaper() {
    // endbr64; push %rbp; pop %rbp; ret
    assert_eq!(entry(&c(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x5d, 0xc3])), (4, Emulated, false));
}

#[test]
fn patchable_function_entry_costs_no_trap() {
    assert_eq!(entry(&c(&[0x0f, 0x1f, 0x44, 0x00, 0x00, 0x55, 0x5d, 0xc3])), (0, Nop, false));
}

#[test]
fn push_after_moves_of_other_registers() {
    // mov %edi,%ebx-free form: mov 0x10(%rdi),%r11; push %r12; pop %r12; ret
    assert_eq!(entry(&c(&[0x4c, 0x8b, 0x5f, 0x10, 0x41, 0x54, 0x41, 0x5c, 0xc3])), (4, Emulated, false));
}

#[test]
fn an_argument_written_before_the_push_keeps_the_probe_at_the_entry() {
    // mov %esi,%edi; push %rbx; pop %rbx; ret
    assert_eq!(entry(&c(&[0x89, 0xf7, 0x53, 0x5b, 0xc3])), (0, SingleStep, false));
    // xor %eax,%eax: al counts the vector arguments of a variadic call
    assert_eq!(entry(&c(&[0x31, 0xc0, 0x53, 0x5b, 0xc3])), (0, SingleStep, false));
}

#[test]
fn a_moved_stack_pointer_keeps_the_probe_at_the_entry() {
    // sub $8,%rsp; nop; add $8,%rsp; ret
    let code = [0x48, 0x83, 0xec, 0x08, 0x90, 0x48, 0x83, 0xc4, 0x08, 0xc3];
    assert_eq!(entry(&c(&code)), (0, SingleStep, false));
}

#[test]
fn a_branch_into_the_prologue_keeps_the_probe_before_it() {
    // 0: lea (%rdi),%r11; 3: lea 1(%r11),%r11; 7: jne 3; 9: ret. The jne is emulated but hit once a round.
    let code = [0x4c, 0x8d, 0x1f, 0x4d, 0x8d, 0x5b, 0x01, 0x75, 0xfa, 0xc3];
    assert_eq!(entry(&c(&code)), (0, SingleStep, false));
}

#[test]
fn a_loop_to_the_entry_may_repeat() {
    // 0: lea 1(%r11),%r11; 4: jne 0; 6: ret
    assert_eq!(entry(&c(&[0x4d, 0x8d, 0x5b, 0x01, 0x75, 0xfa, 0xc3])), (4, Emulated, true));
    // 0: push %rbx; 1: jne 0; 3: ret
    assert_eq!(entry(&c(&[0x53, 0x75, 0xfd, 0xc3])), (0, Emulated, true));
}

#[test]
fn recursion_does_not_repeat() {
    // push %rbx; call self; pop %rbx; ret
    assert_eq!(entry(&c(&[0x53, 0xe8, 0xfa, 0xff, 0xff, 0xff, 0x5b, 0xc3])), (0, Emulated, false));
}

#[test]
fn a_vex_first_instruction_is_passed_over() {
    // vxorps %xmm8,%xmm8,%xmm8; push %rbx; pop %rbx; ret
    assert_eq!(entry(&c(&[0xc4, 0x41, 0x38, 0x57, 0xc0, 0x53, 0x5b, 0xc3])), (5, Emulated, false));
    // vmovd %edi,%xmm0; movd %xmm0,%r11d; ret: nothing emulated, the second instruction will do
    assert_eq!(entry(&c(&[0xc5, 0xf9, 0x6e, 0xc7, 0x66, 0x41, 0x0f, 0x7e, 0xc3, 0xc3])), (4, SingleStep, false));
}

#[test]
fn a_function_of_evex_alone_is_refused_by_name() {
    // vaddps %zmm0,%zmm0,%zmm0 in a loop that leads back behind itself: no later place is passed once
    let code = [0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0, 0x4d, 0x8d, 0x5b, 0x01, 0x75, 0xfa, 0xc3];
    let why = shape_of(&c(&code)).entry.unwrap_err();
    assert!(why.to_string().contains("EVEX-encoded"), "{why}");
}

#[test]
fn pushf_is_never_probed() {
    // pushf; pop %r11; ret
    assert_eq!(shape_of(&c(&[0x9c, 0x41, 0x5b, 0xc3])).entry, Err(Refusal::BreaksTarget("pushf")));
}

#[test]
fn a_repeated_string_instruction_is_the_last_choice() {
    // rep stosb; ret
    assert_eq!(entry(&c(&[0xf3, 0xaa, 0xc3])), (0, SingleStep, true));
    // endbr64; rep stosb; ret
    assert_eq!(entry(&c(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf3, 0xaa, 0xc3])), (0, SingleStep, false));
}

#[test]
fn a_conditional_tail_call_is_not_the_entry_place() {
    // test %edi,%edi; je 0x2000; ret
    let code = [0x85, 0xff, 0x0f, 0x84, 0xf8, 0x0f, 0x00, 0x00, 0xc3];
    assert_eq!(entry(&c(&code)), (0, SingleStep, false));
}

#[test]
fn calls_are_found_by_their_target() {
    // call 0x2000; call 0x3000; call *%rax; call 0x2000; jmp 0x2000
    let code =
        [0xe8, 0xfb, 0x0f, 0, 0, 0xe8, 0xf6, 0x1f, 0, 0, 0xff, 0xd0, 0xe8, 0xef, 0x0f, 0, 0, 0xe9, 0xea, 0x0f, 0, 0];
    let calls = calls_to(Machine::X86_64, &code, Vaddr(START), Vaddr(0x2000));
    assert_eq!(calls, [Vaddr(START), Vaddr(START + 12)]);
}

proptest! {
    /// Whatever the bytes are: places lie in the function, are instructions, and are in order.
    #[test]
    fn any_bytes_give_places_inside(
        code in prop::collection::vec(any::<u8>(), 0..300),
        cold in prop::collection::vec(any::<u8>(), 0..60),
        is_go in any::<bool>(),
        go_asm in any::<bool>(),
    ) {
        let parts = vec![(Vaddr(START + 0x4000), &cold[..])];
        let body = Body { parts, is_go, go_asm: is_go && go_asm, ..c(&code) };
        let found = shape(&body, &|v| v.0 % 2 == 0);
        let held = |v: Vaddr| {
            let inside = |start: u64, len: usize| v.0 >= start && v.0 - start < len as u64;
            inside(START, code.len()) || inside(START + 0x4000, cold.len())
        };
        if let Ok(entry) = &found.entry {
            prop_assert!(held(entry.address));
            prop_assert_eq!(place(&body, entry.address), Place::Start);
        }
        prop_assert!(found.exits.iter().all(|e| held(e.address)));
        prop_assert!(found.exits.is_sorted_by_key(|e| e.address));
        for exit in &found.exits {
            let at = (exit.address.0 - START) as usize;
            let bytes = code.get(at..).unwrap_or_else(|| &cold[at - 0x4000..]);
            prop_assert_eq!(refusal(Machine::X86_64, bytes, exit.address), Ok(()));
        }
    }
}

#[test]
fn a_function_of_one_return_is_entered_and_left_at_it() {
    assert_eq!(entry(&c(&[0xc3])), (0, SingleStep, false));
    assert_eq!(exits(&c(&[0xc3])), [exit(0, Return)]);
}

#[test]
fn all_forms_of_return_are_exits() {
    // bnd ret; rep ret; ret $8
    let code = [0xf2, 0xc3, 0xf3, 0xc3, 0xc2, 0x08, 0x00];
    assert_eq!(exits(&c(&code)), [exit(0, Return), exit(2, Return), exit(4, Return)]);
}

#[test]
fn a_jump_out_is_a_tail_call_with_its_condition() {
    // test %edi,%edi; jle 0x2000; jmp 0x3000
    let code = [0x85, 0xff, 0x0f, 0x8e, 0xf8, 0x0f, 0x00, 0x00, 0xe9, 0xf3, 0x1f, 0x00, 0x00];
    assert_eq!(
        exits(&c(&code)),
        [
            exit(2, TailJump { target: Vaddr(0x2000), condition: Some(Condition::LessOrEqual) }),
            exit(8, TailJump { target: Vaddr(0x3000), condition: None }),
        ]
    );
    assert!(!shape_of(&c(&code)).unprobed_jumps);
}

#[test]
fn a_jump_to_no_known_function_is_probed_but_not_relied_on() {
    let code = [0xe9, 0xfb, 0x1f, 0x00, 0x00];
    let s = shape(&c(&code), &|_| false);
    assert_eq!(s.exits, [exit(0, TailJump { target: Vaddr(0x3000), condition: None })]);
    assert!(s.unprobed_jumps);
    // push %rbx; jmp 0x3000: with a register still saved it cannot be a tail call
    let s = shape(&c(&[0x53, 0xe9, 0xfa, 0x1f, 0x00, 0x00]), &|_| false);
    assert_eq!(s.exits, []);
    assert!(s.unprobed_jumps);
}

#[test]
fn jumps_to_a_cold_part_stay_inside_and_its_returns_count() {
    // 0: test %edi,%edi; 2: jne 0x2000; 8: ret; part: mov %edi,%eax; jmp 0x1008; ret
    let code = [0x85, 0xff, 0x0f, 0x85, 0xf8, 0x0f, 0x00, 0x00, 0xc3];
    let cold = [0x89, 0xf8, 0xe9, 0x01, 0xf0, 0xff, 0xff, 0xc3];
    let body = Body { parts: vec![(Vaddr(0x2000), &cold)], ..c(&code) };
    assert_eq!(exits(&body), [exit(8, Return), exit(0x1007, Return)]);
    assert_eq!(place(&body, Vaddr(0x2002)), Place::Start);
    assert_ne!(place(&body, Vaddr(0x2003)), Place::Start);
}

#[test]
fn a_cold_part_that_jumps_into_the_prologue_counts() {
    // 0: lea (%rdi),%r11; 3: lea 1(%r11),%r11; 7: jne 0x2000; 13: ret; part: jmp 0x1003
    let code = [0x4c, 0x8d, 0x1f, 0x4d, 0x8d, 0x5b, 0x01, 0x0f, 0x85, 0xf3, 0x0f, 0x00, 0x00, 0xc3];
    let cold = [0xe9, 0xfe, 0xef, 0xff, 0xff];
    let body = Body { parts: vec![(Vaddr(0x2000), &cold)], ..c(&code) };
    assert_eq!(entry(&body), (0, SingleStep, false));
}

#[test]
fn indirect_jumps_tell_where_their_target_is() {
    let indirect = |operand| vec![exit(0, IndirectJump { operand })];
    let memory = |base, index, scale, displacement, rip_relative| JumpOperand::Memory {
        base,
        index,
        scale,
        displacement,
        rip_relative,
    };
    // jmp *%rax; jmp *%r11; jmp *0x18(%rax); jmp *0x2000(,%rax,8); jmp *(%r12,%r13,2)
    assert_eq!(exits(&c(&[0xff, 0xe0])), indirect(JumpOperand::Register(0)));
    assert_eq!(exits(&c(&[0x41, 0xff, 0xe3])), indirect(JumpOperand::Register(11)));
    assert_eq!(exits(&c(&[0xff, 0x60, 0x18])), indirect(memory(Some(0), None, 1, 0x18, false)));
    let table = [0xff, 0x24, 0xc5, 0x00, 0x20, 0x00, 0x00];
    assert_eq!(exits(&c(&table)), indirect(memory(None, Some(0), 8, 0x2000, false)));
    let both = [0x43, 0xff, 0x64, 0x6c, 0xf8];
    assert_eq!(exits(&c(&both)), indirect(memory(Some(12), Some(13), 2, -8, false)));
    // bnd jmp *0x2ff9(%rip), as in a PLT
    let got = [0xf2, 0xff, 0x25, 0xf9, 0x2f, 0x00, 0x00];
    assert_eq!(exits(&c(&got)), indirect(memory(None, None, 1, 0x4000, true)));
}

#[test]
fn jump_tables_are_no_exits() {
    // push %rbx; jmp *0x2000(,%rax,8): the stack is not as at the entry
    let pushed = [0x53, 0xff, 0x24, 0xc5, 0x00, 0x20, 0x00, 0x00];
    let s = shape_of(&c(&pushed));
    assert_eq!((s.exits, s.unprobed_jumps), (vec![], true));
    // notrack jmp *%rax
    let s = shape_of(&c(&[0x3e, 0xff, 0xe0]));
    assert_eq!((s.exits, s.refused_exits, s.unprobed_jumps), (vec![], vec![], false));
    // lea 0x1000(%rip),%rdx; movslq (%rdx,%rax,4),%rax; add %rdx,%rax; jmp *%rax
    let distances = [0x48, 0x8d, 0x15, 0x00, 0x10, 0x00, 0x00, 0x48, 0x63, 0x04, 0x82, 0x48, 0x01, 0xd0, 0xff, 0xe0];
    assert_eq!(exits(&c(&distances)), []);
    // Go: lea 0x1000(%rip),%rcx; jmp *(%rcx,%rax,8)
    assert_eq!(exits(&go(&[0x48, 0x8d, 0x0d, 0x00, 0x10, 0x00, 0x00, 0xff, 0x24, 0xc1])), []);
}

#[test]
fn a_tail_call_after_the_frame_is_gone_is_an_exit() {
    // push %rbp; mov %rsp,%rbp; sub $16,%rsp; leave; jmp *%rax
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0xc9, 0xff, 0xe0];
    assert_eq!(exits(&c(&code)), [exit(9, IndirectJump { operand: JumpOperand::Register(0) })]);
    // push %rbx; sub $8,%rsp; add $8,%rsp; pop %rbx; jmp *%rax
    let code = [0x53, 0x48, 0x83, 0xec, 0x08, 0x48, 0x83, 0xc4, 0x08, 0x5b, 0xff, 0xe0];
    assert_eq!(exits(&c(&code)), [exit(10, IndirectJump { operand: JumpOperand::Register(0) })]);
}

#[test]
fn a_jump_table_makes_a_place_behind_unpushed_code_uncertain() {
    // 0: lea (%rdi),%r11; 3: je 7; 5: jmp *%r11; 7: ret. A table might lead to 3.
    let code = [0x4c, 0x8d, 0x1f, 0x74, 0x03, 0x41, 0xff, 0xe3, 0xc3];
    assert_eq!(entry(&c(&code)), (0, SingleStep, true));
}

#[test]
fn counted_jumps_out_are_said_to_be_unprobed() {
    // jrcxz out; ret
    let s = shape_of(&c(&[0xe3, 0x40, 0xc3]));
    assert_eq!(s.exits, [exit(2, Return)]);
    assert!(s.unprobed_jumps);
    // loop to itself stays inside
    assert!(!shape_of(&c(&[0xe2, 0xfe, 0xc3])).unprobed_jumps);
}

#[test]
fn an_exit_that_the_kernel_refuses_is_named() {
    // branch hint: cs jne 0x2000; ret
    let s = shape_of(&c(&[0x2e, 0x0f, 0x85, 0xf9, 0x0f, 0x00, 0x00, 0xc3]));
    assert_eq!(s.refused_exits, [(Vaddr(START), Refusal::Prefix("cs"))]);
    assert_eq!(s.exits, [exit(7, Return)]);
    assert!(s.unprobed_jumps);
}

#[test]
fn running_on_into_the_next_function_is_said() {
    assert!(shape_of(&c(&[0x89, 0xf8])).unprobed_jumps);
    // padding, a call that never returns, ud2
    assert!(!shape_of(&c(&[0xc3, 0x66, 0x90])).unprobed_jumps);
    assert!(!shape_of(&c(&[0xe8, 0x00, 0x10, 0x00, 0x00])).unprobed_jumps);
    assert!(!shape_of(&c(&[0x0f, 0x0b])).unprobed_jumps);
}

#[test]
fn data_between_instructions_is_never_probed() {
    // 0: jmp 5; 2: data `06 c3 c3`; 5: ret. 06 is no instruction; the c3 in the data are no returns.
    let s = shape_of(&c(&[0xeb, 0x03, 0x06, 0xc3, 0xc3, 0xc3]));
    assert_eq!(s.exits, [exit(5, Return)]);
    assert!(s.unprobed_jumps);
    assert_eq!(place(&c(&[0xeb, 0x03, 0x06, 0xc3, 0xc3, 0xc3]), Vaddr(START + 3)), Place::Unknown);
    let inside = Place::Inside { begin: Vaddr(START), end: Vaddr(START + 2) };
    assert_eq!(place(&c(&[0xeb, 0x03]), Vaddr(START + 1)), inside);
}

#[test]
fn no_code_is_refused() {
    assert_eq!(shape_of(&c(&[])).entry, Err(Refusal::NoCode));
    assert_eq!(shape_of(&c(&[0x06])).entry, Err(Refusal::Undecodable));
}

/// The slow path of a Go stack check: call, then back to the entry `n` bytes before.
fn with_slow_path(prologue: &[u8]) -> Vec<u8> {
    let mut code = prologue.to_vec();
    code.extend([0x55, 0x5d, 0xc3, 0xe8, 0x00, 0x10, 0x00, 0x00]);
    let back = u8::try_from(code.len() + 2).expect("short code").wrapping_neg();
    code.extend([0xeb, back]);
    code
}

#[test]
fn go_is_probed_after_its_stack_check() {
    let cases: &[(&str, &[u8])] = &[
        ("small: cmp 0x10(%r14),%rsp; jbe", &[0x49, 0x3b, 0x66, 0x10, 0x76, 0x03]),
        ("system stack: cmp 0x18(%r14),%rsp; jbe", &[0x49, 0x3b, 0x66, 0x18, 0x76, 0x03]),
        (
            "large: lea -0x80(%rsp),%r12; cmp 0x10(%r14),%r12; jbe",
            &[0x4c, 0x8d, 0x64, 0x24, 0x80, 0x4d, 0x3b, 0x66, 0x10, 0x76, 0x03],
        ),
        (
            "huge: mov %rsp,%r12; sub $0x10000,%r12; jb; cmp 0x10(%r14),%r12; jbe",
            &[
                0x49, 0x89, 0xe4, 0x49, 0x81, 0xec, 0x00, 0x00, 0x01, 0x00, 0x72, 0x09, 0x4d, 0x3b, 0x66, 0x10, 0x76,
                0x03,
            ],
        ),
        (
            "assembly: mov %fs:-8,%rcx; cmp 0x10(%rcx),%rsp; jbe",
            &[0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff, 0xff, 0xff, 0x48, 0x3b, 0x61, 0x10, 0x76, 0x03],
        ),
        (
            "assembly, PIE: mov 0x1000(%rip),%rcx; mov %fs:(%rcx),%rcx; cmp 0x10(%rcx),%rsp; jbe",
            &[0x48, 0x8b, 0x0d, 0x00, 0x10, 0x00, 0x00, 0x64, 0x48, 0x8b, 0x09, 0x48, 0x3b, 0x61, 0x10, 0x76, 0x03],
        ),
    ];
    for (name, prologue) in cases {
        let code = with_slow_path(prologue);
        assert_eq!(entry(&go(&code)), (prologue.len() as u64, Emulated, false), "{name}");
    }
}

#[test]
fn go_without_a_recognised_check_may_repeat() {
    // test %r14,%r14; jbe slow: no stack check
    let code = with_slow_path(&[0x4d, 0x85, 0xf6, 0x76, 0x03]);
    assert_eq!(entry(&go(&code)), (3, Emulated, true));
}

#[test]
fn point_probes_are_checked_by_instruction() {
    let refused: &[(&[u8], &str)] = &[
        (&[0xf0, 0x01, 0x18], "lock prefix"),
        (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], "cs prefix"),
        (&[0x66, 0xe9, 0, 0, 0, 0], "16-bit operand"),
        (&[0xcc], "int3"),
        (&[0xcd, 0x80], "int"),
        (&[0xf4], "hlt"),
        (&[0xc5, 0xf8, 0x77], "VEX"),
        (&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0], "EVEX"),
        (&[0x0f, 0x05], "syscall"),
        (&[0x0f, 0x34], "sysenter"),
        (&[0xc7, 0xf8, 0, 0, 0, 0], "xbegin"),
        (&[0x8e, 0xd0], "ss"),
        (&[0x48, 0xcb], "retf"),
        (&[0x49, 0x90], "xchg"),
        (&[0x06], "no instruction"),
        (&[0x48], "no instruction"),
        (&[], "no instruction"),
    ];
    for (code, part) in refused {
        let why = refusal(Machine::X86_64, code, Vaddr(START)).unwrap_err().to_string();
        assert!(why.contains(part), "{code:x?}: {why}");
    }
    let taken: &[&[u8]] = &[&[0xc3], &[0x90], &[0x48, 0x90], &[0x0f, 0x0b], &[0x66, 0x0f, 0x38, 0, 0xc0], &[0x9d]];
    for code in taken {
        assert_eq!(refusal(Machine::X86_64, code, Vaddr(START)), Ok(()), "{code:x?}");
    }
}
