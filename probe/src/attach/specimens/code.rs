//! The specimens' code.
#![expect(unsafe_code, reason = "functions in assembly")]

use std::arch::global_asm;

/// What both architectures' code begins with. `probe_specimen` names the place that follows, `probe_specimen_starts` a
/// function's first.
macro_rules! head {
    () => {
        r#"
        .pushsection .text.probe_specimens, "ax", @progbits
        .macro probe_specimen name
        .globl probe_specimen_\name
        .hidden probe_specimen_\name
        .type probe_specimen_\name, @function
        probe_specimen_\name:
        .endm
        .macro probe_specimen_starts name
        .p2align 4
        probe_specimen \name
        .endm
        "#
    };
}

// `probe_specimen_run(around, function, calls, g, frame)` fills registers, Go's g and the frame pointer among them, and
// calls `around`: that calls `function` as often as is wanted. There are two of them, for a probe on one.
#[cfg(target_arch = "x86_64")]
global_asm!(
    head!(),
    "probe_specimen_starts nop",
    ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "probe_specimen nop_exit",
    "ret",
    "probe_specimen_starts emulated",
    "push rbx",
    "pop rbx",
    "probe_specimen emulated_exit",
    "ret",
    "probe_specimen_starts stepped",
    "lea rax, [rdi + rdi]",
    "probe_specimen stepped_exit",
    "ret",
    "probe_specimen_starts jumps",
    "push rbx",
    "pop rbx",
    "probe_specimen jumps_exit",
    "jmp probe_specimen_open_exit",
    "probe_specimen_starts open",
    "push rbx",
    "pop rbx",
    "probe_specimen open_exit",
    "ret",
    "probe_specimen_starts point",
    "lea rax, [rdi + rdi]",
    "probe_specimen point_exit",
    "ret",
    ".macro probe_specimen_calls name",
    "probe_specimen_starts \\name",
    "push rax",
    "2: call r12",
    "dec rbx",
    "jnz 2b",
    "pop rax",
    "probe_specimen \\name\\()_exit",
    "ret",
    ".endm",
    "probe_specimen_calls around",
    "probe_specimen_calls traced_around",
    "probe_specimen_starts run",
    "push rbp",
    "push rbx",
    "push r12",
    "push r14",
    "push rax",
    "mov r12, rsi",
    "mov rbx, rdx",
    "mov r14, rcx",
    "mov rbp, r8",
    "call rdi",
    "pop rax",
    "pop r14",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".popsection",
);

// Untested. A branch stands for what the kernel carries out itself: it does so in every version.
#[cfg(target_arch = "aarch64")]
global_asm!(
    head!(),
    "probe_specimen_starts nop",
    "nop",
    "probe_specimen nop_exit",
    "ret",
    "probe_specimen_starts emulated",
    "b 2f",
    "2:",
    "probe_specimen emulated_exit",
    "ret",
    "probe_specimen_starts stepped",
    "add x0, x0, x0",
    "probe_specimen stepped_exit",
    "ret",
    "probe_specimen_starts jumps",
    "b 2f",
    "2:",
    "probe_specimen jumps_exit",
    "b probe_specimen_open_exit",
    "probe_specimen_starts open",
    "b 2f",
    "2:",
    "probe_specimen open_exit",
    "ret",
    "probe_specimen_starts point",
    "add x0, x0, x0",
    "probe_specimen point_exit",
    "ret",
    ".macro probe_specimen_calls name",
    "probe_specimen_starts \\name",
    "str x30, [sp, #-16]!",
    "2: blr x19",
    "subs x20, x20, #1",
    "b.ne 2b",
    "ldr x30, [sp], #16",
    "probe_specimen \\name\\()_exit",
    "ret",
    ".endm",
    "probe_specimen_calls around",
    "probe_specimen_calls traced_around",
    "probe_specimen_starts run",
    "stp x29, x30, [sp, #-48]!",
    "stp x19, x20, [sp, #16]",
    "str x28, [sp, #32]",
    "mov x19, x1",
    "mov x20, x2",
    "mov x28, x3",
    "mov x29, x4",
    "blr x0",
    "ldr x28, [sp, #32]",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #48",
    "ret",
    ".popsection",
);

/// Never called from here: places in code.
pub(super) type Code = unsafe extern "C" fn();

unsafe extern "C" {
    pub(super) fn probe_specimen_nop();
    pub(super) fn probe_specimen_nop_exit();
    pub(super) fn probe_specimen_emulated();
    pub(super) fn probe_specimen_emulated_exit();
    pub(super) fn probe_specimen_stepped();
    pub(super) fn probe_specimen_stepped_exit();
    pub(super) fn probe_specimen_jumps();
    pub(super) fn probe_specimen_jumps_exit();
    pub(super) fn probe_specimen_open();
    pub(super) fn probe_specimen_open_exit();
    pub(super) fn probe_specimen_point();
    pub(super) fn probe_specimen_point_exit();
    pub(super) fn probe_specimen_around();
    pub(super) fn probe_specimen_traced_around();
    pub(super) fn probe_specimen_traced_around_exit();
    pub(super) fn probe_specimen_run(around: Code, function: Code, calls: u64, g: *const u64, frame: *const [u64; 2]);
}
