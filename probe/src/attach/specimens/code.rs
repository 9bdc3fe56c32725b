//! The specimens' code.
#![expect(unsafe_code, reason = "functions in assembly")]

use std::arch::global_asm;

// `probe_specimen_run(around, function, calls, g, frame)` fills registers, Go's g and the frame pointer among them, and
// calls `around`: that calls `function` as often as is wanted. There are two of them, for a probe on one.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.probe_specimens, \"ax\", @progbits",
    ".macro probe_specimen name",
    ".globl probe_specimen_\\name",
    ".hidden probe_specimen_\\name",
    ".type probe_specimen_\\name, @function",
    "probe_specimen_\\name:",
    ".endm",
    ".p2align 4",
    "probe_specimen nop",
    ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "probe_specimen nop_exit",
    "ret",
    ".p2align 4",
    "probe_specimen emulated",
    "push rbx",
    "pop rbx",
    "probe_specimen emulated_exit",
    "ret",
    ".p2align 4",
    "probe_specimen stepped",
    "lea rax, [rdi + rdi]",
    "probe_specimen stepped_exit",
    "ret",
    ".p2align 4",
    "probe_specimen jumps",
    "push rbx",
    "pop rbx",
    "probe_specimen jumps_exit",
    "jmp probe_specimen_open_exit",
    ".p2align 4",
    "probe_specimen open",
    "push rbx",
    "pop rbx",
    "probe_specimen open_exit",
    "ret",
    ".p2align 4",
    "probe_specimen point",
    "lea rax, [rdi + rdi]",
    "probe_specimen point_exit",
    "ret",
    ".macro probe_specimen_calls name",
    ".p2align 4",
    "probe_specimen \\name",
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
    ".p2align 4",
    "probe_specimen run",
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
    ".pushsection .text.probe_specimens, \"ax\", @progbits",
    ".macro probe_specimen name",
    ".globl probe_specimen_\\name",
    ".hidden probe_specimen_\\name",
    ".type probe_specimen_\\name, @function",
    "probe_specimen_\\name:",
    ".endm",
    ".p2align 4",
    "probe_specimen nop",
    "nop",
    "probe_specimen nop_exit",
    "ret",
    ".p2align 4",
    "probe_specimen emulated",
    "b 2f",
    "2:",
    "probe_specimen emulated_exit",
    "ret",
    ".p2align 4",
    "probe_specimen stepped",
    "add x0, x0, x0",
    "probe_specimen stepped_exit",
    "ret",
    ".p2align 4",
    "probe_specimen jumps",
    "b 2f",
    "2:",
    "probe_specimen jumps_exit",
    "b probe_specimen_open_exit",
    ".p2align 4",
    "probe_specimen open",
    "b 2f",
    "2:",
    "probe_specimen open_exit",
    "ret",
    ".p2align 4",
    "probe_specimen point",
    "add x0, x0, x0",
    "probe_specimen point_exit",
    "ret",
    ".macro probe_specimen_calls name",
    ".p2align 4",
    "probe_specimen \\name",
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
    ".p2align 4",
    "probe_specimen run",
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
