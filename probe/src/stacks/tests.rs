//! Stacks made by hand.

use probe_ebpf::abi::{COPY_UNREADABLE, COPY_WHOLE};

use super::*;

const SP: u64 = 0x7ffc_0000_1000;

fn copy(bytes: &[u8], fp: u64, detail: u16) -> StackCopy<'_> {
    StackCopy {
        registers: abi::Registers { ip: 0x1000, sp: SP, fp, saved: [0; 5] },
        bytes,
        outer: OuterStack::default(),
        hidden: HiddenReturns::default(),
        detail,
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// All code follows frame pointers, but for addresses of the other kinds.
fn unwound(stack: &StackCopy<'_>, most: usize, others: &[(u64, Step)]) -> (Vec<u64>, Option<Cut>) {
    let mut callers = Vec::new();
    let step = |address: CodeAddress| {
        let other = others.iter().find(|(ip, _)| *ip == address.ip().0);
        other.map_or(Step::FramePointer, |(_, step)| step.clone())
    };
    let cut = Unwinder::default().unwind(stack, most, &mut { step }, &mut callers);
    (callers.into_iter().map(|caller| caller.ip().0).collect(), cut)
}

/// The entry of a function that a chain of three frames has called: the return address, and two frames.
fn chain() -> Vec<u8> {
    words(&[0x2000, 7, SP + 32, 0, SP + 48, 0x3000, 0, 0x4000])
}

#[test]
fn at_an_entry_the_word_on_the_stack_is_the_first_caller() {
    // The frame pointer is the caller's: its frame is at SP + 32, and the next at SP + 48.
    let bytes = chain();
    let stack = copy(&bytes, SP + 32, COPY_WHOLE | COPY_AT_ENTRY);
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000, 0x4000], None));
}

#[test]
fn where_a_return_probe_stands_the_caller_is_what_the_kernel_has_kept_of_it() {
    const PROBE: u64 = (1 << 47) - 0x2000;
    let bytes = words(&[PROBE, 7, SP + 32, 0, SP + 48, PROBE, 0, 0x4000]);
    // The last is out of date: another frame has taken its place.
    let hidden = words(&[SP, 0x2000, SP + 40, 0x3000, SP + 56, 0x5000]);
    let stack =
        StackCopy { hidden: HiddenReturns::of(&hidden, 3), ..copy(&bytes, SP + 32, COPY_WHOLE | COPY_AT_ENTRY) };
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000, 0x4000], None));
    // Of the second nothing is known.
    let stack = StackCopy { hidden: HiddenReturns::of(&hidden, 1), ..stack };
    assert_eq!(unwound(&stack, 2, &[]).0, [0x2000, PROBE]);
}

#[test]
fn at_a_point_the_chain_begins_with_the_functions_own_frame() {
    let bytes = chain();
    let stack = copy(&bytes, SP + 32, COPY_WHOLE);
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x3000, 0x4000], None));
}

#[test]
fn a_stack_ends_at_code_that_nothing_calls() {
    let bytes = chain();
    let stack = copy(&bytes, SP + 32, COPY_WHOLE | COPY_AT_ENTRY);
    assert_eq!(unwound(&stack, 9, &[(0x3000, Step::End)]), (vec![0x2000, 0x3000], None));
    // As many as wanted, and there would be no more.
    assert_eq!(unwound(&stack, 2, &[(0x3000, Step::End)]), (vec![0x2000, 0x3000], None));
    assert_eq!(unwound(&stack, 2, &[]), (vec![0x2000, 0x3000], Some(Cut::Depth)));
}

#[test]
fn at_the_base_of_the_stack_a_program_begins_and_has_no_callers() {
    assert_eq!(unwound(&copy(&[], 0, COPY_WHOLE | COPY_AT_ENTRY), 9, &[]), (vec![], None));
    assert_eq!(unwound(&copy(&[], 0, COPY_UNREADABLE | COPY_AT_ENTRY), 9, &[]), (vec![], Some(Cut::Unreadable)));
}

#[test]
fn a_cut_stack_keeps_what_is_true_and_says_why() {
    let bytes = chain();
    let stack = copy(&bytes, SP + 32, COPY_WHOLE | COPY_AT_ENTRY);
    let cut = Step::Cut(Cut::NoRules);
    assert_eq!(unwound(&stack, 9, &[(0x3000, cut)]), (vec![0x2000, 0x3000], Some(Cut::NoRules)));
}

#[test]
fn what_lies_behind_the_copy_is_told_from_what_could_not_be_read() {
    let bytes = chain();
    for (detail, cut) in
        [(COPY_LIMIT, Cut::CopyTooShort), (COPY_UNREADABLE, Cut::Unreadable), (COPY_WHOLE, Cut::Unreadable)]
    {
        for len in 32..48 {
            let stack = copy(&bytes[..len], SP + 32, detail | COPY_AT_ENTRY);
            assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000], Some(cut)), "{len} bytes");
        }
    }
    // Another stack altogether.
    let stack = copy(&bytes, 0x10_0000, COPY_LIMIT | COPY_AT_ENTRY);
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000], Some(Cut::OtherStack)));
    assert_eq!(unwound(&copy(&[], 0, COPY_LIMIT | COPY_AT_ENTRY), 9, &[]), (vec![], Some(Cut::CopyTooShort)));
}

#[test]
fn a_frame_that_does_not_lie_further_out_ends_the_walk() {
    let bytes = words(&[0x2000, 0, SP + 16, 0x3000]);
    let stack = copy(&bytes, SP + 16, COPY_WHOLE | COPY_AT_ENTRY);
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000], Some(Cut::NoRules)));
}

#[test]
fn the_stack_of_c_goes_on_in_that_of_the_goroutine_which_called_it_though_it_lies_lower() {
    const GO: u64 = 0xc000_0000_2000;
    let (c, go) = (words(&[0x2000, 0, 0]), words(&[9, 9, GO + 32, 0x3000, 0, 0x4000]));
    let mut stack = copy(&c, GO + 16, COPY_WHOLE | COPY_AT_ENTRY);
    stack.outer.copied = Region { start: GO, bytes: &go };
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000, 0x4000], None));
    stack.outer.copied.bytes = &go[..40];
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000], Some(Cut::CopyTooShort)));
    // Never back to where it was already.
    let back = words(&[9, 9, GO, 0x3000]);
    stack.outer.copied.bytes = &back;
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000], Some(Cut::NoRules)));
}

#[test]
fn go_that_c_called_back_leads_to_the_c_and_to_the_go_that_called_it() {
    const GO: u64 = 0xc000_0000_2000;
    // C returns into Go at 0x2000, whose frame's caller on the thread's stack pushed rbp twice, and was called by C.
    let c = words(&[0x2000, 0, 0, SP + 40, 0x3800, SP + 48, GO + 16, 0x4000]);
    let go = words(&[SP + 24, 0x3000, 0, 0x5000]);
    let mut stack = copy(&c, GO, COPY_WHOLE | COPY_AT_ENTRY);
    stack.outer.copied = Region { start: GO, bytes: &go };
    assert_eq!(unwound(&stack, 9, &[]), (vec![0x2000, 0x3000, 0x3800, 0x4000, 0x5000], None));
}

#[test]
fn a_goroutines_stack_that_was_moved_while_c_ran_is_found_by_its_distance_from_the_end() {
    const GO: u64 = 0xc000_0000_2000;
    // The frame is 24 bytes below the end; rbp is where it was before the stack was moved.
    let (c, go) = (words(&[0x2000, 24, 0xc000_0000_0100, 0]), words(&[9, 0, 0x3000, 0, 0]));
    let mut stack = copy(&c, 0xc000_0000_0900, COPY_WHOLE | COPY_AT_ENTRY);
    stack.outer = OuterStack { copied: Region { start: GO, bytes: &go }, end: GO + 32 };
    let switch = [(0x2000, Step::SwitchOfStacks)];
    assert_eq!(unwound(&stack, 9, &switch), (vec![0x2000, 0x3000], None));
}

#[test]
fn behind_a_signals_trampoline_stands_what_was_interrupted() {
    // The handler returns to 0x5000; there stands the ucontext_t: 40 bytes, then the registers.
    let mut context = vec![0x5000, 0, 0, 0, 0, 0];
    let interrupted_fp = SP + 8 * 24;
    context.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, interrupted_fp, 0, 0, 0, 0, SP + 8 * 23, 0x6000, 0]);
    context.extend([0, 0x7000]);
    let bytes = words(&context);
    let stack = copy(&bytes, 1, COPY_WHOLE | COPY_AT_ENTRY);
    let mut callers = Vec::new();
    let mut step = |address: CodeAddress| if address.ip().0 == 0x5000 { Step::Signal } else { Step::FramePointer };
    let cut = Unwinder::default().unwind(&stack, 9, &mut step, &mut callers);
    let expected = [CodeAddress::after_call(0x5000), CodeAddress::exact(0x6000), CodeAddress::after_call(0x7000)];
    assert_eq!((callers.as_slice(), cut), (&expected[..], None));
    // It is in the instruction at 0x6000, and not in the one before.
    assert_eq!(expected.map(|address| address.for_lookup().0), [0x4fff, 0x6000, 0x6fff]);
}

#[test]
fn code_is_asked_for_once_unless_it_may_be_known_later() {
    let bytes = chain();
    let stack = copy(&bytes, SP + 32, COPY_WHOLE | COPY_AT_ENTRY);
    let (mut asked, mut callers) = (Vec::new(), Vec::new());
    let mut unwinder = Unwinder::default();
    for _ in 0..3 {
        let mut step = |address: CodeAddress| {
            asked.push(address.ip().0);
            if address.ip().0 == 0x3000 { Step::Cut(Cut::UnknownCode) } else { Step::FramePointer }
        };
        assert_eq!(unwinder.unwind(&stack, 9, &mut step, &mut callers), Some(Cut::UnknownCode));
    }
    assert_eq!(asked, [0x2000, 0x3000, 0x3000, 0x3000]);
}
