//! The registers of the probed thread, by their role.

use aya_ebpf::{EbpfContext, helpers::bpf_probe_read_kernel, programs::ProbeContext};
use probe_ebpf::abi::Registers;

/// Linux x86-64: `struct pt_regs`, arch/x86/include/asm/ptrace.h. 8-byte words.
#[cfg(bpf_target_arch = "x86_64")]
mod word {
    pub(super) const GO_G: usize = 1; // r14
    pub(super) const ARGUMENTS: [usize; 2] = [14, 13]; // rdi, rsi
    pub(super) const SAVED: [usize; 5] = [5, 3, 2, 1, 0]; // rbx, r12, r13, r14, r15
    pub(super) const FP: usize = 4; // rbp
    pub(super) const IP: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const SP: usize = 19;
}

/// Linux arm64: `struct user_pt_regs`, arch/arm64/include/uapi/asm/ptrace.h. Untested.
#[cfg(bpf_target_arch = "aarch64")]
mod word {
    pub(super) const GO_G: usize = 28;
    pub(super) const ARGUMENTS: [usize; 2] = [0, 1];
    pub(super) const SAVED: [usize; 5] = [30, 19, 20, 21, 22];
    pub(super) const FP: usize = 29;
    pub(super) const LR: usize = 30;
    pub(super) const SP: usize = 31;
    pub(super) const IP: usize = 32;
    pub(super) const FLAGS: usize = 33;
}

#[inline(always)]
fn word(ctx: &ProbeContext, index: usize) -> u64 {
    // SAFETY: the context of a uprobe program is a `struct pt_regs`, of which `index` is a word; the verifier checks it.
    unsafe { ctx.as_ptr().cast::<u64>().add(index).read_volatile() }
}

#[inline(always)]
pub(crate) fn sp(ctx: &ProbeContext) -> u64 {
    word(ctx, word::SP)
}

#[inline(always)]
pub(crate) fn ip(ctx: &ProbeContext) -> u64 {
    word(ctx, word::IP)
}

#[inline(always)]
pub(crate) fn frame_pointer(ctx: &ProbeContext) -> u64 {
    word(ctx, word::FP)
}

#[inline(always)]
pub(crate) fn flags(ctx: &ProbeContext) -> u64 {
    word(ctx, word::FLAGS)
}

/// The first or second argument of a C function, at its entry.
#[inline(always)]
pub(crate) fn argument<const N: usize>(ctx: &ProbeContext) -> u64 {
    word(ctx, word::ARGUMENTS[N])
}

/// What unwinding starts from.
#[inline(always)]
pub(crate) fn all(ctx: &ProbeContext) -> Registers {
    Registers { ip: ip(ctx), sp: sp(ctx), fp: frame_pointer(ctx), saved: word::SAVED.map(|index| word(ctx, index)) }
}

/// Go's ABIInternal keeps the running g there.
#[inline(always)]
pub(crate) fn go_g(ctx: &ProbeContext) -> u64 {
    word(ctx, word::GO_G)
}

/// Where the function that was just entered will return to.
#[inline(always)]
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) fn return_address(ctx: &ProbeContext) -> Option<u64> {
    crate::memory::user(sp(ctx))
}

#[inline(always)]
#[cfg(bpf_target_arch = "aarch64")]
pub(crate) fn return_address(ctx: &ProbeContext) -> Option<u64> {
    Some(word(ctx, word::LR))
}

/// The register at a byte offset in `struct pt_regs` that is not known at compile time (a context may be read
/// directly at constant offsets only).
#[inline(always)]
pub(crate) fn at(ctx: &ProbeContext, offset: u32) -> Option<u64> {
    let address = ctx.as_ptr() as u64 + u64::from(offset & 0xff);
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()
}
